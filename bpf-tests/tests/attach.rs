//! Claims about the programs on real interfaces: packets that are really sent from one network
//! namespace to another give the records that they should on every hook, whatever way the hook was
//! attached; and nothing stays attached when the process ends, however it ends.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::programs::tc;
use bpf_tests::{
    agent::Agent,
    frames::{Expected, Payload, Recipe, sync},
    hooks::{self, Clsact},
    links::{Wire, ip, tagged},
    need,
    neighbour::{Act, Neighbour},
    objects::{kernel_programs, objects},
    program,
    raw::FrameSocket,
};
use ptp_agent::{
    capture::{
        AttachedHooks, CaptureError, ClockRelation, EgressJoin, Features, Options, Programs,
        TcAttach, XdpHook, mono_stamp,
    },
    lab::netns::Namespace,
};
use ptp_common::record::{Direction, Hook, Record};

/// How long a record may take to come; the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces and a wire, on a machine where programs can be loaded.
fn wire() -> Result<Wire, String> {
    kernel_programs()?;
    Wire::new()
}

/// Programs attached to an interface of a namespace, and everything that they have recorded there.
struct Attached<'a> {
    namespace: &'a Namespace,
    /// `None` only while dropping.
    programs: Option<Programs>,
    hooks: AttachedHooks,
    ifindex: u32,
    records: Vec<Record>,
}

impl<'a> Attached<'a> {
    fn new(namespace: &'a Namespace, interface: &str, options: Options) -> Self {
        let mut programs = Programs::load(options).unwrap();
        let (hooks, ifindex) = namespace
            .run(|| {
                let ifindex = nix::net::if_::if_nametoindex(interface).unwrap();
                (programs.attach(interface).unwrap(), ifindex)
            })
            .unwrap();
        Self { namespace, programs: Some(programs), hooks, ifindex, records: Vec::new() }
    }

    fn programs(&mut self) -> &mut Programs {
        self.programs.as_mut().unwrap()
    }

    fn drain(&mut self) {
        let Self { programs: Some(programs), records, .. } = self else { return };
        programs.drain(|record| records.push(record));
    }

    /// Waits for the first record that `wanted` accepts, and takes it out.
    fn take(&mut self, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.drain();
            if let Some(at) = self.records.iter().position(&wanted) {
                return self.records.remove(at);
            }
            assert!(Instant::now() < deadline, "no {what}; there are: {:#?}", self.records);
            // The ring wakes nobody up, by design.
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn take_from(&mut self, hook: Hook) -> Record {
        self.take(&format!("record of {hook:?}"), |record| record.hook == hook)
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let programs = self.programs.take();
        self.namespace.run(|| drop(programs)).unwrap();
    }
}

fn all_hooks() -> Options {
    Options { xmit: true, ..Options::default() }
}

/// The ways to attach TC that this kernel has.
fn ways() -> Vec<TcAttach> {
    if Features::probe().tcx {
        vec![TcAttach::Auto, TcAttach::Clsact]
    } else {
        vec![TcAttach::Clsact]
    }
}

fn socket(namespace: &Namespace, interface: &str) -> FrameSocket {
    namespace.run(|| FrameSocket::open(interface)).unwrap().unwrap()
}

/// A Sync of each transport, distinguishable by its sequence id.
fn syncs() -> Vec<Recipe> {
    let mut recipes =
        vec![Recipe::sync_on_ethernet(), Recipe::sync_on_udp4(), Recipe::sync_on_udp6()];
    for (number, recipe) in recipes.iter_mut().enumerate() {
        recipe.message[31] = number as u8;
    }
    recipes
}

/// That a record says what a recipe's frame is, all tags being in the packet.
fn check(record: &Record, recipe: &Recipe, ifindex: u32) {
    let length = recipe.frame().len();
    assert_eq!(Some(Expected::of(record)), recipe.expected(length), "{:?}", record.hook);
    assert_eq!(record.packet_length as usize, length, "{:?}", record.hook);
    assert_eq!(record.ifindex, ifindex, "{:?}", record.hook);
}

#[test]
fn packet_is_stamped_in_the_order_of_its_way_from_host_to_host() {
    let wire = need!(wire());
    for tc in ways() {
        let options = Options { tc, ..all_hooks() };
        let mut sender = Attached::new(&wire.grandmaster, "gm0", options.clone());
        let mut receiver = Attached::new(&wire.client, "ptp0", options);
        assert_eq!(sender.hooks, AttachedHooks { tcx: tc == TcAttach::Auto, xdp: None });
        let socket = socket(&wire.grandmaster, "gm0");
        let mut join = EgressJoin::default();
        for recipe in syncs() {
            socket.send(&recipe.frame()).unwrap();
            let egress = sender.take_from(Hook::TcEgress);
            let xmit = sender.take_from(Hook::Xmit);
            let ingress = receiver.take_from(Hook::TcIngress);
            check(&egress, &recipe, sender.ifindex);
            check(&ingress, &recipe, receiver.ifindex);
            assert_eq!(egress.direction, Direction::Egress);
            assert_eq!(ingress.direction, Direction::Ingress);
            assert!(!egress.vlan_offloaded && !ingress.vlan_offloaded);
            assert!(egress.mono_ns < xmit.mono_ns, "{egress:?} {xmit:?}");
            assert!(xmit.mono_ns < xmit.done_ns, "{xmit:?}");
            assert!(xmit.mono_ns < ingress.mono_ns, "{xmit:?} {ingress:?}");
            join.push(egress.clone());
            assert_eq!(join.join(&xmit), Some(egress));
        }
        for attached in [&mut sender, &mut receiver] {
            attached.drain();
            assert!(attached.records.is_empty(), "{:?}", attached.records);
            assert_eq!((attached.programs().lost(), attached.programs().malformed()), (0, 0));
        }
    }
}

#[test]
fn freshly_built_object_records_on_a_wire_too() {
    let wire = need!(wire());
    for object in objects() {
        let mut programs = Programs::load_object(&object.bytes, all_hooks()).unwrap();
        wire.client.run(|| programs.attach("ptp0").map(drop)).unwrap().unwrap();
        socket(&wire.grandmaster, "gm0").send(&Recipe::sync_on_udp4().frame()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while records.is_empty() {
            assert!(Instant::now() < deadline, "{}: no record", object.name);
            programs.drain(|record| records.push(record));
        }
        assert_eq!(records[0].hook, Hook::TcIngress);
        wire.client.run(|| drop(programs)).unwrap();
    }
}

#[test]
fn datagram_of_a_socket_is_recorded_on_both_sides() {
    let wire = need!(wire());
    let mut sender = Attached::new(&wire.grandmaster, "gm0", all_hooks());
    let mut receiver = Attached::new(&wire.client, "ptp0", all_hooks());
    let bound = wire.client.run(|| UdpSocket::bind("192.0.2.2:319").unwrap()).unwrap();
    let socket = wire.grandmaster.run(|| UdpSocket::bind("192.0.2.1:319").unwrap()).unwrap();
    socket.send_to(&sync(), bound.local_addr().unwrap()).unwrap();
    for record in [sender.take_from(Hook::TcEgress), receiver.take_from(Hook::TcIngress)] {
        assert_eq!(record.message(), sync());
        assert_eq!(record.source[..4], Ipv4Addr::new(192, 0, 2, 1).octets());
        assert_eq!(record.destination[..4], Ipv4Addr::new(192, 0, 2, 2).octets());
        assert_eq!((record.source_port, record.destination_port), (319, 319));
    }
    let mut message = [0; 100];
    let (length, _) = bound.recv_from(&mut message).unwrap();
    assert_eq!(message[..length], sync(), "the packet reached its socket unaltered");
}

#[test]
fn tag_that_the_stack_has_moved_to_metadata_is_in_the_record() {
    let wire = need!(wire());
    let xdp = Options { xdp: Some(XdpHook::Generic), ..all_hooks() };
    let mut receiver = Attached::new(&wire.client, "ptp0", xdp);
    let socket = socket(&wire.grandmaster, "gm0");
    for recipe in syncs() {
        for tags in [vec![(0x8100, 0x6064)], vec![(0x88a8, 0x2005), (0x8100, 0x6fff)]] {
            let tagged = Recipe { tags, ..recipe.clone() };
            socket.send(&tagged.frame()).unwrap();
            // XDP sees the packet as it came; the stack then takes the outer tag out of it.
            check(&receiver.take_from(Hook::XdpIngress), &tagged, receiver.ifindex);
            let ingress = receiver.take_from(Hook::TcIngress);
            assert!(ingress.vlan_offloaded);
            let expected = tagged.expected(tagged.frame().len());
            assert_eq!(Some(Expected::of(&ingress)), expected);
            assert_eq!(ingress.packet_length as usize, tagged.frame().len() - 4);
        }
    }
}

#[test]
fn tag_that_the_driver_is_to_add_is_in_the_record() {
    let wire = need!(wire());
    if !Features::probe().tcx {
        return bpf_tests::skipped("TCX, by which the test adds a tag, came with Linux 6.6");
    }
    let push = wire.grandmaster.run(|| Neighbour::attach("gm0", Act::Tag(0x6064)));
    let _push = push.unwrap().unwrap();
    let mut sender = Attached::new(&wire.grandmaster, "gm0", all_hooks());
    let mut receiver = Attached::new(&wire.client, "ptp0", all_hooks());
    for recipe in syncs() {
        socket(&wire.grandmaster, "gm0").send(&recipe.frame()).unwrap();
        for record in [sender.take_from(Hook::TcEgress), receiver.take_from(Hook::TcIngress)] {
            assert!(record.vlan_offloaded, "{record:?}");
            let untagged = recipe.expected(recipe.frame().len()).unwrap();
            assert_eq!(Expected::of(&record), Expected { vlan: vec![0x6064], ..untagged });
        }
        sender.take_from(Hook::Xmit);
    }
}

#[test]
fn packet_of_a_vlan_interface_is_recorded_with_its_tag() {
    let wire = need!(wire());
    need!(program("ip"));
    need!(tagged(&wire.grandmaster, "gm0", 100, "198.51.100.1/24"));
    let mut upper = Attached::new(&wire.grandmaster, "gm0.100", all_hooks());
    let mut lower = Attached::new(&wire.grandmaster, "gm0", all_hooks());
    socket(&wire.grandmaster, "gm0.100").send(&Recipe::sync_on_ethernet().frame()).unwrap();
    assert_eq!(upper.take_from(Hook::TcEgress).vlan_count, 0);
    let record = lower.take_from(Hook::TcEgress);
    assert_eq!((record.vlan_count, record.vlan[0] & 0xfff), (1, 100));
    // One packet, one driver: the stamps around it are those of the lower interface for both.
    let (a, b) = (upper.take_from(Hook::Xmit), lower.take_from(Hook::Xmit));
    assert!(a.mono_ns.abs_diff(b.mono_ns) < 1_000_000, "{a:?} {b:?}");
}

#[test]
fn packet_in_pages_is_read_where_it_is() {
    let wire = need!(wire());
    need!(program("ip"));
    ip(&wire.grandmaster, "link set gm0 mtu 9000");
    ip(&wire.client, "link set ptp0 mtu 9000");
    let mut sender = Attached::new(&wire.grandmaster, "gm0", all_hooks());
    let mut receiver = Attached::new(&wire.client, "ptp0", all_hooks());
    let socket = wire.grandmaster.run(|| FrameSocket::open_paged("gm0")).unwrap().unwrap();
    let mut options = Recipe::sync_on_udp4();
    if let Payload::Ipv4 { options, .. } = &mut options.payload {
        *options = vec![[1; 4]; 10];
    }
    let mut other = Recipe::sync_on_udp4();
    if let Payload::Ipv4 { ports, .. } = &mut other.payload {
        ports[1] = 53;
    }
    for recipe in syncs().into_iter().chain([options]) {
        let message = recipe.message.iter().copied().chain((0..6000).map(|n| n as u8)).collect();
        let recipe = Recipe { message, ..recipe };
        // Longer than a page, so that all but the link header is in pages; see `open_paged`.
        socket.send(&Recipe { message: recipe.message.clone(), ..other.clone() }.frame()).unwrap();
        socket.send(&recipe.frame()).unwrap();
        check(&sender.take_from(Hook::TcEgress), &recipe, sender.ifindex);
        sender.take_from(Hook::Xmit);
        check(&receiver.take_from(Hook::TcIngress), &recipe, receiver.ifindex);
    }
    sender.drain();
    receiver.drain();
    assert!(sender.records.is_empty() && receiver.records.is_empty());
}

#[test]
fn packet_cut_short_on_the_wire_gives_no_record() {
    let wire = need!(wire());
    let mut receiver = Attached::new(&wire.client, "ptp0", all_hooks());
    let socket = socket(&wire.grandmaster, "gm0");
    for recipe in [Recipe::sync_on_udp4(), Recipe::sync_on_udp6()] {
        let frame = recipe.frame();
        for length in 15..recipe.decided_at() {
            socket.send(&frame[..length]).unwrap();
        }
        // The first that is long enough comes behind them all, and alone.
        socket.send(&frame[..recipe.decided_at()]).unwrap();
        let record = receiver.take_from(Hook::TcIngress);
        assert_eq!(record.packet_length as usize, recipe.decided_at());
        assert!(record.message().is_empty());
    }
    assert!(receiver.records.is_empty());
}

#[test]
fn xdp_stamps_a_packet_before_tc_does() {
    let wire = need!(wire());
    for (wanted, got) in [
        (XdpHook::Generic, XdpHook::Generic),
        (XdpHook::Native, XdpHook::Native),
        (XdpHook::Auto, XdpHook::Native),
    ] {
        let options = Options { xdp: Some(wanted), ..all_hooks() };
        let mut receiver = Attached::new(&wire.client, "ptp0", options);
        assert_eq!(receiver.hooks.xdp, Some(got));
        let socket = socket(&wire.grandmaster, "gm0");
        for recipe in syncs() {
            socket.send(&recipe.frame()).unwrap();
            let xdp = receiver.take_from(Hook::XdpIngress);
            let tc = receiver.take_from(Hook::TcIngress);
            check(&xdp, &recipe, receiver.ifindex);
            check(&tc, &recipe, receiver.ifindex);
            assert!(xdp.mono_ns < tc.mono_ns, "{got:?}: {xdp:?} {tc:?}");
        }
    }
}

#[test]
fn the_stacks_own_stamp_lies_between_transmission_and_tc_ingress() {
    let wire = need!(wire());
    let mut sender = Attached::new(&wire.grandmaster, "gm0", all_hooks());
    let mut receiver = Attached::new(&wire.client, "ptp0", all_hooks());
    // Any socket that wants receive stamps switches them on for all packets.
    let wants_stamps = wire.client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let on: libc::c_int = 1;
    // SAFETY: pointer and length describe an integer that lives through the call.
    let set = unsafe {
        libc::setsockopt(
            wants_stamps.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(set, 0);
    let socket = socket(&wire.grandmaster, "gm0");
    let deadline = Instant::now() + PATIENCE;
    loop {
        socket.send(&Recipe::sync_on_udp4().frame()).unwrap();
        let egress = sender.take_from(Hook::TcEgress);
        let ingress = receiver.take_from(Hook::TcIngress);
        let Some(stack) = ClockRelation::now().stack_stamp(&ingress) else {
            // The kernel switches the stamps on a little later.
            assert!(Instant::now() < deadline, "no stamp of the stack came");
            continue;
        };
        assert!(mono_stamp(&egress) < stack, "{egress:?} {ingress:?}");
        assert!(stack < mono_stamp(&ingress), "{ingress:?}");
        break;
    }
}

#[test]
fn bridge_interface_is_stamped_like_any_other() {
    let wire = need!(wire());
    wire.client.bridge("br0", &["ptp0"]).unwrap();
    for tc in ways() {
        let mut bridge = Attached::new(&wire.client, "br0", Options { tc, ..all_hooks() });
        for recipe in syncs() {
            socket(&wire.grandmaster, "gm0").send(&recipe.frame()).unwrap();
            check(&bridge.take_from(Hook::TcIngress), &recipe, bridge.ifindex);
            socket(&wire.client, "br0").send(&recipe.frame()).unwrap();
            let egress = bridge.take_from(Hook::TcEgress);
            check(&egress, &recipe, bridge.ifindex);
            let xmit = bridge.take_from(Hook::Xmit);
            assert_eq!(xmit.serial, egress.serial);
        }
    }
}

#[test]
fn packet_dropped_behind_the_hook_is_never_said_to_be_sent() {
    let wire = need!(wire());
    if !Features::probe().tcx {
        return bpf_tests::skipped("TCX, by which the test drops packets, came with Linux 6.6");
    }
    let mut sender = Attached::new(&wire.grandmaster, "gm0", all_hooks());
    let dropper = wire.grandmaster.run(|| Neighbour::attach("gm0", Act::Drop)).unwrap().unwrap();
    let socket = socket(&wire.grandmaster, "gm0");
    for _ in 0..100 {
        // That the packet was dropped is no error of the socket's.
        let _ = socket.send(&Recipe::sync_on_udp4().frame());
        sender.take_from(Hook::TcEgress);
    }
    sender.drain();
    assert!(sender.records.is_empty(), "{:?}", sender.records);
    drop(dropper);
    for recipe in syncs() {
        socket.send(&recipe.frame()).unwrap();
        let egress = sender.take_from(Hook::TcEgress);
        assert_eq!(sender.take_from(Hook::Xmit).serial, egress.serial);
    }
}

#[test]
fn clsact_is_removed_with_the_last_that_uses_it() {
    let wire = need!(wire());
    let options = Options { tc: TcAttach::Clsact, ..all_hooks() };
    assert!(!hooks::clsact(&wire.grandmaster, "gm0").present);
    let first = Attached::new(&wire.grandmaster, "gm0", options.clone());
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0"), Clsact { present: true, filters: 2 });
    let mut second = Attached::new(&wire.grandmaster, "gm0", options.clone());
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0"), Clsact { present: true, filters: 4 });
    drop(first);
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0"), Clsact { present: true, filters: 2 });
    socket(&wire.grandmaster, "gm0").send(&Recipe::sync_on_udp4().frame()).unwrap();
    second.take_from(Hook::TcEgress);
    drop(second);
    drop(Attached::new(&wire.grandmaster, "gm0", options));
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0").filters, 0);
}

#[test]
fn clsact_that_was_there_before_stays() {
    let wire = need!(wire());
    wire.grandmaster.run(|| tc::qdisc_add_clsact("gm0")).unwrap().unwrap();
    drop(Attached::new(&wire.grandmaster, "gm0", Options { tc: TcAttach::Clsact, ..all_hooks() }));
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0"), Clsact { present: true, filters: 0 });
}

/// The program that attaches for a test: where cargo has put it, or where a guest has it.
fn helper() -> PathBuf {
    env::var_os("PTP_ATTACH_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_attach").into(), Into::into)
}

/// A process that has attached its programs.
fn other_process(namespace: &Namespace, arguments: [&str; 2]) -> Child {
    let mut child = namespace
        .command(helper())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "attached\n");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn filters_that_a_killed_process_left_are_replaced_and_then_removed() {
    let wire = need!(wire());
    kill(other_process(&wire.grandmaster, ["gm0", "clsact"]));
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0"), Clsact { present: true, filters: 2 });
    let options = Options { tc: TcAttach::Clsact, ..all_hooks() };
    let mut sender = Attached::new(&wire.grandmaster, "gm0", options);
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0"), Clsact { present: true, filters: 2 });
    socket(&wire.grandmaster, "gm0").send(&Recipe::sync_on_udp4().frame()).unwrap();
    sender.take_from(Hook::TcEgress);
    drop(sender);
    assert!(!hooks::clsact(&wire.grandmaster, "gm0").present);
}

#[test]
fn filters_of_a_running_process_are_left_alone() {
    let wire = need!(wire());
    let other = other_process(&wire.grandmaster, ["gm0", "clsact"]);
    let options = Options { tc: TcAttach::Clsact, ..all_hooks() };
    let own = Attached::new(&wire.grandmaster, "gm0", options);
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0"), Clsact { present: true, filters: 4 });
    drop(own);
    assert_eq!(hooks::clsact(&wire.grandmaster, "gm0"), Clsact { present: true, filters: 2 });
    kill(other);
}

#[test]
fn process_that_ends_takes_clsact_along() {
    let wire = need!(wire());
    let mut other = other_process(&wire.grandmaster, ["gm0", "clsact"]);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    assert!(!hooks::clsact(&wire.grandmaster, "gm0").present);
}

#[test]
fn links_of_a_killed_process_are_gone() {
    let wire = need!(wire());
    if !Features::probe().tcx {
        return bpf_tests::skipped("TCX came with Linux 6.6");
    }
    let other = other_process(&wire.grandmaster, ["gm0", "tcx"]);
    let programs = hooks::tcx(&wire.grandmaster, "gm0").unwrap();
    assert_eq!(programs, ["ptp_tc_ingress", "ptp_tc_egress"]);
    kill(other);
    let deadline = Instant::now() + PATIENCE;
    while !hooks::tcx(&wire.grandmaster, "gm0").unwrap().is_empty() {
        assert!(Instant::now() < deadline, "links outlived their process");
        thread::sleep(Duration::from_millis(5));
    }
    // XDP takes one program only, so this shows that the other's has gone.
    let options = Options { xdp: Some(XdpHook::Generic), ..all_hooks() };
    let own = Attached::new(&wire.grandmaster, "gm0", options);
    assert_eq!(own.hooks.xdp, Some(XdpHook::Generic));
}

#[test]
fn interface_that_vanishes_takes_its_hooks_along() {
    for tc in ways() {
        let wire = need!(wire());
        let options = Options { tc, ..all_hooks() };
        let mut attached = Attached::new(&wire.grandmaster, "gm0", options);
        wire.grandmaster.delete("gm0").unwrap();
        let ifindex = attached.ifindex;
        let namespace = attached.namespace;
        namespace.run(|| attached.programs().detach(ifindex)).unwrap();
        wire.connect().unwrap();
        namespace.run(|| attached.programs().attach("gm0").unwrap()).unwrap();
        socket(&wire.grandmaster, "gm0").send(&Recipe::sync_on_udp4().frame()).unwrap();
        attached.take_from(Hook::TcEgress);
    }
}

#[test]
fn failed_attachment_leaves_nothing_behind() {
    let wire = need!(wire());
    // Somebody else has the only place for XDP.
    let options = Options { xdp: Some(XdpHook::Native), ..all_hooks() };
    let _other = Attached::new(&wire.client, "ptp0", options.clone());
    for tc in ways() {
        let before = hooks::clsact(&wire.client, "ptp0");
        let mut programs = Programs::load(Options { tc, ..options.clone() }).unwrap();
        let result = wire.client.run(|| programs.attach("ptp0")).unwrap();
        assert!(matches!(result, Err(CaptureError::Attach { .. })), "{result:?}");
        assert_eq!(hooks::clsact(&wire.client, "ptp0"), before);
        if tc == TcAttach::Auto {
            assert_eq!(hooks::tcx(&wire.client, "ptp0").unwrap().len(), 2);
        }
    }
}

#[test]
fn interface_that_does_not_exist_is_named() {
    need!(kernel_programs());
    let mut programs = Programs::load(Options::default()).unwrap();
    let error = programs.attach("nowhere0").unwrap_err();
    assert_eq!(error.to_string(), "interface nowhere0 does not exist");
}

#[test]
fn programs_say_why_a_packet_is_not_seen_to_those_who_ask() {
    let wire = need!(wire());
    let mut agent = Agent::start(&wire.client, &["-vvv", "observe", "-i", "ptp0"]);
    let socket = socket(&wire.grandmaster, "gm0");
    socket.send(&Recipe::sync_on_udp4().frame()).unwrap();
    let other = Payload::Other { ethertype: 0x88cc };
    socket.send(&Recipe { payload: other, ..Recipe::sync_on_ethernet() }.frame()).unwrap();
    for line in ["TC ingress: message at byte 42, 0 tags", "TC ingress: no PTP, EtherType 0x88cc, "]
    {
        agent.wait_for_text(0, PATIENCE, line);
    }
    let summary = agent.finish();
    assert_eq!(summary["ports"].as_array().map(Vec::len), Some(1), "stamped as ever: {summary}");
}

#[test]
fn missing_privileges_are_named() {
    let wire = need!(wire());
    let output = wire.client.command(helper()).arg("unprivileged").output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stdout).unwrap();
    assert!(message.contains("CAP_BPF"), "{message}");
}
