//! How the node is to behave: ptp4l's arguments and configuration, as the product's importer understands them. What
//! the importer has no key for, because the agent does not let it be chosen, is taken from its notes where a
//! simulated node can do it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use ptp_agent::{
    agent::{link_server::LinkServer, partners::Partner},
    clock::{frequency::LIMIT_PPB, policy::Limits},
    linuxptp::{Translation, translate},
    servo::{self, Options},
};
use ptp_common::{
    time::{Duration, Time},
    wire::{Inaccuracy, PowerProfile},
};
use ptp_engine::{
    DelayMechanism,
    address::Address,
    config::{LockedIntervals, Rules},
    contention::BeforeLock,
    unicast::client::ClientConfig,
};
use toml::{Table, Value};

/// As far as the frequency of a simulated card goes, parts per billion.
const CARD_PPB: f64 = 32_767_999.0;
/// Sections of the table.
const CLOCK: &str = "clock";
const RUN: &str = "run";
const SERVE: &str = "serve";

/// What ptp4l is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `-f`.
    file: Option<PathBuf>,
    /// `-i`, in order.
    interfaces: Vec<String>,
    /// What the other letters and `--option value` amount to, as lines of a configuration.
    lines: String,
}

impl Arguments {
    /// # Errors
    /// What ptp4l would not take either.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut arguments = arguments.into_iter();
        let mut this = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} needs a value"));
            let line = match argument.as_str() {
                "-f" => {
                    this.file = Some(value()?.into());
                    continue;
                }
                "-i" => {
                    this.interfaces.push(value()?);
                    continue;
                }
                "-l" => format!("logging_level {}", value()?),
                "-m" | "-q" => continue,
                "-s" => "slaveOnly 1".to_owned(),
                "-A" => "delay_mechanism Auto".to_owned(),
                "-E" => "delay_mechanism E2E".to_owned(),
                "-P" => "delay_mechanism P2P".to_owned(),
                "-2" => "network_transport L2".to_owned(),
                "-4" => "network_transport UDPv4".to_owned(),
                "-6" => "network_transport UDPv6".to_owned(),
                "-H" => "time_stamping hardware".to_owned(),
                "-S" => "time_stamping software".to_owned(),
                other => match other.strip_prefix("--") {
                    Some(option) if !option.is_empty() => format!("{option} {}", value()?),
                    _ => bail!("{other:?} is no option of ptp4l's that a simulated node knows"),
                },
            };
            this.lines += &line;
            this.lines.push('\n');
        }
        Ok(this)
    }

    /// Reads the file, behind which the arguments stand, so that they are the last word.
    ///
    /// # Errors
    /// A file that cannot be read, or that ptp4l would not take.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let text = match &self.file {
            Some(path) => fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?,
            None => String::new(),
        };
        Settings::new(&format!("{text}\n[global]\n{}", self.lines), &self.interfaces)
    }
}

/// Which stamps a simulated node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamping {
    /// Of a card, whose clock is on the PTP time scale.
    Hardware,
    /// Of the system clock, which shows UTC.
    Software,
}

/// Whether what the servo says is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steering {
    /// It is.
    On,
    /// The clock runs as it does (`free_running`).
    Off,
}

/// What the node may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It follows.
    Receiver,
    /// It serves.
    Transmitter,
    /// Either.
    Any,
}

/// What is signed and judged with: the text of `sa_file`, and which key each port signs with.
#[derive(Clone, Debug)]
pub(crate) struct Signing {
    pub(crate) keys: String,
    pub(crate) spp: Option<u8>,
    /// Of each interface, and behind them of local sockets.
    pub(crate) key_ids: Vec<Option<u32>>,
}

/// See the module's paragraph.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) interfaces: Vec<String>,
    /// Of each interface.
    parts: Vec<Part>,
    /// `localPriority` of the clock, and of each interface, where it is compared.
    local_priorities: Option<(u8, Vec<u8>)>,
    signing: Option<Signing>,
    /// `transportSpecific 1`.
    is_gptp: bool,
    pub(crate) stamping: Stamping,
    steering: Steering,
    table: Table,
    /// Options and values as they stand in the file: of what the agent does not let be chosen, or calls otherwise.
    others: Vec<(String, String)>,
}

impl Settings {
    /// Of a configuration, and the interfaces that were named beside it.
    ///
    /// # Errors
    /// A configuration that ptp4l would not take.
    pub(crate) fn new(text: &str, named: &[String]) -> Result<Self> {
        // An interface that is named beside the file is a port as one of the file is.
        let ports: String = named.iter().map(|name| format!("\n[{name}]")).collect();
        let Translation { table, notes, .. } = translate(&format!("{text}{ports}\n"));
        let others = values(text);
        if let Some(note) = notes.iter().find(|note| note.problem.is_error()) {
            bail!("line {}: {} {}: {}", note.line, note.option, note.value, note.text);
        }
        let in_file = table.get("interface").and_then(Value::as_array).into_iter().flatten();
        let in_file = in_file.filter_map(Value::as_str).map(str::to_owned);
        let mut interfaces = named.to_vec();
        interfaces.extend(in_file.filter(|name| !named.contains(name)).collect::<Vec<_>>());
        if interfaces.is_empty() {
            bail!("no interface");
        }
        let is_free = flag(text, "", &["free_running"]);
        let has_clock = table.get(RUN).and_then(|run| run.get(CLOCK)).is_some();
        let steering = if is_free { Steering::Off } else { Steering::On };
        let part = |interface: &String| {
            let flag = |names| flag(text, interface, names);
            match (flag(&["slaveOnly", "clientOnly"]), flag(&["masterOnly", "serverOnly"])) {
                (true, _) => Part::Receiver,
                (_, true) => Part::Transmitter,
                _ => Part::Any,
            }
        };
        let parts = interfaces.iter().map(part).collect();
        // Where nothing is steered the importer has no clock either, whatever stamps there are.
        let is_software = has_clock && !is_free;
        let stamping = if is_software { Stamping::Software } else { Stamping::Hardware };
        let local_priorities = local_priorities(text, &interfaces);
        let signing = signing(text, &interfaces)?;
        let specific = interfaces.first().and_then(|name| said(text, name, &["transportSpecific"]));
        let is_gptp = specific.is_some_and(|value| value.trim_start_matches("0x") == "1");
        let mut this = Self {
            interfaces,
            parts,
            local_priorities,
            signing,
            is_gptp,
            stamping,
            steering,
            table,
            others,
        };
        if this.is_transparent() {
            this.parts.fill(Part::Receiver);
        }
        Ok(this)
    }

    fn of(&self, section: &str, key: &str) -> Option<&Value> {
        self.table.get(section)?.get(key)
    }

    /// An option as it stands in the file, in any section.
    fn other(&self, option: &str) -> Option<&str> {
        let found = self.others.iter().find(|(name, _)| name == option);
        found.map(|(_, value)| value.as_str())
    }

    fn small<T: TryFrom<i64>>(&self, section: &str, key: &str) -> Option<T> {
        T::try_from(self.of(section, key)?.as_integer()?).ok()
    }

    /// `domainNumber`.
    pub(crate) fn domain_number(&self) -> u8 {
        let value = self.table.get("domain").and_then(Value::as_integer);
        value.and_then(|value| u8::try_from(value).ok()).unwrap_or(0)
    }

    /// Whether each exchange is told.
    pub(crate) fn is_verbose(&self) -> bool {
        self.table.get("log-level").and_then(Value::as_str) == Some("debug")
    }

    /// The mechanism of all ports.
    pub(crate) fn delay_mechanism(&self) -> DelayMechanism {
        match self.of(RUN, "delay").and_then(Value::as_str) {
            Some("p2p") => DelayMechanism::P2p,
            Some("auto") => DelayMechanism::Auto,
            _ => DelayMechanism::E2e,
        }
    }

    /// `clock_type`: whether it forwards what it hears, and serves nobody itself.
    pub(crate) fn is_transparent(&self) -> bool {
        self.other("clock_type").is_some_and(|kind| kind.ends_with("_TC"))
    }

    /// `tc_spanning_tree`.
    pub(crate) fn has_circles(&self) -> bool {
        self.other("tc_spanning_tree") == Some("1")
    }

    /// `free_running`.
    pub(crate) fn steering(&self) -> Steering {
        self.steering
    }

    /// `delayAsymmetry`.
    pub(crate) fn delay_asymmetry(&self) -> Duration {
        Duration::from_nanos(self.small(RUN, "delay-asymmetry").unwrap_or(0))
    }

    /// `assume_two_step`.
    pub(crate) fn assume_two_step(&self) -> bool {
        self.of(RUN, "assume-two-step").and_then(Value::as_bool) == Some(true)
    }

    /// An interval of messages that are sent, log2 s.
    pub(crate) fn log_interval(&self, key: &str, default: i8) -> i8 {
        self.small(SERVE, key).unwrap_or(default)
    }

    /// A number as it stands in the file.
    pub(crate) fn missing<T: std::str::FromStr>(&self, option: &str, default: T) -> T {
        self.other(option).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// What the port of an interface may be.
    pub(crate) fn part_of(&self, interface: &str) -> Part {
        let at = self.interfaces.iter().position(|each| each == interface);
        at.and_then(|at| self.parts.get(at)).copied().unwrap_or(Part::Any)
    }

    /// Whether no port ever serves: then it is a client, which has no class.
    pub(crate) fn is_receiver_only(&self) -> bool {
        self.parts.iter().all(|part| *part == Part::Receiver)
    }

    /// `priority1`, `priority2` or `clockClass`.
    pub(crate) fn rank(&self, key: &str, default: u8) -> u8 {
        self.small(SERVE, key).unwrap_or(default)
    }

    /// `G.8275.defaultDS.localPriority`, with the alternate comparison.
    pub(crate) fn local_priority(&self) -> Option<u8> {
        self.local_priorities.as_ref().map(|(own, _)| *own)
    }

    /// `G.8275.portDS.localPriority` of an interface, with the alternate comparison.
    pub(crate) fn local_priority_of(&self, interface: &str) -> Option<u8> {
        let at = self.interfaces.iter().position(|each| each == interface)?;
        self.local_priorities.as_ref()?.1.get(at).copied()
    }

    /// Who is asked what links are like.
    pub(crate) fn link_server(&self) -> Option<LinkServer> {
        self.of(RUN, "link-delay-server")?.as_str()?.parse().ok()
    }

    /// `sa_file` and what is about it.
    pub(crate) const fn signing(&self) -> Option<&Signing> {
        self.signing.as_ref()
    }

    /// The servers of `unicast_master_table`.
    pub(crate) fn servers(&self) -> Vec<Address> {
        let named = self.of(RUN, "unicast").and_then(Value::as_array).into_iter().flatten();
        let named = named.filter_map(|name| name.as_str()?.parse().ok());
        named
            .filter_map(|partner| match partner {
                Partner::At(address) => Some(address),
                Partner::Named(_) => None,
            })
            .collect()
    }

    /// What a boundary clock passes on of what it does not follow well yet.
    pub(crate) fn before_lock(&self) -> BeforeLock {
        match self.of(RUN, "silent-until-locked") {
            Some(Value::Boolean(false)) => BeforeLock::Uncertain,
            Some(Value::String(_)) => BeforeLock::Announced,
            _ => BeforeLock::Silent,
        }
    }

    /// What those are asked for.
    pub(crate) fn asking(&self) -> Option<ClientConfig> {
        let servers = u16::try_from(self.servers().len()).ok().filter(|count| *count > 0)?;
        let default = ClientConfig::new(servers);
        let log = |key, default| self.log_interval(key, default);
        Some(ClientConfig {
            log_intervals: [
                log("log-announce-interval", 1),
                log("log-sync-interval", 0),
                log("log-min-delay-req-interval", 0),
            ],
            duration_s: self.small(RUN, "unicast-duration").unwrap_or(default.duration_s),
            log_query_interval: self
                .small(RUN, "unicast-query-interval")
                .unwrap_or(default.log_query_interval),
            ..default
        })
    }

    /// `hybrid_e2e` of one that follows.
    pub(crate) fn is_hybrid(&self) -> bool {
        self.of(RUN, "hybrid").and_then(Value::as_bool) == Some(true)
    }

    /// `unicast_listen`.
    pub(crate) fn grants(&self) -> bool {
        self.of(SERVE, "unicast").is_some()
    }

    /// Not with `inhibit_multicast_service`.
    pub(crate) fn serves_all(&self) -> bool {
        self.other("inhibit_multicast_service") != Some("1")
    }

    /// `transportSpecific` and `inhibit_announce`: whose rules the ports keep.
    pub(crate) fn rules(&self) -> Rules {
        match (self.is_gptp, self.other("inhibit_announce")) {
            (true, Some("1")) => Rules::Automotive,
            (true, _) => Rules::Ieee8021As,
            (false, _) => Rules::Ieee1588,
        }
    }

    /// `operLogSyncInterval` and `operLogPdelayReqInterval`, where they are asked for.
    pub(crate) fn when_locked(&self) -> Option<LockedIntervals> {
        let asks = self.other("msg_interval_request") == Some("1");
        asks.then(|| LockedIntervals {
            log_sync_interval: self.missing("operLogSyncInterval", 0),
            log_pdelay_req_interval: self.missing("operLogPdelayReqInterval", 0),
        })
    }

    /// `net_sync_monitor`.
    pub(crate) fn is_monitored(&self) -> bool {
        self.other("net_sync_monitor") == Some("1")
    }

    /// `clock_class_threshold`.
    pub(crate) fn max_clock_class(&self) -> u8 {
        self.small(RUN, "max-clock-class").unwrap_or(u8::MAX)
    }

    /// `utc_offset`, seconds.
    pub(crate) fn utc_offset(&self) -> i16 {
        self.missing("utc_offset", 37)
    }

    /// `power_profile`: what Announce messages say of IEEE C37.238.
    pub(crate) fn power_profile(&self) -> Option<PowerProfile> {
        let year = |option: &str| self.missing(&format!("power_profile.{option}"), u32::MAX);
        let inaccuracy = match self.other("power_profile.version")? {
            "2011" => Inaccuracy::V2011 {
                grandmaster_ns: year("2011.grandmasterTimeInaccuracy"),
                network_ns: year("2011.networkTimeInaccuracy"),
            },
            "2017" => Inaccuracy::V2017 { total_ns: year("2017.totalTimeInaccuracy") },
            _ => return None,
        };
        let grandmaster_id = self.missing("power_profile.grandmasterID", 0);
        Some(PowerProfile { grandmaster_id, inaccuracy })
    }

    /// What steers the clock: the agent's own servo unless the configuration has another.
    ///
    /// # Errors
    /// One that does not exist, which the importer does not make.
    pub(crate) fn servo(&self) -> Result<servo::Choice> {
        match self.of(RUN, "servo").and_then(Value::as_str) {
            Some(name) => name.parse().map_err(anyhow::Error::from),
            None => Ok(servo::Choice::default()),
        }
    }

    /// When it steps.
    pub(crate) fn options(&self) -> Options {
        let defaults = Options::default();
        let threshold = |key, default| match self.of(CLOCK, key) {
            Some(Value::Boolean(false)) => None,
            Some(value) => number(value).map(|seconds| Duration::from_nanos_f64(seconds * 1e9)),
            None => default,
        };
        Options {
            step_threshold: threshold("step-threshold", defaults.step_threshold),
            first_step_threshold: threshold("first-step-threshold", defaults.first_step_threshold),
            ..defaults
        }
    }

    /// What may be done to the clock: in a simulation anything, and as fast as the clock can.
    pub(crate) fn limits(&self) -> Limits {
        let range = match self.stamping {
            Stamping::Hardware => CARD_PPB,
            Stamping::Software => LIMIT_PPB,
        };
        let chosen = self.of(CLOCK, "max-frequency").and_then(number).map(|ppm| ppm * 1e3);
        Limits {
            max_first_step: None,
            max_step: None,
            max_step_sum: None,
            earliest: Time::from_nanos(0),
            latest: Time::from_nanos(i64::MAX),
            max_frequency_ppb: chosen.unwrap_or(range).min(range),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

/// Every option of the file and its value, in order.
fn values(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', '[']));
    let pairs = lines.filter_map(|line| line.split_once(char::is_whitespace));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// One of these options as it is for an interface: its own section counts more than the global one, and the last
/// word of a section most. The importer has one value for all ports.
fn said<'a>(text: &'a str, interface: &str, names: &[&str]) -> Option<&'a str> {
    let (mut section, mut all, mut own) = ("", None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim();
        } else if let Some((name, value)) = line.split_once(char::is_whitespace)
            && names.contains(&name)
        {
            if section == "global" {
                all = Some(value.trim());
            } else if section == interface {
                own = Some(value.trim());
            }
        }
    }
    own.or(all)
}

fn flag(text: &str, interface: &str, names: &[&str]) -> bool {
    said(text, interface, names) == Some("1")
}

/// Of the clock and its interfaces, where `dataset_comparison` is the alternate one.
fn local_priorities(text: &str, interfaces: &[String]) -> Option<(u8, Vec<u8>)> {
    let names = ["dataset_comparison", "dataset_comparison_method"];
    said(text, "", &names).filter(|name| name.starts_with("G.8275"))?;
    let priority = |interface: &str, name: &str| {
        said(text, interface, &[name]).and_then(|value| value.parse().ok()).unwrap_or(128)
    };
    let of_port = |interface: &String| priority(interface, "G.8275.portDS.localPriority");
    let own = priority("", "G.8275.defaultDS.localPriority");
    Some((own, interfaces.iter().map(of_port).collect()))
}

/// `None` where there is no `sa_file`, or nothing points into it.
fn signing(text: &str, interfaces: &[String]) -> Result<Option<Signing>> {
    let Some(path) = said(text, "", &["sa_file"]).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let Some(spp) = said(text, "", &["spp"]).and_then(|value| value.parse().ok()) else {
        return Ok(None);
    };
    let keys = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let key = |interface: &str| {
        said(text, interface, &["active_key_id"]).and_then(|value| value.parse().ok())
    };
    let key_ids = interfaces.iter().map(String::as_str).chain([""]).map(key).collect();
    Ok(Some(Signing { keys, spp: Some(spp), key_ids }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Result<Arguments> {
        Arguments::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_of_ptp4l_are_the_last_word() {
        let arguments = arguments("-i eth0 -i eth2 -l 7 -P --domainNumber 3").unwrap();
        let settings = arguments.settings().unwrap();
        assert_eq!(settings.interfaces, ["eth0", "eth2"]);
        assert_eq!(settings.domain_number(), 3);
        assert_eq!(settings.delay_mechanism(), DelayMechanism::P2p);
        assert!(settings.is_verbose());
        assert_eq!(settings.stamping, Stamping::Hardware);
    }

    #[test]
    fn what_ptp4l_would_not_take_is_refused() {
        assert!(arguments("-i").is_err());
        assert!(arguments("-z").is_err());
        assert!(arguments("-f /nonexistent -i eth0").unwrap().settings().is_err());
        let named = ["eth0".to_owned()];
        assert!(Settings::new("[global]\npriority1 x\n", &named).is_err());
        assert!(Settings::new("[global]\n", &[]).is_err());
    }

    #[test]
    fn a_clock_is_stepped_and_slewed_as_the_configuration_permits() {
        let named = ["eth0".to_owned()];
        let text = "[global]\ntime_stamping software\nstep_threshold 10\npi_f_offset_const 0.0\n";
        let settings = Settings::new(text, &named).unwrap();
        assert_eq!(settings.stamping, Stamping::Software);
        let options = settings.options();
        assert_eq!(options.step_threshold, Some(Duration::from_secs(10)));
        assert_eq!(options.first_step_threshold, None);
        assert_eq!(settings.limits().max_frequency_ppb, LIMIT_PPB);
    }

    #[test]
    fn a_transparent_clock_serves_nobody_and_steers_its_clock_unless_told_otherwise() {
        let named = ["eth0".to_owned()];
        let settings = |text: &str| Settings::new(text, &named).unwrap();
        let plain = settings("[global]\n");
        assert!(!plain.is_transparent() && !plain.has_circles());
        let transparent = settings("[global]\nclock_type E2E_TC\ntc_spanning_tree 1\n");
        assert!(transparent.is_transparent() && transparent.has_circles());
        assert!(transparent.is_receiver_only());
        assert_eq!(transparent.steering(), Steering::On);
        let free = settings("[global]\nclock_type P2P_TC\nfree_running 1\n");
        assert_eq!((free.steering(), free.stamping), (Steering::Off, Stamping::Hardware));
    }

    #[test]
    fn the_part_is_what_the_configuration_says() {
        let named = ["eth0".to_owned()];
        let part = |text: &str| Settings::new(text, &named).unwrap().part_of("eth0");
        assert_eq!(part("[global]\n"), Part::Any);
        assert_eq!(part("[global]\nslaveOnly 1\n"), Part::Receiver);
        assert_eq!(part("[global]\nmasterOnly 1\n"), Part::Transmitter);
        assert_eq!(part("[global]\nslaveOnly 1\nslaveOnly 0\n"), Part::Any);
        assert_eq!(part("[global]\n[eth0]\nmasterOnly 1\n"), Part::Transmitter);
        assert_eq!(part("[global]\n[eth1]\nmasterOnly 1\n"), Part::Any);
    }
}
