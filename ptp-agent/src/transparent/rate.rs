//! What other agents of this host know. The rate of the time transmitter's clock, where another agent of this host follows one: residence times
//! are measured by this host's monotonic clock, and what counts is how long they are for the time transmitter
//! (IEEE 1588-2019 10.2.2: a syntonized transparent clock). A software clock's frequency is that rate. Where
//! the host's own clock is steered, the monotonic clock runs with it and nothing is left to scale. And the
//! delays of the links, where an agent measures them by the peer delay mechanism on the same ports.

use std::{collections::BTreeMap, path::PathBuf};

use ptp_common::residence::{MAX_RATE, RATE_BITS};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    publish::{
        local::{StatusSocket, read_status, running},
        snapshot::{Command, Following, Port, Snapshot},
    },
    servo::ServoState,
};

/// Whose rate to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// That of the first agent of this host that follows.
    #[default]
    Auto,
    /// That of the agent with this status socket.
    Socket(PathBuf),
    /// Nobody's: residence times are told as measured.
    Off,
}

impl std::str::FromStr for Follow {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::Off,
            path => Self::Socket(path.into()),
        })
    }
}

/// What they know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// By how much the time transmitter's clock is faster than CLOCK_MONOTONIC, ppb.
    pub rate_ppb: Option<f64>,
    /// meanLinkDelay by interface, ns.
    pub link_delays: BTreeMap<String, u32>,
}

/// Asks the agents that run here. To be called on a thread that may wait.
pub fn ask(follow: &Follow, own: &StatusSocket) -> Known {
    let paths = match follow {
        Follow::Off => return Known::default(),
        Follow::Socket(path) => vec![path.clone()],
        Follow::Auto => running().unwrap_or_default(),
    };
    let own = own.path();
    let others = paths.into_iter().filter(|path| Some(path) != own.as_ref());
    let statuses: Vec<Value> = others.filter_map(|path| read_status(&path).ok()).collect();
    Known {
        rate_ppb: statuses.iter().find_map(rate_ppb),
        link_delays: statuses.iter().flat_map(link_delays).collect(),
    }
}

/// The links that an agent measures.
fn link_delays(status: &Value) -> Vec<(String, u32)> {
    let status = Snapshot::deserialize(status).unwrap_or_default();
    let delay = |port: Port| {
        // Software stamps may make a short link negative.
        let nanos = u32::try_from(port.link_delay_ns??.max(0)).ok()?;
        Some((port.interface?, nanos))
    };
    status.ports.into_iter().filter_map(delay).collect()
}

/// By how much the time transmitter's clock is faster than CLOCK_MONOTONIC, ppb, by what an agent says of
/// itself; `None` unless it is locked.
fn rate_ppb(status: &Value) -> Option<f64> {
    let status = Snapshot::deserialize(status).ok()?;
    let Following { servo_state, clock, frequency_ppb, .. } = &status.following;
    let frequency_ppb = *frequency_ppb;
    let is_locked = servo_state.as_ref().is_some_and(|state| *state == ServoState::Locked);
    if !status.is_from(Command::Run) || !is_locked {
        return None;
    }
    match clock.as_deref()? {
        "system" => Some(0.0),
        "virtual" | "none" => frequency_ppb,
        // A hardware clock's frequency says nothing of the host's.
        _ => None,
    }
}

/// As the programs take it; 0 for what is no rate.
pub fn scaled(rate_ppb: f64) -> i64 {
    let rate = (rate_ppb * 1e-9 * f64::from(2_u32).powi(RATE_BITS as i32)).round();
    if rate.abs() <= MAX_RATE as f64 { rate as i64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rate_is_that_of_a_locked_software_clock() {
        let status = |clock, state| json!({"command": "run", "clock": clock, "servo_state": state, "frequency_ppb": 37.5});
        assert_eq!(rate_ppb(&status("virtual", "locked")), Some(37.5));
        assert_eq!(rate_ppb(&status("system", "locked")), Some(0.0));
        assert_eq!(rate_ppb(&status("phc:/dev/ptp0", "locked")), None);
        assert_eq!(rate_ppb(&status("virtual", "holdover")), None);
        assert_eq!(rate_ppb(&json!({"command": "serve"})), None);
    }

    #[test]
    fn links_are_those_that_somebody_measures() {
        let ports = json!([
            {"interface": "tap0", "link_delay_ns": 700}, {"interface": "tap1", "link_delay_ns": -30},
            {"interface": "tap2", "link_delay_ns": null}, {"interface": "tap3"},
        ]);
        let expected = [("tap0".to_owned(), 700), ("tap1".to_owned(), 0)];
        assert_eq!(link_delays(&json!({ "ports": ports })), expected);
        assert!(link_delays(&json!({"ports": 7})).is_empty());
    }

    #[test]
    fn hundred_ppm_of_five_milliseconds_are_half_a_microsecond() {
        let correction = ptp_common::residence::scaled(5_000_000, scaled(100_000.0)).unwrap();
        assert_eq!(correction >> 16, 5_000_500);
        assert_eq!(scaled(2e6), 0, "no clock is that fast");
        assert_eq!(scaled(f64::NAN), 0);
    }
}
