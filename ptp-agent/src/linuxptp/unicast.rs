//! Unicast of linuxptp: a table of servers becomes `unicast` of `[run]`, `unicast_listen` that of `[serve]`, and
//! `hybrid_e2e` is `hybrid` of `[run]`.

use toml::{Table, Value as Toml};

use super::{File, Problem, Section, Setting};
use crate::agent::partners::Partner;

/// As many servers may be named.
const MAX_SERVERS: usize = 16;

/// What the tables of a file say.
#[derive(Default)]
pub(super) struct Servers {
    names: Vec<Partner>,
    query: Option<i8>,
}

impl File {
    pub(super) fn unicast_table(&mut self, section: &Section<'_>) {
        for setting in &section.settings {
            let problem = match setting.option {
                "table_id" => None,
                "logQueryInterval" => match setting.value.parse() {
                    Ok(log @ -10..=10) => {
                        self.servers.query = Some(log);
                        None
                    }
                    _ => Some((Problem::BadValue, "a whole number from -10 to 10")),
                },
                "UDPv4" | "UDPv6" | "L2" => match setting.value.parse() {
                    Ok(Partner::Named(_)) | Err(_) => Some((Problem::BadValue, "no address")),
                    Ok(partner) if self.servers.names.contains(&partner) => None,
                    Ok(_) if self.servers.names.len() == MAX_SERVERS => {
                        Some((Problem::NoCounterpart, "at most 16 servers are asked"))
                    }
                    Ok(partner) => {
                        self.servers.names.push(partner);
                        None
                    }
                },
                "peer_address" => Some((
                    Problem::NoCounterpart,
                    "the delay of a link is not asked for by unicast",
                )),
                _ => Some((Problem::Unknown, "no option of a unicast table")),
            };
            if let Some((problem, text)) = problem {
                self.note(problem, section.name, setting, text.to_owned());
            }
        }
    }

    /// Both sections, from what the tables and the options say.
    pub(super) fn unicast(&mut self, run: &mut Table, serve: &mut Table) {
        let is_on = |said: Option<(usize, i64)>| said.is_some_and(|(_, value)| value == 1);
        let inhibited = self.integer("inhibit_multicast_service");
        let (is_only, listens) = (is_on(inhibited), is_on(self.integer("unicast_listen")));
        let is_hybrid = is_on(self.integer("hybrid_e2e"));
        let duration = self.integer("unicast_req_duration");
        if listens {
            serve.insert("unicast".into(), if is_only { "only" } else { "also" }.into());
        }
        if self.servers.names.is_empty() {
            if is_hybrid {
                run.insert("hybrid".into(), true.into());
            }
            if let (true, false, Some((line, value))) = (is_only, listens, inhibited) {
                let why = "without servers to ask, a time receiver follows multicast";
                self.without(line, "inhibit_multicast_service", value, why);
            }
            return;
        }
        let names = self.servers.names.iter().map(|name| Toml::from(name.to_string()));
        run.insert("unicast".into(), Toml::Array(names.collect()));
        if let Some(log) = self.servers.query {
            run.insert("unicast-query-interval".into(), i64::from(log).into());
        }
        match duration {
            Some((_, seconds @ 1..=65_535)) => {
                run.insert("unicast-duration".into(), seconds.into());
            }
            Some((line, seconds)) => {
                self.without(line, "unicast_req_duration", seconds, "at most 65535 seconds");
            }
            None => {}
        }
    }
}

/// Of the section's head, for what is said of a section as a whole.
pub(super) const fn whole<'a>(section: &Section<'a>) -> Setting<'a> {
    Setting { line: section.line, option: section.name, value: "" }
}

#[cfg(test)]
mod tests {
    use super::super::translate;

    #[test]
    fn table_of_servers_becomes_the_servers_that_are_asked() {
        let text = "[global]\nunicast_req_duration 60\ninhibit_multicast_service 1\n\
                    [unicast_master_table]\ntable_id 1\nlogQueryInterval 2\nUDPv4 192.0.2.1\n\
                    UDPv4 192.0.2.2\n[eth0]\nunicast_master_table 1\n";
        let translation = translate(text);
        assert!(translation.notes.is_empty(), "{:?}", translation.notes);
        let run = translation.table["run"].as_table().unwrap();
        assert_eq!(run["unicast"].as_array().unwrap().len(), 2);
        assert_eq!(run["unicast-duration"].as_integer(), Some(60));
        assert_eq!(run["unicast-query-interval"].as_integer(), Some(2));
    }

    #[test]
    fn listening_and_hybrid_become_keys_and_nonsense_is_told() {
        let translation = translate("[global]\nunicast_listen 1\nhybrid_e2e 1\n");
        assert_eq!(translation.table["serve"]["unicast"].as_str(), Some("also"));
        assert_eq!(translation.table["run"]["hybrid"].as_bool(), Some(true));
        let translation = translate(
            "[unicast_master_table]\nUDPv4 nowhere\nlogQueryInterval 99\npeer_address 192.0.2.1\nx 1\n",
        );
        assert_eq!(translation.notes.len(), 4, "{:?}", translation.notes);
    }
}
