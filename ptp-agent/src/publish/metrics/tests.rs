//! Claims about what is scraped.

use super::*;
use crate::{
    engine::{PortState, strategy::Strategy},
    publish::metrics::family::{Family, MANAGEMENT_SUBSCRIBERS, NMEA_FIX, PPS_JITTER, PPS_OFFSET},
    servo::ServoState,
    stamp::StampSource,
};
use prometheus::proto::MetricType;
use ptp_common::{
    time::Duration,
    wire::{ClockIdentity, MessageType, PortIdentity},
};
use std::{
    io::Write,
    process::{Command, Stdio},
};

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.encode().unwrap()).unwrap()
}

fn filled() -> Metrics {
    let metrics = Metrics::new();
    assert!(metrics.update("veth0", 0, |figures| {
        let point = CapturePoint { is_chosen: true, noise_seconds: Some(3.6e-8) };
        figures.capture_points.insert((Direction::Tx, StampSource::XmitDone), point);
        figures.priming = Some(true);
        figures.answers.insert(("kernel", "answered"), 3);
        figures.unicast = UnicastFigures {
            clients: Some(2),
            servers: [("followed", 1)].into(),
            grants: [((Direction::Tx, "sync"), 2)].into(),
            requests: [("granted", 2)].into(),
            messages: [("in_time", 5)].into(),
        };
        figures.link = LinkMetrics {
            delay_seconds: Some(1e-6),
            neighbor_rate_ratio: Some(1e-7),
            is_capable: Some(true),
            capable_changes: Some(1),
        };
        figures.offset_from_master_seconds = Some(-1.2e-7);
        figures.mean_path_delay_seconds = Some(3e-6);
        figures.clock_frequency_adjustment_ratio = Some(-3.7e-5);
        figures.clock_error_bound_seconds = Some(4e-7);
        figures.clock_precision_seconds = Some(5e-8);
        figures.causal_interval_seconds = Some([-4e-7, 2e-7]);
        figures.host_clock =
            Some(HostClock { offset_seconds: 2e-3, bound_seconds: 5e-7, read_at_seconds: 1.7e9 });
        figures.set_parent(ClockIdentity([1; 8]), PortIdentity::ALL);
        figures.last_sample_timestamp_seconds = Some(1.7e9);
        figures.port_state = Some(PortState::TimeReceiver);
        figures.servo_state = Some(ServoState::Locked);
        figures.strategy = Some(Strategy::Remote);
        for kind in MessageType::ALL {
            figures.set_messages(Direction::Rx, kind, 5);
        }
        figures.set_timestamps(Direction::Tx, StampSource::StartXmit, StampOutcome::Matched, 7);
        figures.set_exchanges("completed", 9);
        figures.clock_steps = 1;
        let differences =
            figures.timestamp_differences.entry((Direction::Rx, StampSource::TcIngress));
        differences.or_default().add(Duration::from_nanos(6_200));
    }));
    metrics.set_ring_lost(3);
    metrics.set_alarms([("no_sync", true), ("holdover", false)]);
    metrics.set_sources(SourceFigures { followed: Some(("ptp", 0)), ..SourceFigures::default() });
    metrics.set_ntp_requests([("basic", 4)].into());
    let server = NtpFigures {
        offset_seconds: Some(-3e-6),
        delay_seconds: Some(2e-4),
        root_distance_seconds: Some(1e-3),
        stratum: Some(2),
        requests: 9,
        exchanges: 8,
        nts: Some(NtsFigures::default()),
        is_answering: Some(true),
    };
    metrics.set_pulse(Some(PulseFigures {
        offset_seconds: Some(1e-6),
        pulses: [("used", 3)].into(),
        sentences: [("named", 3)].into(),
        fix: Some(true),
        ..PulseFigures::default()
    }));
    metrics.set_ntp_servers([("time.example".to_owned(), server)].into());
    metrics.set_synce(synce::tests::example());
    metrics.set_management(management::tests::example());
    metrics.set_forwarding([("tap0".to_owned(), transparent::tests::example())].into());
    metrics
}

#[test]
fn promtool_has_no_complaint() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: promtool cannot be started: {error}");
            return;
        }
    };
    child.stdin.take().unwrap().write_all(text(&filled()).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}");
}

#[test]
fn every_family_has_help_and_a_series() {
    let text = text(&filled());
    // Those that an agent has one of.
    let one = MANAGEMENT_SUBSCRIBERS;
    let of_host = [RING_LOST, PPS_OFFSET, PPS_JITTER, NMEA_FIX, one];
    for Family { name, kind, .. } in FAMILIES {
        assert!(text.contains(&format!("# HELP {name} ")), "{text}");
        let series = match kind {
            MetricType::HISTOGRAM => format!("\n{name}_bucket{{"),
            _ if of_host.iter().any(|family| family.name == *name) => format!("\n{name} "),
            _ => format!("\n{name}{{"),
        };
        assert!(text.contains(&series), "{text}");
    }
}

#[test]
fn exactly_one_state_is_one() {
    let text = text(&filled());
    let ones =
        text.lines().filter(|line| line.starts_with("ptp_port_state{") && line.ends_with(" 1"));
    assert_eq!(
        ones.collect::<Vec<_>>(),
        [r#"ptp_port_state{interface="veth0",domain="0",state="time_receiver"} 1"#]
    );
    let all = text.lines().filter(|line| line.starts_with("ptp_port_state{")).count();
    assert_eq!(all, PORT_STATES.len());
}

#[test]
fn states_of_engine_and_servo_are_among_the_labels() {
    for state in PortState::ALL {
        assert!(PORT_STATES.contains(&state.name()), "{}", state.name());
    }
    assert_eq!(ServoState::ALL.map(ServoState::name), SERVO_STATES);
    assert_eq!(Strategy::ALL.map(Strategy::name), STRATEGIES);
}

#[test]
fn unknown_offset_has_no_series() {
    let metrics = Metrics::new();
    metrics.update("eth0", 0, |_| {});
    assert!(!text(&metrics).contains("ptp_offset_from_master_seconds"));
}

#[test]
fn interval_has_a_series_for_each_end_and_the_parent_one_alone() {
    let text = text(&filled());
    for series in [
        r#"ptp_causal_interval_seconds{interface="veth0",domain="0",end="lo"} -0.0000004"#,
        r#"ptp_causal_interval_seconds{interface="veth0",domain="0",end="hi"} 0.0000002"#,
        r#"ptp_parent_info{interface="veth0",domain="0",grandmaster="010101.0101.010101",parent="ffffff.ffff.ffffff-65535"} 1"#,
    ] {
        assert!(text.contains(series), "{series}\n{text}");
    }
}

#[test]
fn however_many_parents_there_are_their_labels_stay_few() {
    let metrics = Metrics::new();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..1_000_u16 {
        let identity =
            ClockIdentity([[1; 6].as_slice(), &number.to_be_bytes()].concat().try_into().unwrap());
        let port = PortIdentity { clock_identity: identity, port_number: 1 };
        metrics.update("eth0", 0, |figures| figures.set_parent(identity, port));
        let text = text(&metrics);
        let mut series = text.lines().filter(|line| line.starts_with("ptp_parent_info{"));
        seen.insert(series.next().unwrap().to_owned());
        assert_eq!(series.next(), None);
    }
    assert_eq!(seen.len(), MAX_PARENTS + 1);
    assert!(seen.iter().any(|line| line.contains(r#"grandmaster="other",parent="other""#)));
}

#[test]
fn ports_whose_labels_concatenate_alike_stay_apart() {
    let metrics = Metrics::new();
    metrics.update("eth1", 10, |figures| figures.clock_steps = 1);
    metrics.update("eth11", 0, |figures| figures.clock_steps = 2);
    let text = text(&metrics);
    assert!(text.contains(r#"ptp_clock_steps_total{interface="eth1",domain="10"} 1"#), "{text}");
    assert!(text.contains(r#"ptp_clock_steps_total{interface="eth11",domain="0"} 2"#), "{text}");
}

#[test]
fn series_stay_bounded_whatever_domains_are_seen() {
    let metrics = Metrics::new();
    let accepted = (0..=255).filter(|domain| metrics.update("eth0", *domain, |_| {})).count();
    assert_eq!(accepted, MAX_PORTS);
    metrics.forget("eth0", 0);
    assert!(metrics.update("eth0", 255, |_| {}));
}

#[test]
fn interface_name_cannot_break_the_format() {
    let metrics = Metrics::new();
    metrics.update("a\"b\\c\n", 0, |figures| figures.clock_steps = 1);
    assert!(text(&metrics).contains(r#"{interface="a\"b\\c\n",domain="0"} 1"#));
}
