//! How packets leave: requests by sockets of their own, answers by those that are served, primed where that is of use.

use super::*;
use crate::engine::ntp::WARM;

/// How a packet was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sending {
    pub(super) manner: Manner,
    /// The primer is to see what that was worth.
    pub(super) is_trial: bool,
    /// When a request was handed to the kernel.
    pub(super) handed: Option<Time<Mono>>,
}

impl Sending {
    /// In which manner it was as if it had been sent: behind another one as behind a throwaway frame.
    pub(super) const fn path(&self) -> Manner {
        if self.is_trial { self.manner } else { Manner::Primed }
    }

    const fn primed(primed: bool) -> Self {
        let manner = if primed { Manner::Primed } else { Manner::Plain };
        Self { manner, is_trial: true, handed: None }
    }
}

/// A socket that is served.
#[derive(Debug)]
pub(super) struct Listener {
    /// Which interface it is on.
    pub(super) place: usize,
    pub(super) socket: AsyncFd<Socket>,
    /// To ask the kernel for each answer would take as long as a fifteenth of it.
    is_v6: bool,
}

impl Listener {
    pub(super) fn new(place: usize, socket: AsyncFd<Socket>) -> Self {
        let is_v6 = socket::is_v6(socket.get_ref());
        Self { place, socket, is_v6 }
    }
}

/// Few that wait are looked through.
const LOOKED_THROUGH: usize = 32;

/// Whether a packet that has left is one that waits for its stamp, or may be.
pub(super) fn is_waited_for(waiting: &VecDeque<Waiting>, message: &[u8]) -> bool {
    let is = |it: &Waiting| {
        let compared = it.bytes.len().min(message.len());
        it.bytes.get(..compared) == message.get(..compared)
    };
    waiting.len() > LOOKED_THROUGH || waiting.iter().any(is)
}

impl NtpIo {
    /// Sends a request by a socket of its own.
    pub(super) fn request(&mut self, at: usize, message: &[u8]) -> io::Result<Sending> {
        self.move_peers();
        let peer = &mut self.peers[at];
        (peer.socket, peer.asked) = (None, None);
        let (opened, local) = peer.connect()?;
        peer.place = peer.place_in(&self.places, local);
        if peer.place.is_none() {
            // Nobody else stamps it.
            if let Err(error) = driver_stamp::ask(opened.get_ref(), true) {
                tracing::debug!(server = peer.name, %error, "driver's stamps");
            }
        }
        let primed = peer.place.is_some_and(|place| self.places[place].primer.before_event());
        let handed = Some(monotonic());
        opened.get_ref().send(message)?;
        (peer.socket, peer.asked) = (Some(opened), handed);
        Ok(Sending { handed, ..Sending::primed(primed) })
    }

    pub(super) fn answer(
        &mut self,
        port: PortIndex,
        to: Address,
        message: &mut Datagram,
    ) -> io::Result<Sending> {
        let Address::Socket(to) = to else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
        let at = usize::from(port.0);
        let listener = self.listeners.iter().find(|it| it.place == at && it.is_v6 == to.is_ipv6());
        let Some(Listener { socket: listener, .. }) = listener else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let now = monotonic();
        let place = &mut self.places[at];
        // Behind another answer its path is warm.
        let is_warm = place.answered.replace(now).is_some_and(|before| now - before < WARM);
        let sending = match is_warm {
            true => Sending::default(),
            false => Sending::primed(place.primer.before_event()),
        };
        if let Some(made) = message.made() {
            // What has held it up since it was made it tells as well.
            message.leave_later(self.held.unusual(made, monotonic()));
        }
        socket::send_from(listener.get_ref(), self.local, to, message)?;
        Ok(sending)
    }
}
