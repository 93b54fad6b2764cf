//! What has become keys since the agent takes either role: boundary clocks, profiles, marks on packets, keys for
//! authentication. A file of several ports, or with `clock_type BC`, is a boundary clock for ptp4l and so here.

use toml::{Table, Value as Toml};

use super::{File, Role};
use crate::engine::receiver::Acceptable;

/// Shortest link that the agent's stamps can tell from a longer one, ns.
const LEAST_THRESHOLD: i64 = 10_000;
/// Keys of `[serve]` that a clock of either role has in `[run]` too.
const OF_SERVING: [&str; 6] = [
    "log-sync-interval",
    "log-announce-interval",
    "log-min-delay-req-interval",
    "priority1",
    "priority2",
    "clock-class",
];

impl File {
    /// For which command the file is, and whether it is for a clock of either role.
    pub(super) fn role(&mut self) -> (Role, bool) {
        let is_on = |said: Option<(usize, i64)>| said.is_some_and(|(_, value)| value == 1);
        let masters = self.masters();
        let is_client = is_on(self.integer("slaveOnly"));
        let is_capable = self.integer("gmCapable").is_none_or(|(_, value)| value != 0);
        let kind = self.text("clock_type");
        if let Some((line, kind)) = kind.as_ref().filter(|(_, kind)| kind.ends_with("_TC")) {
            let why = "a transparent clock is a command of its own, without a file: `ptp-agent transparent -i IFACE...`";
            self.without(*line, "clock_type", kind, why);
        }
        if masters.iter().all(|master| *master) && !masters.is_empty() && !is_client {
            // `serve` has no profile, and a clock of either role may be a transmitter on all of its ports.
            return if self.is_automotive() { (Role::Run, true) } else { (Role::Serve, false) };
        }
        let is_boundary = kind.is_some_and(|(_, kind)| kind == "BC") || self.ports.len() > 1;
        (Role::Run, is_boundary && !is_client && is_capable)
    }

    /// Whether each port is `masterOnly`; of a file without ports, whether all are.
    fn masters(&self) -> Vec<bool> {
        use super::Value::Integer;
        let is_master =
            |said: Option<&super::Said>| said.is_some_and(|(_, value)| *value == Integer(1));
        let global = self.global.get("masterOnly");
        if self.ports.is_empty() {
            return vec![is_master(global)];
        }
        self.ports.iter().map(|(_, own)| is_master(own.get("masterOnly").or(global))).collect()
    }

    /// How packets are marked, and the clock's identity.
    pub(super) fn marks(&mut self, table: &mut Table) {
        for (option, key, from, to) in [
            ("dscp_event", "dscp-event", 0, 63),
            ("dscp_general", "dscp-general", 0, 63),
            ("udp_ttl", "udp-ttl", 1, 255),
            ("udp6_scope", "udp6-scope", 2, 14),
        ] {
            match self.integer(option) {
                Some((_, value)) if (from..=to).contains(&value) => {
                    table.insert(key.into(), value.into());
                }
                Some((line, value)) => {
                    self.without(line, option, value, &format!("{key} is from {from} to {to}"));
                }
                None => {}
            }
        }
        let Some((line, text)) = self.text("clockIdentity") else { return };
        match text.parse() {
            Ok(Acceptable { clock_identity, port_number: None })
                if clock_identity.0 != [0xff; 8] =>
            {
                if clock_identity.0 != [0; 8] {
                    table.insert("clock-identity".into(), clock_identity.to_string().into());
                }
            }
            _ => self.without(line, "clockIdentity", text, "no identity of a clock"),
        }
    }

    /// Keys for authentication: linuxptp's file is read as it is.
    pub(super) fn security(&mut self, table: &mut Table) {
        let (spp, key) = (self.integer("spp"), self.integer("active_key_id"));
        let unsigned = self.integer("allow_unauth");
        let Some((line, file)) = self.text("sa_file").filter(|(_, file)| !file.is_empty()) else {
            return;
        };
        match spp {
            Some((_, spp @ 0..=255)) => {
                table.insert("security".into(), file.into());
                table.insert("security-spp".into(), spp.into());
                let is_strict = unsigned.is_none_or(|(_, value)| value == 0);
                table.insert("security-require".into(), is_strict.into());
                if let Some((_, key)) = key.filter(|(_, key)| (1..=u32::MAX.into()).contains(key)) {
                    table.insert("security-key".into(), key.into());
                }
            }
            _ => self.without(
                line,
                "sa_file",
                file,
                "no port has an `spp`, so that ptp4l authenticates nothing by it",
            ),
        }
    }

    /// The profile, and what links have to be.
    pub(super) fn profile(&mut self, table: &Table, run: &mut Table, role: Role) {
        let transport = table.get("transport").and_then(Toml::as_str).unwrap_or("udp4").to_owned();
        let delay = run.get("delay").and_then(Toml::as_str).unwrap_or("e2e").to_owned();
        let domain = table.get("domain").and_then(Toml::as_integer).unwrap_or(0);
        let specific = self.integer("transportSpecific").filter(|(_, value)| *value != 0);
        let comparison = self.text("dataset_comparison").filter(|(_, text)| text != "ieee1588");
        let mut is_telecom = false;
        if let Some((line, value)) = specific {
            let why = match value {
                _ if role == Role::Serve => Some(
                    "`serve` has no profile: `run --role auto --profile gptp` may be grandmaster",
                ),
                1 if transport != "l2" || delay != "p2p" => {
                    Some("gPTP is carried by Ethernet and measures links: it needs L2 and P2P")
                }
                1 if !(0..=127).contains(&domain) => Some("the domains of gPTP are 0 to 127"),
                1 => None,
                _ => Some("profiles have 0, and gPTP 1"),
            };
            match why {
                Some(why) => self.without(line, "transportSpecific", value, why),
                None => {
                    let name = if self.is_automotive() { "automotive" } else { "gptp" };
                    run.insert("profile".into(), name.into());
                    self.when_locked(run);
                }
            }
        } else if let Some((line, name)) = comparison {
            let is_asking = run.contains_key("unicast");
            let profile = match (transport.as_str(), domain) {
                ("l2", 24..=43) if delay == "e2e" => Ok("g8275.1"),
                ("udp4" | "udp6", 44..=63) if delay == "e2e" && is_asking => Ok("g8275.2"),
                _ if role == Role::Serve => {
                    Err("`serve` compares nothing: `run --role auto` with a telecom profile does")
                }
                _ => Err(
                    "the alternate comparison comes with a profile: g8275.1 (L2, E2E, domains 24 to 43) or g8275.2 (UDP, \
                     servers of unicast, domains 44 to 63)",
                ),
            };
            match profile {
                Ok(profile) if role == Role::Run => {
                    is_telecom = true;
                    run.insert("profile".into(), profile.into());
                }
                Ok(_) => self.without(line, "dataset_comparison", name, "`serve` has no profile"),
                Err(why) => self.without(line, "dataset_comparison", name, why),
            }
        }
        self.local_priority(run, is_telecom);
        if let Some((line, nanos)) = self.integer("neighborPropDelayThresh")
            && run.get("profile").and_then(Toml::as_str) != Some("automotive")
        {
            if nanos >= LEAST_THRESHOLD {
                run.insert("neighbor-prop-delay-threshold".into(), nanos.into());
            } else {
                let why = "that is for stamps of the hardware: between two stacks no link is as short, and it would never \
                           be capable";
                self.without(line, "neighborPropDelayThresh", nanos, why);
            }
        }
    }

    fn local_priority(&mut self, run: &mut Table, is_telecom: bool) {
        let [clock, port] = ["G.8275.defaultDS.localPriority", "G.8275.portDS.localPriority"]
            .map(|name| (name, self.integer(name)));
        for (name, said) in [clock, port] {
            let Some((line, value)) = said else { continue };
            if !is_telecom {
                if value != 128 {
                    self.without(line, name, value, "only telecom profiles compare it");
                }
            } else if clock.1.is_some_and(|(_, other)| other != value) {
                let why = "the clock and its ports have one local-priority: the clock's is taken";
                self.without(line, name, value, why);
            } else {
                run.insert("local-priority".into(), value.into());
            }
        }
    }

    /// What a clock of either role needs beside.
    pub(super) fn either_role(&mut self, run: &mut Table, serve: &Table) {
        run.insert("role".into(), "auto".into());
        if run.get("clock").and_then(Toml::as_str) == Some("none") {
            // It passes its time on: there has to be one.
            run.insert("clock".into(), "virtual".into());
        }
        if run.get("profile").and_then(Toml::as_str) != Some("automotive") {
            // ptp4l's ports serve from the first Sync on. Here they say that they are uncertain, and tell no time meanwhile.
            run.insert("silent-until-locked".into(), "sync".into());
        }
        for key in OF_SERVING {
            if let Some(value) = serve.get(key) {
                run.insert(key.into(), value.clone());
            }
        }
        let masters = self.masters();
        let ports = self.ports.iter().zip(masters);
        let ports = ports.filter(|((name, _), master)| *master && !name.contains('='));
        let ports: Vec<_> =
            ports.map(|((name, _), _)| Toml::from(format!("{name}=transmitter"))).collect();
        if !ports.is_empty() {
            run.insert("port".into(), Toml::Array(ports));
        }
    }

    /// Of whichever role.
    pub(super) fn algorithm(&mut self, run: &mut Table) {
        for (option, key) in [
            ("syncReceiptTimeout", "sync-receipt-timeout"),
            ("maxStepsRemoved", "max-steps-removed"),
            ("clock_class_threshold", "max-clock-class"),
        ] {
            if let Some((_, value)) = self.integer(option) {
                run.insert(key.into(), value.into());
            }
        }
        if let Some((_, traced)) = self.integer("path_trace_enabled") {
            run.insert("path-trace".into(), (traced == 1).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Translation, translate};

    fn run(translation: &Translation, key: &str) -> Option<String> {
        let value = translation.table.get("run")?.get(key)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// linuxptp's gPTP.cfg by its values, and a port.
    const GPTP: &str = "[global]\ngmCapable 1\npriority1 248\npriority2 248\nlogAnnounceInterval 0\n\
        logSyncInterval -3\nsyncReceiptTimeout 3\nneighborPropDelayThresh 800\n\
        min_neighbor_prop_delay -20000000\nassume_two_step 1\npath_trace_enabled 1\nfollow_up_info 1\n\
        transportSpecific 0x1\nptp_dst_mac 01:80:C2:00:00:0E\nnetwork_transport L2\ndelay_mechanism P2P\n[eth0]\n";

    #[test]
    fn gptp_is_the_profile_and_only_what_hardware_alone_can_is_told() {
        let translation = translate(GPTP);
        assert_eq!(run(&translation, "profile").as_deref(), Some("gptp"));
        assert_eq!(run(&translation, "sync-receipt-timeout").as_deref(), Some("3"));
        let told: Vec<_> = translation.notes.iter().map(|note| note.option.as_str()).collect();
        assert_eq!(told, ["neighborPropDelayThresh", "ptp_dst_mac"]);
        let over_ip = GPTP.replace("L2", "UDPv4");
        assert_eq!(run(&translate(&over_ip), "profile"), None);
    }

    #[test]
    fn several_ports_are_a_boundary_clock_whose_master_only_ports_only_serve() {
        let text = "[global]\nfree_running 1\npriority1 120\n[eth0]\n[eth1]\nmasterOnly 1\n";
        let translation = translate(text);
        assert_eq!(translation.notes, []);
        for (key, value) in [
            ("role", "auto"),
            ("clock", "virtual"),
            ("priority1", "120"),
            ("silent-until-locked", "sync"),
            ("port", "[\"eth1=transmitter\"]"),
        ] {
            assert_eq!(run(&translation, key).as_deref(), Some(value), "{key}");
        }
        // Whoever is a client only stays one.
        let client = translate("[global]\nclientOnly 1\n[eth0]\n[eth1]\n");
        assert_eq!(run(&client, "role"), None);
        let transparent = translate("[global]\nclock_type E2E_TC\n[eth0]\n[eth1]\n");
        assert!(transparent.notes[0].text.contains("ptp-agent transparent"));
    }

    #[test]
    fn keys_and_marks_become_keys_and_a_file_that_no_port_uses_is_told() {
        let text = "[global]\nsa_file /etc/keys\nspp 1\nactive_key_id 4\ndscp_event 46\ndscp_general 34\nudp_ttl 4\n\
                    udp6_scope 5\nclockIdentity 001b19.fffe.000001\n[eth0]\n";
        let translation = translate(text);
        assert_eq!(translation.notes, []);
        let table = &translation.table;
        assert_eq!(table["security"].as_str(), Some("/etc/keys"));
        assert_eq!(table["security-require"].as_bool(), Some(true));
        assert_eq!(
            (table["security-key"].as_integer(), table["udp-ttl"].as_integer()),
            (Some(4), Some(4))
        );
        assert_eq!(table["clock-identity"].as_str(), Some("001b19.fffe.000001"));
        let lenient = translate(&text.replace("spp 1", "spp 1\nallow_unauth 1"));
        assert_eq!(lenient.table["security-require"].as_bool(), Some(false));
        let unused = translate(&text.replace("spp 1\n", ""));
        assert_eq!(unused.notes.len(), 1, "{:?}", unused.notes);
        let site = translate("[global]\nudp6_scope 1\n");
        assert_eq!(site.notes.len(), 1);
    }

    #[test]
    fn telecom_comparison_is_a_profile_where_the_rest_is_that_profile_s() {
        let text = "[global]\ndataset_comparison G.8275.x\nG.8275.defaultDS.localPriority 120\n\
                    G.8275.portDS.localPriority 120\ndomainNumber 24\nnetwork_transport L2\n[eth0]\n";
        let translation = translate(text);
        assert_eq!(translation.notes, []);
        assert_eq!(run(&translation, "profile").as_deref(), Some("g8275.1"));
        assert_eq!(run(&translation, "local-priority").as_deref(), Some("120"));
        let elsewhere = translate(&text.replace("24", "0"));
        assert_eq!(run(&elsewhere, "profile"), None);
        assert_eq!(elsewhere.notes.len(), 3, "{:?}", elsewhere.notes);
    }
}
