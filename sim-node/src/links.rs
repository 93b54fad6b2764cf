//! Links that another node measures: it is asked over the simulated local socket what they are like, once a second.

use ptp_agent::{
    agent::link_server::Question,
    engine::{PortIndex, node::PortCommand},
};
use ptp_common::{
    time::{Mono, Time},
    wire::{ClockIdentity, PortIdentity},
};

use crate::{drive::Asker, settings::Settings};

/// Where simulated local sockets are by name: behind it stand the node and the number of its socket.
const SOCKETS: &str = "/clknetsim/unix/";
/// The number of the own socket, behind those of ptp4l's.
const OWN: u32 = 3;

/// See the module's paragraph.
#[derive(Debug)]
pub(crate) struct Links {
    server: Asker,
    questions: Vec<(PortIndex, Question)>,
}

impl Links {
    /// As `settings` say it; `None` where nobody is asked.
    pub(crate) fn new(
        settings: &Settings,
        clock_identity: ClockIdentity,
        unix_subnet: Option<u32>,
    ) -> Option<Self> {
        let server = settings.link_server()?;
        let (node, number) = server.path.to_str()?.strip_prefix(SOCKETS)?.split_once(':')?;
        let node: u32 = node.parse().ok()?;
        let to = Asker::at(unix_subnet?, node.checked_sub(1)?, number.parse().ok()?, OWN);
        let ports = 0..u16::try_from(settings.interfaces.len()).unwrap_or(u16::MAX);
        let questions = ports.map(PortIndex).map(|port| {
            let from = PortIdentity { clock_identity, port_number: port.number() };
            (port, Question::new(from, server.number(port)))
        });
        Some(Self { server: to, questions: questions.collect() })
    }

    /// What is to be asked now, and whom.
    pub(crate) fn ask(&mut self) -> impl Iterator<Item = (Asker, Vec<u8>)> {
        let to = self.server;
        self.questions.iter_mut().map(move |(_, question)| (to, question.ask()))
    }

    /// What a message says of links.
    pub(crate) fn told(
        &mut self,
        now: Time<Mono>,
        bytes: &[u8],
    ) -> Option<(PortIndex, PortCommand)> {
        self.questions
            .iter_mut()
            .find_map(|(port, it)| Some((*port, PortCommand::Told(it.answer(now, bytes)?))))
    }
}
