//! Who else is on the TC hooks of an interface, in the order in which packets pass them. A program in front
//! of ours may end the chain (`TC_ACT_OK`, as Cilium's and the AWS policy agent's do), and then ours
//! never sees the packet, though the network works.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    thread,
};

use aya::programs::{SchedClassifier, TcAttachType};
use aya_obj::generated::bpf_attach_type::{BPF_TCX_EGRESS, BPF_TCX_INGRESS};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

use crate::sys::bpf::tcx_programs;

/// A program or filter on a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    /// Number of the program; `None` for a filter that is none.
    program: Option<u32>,
    /// Name of the program, as far as this process may know it, or kind of the filter.
    name: Option<String>,
    /// Of a clsact filter: lower ones come first. 0 on TCX.
    pub(super) priority: u16,
    /// Whether it is a program of this or another agent, which is no obstacle: it lets everything pass.
    is_agents: bool,
}

impl Member {
    fn describe(&self) -> String {
        match (&self.name, self.program) {
            (Some(name), Some(id)) => format!("{name} (program {id})"),
            (Some(kind), None) => format!("a {kind} filter of priority {}", self.priority),
            (None, Some(id)) => format!("program {id}"),
            (None, None) => format!("a filter of priority {}", self.priority),
        }
    }
}

/// Where one of our programs stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Packets come to it first.
    Front,
    /// These of others come before it; they may end the chain.
    Behind(Vec<String>),
    /// It is not there any more.
    Gone,
}

impl Place {
    /// Of the program with the number `own` in a chain.
    pub(super) fn of(own: u32, chain: &[Member]) -> Self {
        let Some(at) = chain.iter().position(|member| member.program == Some(own)) else {
            return Self::Gone;
        };
        let others: Vec<_> =
            chain[..at].iter().filter(|it| !it.is_agents).map(Member::describe).collect();
        if others.is_empty() { Self::Front } else { Self::Behind(others) }
    }
}

/// Tells other agents of this network namespace that a program is an agent's, for as long as the value
/// lives: looking a program's name up by its number takes CAP_SYS_ADMIN, which agents do not have.
pub(super) fn claim(program: u32) -> io::Result<UnixDatagram> {
    claim_name(&format!("ptp-agent/program/{program}"))
}

/// Takes a name of this network namespace for as long as the value lives; AddrInUse where somebody has it.
pub(crate) fn claim_name(name: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

fn is_claimed(program: u32) -> bool {
    claim(program).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// The programs on a TCX hook.
pub(super) fn tcx(interface: &str, ifindex: u32, hook: TcAttachType) -> io::Result<Vec<Member>> {
    let number = if hook == TcAttachType::Ingress { BPF_TCX_INGRESS } else { BPF_TCX_EGRESS };
    let ids = tcx_programs(ifindex, number)?;
    // Names are for those who may know them.
    let known = if ids.len() > 1 {
        SchedClassifier::query_tcx(interface, hook).map_or_else(|_| Vec::new(), |(_, all)| all)
    } else {
        Vec::new()
    };
    let name = |id: u32| {
        let program = known.iter().find(|program| program.id() == id)?;
        program.name_as_str().map(str::to_owned)
    };
    let member =
        |id| Member { program: Some(id), name: name(id), priority: 0, is_agents: is_claimed(id) };
    Ok(ids.into_iter().map(member).collect())
}

/// The filters of one direction on the clsact queueing discipline; none where there is no such.
pub(super) fn clsact(ifindex: u32, hook: TcAttachType) -> io::Result<Vec<Member>> {
    let index = i32::try_from(ifindex).map_err(io::Error::other)?;
    // A thread of its own: the caller's may be inside an asynchronous runtime already.
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("filters".into())
            .spawn_scoped(scope, || filters(index, hook))?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the netlink thread panicked")))
    })
}

fn filters(index: i32, hook: TcAttachType) -> io::Result<Vec<Member>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let request = handle.traffic_filter(index).get();
        let request = match hook {
            TcAttachType::Ingress => request.ingress(),
            _ => request.egress(),
        };
        let messages: Result<Vec<_>, _> = request.execute().try_collect().await;
        Ok(messages.unwrap_or_default().iter().filter_map(member).collect())
    })
}

/// The first message of each kind and priority describes these and is no filter: it has no handle.
fn member(message: &TcMessage) -> Option<Member> {
    let handle = message.header.handle;
    if handle.major == 0 && handle.minor == 0 {
        return None;
    }
    let mut member = Member { priority: (message.header.info >> 16) as u16, ..Member::default() };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => drop(member.name.get_or_insert_with(|| kind.clone())),
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => {
                            member.program = Some(*id);
                            member.is_agents = is_claimed(*id);
                        }
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                            member.name = Some(name.clone());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: u32, name: &str) -> Member {
        let name = (!name.is_empty()).then(|| name.to_owned());
        Member { program: Some(id), name, ..Member::default() }
    }

    #[test]
    fn others_in_front_are_named_and_another_agents_is_no_obstacle() {
        let agents = |id| Member { is_agents: true, ..program(id, "") };
        let chain = [program(7, "cil_to_netdev"), program(8, ""), agents(9), agents(5)];
        let others = vec!["cil_to_netdev (program 7)".to_owned(), "program 8".to_owned()];
        assert_eq!(Place::of(5, &chain), Place::Behind(others));
        assert_eq!(Place::of(5, &chain[2..]), Place::Front);
        assert_eq!(Place::of(7, &chain), Place::Front);
        assert_eq!(Place::of(6, &chain), Place::Gone);
    }

    #[test]
    fn claim_is_seen_as_long_as_it_is_held() {
        // Far beyond what a kernel gives to programs.
        let number = u32::MAX - std::process::id();
        assert!(!is_claimed(number));
        let held = claim(number).unwrap();
        assert!(is_claimed(number));
        drop(held);
        assert!(!is_claimed(number));
    }

    #[test]
    fn filter_without_a_program_is_told_by_kind_and_priority() {
        let filter = Member { name: Some("u32".into()), priority: 3, ..Member::default() };
        let Place::Behind(others) = Place::of(5, &[filter, program(5, "")]) else { panic!() };
        assert_eq!(others, ["a u32 filter of priority 3"]);
    }
}
