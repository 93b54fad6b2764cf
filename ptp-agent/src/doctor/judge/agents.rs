//! What running agents know that nobody else does: the quality of the grandmaster, alarms, and what
//! they have lost.

use crate::{
    doctor::{check::Check, facts::Agent},
    engine::ntp::nts::NtsState,
    publish::snapshot::{Command, Snapshot},
};

/// Classes of clocks with a reference, or in holdover within their specification (IEEE 1588-2019
/// table 4).
pub(super) const REFERENCED: [u8; 4] = [6, 7, 13, 14];
/// What an agent loses by its own or its host's fault, and not because of what others send.
const LOSSES: [&str; 10] = [
    "ring",
    "rx_stamp_missing",
    "tx_stamp_missing",
    "send_error",
    "receive_error",
    "overrun",
    "socket_overflow",
    "sync_without_follow_up",
    "unanswered_delay_req",
    "unanswered_pdelay_req",
];
/// Of so many samples one may be lost.
const TOLERATED: u64 = 100;

const NOBODY: &str = "no agent that runs in this network namespace tells of itself";

pub(super) fn checks(agents: &[Agent]) -> Vec<Check> {
    let mut checks = vec![
        grandmaster(agents),
        time_scale(agents),
        answers(agents),
        alarms(agents),
        losses(agents),
    ];
    checks.extend(nts(agents));
    checks
}

/// Of agents that ask servers with NTS: whether they have keys.
fn nts(agents: &[Agent]) -> Option<Check> {
    const NAME: &str = "nts";
    let servers = of(agents, Command::Run).flat_map(|agent| &agent.status.ntp);
    let protected = servers.filter_map(|server| Some((server, server.nts.as_ref()?)));
    let mut count = 0;
    for (server, nts) in protected {
        count += 1;
        if let Some(problem) = nts.problem.as_ref().filter(|_| nts.state != NtsState::Protected) {
            return Some(Check::warn(
                NAME,
                format!("{} gives no keys: {problem}", server.name),
                "TCP port 4460 must be reachable, the host's clock right to about a day, the certificate of that name and by an authority of --ntp-nts-ca or of the system",
            ));
        }
        if nts.state != NtsState::Protected {
            return Some(Check::warn(
                NAME,
                format!("{} has given no keys yet", server.name),
                "look again in some seconds",
            ));
        }
    }
    (count > 0).then(|| Check::ok(NAME, format!("{count} servers of NTP are asked with keys")))
}

fn of(agents: &[Agent], command: Command) -> impl Iterator<Item = &Agent> {
    agents.iter().filter(move |agent| agent.status.is_from(command))
}

fn grandmaster(agents: &[Agent]) -> Check {
    const NAME: &str = "grandmaster";
    let mut seen = None;
    for agent in of(agents, Command::Run) {
        let following = &agent.status.following;
        let Some(grandmaster) = &following.grandmaster else {
            return Check::warn(
                NAME,
                format!("agent {} hears no grandmaster", agent.process),
                "the alarm no_announce says where to look: domain, transport, multicast, firewall",
            );
        };
        let class = following.grandmaster_class.unwrap_or(255);
        if !REFERENCED.contains(&class) {
            return Check::warn(
                NAME,
                format!("{grandmaster} has clockClass {class}: it says that it has no reference"),
                "fine where all that matters is that clocks agree; for true time give it GNSS or another reference",
            );
        }
        let steps = following.steps_removed.unwrap_or(0);
        let far =
            if steps == 0 { "directly".into() } else { format!("over {steps} boundary clocks") };
        seen = Some(format!("{grandmaster} with clockClass {class}, {far}"));
    }
    match seen {
        Some(seen) => Check::ok(NAME, seen),
        None => Check::skip(
            NAME,
            format!(
                "{NOBODY}: only a running `run` knows its grandmaster (--listen finds those that there are)"
            ),
        ),
    }
}

fn time_scale(agents: &[Agent]) -> Check {
    const NAME: &str = "time_scale";
    let mut following = of(agents, Command::Run).map(|agent| &agent.status.following);
    let Some(following) = following.find(|it| it.grandmaster.is_some()) else {
        return Check::skip(NAME, "no running `run` follows a grandmaster that would tell");
    };
    let scale = following.time_scale.as_deref().unwrap_or("arbitrary");
    if scale.contains("UTC offset unknown") {
        return Check::warn(
            NAME,
            format!("the grandmaster's time is {scale}"),
            "give the grandmaster the UTC offset (currentUtcOffsetValid); 37 s is assumed until then",
        );
    }
    if scale == "arbitrary" {
        return Check::warn(
            NAME,
            "the grandmaster's time scale is arbitrary: it is taken for UTC",
            "right for ptp4l with software stamps; other grandmasters should set ptpTimescale",
        );
    }
    Check::ok(NAME, scale)
}

/// Who answers the clients of a server: in a flood only the kernel can.
fn answers(agents: &[Agent]) -> Check {
    const NAME: &str = "kernel_answers";
    let mut seen = Vec::new();
    for agent in of(agents, Command::Serve) {
        for port in &agent.status.ports {
            let (Some(interface), Some(Some(answers))) = (&port.interface, &port.answers) else {
                continue;
            };
            let whom = answers.answers_for.as_ref().map(|whom| format!(", in the name of {whom}"));
            let whom = whom.unwrap_or_default();
            if answers.by != "kernel" {
                let reason = answers.reason.as_deref().unwrap_or("no reason is told");
                return Check::warn(
                    NAME,
                    format!(
                        "{interface}: not the kernel but the {} answers{whom}: {reason}",
                        answers.by
                    ),
                    "docs/answers.md says what it takes; until then a flood of requests reaches the daemon",
                );
            }
            let hook = answers.hook.as_deref().unwrap_or("tc");
            seen.push(format!("{interface} by {hook}{whom}"));
        }
    }
    if seen.is_empty() {
        return Check::skip(NAME, "no running `serve` leaves answers to the kernel");
    }
    Check::ok(NAME, format!("requests are answered in the kernel: {}", seen.join("; ")))
}

fn alarms(agents: &[Agent]) -> Check {
    const NAME: &str = "agent_alarms";
    if agents.is_empty() {
        return Check::skip(NAME, NOBODY);
    }
    for agent in agents {
        if let Some(problem) = &agent.problem {
            return Check::warn(
                NAME,
                format!(
                    "what process {} says of itself is not understood: {problem}",
                    agent.process
                ),
                "it is of another version: ask it with its own `ptp-agent`, or start it anew",
            );
        }
    }
    let raised = |agent: &Agent| {
        let names: Vec<_> = agent.status.alarms.iter().map(|it| it.alarm.as_ref()).collect();
        (!names.is_empty()).then(|| format!("{} (process {})", names.join(", "), agent.process))
    };
    let raised: Vec<_> = agents.iter().filter_map(raised).collect();
    if raised.is_empty() {
        return Check::ok(NAME, format!("none raised by {} running", agents.len()));
    }
    Check::warn(NAME, raised.join("; "), "`ptp-agent status` explains each")
}

fn losses(agents: &[Agent]) -> Check {
    const NAME: &str = "agent_losses";
    if agents.is_empty() {
        return Check::skip(NAME, NOBODY);
    }
    for agent in agents {
        let lost = |cause: &str| agent.status.lost.get(cause).copied().unwrap_or(0);
        let mut causes: Vec<_> = LOSSES
            .iter()
            .map(|cause| (lost(cause), *cause))
            .filter(|(lost, _)| *lost > 0)
            .collect();
        causes.sort_unstable_by(|one, other| other.cmp(one));
        let total: u64 = causes.iter().fold(0, |sum, (lost, _)| sum.saturating_add(*lost));
        let samples = agent.status.samples.unwrap_or_else(|| handled(&agent.status));
        if total.saturating_mul(TOLERATED) > samples {
            let list: Vec<_> =
                causes.iter().take(3).map(|(lost, cause)| format!("{lost} {cause}")).collect();
            return Check::warn(
                NAME,
                format!(
                    "process {} has lost {} beside {samples} samples",
                    agent.process,
                    list.join(", ")
                ),
                "ring: a larger --ring-kib; stamps: another --rx-source or --tx-source, the queueing discipline; answers: the time transmitter",
            );
        }
    }
    Check::ok(NAME, "less than one sample in a hundred since the start")
}

/// Stamps matched, of commands that have no samples.
fn handled(status: &Snapshot) -> u64 {
    let directions = status.ports.iter().flat_map(|port| port.stamped.timestamps.values());
    let sources = directions.flat_map(|sources| sources.values());
    sources.filter_map(|outcomes| outcomes.get("matched")).fold(0, |sum, n| sum.saturating_add(*n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Status;
    use serde_json::{Value, json};

    fn status_of(status: Value, name: &str) -> Status {
        let agents = [Agent::new(7, &status)];
        checks(&agents).into_iter().find(|check| check.name == name).unwrap().status
    }

    fn good() -> Value {
        json!({"command": "run", "grandmaster": "aa", "grandmaster_class": 6, "samples": 1000,
            "steps_removed": 1, "time_scale": "PTP (TAI), UTC 37 s behind", "alarms": [],
            "lost": {"ring": 3, "wrong_domain": 5000}})
    }

    #[test]
    fn good_agent_is_fine_and_without_one_nothing_is_said() {
        for name in ["grandmaster", "time_scale", "agent_alarms", "agent_losses"] {
            assert_eq!(status_of(good(), name), Status::Ok, "{name}");
            assert_eq!(status_of(json!({"command": "lab"}), "grandmaster"), Status::Skip);
        }
        assert!(checks(&[]).iter().all(|check| check.status == Status::Skip));
    }

    #[test]
    fn servers_without_keys_are_told_and_none_are_asked_after_where_nts_is_not_wanted() {
        let asked = |nts: Value| {
            let mut status = good();
            status["ntp"] = json!([{"name": "nts:time.example", "nts": nts}]);
            let agents = [Agent::new(7, &status)];
            checks(&agents).into_iter().find(|check| check.name == "nts").map(|it| it.status)
        };
        assert_eq!(asked(Value::Null), None);
        assert_eq!(asked(json!({"state": "protected", "cookies": 8})), Some(Status::Ok));
        assert_eq!(asked(json!({"state": "negotiating"})), Some(Status::Warn));
        let failed = json!({"state": "failed", "problem": "expired"});
        assert_eq!(asked(failed), Some(Status::Warn));
    }

    #[test]
    fn each_trouble_is_a_warning() {
        for (key, value, name) in [
            ("grandmaster", json!(null), "grandmaster"),
            ("grandmaster_class", json!(248), "grandmaster"),
            ("time_scale", json!("arbitrary"), "time_scale"),
            ("time_scale", json!("PTP (TAI), UTC offset unknown"), "time_scale"),
            ("alarms", json!([{"alarm": "no_sync"}]), "agent_alarms"),
            ("lost", json!({"ring": 11}), "agent_losses"),
            ("lost", json!(5), "agent_alarms"),
        ] {
            let mut status = good();
            status[key] = value;
            assert_eq!(status_of(status, name), Status::Warn, "{key}");
        }
    }

    #[test]
    fn server_whose_requests_reach_the_daemon_is_a_warning_and_one_that_left_them_to_the_kernel_is_fine()
     {
        let serve = |answers: Value| {
            let ports = json!([{"interface": "eth0", "answers": answers}]);
            status_of(json!({"command": "serve", "ports": ports}), "kernel_answers")
        };
        assert_eq!(serve(json!({"by": "kernel", "hook": "xdp"})), Status::Ok);
        assert_eq!(serve(json!({"by": "agent", "reason": "the trial was silent"})), Status::Warn);
        assert_eq!(serve(json!({"by": "other", "answers_for": "aa-1"})), Status::Warn);
        assert_eq!(serve(json!(null)), Status::Skip, "nobody asked for it");
    }

    #[test]
    fn whatever_answers_there_is_no_panic() {
        for status in [json!(null), json!([]), json!({"command": "run", "lost": 5, "ports": {}})] {
            checks(&[Agent::new(1, &status)]);
        }
    }
}
