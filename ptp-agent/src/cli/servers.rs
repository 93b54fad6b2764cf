//! Servers that are asked by CSPTP and SPTP: the options, and what the file says in `[run]`.

use clap::Args;

use super::{config::RunSection, merge::UsageError};
use crate::{
    agent::run::NamedServer,
    engine::csptp::{MAX_SERVERS, Protocol},
    transport::TransportKind,
};

/// The options. Their places in the configuration are in `[run]`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ServerArgs {
    /// Ask these servers by CSPTP (IEEE 1588.1), and follow the best that answers: names or addresses. No
    /// multicast is needed, and nobody else is followed.
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    pub(super) csptp: Vec<String>,
    /// Ask these servers by SPTP, as ptp4u serves it; also beside --csptp.
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    pub(super) sptp: Vec<String>,
    /// With --csptp and --sptp: the interval between requests to a server, log2 s (default 0).
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = request_interval)]
    pub(super) log_request_interval: Option<i8>,
}

/// From 128 requests a second to one in a minute.
fn request_interval(text: &str) -> Result<i8, String> {
    match text.parse() {
        Ok(log @ -7..=6) => Ok(log),
        _ => Err("expected a whole number from -7 to 6".to_owned()),
    }
}

impl ServerArgs {
    /// These, or else those of the configuration, and the interval.
    pub(super) fn or(
        &self,
        section: &RunSection,
        transport: TransportKind,
        may_serve: bool,
    ) -> Result<(Vec<NamedServer>, i8), UsageError> {
        let is_given = !self.csptp.is_empty() || !self.sptp.is_empty();
        let given = |of: &[String], else_of: &Option<Vec<String>>| match is_given {
            true => of.to_vec(),
            false => else_of.clone().unwrap_or_default(),
        };
        let named = |protocol, names: Vec<String>| {
            names.into_iter().map(move |name| NamedServer { protocol, name })
        };
        let servers: Vec<NamedServer> = named(Protocol::Csptp, given(&self.csptp, &section.csptp))
            .chain(named(Protocol::Sptp, given(&self.sptp, &section.sptp)))
            .collect();
        let log_interval = self.log_request_interval.or(section.log_request_interval).unwrap_or(0);
        if servers.is_empty() {
            return Ok((servers, log_interval));
        }
        if servers.len() > MAX_SERVERS {
            let too_many = format!("{}, at most {MAX_SERVERS}", servers.len());
            return Err(UsageError::OutOfRange("--csptp and --sptp together", too_many));
        }
        if let Some(empty) = servers.iter().find(|server| server.name.trim().is_empty()) {
            let option = if empty.protocol == Protocol::Csptp { "--csptp" } else { "--sptp" };
            return Err(UsageError::OutOfRange(option, "a server without a name".to_owned()));
        }
        if transport == TransportKind::L2 {
            return Err(UsageError::NoAddresses);
        }
        if may_serve {
            return Err(UsageError::AsksOrServes);
        }
        Ok((servers, log_interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(csptp: &[&str]) -> ServerArgs {
        let csptp = csptp.iter().map(|name| (*name).to_owned()).collect();
        ServerArgs { csptp, ..ServerArgs::default() }
    }

    #[test]
    fn servers_of_the_command_line_win_as_a_whole() {
        let section = RunSection {
            sptp: Some(vec!["192.0.2.9".to_owned()]),
            log_request_interval: Some(-4),
            ..RunSection::default()
        };
        let of = |args: &ServerArgs| args.or(&section, TransportKind::Udp4, false).unwrap();
        let (servers, log_interval) = of(&args(&["a", "b"]));
        assert_eq!((servers.len(), log_interval), (2, -4));
        assert!(servers.iter().all(|server| server.protocol == Protocol::Csptp));
        let (servers, _) = of(&ServerArgs::default());
        assert_eq!(servers[0].protocol, Protocol::Sptp);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let section = RunSection::default();
        let refused = |args: &ServerArgs, transport, may_serve| {
            args.or(&section, transport, may_serve).unwrap_err().to_string()
        };
        assert!(refused(&args(&["a"]), TransportKind::L2, false).contains("udp4"));
        assert!(refused(&args(&["a"]), TransportKind::Udp6, true).contains("--role"));
        assert!(refused(&args(&[" "]), TransportKind::Udp4, false).contains("without a name"));
        let many = args(&["a"; MAX_SERVERS + 1]);
        assert!(refused(&many, TransportKind::Udp4, false).contains("at most"));
        assert!(request_interval("7").is_err() && request_interval("-8").is_err());
    }
}
