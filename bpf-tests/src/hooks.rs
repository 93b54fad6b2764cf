//! What hangs on the TC hooks of an interface, as the kernel tells anybody who asks.

use std::io;

use aya::programs::{SchedClassifier, TcAttachType};
use futures_util::TryStreamExt as _;
use nix::net::if_::if_nametoindex;
use ptp_agent::lab::netns::Namespace;
use rtnetlink::Handle;

/// The clsact queueing discipline of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clsact {
    /// Whether it has one.
    pub present: bool,
    /// How many filters hang on it, both directions together.
    pub filters: usize,
}

/// Looks at an interface of a namespace.
///
/// # Panics
/// If the kernel does not answer.
pub fn clsact(namespace: &Namespace, interface: &str) -> Clsact {
    netlink(namespace, interface, async |handle: Handle, index| {
        let mut found = Clsact::default();
        let mut disciplines = handle.qdisc().get().index(index).execute();
        while let Some(message) = disciplines.try_next().await? {
            found.present |= message.header.index == index
                && message.attributes.iter().any(|attribute| {
                    let kind = rtnetlink::packet_route::tc::TcAttribute::Kind("clsact".into());
                    *attribute == kind
                });
        }
        if found.present {
            for request in [
                handle.traffic_filter(index).get().ingress(),
                handle.traffic_filter(index).get().egress(),
            ] {
                let mut filters = request.execute();
                while let Some(message) = filters.try_next().await? {
                    // The first message of each kind of filter describes the kind and has no handle.
                    let handle = message.header.handle;
                    found.filters += usize::from(handle.major != 0 || handle.minor != 0);
                }
            }
        }
        Ok(found)
    })
}

/// Names of the programs on TCX ingress and egress.
///
/// # Errors
/// What the kernel says; it has no TCX before Linux 6.6.
pub fn tcx(namespace: &Namespace, interface: &str) -> io::Result<Vec<String>> {
    namespace
        .run(|| {
            let mut names = Vec::new();
            for kind in [TcAttachType::Ingress, TcAttachType::Egress] {
                let (_, programs) =
                    SchedClassifier::query_tcx(interface, kind).map_err(io::Error::other)?;
                let named = programs.iter().filter_map(|program| program.name_as_str());
                names.extend(named.map(str::to_owned));
            }
            Ok(names)
        })
        .map_err(io::Error::other)?
}

fn netlink<T: Send>(
    namespace: &Namespace,
    interface: &str,
    ask: impl AsyncFnOnce(Handle, i32) -> Result<T, rtnetlink::Error> + Send,
) -> T {
    let answer = namespace.run(|| {
        let index = if_nametoindex(interface).expect("the interface exists") as i32;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.expect("a runtime").block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink socket");
            tokio::spawn(connection);
            ask(handle, index).await
        })
    });
    answer.expect("the namespace exists").unwrap_or_else(|error| panic!("{interface}: {error}"))
}
