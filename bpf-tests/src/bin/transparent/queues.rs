//! Clients behind queues: `ptp-agent run` and ptp4l, which knows nothing of the agent, on the same interface
//! and against the same grandmaster, ptp4l.

use std::time::Duration;

use bpf_tests::{
    agent::{Agent, field},
    load::Load,
    ptp4l::{CLIENT, Ptp4l},
};
use ptp_agent::lab::netns::{Namespace, veth};
use serde_json::json;

use crate::{
    Errors,
    network::{LOAD, address, bridge, host, namespace, shape, stack, transparent},
    tell,
};

/// Both clients take so long until they are to be judged.
const SETTLED: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the shaper is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shaper {
    None,
    /// The queue of the device where messages are timed.
    Here,
    /// On a macvlan above it.
    Above,
    /// On the next switch, one that corrects as well.
    Below,
}

/// What is measured.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    shaper: Shaper,
    /// Load to the client, and to the grandmaster.
    load: [bool; 2],
    transport: &'static str,
}

pub(crate) const SETTINGS: &[Setting] = &[
    Setting { name: "loaded_l2", shaper: Shaper::Here, load: [true, false], transport: "l2" },
    Setting { name: "loaded_both_ways", shaper: Shaper::Here, load: [true, true], transport: "l2" },
    Setting { name: "loaded_udp4", shaper: Shaper::Here, load: [true, false], transport: "udp4" },
    Setting { name: "loaded_udp6", shaper: Shaper::Here, load: [true, false], transport: "udp6" },
    Setting { name: "shaper_above", shaper: Shaper::Above, load: [true, false], transport: "l2" },
    Setting { name: "shaper_below", shaper: Shaper::Below, load: [true, false], transport: "l2" },
    Setting { name: "no_shaper", shaper: Shaper::None, load: [true, false], transport: "l2" },
    Setting { name: "idle_l2", shaper: Shaper::None, load: [false, false], transport: "l2" },
    Setting { name: "idle_udp4", shaper: Shaper::None, load: [false, false], transport: "udp4" },
];

/// The grandmaster, whoever makes load, the client, and what is between them.
struct Path {
    grandmaster: Namespace,
    loader: Namespace,
    client: Namespace,
    switches: Vec<(Namespace, Vec<&'static str>)>,
}

impl Path {
    fn new(setting: &Setting) -> Result<Self, String> {
        let switch = namespace()?;
        let grandmaster = host(&switch, "port1", 1)?;
        let loader = host(&switch, "port3", 3)?;
        let mut switches = Vec::new();
        let client = if setting.shaper == Shaper::Below {
            let next = namespace()?;
            veth(&switch, "port2", &next, "up1").map_err(|error| error.to_string())?;
            let client = host(&next, "down1", 2)?;
            bridge(&next, &["up1", "down1"])?;
            shape(&next, "down1");
            switches.push((next, vec!["-i", "up1", "down1"]));
            client
        } else {
            host(&switch, "port2", 2)?
        };
        match setting.shaper {
            Shaper::Above => {
                stack(&switch, "port2", "above2");
                bridge(&switch, &["port1", "above2", "port3"])?;
                shape(&switch, "above2");
            }
            Shaper::Here => {
                bridge(&switch, &["port1", "port2", "port3"])?;
                shape(&switch, "port2");
                if setting.load[1] {
                    shape(&switch, "port1");
                }
            }
            Shaper::None | Shaper::Below => bridge(&switch, &["port1", "port2", "port3"])?,
        }
        switches.push((switch, vec!["--bridge", "br0"]));
        Ok(Self { grandmaster, loader, client, switches })
    }
}

/// What both clients show, offsets in ns: the agent's estimates, its single measurements, ptp4l's.
#[derive(Default)]
struct Shown {
    agent: Vec<i64>,
    raw: Vec<i64>,
    ptp4l: Vec<i64>,
}

fn clients(client: &Namespace, transport: &str, duration: Duration) -> Result<Shown, String> {
    let run = [
        "run",
        "-i",
        "eth0",
        "--clock",
        "none",
        "--transport",
        transport,
        "--status-socket",
        "none",
    ];
    let agent = Agent::start(client, &run);
    // Two cannot have the same UDP ports.
    let ptp4l = match transport {
        "l2" => Some(Ptp4l::start(client, &["eth0"], &[CLIENT, "network_transport L2"])?),
        _ => None,
    };
    agent.wait_for_samples(0, PATIENCE, 1);
    std::thread::sleep(SETTLED);
    let mark = agent.mark();
    let mark_ptp4l = ptp4l.as_ref().map_or(0, |it| it.offsets().len());
    std::thread::sleep(duration);
    let samples = agent.samples(mark);
    Ok(Shown {
        agent: field(&samples, "offset_ns"),
        raw: field(&samples, "raw_offset_ns"),
        ptp4l: ptp4l.map(|it| it.offsets().split_off(mark_ptp4l)).unwrap_or_default(),
    })
}

pub(crate) fn measure(setting: &Setting, runs: usize, duration: Duration) -> Result<(), String> {
    let path = Path::new(setting)?;
    let transport = match setting.transport {
        "l2" => "network_transport L2",
        "udp6" => "network_transport UDPv6",
        _ => "network_transport UDPv4",
    };
    let _grandmaster = Ptp4l::grandmaster(&path.grandmaster, &["eth0"], &[transport])?;
    let mut load = Vec::new();
    for (is_wanted, to) in setting.load.into_iter().zip([2, 1]) {
        if is_wanted {
            load.push(Load::start(&path.loader, address(to), LOAD)?);
        }
    }
    let mut all: [Vec<[Errors; 3]>; 2] = Default::default();
    for run in 0..runs {
        for (is_corrected, all) in [false, true].into_iter().zip(&mut all) {
            let start = |(switch, wanted): &(Namespace, Vec<&str>)| transparent(switch, wanted);
            let mut clocks: Vec<Agent> = match is_corrected {
                true => path.switches.iter().map(start).collect(),
                false => Vec::new(),
            };
            let shown = clients(&path.client, setting.transport, duration)?;
            let errors = [&shown.agent, &shown.raw, &shown.ptp4l].map(|it| Errors::of(it));
            tell(
                setting.name,
                json!({
                    "run": run, "transparent": is_corrected, "agent": errors[0].json(),
                    "agent_raw": errors[1].json(), "ptp4l": errors[2].json(),
                    "ports": clocks.iter_mut().map(|it| it.finish()["ports"].take()).collect::<Vec<_>>(),
                }),
            );
            all.push(errors);
        }
    }
    summary(setting.name, &all);
    Ok(())
}

/// Of all runs, and how much smaller the errors are.
fn summary(name: &str, all: &[Vec<[Errors; 3]>; 2]) {
    for (which, client) in ["agent", "agent_raw", "ptp4l"].into_iter().enumerate() {
        let [without, with] = all.each_ref().map(|runs| {
            Errors::middle(&runs.iter().map(|run| run[which].clone()).collect::<Vec<_>>())
        });
        if without.n == 0 {
            continue;
        }
        let ratio = with.p50 as f64 / without.p50.max(1) as f64;
        tell(
            &format!("{name}_summary"),
            json!({
                "client": client, "without": without.json(), "with": with.json(),
                "p50_ratio": (ratio * 1e4).round() / 1e4,
            }),
        );
    }
}

/// Three switches in a row, each with a client of its own behind a shaped port, and shaped ports between
/// them, all of it loaded.
pub(crate) fn chain(runs: usize, duration: Duration) -> Result<(), String> {
    let switches = [namespace()?, namespace()?, namespace()?];
    let grandmaster = host(&switches[0], "port1", 1)?;
    let loader = host(&switches[0], "port3", 3)?;
    let mut clients_of = Vec::new();
    for (number, switch) in (10..).zip(&switches) {
        clients_of.push(host(switch, "client", number)?);
    }
    for ([from, to], [down, up]) in [([0, 1], ["down1", "up1"]), ([1, 2], ["down2", "up2"])] {
        veth(&switches[from], down, &switches[to], up).map_err(|error| error.to_string())?;
    }
    bridge(&switches[0], &["port1", "port3", "client", "down1"])?;
    bridge(&switches[1], &["up1", "client", "down2"])?;
    bridge(&switches[2], &["up2", "client"])?;
    shape(&switches[0], "down1");
    shape(&switches[1], "down2");
    shape(&switches[2], "client");
    let options = ["network_transport L2"];
    let _grandmaster = Ptp4l::grandmaster(&grandmaster, &["eth0"], &options)?;
    let _load = Load::start(&loader, address(12), LOAD)?;
    let mut all: [[Vec<[Errors; 3]>; 2]; 3] = Default::default();
    for _ in 0..runs {
        for is_corrected in [false, true] {
            let _clocks: Vec<Agent> = match is_corrected {
                true => switches.iter().map(|it| transparent(it, &["--bridge", "br0"])).collect(),
                false => Vec::new(),
            };
            let shown: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = clients_of
                    .iter()
                    .map(|client| scope.spawn(move || clients(client, "l2", duration)))
                    .collect();
                all.into_iter().map(|it| it.join().unwrap_or(Err("panic".into()))).collect()
            });
            for (shown, all) in shown.into_iter().zip(&mut all) {
                let shown = shown?;
                all[usize::from(is_corrected)]
                    .push([&shown.agent, &shown.raw, &shown.ptp4l].map(|it| Errors::of(it)));
            }
        }
    }
    for (number, all) in (1..).zip(&all) {
        summary(&format!("chain_{number}"), all);
    }
    Ok(())
}
