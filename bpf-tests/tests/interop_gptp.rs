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

/// linuxptp's automotive-master.cfg and automotive-slave.cfg by their values, beside those of gPTP.cfg.
const AUTOMOTIVE: &str = "BMCA noop\ninhibit_announce 1\nasCapable true\n";
const MASTER: &str = "masterOnly 1\ninhibit_delay_req 1\n";
const SLAVE: &str = "slaveOnly 1\nignore_source_id 1\nstep_threshold 1\noperLogSyncInterval 0\n\
    operLogPdelayReqInterval 2\nmsg_interval_request 1\nservo_offset_threshold 30\nservo_num_offset_values 10\n";

/// The median of |offset| of four measurements of ptp4l.
fn measured(client: &Ptp4l) -> i64 {
    let mut count = 0;
    client.wait_for(0, PATIENCE, "4 measurements", |line| {
        count += usize::from(line.text.contains("master offset"));
        (count >= 4).then_some(())
    });
    median(client.offsets().iter().map(|offset| offset.abs()).collect())
}

#[test]
fn where_roles_are_fixed_time_goes_from_ptp4ls_master_through_ours_to_its_slave() {
    let _machine = alone();
    let nodes = need!(line(3));
    let _master = need!(Ptp4l::start(&nodes[0], &["down1"], &[GPTP, AUTOMOTIVE, MASTER]));
    let arguments = "run --role auto --profile automotive -i up1 down2 --port down2=transmitter";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let agent = Agent::start_only(&nodes[1], &arguments);
    let slave = need!(Ptp4l::start(&nodes[2], &["up2"], &[GPTP, AUTOMOTIVE, SLAVE]));
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    // Once locked it asks for one Sync a second, and has them: two samples that are so far apart.
    let (mark, mut last) = (agent.mark(), None);
    agent.wait_for(mark, PATIENCE, "one Sync a second", |line| {
        let sample: serde_json::Value = serde_json::from_str(&line.text).ok()?;
        let now = sample["mono_ns"].as_i64().filter(|_| sample["event"] == "sample")?;
        let before = last.replace(now)?;
        (now - before > 900_000_000).then_some(())
    });
    let offset = measured(&slave);
    println!("behind ours with fixed roles: median |offset| {offset} ns");
    assert!(offset < TRUE, "{offset} ns");
}

/// ptp4l as the service of its links alone: what linuxptp 4 calls CMLDS is a port that asks with majorSdoId 2.
const CMLDS: &str = "slaveOnly 1\nclockIdentity C37D50.0000.000000\ntransportSpecific 0x2\nnetwork_transport L2\n\
    delay_mechanism P2P\nptp_dst_mac 01:80:C2:00:00:0E\nfree_running 1\nlogging_level 7\n";

#[test]
fn a_link_is_measured_in_the_name_of_the_common_service_by_both_ends() {
    let _machine = alone();
    let nodes = need!(line(2));
    let service = need!(Ptp4l::start(&nodes[0], &["down1"], &[CMLDS]));
    let arguments = "run -i up1 --profile gptp --clock virtual --port up1=cmlds";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut agent = Agent::start(&nodes[1], &arguments);
    // Theirs of ours; and ours of theirs, which needs two exchanges to be capable.
    service.wait_for_text(0, PATIENCE, "delay   filtered");
    agent.wait_for_text(0, PATIENCE, "link is asCapable");
    let summary = agent.finish();
    assert_eq!(summary["lost"]["wrong_sdo_id"].as_u64(), None, "{summary}");
}

/// The configuration of an end station whose link the program measures that has this socket.
fn told_by(directory: &std::path::Path, socket: &str) -> String {
    let path = directory.join("told.toml");
    let profile = "profile = \"gptp\"\nclock = \"virtual\"";
    std::fs::write(&path, format!("[run]\n{profile}\nlink-delay-server = {socket:?}\n")).unwrap();
    path.display().to_string()
}

#[test]
fn a_link_that_another_agent_measures_is_known_from_it_and_lost_with_it() {
    let _machine = alone();
    let nodes = need!(line(2));
    let _grandmaster = need!(Ptp4l::start(&nodes[0], &["down1"], &[GPTP, "priority1 200"]));
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ours").display().to_string();
    let words = format!("run -i up1 --profile gptp --clock virtual --management-socket {socket}");
    let mut service = Agent::start(&nodes[1], &words.split_whitespace().collect::<Vec<_>>());
    service.wait_for_text(0, PATIENCE, "link is asCapable");
    let config = told_by(directory.path(), &socket);
    let mut station = Agent::start(&nodes[1], &["run", "-i", "up1", "--config", &config]);
    station.wait_for_state(0, PATIENCE, "time_receiver");
    let samples = station.wait_for_samples(station.mark(), PATIENCE, 16);
    let offset = median(field(&samples, "offset_ns").iter().map(|it| it.abs()).collect());
    println!("behind ptp4l by a link delay that was told: median |offset| {offset} ns");
    assert!(offset < TRUE, "{offset} ns");
    // What another's stamps may lack of the way to ours is in the bound.
    let bounds = field(&samples, "error_bound_ns");
    assert!(bounds.iter().all(|bound| *bound > 90_000), "{bounds:?}");
    service.finish();
    let mark = station.mark();
    station.wait_for_text(mark, PATIENCE, "link is not asCapable any more");
    station.finish();
}

/// linuxptp 4's service for the links of a host: it asks in the name of majorSdoId 2 and answers whoever asks.
const SERVICE: &str = "clientOnly 1\nclockIdentity C37D50.0000.000000\nignore_transport_specific 1\n\
    transportSpecific 0x2\nnetwork_transport L2\ndelay_mechanism P2P\nptp_dst_mac 01:80:C2:00:00:0E\n\
    neighborPropDelayThresh 1000000\nmin_neighbor_prop_delay -20000000\nlogging_level 7\n";

/// Both ends of a link have the common service: linuxptp 4's with its grandmaster there, and here ours, which is an end station itself, and which
/// another instance of linuxptp on the same host asks over the management socket.
#[test]
fn linuxptp_4s_common_service_and_ours_measure_each_other_and_its_instances_ask_ours() {
    let _machine = alone();
    let nodes = need!(line(2));
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let service = need!(Ptp4l::start_authenticating(
        &nodes[0],
        &["down1"],
        &[SERVICE, &format!("uds_address {}", path("service"))]
    ));
    let common = |server: &str, client: &str| {
        format!(
            "delay_mechanism COMMON_P2P\ncmlds.server_address {server}\ncmlds.client_address {client}\ncmlds.port 1"
        )
    };
    let asks_theirs = common(&path("service"), &path("client"));
    let _grandmaster = need!(Ptp4l::start_authenticating(
        &nodes[0],
        &["down1"],
        &[GPTP, "priority1 200", &asks_theirs]
    ));
    let words = format!(
        "run -i up1 --profile gptp --clock virtual --port up1=cmlds --management-socket {}",
        path("ours")
    );
    let mut agent = Agent::start(&nodes[1], &words.split_whitespace().collect::<Vec<_>>());
    service.wait_for_text(0, PATIENCE, "delay   filtered");
    agent.wait_for_text(0, PATIENCE, "link is asCapable");
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    let asks_ours = common(&path("ours"), &path("station"));
    let station = need!(Ptp4l::start_authenticating(
        &nodes[1],
        &["up1"],
        &[GPTP, "priority1 250", &asks_ours]
    ));
    // Ours asks theirs as well.
    let config = told_by(directory.path(), &path("service"));
    let mut told = Agent::start(&nodes[0], &["run", "-i", "down1", "--config", &config]);
    told.wait_for_text(0, PATIENCE, "link is asCapable");
    told.finish();
    // It is asCapable by what ours says of the link, or it would measure nothing.
    let offset = measured(&station);
    println!("an instance of linuxptp by our link delay: median |offset| {offset} ns");
    assert!(offset < TRUE, "{offset} ns");
    let summary = agent.finish();
    assert_eq!(summary["lost"]["wrong_sdo_id"].as_u64(), None, "{summary}");
}
