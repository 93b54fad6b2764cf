//! Disturbance for measurements: busy loops on the processors, and a flood of datagrams through the
//! link that is measured. All are threads of this process and end with the value that started them.

use std::{
    hint::black_box,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::lab::netns::{Namespace, NetnsError};

/// The discard service; nothing else is said to listen there.
const DISCARD: u16 = 9;

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `count` busy loops.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn busy(&mut self, count: u16) -> io::Result<()> {
        for _ in 0..count {
            let stop = Arc::clone(&self.stop);
            self.start("busy", move || {
                let mut count = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    // Not `spin_loop`: its instruction yields to a hypervisor, and this shall be a
                    // load.
                    count = black_box(count.wrapping_add(1));
                }
            })?;
        }
        Ok(())
    }

    /// Sends datagrams of 64 bytes as fast as one thread can, from one namespace to an address of
    /// another, where a socket takes them and nobody reads it.
    ///
    /// # Errors
    /// When a namespace cannot be entered, or a socket or thread cannot be made.
    pub(super) fn flood(
        &mut self,
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
    ) -> Result<(), NetnsError> {
        let failed = |source| NetnsError::Failed { attempted: "flood with UDP".into(), source };
        let target = SocketAddr::new(address, DISCARD);
        let sink = to.run(|| UdpSocket::bind(target))?.map_err(failed)?;
        let source = from.run(|| UdpSocket::bind((unspecified(address), 0)))?.map_err(failed)?;
        let stop = Arc::clone(&self.stop);
        self.start("flood", move || {
            let _sink = sink;
            while !stop.load(Ordering::Relaxed) {
                // A full queue is what a flood meets.
                let _ = source.send_to(&[0; 64], target);
            }
        })
        .map_err(failed)
    }

    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.into()).spawn(work)?);
        Ok(())
    }
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A loop that panicked is no load any more.
            let _ = thread.join();
        }
    }
}
