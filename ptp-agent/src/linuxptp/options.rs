//! linuxptp's options, as `ptp4l(8)` of versions 3.1 and 4 has them: what values they take, what they
//! are without being set, and what becomes of them here.

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A whole number from, to; decimal, octal with 0 or hexadecimal with 0x.
    Integer(i64, i64),
    /// A number.
    Number,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Anything.
    Text,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    /// There are keys for it, these.
    Translated(&'static str),
    /// Nothing is to be done where it has its default; otherwise it has no counterpart, for this reason.
    Missing(&'static str),
    /// Whatever it says needs no key, because of this.
    Needless(&'static str),
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    /// Whether sections of ports may have it too.
    pub(super) of_ports: bool,
    pub(super) fate: Fate,
}

use Fate::{Missing, Needless, Translated};
use Kind::{Integer, Number, Text, Word};

const FLAG: Kind = Integer(0, 1);
const LOG: Kind = Integer(-128, 127);
const BYTE: Kind = Integer(0, 255);
const ANY: Kind = Integer(i32::MIN as i64, i32::MAX as i64);

const UNICAST: &str = "the servers are all asked by each port";
const PI: &str = "the PI servo's constants are linuxptp's defaults";
const CARD: &str = "the agent stamps in the kernel and does not configure the card";
const SERVICE: &str = "the log goes to standard error, from where the service manager takes it";
const DESCRIPTION: &str = "a clock description is not told";
const POWER: &str = "the power profile's TLV is shown where it is received, and not sent";
const CMLDS: &str =
    "links have one delay for all domains, and `[run] link-delay = \"common\"` is the service";

const fn port(name: &'static str, kind: Kind, default: &'static str, fate: Fate) -> Known {
    Known { name, kind, default, of_ports: true, fate }
}

const fn global(name: &'static str, kind: Kind, default: &'static str, fate: Fate) -> Known {
    Known { name, kind, default, of_ports: false, fate }
}

/// Other names of options, of older and newer versions.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("pi_offset_const", "step_threshold"),
    ("pi_f_offset_const", "first_step_threshold"),
    ("pi_max_frequency", "max_frequency"),
    ("clientOnly", "slaveOnly"),
    ("serverOnly", "masterOnly"),
    ("dataset_comparison_method", "dataset_comparison"),
];

const KNOWN: &[Known] = &[
    // Ports.
    port("delayAsymmetry", ANY, "0", Translated("`[run] delay-asymmetry`")),
    port(
        "logAnnounceInterval",
        LOG,
        "1",
        Translated("`[serve]` and `[run] log-announce-interval`"),
    ),
    port("logSyncInterval", LOG, "0", Translated("`[serve]` and `[run] log-sync-interval`")),
    port("operLogSyncInterval", LOG, "0", Translated("`[run] oper-log-sync-interval`")),
    port(
        "logMinDelayReqInterval",
        LOG,
        "0",
        Translated("`[serve]` and `[run] log-min-delay-req-interval`"),
    ),
    port("logMinPdelayReqInterval", LOG, "0", Translated("`[run] log-min-pdelay-req-interval`")),
    port("operLogPdelayReqInterval", LOG, "0", Translated("`[run] oper-log-pdelay-req-interval`")),
    port(
        "inhibit_delay_req",
        FLAG,
        "0",
        Missing("links are measured in every role; `observe` never transmits"),
    ),
    port(
        "inhibit_announce",
        FLAG,
        "0",
        Translated("with transportSpecific 1: `[run] profile = \"automotive\"`"),
    ),
    port("announceReceiptTimeout", Integer(2, 255), "3", Missing("it is always 3")),
    port("syncReceiptTimeout", BYTE, "0", Translated("`[run] sync-receipt-timeout`")),
    port(
        "transportSpecific",
        Integer(0, 0xff),
        "0",
        Translated("1: `[run] profile = \"gptp\"`, or automotive"),
    ),
    port(
        "ignore_transport_specific",
        FLAG,
        "0",
        Missing("messages of other profiles are counted and dropped"),
    ),
    port(
        "ignore_source_id",
        FLAG,
        "0",
        Needless("with profile automotive whoever sends Sync is followed, one at a time"),
    ),
    port("path_trace_enabled", FLAG, "0", Translated("`[run] path-trace`")),
    port("follow_up_info", FLAG, "0", Needless("profile gptp has it, and others skip it")),
    port("fault_reset_interval", Text, "4", Needless("no port becomes faulty")),
    port("fault_badpeernet_interval", Text, "16", Needless("no port becomes faulty")),
    port(
        "delay_mechanism",
        Word(&["E2E", "P2P", "Auto", "COMMON_P2P", "NONE"]),
        "E2E",
        Translated("`[run] delay`"),
    ),
    port("delay_response_timeout", BYTE, "0", Missing("`no_delay_resp` is an alarm and no fault")),
    port("hybrid_e2e", FLAG, "0", Translated("`[run] hybrid`")),
    port("inhibit_multicast_service", FLAG, "0", Translated("`[serve] unicast = \"only\"`")),
    port("net_sync_monitor", FLAG, "0", Translated("`net-sync-monitor`")),
    port("unicast_listen", FLAG, "0", Translated("`[serve] unicast`")),
    port("unicast_master_table", Integer(0, i32::MAX as i64), "0", Needless(UNICAST)),
    port(
        "unicast_req_duration",
        Integer(10, i32::MAX as i64),
        "3600",
        Translated("`[run] unicast-duration`"),
    ),
    port(
        "ptp_dst_mac",
        Text,
        "01:1B:19:00:00:00",
        Missing("profile gptp has the address that bridges do not forward, others the standard's"),
    ),
    port("p2p_dst_mac", Text, "01:80:C2:00:00:0E", Missing("the standard's address is used")),
    port("network_transport", Word(&["UDPv4", "UDPv6", "L2"]), "UDPv4", Translated("`transport`")),
    port(
        "neighborPropDelayThresh",
        Integer(0, i32::MAX as i64),
        "20000000",
        Translated("`[run] neighbor-prop-delay-threshold`"),
    ),
    port(
        "min_neighbor_prop_delay",
        ANY,
        "-20000000",
        Missing("a delay below zero is refused by what causality allows"),
    ),
    port(
        "masterOnly",
        FLAG,
        "0",
        Translated("`ptp-agent serve`; of a port of a boundary clock `[run] port`"),
    ),
    port(
        "G.8275.portDS.localPriority",
        Integer(1, 255),
        "128",
        Translated("`[run] local-priority`, of clock and ports alike"),
    ),
    port(
        "asCapable",
        Word(&["auto", "true"]),
        "auto",
        Translated("true: with profile automotive; with gptp it is measured"),
    ),
    port(
        "allowedLostResponses",
        BYTE,
        "3",
        Missing("nine, as IEEE 802.1AS-2020 has it, where links have to be capable"),
    ),
    port(
        "BMCA",
        Word(&["ptp", "noop"]),
        "ptp",
        Translated(
            "noop: `[run] profile = \"automotive\"`; `run` and `serve` are static roles too",
        ),
    ),
    port(
        "tsproc_mode",
        Word(&["filter", "raw", "filter_weight", "raw_weight"]),
        "filter",
        Translated("`[run] servo`"),
    ),
    port(
        "delay_filter",
        Word(&["moving_average", "moving_median"]),
        "moving_median",
        Translated("`[run] servo`"),
    ),
    port("delay_filter_length", Integer(1, i32::MAX as i64), "10", Translated("`[run] servo`")),
    port(
        "egressLatency",
        ANY,
        "0",
        Missing(
            "it corrects the card's stamps, which are not used: `compare` measures what `egress-latency` needs",
        ),
    ),
    port(
        "ingressLatency",
        ANY,
        "0",
        Missing(
            "it corrects the card's stamps, which are not used: `compare` measures what `ingress-latency` needs",
        ),
    ),
    port(
        "boundary_clock_jbod",
        FLAG,
        "0",
        Needless("all stamps are on the one monotonic clock, whatever the card"),
    ),
    port("udp_ttl", Integer(1, 255), "1", Translated("`udp-ttl`")),
    port(
        "phc_index",
        Integer(-1, i32::MAX as i64),
        "-1",
        Missing("`[run] clock = \"phc:/dev/ptpN\"` names the device"),
    ),
    port(
        "interface_rate_tlv",
        FLAG,
        "0",
        Missing("the TLV is skipped where it is received, and not sent"),
    ),
    port("power_profile.version", Text, "none", Missing(POWER)),
    port("power_profile.grandmasterID", Text, "0", Missing(POWER)),
    port("power_profile.2011.grandmasterTimeInaccuracy", ANY, "0xffffffff", Missing(POWER)),
    port("power_profile.2011.networkTimeInaccuracy", ANY, "0", Missing(POWER)),
    port("power_profile.2017.totalTimeInaccuracy", ANY, "0xffffffff", Missing(POWER)),
    // Program and clock.
    global("twoStepFlag", FLAG, "1", Missing("the agent's Sync is always two-step")),
    global("slaveOnly", FLAG, "0", Translated("`ptp-agent run`, whose default it is")),
    global("socket_priority", Integer(0, 15), "0", Missing("sockets have no priority")),
    global("gmCapable", FLAG, "1", Translated("0: `ptp-agent run`, whose default it is")),
    global("priority1", BYTE, "128", Translated("`[serve]` and `[run] priority1`")),
    global("priority2", BYTE, "128", Translated("`[serve]` and `[run] priority2`")),
    global("clockClass", BYTE, "248", Translated("`[serve]` and `[run] clock-class`")),
    global("clockAccuracy", BYTE, "0xfe", Missing("`serve` announces an unknown accuracy")),
    global("clockIdentity", Text, "000000.0000.000000", Translated("`clock-identity`")),
    global(
        "offsetScaledLogVariance",
        Integer(0, 0xffff),
        "0xffff",
        Missing("`serve` announces an unknown variance"),
    ),
    global(
        "G.8275.defaultDS.localPriority",
        Integer(1, 255),
        "128",
        Translated("`[run] local-priority`, of clock and ports alike"),
    ),
    global("maxStepsRemoved", Integer(2, 255), "255", Translated("`[run] max-steps-removed`")),
    global("domainNumber", Integer(0, 255), "0", Translated("`domain`")),
    global(
        "utc_offset",
        Integer(0, i32::MAX as i64),
        "37",
        Needless("`serve` takes it from the kernel, `run` from the grandmaster"),
    ),
    global("free_running", FLAG, "0", Translated("`[run] clock = \"none\"`")),
    port("freq_est_interval", Integer(0, i32::MAX as i64), "1", Missing("the servo chooses it")),
    global("assume_two_step", FLAG, "0", Translated("`[run] assume-two-step`")),
    global(
        "tc_spanning_tree",
        FLAG,
        "0",
        Missing("`ptp-agent transparent` forwards nothing itself: the bridge's spanning tree does"),
    ),
    global(
        "tx_timestamp_timeout",
        Integer(1, i32::MAX as i64),
        "1",
        Needless("a late stamp drops one exchange and is no fault"),
    ),
    global("check_fup_sync", FLAG, "0", Needless("Follow_Up before its Sync is accepted")),
    global(
        "clock_servo",
        Word(&["pi", "linreg", "ntpshm", "nullf", "refclock_sock"]),
        "pi",
        Translated("`[run] servo`, `[export]`"),
    ),
    global(
        "clock_type",
        Word(&["OC", "BC", "P2P_TC", "E2E_TC"]),
        "OC",
        Translated("BC: `[run] role = \"auto\"`; E2E_TC, P2P_TC: `ptp-agent transparent`"),
    ),
    global("pi_proportional_const", Number, "0", Missing(PI)),
    global("pi_integral_const", Number, "0", Missing(PI)),
    global("pi_proportional_scale", Number, "0", Missing(PI)),
    global("pi_proportional_exponent", Number, "-0.3", Missing(PI)),
    global("pi_proportional_norm_max", Number, "0.7", Missing(PI)),
    global("pi_integral_scale", Number, "0", Missing(PI)),
    global("pi_integral_exponent", Number, "0.4", Missing(PI)),
    global("pi_integral_norm_max", Number, "0.3", Missing(PI)),
    global("step_threshold", Number, "0", Translated("`[clock] step-threshold`")),
    global("first_step_threshold", Number, "0.00002", Translated("`[clock] first-step-threshold`")),
    global(
        "step_window",
        Integer(0, i32::MAX as i64),
        "0",
        Missing("an offset is judged over the servo's own window"),
    ),
    global(
        "max_frequency",
        Integer(0, i32::MAX as i64),
        "900000000",
        Translated("`[clock] max-frequency`"),
    ),
    global(
        "sanity_freq_limit",
        Integer(0, i32::MAX as i64),
        "200000000",
        Missing("`[clock]` limits what may be done to a clock"),
    ),
    global(
        "initial_delay",
        Integer(0, i32::MAX as i64),
        "0",
        Missing("the delay is measured first"),
    ),
    global("ntpshm_segment", ANY, "0", Translated("`[export] ntp-shm`")),
    global(
        "refclock_sock_address",
        Text,
        "/var/run/refclock.ptp.sock",
        Translated("`[export] chrony-sock`"),
    ),
    port("udp6_scope", Integer(0, 15), "0x0e", Translated("`udp6-scope`")),
    global("uds_address", Text, "/var/run/ptp4l", Translated("`management-socket`")),
    global(
        "uds_file_mode",
        Text,
        "0660",
        Missing(
            "the socket answers everybody, and lets nobody change anything unless `management-set` permits it",
        ),
    ),
    global("uds_ro_address", Text, "/var/run/ptp4lro", Translated("`management-socket-ro`")),
    global("uds_ro_file_mode", Text, "0666", Missing("that socket answers everybody")),
    global("dscp_event", Integer(0, 63), "0", Translated("`dscp-event`")),
    global("dscp_general", Integer(0, 63), "0", Translated("`dscp-general`")),
    global(
        "dataset_comparison",
        Word(&["ieee1588", "G.8275.x", "telecom"]),
        "ieee1588",
        Translated("G.8275.x: `[run] profile = \"g8275.1\"` or `\"g8275.2\"`"),
    ),
    global("logging_level", Integer(0, 7), "6", Translated("`log-level`")),
    global("message_tag", Text, "", Missing(SERVICE)),
    global("verbose", FLAG, "0", Needless(SERVICE)),
    global("use_syslog", FLAG, "1", Needless(SERVICE)),
    global(
        "summary_interval",
        LOG,
        "0",
        Missing("text has a line per second, --json and --log-ptp4l all samples"),
    ),
    global(
        "time_stamping",
        Word(&["hardware", "software", "legacy", "onestep", "p2p1step"]),
        "hardware",
        Translated("`[run] clock`"),
    ),
    global("productDescription", Text, ";;", Missing(DESCRIPTION)),
    global("revisionData", Text, ";;", Missing(DESCRIPTION)),
    global("userDescription", Text, ";", Translated("`user-description`")),
    global("manufacturerIdentity", Text, "00:00:00", Missing(DESCRIPTION)),
    global("kernel_leap", FLAG, "1", Missing("the kernel is always told of leap seconds")),
    global("leapfile", Text, "", Missing("the grandmaster announces leap seconds")),
    global("timeSource", BYTE, "0xa0", Missing("`serve` says what its clock is")),
    global("hwts_filter", Word(&["normal", "check", "full"]), "normal", Missing(CARD)),
    global(
        "msg_interval_request",
        FLAG,
        "0",
        Translated("`[run] oper-log-sync-interval`, with profiles gptp and automotive"),
    ),
    global(
        "servo_num_offset_values",
        Integer(0, i32::MAX as i64),
        "10",
        Needless("a locked clock asks for other intervals"),
    ),
    global(
        "servo_offset_threshold",
        Integer(0, i32::MAX as i64),
        "0",
        Missing("a locked clock asks for other intervals; `offset-threshold` is the alarm's"),
    ),
    global("slave_event_monitor", Text, "", Translated("`[run] slave-event-monitor`")),
    global("write_phase_mode", FLAG, "0", Missing("clocks are steered by frequency")),
    global("ptp_minor_version", Integer(0, 1), "1", Missing("it is always 1; both are accepted")),
    global("sa_file", Text, "", Translated("`security`")),
    port("spp", ANY, "-1", Translated("`security-spp`")),
    port("active_key_id", ANY, "0", Translated("`security-key`")),
    port("allow_unauth", Integer(0, 2), "0", Translated("1, 2: `security-require = false`")),
    port(
        "delay_request_variability",
        Number,
        "1.0",
        Missing("requests keep the standard's variability"),
    ),
    port("ptp_dst_ipv4", Text, "224.0.1.129", Missing("the standard's addresses are used")),
    port(
        "ptp_dst_ipv6",
        Text,
        "FF0E:0:0:0:0:0:0:181",
        Missing("the standard's address is used, of scope `udp6-scope`"),
    ),
    port("p2p_dst_ipv4", Text, "224.0.0.107", Missing("the standard's addresses are used")),
    port("p2p_dst_ipv6", Text, "FF02:0:0:0:0:0:0:6B", Missing("the standard's addresses are used")),
    port("profileIdentity", Text, "00:00:00:00:00:00", Missing(DESCRIPTION)),
    port("cmlds.client_address", Text, "/var/run/cmlds_client", Needless(CMLDS)),
    port(
        "cmlds.server_address",
        Text,
        "/var/run/cmlds_server",
        Translated(
            "`[run] link-delay-server`, where it is said; else `link-delay = \"common\"`, the own service",
        ),
    ),
    port("cmlds.domainNumber", BYTE, "0", Missing("a service is asked in domain 0 (16.6.3.2)")),
    port(
        "cmlds.majorSdoId",
        Integer(0, 15),
        "2",
        Missing("a service is asked with majorSdoId 2 (16.6.3.2)"),
    ),
    port(
        "cmlds.port",
        Integer(0, 65_535),
        "0",
        Translated("`[run] link-delay-server = \"PATH#N\"`"),
    ),
    global("clock_class_threshold", Integer(6, 255), "248", Translated("`[run] max-clock-class`")),
    global("user", Text, "", Missing("the service manager starts it as another user")),
];

/// The option of this name.
pub(super) fn known(name: &str) -> Option<&'static Known> {
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == name);
    let name = other.map_or(name, |(_, name)| name);
    KNOWN.iter().find(|known| known.name == name)
}

/// The value of an option as far as it is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    Number(f64),
    Text(String),
}

impl Known {
    /// Reads a value.
    pub(super) fn value(&self, text: &str) -> Result<Value, String> {
        match self.kind {
            Integer(from, to) => match integer(text) {
                Some(value) if (from..=to).contains(&value) => Ok(Value::Integer(value)),
                _ => Err(format!("expected a whole number from {from} to {to}")),
            },
            Number => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Value::Number(value)),
                _ => Err("expected a number".to_owned()),
            },
            Word(words) => words
                .iter()
                .find(|word| word.eq_ignore_ascii_case(text))
                .map(|word| Value::Text((*word).to_owned()))
                .ok_or_else(|| format!("expected {}", words.join(", "))),
            Text => Ok(Value::Text(text.to_owned())),
        }
    }

    /// Whether a value is what linuxptp has anyway.
    pub(super) fn is_default(&self, value: &Value) -> bool {
        match (self.value(self.default), value) {
            (Ok(Value::Text(default)), Value::Text(text)) => default.eq_ignore_ascii_case(text),
            (default, value) => default.as_ref() == Ok(value),
        }
    }
}

fn integer(text: &str) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, base) = match (hexadecimal, digits.strip_prefix('0')) {
        (Some(rest), _) => (rest, 16),
        (None, Some(rest)) if !rest.is_empty() => (rest, 8),
        _ => (digits, 10),
    };
    if !digits.chars().all(|digit| digit.is_digit(base)) {
        return None;
    }
    let value = i64::from_str_radix(digits, base).ok()?;
    Some(if is_negative { -value } else { value })
}

/// The name of a known option that may have been meant.
pub(super) fn suggestion(unknown: &str) -> Option<&'static str> {
    let likeness = |known: &Known| strsim::jaro_winkler(unknown, known.name);
    let best = KNOWN.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(best) >= 0.85).then_some(best.name)
}

#[cfg(test)]
mod tests;
