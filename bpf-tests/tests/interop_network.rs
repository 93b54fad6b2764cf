//! What networks do to messages, and what the agent makes of it: VLANs on a trunk, scopes of IPv6, packets
//! that the stack drops behind the hook, and packets that nobody here can follow. Needs root.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use bpf_tests::{
    agent::{Agent, field},
    children::Line,
    forge::{Party, announce, message, port},
    frames::Recipe,
    in_company,
    links::{Star, Wire, ip, mac},
    median, need,
    ptp4l::Ptp4l,
    raw::FrameSocket,
};
use ptp_agent::lab::netns::Namespace;
use ptp_common::{
    classify::ETHERTYPE_CTAG,
    wire::{Header, MessageType, MessageView},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn agent(namespace: &Namespace, arguments: &str) -> Agent {
    Agent::start(namespace, &arguments.split_whitespace().collect::<Vec<_>>())
}

const SERVE: &str = "serve -i gm0 --log-sync-interval -3 --log-announce-interval -2 \
                     --log-min-delay-req-interval -3 --transport";

/// A frame that says what a message of a clock says, in a VLAN or in none.
fn frame(vlan: Option<u16>, message: Vec<u8>) -> Vec<u8> {
    let tags = vlan.map(|tci| (ETHERTYPE_CTAG, tci)).into_iter().collect();
    Recipe { tags, message, ..Recipe::sync_on_ethernet() }.frame()
}

/// A grandmaster that is better than ours and only announces itself, in a VLAN, until the flag is set.
fn announce_in(socket: &FrameSocket, vlan: Option<u16>, identity: u8, end: &AtomicBool) {
    let mut sequence_id = 0;
    while !end.load(Ordering::Relaxed) {
        let header =
            Header { log_message_interval: -3, ..Header::new(port(identity), sequence_id) };
        let body = announce(port(identity).clock_identity, 1);
        socket.send(&frame(vlan, message(header, body))).unwrap();
        sequence_id += 1;
        thread::sleep(Duration::from_millis(125));
    }
}

#[test]
fn better_grandmaster_in_another_vlan_is_not_the_ports() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _server = agent(&wire.grandmaster, &format!("{SERVE} l2"));
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let (tagged, ended) = (&socket, &end);
        scope.spawn(move || announce_in(tagged, Some(0x6064), 0x64, ended));
        let mut follower =
            agent(&wire.client, "run -i ptp0 --transport l2 --clock virtual --domain 0");
        follower.wait_for_samples(0, PATIENCE, 16);
        let of_the_vlan = "646464.6464.646464";
        assert!(!follower.lines().iter().any(|line| line.text.contains(of_the_vlan)));
        follower.finish();
        // Somebody who listens to all of them keeps them apart.
        let mut observer = agent(&wire.client, "observe -i ptp0");
        thread::sleep(Duration::from_secs(1));
        let summary = observer.finish();
        let ports = summary["ports"].as_array().unwrap();
        let vlan =
            |of: &str| ports.iter().find(|port| port["port"] == of).map(|port| &port["vlan"]);
        assert_eq!(vlan("646464.6464.646464-1"), Some(&Value::from(100)), "{summary}");
        assert!(ports.iter().any(|port| port["vlan"].is_null()), "{summary}");
        end.store(true, Ordering::Relaxed);
    });
}

#[test]
fn priority_tag_is_no_vlan() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let (tagged, ended) = (&socket, &end);
        scope.spawn(move || announce_in(tagged, Some(0xe000), 0x65, ended));
        let mut follower = agent(&wire.client, "run -i ptp0 --transport l2 --clock virtual");
        follower.wait_for_text(0, PATIENCE, "following grandmaster=656565.6565.656565");
        follower.finish();
        end.store(true, Ordering::Relaxed);
    });
}

/// On a wire that others share, or in promiscuous mode, a packet socket sees what is addressed to somebody else.
#[test]
fn frame_to_another_host_is_no_message_to_this_one() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _server = agent(&wire.grandmaster, &format!("{SERVE} l2"));
    ip(&wire.client, "link set dev ptp0 promisc on");
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    let mut follower = agent(&wire.client, "run -i ptp0 --transport l2 --clock virtual");
    follower.wait_for_samples(0, PATIENCE, 4);
    let own = mac(&wire.client, "ptp0");
    let best = |sequence_id, destination_mac| {
        let header = Header { log_message_interval: -3, ..Header::new(port(0x66), sequence_id) };
        let message = message(header, announce(port(0x66).clock_identity, 1));
        Recipe { destination_mac, message, ..Recipe::sync_on_ethernet() }.frame()
    };
    let mark = follower.mark();
    for sequence_id in 0..32 {
        // Nor what is for a group that this port has not joined, but of which promiscuous mode shows it the messages.
        let others = [[2, 0, 0, 0, 0, 0x77], [0x01, 0x1b, 0x19, 0, 0, 0x77]];
        socket.send(&best(sequence_id, others[usize::from(sequence_id % 2)])).unwrap();
        follower.wait_for_samples(follower.mark(), PATIENCE, 1);
    }
    let is_followed = |line: &Line| line.text.contains("following grandmaster=666666");
    assert!(!follower.lines()[mark..].iter().any(is_followed), "{}", follower.last_words());
    // To this host it is one, or the test would show nothing.
    for sequence_id in 32..48 {
        socket.send(&best(sequence_id, own)).unwrap();
        follower.wait_for_samples(follower.mark(), PATIENCE, 1);
        if follower.lines()[mark..].iter().any(is_followed) {
            follower.finish();
            return;
        }
    }
    follower.wait_for_text(mark, PATIENCE, "following grandmaster=666666");
}

/// A socket receives what is for any group that any program of the host has joined, unless it is told not to.
#[test]
fn what_is_for_a_group_that_another_program_has_joined_is_no_message_to_this_one() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    wire.grandmaster.await_link_local("gm0").unwrap();
    wire.client.await_link_local("ptp0").unwrap();
    let index = |namespace: &Namespace, name: &'static str| {
        namespace.run(move || nix::net::if_::if_nametoindex(name).unwrap()).unwrap()
    };
    let (from, to) = (index(&wire.grandmaster, "gm0"), index(&wire.client, "ptp0"));
    let [other_v4, own_v4] = [Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::new(224, 0, 1, 129)];
    let [other_v6, own_v6] = ["ff0e::1:2:3", "ff0e::181"].map(|it| it.parse::<Ipv6Addr>().unwrap());
    let _other_program = wire.client.run(move || {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        v4.join_multicast_v4(&other_v4, &Ipv4Addr::new(192, 0, 2, 2)).unwrap();
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        v6.join_multicast_v6(&other_v6, to).unwrap();
        (v4, v6)
    });
    let (v4, v6) = wire
        .grandmaster
        .run(|| {
            let v4 = UdpSocket::bind((Ipv4Addr::new(192, 0, 2, 1), 0)).unwrap();
            (v4, UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap())
        })
        .unwrap();
    let via = |group| SocketAddr::from(SocketAddrV6::new(group, 320, 0, from));
    let ways = [
        ("udp4", &v4, SocketAddr::from((other_v4, 320)), SocketAddr::from((own_v4, 320))),
        ("udp6", &v6, via(other_v6), via(own_v6)),
    ];
    for (transport, socket, other_group, own_group) in ways {
        let arguments = format!("run -i ptp0 --transport {transport} --clock virtual");
        let mut follower = agent(&wire.client, &arguments);
        let say = |identity: u8, priority1, sequence_id, to| {
            let header =
                Header { log_message_interval: -3, ..Header::new(port(identity), sequence_id) };
            let text = message(header, announce(port(identity).clock_identity, priority1));
            socket.send_to(&text, to).unwrap();
        };
        let mut sequence_id = 0;
        while !follower.lines().iter().any(|it| it.text.contains("following grandmaster=")) {
            assert!(sequence_id < 160, "{}", follower.last_words());
            // Were it heard, it would be the better one.
            say(0x67, 1, sequence_id, other_group);
            say(0x68, 100, sequence_id, own_group);
            sequence_id += 1;
            thread::sleep(Duration::from_millis(125));
        }
        let followed = |it: &str| follower.lines().iter().any(|line| line.text.contains(it));
        assert!(followed("following grandmaster=686868"), "{}", follower.last_words());
        assert!(!followed("following grandmaster=676767"), "{}", follower.last_words());
        follower.finish();
    }
}

#[test]
fn ptp4l_with_another_ipv6_scope_is_followed_both_ways() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    for namespace in [&wire.grandmaster, &wire.client] {
        let interface = if std::ptr::eq(namespace, &wire.client) { "ptp0" } else { "gm0" };
        namespace.await_link_local(interface).unwrap();
    }
    for scope in [2, 5] {
        let options = format!("network_transport UDPv6\nudp6_scope {scope}");
        let _grandmaster = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[&options]));
        let mut follower = agent(&wire.client, "run -i ptp0 --transport udp6 --clock virtual");
        // A sample takes an answer to a request: ptp4l has joined no other scope than its own.
        let sample = follower.wait_for_sample(0, PATIENCE, "delay", |it| it["delay_ns"].is_i64());
        assert_eq!(sample["interface"], "ptp0");
        follower.finish();
    }
}

/// Sends a copy of each next Sync of a grandmaster before it does, with a wrong UDP checksum: the hook sees
/// it, and the stack drops it. Ends with the flag; how many it has sent.
fn send_ghosts(party: &Party, socket: &FrameSocket, end: &AtomicBool) -> u32 {
    const INTERVAL: Duration = Duration::from_millis(250);
    const EARLY: Duration = Duration::from_millis(50);
    let mut sent = 0;
    while !end.load(Ordering::Relaxed) {
        let Some(mut sync) = party.hear_event(INTERVAL) else { continue };
        let is_sync =
            MessageView::new(&sync).is_ok_and(|it| it.message_type() == MessageType::Sync);
        if !is_sync {
            continue;
        }
        let sequence_id = u16::from_be_bytes([sync[30], sync[31]]).wrapping_add(1);
        sync[30..32].copy_from_slice(&sequence_id.to_be_bytes());
        thread::sleep(INTERVAL - EARLY);
        let mut frame = Recipe { message: sync, ..Recipe::sync_on_udp4() }.frame();
        let checksum = 14 + 20 + 6;
        frame[checksum..checksum + 2].copy_from_slice(&[0xde, 0xad]);
        socket.send(&frame).unwrap();
        sent += 1;
    }
    sent
}

#[test]
fn copy_that_the_stack_drops_gives_its_stamp_to_no_message() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let _server = agent(
        &star.leaves[0],
        "serve -i eth0 --log-sync-interval -2 --log-announce-interval -2 --log-min-delay-req-interval -2",
    );
    let party = Party::new(&star.leaves[2], Ipv4Addr::new(192, 0, 2, 3));
    let socket = star.leaves[2].run(|| FrameSocket::open("eth0")).unwrap().unwrap();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let ghosts = scope.spawn(|| send_ghosts(&party, &socket, &end));
        let mut follower = agent(&star.leaves[1], "run -i eth0 --clock virtual");
        let samples = follower.wait_for_samples(0, PATIENCE, 24);
        end.store(true, Ordering::Relaxed);
        assert!(ghosts.join().unwrap() > 16);
        let offsets = field(&samples, "raw_offset_ns");
        // Each would be 25 or 50 ms off; a busy machine holds up a packet or two.
        let typical = median(offsets.iter().map(|offset| offset.abs()).collect());
        assert!(typical < 10_000_000, "{offsets:?}");
        follower.finish();
    });
}
