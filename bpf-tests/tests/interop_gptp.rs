//! gPTP (IEEE 802.1AS) beside linuxptp with the values of its gPTP.cfg, but for the threshold of the link's delay: ours as an
//! end station behind its grandmaster, and between its grandmaster and its end station. All clocks of one machine are one
//! clock, so that the true offset is zero. Needs root.

use std::time::Duration;

use bpf_tests::{
    agent::{Agent, field},
    alone, median, need,
    ptp4l::Ptp4l,
};
use ptp_agent::lab::netns::{Namespace, NetnsError, veth};

const PATIENCE: Duration = Duration::from_secs(30);
/// How far the median of |offset| may be from the truth on a busy machine.
const TRUE: i64 = 100_000;
const GPTP: &str = "gmCapable 1\npriority2 248\nlogAnnounceInterval 0\nlogSyncInterval -3\nsyncReceiptTimeout 3\n\
    neighborPropDelayThresh 1000000\nmin_neighbor_prop_delay -20000000\nassume_two_step 1\npath_trace_enabled 1\n\
    follow_up_info 1\ntransportSpecific 0x1\nptp_dst_mac 01:80:C2:00:00:0E\nnetwork_transport L2\n\
    delay_mechanism P2P\nsummary_interval -4\nfreq_est_interval 0\n";

/// `count` nodes, each with a wire to the next: `down1` of the first, `up1` of the second, and so on.
fn line(count: usize) -> Result<Vec<Namespace>, String> {
    let needed = |error: NetnsError| error.to_string();
    let nodes: Result<Vec<_>, _> = (0..count).map(|_| Namespace::new().map_err(needed)).collect();
    let nodes = nodes?;
    for (n, pair) in (1..).zip(nodes.windows(2)) {
        veth(&pair[0], &format!("down{n}"), &pair[1], &format!("up{n}")).map_err(needed)?;
    }
    Ok(nodes)
}

#[test]
fn an_end_station_follows_ptp4ls_grandmaster_and_its_link_is_capable() {
    let _machine = alone();
    let nodes = need!(line(2));
    let _grandmaster = need!(Ptp4l::start(&nodes[0], &["down1"], &[GPTP, "priority1 200"]));
    let arguments = ["run", "-i", "up1", "--profile", "gptp", "--clock", "virtual"];
    let mut agent = Agent::start_only(&nodes[1], &arguments);
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    let mark = agent.mark();
    let samples = agent.wait_for_samples(mark, PATIENCE, 16);
    let offset = median(field(&samples, "offset_ns").iter().map(|it| it.abs()).collect());
    println!("behind ptp4l with gPTP.cfg: median |offset| {offset} ns");
    assert!(offset < TRUE, "{offset} ns");
    // It was capable from the first exchanges on: nothing was dropped for it but what came before.
    let summary = agent.finish();
    assert!(summary["lost"]["not_capable"].as_u64().unwrap_or(0) < 40, "{summary}");
    assert_eq!(summary["lost"]["missing_information"].as_u64(), None, "{summary}");
}

#[test]
fn ptp4ls_end_station_follows_through_a_clock_of_ours() {
    let _machine = alone();
    let nodes = need!(line(3));
    let _grandmaster = need!(Ptp4l::start(&nodes[0], &["down1"], &[GPTP, "priority1 200"]));
    let arguments = ["run", "--role", "auto", "--profile", "gptp", "-i", "up1", "down2"];
    let agent = Agent::start_only(&nodes[1], &arguments);
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    let client = need!(Ptp4l::start(&nodes[2], &["up2"], &[GPTP, "priority1 248"]));
    let mut count = 0;
    client.wait_for(0, PATIENCE, "4 measurements", |line| {
        count += usize::from(line.text.contains("master offset"));
        (count >= 4).then_some(())
    });
    let offsets: Vec<i64> = client.offsets().iter().map(|offset| offset.abs()).collect();
    let offset = median(offsets);
    println!("behind a clock of ours: median |offset| {offset} ns");
    assert!(offset < TRUE, "{offset} ns");
}
