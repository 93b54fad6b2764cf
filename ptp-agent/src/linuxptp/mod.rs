//! linuxptp's configuration files in the agent's terms: every option is translated, or told with its
//! line and the reason why there is no key for it. Sans-I/O: text in, a table and notes out.

mod links;
mod newer;
mod options;
mod parse;
mod unicast;

use std::collections::BTreeMap;

use toml::{Table, Value as Toml};

use crate::publish::management::Description;

use options::{Fate, Known, Value, known, suggestion};
use parse::{Section, Setting};
use unicast::{Servers, whole};

/// Longest name of an interface (IFNAMSIZ without its end).
const MAX_INTERFACE: usize = 15;
/// Notes that are kept; a file of such rubbish is no configuration.
const MAX_NOTES: usize = 1000;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The agent has nothing of the kind, or something else that the note names.
    NoCounterpart,
    /// linuxptp has no such option, as far as is known here.
    Unknown,
    /// The option does not take this value.
    BadValue,
    /// The line is none of a configuration.
    Syntax,
}

impl Problem {
    /// Whether the file is wrong, so that ptp4l would refuse it too.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::BadValue | Self::Syntax)
    }
}

/// Something that the operator has to know.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// Of the file, from 1.
    pub line: usize,
    /// What it is about.
    pub problem: Problem,
    /// The section; empty before the first.
    pub section: String,
    /// The option or the line.
    pub option: String,
    /// Its value.
    pub value: String,
    /// In words.
    pub text: String,
}

/// For which command the configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A time receiver.
    Run,
    /// A grandmaster.
    Serve,
}

/// What a file has become.
#[derive(Clone, Debug, PartialEq)]
pub struct Translation {
    /// The agent's configuration.
    pub table: Table,
    /// By line.
    pub notes: Vec<Note>,
    /// What the ports of the file were: `masterOnly` makes a grandmaster, anything else follows.
    pub role: Role,
    /// Options that need no key, because the agent does the same anyway.
    pub needless: usize,
}

/// Translates a file.
pub fn translate(text: &str) -> Translation {
    let (sections, broken) = parse::parse(text);
    let mut file = File::default();
    for broken in broken {
        file.note(
            Problem::Syntax,
            "",
            &Setting { line: broken.line, option: broken.text, value: "" },
            broken.problem.to_owned(),
        );
    }
    for section in &sections {
        file.section(section);
    }
    file.finish()
}

/// The line that says it, and the value.
type Said = (usize, Value);

#[derive(Default)]
struct File {
    notes: Vec<Note>,
    global: BTreeMap<&'static str, Said>,
    /// In order; what the sections of ports say.
    ports: Vec<(String, BTreeMap<&'static str, Said>)>,
    needless: usize,
    servers: Servers,
}

impl File {
    fn note(&mut self, problem: Problem, section: &str, setting: &Setting<'_>, text: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(Note {
                line: setting.line,
                problem,
                section: section.to_owned(),
                option: setting.option.to_owned(),
                value: setting.value.to_owned(),
                text,
            });
        }
    }

    fn section(&mut self, section: &Section<'_>) {
        let whole = whole(section);
        match section.name {
            "global" => self.settings(section, None),
            "unicast_master_table" => self.unicast_table(section),
            "security_association" => self.note(
                Problem::NoCounterpart,
                "",
                &whole,
                "keys are read from a file of their own, which `sa_file` names".to_owned(),
            ),
            name if is_interface(name) => {
                let index = self.ports.iter().position(|(port, _)| port == name);
                let index = index.unwrap_or_else(|| {
                    self.ports.push((name.to_owned(), BTreeMap::new()));
                    self.ports.len() - 1
                });
                self.settings(section, Some(index));
            }
            _ => self.note(
                Problem::BadValue,
                "",
                &whole,
                "no name of an interface: up to 15 characters, no `/`, no space".to_owned(),
            ),
        }
    }

    fn settings(&mut self, section: &Section<'_>, port: Option<usize>) {
        for setting in &section.settings {
            let Some(option) = known(setting.option) else {
                let text = if setting.option.starts_with("ts2phc.") {
                    "an option of ts2phc, which the agent has no part in".to_owned()
                } else {
                    match suggestion(setting.option) {
                        Some(name) => format!("no option of ptp4l; is `{name}` meant?"),
                        None => "no option of ptp4l".to_owned(),
                    }
                };
                self.note(Problem::Unknown, section.name, setting, text);
                continue;
            };
            match option.value(setting.value) {
                Err(expected) => self.note(Problem::BadValue, section.name, setting, expected),
                Ok(_) if port.is_some() && !option.of_ports => {
                    let text = "belongs in [global]".to_owned();
                    self.note(Problem::BadValue, section.name, setting, text);
                }
                Ok(value) => self.setting(section, port, setting, option, value),
            }
        }
    }

    fn setting(
        &mut self,
        section: &Section<'_>,
        port: Option<usize>,
        setting: &Setting<'_>,
        option: &'static Known,
        value: Value,
    ) {
        match option.fate {
            Fate::Translated(_) => {
                let said = match port {
                    Some(port) => &mut self.ports[port].1,
                    None => &mut self.global,
                };
                said.insert(option.name, (setting.line, value));
            }
            Fate::Missing(why) if !option.is_default(&value) => {
                self.note(Problem::NoCounterpart, section.name, setting, why.to_owned());
            }
            Fate::Missing(_) | Fate::Needless(_) => self.needless += 1,
        }
    }

    /// What an option is for all ports: there is one value for all of them here.
    fn of_all(&mut self, name: &'static str) -> Option<Said> {
        let global = self.global.get(name).cloned();
        let mut said = self.ports.iter().map(|(_, own)| own.get(name).cloned().or(global.clone()));
        let first = said.next().unwrap_or_else(|| global.clone());
        let value = |said: &Option<Said>| said.as_ref().map(|(_, value)| value.clone());
        if said.all(|other| value(&other) == value(&first)) {
            return first;
        }
        let (port, line) = self
            .ports
            .iter()
            .find_map(|(port, own)| own.get(name).map(|(line, _)| (port.clone(), *line)))?;
        let setting = Setting { line, option: name, value: "" };
        let text = "the ports differ, and one agent has one value for all of its ports: the first \
                    port's is taken; run one agent per port for the others"
            .to_owned();
        self.note(Problem::NoCounterpart, &port, &setting, text);
        first
    }

    fn integer(&mut self, name: &'static str) -> Option<(usize, i64)> {
        match self.of_all(name)? {
            (line, Value::Integer(value)) => Some((line, value)),
            _ => None,
        }
    }

    fn number(&mut self, name: &'static str) -> Option<(usize, f64)> {
        match self.of_all(name)? {
            (line, Value::Number(value)) => Some((line, value)),
            _ => None,
        }
    }

    fn text(&mut self, name: &'static str) -> Option<(usize, String)> {
        match self.of_all(name)? {
            (line, Value::Text(value)) => Some((line, value)),
            _ => None,
        }
    }

    fn without(&mut self, line: usize, option: &str, value: impl ToString, why: &str) {
        let value = value.to_string();
        let setting = Setting { line, option, value: &value };
        self.note(Problem::NoCounterpart, "", &setting, why.to_owned());
    }

    fn finish(mut self) -> Translation {
        let mut table = Table::new();
        if !self.ports.is_empty() {
            let names = self.ports.iter().map(|(name, _)| Toml::from(name.as_str())).collect();
            table.insert("interface".into(), Toml::Array(names));
        }
        if let Some((_, transport)) = self.text("network_transport") {
            let transport = match transport.as_str() {
                "UDPv6" => "udp6",
                "L2" => "l2",
                _ => "udp4",
            };
            table.insert("transport".into(), transport.into());
        }
        if let Some((_, domain)) = self.integer("domainNumber") {
            table.insert("domain".into(), domain.into());
        }
        if let Some((_, path)) = self.text("uds_address")
            && !path.is_empty()
        {
            table.insert("management-socket".into(), path.into());
        }
        if let Some((_, path)) = self.text("uds_ro_address")
            && !path.is_empty()
        {
            table.insert("management-socket-ro".into(), path.into());
        }
        // Its default is a name and a place of no length.
        if let Some((line, text)) = self.text("userDescription").filter(|(_, text)| text != ";") {
            match Description::check_user(&text) {
                Ok(()) => drop(table.insert("user-description".into(), text.into())),
                Err(why) => self.without(line, "userDescription", text, why),
            }
        }
        if self.integer("net_sync_monitor").is_some_and(|(_, value)| value == 1) {
            table.insert("net-sync-monitor".into(), true.into());
        }
        if let Some((_, level)) = self.integer("logging_level") {
            let level = match level {
                ..=3 => "error",
                4 => "warn",
                5 | 6 => "info",
                _ => "debug",
            };
            table.insert("log-level".into(), level.into());
        }
        self.marks(&mut table);
        self.security(&mut table);
        let (role, is_either) = self.role();
        let mut run = Table::new();
        let mut export = Table::new();
        self.clock_and_servo(&mut run, &mut export);
        match self.text("delay_mechanism") {
            Some((_, mechanism)) if mechanism == "E2E" => {
                drop(run.insert("delay".into(), "e2e".into()))
            }
            Some((_, mechanism)) if mechanism == "P2P" => {
                drop(run.insert("delay".into(), "p2p".into()))
            }
            Some((_, mechanism)) if mechanism == "Auto" => {
                drop(run.insert("delay".into(), "auto".into()))
            }
            Some((_, mechanism)) if mechanism == "COMMON_P2P" => {
                run.insert("delay".into(), "p2p".into());
                self.link_server(&mut run);
            }
            Some((line, mechanism)) => {
                let why = "the delay mechanism is e2e, p2p or auto";
                self.without(line, "delay_mechanism", mechanism, why);
            }
            None => {}
        }
        if let Some((_, asymmetry)) = self.integer("delayAsymmetry") {
            run.insert("delay-asymmetry".into(), asymmetry.into());
        }
        if let Some((_, path)) = self.text("slave_event_monitor")
            && !path.is_empty()
        {
            run.insert("slave-event-monitor".into(), path.into());
        }
        if self.integer("assume_two_step").is_some_and(|(_, value)| value == 1) {
            run.insert("assume-two-step".into(), true.into());
        }
        let clock = self.clock();
        let mut serve = self.serve();
        self.unicast(&mut run, &mut serve);
        self.algorithm(&mut run);
        self.profile(&table, &mut run, role);
        let is_p2p = run.get("delay").and_then(Toml::as_str) == Some("p2p");
        self.links(&mut run, is_p2p);
        if is_either {
            self.either_role(&mut run, &serve);
        }
        for (name, section) in
            [("clock", clock), ("export", export), ("run", run), ("serve", serve)]
        {
            if !section.is_empty() {
                table.insert(name.into(), Toml::Table(section));
            }
        }
        self.notes.sort_by_key(|note| note.line);
        Translation { table, notes: self.notes, role, needless: self.needless }
    }

    /// Which clock follows, and by what.
    fn clock_and_servo(&mut self, run: &mut Table, export: &mut Table) {
        let servo = self.text("clock_servo");
        let segment = self.integer("ntpshm_segment");
        let socket = self.text("refclock_sock_address");
        let is_free = self.integer("free_running").is_some_and(|(_, value)| value == 1);
        let is_for_others = match &servo {
            Some((line, name)) if name == "ntpshm" => {
                match segment.map_or(Ok(0), |(_, segment)| u8::try_from(segment)) {
                    Ok(unit) => drop(export.insert("ntp-shm".into(), i64::from(unit).into())),
                    Err(_) => self.without(*line, "ntpshm_segment", "", "units are 0 to 255"),
                }
                true
            }
            Some((_, name)) if name == "refclock_sock" => {
                let path = socket.map_or("/var/run/refclock.ptp.sock".to_owned(), |(_, path)| path);
                export.insert("chrony-sock".into(), path.into());
                true
            }
            Some((line, name)) if name == "nullf" => {
                self.without(*line, "clock_servo", name, "the clock is only watched instead");
                true
            }
            _ => false,
        };
        let stamping = self.text("time_stamping");
        match stamping {
            _ if is_free || is_for_others => drop(run.insert("clock".into(), "none".into())),
            Some((_, method)) if ["software", "legacy"].contains(&method.as_str()) => {
                run.insert("clock".into(), "system".into());
            }
            Some((line, method)) => {
                let why = "stamps are taken in the kernel; to steer the card's clock set \
                           `[run] clock = \"phc:/dev/ptpN\"`, for the host's `\"system\"`";
                self.without(line, "time_stamping", method, why);
            }
            None => {}
        }
        let mode = self.text("tsproc_mode");
        let filter = self.text("delay_filter");
        let length = self.integer("delay_filter_length");
        if is_for_others
            || (servo.is_none() && mode.is_none() && filter.is_none() && length.is_none())
        {
            return;
        }
        let name = servo.map_or("pi".to_owned(), |(_, name)| name);
        let mode = mode.map_or("filter".to_owned(), |(_, mode)| mode.replace('_', "-"));
        let filter = match filter {
            Some((_, filter)) if filter == "moving_average" => "mean",
            _ => "median",
        };
        let (line, length) = length.unwrap_or((0, 10));
        let length = if length > 1000 {
            self.without(line, "delay_filter_length", length, "1000 is the longest filter");
            1000
        } else {
            length
        };
        run.insert("servo".into(), format!("{name}:{mode}:{filter}:{length}").into());
    }

    fn clock(&mut self) -> Table {
        let mut clock = Table::new();
        for (option, key) in
            [("step_threshold", "step-threshold"), ("first_step_threshold", "first-step-threshold")]
        {
            match self.number(option) {
                Some((_, 0.0)) => drop(clock.insert(key.into(), false.into())),
                Some((_, seconds)) if (0.0..=1e10).contains(&seconds) => {
                    clock.insert(key.into(), seconds.into());
                }
                Some((line, seconds)) => {
                    self.without(line, option, seconds, "not a distance in time")
                }
                None => {}
            }
        }
        match self.integer("max_frequency") {
            // linuxptp's default is no limit in practice.
            None | Some((_, 0 | 900_000_000)) => {}
            Some((_, ppb @ 1..=100_000_000)) => {
                clock.insert("max-frequency".into(), (ppb as f64 / 1e3).into());
            }
            Some((line, ppb)) => {
                self.without(line, "max_frequency", ppb, "at most 100000000: the kernel's limit");
            }
        }
        clock
    }

    fn serve(&mut self) -> Table {
        let mut serve = Table::new();
        for (option, key) in
            [("priority1", "priority1"), ("priority2", "priority2"), ("clockClass", "clock-class")]
        {
            if let Some((_, value)) = self.integer(option) {
                serve.insert(key.into(), value.into());
            }
        }
        for (option, key) in [
            ("logSyncInterval", "log-sync-interval"),
            ("logAnnounceInterval", "log-announce-interval"),
            ("logMinDelayReqInterval", "log-min-delay-req-interval"),
        ] {
            match self.integer(option) {
                Some((_, log @ -10..=10)) => drop(serve.insert(key.into(), log.into())),
                Some((line, log)) => self.without(line, option, log, "intervals are -10 to 10"),
                None => {}
            }
        }
        serve
    }
}

fn is_interface(name: &str) -> bool {
    name.len() <= MAX_INTERFACE
        && !name.contains(|it: char| it == '/' || it.is_whitespace() || it.is_control())
        && ![".", ".."].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &Table) -> String {
        toml::to_string(table).unwrap()
    }

    #[test]
    fn options_become_keys() {
        let translation = translate(
            "[global]\ndomainNumber 3\nslaveOnly 1\ntime_stamping software\nclock_servo linreg\n\
             tsproc_mode raw_weight\ndelay_filter moving_average\nstep_threshold 0.5\n\
             first_step_threshold 0\nmax_frequency 500000\nlogging_level 7\nlogSyncInterval -4\n\
             uds_address /run/x\n[eth0]\nnetwork_transport L2\ndelayAsymmetry -20\n",
        );
        assert_eq!(translation.notes, []);
        assert_eq!(translation.role, Role::Run);
        let expected: Table = "domain = 3\ninterface = [\"eth0\"]\nlog-level = \"debug\"\n\
            management-socket = \"/run/x\"\ntransport = \"l2\"\n\
            [clock]\nfirst-step-threshold = false\nmax-frequency = 500.0\nstep-threshold = 0.5\n\
            [run]\nclock = \"system\"\ndelay-asymmetry = -20\n\
            servo = \"linreg:raw-weight:mean:10\"\n[serve]\nlog-sync-interval = -4\n"
            .parse()
            .unwrap();
        assert_eq!(translation.table, expected, "{}", text(&translation.table));
    }

    #[test]
    fn what_has_no_counterpart_is_told_with_line_and_reason_and_defaults_are_not() {
        let translation = translate("[global]\nclock_type P2P_TC\ntwoStepFlag 1\nuser nobody\n");
        let notes: Vec<_> = translation
            .notes
            .iter()
            .map(|note| (note.line, note.option.as_str(), note.problem))
            .collect();
        let none = Problem::NoCounterpart;
        assert_eq!(notes, [(2, "clock_type", none), (4, "user", none)]);
        assert_eq!(translation.needless, 1);
    }

    #[test]
    fn mistakes_are_told_with_their_lines() {
        let translation = translate(
            "early 1\n[global]\ndomainNumber 300\ndomainNumbr 3\npriority1 x\n[eth0]\npriority1 5\n\
             [a/b]\n[eth1\n",
        );
        let notes: Vec<_> =
            translation.notes.iter().map(|note| (note.line, note.problem)).collect();
        let (bad, syntax) = (Problem::BadValue, Problem::Syntax);
        assert_eq!(
            notes,
            [
                (1, syntax),
                (3, bad),
                (4, Problem::Unknown),
                (5, bad),
                (7, bad),
                (8, bad),
                (9, syntax)
            ]
        );
        assert!(translation.notes[2].text.contains("`domainNumber`"));
    }

    #[test]
    fn ports_that_differ_are_told_once_per_option() {
        let translation = translate(
            "[global]\nnetwork_transport L2\n[eth0]\n[eth1]\nnetwork_transport UDPv4\n[eth2]\n",
        );
        assert_eq!(translation.table["transport"], "l2".into());
        let [note] = &translation.notes[..] else { panic!("{:?}", translation.notes) };
        assert_eq!((note.line, note.section.as_str()), (5, "eth1"));
    }

    #[test]
    fn servos_for_others_become_exports_and_master_only_a_grandmaster() {
        let translation =
            translate("[global]\nclock_servo ntpshm\nntpshm_segment 2\nmasterOnly 1\n");
        assert_eq!(translation.table["export"]["ntp-shm"], 2.into());
        assert_eq!(translation.table["run"]["clock"], "none".into());
        assert_eq!(translation.role, Role::Serve);
    }
}
