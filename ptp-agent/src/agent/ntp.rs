//! NTP as it is served: an engine with its sockets beside the grandmaster's, on the same clock. What it says of its
//! time, stratum, reference and root dispersion, is what an agent on this host that steers the clock says of
//! itself; where none does, what an operator vouches for; and else there is no answer.

pub(super) mod over_ptp;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration as StdDuration,
};

use ptp_common::{
    ntp::{Leap, ReferenceId},
    time::{Duration, Mono, Time},
};

use super::{
    AgentError, Common, Ending,
    drive::{Drive, Host, Occasion},
    io::{IoError, NtpIo, NtpIoConfig},
    serve::Served,
};
use over_ptp::{OverPtp, Told};

use crate::{
    clock::served::KernelLeap,
    engine::{
        Command, Commands, NoEvent, ReadClock,
        ntp::{LeapSmear, NtpServer, NtpServerConfig, NtpServerCounters, Serving},
    },
    publish::{
        http::Publication,
        local,
        snapshot::{self, NtpServed, Snapshot},
    },
    sys::{
        clock::{kernel_clock, monotonic},
        random,
    },
};

/// Between two looks at what agents on this host say.
const LOOK: StdDuration = StdDuration::from_secs(4);
/// A clock that was last measured longer ago is not kept any more.
const KEPT: f64 = 300.0;
/// Precision of the clock, log2 s: it is read to the nanosecond.
const PRECISION: i8 = -29;
/// What a clock may gain or lose between two looks and the next measurement, parts per million.
const WANDER_PPM: i64 = 15;
/// The host's clock is not read again so soon for another request.
const READ_AGAIN: Duration = Duration::from_micros(200);
/// The smear begins so long before a leap second and ends so long after it.
const HALF_A_DAY: Duration = Duration::from_secs(12 * 3600);

/// How NTP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtpServing {
    /// What is told where nobody on this host says what its clock follows.
    pub stratum: Option<u8>,
    /// Whether leap seconds are smeared.
    pub smears: bool,
    /// Answers per second in all.
    pub answers_per_second: u32,
}

/// What keeps the host's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Keeper {
    stratum: u8,
    reference_id: ReferenceId,
    bound: Duration,
    /// When it was measured last.
    at: Time<Mono>,
}

/// Asks the agents of this host, in a thread of its own: a socket may let it wait.
struct Keepers(Arc<Mutex<Option<Keeper>>>);

impl Keepers {
    fn start() -> Result<Self, AgentError> {
        let shared = Arc::new(Mutex::new(None));
        let weak = Arc::downgrade(&shared);
        let spawned = thread::Builder::new().name("ntp-keepers".into()).spawn(move || look(&weak));
        match spawned {
            Ok(_) => Ok(Self(shared)),
            Err(source) => Err(AgentError::Os { attempt: "start a thread", source }),
        }
    }

    fn latest(&self) -> Option<Keeper> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(shared: &Weak<Mutex<Option<Keeper>>>) {
    loop {
        let now = monotonic();
        let paths = local::running().unwrap_or_default();
        let statuses = paths.iter().filter_map(|path| local::read_status(path).ok());
        let keepers = statuses
            .filter_map(|status| keeper(&serde_json::from_value::<Snapshot>(status).ok()?, now));
        let found = keepers.min_by_key(|keeper| keeper.bound);
        let Some(shared) = shared.upgrade() else { return };
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = found;
        drop(shared);
        thread::sleep(LOOK);
    }
}

/// What an agent says, if it steers the host's clock and has locked.
fn keeper(snapshot: &Snapshot, now: Time<Mono>) -> Option<Keeper> {
    let following = &snapshot.following;
    let is_systems = following.clock.as_deref() == Some("system");
    let state = following.servo_state.as_ref()?.known()?;
    let is_locked =
        matches!(state, crate::servo::ServoState::Locked | crate::servo::ServoState::Holdover);
    let age_s = following.sample_age_s?;
    if !is_systems || !is_locked || age_s > KEPT {
        return None;
    }
    let utc = following.utc.as_ref().and_then(|utc| utc.bound_ns);
    let bound = Duration::from_nanos(utc.or(following.error_bound_ns)?);
    let leader = snapshot.ntp.iter().find(|server| server.leads);
    let (stratum, reference_id) = match leader {
        Some(server) => {
            (server.stratum?.checked_add(1)?, reference_of(server.address.parse().ok()?))
        }
        None => (1, ReferenceId::PTP),
    };
    let at = now - Duration::from_nanos_f64(age_s * 1e9);
    (stratum < 16).then_some(Keeper { stratum, reference_id, bound, at })
}

/// Of a server that is followed (RFC 5905 section 7.3): its address, or of a longer one something that differs from
/// those of others.
fn reference_of(server: IpAddr) -> ReferenceId {
    match server {
        IpAddr::V4(address) => ReferenceId(address.octets()),
        IpAddr::V6(address) => {
            // FNV-1a; what is wanted is a digest to find loops by, not a secret.
            let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            ReferenceId(address.octets().into_iter().fold(0x811c_9dc5, fold).to_be_bytes())
        }
    }
}

/// The service. See the module's paragraph.
pub(super) struct Service {
    drive: Drive<NtpServer, NtpIo>,
    around: Around,
    config: NtpServerConfig,
}

impl Service {
    /// Opens the port and begins to look who keeps the clock.
    ///
    /// # Errors
    /// What the host lacks.
    pub(super) fn open(
        serving: NtpServing,
        common: &Common,
        served: Served,
        publication: Publication,
    ) -> Result<Self, AgentError> {
        let now = monotonic();
        let io = &common.io;
        let io = NtpIo::open(NtpIoConfig {
            interfaces: io.interfaces.clone(),
            peers: Vec::new(),
            base: u16::MAX,
            serves: true,
            rx_source: io.rx_source.or(crate::stamp::StampSource::Stack),
            tx_source: io.tx_source.or(crate::stamp::StampSource::StartXmit),
            prime: io.prime,
            ring_bytes: io.ring_bytes,
            ingress_latency: io.ingress_latency.clone(),
            egress_latency: io.egress_latency.clone(),
        })
        .map_err(AgentError::Io)?;
        let seed = secret(common)?;
        let config = NtpServerConfig { answers_per_second: serving.answers_per_second, seed };
        let engine = NtpServer::new(&config, now);
        let keepers = match served {
            Served::System(_) => Some(Keepers::start()?),
            Served::Virtual(_) => None,
        };
        let (smear, is_silent, told) = Default::default();
        let read = now;
        let around = Around { serving, served, keepers, smear, publication, is_silent, read, told };
        Ok(Self { drive: Drive::new(io, engine, Commands::default()), around, config })
    }

    /// The same for requests that come inside of messages of PTP.
    pub(super) fn over_ptp(&self) -> OverPtp {
        OverPtp::new(&self.config, self.around.told.clone(), monotonic())
    }

    /// Until it fails.
    ///
    /// # Errors
    /// What it fails by.
    pub(super) async fn run(&mut self, ending: &mut Ending) -> Result<(), AgentError> {
        self.drive.run(ending, &mut self.around).await
    }
}

/// For numbers that nobody may guess; from the seed where tests want the same ones again.
fn secret(common: &Common) -> Result<[u8; 32], AgentError> {
    let Some(seed) = common.seed else {
        let attempt = "read random numbers";
        return random::bytes().map_err(|source| IoError::Os { attempt, source }.into());
    };
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&seed.to_be_bytes());
    Ok(secret)
}

struct Around {
    serving: NtpServing,
    served: Served,
    keepers: Option<Keepers>,
    smear: Option<(LeapSmear, Duration)>,
    publication: Publication,
    /// Whether and that this has been told.
    is_silent: Option<bool>,
    /// When the host's clock was read last.
    read: Time<Mono>,
    told: Told,
}

impl Around {
    /// What is said of the time that is served.
    fn serving(&mut self, now: Time<Mono>) -> Option<Serving> {
        let (leap, utc_offset, kernel) = match &self.served {
            Served::Virtual(_) => (Leap::None, Duration::ZERO, None),
            Served::System(time) => {
                let reading = time.latest();
                let leap = match reading.leap {
                    KernelLeap::None => Leap::None,
                    KernelLeap::Insert => Leap::Positive,
                    KernelLeap::Delete => Leap::Negative,
                };
                let offset = Duration::from_secs(i64::from(reading.tai_offset_s));
                (leap, offset, kernel_clock().ok())
            }
        };
        let vouched = |stratum, bound| Keeper {
            stratum,
            reference_id: ReferenceId(*b"LOCL"),
            bound,
            at: now,
        };
        let keeper = match &self.keepers {
            None => vouched(self.serving.stratum.unwrap_or(1), Duration::ZERO),
            Some(keepers) => keepers.latest().or_else(|| {
                let kernel = kernel.filter(|kernel| kernel.synchronised);
                let bound = kernel.map_or(Duration::from_micros(1), |kernel| {
                    Duration::from_micros(kernel.max_error_us)
                });
                self.serving.stratum.map(|stratum| vouched(stratum, bound))
            })?,
        };
        let age = (now - keeper.at).max(Duration::ZERO);
        if age.as_secs_f64() > KEPT {
            return None;
        }
        let wander =
            Duration::from_scaled_nanos(age.as_scaled_nanos() * i128::from(WANDER_PPM) / 1_000_000);
        let (smear, utc_offset) = self.smear_of(now, leap, utc_offset);
        Some(Serving {
            leap,
            stratum: keeper.stratum,
            precision: PRECISION,
            root_delay: Duration::ZERO,
            root_dispersion: keeper.bound + wander,
            reference_id: keeper.reference_id,
            reference: keeper.at,
            utc_offset,
            smear,
        })
    }

    /// The smear that is in effect, and the offset of UTC that it starts from.
    fn smear_of(
        &mut self,
        now: Time<Mono>,
        leap: Leap,
        utc_offset: Duration,
    ) -> (Option<LeapSmear>, Duration) {
        let seconds = match leap {
            Leap::Positive => 1,
            Leap::Negative => -1,
            Leap::None | Leap::Unknown => 0,
        };
        let Some(served) = self.served.at(now).filter(|_| self.serving.smears) else {
            return (None, utc_offset);
        };
        if self.smear.is_none() && seconds != 0 {
            let day = 86_400 * 1_000_000_000_i64;
            let utc_ns = (served - utc_offset).as_nanos();
            let midnight = (utc_ns.div_euclid(day) + 1) * day;
            let at = Time::from_nanos(midnight) + utc_offset + Duration::from_secs(seconds.into());
            tracing::info!(seconds, "a leap second is smeared over the day around it");
            self.smear = Some((LeapSmear { at, seconds }, utc_offset));
        }
        if self.smear.is_some_and(|(smear, _)| served > smear.at + HALF_A_DAY) {
            self.smear = None;
        }
        match self.smear {
            Some((smear, before)) => (Some(smear), before),
            None => (None, utc_offset),
        }
    }
}

impl Host<NtpServer, NtpIo> for Around {
    fn clock(&self) -> &dyn ReadClock {
        &self.served
    }

    fn refresh(&mut self, _: &mut Drive<NtpServer, NtpIo>, now: Time<Mono>, occasion: Occasion) {
        // Of many requests that came at once it is the same.
        if occasion == Occasion::Delivery && now - self.read < READ_AGAIN {
            return;
        }
        self.read = now;
        self.served.read(now);
    }

    fn told(
        &mut self,
        _: &mut Drive<NtpServer, NtpIo>,
        _: Command<NoEvent>,
    ) -> Result<(), AgentError> {
        Ok(())
    }

    fn housekeep(
        &mut self,
        drive: &mut Drive<NtpServer, NtpIo>,
        now: Time<Mono>,
    ) -> Result<(), AgentError> {
        let serving = self.serving(now);
        if self.is_silent.replace(serving.is_none()) != Some(serving.is_none()) {
            match &serving {
                Some(serving) => tracing::info!(
                    stratum = serving.stratum,
                    reference = %serving.reference_id,
                    "serving NTP"
                ),
                None => tracing::warn!(
                    "NTP is not answered: no agent on this host steers its clock, and --ntp-stratum vouches for none"
                ),
            }
        }
        drive.engine.set_serving(serving);
        self.told.set(serving);
        let counters = *drive.engine.counters();
        self.publication.metrics.set_ntp_requests(requests(&counters));
        self.publication.set_ntp_served(NtpServed {
            stratum: serving.map(|it| it.stratum),
            reference: serving.map(|it| it.reference_id.to_string()),
            root_dispersion_ns: serving.map(|it| it.root_dispersion.as_nanos()),
            smeared: serving.is_some_and(|it| it.smear.is_some()),
            requests: named(&counters),
            over_ptp: BTreeMap::new(),
        });
        Ok(())
    }
}

/// The same for the status.
pub(super) fn named(counters: &NtpServerCounters) -> BTreeMap<String, u64> {
    let named = requests(counters).into_iter();
    named.map(|(outcome, total)| (outcome.to_owned(), total)).collect()
}

/// By what became of them.
fn requests(counters: &NtpServerCounters) -> BTreeMap<&'static str, u64> {
    [
        ("basic", counters.basic),
        ("interleaved", counters.interleaved),
        ("kiss", counters.kisses),
        ("rate", counters.rate),
        ("malformed", counters.malformed),
        ("authenticated", counters.authenticated),
        ("unsynchronized", counters.unsynchronized),
        ("no_stamp", counters.no_stamp),
    ]
    .into()
}

/// What `run` tells of the servers that it asks.
pub(super) fn asked(
    engine: &crate::engine::discipline::Discipline<crate::clock::followed::Followed>,
    io: &super::io::Io,
) -> Vec<snapshot::NtpServer> {
    let Some(sockets) = io.ntp() else { return Vec::new() };
    let servers = engine.ntp_servers().zip(sockets.first_port()..);
    servers
        .map(|(server, port)| snapshot::NtpServer {
            name: sockets.name(crate::engine::PortIndex(port)).to_owned(),
            address: sockets
                .address(crate::engine::PortIndex(port))
                .unwrap_or(server.association.address)
                .ip()
                .to_string(),
            stratum: server.said.map(|said| said.stratum),
            reference: server.said.map(|said| said.reference_id.to_string()),
            root_distance_ns: server.said.map(|said| said.root_distance.as_nanos()),
            reach: server.association.reach,
            poll: server.association.poll,
            denied: server.association.is_denied,
            silent: server.association.is_silent,
            requests: server.association.requests,
            exchanges: server.association.exchanges,
            offset_ns: server.offset.map(Duration::as_nanos),
            delay_ns: server.offset.map(|_| server.delay.as_nanos()),
            jitter_ns: server.offset.map(|_| server.jitter.as_nanos()),
            shift_ns: server.shift.map(Duration::as_nanos),
            leads: server.is_leader,
            nts: sockets.nts(crate::engine::PortIndex(port)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::snapshot::Following;

    fn kept_by(clock: &str, state: crate::servo::ServoState, age_s: f64) -> Snapshot {
        let following = Following {
            clock: Some(clock.to_owned()),
            servo_state: Some(state.into()),
            sample_age_s: Some(age_s),
            error_bound_ns: Some(2_000),
            ..Following::default()
        };
        Snapshot { following, ..Snapshot::default() }
    }

    #[test]
    fn only_who_has_locked_the_hosts_clock_keeps_it() {
        use crate::servo::ServoState::{Jump, Locked};
        let now = Time::from_seconds_nanos(1_000, 0);
        let found = |snapshot: &Snapshot| keeper(snapshot, now);
        let kept = found(&kept_by("system", Locked, 1.0)).unwrap();
        assert_eq!((kept.stratum, kept.reference_id), (1, ReferenceId::PTP));
        assert_eq!(kept.bound, Duration::from_nanos(2_000));
        assert_eq!(found(&kept_by("virtual", Locked, 1.0)), None);
        assert_eq!(found(&kept_by("system", Jump, 1.0)), None);
        assert_eq!(found(&kept_by("system", Locked, 301.0)), None);
    }

    #[test]
    fn who_follows_a_server_is_one_stratum_behind_it_and_names_it() {
        let mut snapshot = kept_by("system", crate::servo::ServoState::Locked, 1.0);
        let server = snapshot::NtpServer {
            address: "192.0.2.7".to_owned(),
            stratum: Some(2),
            leads: true,
            ..snapshot::NtpServer::default()
        };
        snapshot.ntp = vec![server.clone()];
        let kept = keeper(&snapshot, Time::from_seconds_nanos(1_000, 0)).unwrap();
        assert_eq!((kept.stratum, kept.reference_id), (3, ReferenceId([192, 0, 2, 7])));
        snapshot.ntp = vec![snapshot::NtpServer { stratum: Some(15), ..server }];
        assert_eq!(keeper(&snapshot, Time::from_seconds_nanos(1_000, 0)), None);
    }
}
