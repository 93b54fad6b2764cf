//! What linuxptp says of links and of fixed roles: CMLDS, intervals, and the options of its automotive files.

use toml::{Table, Value as Toml};

use super::File;

/// Intervals of Pdelay_Req that there are here, log2 s.
const INTERVALS: std::ops::RangeInclusive<i64> = -7..=4;

impl File {
    /// Whether roles are fixed and nobody announces himself, as in automotive-master.cfg and automotive-slave.cfg.
    pub(super) fn is_automotive(&mut self) -> bool {
        let is_on = |said: Option<(usize, i64)>| said.is_some_and(|(_, value)| value == 1);
        is_on(self.integer("inhibit_announce")) && is_on(self.integer("transportSpecific"))
    }

    /// How links are measured; `is_p2p` where they are.
    pub(super) fn links(&mut self, run: &mut Table, is_p2p: bool) {
        if let Some((line, log)) = self.integer("logMinPdelayReqInterval").filter(|_| is_p2p) {
            if INTERVALS.contains(&log) {
                run.insert("log-min-pdelay-req-interval".into(), log.into());
            } else {
                let why =
                    "a Pdelay_Req is sent 128 times a second at the most, and every 16 s at least";
                self.without(line, "logMinPdelayReqInterval", log, why);
            }
        }
        let profile = run.get("profile").and_then(Toml::as_str).unwrap_or("default").to_owned();
        let is_fixed = profile == "automotive";
        for (option, usual, why) in [
            (
                "inhibit_announce",
                "0",
                "roles are fixed with transportSpecific 1, L2 and P2P: the automotive profile",
            ),
            (
                "BMCA",
                "ptp",
                "`run` (receiver) and `serve` are static roles; so are all with the automotive profile",
            ),
            ("asCapable", "auto", "with profile gptp it is measured, with automotive it is true"),
        ] {
            let said = match option {
                "inhibit_announce" => self.integer(option).map(|(line, it)| (line, it.to_string())),
                _ => self.text(option),
            };
            if let Some((line, value)) = said.filter(|(_, value)| value != usual && !is_fixed) {
                self.without(line, option, value, why);
            }
        }
    }

    /// Who measures links of `COMMON_P2P`: whoever is named, else this host's own service.
    pub(super) fn link_server(&mut self, run: &mut Table) {
        let number = self.integer("cmlds.port").map_or(0, |(_, number)| number);
        match self.text("cmlds.server_address") {
            Some((_, path)) if number > 0 => {
                run.insert("link-delay-server".into(), format!("{path}#{number}").into());
            }
            Some((_, path)) => drop(run.insert("link-delay-server".into(), path.into())),
            None => drop(run.insert("link-delay".into(), "common".into())),
        }
        for (option, usual) in [("cmlds.domainNumber", 0), ("cmlds.majorSdoId", 2)] {
            if let Some((line, value)) = self.integer(option).filter(|(_, it)| *it != usual) {
                let why = "a service is asked in domain 0 and with majorSdoId 2 (16.6.3.2)";
                self.without(line, option, value, why);
            }
        }
    }

    /// What is asked for while the clock is locked.
    pub(super) fn when_locked(&mut self, run: &mut Table) {
        let asks = self.integer("msg_interval_request").is_some_and(|(_, value)| value == 1);
        for (option, key) in [
            ("operLogSyncInterval", "oper-log-sync-interval"),
            ("operLogPdelayReqInterval", "oper-log-pdelay-req-interval"),
        ] {
            match self.integer(option) {
                Some((_, log)) if asks && INTERVALS.contains(&log) => {
                    run.insert(key.into(), log.into());
                }
                Some((line, log)) => {
                    let why = "it is asked for with msg_interval_request 1, from -7 to 4";
                    self.without(line, option, log, why);
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Role, Translation, translate};

    /// What automotive-master.cfg and automotive-slave.cfg have in common.
    const AUTOMOTIVE: &str = "[global]\ngmCapable 1\npriority1 248\npriority2 248\nlogSyncInterval -3\n\
        syncReceiptTimeout 3\nneighborPropDelayThresh 800\nmin_neighbor_prop_delay -20000000\nassume_two_step 1\n\
        path_trace_enabled 1\nfollow_up_info 1\ntransportSpecific 0x1\nptp_dst_mac 01:80:C2:00:00:0E\n\
        network_transport L2\ndelay_mechanism P2P\nBMCA noop\ninhibit_announce 1\nasCapable true\n";

    fn run(translation: &Translation, key: &str) -> Option<String> {
        Some(translation.table.get("run")?.get(key)?.to_string())
    }

    fn told(translation: &Translation) -> Vec<&str> {
        translation.notes.iter().map(|note| note.option.as_str()).collect()
    }

    #[test]
    fn linuxptps_automotive_files_are_the_profile_and_its_fixed_roles() {
        let slave = format!(
            "{AUTOMOTIVE}clientOnly 1\nignore_source_id 1\noperLogSyncInterval 0\noperLogPdelayReqInterval 2\n\
             msg_interval_request 1\nservo_offset_threshold 30\nservo_num_offset_values 10\n[eth0]\n"
        );
        let slave = translate(&slave);
        assert_eq!(run(&slave, "profile").as_deref(), Some("\"automotive\""));
        assert_eq!(run(&slave, "oper-log-pdelay-req-interval").as_deref(), Some("2"));
        assert_eq!((slave.role, run(&slave, "role")), (Role::Run, None));
        assert_eq!(told(&slave), ["ptp_dst_mac", "servo_offset_threshold"]);
        let master = translate(&format!("{AUTOMOTIVE}serverOnly 1\ninhibit_delay_req 1\n[eth0]\n"));
        assert_eq!(run(&master, "port").as_deref(), Some("[\"eth0=transmitter\"]"));
        assert_eq!(run(&master, "role").as_deref(), Some("\"auto\""));
        // Fixed roles over IP are none of the profile.
        let elsewhere = AUTOMOTIVE.replace("0x1", "0");
        let elsewhere = translate(&format!("{elsewhere}[eth0]\n"));
        assert_eq!(run(&elsewhere, "profile"), None);
        for option in ["inhibit_announce", "BMCA", "asCapable"] {
            assert!(told(&elsewhere).contains(&option), "{option}");
        }
    }

    #[test]
    fn a_link_of_the_common_service_is_one_here_too() {
        let text = "[global]\ndelay_mechanism COMMON_P2P\nnetwork_transport L2\nlogMinPdelayReqInterval -2\n[eth0]\n";
        let translation = translate(text);
        assert_eq!(translation.notes, []);
        for (key, value) in [
            ("delay", "\"p2p\""),
            ("link-delay", "\"common\""),
            ("log-min-pdelay-req-interval", "-2"),
        ] {
            assert_eq!(run(&translation, key).as_deref(), Some(value), "{key}");
        }
        let said = "cmlds.server_address /run/cmlds\n";
        for (more, server) in [("", "\"/run/cmlds\""), ("cmlds.port 3\n", "\"/run/cmlds#3\"")] {
            let asked = translate(&text.replace("[eth0]", &format!("{said}{more}[eth0]")));
            assert_eq!(asked.notes, []);
            assert_eq!(run(&asked, "link-delay-server").as_deref(), Some(server));
            assert_eq!(run(&asked, "link-delay"), None);
        }
        let other = translate(&text.replace("[eth0]", "cmlds.majorSdoId 1\n[eth0]"));
        assert_eq!(told(&other), ["cmlds.majorSdoId"]);
        let fast = translate(&text.replace("-2", "-9"));
        assert_eq!(told(&fast), ["logMinPdelayReqInterval"]);
    }
}
