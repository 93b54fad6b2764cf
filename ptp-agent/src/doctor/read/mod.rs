//! Looking at the host. Nothing here changes anything that outlives the look: files are read, the
//! kernel is asked, and programs are attached for the blink of an eye.

mod agents;
mod announces;
mod bridge;
mod clock;
mod cpu;
mod firewall;
mod interface;
mod interrupts;
mod kernel;
mod multicast;
mod netdev;
mod pulses;

use std::{fs, path::Path};

use procfs::process::{FDTarget, all_processes};

use super::{
    Args,
    facts::{Facts, Firewall, Interface, PortOwner},
};
use crate::synce::dpll;
use ptp_common::classify::{PORT_EVENT, PORT_GENERAL};

/// Everything.
pub(super) fn all(args: &Args) -> Facts {
    let processes = processes();
    Facts {
        cpu: cpu::read(&processes),
        kernel: kernel::read(),
        privileges: kernel::privileges(),
        clock: clock::read(&processes),
        ports: port_owners(&processes, &[PORT_EVENT, PORT_GENERAL]),
        ntp_port: port_owners(&processes, &[ptp_common::ntp::PORT]),
        // It is judged for interfaces.
        firewall: if args.interface.is_empty() { Firewall::default() } else { firewall::read() },
        agents: agents::read(),
        pulses: pulses::read(),
        interfaces: interfaces(args),
        dplls: (!args.interface.is_empty())
            .then(|| dpll::read().map_err(|error| error.to_string())),
        bridge: args.bridge.as_deref().map(|name| bridge::measure(name, args.measure)),
    }
}

fn interfaces(args: &Args) -> Vec<Interface> {
    let mut interfaces = interface::read(&args.interface, args.try_xdp);
    if let Some(seconds) = args.measure.filter(|_| args.bridge.is_none()) {
        interrupts::watch(&mut interfaces, seconds);
    }
    if let Some(seconds) = args.listen {
        let heard = announces::listen(&args.interface, seconds);
        for (interface, heard) in interfaces.iter_mut().zip(heard) {
            if let Some(link) = &mut interface.link {
                link.heard = Some(heard);
            }
        }
    }
    interfaces
}

/// A running process.
struct Process {
    id: u32,
    /// The first 15 bytes of its file name.
    name: String,
}

/// Every process that can be seen from here, also of other network namespaces: they share the clock.
fn processes() -> Vec<Process> {
    let Ok(all) = all_processes() else {
        return Vec::new();
    };
    // One that ends meanwhile is an error, and is not there.
    all.filter_map(|process| {
        let stat = process.ok()?.stat().ok()?;
        Some(Process { id: u32::try_from(stat.pid).ok()?, name: stat.comm })
    })
    .collect()
}

fn port_owners(processes: &[Process], ports: &[u16]) -> Option<Vec<PortOwner>> {
    let mut sockets = procfs::net::udp().ok()?;
    // A kernel without IPv6 has no such file.
    sockets.extend(procfs::net::udp6().unwrap_or_default());
    let taken = sockets.into_iter().filter_map(|socket| {
        let port = socket.local_address.port();
        ports.contains(&port).then_some((port, socket.inode))
    });
    let owners = taken.map(|(port, inode)| {
        let owner = processes.iter().find(|process| owns_socket(process.id, inode));
        PortOwner { port, process: owner.map(|process| (process.name.clone(), process.id)) }
    });
    Some(owners.collect())
}

fn owns_socket(process: u32, inode: u64) -> bool {
    let files = i32::try_from(process)
        .ok()
        .and_then(|id| procfs::process::Process::new(id).ok())
        .and_then(|process| process.fd().ok());
    files.is_some_and(|mut files| {
        files.any(|file| matches!(file, Ok(file) if matches!(file.target, FDTarget::Socket(of) if of == inode)))
    })
}

/// The content of a small file without the final line break; `None` where there is none.
fn file(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// CPU numbers from the kernel's notation, such as `0-3,8`.
fn parse_cpu_list(text: &str) -> Vec<u32> {
    /// More than any kernel has.
    const MOST: u32 = 65_536;
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(MOST));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        let wanted: [(&str, &[u32]); 5] = [
            ("", &[]),
            ("3\n", &[3]),
            ("0-2,8", &[0, 1, 2, 8]),
            ("(null)", &[]),
            ("4294967295-0", &[]),
        ];
        for (text, cpus) in wanted {
            assert_eq!(parse_cpu_list(text), cpus, "{text}");
        }
    }

    #[test]
    fn this_process_is_seen() {
        assert!(processes().iter().any(|process| process.id == std::process::id()));
    }
}
