//! Which interrupts are a network interface's: what sysfs and /proc tell, which needs no privilege.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The interrupts of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// It has no device, so none: veth, bridges, VLANs, the loopback.
    None,
    /// They could not be found, for this reason.
    Unknown(&'static str),
    /// These; none of them without a handler.
    Of(Vec<u32>),
}

/// Of an interface of the current network namespace, whose number and address are known from there: sysfs shows
/// the interfaces of the namespace in which it was mounted, so the one of this name there may be another.
pub fn of(name: &str, ifindex: u32, mac: Option<[u8; 6]>) -> Interrupts {
    let Some(root) = Some(Path::new("/sys/class/net").join(name)).filter(|path| path.exists())
    else {
        return Interrupts::Unknown(
            "/sys does not show this interface (another network namespace?)",
        );
    };
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let same = line(&root.join("ifindex")) == Some(ifindex.to_string())
        && mac.is_none_or(|mac| line(&root.join("address")) == Some(text(mac)));
    if !same {
        return Interrupts::Unknown("/sys shows another interface of this name");
    }
    let device = root.join("device");
    if !device.exists() {
        return Interrupts::None;
    }
    let Ok(device) = fs::canonicalize(device) else {
        return Interrupts::Unknown("the device cannot be found in /sys");
    };
    // The interrupts belong to the device, or (virtio) to the one that it is on.
    let devices = || [Some(device.as_path()), device.parent()].into_iter().flatten();
    let mut numbers: Vec<u32> = devices()
        .map(|device| numbers_in(&device.join("msi_irqs")))
        .find(|numbers| !numbers.is_empty())
        .or_else(|| Some(vec![devices().find_map(|it| line(&it.join("irq")))?.parse().ok()?]))
        .unwrap_or_default();
    numbers.sort_unstable();
    numbers.retain(|number| has_handler(*number));
    Interrupts::Of(numbers)
}

/// An interrupt that was only set aside has no handler, so no directory of a handler's name.
fn has_handler(number: u32) -> bool {
    fs::read_dir(directory(number)).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir()))
    })
}

/// Where the kernel tells of an interrupt.
pub fn directory(number: u32) -> PathBuf {
    PathBuf::from(format!("/proc/irq/{number}"))
}

fn numbers_in(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn line(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_device_and_so_no_interrupts() {
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        assert_eq!(of("lo", index, None), Interrupts::None);
        assert!(matches!(of("lo", index + 1, None), Interrupts::Unknown(_)));
        assert!(matches!(of("nothing0", 1, None), Interrupts::Unknown(_)));
    }
}
