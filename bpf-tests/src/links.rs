//! Networks to test on, made of namespaces and veth pairs; they vanish with their values.

use std::{net::Ipv4Addr, process::Command};

use ptp_agent::lab::netns::{Namespace, NetnsError, veth};

/// A result whose error is the reason to skip the test.
pub type Needed<T> = Result<T, String>;

fn needed<T>(result: Result<T, NetnsError>) -> Needed<T> {
    match result {
        Ok(value) => Ok(value),
        Err(error) if error.is_missing_on_host() => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

/// Two namespaces and a wire between them: interface `gm0` (192.0.2.1) on one side, `ptp0`
/// (192.0.2.2) on the other.
#[derive(Debug)]
pub struct Wire {
    /// Has `gm0`.
    pub grandmaster: Namespace,
    /// Has `ptp0`.
    pub client: Namespace,
}

impl Wire {
    /// Makes both.
    ///
    /// # Errors
    /// Why the host cannot.
    pub fn new() -> Needed<Self> {
        let wire =
            Self { grandmaster: needed(Namespace::new())?, client: needed(Namespace::new())? };
        wire.connect()?;
        Ok(wire)
    }

    /// Makes the wire, also again after it was removed.
    ///
    /// # Errors
    /// Why the host cannot.
    pub fn connect(&self) -> Needed<()> {
        needed(veth(&self.grandmaster, "gm0", &self.client, "ptp0"))?;
        needed(self.grandmaster.add_address("gm0", Ipv4Addr::new(192, 0, 2, 1).into(), 24))?;
        needed(self.client.add_address("ptp0", Ipv4Addr::new(192, 0, 2, 2).into(), 24))
    }
}

/// Namespaces around a switch (a Linux bridge in a namespace of its own): each has `eth0` with
/// address 192.0.2.1, 2, 3 and so on.
#[derive(Debug)]
pub struct Star {
    /// The namespaces.
    pub leaves: Vec<Namespace>,
    /// The switch, with bridge `switch` over `port1`, `port2` and so on.
    pub switch: Namespace,
}

impl Star {
    /// Makes the switch and `count` namespaces.
    ///
    /// # Errors
    /// Why the host cannot.
    pub fn new(count: u8) -> Needed<Self> {
        let switch = needed(Namespace::new())?;
        let mut leaves = Vec::new();
        let mut ports = Vec::new();
        for number in 1..=count {
            let leaf = needed(Namespace::new())?;
            let port = format!("port{number}");
            needed(veth(&leaf, "eth0", &switch, &port))?;
            needed(leaf.add_address("eth0", Ipv4Addr::new(192, 0, 2, number).into(), 24))?;
            leaves.push(leaf);
            ports.push(port);
        }
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        needed(switch.bridge("switch", &ports))?;
        Ok(Self { leaves, switch })
    }
}

/// A grandmaster namespace with two wires, `gm0` and `gm1`, to a namespace each that has `ptp0`.
#[derive(Debug)]
pub struct Fork {
    /// Has `gm0` (192.0.2.1) and `gm1` (198.51.100.1).
    pub grandmaster: Namespace,
    /// Each has `ptp0` (192.0.2.2, 198.51.100.2).
    pub clients: [Namespace; 2],
}

impl Fork {
    /// Makes all three.
    ///
    /// # Errors
    /// Why the host cannot.
    pub fn new() -> Needed<Self> {
        let fork = Self {
            grandmaster: needed(Namespace::new())?,
            clients: [needed(Namespace::new())?, needed(Namespace::new())?],
        };
        for (client, (name, network)) in
            fork.clients.iter().zip([("gm0", [192, 0, 2]), ("gm1", [198, 51, 100])])
        {
            needed(veth(&fork.grandmaster, name, client, "ptp0"))?;
            let address = |host| Ipv4Addr::new(network[0], network[1], network[2], host).into();
            needed(fork.grandmaster.add_address(name, address(1), 24))?;
            needed(client.add_address("ptp0", address(2), 24))?;
        }
        Ok(fork)
    }
}

/// Runs `ip` in a namespace, for what the library has no words for.
///
/// # Panics
/// If it fails.
pub fn ip(namespace: &Namespace, arguments: &str) -> String {
    output(namespace.command("ip").args(arguments.split_whitespace()))
}

/// An interface's MAC address.
///
/// # Panics
/// If it has none.
pub fn mac(namespace: &Namespace, interface: &str) -> [u8; 6] {
    let shown = ip(namespace, &format!("-o link show {interface}"));
    let text = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    let octets: Vec<u8> = text
        .unwrap_or_default()
        .split(':')
        .map(|hex| u8::from_str_radix(hex, 16).unwrap_or_else(|error| panic!("{shown}: {error}")))
        .collect();
    octets.try_into().unwrap_or_else(|octets| panic!("{shown}: {octets:?}"))
}

/// Puts interface `<below>.<identifier>` with an address on top of another one.
///
/// # Errors
/// The kernel has no VLAN interfaces.
///
/// # Panics
/// If it fails for another reason.
pub fn tagged(namespace: &Namespace, below: &str, identifier: u16, address: &str) -> Needed<()> {
    let name = format!("{below}.{identifier}");
    let add = format!("link add link {below} name {name} type vlan id {identifier}");
    let output = namespace.command("ip").args(add.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("ip: {error}"));
    let log = String::from_utf8_lossy(&output.stderr);
    if log.contains("Unknown device type") || log.contains("Operation not supported") {
        return Err("this kernel has no VLAN interfaces (CONFIG_VLAN_8021Q)".to_owned());
    }
    assert!(output.status.success(), "{log}");
    ip(namespace, &format!("link set {name} up"));
    ip(namespace, &format!("address add {address} dev {name}"));
    Ok(())
}

/// Standard output of a command that must succeed.
///
/// # Panics
/// If it does not.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {log}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
