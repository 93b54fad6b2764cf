//! `ptp-agent bench` with the capabilities that it leaves itself: every row is there. What the rows say
//! is for people. Needs root.

use std::process::Command;

use bpf_tests::{
    agent::{binary, run_to_end},
    links::Wire,
    need,
};
use serde_json::Value;

#[test]
fn every_row_is_measured() {
    // Whether namespaces can be made at all.
    drop(need!(Wire::new()));
    let mut command = Command::new(binary());
    command.args(["--json", "bench", "--runs", "1", "--packets", "10000", "--clock-calls", "1000"]);
    let (status, output, log) = run_to_end(command);
    assert!(status.success(), "{log}");
    let rows: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["clock_mono", "tc_egress_ptp", "xdp_other", "xmit_done_ptp", "veth_udp_hooks"] {
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no {name}: {output}\n{log}"));
        assert!(row["ns"]["mean"].as_f64() > Some(0.0), "{row}");
    }
}
