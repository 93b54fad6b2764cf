//! Claims about a chain of programs that others share: a program in front of ours that ends it costs the
//! agent no stamps for long, whoever came first, on TCX and on clsact; and another XDP program costs it
//! XDP only. Needs root.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::programs::TcAttachType::{self, Egress, Ingress};
use bpf_tests::{
    agent::{Agent, field},
    frames::Recipe,
    hooks, in_company,
    links::{Wire, output},
    median, need,
    neighbour::{Act, Neighbour},
    objects::kernel_programs,
    program,
    raw::FrameSocket,
};
use ptp_agent::{
    capture::{Features, Options, Place, Programs, TcAttach, TcPlace, XdpHook},
    lab::netns::Namespace,
};
use ptp_common::record::{Hook, Record};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// Two namespaces and a wire, on a kernel with TCX.
fn wire() -> Result<Wire, String> {
    kernel_programs()?;
    if !Features::probe().tcx {
        return Err("TCX came with Linux 6.6".to_owned());
    }
    Wire::new()
}

fn accept(namespace: &Namespace, interface: &str, hook: TcAttachType) -> Neighbour {
    namespace.run(|| Neighbour::attach_in_front(interface, hook, Act::Accept)).unwrap().unwrap()
}

fn serve(wire: &Wire) -> Agent {
    let arguments = "serve -i gm0 --transport l2 --log-sync-interval -4 --log-announce-interval -2 \
                     --log-min-delay-req-interval -4";
    Agent::start(&wire.grandmaster, &arguments.split_whitespace().collect::<Vec<_>>())
}

fn run(wire: &Wire, more: &[&str]) -> Agent {
    let mut arguments = vec!["run", "-i", "ptp0", "--transport", "l2", "--clock", "virtual"];
    arguments.extend(more);
    Agent::start(&wire.client, &arguments)
}

fn source(sample: &Value) -> &str {
    sample["tx_source"].as_str().unwrap_or("none")
}

#[test]
fn chain_that_ends_before_the_agent_comes_costs_it_no_stamps() {
    let _machine = in_company();
    let wire = need!(wire());
    let _others = [
        accept(&wire.client, "ptp0", Egress),
        accept(&wire.client, "ptp0", Ingress),
        accept(&wire.grandmaster, "gm0", Egress),
        accept(&wire.grandmaster, "gm0", Ingress),
    ];
    // `observe` has nothing to tell that it does not see: it must have been in front from the start.
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    let mut server = serve(&wire);
    let mut agent = run(&wire, &[]);
    let samples = agent.wait_for_samples(0, PATIENCE, 32);
    assert!(samples.iter().all(|sample| source(sample) != "driver_software"), "{samples:?}");
    let summary = agent.finish();
    assert!(summary["lost"]["tx_stamp_missing"].is_null(), "{summary}");
    assert!(!agent.lines().iter().any(|line| line.text.contains("hooks_displaced")));
    server.finish();
    let summary = observer.finish();
    let complete = summary["ports"]
        .as_array()
        .unwrap()
        .iter()
        .any(|port| port["exchanges"]["delay"].as_u64().is_some_and(|count| count > 0));
    assert!(complete, "{summary}");
}

#[test]
fn program_put_in_front_of_a_running_agent_is_displaced_in_return() {
    let _machine = in_company();
    let wire = need!(wire());
    let _server = serve(&wire);
    let mut agent = run(&wire, &[]);
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    agent.wait_for_samples(0, PATIENCE, 8);
    let mark = [agent.mark(), observer.mark()];
    let _others = [accept(&wire.client, "ptp0", Egress), accept(&wire.client, "ptp0", Ingress)];
    for (who, mark) in [(&agent, mark[0]), (&observer, mark[1])] {
        who.wait_for_text(mark, PATIENCE, "attached again, in front of other programs");
    }
    let programs = hooks::tcx(&wire.client, "ptp0").unwrap();
    assert_eq!(programs.iter().filter(|name| *name == "neighbour").count(), 2, "{programs:?}");
    // The driver's stamps stood in, and may be the choice until the next comparison.
    agent.wait_for_sample(agent.mark(), PATIENCE * 2, "sample of a program", |sample| {
        source(sample) != "driver_software"
    });
    let samples = agent.samples(mark[0]);
    // No stamp was taken for another's: both ends have one clock. A busy machine holds up a packet or two.
    let offsets = field(&samples, "raw_offset_ns");
    let typical = median(offsets.iter().map(|offset| offset.abs()).collect());
    assert!(typical < 10_000_000, "{offsets:?}");
    agent.finish();
    observer.finish();
}

/// Puts itself in front again and again, whoever else does. Ends with the flag.
fn insist(namespace: &Namespace, hook: TcAttachType, end: &AtomicBool) {
    let mut own = accept(namespace, "ptp0", hook);
    while !end.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
        // In front before the old one goes, so that the agent's is never first.
        own = accept(namespace, "ptp0", hook);
    }
    drop(own);
}

#[test]
fn kernels_own_stamps_stand_in_where_the_programs_are_never_reached() {
    let _machine = in_company();
    let wire = need!(wire());
    let _server = serve(&wire);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("status.sock");
    let mut agent = run(&wire, &["--status-socket", socket.to_str().unwrap()]);
    agent.wait_for_samples(0, PATIENCE, 8);
    let end = AtomicBool::new(false);
    let mark = agent.mark();
    thread::scope(|scope| {
        for hook in [Egress, Ingress] {
            let (client, end) = (&wire.client, &end);
            scope.spawn(move || insist(client, hook, end));
        }
        let sample = agent.wait_for_sample(mark, PATIENCE, "sample of the driver", |sample| {
            source(sample) == "driver_software" && sample["rx_source"] == "stack"
        });
        assert!(sample["raw_offset_ns"].as_i64().unwrap().abs() < 100_000_000, "{sample}");
        agent.wait_for_text(mark, PATIENCE, "alarm raised alarm=\"hooks_displaced\"");
        let status = output(
            wire.client
                .command(bpf_tests::agent::binary())
                .args(["status", "--json", "--status-socket"])
                .arg(&socket),
        );
        end.store(true, Ordering::Relaxed);
        // In which directions changes with every attempt.
        assert!(status.contains(r#""displaced":["#), "{status}");
        assert!(!status.contains(r#""attached_again":0,"#), "{status}");
    });
    // Nobody insists any more.
    agent.wait_for_text(mark, PATIENCE * 4, "alarm cleared alarm=\"hooks_displaced\"");
    agent.wait_for_sample(agent.mark(), PATIENCE * 2, "sample of a program", |sample| {
        source(sample) != "driver_software"
    });
    agent.finish();
}

/// Programs on an interface of a namespace by clsact, in front.
struct OnClsact<'a> {
    namespace: &'a Namespace,
    programs: Option<Programs>,
    ifindex: u32,
}

impl<'a> OnClsact<'a> {
    fn new(namespace: &'a Namespace, interface: &str) -> Self {
        let (tc, place) = (TcAttach::Clsact, TcPlace::InFront);
        let mut programs = Programs::load(Options { tc, place, ..Options::default() }).unwrap();
        let ifindex = namespace
            .run(|| {
                programs.attach(interface).unwrap();
                nix::net::if_::if_nametoindex(interface).unwrap()
            })
            .unwrap();
        Self { namespace, programs: Some(programs), ifindex }
    }

    fn places(&mut self) -> [Place; 2] {
        let programs = self.programs.as_mut().unwrap();
        self.namespace.run(|| programs.places(self.ifindex)).unwrap().unwrap()
    }

    fn attach_again(&mut self) {
        let programs = self.programs.as_mut().unwrap();
        self.namespace.run(|| programs.attach_again(self.ifindex)).unwrap().unwrap();
    }

    /// Whether a packet that is sent now is seen.
    fn sees(&mut self, socket: &FrameSocket, sequence_id: u8) -> bool {
        let mut recipe = Recipe::sync_on_ethernet();
        recipe.message[31] = sequence_id;
        socket.send(&recipe.frame()).unwrap();
        // The record is there before the call returns.
        let mut seen = false;
        self.programs.as_mut().unwrap().drain(|record: Record| {
            seen |= record.hook == Hook::TcEgress && record.message()[31] == sequence_id;
        });
        seen
    }
}

impl Drop for OnClsact<'_> {
    fn drop(&mut self) {
        let programs = self.programs.take();
        self.namespace.run(|| drop(programs)).unwrap();
    }
}

#[test]
fn filters_of_every_priority_are_preceded_on_clsact() {
    let _machine = in_company();
    need!(kernel_programs());
    let wire = need!(Wire::new());
    let tc = need!(program("tc"));
    let filter = |what: &str| {
        let arguments = what.split_whitespace().chain(["bpf", "da", "bytecode", "1,6 0 0 0"]);
        output(wire.grandmaster.command(&tc).args(arguments))
    };
    output(wire.grandmaster.command(&tc).args("qdisc add dev gm0 clsact".split(' ')));
    filter("filter add dev gm0 egress prio 1 protocol all");
    filter("filter add dev gm0 egress prio 7 protocol all");
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    let mut own = OnClsact::new(&wire.grandmaster, "gm0");
    assert_eq!(own.places(), [Place::Front, Place::Front]);
    assert!(own.sees(&socket, 1));

    // Of two filters of one priority the newer one comes first.
    filter("filter add dev gm0 egress prio 1 protocol all");
    let [ingress, egress] = own.places();
    assert_eq!(ingress, Place::Front);
    assert!(matches!(&egress, Place::Behind(others) if others.len() == 1), "{egress:?}");
    assert!(!own.sees(&socket, 2));
    own.attach_again();
    assert_eq!(own.places(), [Place::Front, Place::Front]);
    assert!(own.sees(&socket, 3));

    output(wire.grandmaster.command(&tc).args("qdisc del dev gm0 clsact".split(' ')));
    assert_eq!(own.places(), [Place::Gone, Place::Gone]);
    assert!(!own.sees(&socket, 4));
    own.attach_again();
    assert!(own.sees(&socket, 5));
    drop(own);
    assert!(!hooks::clsact(&wire.grandmaster, "gm0").present);
}

#[test]
fn filter_that_cannot_be_preceded_is_named() {
    let _machine = in_company();
    need!(kernel_programs());
    let wire = need!(Wire::new());
    let tc = need!(program("tc"));
    let tc = |what: &str| output(wire.grandmaster.command(&tc).args(what.split_whitespace()));
    tc("qdisc add dev gm0 clsact");
    tc("filter add dev gm0 egress prio 1 protocol all u32 match u32 0 0 classid 1:1");
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    let mut own = OnClsact::new(&wire.grandmaster, "gm0");
    assert!(!own.sees(&socket, 1));
    let [ingress, egress] = own.places();
    assert_eq!(ingress, Place::Front);
    let Place::Behind(others) = egress else { panic!("{egress:?}") };
    assert!(others.iter().any(|other| other.contains("u32 filter of priority 1")), "{others:?}");
}

#[test]
fn another_xdp_program_costs_the_agent_xdp_only() {
    let _machine = in_company();
    let wire = need!(wire());
    let options = Options { xdp: Some(XdpHook::Native), ..Options::default() };
    let mut other = Programs::load(options).unwrap();
    wire.client.run(|| other.attach("ptp0")).unwrap().unwrap();
    let _server = serve(&wire);
    let mut agent = run(&wire, &["--rx-source", "xdp"]);
    agent.wait_for_text(0, PATIENCE, "another program has the place of XDP");
    let samples = agent.wait_for_samples(0, PATIENCE, 8);
    assert!(samples.iter().all(|sample| sample["rx_source"] == "stack"), "{samples:?}");
    agent.finish();
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0", "--rx-source", "xdp"]);
    let sample = observer.wait_for_sample(0, PATIENCE, "a sample", |_| true);
    assert_eq!(sample["rx_source"], "stack");
    observer.finish();
    wire.client.run(|| drop(other)).unwrap();
}

#[test]
fn two_agents_on_one_interface_do_not_displace_each_other() {
    let _machine = in_company();
    let wire = need!(wire());
    let _server = serve(&wire);
    let mut agent = run(&wire, &[]);
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    agent.wait_for_samples(0, PATIENCE, 4);
    // The places are looked at every five seconds.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(7) {
        agent.wait_for_samples(agent.mark(), PATIENCE, 8);
    }
    for mut who in [std::mem::replace(&mut agent, run(&wire, &["--domain", "9"])), observer] {
        assert!(!who.lines().iter().any(|line| line.text.contains("attached again")));
        who.finish();
    }
    observer = agent;
    observer.finish();
}
