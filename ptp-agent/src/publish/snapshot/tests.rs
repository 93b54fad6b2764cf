//! The form of the status, which others read.

use super::*;
use serde_json::{Value, json};

#[test]
fn names_of_all_sets_are_those_of_samples_and_metrics() {
    fn is_named<T: Serialize + Copy>(value: T, name: &str) {
        assert_eq!(json!(value), name);
        assert_eq!(Named::Known(value).to_string(), name);
    }
    ServoState::ALL.into_iter().for_each(|state| is_named(state, state.name()));
    PortState::ALL.into_iter().for_each(|state| is_named(state, state.name()));
    Basis::ALL.into_iter().for_each(|basis| is_named(basis, basis.name()));
    Strategy::ALL.into_iter().for_each(|strategy| is_named(strategy, strategy.name()));
}

#[test]
fn name_of_a_later_version_is_kept_as_it_is() {
    let state: Named<ServoState> = serde_json::from_value(json!("hesitant")).unwrap();
    assert_eq!((state.known(), state.to_string().as_str()), (None, "hesitant"));
    let state: Named<ServoState> = serde_json::from_value(json!("locked")).unwrap();
    assert_eq!(state, ServoState::Locked);
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn figures_that_a_command_has_are_null_and_those_of_others_are_left_out() {
    let port = Port {
        interface: Some("eth0".into()),
        state: Some(PortState::TimeTransmitter.into()),
        stamped: Stamped { sources: Some(Sources::default()), ..Stamped::default() },
        ..Port::default()
    };
    let serve = Snapshot {
        command: Some(Command::Serve.into()),
        ports: vec![port.clone()],
        ..Snapshot::default()
    };
    let value = json!(serve);
    assert_eq!(keys(&value), ["alarms", "command", "lost", "ports"]);
    let expected = ["authentication", "interface", "sources", "state", "timestamps"];
    assert_eq!(keys(&value["ports"][0]), expected);
    let run = Snapshot {
        following: Following { clock: Some("none".into()), ..Following::default() },
        ports: vec![Port { link_delay_ns: Some(None), ..port }],
        ..serve
    };
    let value = json!(run);
    assert_eq!(value["offset_ns"], Value::Null);
    assert!(keys(&value).contains(&"withheld"));
    assert!(keys(&value["ports"][0]).contains(&"link_delay_ns"));
    let again: Snapshot = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(json!(again), value);
}
