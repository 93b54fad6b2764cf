//! `ptp-agent serve --answer-for ptp4l`: the kernel answers Delay_Req in the name of another time transmitter of this
//! host, which so never sees a flood of them. This agent sends no message of its own and opens no PTP port: it
//! listens to what the other sends, tells the programs what they answer with, and as soon as anything is not as it
//! should be, requests go to the other again.

mod tap;

use std::{
    collections::BTreeMap,
    mem::{self, Discriminant},
    time::{Duration as StdDuration, Instant},
};

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::PortIdentity,
};

use super::{
    AgentError, Asked, Common, Ending, Reload, confinement, health::Health, io::IoError,
    serve::ServeConfig, services::Services, start_output,
};
use crate::{
    answers::{
        self, Answers, Mode, PortAnswers,
        beside::{Known, Neighbour, Obstacle},
    },
    capture::Choice,
    engine::csptp,
    publish::{
        alarms::{Facts, Role, Totals},
        http::Publication,
        json::{self},
        snapshot::{self, Port, Snapshot},
    },
    stamp::StampSource,
    sys::{
        clock::{host_reading, monotonic},
        hwtstamp,
    },
    transport::{LinkState, TransportKind, link_state},
};
use tap::Tap;

/// Between two looks at what the other has sent: stamps are the kernel's, so nothing hangs on it.
const TICK: Duration = Duration::from_millis(50);
/// Between two looks at interfaces and figures.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// `HWTSTAMP_TX_OFF` of linux/net_tstamp.h.
const NO_STAMPS: &str = "off";

/// In whose name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerFor {
    /// linuxptp's `ptp4l -S`, or whoever else serves the host's clock by software stamps.
    Ptp4l,
}

/// One interface.
struct Side {
    interface: String,
    tap: Option<Tap>,
    neighbour: Neighbour,
    /// What is answered now, or why nothing is.
    known: Result<Known, Reason>,
}

/// Why nothing is answered, in words, and what kind of reason it is: figures in it change all the time.
struct Reason {
    text: String,
    kind: Option<Discriminant<Obstacle>>,
    is_for_want_of_requests: bool,
}

impl Reason {
    fn told(text: &str) -> Self {
        Self { text: text.to_owned(), kind: None, is_for_want_of_requests: false }
    }
}

impl From<Obstacle> for Reason {
    fn from(obstacle: Obstacle) -> Self {
        Self {
            text: obstacle.to_string(),
            kind: Some(mem::discriminant(&obstacle)),
            is_for_want_of_requests: matches!(obstacle, Obstacle::Unanswering(_)),
        }
    }
}

impl Side {
    /// Reads what has left, and judges. Whether that changes what is answered.
    fn look(&mut self, now: Time<Mono>) -> bool {
        if let Some(tap) = &mut self.tap {
            tap.drain(|real, transport, message| {
                self.neighbour.sent(now, real, transport, message);
            });
            // Its answers are many, and so are the kernel's.
            tap.skip_answers(self.neighbour.has_answered());
        }
        let known = self.neighbour.known(now).map_err(Reason::from);
        let known = known.and_then(|known| match hwtstamp::configuration(&self.interface) {
            Ok(config) if config.tx() != NO_STAMPS => {
                Err(Reason::told("the card stamps what is sent: that may be the card's time"))
            }
            _ => Ok(known),
        });
        let is_other = match (&self.known, &known) {
            (Ok(old), Ok(new)) => old != new,
            (Err(old), Err(new)) => old.kind != new.kind,
            _ => true,
        };
        if is_other {
            let interface = &self.interface;
            match &known {
                Ok(known) => {
                    let ahead_s = known.ahead.as_secs_f64();
                    let (identity, domain) = (known.identity, known.domain);
                    tracing::info!(interface, %identity, domain, ahead_s, "answering in its name");
                }
                Err(Reason { text: reason, .. }) => {
                    tracing::warn!(interface, reason, "nobody is answered in another's name");
                }
            }
        }
        self.known = known;
        is_other
    }

    /// A socket where there is none yet, or an interface that has come anew.
    fn reopen(&mut self) {
        let LinkState::Up(ifindex) = link_state(&self.interface) else {
            self.tap = None;
            return;
        };
        if self.tap.as_ref().is_some_and(|tap| tap.ifindex() == ifindex) {
            return;
        }
        self.tap = Tap::open(ifindex)
            .inspect_err(|error| tracing::warn!(self.interface, %error, "cannot listen"))
            .ok();
    }
}

/// Answers until it is told to end.
///
/// # Errors
/// [`AgentError`]: what the host lacks at the start, or a reader of the output that has gone.
pub(super) async fn answer(
    config: ServeConfig,
    reload: Option<Reload<ServeConfig>>,
) -> Result<(), AgentError> {
    let ServeConfig { common, answers: wanted, .. } = config;
    let mut ending = Ending::new(common.duration, reload.as_ref())?;
    let publication = Publication::default();
    let start = monotonic();
    let mut services = Services::start(common.serving.clone(), &publication, start);
    let output = start_output(common.format)?;
    let mut this = Beside::open(&common, wanted)?;
    let mut health = Health::new(Role::Transmitter, common.limits, publication.clone(), start);
    let mut reload = reload;
    confinement::keep_system_calls(common.is_confined);
    let mut housekeeping = start;
    loop {
        let now = monotonic();
        let is_due = now >= housekeeping;
        this.turn(now, is_due);
        if is_due {
            housekeeping = now + HOUSEKEEPING;
            services.look_after(now);
            health.check(now, &this.facts(services.is_lacking()));
            this.publish(now - start, &publication, health.status(now));
        }
        if ending.is_due(now) {
            break;
        }
        let left = (ending.limit(now + TICK) - monotonic()).as_nanos();
        let left = StdDuration::from_nanos(u64::try_from(left).unwrap_or(0));
        tokio::select! {
            biased;
            asked = ending.signalled() => match asked {
                Asked::ToEnd => break,
                Asked::ToReload => {
                    health.reloading();
                    if let Some(new) = reload.as_mut().and_then(|reload| reload()) {
                        health.set_limits(new.common.limits);
                        services.change(new.common.serving, monotonic());
                    }
                }
            },
            () = tokio::time::sleep(left) => {}
        }
    }
    let duration_s = (monotonic() - start).as_secs_f64();
    let answered = this.total("answered");
    match output {
        Some(output) => {
            let mut more = serde_json::Map::new();
            more.insert("answered".into(), answered.into());
            let (samples, lost) = (0, BTreeMap::new());
            output.emit(&json::Event::Summary(json::Summary {
                duration_s,
                samples,
                lost,
                more,
            }))?;
            output.finish()?;
        }
        None => super::print(&format!("{answered} requests answered in {duration_s:.1} s"))?,
    }
    Ok(())
}

struct Beside {
    answers: Answers,
    sides: Vec<Side>,
    is_over_one_time: bool,
    /// Between the wire and the receive stamp.
    latency: Duration,
}

impl Beside {
    fn open(common: &Common, mut wanted: answers::Config) -> Result<Self, AgentError> {
        let io = &common.io;
        // Over Ethernet the other listens with a packet socket, which stands in front of TC.
        if io.transport == TransportKind::L2 {
            tracing::info!("over Ethernet requests can be answered for another by XDP alone");
            (wanted.mode, wanted.xdp_alone) = (Mode::Xdp, true);
        }
        let is_stack = io.rx_source != Choice::Fixed(StampSource::TcIngress);
        let none = csptp::Answers::default();
        let answers = Answers::open(wanted, &io.interfaces, io.transport, is_stack, none)
            .map_err(IoError::Capture)?;
        let sides = io.interfaces.iter().map(|interface| Side {
            interface: interface.clone(),
            tap: None,
            neighbour: Neighbour::new(io.transport),
            known: Err(Reason::told("nothing was heard yet")),
        });
        let latency = io.ingress_latency.of(StampSource::Stack);
        Ok(Self { answers, sides: sides.collect(), is_over_one_time: true, latency })
    }

    /// Looks at what was sent, and tells the programs.
    fn turn(&mut self, now: Time<Mono>, is_due: bool) {
        let mut is_other = is_due;
        for side in &mut self.sides {
            if is_due {
                side.reopen();
            }
            is_other |= side.look(now);
        }
        let Some(ahead) = self.sides.iter().find_map(|side| Some(side.known.as_ref().ok()?.ahead))
        else {
            if is_other {
                self.answers.look_after(now, |_| None);
            }
            return;
        };
        let Ok(reading) = host_reading() else { return };
        let real_minus_mono = reading.real_minus_mono;
        let served = answers::Served {
            mono: now,
            // Whole seconds from the host's time, whichever scale that is.
            time: Time::from_epoch(now.since_epoch() + real_minus_mono + ahead),
            rate_ppb: 0.0,
            real_minus_mono,
            tai_minus_mono: real_minus_mono + Duration::from_secs(reading.tai_offset_s.into()),
        };
        self.answers.tell(now, &served);
        if !is_other {
            return;
        }
        let (sides, latency) = (&self.sides, self.latency);
        self.is_over_one_time = true;
        let is_over_one_time = &mut self.is_over_one_time;
        self.answers.look_after(now, |index| {
            let known = sides.get(index)?.known.as_ref().ok()?;
            // One host has one clock; that its daemons mean different scales by it is possible.
            if known.ahead != ahead {
                *is_over_one_time = false;
                return None;
            }
            Some(PortAnswers {
                response: known.response.clone(),
                domain: known.domain,
                sdo_id: known.sdo_id,
                latency,
                egress_latency: Duration::ZERO,
                forms: None,
            })
        });
    }

    fn total(&mut self, outcome: &str) -> u64 {
        let counts = (0..self.sides.len()).map(|index| self.answers.counts(index));
        let of = counts.flatten().filter(|((_, each), _)| each.name() == outcome);
        of.map(|(_, total)| total).sum()
    }

    fn facts(&mut self, is_unserved: bool) -> Facts {
        let up = self.sides.iter().filter(|side| side.tap.is_some()).count();
        let refused = (0..self.sides.len()).map(|index| self.answers.refused(index)).sum();
        Facts {
            totals: Totals { refused, ..Totals::default() },
            ports_up: up,
            ports_down: self.sides.len() - up,
            is_unserved,
            unanswered: self.shortfall(),
            ..Facts::default()
        }
    }

    /// Why somebody is not answered here.
    fn shortfall(&self) -> Option<String> {
        let of_side = |(index, side): (usize, &Side)| match &side.known {
            // Nobody may have asked yet.
            Err(reason) if reason.is_for_want_of_requests => None,
            Err(reason) => Some(format!("{}: {}", side.interface, reason.text)),
            Ok(_) if !self.answers.is_proven(index) => {
                let why = match self.answers.shortfall() {
                    Some(why) => return Some(why),
                    None if self.is_over_one_time => "the kernel does not answer, the log says why",
                    None => "it serves another time than the one of the first interface",
                };
                Some(format!("{}: {why}", side.interface))
            }
            Ok(_) => None,
        };
        self.sides.iter().enumerate().find_map(of_side).or_else(|| self.answers.shortfall())
    }

    fn publish(
        &mut self,
        uptime: Duration,
        publication: &Publication,
        alarms: Vec<snapshot::Alarm>,
    ) {
        let mut ports = Vec::new();
        for (index, side) in self.sides.iter().enumerate() {
            let mut figures = BTreeMap::new();
            for ((_, outcome), total) in self.answers.counts(index) {
                *figures.entry(("kernel", outcome.name())).or_default() += total;
            }
            let domain = side.known.as_ref().map_or(0, |known| known.domain);
            publication.metrics.update(&side.interface, domain, |port| port.answers = figures);
            let mut answering = self.answers.status(index).unwrap_or_default();
            answering.answers_for =
                side.neighbour.identity().map(|it: PortIdentity| it.to_string());
            if answering.by != "kernel" || side.known.is_err() {
                answering.by = "other".into();
                answering.hook = None;
                let why = side.known.as_ref().err().map(|reason| reason.text.clone());
                answering.reason = why.or(answering.reason);
            }
            ports.push(Port {
                interface: Some(side.interface.clone()),
                answers: Some(Some(answering)),
                ..Port::default()
            });
        }
        // Healthy as long as it runs its loop.
        publication.set_followed_until(Instant::now() + StdDuration::from_secs(10));
        let snapshot = Snapshot {
            command: Some(snapshot::Command::Serve.into()),
            uptime_s: Some(uptime.as_secs_f64()),
            ports,
            alarms,
            ..Snapshot::default()
        };
        if let Err(error) = publication.publish(snapshot) {
            tracing::debug!(%error, "status");
        }
    }
}
