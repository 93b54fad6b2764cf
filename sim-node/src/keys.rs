//! Authentication of what a node sends and hears, by the product's own keys ([`ptp_agent::security`]): each port
//! signs with its own key, as ptp4l's ports may, and all are judged by one file.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use ptp_agent::security::{
    Associations, Policy,
    file::{Choice, parse},
};
use ptp_common::{
    time::{Mono, Time},
    wire::{AuthenticationView, MessageView},
};

use crate::settings::Signing;

/// The longest message.
const ROOM: usize = 1500;

/// See the module's paragraph.
#[derive(Debug)]
pub(crate) struct Keys {
    /// By port; the last one is of local sockets.
    ports: Vec<Associations>,
}

impl Keys {
    /// # Errors
    /// What is wrong in the file.
    pub(crate) fn new(signing: &Signing) -> Result<Self> {
        let port = |key_id: &Option<u32>| {
            let choice = Choice { spp: signing.spp, key_id: *key_id };
            let keys = Arc::new(parse(&signing.keys, choice).context("sa_file")?);
            Ok(Associations::new(Policy { keys, is_required: true, domains: Vec::new() }))
        };
        Ok(Self { ports: signing.key_ids.iter().map(port).collect::<Result<_>>()? })
    }

    /// What a port has heard, without its signature; `None` where it may not pass.
    pub(crate) fn open(&mut self, now: Time<Mono>, port: u16, bytes: &[u8]) -> Option<Vec<u8>> {
        let keys = self.ports.get_mut(usize::from(port))?;
        keys.open(now, port.into(), bytes).ok()?;
        Some(bare(bytes))
    }

    /// As [`Self::open`], on a local socket.
    pub(crate) fn open_local(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.ports.last()?.open_local(bytes).ok()?;
        Some(bare(bytes))
    }

    /// What a port sends, signed; `None`: by local sockets.
    pub(crate) fn seal(&self, port: Option<u16>, message: &[u8]) -> Vec<u8> {
        let keys = match port {
            Some(port) => self.ports.get(usize::from(port)),
            None => self.ports.last(),
        };
        let mut room = [0; ROOM];
        let signed = keys.and_then(|keys| keys.seal(message, &mut room).ok());
        signed.unwrap_or(message).to_vec()
    }
}

/// A message as it was before it was signed.
fn bare(bytes: &[u8]) -> Vec<u8> {
    let view = MessageView::new(bytes).ok();
    let signed = view.and_then(|view| AuthenticationView::of(&view).ok().flatten());
    let Some(signed) = signed else { return bytes.to_vec() };
    let mut bare = signed.without().to_vec();
    if let (Ok(length), Some(field)) = (u16::try_from(bare.len()), bare.get_mut(2..4)) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn keys(text: &str, key: &str) -> Keys {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys");
        std::fs::write(&file, text).unwrap();
        let configuration = format!("[global]\nspp 10\nsa_file {}\n{key}\n", file.display());
        let settings = Settings::new(&configuration, &["eth0".to_owned()]).unwrap();
        Keys::new(settings.signing().unwrap()).unwrap()
    }

    #[test]
    fn what_another_key_has_signed_does_not_pass_and_what_passes_is_as_it_was() {
        let file = "[security_association]\nspp 10\n1 SHA256 ASCII:abcdefghijklmnop\n\
                    3 SHA256 ASCII:qrstuvwxyzabcdef\n";
        let [mut ours, same] = [keys(file, "active_key_id 3"), keys(file, "active_key_id 1")];
        let mut message = vec![0; 44];
        (message[0], message[1], message[3]) = (0, 2, 44);
        let sealed = same.seal(Some(0), &message);
        assert!(sealed.len() > message.len());
        let now = Time::from_nanos(1_000_000_000);
        assert_eq!(ours.open(now, 0, &sealed), Some(message.clone()));
        let other = file.replace("abcdefghijklmnop", "abcdefghijklmno_");
        assert_eq!(keys(&other, "active_key_id 1").open(now, 0, &sealed), None);
        assert_eq!(ours.open(now, 0, &message), None, "not signed");
        assert_eq!(ours.open_local(&ours.seal(None, &message)), Some(message));
    }
}
