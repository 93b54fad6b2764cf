//! Bridges with loaded, shaped ports, and whoever is behind them.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{agent::Agent, links::ip, links::output};
use ptp_agent::lab::netns::{Namespace, veth};

/// How the shaped ports are.
const SHAPER: &str = "tbf rate 50mbit burst 2k limit 400k";
/// How much load is on them, bit/s.
const LOAD: f64 = 35e6;
/// Of the load's datagrams, bytes, and of their headers.
const PAYLOAD: usize = 1_400;
const HEADERS: usize = 42;

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

/// Bursts of 1 to 12 datagrams with exponential gaps between them. Ends when dropped.
pub(crate) struct Load {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(from: &Namespace, to: Ipv4Addr) -> Result<Self, String> {
        let socket = from
            .run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect((to, 9))?;
                Ok(socket)
            })
            .map_err(|error| error.to_string())?
            .map_err(|error: std::io::Error| error.to_string())?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || send(&socket, &ended));
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send(socket: &UdpSocket, ended: &AtomicBool) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let payload = [0_u8; PAYLOAD];
    let mut next = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        let burst = 1 + (uniform() * 12.0) as u32;
        for _ in 0..burst {
            // Nobody listens; refusals are no concern of the load.
            let _ = socket.send(&payload);
        }
        let mean = f64::from(burst) * ((PAYLOAD + HEADERS) * 8) as f64 / LOAD;
        next += Duration::from_secs_f64(-mean * (1.0 - uniform()).ln());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}
