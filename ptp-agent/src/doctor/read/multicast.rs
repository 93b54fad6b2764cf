//! Which of PTP's groups are joined on an interface, from the tables that the kernel keeps of them.

use super::file;

/// 224.0.1.129 and 224.0.0.107 (IEEE 1588-2019 annex C), as `/proc/net/igmp` writes them.
const IPV4: [(&str, [u8; 4]); 2] =
    [("224.0.1.129", [224, 0, 1, 129]), ("224.0.0.107", [224, 0, 0, 107])];
/// Annex D, as `/proc/net/igmp6` does: ff0X::181 with the scope in the fourth digit.
const IPV6: [(&str, &str); 2] = [("ff0x::181", "0181"), ("ff02::6b", "006b")];
/// Annex F, as `/proc/net/dev_mcast` does.
const ETHERNET: [(&str, &str); 2] =
    [("01:1b:19:00:00:00", "011b19000000"), ("01:80:c2:00:00:0e", "0180c200000e")];

pub(super) fn groups(interface: &str) -> Vec<&'static str> {
    let text = |path| file(path).unwrap_or_default();
    let mut groups = ipv4(&text("/proc/net/igmp"), interface);
    groups.extend(ipv6(&text("/proc/net/igmp6"), interface));
    groups.extend(ethernet(&text("/proc/net/dev_mcast"), interface));
    groups
}

/// A line per interface, with its name, and below it one per group, with its address.
fn ipv4(table: &str, interface: &str) -> Vec<&'static str> {
    let mut is_it = false;
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace();
        if !line.starts_with(char::is_whitespace) {
            is_it = words.nth(1) == Some(interface);
        } else if is_it
            && let Some(address) = words.next().and_then(|it| u32::from_str_radix(it, 16).ok())
        {
            let group = IPV4.iter().find(|(_, group)| *group == address.to_ne_bytes());
            found.extend(group.map(|(name, _)| *name));
        }
    }
    found
}

fn ipv6(table: &str, interface: &str) -> Vec<&'static str> {
    let groups = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (name, address) = (words.next()?, words.next()?);
        let is_group = address.starts_with("ff0") && name == interface;
        let zeros = address.get(4..28).is_some_and(|middle| middle.bytes().all(|it| it == b'0'));
        let end = address.get(28..)?;
        let group = IPV6.iter().find(|(_, group)| is_group && zeros && *group == end)?;
        Some(group.0)
    });
    groups.collect()
}

fn ethernet(table: &str, interface: &str) -> Vec<&'static str> {
    let groups = table.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, name, .., address] = words[..] else { return None };
        let group = ETHERNET.iter().find(|(_, group)| name == interface && *group == address)?;
        Some(group.0)
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_on_their_interface_only() {
        let igmp = format!(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
             1\tlo        :     1      V3\n\t\t\t\t{:08X}     1 0:00000000\t\t0\n\
             4\teth0      :     2      V3\n\t\t\t\t{:08X}     1 0:00000000\t\t0\n",
            u32::from_ne_bytes([224, 0, 0, 1]),
            u32::from_ne_bytes([224, 0, 1, 129]),
        );
        assert_eq!(ipv4(&igmp, "eth0"), ["224.0.1.129"]);
        assert!(ipv4(&igmp, "lo").is_empty());
        let igmp6 = "4    eth0            ff0e0000000000000000000000000181     1 0000000C 0\n\
                     4    eth0            ff020000000000000000000000000001     1 0000000C 0\n";
        assert_eq!(ipv6(igmp6, "eth0"), ["ff0x::181"]);
        assert!(ipv6(igmp6, "eth1").is_empty());
        let devices = "4    eth0            1     0     011b19000000\n\
                       4    eth0            1     0     333300000001\n";
        assert_eq!(ethernet(devices, "eth0"), ["01:1b:19:00:00:00"]);
    }
}
