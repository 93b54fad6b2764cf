//! From facts to verdicts. Nothing here looks at the host.

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
mod pulses;
mod synce;

use super::{check::Check, facts::Facts};

/// All checks, in the order in which they are shown.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = cpu::checks(&facts.cpu);
    checks.extend(kernel::checks(&facts.kernel, &facts.privileges));
    checks.extend(clock::checks(&facts.clock));
    checks.push(interface::ports(facts.ports.as_deref()));
    checks.push(interface::ntp_port(facts.ntp_port.as_deref()));
    checks.extend(agents::checks(&facts.agents));
    for interface in &facts.interfaces {
        let mut of_interface = interface::checks(interface, &facts.cpu);
        if let Some(link) = &interface.link {
            of_interface.push(firewall::check(&facts.firewall, &interface.name));
            of_interface.extend(multicast::checks(&link.multicast, facts.ports.as_deref()));
            of_interface.push(announces::check(link.heard.as_ref()));
            of_interface.extend(synce::esmc(link.heard.as_ref()));
        }
        checks.extend(of_interface.into_iter().map(|check| check.on(&interface.name)));
    }
    checks.push(pulses::check(&facts.pulses));
    checks.extend(synce::dplls(facts.dplls.as_ref()));
    checks.extend(facts.bridge.iter().flat_map(bridge::checks));
    checks
}

/// CPU numbers in the kernel's notation, such as `0-3,8`.
fn cpu_list(cpus: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = cpus;
    while let [first, ..] = *rest {
        let length = (first..).zip(rest).take_while(|(wanted, cpu)| wanted == *cpu).count();
        let last = rest[length - 1];
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if last != first {
            text.push_str(&format!("-{last}"));
        }
        rest = &rest[length..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{check::Status, facts::Interface};

    #[test]
    fn cpu_lists_are_ranges() {
        for (cpus, text) in
            [(&[][..], ""), (&[3], "3"), (&[0, 1, 2, 8], "0-2,8"), (&[1, 3, 4], "1,3-4")]
        {
            assert_eq!(cpu_list(cpus), text);
        }
    }

    #[test]
    fn names_are_unique_per_interface() {
        let missing = |name: &str| Interface { name: name.to_owned(), link: None };
        let facts =
            Facts { interfaces: vec![missing("eth0"), missing("eth1")], ..Facts::default() };
        let checks = all(&facts);
        let mut seen: Vec<_> = checks.iter().map(|check| (check.name, &check.interface)).collect();
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
        assert!(checks.iter().all(|check| !check.reason.is_empty()));
        let advised = |check: &Check| {
            matches!(check.status, Status::Ok | Status::Skip) || check.advice.is_some()
        };
        assert!(checks.iter().all(advised));
    }
}
