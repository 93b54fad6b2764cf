//! Links whose delay another program of this host measures, as the instances of linuxptp's `COMMON_P2P` have it: a Common
//! Mean Link Delay Service (IEEE 1588-2019 16.6) is asked over its local socket what it knows of each link
//! (CMLDS_INFO_NP), once a second.

use std::{
    convert::Infallible,
    io,
    os::{linux::net::SocketAddrExt, unix::net},
    path::PathBuf,
    process,
    str::FromStr,
};

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{
        Body, Header, Management, Message, PortIdentity, Tlvs,
        management::{Action, ManagementData, ManagementId, ManagementTlv},
    },
};
use serde::{Deserialize, Deserializer};

use crate::engine::{PortIndex, config::LinkDelayService, node::PortCommand, outcome::LinkTold};

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Questions in a row that may stay unanswered (`allowedLostResponses`).
const UNANSWERED: u32 = 3;
/// A message with CMLDS_INFO_NP is shorter.
const MAX_MESSAGE: usize = 512;

/// Who is asked: `PATH`, or `PATH#N` where a link is the service's port N.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkServer {
    /// Its socket.
    pub path: PathBuf,
    /// The number that the link of the first port has there, and the next one's is one more; that of the own port where
    /// none is said.
    pub first_port: Option<u16>,
}

impl LinkServer {
    /// The number that the link of a port has there.
    pub fn number(&self, port: PortIndex) -> u16 {
        self.first_port.map_or(port.number(), |first| first.saturating_add(port.0))
    }
}

impl FromStr for LinkServer {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let numbered = text.rsplit_once('#').and_then(|(path, number)| {
            number.parse().ok().filter(|number| *number > 0).map(|number| (path, number))
        });
        let (path, first_port) = numbered.map_or((text, None), |(path, it)| (path, Some(it)));
        Ok(Self { path: path.into(), first_port })
    }
}

impl<'de> Deserialize<'de> for LinkServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Ok(server) = String::deserialize(deserializer)?.parse();
        Ok(server)
    }
}

/// What is asked of one link, again and again.
#[derive(Debug)]
pub struct Question {
    from: PortIdentity,
    number: u16,
    sequence_id: u16,
    unanswered: u32,
}

impl Question {
    /// Of the port `from`, about the link that is called `number` there.
    pub const fn new(from: PortIdentity, number: u16) -> Self {
        Self { from, number, sequence_id: 0, unanswered: 0 }
    }

    /// The message to send now.
    pub fn ask(&mut self) -> Vec<u8> {
        self.sequence_id = self.sequence_id.wrapping_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        let mut header = Header::new(self.from, self.sequence_id);
        header.sdo_id = LinkDelayService::SDO_ID;
        header.domain_number = LinkDelayService::DOMAIN_NUMBER;
        let body = Body::Management(Management {
            target_port_identity: PortIdentity { port_number: self.number, ..PortIdentity::ALL },
            starting_boundary_hops: 0,
            boundary_hops: 0,
            action: Action::GET.0,
        });
        let mut room = [0; 16];
        let tlv = ManagementTlv::Data { id: ManagementId::CMLDS_INFO_NP, payload: &[] };
        let length = tlv.emit(&mut room).unwrap_or(0);
        let mut bytes = vec![0; MAX_MESSAGE];
        let tlvs = Tlvs::new(room.get(..length).unwrap_or_default()).unwrap_or_default();
        let length = Message { header, body, tlvs }.emit(&mut bytes).unwrap_or(0);
        bytes.truncate(length);
        bytes
    }

    /// What a message says of the link, if it is the answer to the latest question.
    pub fn answer(&mut self, now: Time<Mono>, bytes: &[u8]) -> Option<LinkTold> {
        let message = Message::parse(bytes).ok()?;
        let Body::Management(Management { action, .. }) = message.body else { return None };
        let header = message.header;
        let is_its = Action(action) == Action::RESPONSE
            && header.sequence_id == self.sequence_id
            && header.source_port_identity.port_number == self.number
            && self.unanswered > 0;
        let tlv = message.tlvs.iter().find_map(ManagementTlv::read).filter(|_| is_its)?;
        let ManagementTlv::Data { id, payload } = tlv else { return None };
        let Some(ManagementData::Cmlds(info)) = ManagementData::read(id, payload) else {
            return None;
        };
        self.unanswered = 0;
        let mean_link_delay = info.mean_link_delay.into();
        Some(LinkTold { at: now, mean_link_delay, is_capable: info.as_capable != 0 })
    }

    /// Whether nobody answers any more.
    pub const fn is_lost(&self) -> bool {
        self.unanswered > UNANSWERED
    }
}

/// The socket, and what is asked through it.
#[derive(Debug)]
pub(super) struct AskedLinks {
    socket: net::UnixDatagram,
    server: LinkServer,
    questions: Vec<(PortIndex, Question)>,
    next: Time<Mono>,
    is_silent: bool,
}

impl AskedLinks {
    /// About the links of these ports.
    ///
    /// # Errors
    /// What the kernel says to a socket more.
    pub(super) fn open(
        server: LinkServer,
        ports: impl IntoIterator<Item = (PortIndex, PortIdentity)>,
    ) -> io::Result<Self> {
        // A name of its own to be answered at, and no file that would stay behind.
        let name = format!("ptp-agent-links-{}", process::id());
        let socket = net::UnixDatagram::bind_addr(&net::SocketAddr::from_abstract_name(name)?)?;
        socket.set_nonblocking(true)?;
        let question =
            |(port, from): (PortIndex, _)| (port, Question::new(from, server.number(port)));
        let questions = ports.into_iter().map(question).collect();
        Ok(Self { socket, questions, server, next: Time::ZERO, is_silent: false })
    }

    /// Asks where that is due, and returns what was answered.
    pub(super) fn look(&mut self, now: Time<Mono>) -> Vec<(PortIndex, PortCommand)> {
        let mut told = Vec::new();
        let mut buffer = [0; MAX_MESSAGE];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default();
            let answers = self.questions.iter_mut();
            told.extend(answers.filter_map(|(port, it)| Some((*port, it.answer(now, bytes)?))));
        }
        if now >= self.next {
            self.next = now + INTERVAL;
            // Names like this socket's have no owner: what is connected takes messages of that server alone, which may be another
            // one each time. Who is not there is missed below.
            let _ = self.socket.connect(&self.server.path);
            while self.socket.recv(&mut buffer).is_ok() {}
            for (port, question) in &mut self.questions {
                if question.is_lost() {
                    let gone =
                        LinkTold { at: now, mean_link_delay: Duration::ZERO, is_capable: false };
                    told.push((*port, gone));
                }
                let _ = self.socket.send(&question.ask());
            }
        }
        let is_silent = self.questions.iter().any(|(_, question)| question.is_lost());
        if std::mem::replace(&mut self.is_silent, is_silent) != is_silent {
            let server = self.server.path.display().to_string();
            if is_silent {
                tracing::warn!(server, "who measures the links does not answer");
            } else {
                tracing::info!(server, "who measures the links answers again");
            }
        }
        told.into_iter().map(|(port, told)| (port, PortCommand::Told(told))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::wire::{ClockIdentity, management::CmldsInfo};

    const OWN: PortIdentity =
        PortIdentity { clock_identity: ClockIdentity([1; 8]), port_number: 1 };

    #[test]
    fn a_path_may_say_which_number_the_first_link_has() {
        let read = |text: &str| -> LinkServer { text.parse().unwrap() };
        let number = |text: &str| [0, 1].map(|port| read(text).number(PortIndex(port)));
        assert_eq!(number("/run/cmlds"), [1, 2]);
        assert_eq!(number("/run/cmlds#3"), [3, 4]);
        for path in ["/run/cmlds#", "/run/cmlds#0", "/run/a#b", "/run/cmlds#70000"] {
            assert_eq!(read(path), LinkServer { path: path.into(), first_port: None });
        }
    }

    /// What a service answers to `question`, of its port `number`.
    fn answer(question: &[u8], number: u16, info: CmldsInfo) -> Vec<u8> {
        let asked = Message::parse(question).unwrap();
        let mut payload = [0; 16];
        ManagementData::Cmlds(info).emit(&mut payload).unwrap();
        let mut room = [0; 32];
        let tlv = ManagementTlv::Data { id: ManagementId::CMLDS_INFO_NP, payload: &payload };
        let length = tlv.emit(&mut room).unwrap();
        let from = PortIdentity { clock_identity: ClockIdentity([9; 8]), port_number: number };
        let message = Message {
            header: Header::new(from, asked.header.sequence_id),
            body: Body::Management(Management {
                target_port_identity: asked.header.source_port_identity,
                starting_boundary_hops: 0,
                boundary_hops: 0,
                action: Action::RESPONSE.0,
            }),
            tlvs: Tlvs::new(&room[..length]).unwrap(),
        };
        let mut bytes = vec![0; 128];
        let length = message.emit(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn the_answer_to_the_latest_question_about_that_link_is_taken_once() {
        let mut question = Question::new(OWN, 2);
        let info = CmldsInfo {
            mean_link_delay: Duration::from_nanos(700).into(),
            scaled_neighbor_rate_ratio: 0,
            as_capable: 1,
        };
        let (first, second) = (question.ask(), question.ask());
        let now = Time::from_nanos(5);
        for not_its in [
            answer(&first, 2, info),
            answer(&second, 1, info),
            second.clone(),
            answer(&second, 2, info)[..60].to_vec(),
        ] {
            assert_eq!(question.answer(now, &not_its), None);
        }
        let its = answer(&second, 2, info);
        let mean_link_delay = Duration::from_nanos(700);
        let told = LinkTold { at: now, mean_link_delay, is_capable: true };
        assert_eq!(question.answer(now, &its), Some(told));
        assert_eq!(question.answer(now, &its), None);
        for _ in 0..UNANSWERED {
            question.ask();
            assert!(!question.is_lost());
        }
        question.ask();
        assert!(question.is_lost());
    }
}
