//! Every key of the configuration file: what it means, what is in effect without it, and the
//! commented file that is made of that. A key with an option of the same name on the command line is
//! documented there and nowhere else; the others are documented here.

use clap::{Command, CommandFactory};

use super::super::args::Cli;

/// What stands behind a key that is not set.
enum Unset {
    /// This value, in TOML.
    Default(&'static str),
    /// Nothing; this is what it could be.
    Example(&'static str),
}
use Unset::{Default, Example};

/// A key.
struct Key {
    name: &'static str,
    unset: Unset,
    /// Where there is no option that says it.
    doc: Option<&'static str>,
    /// Whether a running agent can take over another value.
    is_live: bool,
}

const fn option(name: &'static str, unset: Unset) -> Key {
    Key { name, unset, doc: None, is_live: false }
}

const fn alone(name: &'static str, unset: Unset, doc: &'static str) -> Key {
    Key { name, unset, doc: Some(doc), is_live: false }
}

/// A key whose value can change while an agent runs.
const fn live(key: Key) -> Key {
    Key { is_live: true, ..key }
}

/// A table of the file.
struct Section {
    /// Empty for what stands before the first table.
    name: &'static str,
    doc: &'static str,
    /// The commands that use it; the options of the first have the documentation.
    commands: &'static [&'static str],
    keys: &'static [Key],
}

const SECTIONS: [Section; 5] = [
    Section {
        name: "",
        doc: "Interfaces and timestamps, for all commands.",
        commands: &["run", "record", "serve", "observe"],
        keys: &[
            option("interface", Example("[\"eth0\"]")),
            option("transport", Default("\"udp4\"")),
            option("domain", Default("0")),
            option("rx-source", Default("\"auto\"")),
            option("tx-source", Default("\"auto\"")),
            option("ring-kib", Example("256")),
            option("prime", Default("\"auto\"")),
            option("dscp-event", Default("0")),
            option("dscp-general", Default("0")),
            option("udp-ttl", Default("1")),
            option("udp6-scope", Default("14")),
            option("clock-identity", Example("\"001b19.fffe.000001\"")),
            live(option("ingress-latency", Default("0"))),
            live(option("egress-latency", Default("0"))),
            live(option("metrics-address", Example("\"127.0.0.1:9319\""))),
            live(option("status-socket", Example("\"/run/ptp-agent/status\""))),
            live(option("management-socket", Example("\"/run/ptp-agent/pmc\""))),
            live(option("management-socket-ro", Example("\"/run/ptp-agent/pmc-ro\""))),
            option("user-description", Example("\"clock 3; rack 14\"")),
            option("net-sync-monitor", Default("false")),
            live(option("security", Example("\"/etc/ptp-agent/keys\""))),
            live(option("security-require", Default("false"))),
            live(option("security-spp", Example("1"))),
            live(option("security-key", Example("2"))),
            option("confine", Default("true")),
            live(option("offset-threshold", Default("100000"))),
            live(alone(
                "log-level",
                Default("\"info\""),
                "What the log has: error, warn, info, debug or trace; -v and PTP_AGENT_LOG win.",
            )),
        ],
    },
    Section {
        name: "clock",
        doc: "What may be done to a clock of the host.",
        commands: &["run", "record"],
        keys: &[
            live(alone(
                "first-step-threshold",
                Example("0.00002"),
                "Larger offsets are stepped at the first lock, seconds; false for never.",
            )),
            live(alone(
                "step-threshold",
                Default("false"),
                "Larger offsets are stepped later, seconds; false for never.",
            )),
            live(alone(
                "max-first-step",
                Default("false"),
                "Farthest that the first step may go, seconds; false for any distance.",
            )),
            live(alone(
                "max-step",
                Default("1000"),
                "Farthest that a later step may go, seconds; false for any distance.",
            )),
            live(alone(
                "max-step-sum",
                Default("3600"),
                "All later steps together, seconds; false for any distance.",
            )),
            alone("max-frequency", Default("900.0"), "Largest adjustment of the frequency, ppm."),
            live(alone(
                "earliest",
                Example("2026-01-01"),
                "No time before this is believed; default: when the program was built.",
            )),
            live(alone(
                "frequency-file",
                Default("\"/var/lib/ptp-agent/frequency\""),
                "Where the frequency is kept from one run to the next; false for nowhere.",
            )),
            alone("beside-others", Default("false"), "Steer although another program is known to."),
        ],
    },
    Section {
        name: "export",
        doc: "Other programs that get the time, for run and record.",
        commands: &["run", "record"],
        keys: &[
            live(option("page", Example("\"/run/ptp-agent/clock\""))),
            live(option("clock-bound", Example("\"/var/run/clockbound/shm\""))),
            live(option("chrony-sock", Example("\"/run/chrony.ptp.sock\""))),
            live(option("ntp-shm", Example("2"))),
        ],
    },
    Section {
        name: "run",
        doc: "Following, for run and record.",
        commands: &["run", "record"],
        keys: &[
            option("clock", Default("\"none\"")),
            option("delay", Default("\"e2e\"")),
            option("strategy", Default("\"auto\"")),
            option("servo", Default("\"adaptive\"")),
            live(option("delay-asymmetry", Default("0"))),
            option("asymmetry-limit", Example("300")),
            option("least-delay-forward", Default("0")),
            option("least-delay-backward", Default("0")),
            option("rate-error", Default("1000")),
            live(option("boundary-clock-error", Example("100"))),
            live(option("grandmaster-accuracy", Example("1000"))),
            alone(
                "pin-parent",
                Default("true"),
                "Messages in the name of the time transmitter that is followed are believed from its address \
                 only, MAC or IP; false for one that sends from several.",
            ),
            alone(
                "assume-two-step",
                Default("false"),
                "Every Sync has a Follow_Up, whatever its twoStepFlag says.",
            ),
            alone(
                "acceptable-masters",
                Example("[\"001122.fffe.334455\", \"001122.fffe.667788-1\"]"),
                "Only these are followed: clocks (as grandmaster or as sender of Announce) or ports; \
                 default: anybody.",
            ),
            alone(
                "max-clock-class",
                Default("255"),
                "A grandmaster of a higher clockClass is not followed (clock_class_threshold of linuxptp).",
            ),
            alone(
                "acceptable-senders",
                Example("[\"192.0.2.1\", \"00:11:22:33:44:55\", \"key:2\"]"),
                "Only from these a time transmitter's messages are taken: IP addresses, MAC addresses (l2), or \
                 numbers of keys that sign them; default: anybody.",
            ),
            option("csptp", Example("[\"time1.example.net\", \"192.0.2.1\"]")),
            option("sptp", Example("[\"192.0.2.2\"]")),
            option("log-request-interval", Default("0")),
            option("witness-domains", Example("[1, 2]")),
            live(option("on-disagreement", Default("\"alarm\""))),
            option("ntp", Example("[\"192.0.2.1\", \"time.example\"]")),
            option("ntp-poll", Default("\"6,10\"")),
            option("ntp-nts-ca", Example("\"/etc/ptp-agent/authority.pem\"")),
            option("ntp-mode", Default("\"interleaved\"")),
            option("follow", Default("\"ptp\"")),
            option("pps", Example("\"/dev/pps0\"")),
            option("pps-edge", Default("\"assert\"")),
            option("pps-delay", Default("0")),
            option("pps-lateness", Default("20000")),
            option("pps-accuracy", Default("1000")),
            option("pps-jitter", Default("500000")),
            option("nmea", Example("\"/dev/ttyS0\"")),
            option("nmea-baud", Example("9600")),
            option("role", Default("\"receiver\"")),
            option("profile", Default("\"default\"")),
            alone(
                "local-priority",
                Example("128"),
                "With profile g8275.1: localPriority of the clock and its ports.",
            ),
            option("port", Example("[\"eth1=l2,p2p\", \"eth2=transmitter\"]")),
            option("log-sync-interval", Default("0")),
            option("log-announce-interval", Default("1")),
            option("log-min-delay-req-interval", Default("0")),
            option("priority1", Default("128")),
            option("priority2", Default("128")),
            option("clock-class", Default("248")),
            live(option("time-zone", Example("[\"Europe/Berlin\"]"))),
            alone(
                "stamp-brackets",
                Default("true"),
                "With role auto: tell clients, in a TLV behind Follow_Up and Delay_Resp, between which instants the \
                 stamped one is.",
            ),
            alone(
                "path-trace",
                Default("true"),
                "With role auto: Announce tells the clocks on the path, so that no grandmaster that is gone goes \
                 round in a ring.",
            ),
            alone(
                "silent-until-locked",
                Default("true"),
                "With role auto: what ports do that pass on while the clock has never been locked: nothing (true); \
                 announce, marked as uncertain, but tell no time (\"sync\"); tell it as well (false).",
            ),
            alone(
                "max-steps-removed",
                Default("255"),
                "With role auto: grandmasters that are so many clocks away are not followed.",
            ),
            alone(
                "sync-receipt-timeout",
                Default("0"),
                "With role auto: who announces itself and sends no Sync for so many intervals is left until it \
                 does; 0 for never.",
            ),
            alone(
                "neighbor-prop-delay-threshold",
                Example("100000"),
                "With delay p2p: a link that is longer, in nanoseconds, or whose neighbour does not answer, is not \
                 asCapable: nobody there is followed, and nobody served. Default: whatever its length; with profile \
                 gptp 100000.",
            ),
            live(option("management-set", Default("false"))),
            option("slave-event-monitor", Example("\"/run/ptp-agent/events\"")),
            alone(
                "link-delay",
                Default("\"instance\""),
                "With delay p2p: in whose name links are measured: that of the instance, or with \"common\" that of the \
                 Common Mean Link Delay Service (sdoId 0x200); of one port \"eth1=cmlds\". Who asks in the name of the \
                 instance is answered all the same.",
            ),
            alone(
                "link-delay-server",
                Example("\"/var/run/cmlds_server\""),
                "With delay p2p: another program of this host measures the links, and is asked for their delay over this \
                 socket (CMLDS_INFO_NP); no Pdelay_Req is sent and none answered. \"PATH#N\" where the first link is that \
                 program's port N.",
            ),
            alone(
                "log-min-pdelay-req-interval",
                Default("0"),
                "With delay p2p: interval of Pdelay_Req, log2 s.",
            ),
            alone(
                "relay",
                Default("\"clock\""),
                "With profile gptp or automotive and several ports: by what the grandmaster's time is passed on: \"clock\", \
                 what the clock that follows shows when a Sync leaves; \"residence\", what the last Sync has taken until \
                 then, from the first one on.",
            ),
            alone(
                "oper-log-sync-interval",
                Example("0"),
                "With profile gptp or automotive: the interval of Sync that the neighbour is asked for while the clock is \
                 locked, log2 s. Default: with profile automotive 0, otherwise none is asked for.",
            ),
            alone("oper-log-pdelay-req-interval", Example("0"), "The same of the own Pdelay_Req."),
            option("unicast", Example("[\"192.0.2.1\", \"time.example.net\"]")),
            option("hybrid", Default("false")),
            alone(
                "unicast-duration",
                Default("300"),
                "With unicast: for how long messages are asked for at a time, seconds.",
            ),
            alone(
                "unicast-query-interval",
                Default("0"),
                "With unicast: between two requests to a server that has not answered, log2 s; it is asked less often \
                 after the third.",
            ),
        ],
    },
    Section {
        name: "serve",
        doc: "Serving, for serve.",
        commands: &["serve"],
        keys: &[
            option("clock", Default("\"system\"")),
            option("offset", Example("0.5")),
            option("drift", Example("10.0")),
            live(option("log-sync-interval", Default("0"))),
            live(option("log-announce-interval", Default("1"))),
            live(option("log-min-delay-req-interval", Default("0"))),
            live(option("priority1", Default("128"))),
            live(option("priority2", Default("128"))),
            live(option("clock-class", Default("248"))),
            option("stamp-brackets", Default("true")),
            option("kernel-answers", Default("\"auto\"")),
            option("answer-for", Example("\"ptp4l\"")),
            option("serve-to", Example("[\"192.0.2.0/24\", \"2001:db8::/32\"]")),
            option("answers-per-second", Default("250000")),
            option("answers-per-client", Default("256")),
            live(option("management-set", Default("false"))),
            live(option("time-zone", Example("[\"Europe/Berlin\"]"))),
            option("contend", Default("false")),
            option("ntp", Default("false")),
            option("ntp-stratum", Example("2")),
            option("ntp-smear", Default("false")),
            option("ntp-answers-per-second", Default("100000")),
            option("unicast", Default("\"off\"")),
            alone(
                "unicast-clients",
                Default("4096"),
                "With unicast: clients at the most; newcomers have half of that.",
            ),
            alone(
                "unicast-clients-per-host",
                Default("64"),
                "With unicast: clients of one address at the most.",
            ),
            alone(
                "unicast-messages-per-second",
                Default("50000"),
                "With unicast: messages granted per second at the most; a Sync counts twice, with its Follow_Up.",
            ),
            option("csptp", Default("false")),
            option("sptp", Default("false")),
        ],
    },
];

/// The whole file with every key, commented out.
pub(in crate::cli) fn default_file() -> String {
    file(&toml::Table::new())
}

/// The file with `given` in it, and what is in effect without it as comments.
pub(in crate::cli) fn file(given: &toml::Table) -> String {
    let mut text = "# Configuration of ptp-agent. A key that is commented out shows its default, or, \
                    where it says so,\n# an example. Options on the command line win over this file. \
                    A running agent reads it again at\n# SIGHUP and takes over keys marked [live]; \
                    the others need a restart.\n"
        .to_owned();
    let cli = Cli::command();
    for section in &SECTIONS {
        text += &format!("\n# {}\n", section.doc);
        if !section.name.is_empty() {
            text += &format!("[{}]\n", section.name);
        }
        let table = if section.name.is_empty() {
            Some(given)
        } else {
            given.get(section.name).and_then(toml::Value::as_table)
        };
        for key in section.keys {
            text.push('\n');
            let mut documentation = documentation(&cli, section, key);
            if key.is_live {
                documentation = format!("{}. [live]", documentation.trim_end_matches('.'));
            }
            for line in wrapped(&documentation) {
                text += &format!("# {line}\n");
            }
            text += &match (table.and_then(|table| table.get(key.name)), &key.unset) {
                (Some(value), _) => format!("{} = {value}\n", key.name),
                (None, Default(value)) => format!("#{} = {value}\n", key.name),
                (None, Example(value)) => format!("# Example:\n#{} = {value}\n", key.name),
            };
        }
    }
    text
}

fn documentation(cli: &Command, section: &Section, key: &Key) -> String {
    if let Some(doc) = key.doc {
        return doc.to_owned();
    }
    let command = section.commands.first().and_then(|name| cli.find_subcommand(name));
    let help = command.and_then(|command| {
        let mut options = command.get_arguments();
        let option = options.find(|option| option.get_long() == Some(key.name))?;
        Some(option.get_long_help().or(option.get_help())?.to_string())
    });
    help.unwrap_or_default()
}

/// Whether a command makes use of a key.
fn is_used(cli: &Command, section: &Section, key: &Key, command: &str) -> bool {
    let is_option = |command: &Command| {
        command.get_arguments().any(|option| option.get_long() == Some(key.name))
    };
    section.commands.contains(&command)
        && (key.doc.is_some() || cli.find_subcommand(command).is_some_and(is_option))
}

/// A key whose values in two files differ.
#[derive(Debug, PartialEq)]
pub(in crate::cli) struct Difference {
    /// The table; empty for what stands before the first.
    pub(in crate::cli) section: &'static str,
    pub(in crate::cli) key: &'static str,
    pub(in crate::cli) from: Option<toml::Value>,
    pub(in crate::cli) to: Option<toml::Value>,
    pub(in crate::cli) is_live: bool,
    /// By the command in question.
    pub(in crate::cli) is_used: bool,
}

/// Everything that is not the same in two files.
pub(in crate::cli) fn differences(
    old: &toml::Table,
    new: &toml::Table,
    command: &str,
) -> Vec<Difference> {
    let cli = Cli::command();
    let value = |file: &toml::Table, section: &Section, key: &Key| {
        let table = if section.name.is_empty() {
            Some(file)
        } else {
            file.get(section.name).and_then(toml::Value::as_table)
        };
        table.and_then(|table| table.get(key.name)).cloned()
    };
    let all =
        SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)));
    all.filter_map(|(section, key)| {
        let (from, to) = (value(old, section, key), value(new, section, key));
        (from != to).then(|| Difference {
            section: section.name,
            key: key.name,
            from,
            to,
            is_live: key.is_live,
            is_used: is_used(&cli, section, key, command),
        })
    })
    .collect()
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().filter(|line| line.len() + word.len() < 98);
        match last {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    if lines.last().is_some_and(|line| !line.ends_with(['.', ']']))
        && let Some(line) = lines.last_mut()
    {
        line.push('.');
    }
    lines
}

/// Words about a key that the parser does not know: where it belongs, or what may have been meant.
pub(super) fn suggestion(unknown: &str) -> Option<String> {
    let all =
        || SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)));
    let place = |section: &Section| match section.name {
        "" => "before the first table".to_owned(),
        name => format!("in [{name}]"),
    };
    let similar = all()
        .map(|(section, key)| (strsim::jaro_winkler(unknown, key.name), section, key))
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    match similar {
        (1.0, section, key) => Some(format!("`{}` belongs {}", key.name, place(section))),
        (0.75.., section, key) => {
            Some(format!("did you mean `{}` ({})?", key.name, place(section)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
