//! Unicast of a port as lines of text.

use std::{borrow::Cow, collections::BTreeMap};

use super::text::span;
use crate::publish::snapshot::unicast::{Grant, Unicast};

/// As many clients are shown.
const SHOWN: usize = 8;

fn grants(of: &BTreeMap<Cow<'static, str>, Grant>) -> String {
    let shown = of.iter().map(|(kind, grant)| {
        format!("{kind} 2^{} s for {}", grant.log_interval, span(grant.remaining_s))
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { "nothing granted".to_owned() } else { shown.join(", ") }
}

/// Name and value of each line.
pub(super) fn lines(unicast: &Unicast) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for server in &unicast.servers {
        let address = server.address.as_deref().filter(|address| *address != server.name);
        let address = address.map_or_else(String::new, |address| format!(" ({address})"));
        lines.push((
            "  server",
            format!("{}{address}: {}, {}", server.name, server.state, grants(&server.grants)),
        ));
    }
    if let Some(to) = &unicast.delay_req {
        lines.push(("  Delay_Req", to.to_string()));
    }
    if let Some(service) = &unicast.service {
        let by_type = service.grants.iter().map(|(kind, count)| format!("{count} {kind}"));
        let by_type: Vec<String> = by_type.collect();
        lines.push((
            "  unicast",
            format!(
                "{} clients; granted {}; {} sent, {} of them late, {} skipped",
                service.clients,
                by_type.join(", "),
                service.sent,
                service.late,
                service.skipped
            ),
        ));
        for client in service.of.iter().take(SHOWN) {
            lines.push(("  client", format!("{}: {}", client.address, grants(&client.grants))));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::snapshot::unicast::{Server, Service};

    #[test]
    fn servers_and_clients_are_a_line_each() {
        let grant = Grant { log_interval: -3, remaining_s: 250.0 };
        let server = Server {
            name: "time".into(),
            address: Some("192.0.2.1".into()),
            state: "followed".into(),
            grants: [("sync".into(), grant)].into(),
            ..Server::default()
        };
        let service =
            Service { clients: 2, grants: [("sync".into(), 2)].into(), ..Service::default() };
        let unicast = Unicast {
            delay_req: Some("unicast".into()),
            servers: vec![server],
            service: Some(service),
        };
        let lines: Vec<String> = lines(&unicast).into_iter().map(|(_, line)| line).collect();
        assert_eq!(
            lines,
            [
                "time (192.0.2.1): followed, sync 2^-3 s for 4 min",
                "unicast",
                "2 clients; granted 2 sync; 0 sent, 0 of them late, 0 skipped"
            ]
        );
    }
}
