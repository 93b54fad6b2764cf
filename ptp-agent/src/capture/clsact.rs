//! The clsact queueing discipline, on which TC programs hang where the kernel has no TCX. Unlike a
//! link it does not end with the process. So it is made where it is missing, cleared of what a killed
//! agent has left on it, and removed at the end unless somebody else uses it.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    thread,
};

use aya::programs::{
    TcAttachType,
    tc::{self, TcError},
};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::tc::TcHandle;

/// A clsact that this process uses.
#[derive(Debug)]
pub(crate) struct Clsact {
    ifindex: u32,
    /// Whether it was made by this process, or by one of ours that was killed.
    ours: bool,
    /// Held as long as this value lives, and gone with the process however it ends. Another agent
    /// on the same interface does not get it, and then knows that what looks like left behind is in
    /// use. Names are per network namespace.
    _claim: Option<UnixDatagram>,
}

impl Clsact {
    /// Makes sure that the interface has one, without anything that killed agents left behind:
    /// programs of these names.
    pub(crate) fn prepare(
        interface: &str,
        ifindex: u32,
        programs: [(&str, TcAttachType); 2],
    ) -> Result<Self, TcError> {
        let claim = SocketAddr::from_abstract_name(format!("ptp-agent/clsact/{ifindex}"))
            .and_then(|name| UnixDatagram::bind_addr(&name))
            .ok();
        let made = match tc::qdisc_add_clsact(interface) {
            Ok(()) => true,
            Err(error) if exists(&error) => false,
            Err(error) => return Err(error),
        };
        let mut left_behind = false;
        if claim.is_some() && !made {
            for (name, kind) in programs {
                left_behind |= tc::qdisc_detach_program(interface, kind, name).is_ok();
            }
        }
        Ok(Self { ifindex, ours: made || left_behind, _claim: claim })
    }

    /// Makes it again where somebody has removed it.
    pub(super) fn renew(&mut self, interface: &str) -> Result<(), TcError> {
        match tc::qdisc_add_clsact(interface) {
            Ok(()) => self.ours = true,
            Err(error) if exists(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes the clsact if it is ours and nobody hangs on it, this process's programs having been
    /// detached before. Must be called in the network namespace where it was prepared.
    pub(crate) fn release(self) -> io::Result<()> {
        if !self.ours {
            return Ok(());
        }
        let index = i32::try_from(self.ifindex).map_err(io::Error::other)?;
        // A thread of its own: the caller's may be inside an asynchronous runtime already.
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("clsact".into())
                .spawn_scoped(scope, || remove_if_unused(index))?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the netlink thread panicked")))
        })
    }
}

fn exists(error: &TcError) -> bool {
    super::programs::causes(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
    })
}

fn remove_if_unused(index: i32) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        for request in [
            handle.traffic_filter(index).get().ingress(),
            handle.traffic_filter(index).get().egress(),
        ] {
            // One that is not ours: ours have been detached.
            if request.execute().try_next().await.map_err(netlink)?.is_some() {
                return Ok(());
            }
        }
        let mut request = handle.qdisc().del(index);
        request.message_mut().header.parent = TcHandle::CLSACT;
        request.message_mut().header.handle = TcHandle { major: u16::MAX, minor: 0 };
        request.execute().await.map_err(netlink)
    })
}

fn netlink(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
