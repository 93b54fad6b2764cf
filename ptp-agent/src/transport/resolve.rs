//! Names of servers, resolved again and again by a thread of its own: where a server has moved to another address the
//! name says so, and to wait for an answer must keep nobody from keeping time.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use ptp_common::{
    classify::PORT_EVENT,
    time::{Duration, Mono, Time},
};

use super::{TransportKind, interface_addresses};

/// Between two questions for a name whose address is in use,
const AGAIN: Duration = Duration::from_secs(60);
/// and for one that has none, or whose server is silent.
const SOON: Duration = Duration::from_secs(5);

/// What a name has.
type Found = (usize, Result<Vec<SocketAddr>, String>);

#[derive(Debug)]
struct Name {
    text: String,
    /// The one in use.
    address: Option<SocketAddr>,
    /// An address, which needs no asking.
    is_fixed: bool,
    is_asked: bool,
    ask_at: Time<Mono>,
    problem: Option<String>,
}

/// See the module's paragraph.
#[derive(Debug)]
pub struct Resolver {
    is_v6: bool,
    names: Vec<Name>,
    questions: Option<Sender<(usize, String)>>,
    answers: Receiver<Found>,
}

impl Resolver {
    /// For names of servers that are reached over `transport`. What is an address is known at once. Without a
    /// thread no name is ever resolved, which [`Resolver::problem`] says.
    pub fn start(transport: TransportKind, names: impl IntoIterator<Item = String>) -> Self {
        let is_v6 = transport == TransportKind::Udp6;
        let names: Vec<Name> = names
            .into_iter()
            .map(|text| {
                let address = literal(&text).filter(|address| address.is_ipv6() == is_v6);
                let is_fixed = literal(&text).is_some();
                let problem = (is_fixed && address.is_none())
                    .then(|| format!("{text} is no address of {transport}"));
                let (is_asked, ask_at) = (false, Time::ZERO);
                Name { text, address, is_fixed, is_asked, ask_at, problem }
            })
            .collect();
        let (questions, asked) = channel::<(usize, String)>();
        let (found, answers) = channel();
        let is_needed = names.iter().any(|name| !name.is_fixed);
        let started = is_needed.then(|| {
            thread::Builder::new().name("resolver".to_owned()).spawn(move || {
                for (n, text) in asked {
                    let resolved = (text.as_str(), PORT_EVENT).to_socket_addrs();
                    let resolved = resolved.map(Iterator::collect).map_err(|it| it.to_string());
                    if found.send((n, resolved)).is_err() {
                        return;
                    }
                }
            })
        });
        let questions = matches!(started, Some(Ok(_))).then_some(questions);
        Self { is_v6, names, questions, answers }
    }

    /// The addresses that are known.
    pub fn addresses(&self) -> impl Iterator<Item = Option<SocketAddr>> + '_ {
        self.names.iter().map(|name| name.address)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| name.text.as_str())
    }

    /// Why a name has no address.
    pub fn problem(&self, n: usize) -> Option<&str> {
        self.names.get(n)?.problem.as_deref()
    }

    /// Asks what is due and takes what has come: whose address is another one now. `is_silent` says of a server
    /// whether it does not answer where it is.
    pub fn look(
        &mut self,
        now: Time<Mono>,
        is_silent: impl Fn(usize) -> bool,
    ) -> Vec<(usize, SocketAddr)> {
        let mut moved = Vec::new();
        while let Ok((n, found)) = self.answers.try_recv() {
            let is_v6 = self.is_v6;
            let Some(name) = self.names.get_mut(n) else { continue };
            (name.is_asked, name.ask_at) = (false, now + SOON);
            match found {
                Ok(all) => {
                    let all: Vec<SocketAddr> =
                        all.into_iter().filter(|each| each.is_ipv6() == is_v6).collect();
                    name.take(now, &all, is_silent(n));
                    if let Some(new) = name.address.filter(|_| name.problem.is_none()) {
                        moved.push((n, new));
                    }
                }
                Err(problem) => name.tell(Some(problem)),
            }
        }
        for (n, name) in self.names.iter_mut().enumerate() {
            if name.is_fixed || name.is_asked {
                continue;
            }
            if is_silent(n) {
                name.ask_at = name.ask_at.min(now + SOON);
            }
            if now < name.ask_at {
                continue;
            }
            let asked = self.questions.as_ref().map(|to| to.send((n, name.text.clone())));
            match asked {
                Some(Ok(())) => name.is_asked = true,
                _ => name.tell(Some("names cannot be resolved".to_owned())),
            }
            name.ask_at = now + AGAIN;
        }
        moved
    }
}

impl Name {
    /// Why it has no address is told once.
    fn tell(&mut self, problem: Option<String>) {
        if problem == self.problem {
            return;
        }
        match &problem {
            Some(problem) => tracing::warn!(server = self.text, problem, "no address"),
            None => tracing::info!(server = self.text, "has an address again"),
        }
        self.problem = problem;
    }

    /// The one in use stays, as long as the name has it and somebody answers there.
    fn take(&mut self, now: Time<Mono>, all: &[SocketAddr], is_silent: bool) {
        let Some(first) = all.first() else {
            return self.tell(Some("it has no address of this kind".to_owned()));
        };
        self.tell(None);
        let was = self.address;
        let at = self.address.and_then(|used| all.iter().position(|each| *each == used));
        self.address = Some(match at {
            Some(at) if is_silent => all[(at + 1) % all.len()],
            Some(at) => all[at],
            None => *first,
        });
        if self.address != was {
            tracing::info!(server = self.text, address = ?self.address, ?was, "address");
        }
        if !is_silent {
            self.ask_at = now + AGAIN;
        }
    }
}

/// An address, with the scope of a link where that is needed.
fn literal(text: &str) -> Option<SocketAddr> {
    let text = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, PORT_EVENT));
    }
    // `fe80::1%eth0` is resolved without asking anybody.
    text.contains('%').then(|| (text, PORT_EVENT).to_socket_addrs().ok()?.next()).flatten()
}

/// The place among `interfaces` of the one by which an address is reached; the first where the host knows no way.
pub fn way_to(address: SocketAddr, interfaces: &[String]) -> usize {
    if interfaces.len() < 2 {
        return 0;
    }
    let any: SocketAddr = if address.is_ipv6() {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    };
    // Nothing is sent by this.
    let own = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    let Ok(own) = own.map(|own| own.ip()) else { return 0 };
    let has_it = |name: &String| {
        let (v4, v6) = interface_addresses(name);
        v4.map(IpAddr::V4) == Some(own) || v6.map(IpAddr::V6) == Some(own)
    };
    interfaces.iter().position(has_it).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time<Mono> {
        Time::ZERO + Duration::from_secs(second)
    }

    #[test]
    fn addresses_are_known_at_once_and_those_of_another_kind_are_told() {
        let names = ["192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let resolver = Resolver::start(TransportKind::Udp4, names.clone());
        let known: Vec<_> = resolver.addresses().collect();
        assert_eq!(known, [Some("192.0.2.1:319".parse().unwrap()), None]);
        assert!(resolver.problem(1).is_some_and(|problem| problem.contains("udp4")));
        let resolver = Resolver::start(TransportKind::Udp6, names);
        let known: Vec<_> = resolver.addresses().collect();
        assert_eq!(known, [None, Some("[2001:db8::1]:319".parse().unwrap())]);
    }

    #[test]
    fn an_address_stays_while_the_name_has_it_and_somebody_answers() {
        let of = |last: u8| SocketAddr::from(([192, 0, 2, last], 319));
        let mut name = Name {
            text: "server".to_owned(),
            address: None,
            is_fixed: false,
            is_asked: false,
            ask_at: at(0),
            problem: None,
        };
        name.take(at(0), &[of(1), of(2)], false);
        assert_eq!(name.address, Some(of(1)));
        name.take(at(60), &[of(2), of(1)], false);
        assert_eq!(name.address, Some(of(1)), "the order of a round robin means nothing");
        name.take(at(65), &[of(2), of(1)], true);
        assert_eq!(name.address, Some(of(2)), "silent where it was");
        name.take(at(70), &[of(3)], false);
        assert_eq!(name.address, Some(of(3)), "moved");
        name.take(at(75), &[], false);
        assert!(name.problem.is_some());
        assert_eq!(name.address, Some(of(3)), "nothing better is known");
    }

    #[test]
    fn addresses_of_another_kind_are_passed_over_and_a_failure_keeps_the_address() {
        let (found, answers) = channel();
        let (questions, asked) = channel();
        let name = Name {
            text: "time".to_owned(),
            address: None,
            is_fixed: false,
            is_asked: false,
            ask_at: at(0),
            problem: None,
        };
        let mut resolver =
            Resolver { is_v6: false, names: vec![name], questions: Some(questions), answers };
        let of = |ip: &str| SocketAddr::new(ip.parse().unwrap(), PORT_EVENT);
        let both = || Ok(["2001:db8::1", "192.0.2.1", "192.0.2.2"].map(of).to_vec());
        let mut look = |in_use: Option<&str>, answer: Result<Vec<SocketAddr>, String>| {
            resolver.names[0].address = in_use.map(of);
            found.send((0, answer)).unwrap();
            let moved = resolver.look(at(1), |_| false);
            assert_eq!(resolver.names[0].problem.is_some(), moved.is_empty());
            (moved, resolver.names[0].address)
        };
        let told = |ip: &str| (vec![(0, of(ip))], Some(of(ip)));
        assert_eq!(look(None, both()), told("192.0.2.1"));
        assert_eq!(look(Some("192.0.2.2"), both()), told("192.0.2.2"));
        assert_eq!(look(Some("192.0.2.9"), both()), told("192.0.2.1"));
        let nobody = look(Some("192.0.2.9"), Err("no such name".to_owned()));
        assert_eq!(nobody, (Vec::new(), Some(of("192.0.2.9"))));
        drop(asked);
    }

    #[test]
    fn a_name_is_resolved_without_anybody_waiting_for_it() {
        let mut resolver = Resolver::start(TransportKind::Udp4, ["localhost".to_owned()]);
        assert_eq!(resolver.addresses().next(), Some(None));
        assert_eq!(resolver.look(at(0), |_| true), []);
        let begin = std::time::Instant::now();
        loop {
            if let [(0, address)] = resolver.look(at(1), |_| true)[..] {
                assert!(address.ip().is_loopback());
                break;
            }
            assert!(begin.elapsed().as_secs() < 20, "{:?}", resolver.problem(0));
            std::thread::yield_now();
        }
    }
}
