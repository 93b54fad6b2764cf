//! Bridges with loaded, shaped ports, and whoever is behind them.

use std::{net::Ipv4Addr, time::Duration};

use bpf_tests::{agent::Agent, links::ip, links::output};
use ptp_agent::lab::netns::{Namespace, veth};

/// How the shaped ports are.
const SHAPER: &str = "tbf rate 50mbit burst 2k limit 400k";
/// How much load is on them, bit/s.
pub(crate) const LOAD: f64 = 35e6;

pub(crate) fn namespace() -> Result<Namespace, String> {
    Namespace::new().map_err(|error| error.to_string())
}

/// The address of a host.
pub(crate) const fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// A namespace with `eth0` on a port of a switch. The switch's side has a queue of its own only if it is
/// given one.
pub(crate) fn host(switch: &Namespace, port: &str, number: u8) -> Result<Namespace, String> {
    let host = namespace()?;
    veth(&host, "eth0", switch, port).map_err(|error| error.to_string())?;
    host.add_address("eth0", address(number).into(), 24).map_err(|error| error.to_string())?;
    Ok(host)
}

/// Shapes what leaves by an interface.
pub(crate) fn shape(namespace: &Namespace, interface: &str) {
    let arguments = format!("qdisc replace dev {interface} root {SHAPER}");
    output(namespace.command("tc").args(arguments.split_whitespace()));
}

/// Puts a macvlan on top of a port, so that it is the bridge's port in its stead.
pub(crate) fn stack(namespace: &Namespace, port: &str, above: &str) {
    ip(namespace, &format!("link add link {port} name {above} type macvlan mode passthru"));
    ip(namespace, &format!("link set {above} up"));
}

/// A switch of these ports.
pub(crate) fn bridge(namespace: &Namespace, ports: &[&str]) -> Result<(), String> {
    namespace.bridge("br0", ports).map_err(|error| error.to_string())
}

/// Starts a transparent clock on a bridge.
pub(crate) fn transparent(switch: &Namespace, wanted: &[&str]) -> Agent {
    let mut arguments = vec!["transparent", "--status-socket", "none", "--follow", "none"];
    arguments.extend(wanted);
    let agent = Agent::start_only(switch, &arguments);
    agent.wait_for_text(0, Duration::from_secs(20), ": transparent ports=");
    agent
}
