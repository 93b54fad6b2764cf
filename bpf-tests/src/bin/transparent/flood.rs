//! A Sync that leaves by eight ports, each with a queue of its own: every copy must be corrected by the time
//! that it was inside itself. What a copy really took is known, because one clock stamps both ends.

use std::{
    collections::BTreeMap,
    io::IoSliceMut,
    net::{SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bpf_tests::{
    forge::{Party, message, port},
    links::{ip, output},
    load::Load,
    median,
};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::ReceiveTimestampns,
};
use ptp_common::wire::{Body, Flags, Header, MessageView, Timestamp};
use serde_json::json;

use crate::{
    Errors,
    network::{LOAD, address, bridge, host, namespace, transparent},
    tell,
};

const PORTS: usize = 8;
const ROUNDS: u16 = 100;
/// Nothing more comes after so long.
const PATIENCE: Duration = Duration::from_millis(800);
const ALL: std::net::Ipv4Addr = std::net::Ipv4Addr::new(224, 0, 1, 129);

/// A host behind a port: hears Sync with the stack's stamp, and Follow_Up.
struct Listener {
    event: UdpSocket,
    general: UdpSocket,
}

impl Listener {
    fn open(number: u8) -> std::io::Result<Self> {
        let open = |port| {
            let socket = UdpSocket::bind(SocketAddrV4::new(ALL, port))?;
            socket.join_multicast_v4(&ALL, &address(number))?;
            socket.set_read_timeout(Some(Duration::from_millis(2)))?;
            Ok::<_, std::io::Error>(socket)
        };
        let this = Self { event: open(319)?, general: open(320)? };
        setsockopt(&this.event, ReceiveTimestampns, &true)?;
        Ok(this)
    }

    /// Everything until `done`, and a moment longer: when each Sync arrived, ns since the epoch, and the
    /// correction that its Follow_Up has. Follow_Ups may overtake each other.
    fn hear(&self, done: &AtomicBool) -> BTreeMap<u16, (i64, i64)> {
        let (mut arrivals, mut corrections) = (BTreeMap::new(), BTreeMap::new());
        let mut last = Instant::now();
        while !done.load(Ordering::Relaxed) || last.elapsed() < PATIENCE {
            while let Some((bytes, at)) = self.event_with_stamp() {
                if let Ok(message) = MessageView::new(&bytes) {
                    arrivals.insert(message.header().sequence_id, at);
                    last = Instant::now();
                }
            }
            let mut bytes = [0; 256];
            while let Ok(length) = self.general.recv(&mut bytes) {
                if let Ok(message) = MessageView::new(&bytes[..length]) {
                    let header = message.header();
                    corrections.insert(header.sequence_id, header.correction.0 >> 16);
                    last = Instant::now();
                }
            }
        }
        let pair = |(number, at): (u16, i64)| Some((number, (at, *corrections.get(&number)?)));
        arrivals.into_iter().filter_map(pair).collect()
    }

    fn event_with_stamp(&self) -> Option<(Vec<u8>, i64)> {
        let mut bytes = [0; 256];
        let mut space = nix::cmsg_space!(libc::timespec);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<SockaddrStorage>(
            self.event.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .ok()?;
        let stamp = received.cmsgs().ok()?.find_map(|it| match it {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
            _ => None,
        })?;
        let length = received.bytes;
        Some((bytes[..length].to_vec(), stamp.tv_sec() * 1_000_000_000 + stamp.tv_nsec()))
    }
}

pub(crate) fn measure(runs: usize) -> Result<(), String> {
    let switch = namespace()?;
    let grandmaster = host(&switch, "up", 1)?;
    let loader = host(&switch, "load", 2)?;
    let mut names = vec!["up".to_owned(), "load".to_owned()];
    let mut leaves = Vec::new();
    for number in 0..PORTS {
        let name = format!("port{number}");
        leaves.push(host(&switch, &name, 10 + number as u8)?);
        names.push(name);
    }
    bridge(&switch, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    for (number, name) in names[2..].iter().enumerate() {
        // Each with another speed.
        let rate = 40 + 5 * number;
        let shaper =
            format!("qdisc replace dev {name} root tbf rate {rate}mbit burst 2k limit 400k");
        output(switch.command("tc").args(shaper.split_whitespace()));
    }
    // To nobody: a frame whose destination a bridge does not know leaves by all ports.
    ip(&loader, "neighbour add 192.0.2.200 lladdr 02:00:00:00:00:c8 dev eth0");
    let _load = Load::start(&loader, address(200), LOAD)?;
    for run in 0..runs {
        for is_corrected in [false, true] {
            let _clock = is_corrected.then(|| transparent(&switch, &["--bridge", "br0"]));
            let party = Party::new(&grandmaster, address(1));
            let listeners: Result<Vec<Listener>, String> = (10..)
                .zip(&leaves)
                .map(|(number, leaf)| {
                    leaf.run(|| Listener::open(number))
                        .map_err(|error| error.to_string())?
                        .map_err(|error| error.to_string())
                })
                .collect();
            let errors = rounds(&party, &listeners?);
            // What the sender and its wire took is the same for all copies of a Sync; what differs between
            // them is what was corrected wrongly.
            let common: BTreeMap<u16, i64> = (0..ROUNDS)
                .map(|round| {
                    (
                        round,
                        median(errors.iter().filter_map(|it| it.get(&round)).copied().collect()),
                    )
                })
                .collect();
            let apart = errors.iter().map(|port| {
                port.iter().map(|(round, error)| (error - common[round]).abs()).collect::<Vec<_>>()
            });
            let apart: Vec<Errors> = apart.map(|port| Errors::of(&port)).collect();
            tell(
                "flood_8_ports",
                json!({
                    "run": run, "transparent": is_corrected,
                    "ports": apart.iter().map(Errors::json).collect::<Vec<_>>(),
                }),
            );
        }
    }
    Ok(())
}

/// One-way delays that are left, by port and round, ns.
fn rounds(party: &Party, listeners: &[Listener]) -> Vec<BTreeMap<u16, i64>> {
    let now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_nanos()).unwrap_or(0)
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let hearing: Vec<_> =
            listeners.iter().map(|listener| scope.spawn(|| listener.hear(&done))).collect();
        let mut sent = BTreeMap::new();
        for sequence_id in 0..ROUNDS {
            let header = |flags| Header { flags, ..Header::new(port(7), sequence_id) };
            let origin = Timestamp::default();
            let sync = Body::Sync { origin_timestamp: origin };
            sent.insert(sequence_id, now());
            party.event(&message(header(Flags::TWO_STEP), sync));
            let follow_up = Body::FollowUp { precise_origin_timestamp: origin };
            party.general(&message(header(Flags::default()), follow_up));
            thread::sleep(Duration::from_millis(31));
        }
        done.store(true, Ordering::Relaxed);
        let left = |heard: BTreeMap<u16, (i64, i64)>| {
            let error =
                |(number, (arrival, correction))| (number, arrival - sent[&number] - correction);
            heard.into_iter().map(error).collect()
        };
        hearing.into_iter().map(|it| left(it.join().unwrap_or_default())).collect()
    })
}
