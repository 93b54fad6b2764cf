//! Where the time goes between an application and the wire (Mills' T3a, T3b, T4 and T4a): chronyd asks chronyd on a veth pair, and `compare`
//! and `observe` watch them; and a program that reads the clock right before it sends and right after it has received, as an
//! application without stamps does.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use bpf_tests::{agent::Agent, chrony::Chronyd, links::Wire};
use nix::sys::{
    socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
    time::TimeSpec,
};
use ptp_agent::{lab::netns::Namespace, sys::clock::realtime};
use ptp_common::ntp::{NtpPacket, NtpTimestamp};
use serde_json::{Value, json};

use super::{Result, figures};

/// See the module's paragraph.
pub(crate) fn picture(seconds: u64) -> Result<()> {
    let wire = Wire::new()?;
    let mut server = Chronyd::server(&wire.grandmaster)?;
    let options = "minpoll -2 maxpoll -2";
    let mut basic = Chronyd::client(&wire.client, "192.0.2.1", options)?;
    let length = seconds.to_string();
    let run = ["-i", "gm0", "--duration", &length];
    let mut observer =
        Agent::start_only(&wire.grandmaster, &[&["observe", "--ntp"], &run[..]].concat());
    let mut comparer = Agent::start_only(
        &wire.grandmaster,
        &[&["compare", "--protocol", "ntp"], &run[..]].concat(),
    );
    let (sent, received) = application(&wire.client, Duration::from_secs(seconds))?;
    let patience = Duration::from_secs(30);
    let _ = (observer.wait(patience), comparer.wait(patience));
    basic.running().stop();
    server.running().stop();
    let claims = observer.events(0, "ntp_claim");
    let of = |name: &str| claims.iter().filter_map(|line| line[name].as_f64()).collect();
    let row = |place: &str, values: Vec<f64>| {
        let what =
            json!({"event": "bench", "name": "ntp picture", "place": place, "ns": figures(values)});
        println!("{what}");
    };
    row("T3a: chronyd reads the clock, before the driver's stamp", of("transmit_difference_ns"));
    row("T4: what chronyd tells, after the stack's stamp", of("receive_difference_ns"));
    row("T3a: a program reads the clock, before the driver's stamp", sent);
    row("T4a: a program reads the clock, after the stack's stamp", received);
    for line in comparer.events(0, "summary") {
        println!("{}", Value::Object(line.as_object().cloned().unwrap_or_default()));
    }
    Ok(())
}

fn nanos(time: TimeSpec) -> i64 {
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

/// Asks four times a second: how long before the driver's stamp the clock was read, and how long after the stack's, ns.
fn application(client: &Namespace, span: Duration) -> Result<(Vec<f64>, Vec<f64>)> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let socket = client
        .run(|| UdpSocket::bind("192.0.2.2:0"))
        .map_err(|error| told(&error))?
        .map_err(|error| told(&error))?;
    let to: SocketAddr = ([192, 0, 2, 1], 123).into();
    socket.connect(to).map_err(|error| told(&error))?;
    socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(|error| told(&error))?;
    let flags = TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
    setsockopt(&socket, sockopt::Timestamping, &flags).map_err(|error| told(&error))?;
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for n in 0..span.as_millis() as u64 / 250 {
        let request = NtpPacket::request(NtpTimestamp(n << 8 | 1), 0).to_bytes();
        let parts = [IoSlice::new(&request)];
        let before = realtime().as_nanos();
        let left =
            sendmsg::<SockaddrStorage>(socket.as_raw_fd(), &parts, &[], MsgFlags::empty(), None);
        left.map_err(|error| told(&error))?;
        if let Some((stamp, after)) = stamped(&socket, MsgFlags::empty()) {
            received.push((after - stamp) as f64);
        }
        if let Some((stamp, _)) = stamped(&socket, MsgFlags::MSG_ERRQUEUE) {
            sent.push((before - stamp) as f64);
        }
        thread::sleep(Duration::from_millis(250));
    }
    Ok((sent, received))
}

/// The stamp of what comes next, and what the clock shows then.
fn stamped(socket: &UdpSocket, flags: MsgFlags) -> Option<(i64, i64)> {
    let mut buffer = [0; 512];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([u8; 256]);
    let got =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
    let after = realtime().as_nanos();
    let stamp = got.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampsns(times) => Some(nanos(times.system)),
        _ => None,
    })?;
    Some((stamp, after))
}
