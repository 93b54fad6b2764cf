//! How links are measured, what is asked of neighbours, and what a relay passes on: the keys in `[run]`, and which of them
//! contradict the profile or each other.

use super::{config::RunSection, merge::UsageError, profile::Profile};
use crate::{
    agent::run::{LinkSettings, PortSettings},
    engine::{
        DelayMechanism,
        config::{LinkDelayService, LockedIntervals},
        limits::is_asked_interval,
        receiver::PortPart,
    },
};

/// A port as the command line and the file have it.
pub(super) type NamedPort<'a> = (&'a str, PortSettings);

/// The keys of `section`, on `ports`, whose delay mechanism is `delay` where they have none.
pub(super) fn settings(
    section: &RunSection,
    profile: &Profile,
    is_auto: bool,
    delay: DelayMechanism,
    ports: &[NamedPort<'_>],
) -> Result<LinkSettings, UsageError> {
    let against = |what: &str| Err(UsageError::AgainstProfile(profile.name, what.to_owned()));
    let service = match (&section.link_delay_server, section.link_delay) {
        (Some(_), None | Some(LinkDelayService::Told)) => LinkDelayService::Told,
        (Some(_), Some(_)) => return Err(UsageError::LinksMeasuredTwice),
        (None, Some(LinkDelayService::Told)) => return Err(UsageError::LinksToldByNobody),
        (None, said) => said.unwrap_or_default(),
    };
    for (name, port) in ports {
        let is_service = port.link_delay.unwrap_or(service) != LinkDelayService::Instance;
        if is_service && port.delay_mechanism.unwrap_or(delay) != DelayMechanism::P2p {
            return Err(UsageError::CommonServiceEndToEnd((*name).to_owned()));
        }
    }
    let asks =
        section.oper_log_sync_interval.is_some() || section.oper_log_pdelay_req_interval.is_some();
    if asks && !profile.rules.are_gptp() {
        return against("neighbours are asked for intervals with gptp and automotive alone");
    }
    if section.relay.is_some() && !(profile.rules.are_gptp() && is_auto && ports.len() > 1) {
        return against(
            "relay is for gptp and automotive, with --role auto and several interfaces",
        );
    }
    let is_fixed = profile.rules.are_static();
    if is_fixed && section.neighbor_prop_delay_threshold.is_some() {
        return against("a link is asCapable there whatever its delay: leave the threshold out");
    }
    if is_fixed && !section.witness_domains.as_deref().unwrap_or_default().is_empty() {
        return against("nobody announces himself there, in a witness domain either");
    }
    let follows = |port: &&NamedPort<'_>| port.1.part != PortPart::Transmitter;
    if is_fixed && is_auto && ports.iter().filter(follows).count() > usize::from(ports.len() > 1) {
        return against(
            "roles are fixed there: name the ports that transmit, as in --port eth1=transmitter, all but one at the most",
        );
    }
    let usual = is_fixed.then_some(0);
    let when_locked = [section.oper_log_sync_interval, section.oper_log_pdelay_req_interval];
    let asked = |n: usize, initial: i8| when_locked[n].or(usual).or(asks.then_some(initial));
    let log_min_pdelay_req_interval = section.log_min_pdelay_req_interval.unwrap_or(0);
    let [_, log_sync, _] = profile.log_intervals;
    let when_locked = asked(0, log_sync).zip(asked(1, log_min_pdelay_req_interval));
    for (key, log) in [
        ("log-min-pdelay-req-interval", Some(log_min_pdelay_req_interval)),
        ("oper-log-sync-interval", when_locked.map(|(log, _)| log)),
        ("oper-log-pdelay-req-interval", when_locked.map(|(_, log)| log)),
    ] {
        if let Some(log) = log.filter(|log| !is_asked_interval(*log)) {
            return Err(UsageError::OutOfRange(key, format!("{log}, from -7 to 4")));
        }
    }
    Ok(LinkSettings {
        service,
        server: section.link_delay_server.clone(),
        when_locked: when_locked.map(|(log_sync_interval, log_pdelay_req_interval)| {
            LockedIntervals { log_sync_interval, log_pdelay_req_interval }
        }),
        log_min_pdelay_req_interval,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::profile::ProfileName, *};
    use crate::{agent::link_server::LinkServer, engine::contention::RelayTime};

    fn refusal(
        section: &RunSection,
        profile: ProfileName,
        is_auto: bool,
        ports: &[NamedPort<'_>],
    ) -> String {
        let profile = profile.profile();
        let delay = profile.delay_mechanism;
        settings(section, &profile, is_auto, delay, ports).unwrap_err().to_string()
    }

    #[test]
    fn what_contradicts_is_refused_with_the_reason() {
        let plain = ("eth0", PortSettings::default());
        let common =
            RunSection { link_delay: Some(LinkDelayService::Common), ..RunSection::default() };
        let told = refusal(&common, ProfileName::Default, false, &[plain]);
        assert!(told.contains("eth0") && told.contains("p2p"), "{told}");
        let server: LinkServer = "/run/cmlds".parse().unwrap();
        let asked = RunSection { link_delay_server: Some(server), ..RunSection::default() };
        let told = refusal(&asked, ProfileName::Default, false, &[plain]);
        assert!(told.contains("eth0") && told.contains("p2p"), "{told}");
        let twice = RunSection { link_delay: Some(LinkDelayService::Common), ..asked };
        let told = refusal(&twice, ProfileName::Gptp, false, &[plain]);
        assert!(told.contains("link-delay-server"), "{told}");
        let nobody =
            RunSection { link_delay: Some(LinkDelayService::Told), ..RunSection::default() };
        let told = refusal(&nobody, ProfileName::Gptp, false, &[plain]);
        assert!(told.contains("link-delay-server"), "{told}");
        let relay = RunSection { relay: Some(RelayTime::Residence), ..RunSection::default() };
        let told = refusal(&relay, ProfileName::Gptp, true, &[plain]);
        assert!(told.contains("several interfaces"), "{told}");
        let asks = RunSection { oper_log_sync_interval: Some(0), ..RunSection::default() };
        let told = refusal(&asks, ProfileName::Default, false, &[plain]);
        assert!(told.contains("gptp"), "{told}");
        let far = RunSection { oper_log_sync_interval: Some(60), ..RunSection::default() };
        let told = refusal(&far, ProfileName::Gptp, false, &[plain]);
        assert!(told.contains("oper-log-sync-interval"), "{told}");
        let section = RunSection::default();
        for ports in [&[plain][..], &[plain, ("eth1", PortSettings::default())]] {
            let told = refusal(&section, ProfileName::Automotive, true, ports);
            assert!(told.contains("roles are fixed"), "{told}");
        }
        let strict =
            RunSection { neighbor_prop_delay_threshold: Some(800), ..RunSection::default() };
        let told = refusal(&strict, ProfileName::Automotive, false, &[plain]);
        assert!(told.contains("threshold"), "{told}");
        let domains = RunSection { witness_domains: Some(vec![1]), ..RunSection::default() };
        let told = refusal(&domains, ProfileName::Automotive, false, &[plain]);
        assert!(told.contains("witness"), "{told}");
    }

    #[test]
    fn a_locked_clock_asks_for_what_is_said_and_in_vehicles_for_one_sync_a_second() {
        let plain = [("eth0", PortSettings::default())];
        let settings = |section: RunSection, name: ProfileName| {
            let profile = name.profile();
            settings(&section, &profile, false, profile.delay_mechanism, &plain)
                .unwrap()
                .when_locked
        };
        assert_eq!(settings(RunSection::default(), ProfileName::Gptp), None);
        let asked = settings(RunSection::default(), ProfileName::Automotive).unwrap();
        assert_eq!((asked.log_sync_interval, asked.log_pdelay_req_interval), (0, 0));
        let section = RunSection { oper_log_pdelay_req_interval: Some(2), ..RunSection::default() };
        let asked = settings(section, ProfileName::Gptp).unwrap();
        assert_eq!((asked.log_sync_interval, asked.log_pdelay_req_interval), (-3, 2));
    }
}
