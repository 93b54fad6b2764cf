//! Sources of pulses per second: which there are, and whether an edge comes within one and a half seconds. Nothing is set.

use std::{fs, io, path::Path, thread, time::Duration};

use crate::{
    doctor::facts::{Pulse, PulseSeen},
    sys::pps::{Device, Edge},
};

/// Where the kernel lists them.
const CLASS: &str = "/sys/class/pps";
/// As many are looked at.
const MOST: usize = 16;
/// A pulse per second comes within this.
const PATIENCE: Duration = Duration::from_millis(1500);

/// All of them, looked at side by side.
pub(super) fn read() -> Vec<Pulse> {
    let entries = fs::read_dir(CLASS).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.take(MOST).collect();
    names.sort();
    thread::scope(|scope| {
        let looks: Vec<_> = names.iter().map(|name| scope.spawn(|| look(name))).collect();
        looks.into_iter().filter_map(|look| look.join().ok()).collect()
    })
}

fn look(name: &str) -> Pulse {
    let source = fs::read_to_string(Path::new(CLASS).join(name).join("name")).unwrap_or_default();
    Pulse { device: format!("/dev/{name}"), source: source.trim().to_owned(), seen: seen(name) }
}

fn seen(name: &str) -> Result<PulseSeen, String> {
    let path = Path::new("/dev").join(name);
    let edge_of = |edge| Device::open(&path, edge).map(|device| (device, edge));
    let opened = match edge_of(Edge::Assert) {
        // Some stamp the other edge alone.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => edge_of(Edge::Clear),
        opened => opened,
    };
    let (device, edge) = opened.map_err(|error| error.to_string())?;
    match device.fetch(PATIENCE) {
        Ok(_) => Ok(PulseSeen { came: true, edge }),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Ok(PulseSeen { came: false, edge })
        }
        Err(error) => Err(error.to_string()),
    }
}
