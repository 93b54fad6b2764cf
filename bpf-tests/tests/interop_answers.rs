//! Claims about `serve --answer-for ptp4l`: a ptp4l grandmaster's clients are answered by the kernel in its name and follow it
//! as before, only while it serves, and never twice. Needs root and linuxptp.

use std::time::{Duration, Instant};

use bpf_tests::{
    agent::Agent,
    forge::{Party, port},
    in_company,
    links::{Wire, mac, output},
    need,
    objects::kernel_programs,
    program,
    ptp4l::{CLIENT, Ptp4l, TRANSPORTS},
    raw::{FrameListener, FrameSocket},
    transparent::{Carrier, PATIENCE, delay_req, in_the_name_of, ptp},
};
use nix::sys::signal::Signal;

/// ptp4l's own answers come within this, if it gives any.
const SOON: Duration = Duration::from_millis(300);

/// A ptp4l grandmaster with two Sync per second.
fn grandmaster(wire: &Wire, transport: &str) -> Result<Ptp4l, String> {
    let (_, name) = TRANSPORTS.into_iter().find(|(own, _)| *own == transport).unwrap();
    let transport = format!("network_transport {name}");
    Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &["logSyncInterval -1", &transport])
}

/// Answers in the name of the one that is there.
fn beside(wire: &Wire, transport: &str) -> Agent {
    let arguments = ["serve", "-i", "gm0", "--answer-for", "ptp4l", "--transport", transport];
    Agent::start_only(&wire.grandmaster, &arguments)
}

struct Asking {
    send: FrameSocket,
    listen: FrameListener,
    carrier: Carrier,
    number: u16,
}

impl Asking {
    fn new(wire: &Wire, carrier: Carrier) -> Self {
        let open = || (FrameSocket::open("ptp0").unwrap(), FrameListener::open("ptp0").unwrap());
        let (send, listen) = wire.client.run(open).unwrap();
        Self { send, listen, carrier, number: 0 }
    }

    /// The answers to one request that come within some time: who gives them, and with which interval.
    fn answers(&mut self, patience: Duration) -> Vec<Vec<u8>> {
        self.number += 1;
        let request = delay_req(port(7), self.number);
        let frame = in_the_name_of([192, 0, 2, 2], self.carrier.frame(&request));
        self.send.send(&frame).unwrap();
        let mut answers = Vec::new();
        let end = Instant::now() + patience;
        while let Some(answer) =
            self.listen.hear(end.saturating_duration_since(Instant::now()), |frame| {
                let message = ptp(frame)?;
                let is_it = message.len() >= 54
                    && message[0] & 0x0f == 9
                    && message[44..54] == request[20..30]
                    && message[30..32] == request[30..32];
                is_it.then(|| message.to_vec())
            })
        {
            answers.push(answer);
        }
        answers
    }

    /// Asks until the agent says something.
    fn until(&mut self, agent: &Agent, text: &str) {
        let begin = Instant::now();
        while !agent.lines().iter().any(|line| line.text.contains(text)) {
            assert!(begin.elapsed() < 2 * PATIENCE, "{}", agent.last_words());
            self.answers(SOON / 6);
        }
    }
}

#[test]
fn requests_are_answered_once_in_the_name_of_ptp4l_and_only_while_it_serves() {
    let _machine = in_company();
    need!(kernel_programs());
    answers_for_ptp4l("udp4", Carrier::Udp4, "answered in the kernel");
    // Over Ethernet ptp4l hears requests before TC does.
    answers_for_ptp4l("l2", Carrier::Ethernet, "answered by XDP");
}

fn answers_for_ptp4l(transport: &str, carrier: Carrier, proof: &str) {
    let wire = need!(Wire::new());
    let mut ethtool = wire.client.command(need!(program("ethtool")));
    output(ethtool.args(["-K", "ptp0", "gro", "on"]));
    let mut ptp4l = need!(grandmaster(&wire, transport));
    let mut agent = beside(&wire, transport);
    let mut asking = Asking::new(&wire, carrier);
    asking.until(&agent, proof);
    let octets = mac(&wire.grandmaster, "gm0");
    let [a, b, c, d, e, f] = octets;
    // While ptp4l does not run, so shortly that its silence is none, it is the kernel that answers; once.
    let before = asking.answers(SOON);
    ptp4l.signal(Signal::SIGSTOP);
    let during = asking.answers(SOON);
    ptp4l.signal(Signal::SIGCONT);
    for answers in [before, during] {
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0][20..30], [a, b, c, 0xff, 0xfe, d, e, f, 0, 1], "its own identity");
        assert_eq!(answers[0][33].cast_signed(), -4, "logMinDelayReqInterval");
    }
    let mark = agent.mark();
    ptp4l.kill();
    agent.wait_for_text(mark, PATIENCE, "it does not serve now");
    // The programs are told in the same turn, which on a busy machine takes its time.
    let begin = Instant::now();
    while !asking.answers(SOON).is_empty() {
        assert!(begin.elapsed() < PATIENCE, "nobody is answered for one that is gone");
    }
    if transport == "udp4" {
        agent.wait_for_text(mark, 2 * PATIENCE, "no_kernel_answers");
    }
    agent.finish();
}

#[test]
fn ptp4l_as_a_client_follows_and_a_stopped_agent_leaves_requests_to_ptp4l() {
    let _machine = in_company();
    need!(kernel_programs());
    let wire = need!(Wire::new());
    let _ptp4l = need!(grandmaster(&wire, "udp4"));
    let agent = beside(&wire, "udp4");
    let client = need!(Ptp4l::start(&wire.client, &["ptp0"], &[CLIENT]));
    agent.wait_for_text(0, 2 * PATIENCE, "answered in the kernel");
    let has = |count: usize| {
        let begin = Instant::now();
        let seen = client.offsets().len();
        while client.offsets().len() < seen + count {
            assert!(begin.elapsed() < 2 * PATIENCE, "{}", client.last_words());
            std::thread::yield_now();
        }
        client.offsets()
    };
    // With one clock for both, it is all error, on a busy machine too.
    let offsets = has(8);
    let last = &offsets[offsets.len() - 8..];
    assert!(last.iter().all(|offset| offset.abs() < 5_000_000), "{last:?}");
    // The programs go on without the agent for as long as they may, then everything is ptp4l's again.
    agent.signal(Signal::SIGSTOP);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        has(1);
    }
    has(4);
    agent.signal(Signal::SIGCONT);
    assert!(!client.lines().iter().any(|line| line.text.contains("FAULTY")));
}

#[test]
fn another_clock_than_the_hosts_is_not_served() {
    let _machine = in_company();
    need!(kernel_programs());
    let wire = need!(Wire::new());
    let arguments = ["serve", "-i", "gm0", "--clock", "virtual", "--offset", "0.25"];
    let more = ["--log-sync-interval=-3", "--kernel-answers", "off"];
    let _server = Agent::start(&wire.grandmaster, &[&arguments[..], &more].concat());
    let agent = beside(&wire, "udp4");
    let party = Party::new(&wire.client, std::net::Ipv4Addr::new(192, 0, 2, 2));
    let begin = Instant::now();
    let mut number = 0;
    loop {
        number += 1;
        party.event(&delay_req(port(7), number));
        if agent.lines().iter().any(|line| line.text.contains("another clock than the host's")) {
            break;
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "{}", agent.last_words());
        party.hear_general(SOON);
    }
    assert!(!agent.lines().iter().any(|line| line.text.contains("answered in the kernel")));
}
