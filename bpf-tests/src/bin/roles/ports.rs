//! What a boundary clock costs by the number of its ports: one towards a grandmaster, a client of ptp4l's at each of the
//! others, eight Sync and eight Delay_Req a second at each. Ours, then `ptp4l -S` with a clock of its own in the same place.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{children::Running, clocks::processor_ns, ptp4l::Ptp4l};
use ptp_agent::lab::netns::Namespace;
use serde_json::json;

use crate::{
    Measured, Options, PATIENCE, RATES, boundary, follows, grandmaster, namespace, own_clock, tell,
    wire,
};

const PORTS: [u8; 3] = [2, 8, 32];
const NET: u8 = 79;
/// After all clients follow.
const WARM_UP: Duration = Duration::from_secs(10);
/// A line a second, so that it is seen that they follow.
const CLIENT: &str = "slaveOnly 1\nfreq_est_interval 0\nsummary_interval 0\n";

/// A clock's place: a wire to the grandmaster, and one to each client.
struct Place {
    root: Namespace,
    node: Namespace,
    outside: Namespace,
    /// Of each client: the clock's interface and the client's.
    names: Vec<[String; 2]>,
}

impl Place {
    fn new(ports: u8) -> Result<Self, String> {
        let (root, node, outside) = (namespace()?, namespace()?, namespace()?);
        wire((&root, "gm0"), (&node, "up"), [NET, 0])?;
        let names: Vec<[String; 2]> =
            (1..ports).map(|n| [format!("down{n}"), format!("client{n}")]).collect();
        for (number, [down, client]) in (1..).zip(&names) {
            wire((&node, down.as_str()), (&outside, client.as_str()), [NET, number])?;
        }
        Ok(Self { root, node, outside, names })
    }
}

/// Processor time over time, percent, and how many clients followed meanwhile: of ours, or with a library of ptp4l.
fn one(place: &Place, library: Option<&Path>, span: Duration) -> Result<(f64, usize), String> {
    let Place { root, node, outside, names } = place;
    let _grandmaster = grandmaster(root, &["gm0"])?;
    let interfaces: Vec<&str> =
        ["up"].into_iter().chain(names.iter().map(|[down, _]| down.as_str())).collect();
    let (mut agent, mut ptp4l) = (None, None);
    match library {
        None => {
            let agent = agent.insert(boundary(node, &interfaces, &[]));
            follows(agent, 0);
        }
        Some(library) => {
            let options = [RATES, "summary_interval 0\n"];
            let ptp4l = ptp4l.insert(Ptp4l::on_own_clock(node, library, &interfaces, &options)?);
            ptp4l.wait_for_text(0, PATIENCE, "to SLAVE");
        }
    }
    let mut clients = Vec::new();
    for [_, client] in names {
        clients.push(Ptp4l::start(outside, &[client.as_str()], &[RATES, CLIENT])?);
    }
    for client in &clients {
        // With a summary or without.
        client.wait_for_text(0, PATIENCE, " delay ");
    }
    thread::sleep(WARM_UP);
    let running: &Running = match (&agent, &ptp4l) {
        (Some(agent), _) => agent,
        (None, Some(ptp4l)) => ptp4l,
        (None, None) => return Err("no clock".to_owned()),
    };
    let marks: Vec<usize> = clients.iter().map(|client| client.mark()).collect();
    let (begin, before) = (Instant::now(), processor_ns(running.pid()));
    thread::sleep(span);
    let spent = processor_ns(running.pid()).saturating_sub(before) as f64;
    let share = spent / begin.elapsed().as_nanos() as f64 * 100.0;
    let followed = clients.iter().zip(marks).filter(|(client, mark)| {
        client.lines()[*mark..].iter().any(|line| line.text.contains(" delay "))
    });
    Ok((share, followed.count()))
}

pub(crate) fn measure(options: &Options) -> Measured {
    let library = own_clock()?;
    let span = options.seconds.min(Duration::from_secs(30));
    for ports in PORTS {
        let place = Place::new(ports)?;
        let (ours, our_clients) = one(&place, None, span)?;
        let (theirs, their_clients) = one(&place, Some(&library), span)?;
        tell(&json!({ "event": "bench", "name": "ports", "ports": ports, "s": span.as_secs(),
                      "sync_per_s_and_port": 8, "ours_percent": ours, "ptp4l_percent": theirs,
                      "ours_following": our_clients, "ptp4l_following": their_clients,
                      "ratio": ours / theirs }));
    }
    Ok(())
}
