//! The status as a page of text.

use std::fmt::{Display, Write as _};

use super::model::{Command, Status, Utc, outcomes, stamps};
use super::unicast;
use crate::{
    engine::{ntp::nts::NtsState, origin::BoundReference},
    publish::{
        snapshot::{Answering, Named, NtpServed, NtpServer, NtsStatus, ServerStatus},
        text::{nanos, ppb},
    },
    servo::Basis,
    synce::{dpll_text, esmc_text},
};

/// A time for people: `1 h 2 min`, `12 s`.
pub(super) fn span(seconds: f64) -> String {
    match seconds.max(0.0) as u64 {
        whole if whole < 120 => format!("{whole} s"),
        whole if whole < 7_200 => format!("{} min", whole / 60),
        whole if whole < 172_800 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        whole => format!("{} days", whole / 86_400),
    }
}

/// A name, or a dash.
pub(super) fn shown<T: Display>(value: Option<&T>) -> String {
    value.map_or("-".into(), ToString::to_string)
}

pub(super) fn time(value: Option<i64>) -> String {
    value.map_or("-".into(), |value| nanos(value as f64))
}

/// Who answers clients, where, in whose name, and why not otherwise.
fn answering(answers: &Answering) -> String {
    let mut text = format!("by the {}", answers.by);
    if let Some(hook) = &answers.hook {
        let _ = write!(text, " at {hook}");
    }
    if let Some(whom) = &answers.answers_for {
        let _ = write!(text, ", in the name of {whom}");
    }
    let all = answers.requests.values().filter_map(|outcomes| outcomes.get("answered"));
    let _ = write!(text, ", {} in the kernel", all.sum::<u64>());
    for reason in answers.reason.iter().chain(&answers.no_xdp) {
        let _ = write!(text, "; {reason}");
    }
    text
}

/// The whole page, lines aligned.
pub(super) fn page(status: &Status) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{name:<13}{value}");
    };
    let known = |value: &Option<String>| value.clone().unwrap_or("-".into());
    line("agent", agent(status));
    if let Some(problem) = &status.problem {
        line("problem", problem.clone());
    }
    if status.clock_identity.is_some() {
        line(
            "clock",
            format!(
                "{} in domain {}",
                known(&status.clock_identity),
                status.domain.map_or("-".into(), |domain| domain.to_string()),
            ),
        );
    }
    if status.following.servo.is_some() {
        line("grandmaster", grandmaster(status));
        line(
            "servo",
            format!(
                "{} ({})",
                shown(status.following.servo_state.as_ref()),
                known(&status.following.servo)
            ),
        );
    }
    if status.following.offset_ns.is_some() {
        line("offset", time(status.following.offset_ns));
        line("delay", time(status.following.delay_ns));
        line("frequency", status.following.frequency_ppb.map_or("-".into(), ppb));
        line("error bound", bound(status));
        line("precision", time(status.following.precision_ns));
        line("interval", interval(status));
        line("UTC", utc(status));
    }
    if let (Some(samples), Some(age)) = (status.samples, status.following.sample_age_s) {
        line("samples", format!("{samples}, the last one {} ago", span(age)));
    }
    if let Some(withheld) = &status.following.withheld {
        line("withheld", withheld.clone());
    }
    for (what, text) in status.extras.lines() {
        line(what, text);
    }
    if let Some(gptp) = &status.gptp {
        line("gPTP", gptp.text());
    }
    if let Some(database) = &status.time_zone_database {
        let doubt = database.doubt.as_ref().map_or(String::new(), |doubt| format!(": {doubt}"));
        line("time zones", format!("database {}{doubt}", known(&database.version)));
    }
    for server in &status.ntp {
        line("NTP server", ntp_server(server));
    }
    if let Some(pulse) = &status.pps {
        line("pulse", pulse_line(pulse));
    }
    if let Some(served) = &status.ntp_served {
        line("NTP served", ntp_served(served));
    }
    for port in &status.ports {
        let name = port.interface.as_deref().unwrap_or("-");
        match (&port.state, &port.observed.role) {
            (None, _) if matches!(port.answers, Some(Some(_))) => {
                line("port", format!("{name}: answers in another's name"));
                if let Some(Some(answers)) = &port.answers {
                    line("  answers", answering(answers));
                }
            }
            (Some(state), _) if status.is_from(Command::Transparent) => {
                line("port", format!("{name}: {state}"));
                for (way, inside) in &port.residence {
                    let [p50, p99, max] = [inside.p50_ns, inside.p99_ns, inside.max_ns].map(time);
                    let times =
                        format!("{p50} (median), {p99} (p99), {max} (most) of {}", inside.n);
                    line(&format!("  {way} "), times);
                }
                line("  messages", outcomes(port));
            }
            (Some(state), _) => {
                line("port", format!("{name}: {state}"));
                line("  received", stamps(port, "rx"));
                line("  sent", stamps(port, "tx"));
                if let Some(link) = port.link.text(port.as_capable) {
                    line("  link", link);
                }
                if let Some(Some(answers)) = &port.answers {
                    line("  answers", answering(answers));
                }
                for (name, value) in port.unicast.iter().flat_map(unicast::lines) {
                    line(name, value);
                }
            }
            (None, role) => line(
                "port",
                format!(
                    "{name}: {} ({}), offset {}",
                    known(&port.observed.port),
                    shown(role.as_ref()),
                    time(port.observed.offset_ns)
                ),
            ),
        }
    }
    for heard in &status.synce {
        line("SyncE", format!("{}: {}", heard.interface, esmc_text(heard)));
    }
    for dpll in &status.dplls {
        line("DPLL", dpll_text(dpll));
    }
    for server in &status.servers {
        line("server", asked(server));
    }
    line("lost", lost(status));
    if status.alarms.is_empty() {
        line("alarms", "none".into());
    }
    for alarm in &status.alarms {
        line("ALARM", format!("{} for {}: {}", alarm.alarm, span(alarm.for_s), alarm.meaning));
        if !alarm.detail.is_empty() {
            line("", alarm.detail.clone());
        }
        for explanation in alarm.explanation.lines() {
            line("", explanation.trim().into());
        }
        if let Some(runbook) = &alarm.runbook {
            line("", format!("See {runbook}"));
        }
    }
    page
}

/// A server that is asked: where it is, and whether it answers.
fn asked(server: &ServerStatus) -> String {
    let place = server.address.as_deref().unwrap_or("no address");
    let state = match (server.followed, server.answering, &server.problem) {
        (true, ..) => "followed",
        (_, true, _) => "answers",
        (.., Some(problem)) => problem,
        _ => "silent",
    };
    let ServerStatus { name, protocol, requests, exchanges, .. } = server;
    format!("{name} ({protocol}, {place}): {state}, {exchanges} of {requests} requests answered")
}

pub(super) fn agent(status: &Status) -> String {
    let mut agent =
        format!("ptp-agent {}", status.command.as_ref().map_or("?".into(), ToString::to_string));
    if let Some(version) = &status.version {
        let _ = write!(agent, " {version}");
    }
    if let Some(pid) = status.pid {
        let _ = write!(agent, ", process {pid}");
    }
    if let Some(uptime) = status.uptime_s {
        let _ = write!(agent, ", up {}", span(uptime));
    }
    agent
}

pub(super) fn grandmaster(status: &Status) -> String {
    let Some(grandmaster) = &status.following.grandmaster else { return "none".into() };
    let mut text = grandmaster.clone();
    if let Some(class) = status.following.grandmaster_class {
        let _ = write!(text, ", class {class}");
    }
    if let Some(steps) = status.following.steps_removed {
        let _ = write!(text, ", {steps} steps removed");
    }
    if let Some(scale) = &status.following.time_scale {
        let _ = write!(text, ", {scale}");
    }
    text
}

/// A server of NTP that is asked.
fn ntp_server(server: &NtpServer) -> String {
    let mut text = server.name.clone();
    if let (Some(stratum), Some(reference)) = (server.stratum, &server.reference) {
        let _ = write!(text, ", stratum {stratum} ({reference})");
    }
    let answered = server.reach.count_ones();
    let _ = write!(
        text,
        ", {answered} of the last 8 answered, every {}",
        span(2_f64.powi(server.poll.into()))
    );
    if server.offset_ns.is_some() {
        let [offset, delay] = [server.offset_ns, server.delay_ns].map(time);
        let _ = write!(
            text,
            ", offset {offset}, delay {delay}, within {} of its source",
            time(server.root_distance_ns)
        );
    }
    if let Some(shift) = server.shift_ns {
        let _ = write!(text, ", {} from where it usually is", time(Some(shift)));
    }
    if let Some(nts) = &server.nts {
        let _ = write!(text, ", {}", protection(nts));
    }
    text += match (server.denied, server.silent, server.leads) {
        (true, ..) => "; it has refused service",
        (_, true, _) => "; it does not answer",
        (_, _, true) => "; leads",
        _ => "",
    };
    text
}

/// Whether anybody else could be in the place of a server.
fn protection(nts: &NtsStatus) -> String {
    let problem = nts.problem.as_deref().unwrap_or("unknown");
    match nts.state.known() {
        Some(NtsState::Protected) => format!("NTS with {} cookies", nts.cookies),
        Some(NtsState::Negotiating) => "NTS: asks for keys".to_owned(),
        Some(NtsState::Renewing) if nts.problem.is_none() => "NTS: asks for new keys".to_owned(),
        Some(NtsState::Renewing) => format!("NTS: no new keys: {problem}"),
        Some(NtsState::Failed) => format!("NTS: no keys: {problem}"),
        None => "NTS".to_owned(),
    }
}

/// A pulse per second, and who says which seconds it is.
fn pulse_line(pulse: &crate::publish::snapshot::Pulse) -> String {
    let mut text = format!("{}, {}", pulse.source, pulse.state);
    if let Some(why) = &pulse.refused {
        let _ = write!(text, " (the last one refused: {why})");
    }
    if pulse.offset_ns.is_some() {
        let [offset, jitter] = [pulse.offset_ns, Some(pulse.jitter_ns)].map(time);
        let _ = write!(text, ", clock minus pulse {offset}, jitter {jitter}");
    }
    if pulse.wrong_second {
        text += "; others call it another second";
    }
    if let Some(nmea) = &pulse.nmea {
        let age = nmea.age_s.map_or("never".to_owned(), |age| format!("{} ago", span(age)));
        let _ = write!(text, "; receiver's fix: {}, last second named {age}", nmea.fix);
        if nmea.rolled_over {
            text += ", its weeks have rolled over";
        }
    }
    if pulse.followed {
        text += "; leads";
    }
    text
}

/// How NTP is served.
fn ntp_served(served: &NtpServed) -> String {
    let Some(stratum) = served.stratum else {
        return "not answered: nobody keeps the clock".to_owned();
    };
    let reference = served.reference.as_deref().unwrap_or("-");
    let smeared = if served.smeared { ", a leap second is smeared" } else { "" };
    let requests: Vec<String> = served
        .requests
        .iter()
        .filter(|(_, total)| **total > 0)
        .map(|(outcome, total)| format!("{total} {outcome}"))
        .collect();
    let requests = if requests.is_empty() { "none".to_owned() } else { requests.join(", ") };
    format!(
        "stratum {stratum} ({reference}), within {}{smeared}; requests: {requests}",
        time(served.root_dispersion_ns)
    )
}

/// How large, by what, and against whom.
fn bound(status: &Status) -> String {
    let mut text = bound_by(status);
    if let Some(reference) = &status.following.bound_reference {
        let _ = write!(text, ", against the {reference}");
    }
    text
}

/// How large, and which of the reasons for it speaks.
pub(super) fn bound_by(status: &Status) -> String {
    let mut text = time(status.following.error_bound_ns);
    match &status.following.bound_basis {
        Some(Named::Known(Basis::AsymmetryLimit)) => text += " by the asymmetry limit",
        Some(basis) => {
            let _ = write!(text, " by {basis}");
        }
        None => {}
    }
    text
}

/// Where clock minus grandmaster can be.
pub(super) fn interval(status: &Status) -> String {
    let Some([lowest, highest]) = status.following.interval_ns else { return "-".into() };
    let ends = [lowest, highest].map(|end| nanos(end as f64));
    let clipped =
        if status.following.clipped == Some(true) { ", the estimate was clipped" } else { "" };
    format!("{} to {}{clipped}", ends[0], ends[1])
}

/// The bound where it is one against UTC, or that it is none.
pub(super) fn utc(status: &Status) -> String {
    match &status.following.utc {
        Some(Utc { bound_ns: Some(bound), reference: Some(reference), .. })
            if *reference == BoundReference::Utc =>
        {
            format!("within {}", nanos(*bound as f64))
        }
        Some(Utc { reference: Some(reference), .. }) => {
            format!("not known: relative to the {reference}")
        }
        _ => "-".into(),
    }
}

pub(super) fn lost(status: &Status) -> String {
    let lost: Vec<String> =
        status.lost.iter().map(|(cause, total)| format!("{total} {cause}")).collect();
    if lost.is_empty() { "nothing".into() } else { lost.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::model::tests::example;

    #[test]
    fn page_says_everything_in_people_s_units() {
        let page = page(&Status::new(&example()));
        for text in [
            "ptp-agent run 0.1.0, process 42, up 62 min",
            "020304.fffe.050607 in domain 0",
            "aabbcc.fffe.ddeeff, class 6, 0 steps removed, PTP (TAI)",
            "locked (adaptive)",
            "-123 ns",
            "4.21 µs",
            "-37.000 ppm",
            "error bound  812 ns by causality, against the grandmaster\n",
            "precision    45 ns\n",
            "interval     -812 ns to 630 ns\n",
            "UTC          within 912 ns\n",
            "eth0: time_receiver",
            "stack: 3 late, 512 matched",
            "7 wrong_domain",
            "grandmaster_changed for 12 s: another grandmaster",
            "Expected in maintenance.",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
    }

    #[test]
    fn page_of_a_transparent_clock_says_what_is_inside_and_what_became_of_it() {
        let page = page(&Status::new(&serde_json::json!({
            "command": "transparent",
            "ports": [{
                "interface": "tap0", "state": "transparent",
                "residence": {
                    "downstream": {"n": 12, "p50_ns": 16_384, "p99_ns": 5_242_880, "max_ns": null},
                },
                "messages": {"follow_up": {"corrected": 9, "held": 3}},
            }],
        })));
        for text in [
            "tap0: transparent",
            "downstream 16.4 µs (median), 5.24 ms (p99), - (most) of 12",
            "messages   follow_up: 9 corrected, 3 held",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
    }

    #[test]
    fn page_says_which_reason_speaks_against_whom_and_what_is_withheld() {
        let mut value = example();
        value["bound_basis"] = "asymmetry_limit".into();
        value["bound_reference"] = "parent".into();
        value["clipped"] = true.into();
        value["utc"] = serde_json::json!({"bound_ns": 812, "reference": "parent"});
        value["withheld"] = "its time is absurd".into();
        let page = page(&Status::new(&value));
        for text in [
            "812 ns by the asymmetry limit, against the parent\n",
            "-812 ns to 630 ns, the estimate was clipped\n",
            "not known: relative to the parent\n",
            "withheld     its time is absurd\n",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
    }

    #[test]
    fn page_of_an_older_agent_has_what_that_says() {
        let mut value = example();
        let older = value.as_object_mut().unwrap();
        for key in
            ["precision_ns", "interval_ns", "bound_basis", "bound_reference", "clipped", "utc"]
        {
            older.remove(key);
        }
        let page = page(&Status::new(&value));
        assert!(page.contains("error bound  812 ns\n"), "{page}");
    }

    #[test]
    fn empty_status_is_a_short_page() {
        let page = page(&Status::default());
        assert!(page.contains("alarms       none"), "{page}");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (-1.0, "0 s"),
            (119.0, "119 s"),
            (3_600.0, "60 min"),
            (90_000.0, "25 h 0 min"),
            (1e6, "11 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
