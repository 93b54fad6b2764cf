//! Claims about the answers that the kernel gives for `serve`: that they are right whatever carries them, whom they
//! go to, and that nobody is answered in the name of an agent that is not there. The agent is stopped where it
//! must not be the one that answers. Needs root.

use std::time::{Duration, Instant};

#[cfg(feature = "host")]
use aya::programs::TcAttachType;
use bpf_tests::{
    agent::Agent,
    forge::{now, port},
    links::{Needed, Wire, mac, output},
    need,
    objects::kernel_programs,
    program,
    raw::{FrameListener, FrameSocket, Tap},
    transparent::{Carrier, PATIENCE, delay_req, in_the_name_of, ptp, sum_header, udp_sum},
};
// It wants a C compiler of the machine that it is for.
#[cfg(feature = "host")]
use bpf_tests::neighbour::{Act, Neighbour};
use nix::sys::signal::Signal;
#[cfg(feature = "host")]
use ptp_agent::capture::Features;
use ptp_agent::lab::netns::Namespace;
use ptp_common::{
    time::{Ptp, Time},
    wire::{Body, Bracket, Flags, Message, TimeInterval},
};

/// Long enough for an answer that is given on the way in.
const SOON: Duration = Duration::from_millis(300);
const SERVER: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 2];

struct Asking {
    agent: Agent,
    send: FrameSocket,
    listen: FrameListener,
    server_mac: [u8; 6],
    _wire: Wire,
}

impl Asking {
    /// A server whose answers the kernel gives, and a client with raw frames.
    fn start(transport: &str, arguments: &[&str]) -> Needed<Self> {
        Self::start_on(Wire::new()?, transport, "tc", "answered in the kernel", arguments)
    }

    /// The same by XDP, which takes a client whose end of the veth has NAPI.
    fn start_native(transport: &str, arguments: &[&str]) -> Needed<Self> {
        let wire = Wire::new()?;
        napi(&wire)?;
        Self::start_on(wire, transport, "xdp", "answered by XDP", arguments)
    }

    fn start_on(
        wire: Wire,
        transport: &str,
        mode: &str,
        proof: &str,
        arguments: &[&str],
    ) -> Needed<Self> {
        kernel_programs()?;
        let mut all = vec!["serve", "-i", "gm0", "--transport", transport];
        all.extend(["--kernel-answers", mode, "--clock", "system"]);
        all.extend(arguments);
        let agent = Agent::start_only(&wire.grandmaster, &all);
        agent.wait_for_text(0, PATIENCE, proof);
        let open = || (FrameSocket::open("ptp0").unwrap(), FrameListener::open("ptp0").unwrap());
        let (send, listen) = wire.client.run(open).unwrap();
        let server_mac = mac(&wire.grandmaster, "gm0");
        Ok(Self { agent, send, listen, server_mac, _wire: wire })
    }

    fn signal(&self, signal: Signal) {
        self.agent.signal(signal);
    }

    /// Sends a frame; the answer to the request in it, with its frame.
    fn ask(&self, frame: &[u8], patience: Duration) -> Option<(Vec<u8>, Vec<u8>)> {
        let request = ptp(frame).unwrap().to_vec();
        self.send.send(frame).unwrap();
        self.listen.hear(patience, |frame| {
            let message = ptp(frame)?;
            let is_it = message.len() >= 54
                && message[0] & 0x0f == 9
                && message[30..32] == request[30..32]
                && message[44..54] == request[20..30];
            is_it.then(|| (message.to_vec(), frame.to_vec()))
        })
    }

    /// Sends many requests at once, each of another client of an address or all of one; how many are answered.
    fn answered(&self, source: [u8; 4], requests: u16, is_one_client: bool) -> usize {
        for number in 0..requests {
            let mut frame = self.v4(source, SERVER, number);
            if !is_one_client {
                frame[42 + 20..42 + 22].copy_from_slice(&(number | 1 << 15).to_be_bytes());
            }
            self.send.send(&frame).unwrap();
        }
        let mut answered = 0;
        while self.listen.hear(SOON, |frame| (ptp(frame)?[0] & 0x0f == 9).then_some(())).is_some() {
            answered += 1;
        }
        answered
    }

    /// A request over IPv4 from one address to one or to the group.
    fn v4(&self, source: [u8; 4], destination: [u8; 4], number: u16) -> Vec<u8> {
        let mut request = delay_req(port(3), number);
        let is_unicast = destination[0] < 224;
        if is_unicast {
            request[6] |= 0x04;
        }
        let mut frame = Carrier::Udp4.frame(&request);
        if is_unicast {
            frame[..6].copy_from_slice(&self.server_mac);
        }
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        // No checksum over UDP: RFC 768.
        frame[40..42].fill(0);
        sum_header(&mut frame);
        frame
    }
}

/// Lets the client's end of a veth take what XDP sends.
fn napi(wire: &Wire) -> Needed<()> {
    let mut ethtool = wire.client.command(program("ethtool")?);
    output(ethtool.args(["-K", "ptp0", "gro", "on"]));
    Ok(())
}

fn time_of(message: &[u8]) -> Time<Ptp> {
    let Body::DelayResp { receive_timestamp, .. } = Message::parse(message).unwrap().body else {
        panic!("no Delay_Resp")
    };
    receive_timestamp.into()
}

/// CLOCK_REALTIME; the host may have a TAI offset of some seconds.
fn is_now(time: Time<Ptp>, begin: Time<Ptp>) -> bool {
    let offset = f64::from(ptp_agent::sys::clock::tai_offset_seconds().unwrap_or(0));
    let late = (time - begin).as_secs_f64() - offset;
    (-0.001..PATIENCE.as_secs_f64()).contains(&late)
}

#[test]
fn answer_is_right_whatever_carries_the_request_and_the_agent_need_not_run() {
    for (transport, carrier, is_native) in [
        ("l2", Carrier::Ethernet, false),
        ("udp4", Carrier::Udp4, false),
        ("udp6", Carrier::Udp6, false),
        ("l2", Carrier::Ethernet, true),
        ("udp4", Carrier::Udp4, true),
        ("udp6", Carrier::Udp6, true),
    ] {
        let start = if is_native { Asking::start_native } else { Asking::start };
        let asking = need!(start(transport, &[]));
        asking.signal(Signal::SIGSTOP);
        let begin: Time<Ptp> = now().into();
        let mut request = delay_req(port(3), 77);
        request[8..16].copy_from_slice(&(5_i64 << 16).to_be_bytes());
        let frame = in_the_name_of(CLIENT, carrier.frame(&request));
        let (message, frame) =
            asking.ask(&frame, PATIENCE).unwrap_or_else(|| panic!("{transport}: no answer"));
        asking.signal(Signal::SIGCONT);
        let Message { header, tlvs, .. } = Message::parse(&message).unwrap();
        assert_eq!(header.correction, TimeInterval(5 << 16), "{transport}");
        assert!(!header.flags.contains(Flags::UNICAST), "{transport}");
        let bracket = Bracket::find(&tlvs).expect("on the own link the bracket is told");
        assert_eq!((bracket.earliest_ns, bracket.latest_ns), (i32::MIN, 3), "{transport}");
        assert!(is_now(time_of(&message), begin), "{transport}: {:?}", time_of(&message));
        assert!(udp_sum(&frame).is_none_or(|sum| sum == 0xffff), "{transport}: checksum");
        assert_eq!(frame[6..12], asking.server_mac, "{transport}");
        // The packet of a request that follows is the daemon's or the kernel's: never lost.
        let next = in_the_name_of(CLIENT, carrier.frame(&delay_req(port(4), 78)));
        assert!(asking.ask(&next, PATIENCE).is_some());
    }
}

#[test]
fn nobody_is_answered_from_or_to_an_address_that_is_all_s_or_our_own() {
    only_hosts_are_answered(&need!(Asking::start("udp4", &[])));
}

#[test]
fn nor_by_xdp() {
    only_hosts_are_answered(&need!(Asking::start_native("udp4", &[])));
}

fn only_hosts_are_answered(asking: &Asking) {
    asking.signal(Signal::SIGSTOP);
    let unicast = asking.ask(&asking.v4(CLIENT, SERVER, 1), PATIENCE);
    let (message, frame) = unicast.expect("one address asks another");
    assert_eq!(message[6] & 0x04, 0x04, "in kind");
    assert_eq!((&frame[26..30], &frame[30..34]), (&SERVER[..], &CLIENT[..]));
    for (number, (source, destination)) in (2..).zip([
        (SERVER, SERVER),
        ([192, 0, 2, 255], SERVER),
        ([255; 4], SERVER),
        ([224, 0, 1, 129], SERVER),
        ([127, 0, 0, 1], SERVER),
        ([0; 4], SERVER),
        (CLIENT, [192, 0, 2, 7]),
        (CLIENT, [224, 0, 0, 107]),
    ]) {
        let frame = asking.v4(source, destination, number);
        let answer = asking.ask(&frame, SOON / 6);
        assert!(answer.is_none(), "{source:?} to {destination:?}");
    }
    // A sender that is a group of MAC addresses, and a frame to another host.
    let mut frame = asking.v4(CLIENT, SERVER, 20);
    frame[6] |= 1;
    assert!(asking.ask(&frame, SOON / 6).is_none());
    let mut frame = asking.v4(CLIENT, SERVER, 22);
    frame[5] ^= 1;
    assert!(asking.ask(&frame, SOON / 6).is_none());
    let stranger = asking.ask(&asking.v4([203, 0, 113, 9], SERVER, 21), PATIENCE);
    let (message, _) = stranger.expect("from elsewhere");
    assert_eq!(message.len(), 54, "no more than a fifth longer than the request for a stranger");
    asking.signal(Signal::SIGCONT);
}

#[test]
fn only_prefixes_that_are_served_are_answered() {
    let asking = need!(Asking::start("udp4", &["--serve-to", "203.0.113.0/24"]));
    let group = [224, 0, 1, 129];
    assert!(asking.ask(&asking.v4([203, 0, 113, 9], group, 1), PATIENCE).is_some());
    assert!(asking.ask(&asking.v4(CLIENT, group, 2), SOON).is_none());
    assert!(asking.ask(&asking.v4(CLIENT, SERVER, 3), SOON).is_none());
}

#[test]
fn nobody_is_answered_for_an_agent_that_does_not_run_any_more() {
    let mut asking = need!(Asking::start("l2", &[]));
    asking.signal(Signal::SIGSTOP);
    let begin = Instant::now();
    let mut number = 0;
    let mut request = |asking: &Asking| {
        number += 1;
        let frame = Carrier::Ethernet.frame(&delay_req(port(3), number));
        asking.ask(&frame, SOON).is_some()
    };
    while request(&asking) {
        assert!(begin.elapsed() < PATIENCE, "still answered");
    }
    asking.signal(Signal::SIGCONT);
    let begin = Instant::now();
    while !request(&asking) {
        assert!(begin.elapsed() < PATIENCE, "not answered again");
    }
    let summary = asking.agent.finish();
    assert!(!request(&asking), "an agent that has ended leaves nothing behind: {summary}");
}

/// What goes over the wire of a frame: the rest of the preamble, checksum and gap that Ethernet adds, and the least
/// length of a frame.
fn on_the_wire(frame: &[u8]) -> usize {
    frame.len().max(60) + 8 + 4 + 12
}

#[test]
fn stranger_is_sent_no_more_than_a_fifth_more_than_came_and_so_often_at_the_most() {
    for start in [Asking::start, Asking::start_native] {
        let asking = need!(start("udp4", &[]));
        asking.signal(Signal::SIGSTOP);
        let stranger = [203, 0, 113, 9];
        let request = asking.v4(stranger, SERVER, 1);
        let (_, answer) = asking.ask(&request, PATIENCE).expect("an answer");
        let factor = on_the_wire(&answer) as f64 / on_the_wire(&request) as f64;
        assert!(factor <= 1.2, "{factor}");
        // 1,024 a second (not all of which a listener has room for), and a quarter of that in advance: the requests take a part of a second at the most.
        let begin = Instant::now();
        let answered = asking.answered(stranger, 2_000, false);
        let most = 257 + (begin.elapsed().as_secs_f64() * 1_024.0) as usize;
        assert!((100..=most).contains(&answered), "{answered} of 2000, at most {most}");
        // Nobody else goes short by that.
        assert!(asking.ask(&asking.v4(CLIENT, SERVER, 3_001), PATIENCE).is_some());
        asking.signal(Signal::SIGCONT);
    }
}

#[test]
fn one_client_cannot_use_up_what_others_are_answered_from() {
    for start in [Asking::start, Asking::start_native] {
        let asking = need!(start("udp4", &["--answers-per-client", "8"]));
        asking.signal(Signal::SIGSTOP);
        // It is known after its second request.
        let begin = Instant::now();
        let answered = asking.answered(CLIENT, 400, true);
        let most = 5 + (begin.elapsed().as_secs_f64() * 8.0) as usize;
        assert!((2..=most).contains(&answered), "{answered} of 400, at most {most}");
        assert!(asking.ask(&asking.v4([192, 0, 2, 7], SERVER, 1_001), PATIENCE).is_some());
        asking.signal(Signal::SIGCONT);
    }
}

#[test]
fn no_more_is_answered_than_all_may_have_together() {
    for start in [Asking::start, Asking::start_native] {
        let asking = need!(start("udp4", &["--answers-per-second", "100"]));
        asking.signal(Signal::SIGSTOP);
        let begin = Instant::now();
        let answered = asking.answered(CLIENT, 400, false);
        // A tenth of a second in advance, of which newcomers have half, and on each processor.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let seconds = begin.elapsed().as_secs_f64();
        let most = processors * (11 + (seconds * 100.0) as usize);
        assert!((1..=most).contains(&answered), "{answered} of 400, at most {most}");
        asking.signal(Signal::SIGCONT);
    }
}

#[cfg(feature = "host")]
#[test]
fn program_that_keeps_packets_in_front_is_found_out_and_the_agent_answers_until_it_is_past_it() {
    if !Features::probe().tcx {
        eprintln!("skipped: TCX came with Linux 6.6");
        return;
    }
    let asking = need!(Asking::start("l2", &[]));
    let mark = asking.agent.mark();
    let attach = || Neighbour::attach_in_front("gm0", TcAttachType::Ingress, Act::Accept);
    let _other = asking._wire.grandmaster.run(attach).unwrap().unwrap();
    asking.agent.wait_for_text(mark, PATIENCE, "requests are answered by the agent");
    let mut number = 0;
    let mut request = || {
        number += 1;
        Carrier::Ethernet.frame(&delay_req(port(3), number))
    };
    assert!(asking.ask(&request(), PATIENCE).is_some());
    let mark = asking.agent.mark();
    asking.agent.wait_for_text(mark, 2 * PATIENCE, "requests are answered in the kernel");
    asking.signal(Signal::SIGSTOP);
    assert!(asking.ask(&request(), PATIENCE).is_some());
    asking.signal(Signal::SIGCONT);
}

#[cfg(feature = "host")]
#[test]
fn where_xdp_cannot_be_had_or_its_answers_get_no_further_tc_answers_and_that_is_said() {
    let attach = || Neighbour::attach_in_driver("gm0", Act::Accept);
    for (is_occupied, has_napi) in [(true, true), (false, false)] {
        let wire = need!(Wire::new());
        if has_napi {
            need!(napi(&wire));
        }
        let _other = is_occupied.then(|| wire.grandmaster.run(attach).unwrap().unwrap());
        let asking =
            need!(Asking::start_on(wire, "l2", "xdp", "XDP does not answer, TC does", &[]));
        asking.signal(Signal::SIGSTOP);
        let frame = Carrier::Ethernet.frame(&delay_req(port(3), 1));
        assert!(asking.ask(&frame, PATIENCE).is_some(), "{is_occupied} {has_napi}");
        asking.signal(Signal::SIGCONT);
        if is_occupied {
            asking.agent.wait_for_text(0, 2 * PATIENCE, "no_kernel_answers");
        }
    }
}

#[test]
fn auto_has_xdp_answer_where_it_sees_requests_before_the_stack_stamps_them() {
    need!(kernel_programs());
    let host = Namespace::new().unwrap();
    let tap = match host.run(|| Tap::open("eth0")).unwrap() {
        Ok(tap) => tap,
        Err(error) => return eprintln!("skipped: no tap: {error}"),
    };
    host.set_up("eth0").unwrap();
    let arguments = ["serve", "-i", "eth0", "--transport", "l2", "--rx-source", "xdp_native"];
    let agent = Agent::start_only(&host, &arguments);
    agent.wait_for_text(0, PATIENCE, "XDP is compared with the stack's stamp");
    let mut number = 0;
    let mut is_answered = |patience| {
        number += 1;
        let request = delay_req(port(3), number);
        tap.send(&Carrier::Ethernet.frame(&request)).unwrap();
        let answer = |frame: &[u8]| {
            let message = ptp(frame)?;
            (message.len() >= 54 && message[30..32] == request[30..32]).then_some(())
        };
        tap.hear(patience, answer).is_some()
    };
    let begin = Instant::now();
    while !agent.lines().iter().any(|line| line.text.contains("requests are answered by XDP")) {
        assert!(begin.elapsed() < 2 * PATIENCE, "{}", agent.last_words());
        is_answered(SOON);
    }
    agent.signal(Signal::SIGSTOP);
    assert!(is_answered(PATIENCE), "by the kernel");
    agent.signal(Signal::SIGCONT);
}

#[test]
fn auto_never_puts_xdp_on_a_veth_which_makes_its_stamps_worse() {
    let wire = need!(Wire::new());
    let (proof, source) = ("XDP does not answer, TC does", ["--rx-source", "xdp_native"]);
    let asking = need!(Asking::start_on(wire, "l2", "auto", proof, &source));
    let told = asking.agent.lines();
    assert!(told.iter().any(|line| line.text.contains("XDP makes the stamps of a veth worse")));
}
