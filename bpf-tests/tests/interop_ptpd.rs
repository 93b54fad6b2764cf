//! ptpd by unicast negotiation: it is granted what it asks for, and its offsets are small; and it grants what the agent
//! asks for, at intervals that it likes. Both ends share one clock. Needs root; says why it skips.

use std::time::Duration;

use bpf_tests::{
    agent::{Agent, field},
    in_company,
    links::Wire,
    median, need,
    ptpd::Ptpd,
};

/// As a server it is one after twelve seconds.
const PATIENCE: Duration = Duration::from_secs(40);
const UNICAST: [&str; 2] = ["ip_mode=unicast", "unicast_negotiation=Y"];

#[test]
fn ptpd_is_granted_what_it_asks_for_and_follows() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let mut server = Agent::start(&wire.grandmaster, &["serve", "-i", "gm0", "--unicast=only"]);
    let options = ["preset=slaveonly", "unicast_destinations=192.0.2.1"];
    let client = need!(Ptpd::start(&wire.client, "ptp0", &[&options[..], &UNICAST].concat()));
    // The line of each answer has the delay, and an offset that goes by it.
    let mut answers = 0;
    client.wait_for(0, PATIENCE, "answers", |line| {
        answers += usize::from(line.text.contains(" slv, ") && line.text.contains(", D, "));
        (answers >= 3).then_some(())
    });
    let offsets = client.offsets();
    let offset = median(offsets[offsets.len() / 2..].to_vec());
    assert!(offset.abs() < 50_000, "{offset}");
    drop(client);
    server.finish();
}

#[test]
fn ptpd_as_a_server_is_asked_more_slowly_until_it_grants_and_is_followed() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let options = ["preset=masteronly", "unicast_negotiation_listening=Y"];
    let rates = ["log_sync_interval=-3", "log_delayreq_interval=-3"];
    let options = [&options[..], &UNICAST, &rates].concat();
    let _server = need!(Ptpd::start(&wire.grandmaster, "gm0", &options));
    // Its own Announce is once in two seconds, and more it does not grant.
    let arguments = "run -i ptp0 --clock virtual --unicast 192.0.2.1 --log-announce-interval 0 \
                     --log-sync-interval -3 --log-min-delay-req-interval -3";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut run = Agent::start(&wire.client, &arguments);
    let samples = run.wait_for_samples(0, PATIENCE, 24);
    let offset = median(field(&samples[8..], "offset_ns"));
    assert!(offset.abs() < 50_000, "{offset}");
    run.finish();
}
