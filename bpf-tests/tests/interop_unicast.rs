//! Time from and to single addresses: the agent asks linuxptp's ptp4l and is asked by it, over IPv4, IPv6 and
//! Ethernet, with Delay_Req by unicast alone, and with two servers of which one is killed. Needs root; says why it
//! skips.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, field, http_get},
    in_company,
    links::{Star, Wire, ip},
    median, need,
    ptp4l::Ptp4l,
};
use ptp_agent::lab::netns::Namespace;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(25);
const METRICS: &str = "127.0.0.1:9319";

/// What a ptp4l serves by unicast with.
const SERVER: [&str; 4] =
    ["unicast_listen 1", "hybrid_e2e 1", "inhibit_multicast_service 1", "masterOnly 1"];

fn agent(namespace: &Namespace, arguments: &str) -> Agent {
    Agent::start(namespace, &arguments.split_whitespace().collect::<Vec<_>>())
}

/// What the agent in `namespace` says of its first port.
fn port(namespace: &Namespace) -> Value {
    let address: SocketAddr = METRICS.parse().unwrap();
    let answer = http_get(namespace, address, "/status");
    let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body);
    let status: Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    status["ports"][0].clone()
}

/// Until `wanted` is true of the first port.
fn wait_for_port(namespace: &Namespace, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let port = port(namespace);
        if wanted(&port) {
            return port;
        }
        assert!(Instant::now() < deadline, "{what}: {port}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Until it has printed so many offsets: their median, ns.
fn offset(ptp4l: &Ptp4l, count: usize) -> i64 {
    let mut seen = 0;
    ptp4l.wait_for(0, PATIENCE, "offsets", |line| {
        seen += usize::from(line.text.contains("master offset"));
        (seen >= count).then_some(())
    });
    median(ptp4l.offsets())
}

#[test]
fn ptp4l_is_granted_what_it_asks_for_and_its_delay_req_are_answered_by_the_kernel() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let server = format!("serve -i gm0 --unicast=only --metrics-address {METRICS}");
    let mut server = agent(&wire.grandmaster, &server);
    let client = need!(Ptp4l::start(
        &wire.client,
        &["ptp0"],
        &[
            "slaveOnly 1",
            "logAnnounceInterval -2",
            "logSyncInterval -4",
            "logMinDelayReqInterval -4",
            "unicast_req_duration 10",
            "summary_interval -4",
            "inhibit_multicast_service 1",
            "[unicast_master_table]",
            "table_id 1",
            "logQueryInterval 0",
            "UDPv4 192.0.2.1",
            "[ptp0]",
            "unicast_master_table 1",
        ],
    ));
    // Both ends have one clock.
    let offset = offset(&client, 3);
    assert!(offset.abs() < 20_000, "{offset}");
    let port = wait_for_port(&wire.grandmaster, "answers", |port| {
        port["answers"]["requests"]["delay_req"]["answered"].as_u64() > Some(8)
    });
    let service = &port["unicast"]["service"];
    assert_eq!(service["clients"], 1, "{port}");
    assert_eq!(service["grants"]["sync"], 1, "{port}");
    assert_eq!(service["of"][0]["grants"]["sync"]["log_interval"], -4, "{port}");
    // It asks again before its ten seconds are over.
    let port = wait_for_port(&wire.grandmaster, "renewal", |port| {
        port["unicast"]["service"]["requests"]["renewed"].as_u64() > Some(0)
    });
    assert!(port["unicast"]["service"]["requests"]["expired"].is_null(), "{port}");
    drop(client);
    // It has cancelled what it had.
    wait_for_port(&wire.grandmaster, "end", |port| port["unicast"]["service"]["clients"] == 0);
    server.finish();
}

#[test]
fn better_of_two_ptp4l_is_followed_and_the_other_one_when_it_is_killed() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [one, two, client] = &star.leaves[..] else { unreachable!() };
    let serve = |namespace: &Namespace, priority: &str| {
        let options: Vec<&str> = SERVER.iter().copied().chain([priority]).collect();
        Ptp4l::grandmaster(namespace, &["eth0"], &options)
    };
    let mut first = need!(serve(one, "priority1 101"));
    let _second = need!(serve(two, "priority1 102"));
    let mut run = agent(
        client,
        &format!(
            "run -i eth0 --clock virtual --unicast 192.0.2.2,192.0.2.1 --log-announce-interval -1 \
             --log-sync-interval -4 --log-min-delay-req-interval -4 --metrics-address {METRICS}"
        ),
    );
    let status = wait_for_port(client, "following", |port| {
        port["unicast"]["servers"][1]["state"] == "followed"
            && port["unicast"]["servers"][0]["state"] == "announced"
    });
    let followed = status["unicast"]["servers"][1]["port"].as_str().unwrap().to_owned();
    let samples = run.wait_for_samples(0, PATIENCE, 48);
    let offset = median(field(&samples[16..], "offset_ns"));
    assert!(offset.abs() < 20_000, "{offset}");
    let grandmaster = samples.last().unwrap()["grandmaster"].as_str().unwrap().to_owned();
    assert!(followed.starts_with(&grandmaster), "{followed} {grandmaster}");
    let mark = run.mark();
    let killed = Instant::now();
    first.kill();
    run.wait_for_sample(mark, PATIENCE, "another grandmaster", |sample| {
        sample["grandmaster"].as_str() != Some(grandmaster.as_str())
    });
    println!("failover after {:.2} s", killed.elapsed().as_secs_f64());
    let mark = run.mark();
    let samples = run.wait_for_samples(mark, PATIENCE, 32);
    let offset = median(field(&samples, "offset_ns"));
    assert!(offset.abs() < 50_000, "{offset}");
    println!("offset after it {offset} ns (median of {})", samples.len());
    wait_for_port(client, "the dead one is asked still", |port| {
        ["asked", "unanswered"].contains(&port["unicast"]["servers"][1]["state"].as_str().unwrap())
    });
    run.finish();
}

#[test]
fn delay_req_goes_to_the_grandmaster_alone_in_either_direction() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let intervals = ["logAnnounceInterval -2", "logSyncInterval -3", "logMinDelayReqInterval -3"];
    let options: Vec<&str> = ["hybrid_e2e 1"].into_iter().chain(intervals).collect();
    {
        let _server = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &options));
        let mut run = agent(
            &wire.client,
            &format!("run -i ptp0 --clock virtual --hybrid --metrics-address {METRICS}"),
        );
        let samples = run.wait_for_samples(0, PATIENCE, 16);
        let offset = median(field(&samples[8..], "offset_ns"));
        assert!(offset.abs() < 20_000, "{offset}");
        wait_for_port(&wire.client, "unicast", |port| port["unicast"]["delay_req"] == "unicast");
        run.finish();
    }
    let server = format!(
        "serve -i gm0 --log-sync-interval -3 --log-announce-interval -2 --metrics-address {METRICS}"
    );
    let mut server = agent(&wire.grandmaster, &server);
    let options: Vec<&str> =
        options.into_iter().chain(["slaveOnly 1", "summary_interval -4"]).collect();
    let client = need!(Ptp4l::start(&wire.client, &["ptp0"], &options));
    let offset = offset(&client, 3);
    assert!(offset.abs() < 20_000, "{offset}");
    server.finish();
}

#[test]
fn unicast_is_carried_by_ipv6_and_ethernet_too() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    ip(&wire.grandmaster, "-6 addr add fd00::1/64 dev gm0 nodad");
    ip(&wire.client, "-6 addr add fd00::2/64 dev ptp0 nodad");
    ip(&wire.grandmaster, "link set gm0 address 02:00:00:00:77:01");
    for (transport, server) in [("udp6", "fd00::1"), ("l2", "02:00:00:00:77:01")] {
        let mut serve = agent(
            &wire.grandmaster,
            &format!("serve -i gm0 --unicast=only --transport {transport}"),
        );
        let mut run = agent(
            &wire.client,
            &format!(
                "run -i ptp0 --clock virtual --transport {transport} --unicast {server} \
                 --log-announce-interval -2 --log-sync-interval -4 --log-min-delay-req-interval -4 \
                 --metrics-address {METRICS}"
            ),
        );
        let samples = run.wait_for_samples(0, PATIENCE, 24);
        let offset = median(field(&samples[12..], "offset_ns"));
        assert!(offset.abs() < 20_000, "{transport}: {offset}");
        let status = wait_for_port(&wire.client, "grants", |port| {
            port["unicast"]["servers"][0]["grants"]["delay_resp"].is_object()
        });
        assert_eq!(status["unicast"]["servers"][0]["state"], "followed", "{status}");
        run.finish();
        serve.finish();
    }
}
