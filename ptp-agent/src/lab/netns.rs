//! Network namespaces with virtual links between them, made without any helper program and without
//! a name in the file system: a namespace is held by file descriptors only, so the kernel takes it
//! away, with its links and everything attached to them, when the last process that used it ends,
//! however it ends. The laboratory and the end-to-end tests run their peers in them.
//!
//! ```no_run
//! use ptp_agent::lab::netns::{Namespace, veth};
//! let (a, b) = (Namespace::new()?, Namespace::new()?);
//! veth(&a, "veth0", &b, "veth1")?;
//! a.add_address("veth0", "192.0.2.1".parse().unwrap(), 24)?;
//! b.add_address("veth1", "192.0.2.2".parse().unwrap(), 24)?;
//! let output = a.command("ptp4l").args(["-i", "veth0"]).output();
//! # Ok::<(), ptp_agent::lab::netns::NetnsError>(())
//! ```

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::{self, Command},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
    sys::socket::SockaddrStorage,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::sys::child;

/// How long a link may take until its IPv6 link-local address can be used. Without duplicate address
/// detection it takes milliseconds; with it (where /proc/sys is read-only) one to two seconds.
const LINK_LOCAL_TIMEOUT: Duration = Duration::from_secs(5);
/// `IFA_F_TENTATIVE` of linux/if_addr.h: duplicate address detection is still running.
const IFA_F_TENTATIVE: u32 = 0x40;

/// Why a namespace, a link or an address could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The process may not do this.
    #[error("cannot {attempted}: {source} (run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN)")]
    Privilege {
        /// What was attempted, on what.
        attempted: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("cannot {attempted}: {source}")]
    Failed {
        /// What was attempted, on what.
        attempted: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NetnsError {
    fn new(attempted: impl Into<String>, source: io::Error) -> Self {
        let attempted = attempted.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Privilege { attempted, source },
            _ => Self::Failed { attempted, source },
        }
    }

    /// Whether the host or its configuration lacks something, rather than a name or an address
    /// being wrong: privileges, or a kernel without network namespaces or without this kind of link.
    pub fn is_missing_on_host(&self) -> bool {
        match self {
            Self::Privilege { .. } => true,
            Self::Failed { source, .. } => matches!(
                source.raw_os_error().map(nix::errno::Errno::from_raw),
                Some(
                    nix::errno::Errno::ENOSYS
                        | nix::errno::Errno::EOPNOTSUPP
                        | nix::errno::Errno::ENOSPC
                )
            ),
        }
    }
}

/// An anonymous network namespace, with its loopback interface up and IPv6 duplicate address
/// detection off. It exists while this value, a clone of it or a process inside lives.
#[derive(Clone, Debug)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a namespace. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// [`NetnsError::Privilege`] without those; [`NetnsError::Failed`] where the kernel has no
    /// network namespaces or the limit of them is reached.
    pub fn new() -> Result<Self, NetnsError> {
        // A namespace is left by the thread's end, so the maker is a thread of its own: nothing has
        // to find its way back.
        let fd = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // Fails where /proc/sys is read-only, in a container: then links wait for the detection.
            for scope in ["all", "default"] {
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0");
            }
            Ok(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))
        })
        .map_err(|error| NetnsError::new("make a network namespace", error))?;
        let namespace = Self { fd: Arc::new(fd) };
        namespace.set_up("lo")?;
        Ok(namespace)
    }

    /// A command whose process starts in the namespace and is killed when the thread that spawns it
    /// ends (so that nothing survives a killed parent): spawn it from a thread that stays. For
    /// tokio, convert with `tokio::process::Command::from`. Only the network is another one: /sys
    /// still shows the interfaces of the namespace that mounted it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        child::enter_network_namespace(&mut command, Arc::clone(&self.fd));
        child::die_with_parent(&mut command);
        command
    }

    /// Runs `task` on a thread of its own in the namespace, and waits for it: sockets that it makes
    /// belong to the namespace for good. A panic of `task` is passed on.
    ///
    /// # Errors
    /// [`NetnsError`] if the namespace cannot be entered; `task` has then not run.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_thread(|| {
            setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(task())
        })
        .map_err(|error| NetnsError::new("enter a network namespace", error))
    }

    /// Adds an address, at once usable, to an interface of the namespace.
    ///
    /// # Errors
    /// [`NetnsError`] naming the interface and the address.
    pub fn add_address(
        &self,
        interface: &str,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), NetnsError> {
        let attempted = format!("add address {address}/{prefix_len} to {interface}");
        self.netlink(attempted, async |handle| {
            handle.address().add(index(interface)?, address, prefix_len).execute().await.map_err(io)
        })
    }

    /// Where other processes find the namespace for as long as this one lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", process::id(), self.fd.as_raw_fd()))
    }

    /// Takes an interface of the calling thread's namespace into this one. A card returns to the first
    /// namespace of the host when this one ends; what is virtual ends with it.
    ///
    /// # Errors
    /// [`NetnsError`] naming the interface: also where it has an address, since somebody uses it then.
    pub fn adopt(&self, interface: &str) -> Result<(), NetnsError> {
        let failed = |error| NetnsError::new(format!("take {interface}"), error);
        let is_addressed = nix::ifaddrs::getifaddrs()
            .map_err(|error| failed(error.into()))?
            .any(|each| each.interface_name == interface && is_of_a_network(each.address));
        if is_addressed {
            return Err(failed(io::Error::other("it has an address, so it is in use")));
        }
        let fd = self.fd.as_raw_fd();
        on_thread(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                let moved = LinkUnspec::new_with_index(index(interface)?).setns_by_fd(fd);
                handle.link().set(moved.build()).execute().await.map_err(io)
            })
        })
        .map_err(failed)
    }

    /// Gives an interface back to the namespace of this process, at once: when a namespace ends, the kernel does that some
    /// time later.
    ///
    /// # Errors
    /// [`NetnsError`] naming the interface.
    pub fn release(&self, interface: &str) -> Result<(), NetnsError> {
        let attempted = format!("give {interface} back");
        let home = File::open("/proc/self/ns/net");
        let home = home.map_err(|error| NetnsError::new(attempted.clone(), error))?;
        self.netlink(attempted, async |handle| {
            let link = LinkUnspec::new_with_index(index(interface)?);
            let moved = link.setns_by_fd(home.as_raw_fd());
            handle.link().set(moved.build()).execute().await.map_err(io)
        })
    }

    /// Gives an interface of the namespace a MAC address.
    ///
    /// # Errors
    /// [`NetnsError`] naming the interface.
    pub fn set_mac(&self, interface: &str, mac: [u8; 6]) -> Result<(), NetnsError> {
        self.change(format!("set the MAC address of {interface}"), interface, |link| {
            link.address(mac.to_vec())
        })
    }

    /// Sets an interface of the namespace up.
    ///
    /// # Errors
    /// [`NetnsError`] naming the interface.
    pub fn set_up(&self, interface: &str) -> Result<(), NetnsError> {
        self.change(format!("set {interface} up"), interface, LinkMessageBuilder::up)
    }

    /// Sets an interface of the namespace down.
    ///
    /// # Errors
    /// [`NetnsError`] naming the interface.
    pub fn set_down(&self, interface: &str) -> Result<(), NetnsError> {
        self.change(format!("set {interface} down"), interface, LinkMessageBuilder::down)
    }

    /// Removes an interface of the namespace; the other end of a veth pair goes with it.
    ///
    /// # Errors
    /// [`NetnsError`] naming the interface.
    pub fn delete(&self, interface: &str) -> Result<(), NetnsError> {
        self.netlink(format!("remove {interface}"), async |handle| {
            handle.link().del(index(interface)?).execute().await.map_err(io)
        })
    }

    /// Makes a bridge without spanning tree, puts `ports` into it and sets everything up.
    ///
    /// # Errors
    /// [`NetnsError`] naming the bridge.
    pub fn bridge(&self, name: &str, ports: &[&str]) -> Result<(), NetnsError> {
        self.netlink(format!("make bridge {name}"), async |handle| {
            handle.link().add(LinkBridge::new(name).build()).execute().await.map_err(io)?;
            let bridge = index(name)?;
            for port in ports {
                let port = LinkUnspec::new_with_index(index(port)?).controller(bridge).up();
                handle.link().set(port.build()).execute().await.map_err(io)?;
            }
            Ok(())
        })?;
        self.await_link_local(name)
    }

    /// Waits until the IPv6 link-local address of an interface, which must be up and have carrier,
    /// is usable; does nothing where the kernel has no IPv6.
    ///
    /// # Errors
    /// [`NetnsError`] naming the interface, after five seconds.
    pub fn await_link_local(&self, interface: &str) -> Result<(), NetnsError> {
        let deadline = Instant::now() + LINK_LOCAL_TIMEOUT;
        self.run(|| {
            loop {
                match fs::read_to_string("/proc/thread-self/net/if_inet6") {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    Err(error) => return Err(error),
                    Ok(table) if has_usable_link_local(&table, interface) => return Ok(()),
                    Ok(_) if Instant::now() >= deadline => {
                        return Err(io::Error::from(io::ErrorKind::TimedOut));
                    }
                    Ok(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        })?
        .map_err(|error| {
            NetnsError::new(format!("get an IPv6 link-local address on {interface}"), error)
        })
    }

    fn change(
        &self,
        attempted: String,
        interface: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec> + Send,
    ) -> Result<(), NetnsError> {
        self.netlink(attempted, async |handle| {
            let link = change(LinkUnspec::new_with_index(index(interface)?));
            handle.link().set(link.build()).execute().await.map_err(io)
        })
    }

    /// Lets `task` talk route netlink in the namespace.
    fn netlink<F>(&self, attempted: String, task: F) -> Result<(), NetnsError>
    where
        F: AsyncFnOnce(Handle) -> io::Result<()> + Send,
    {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                task(handle).await
            })
        })?
        .map_err(|error| NetnsError::new(attempted, error))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Links two namespaces by a veth pair, `a_name` in `a` and `b_name` in `b` (which may be the same),
/// both up with a usable IPv6 link-local address. The pair goes when one of its namespaces goes.
///
/// # Errors
/// [`NetnsError`] naming the interfaces.
pub fn veth(a: &Namespace, a_name: &str, b: &Namespace, b_name: &str) -> Result<(), NetnsError> {
    a.netlink(format!("make veth pair {a_name} and {b_name}"), async |handle| {
        let pair = LinkVeth::new(a_name, b_name);
        handle.link().add(pair.build()).execute().await.map_err(io)?;
        let moved = LinkUnspec::new_with_name(b_name).setns_by_fd(b.fd.as_raw_fd());
        handle.link().set(moved.build()).execute().await.map_err(io)
    })?;
    a.set_up(a_name)?;
    b.set_up(b_name)?;
    a.await_link_local(a_name)?;
    b.await_link_local(b_name)
}

/// An address that was given to an interface, rather than made by it.
fn is_of_a_network(address: Option<SockaddrStorage>) -> bool {
    let Some(address) = address else { return false };
    address.as_sockaddr_in().is_some()
        || address.as_sockaddr_in6().is_some_and(|v6| !v6.ip().is_unicast_link_local())
}

/// A thread that may enter another namespace, because it ends afterwards.
fn on_thread<T: Send>(task: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, task)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn index(interface: &str) -> io::Result<u32> {
    Ok(if_nametoindex(interface)?)
}

fn io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// Whether /proc/net/if_inet6 lists a link-local address of `interface` that is no longer tentative.
/// Columns: address, index, prefix length, scope, flags (all hexadecimal), name.
fn has_usable_link_local(table: &str, interface: &str) -> bool {
    table.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [address, _, _, _, flags, name] = columns[..] else { return false };
        name == interface
            && address.starts_with("fe80")
            && u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & IFA_F_TENTATIVE == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};

    /// A new namespace, or `None` where the test has not the privileges for one.
    fn namespace() -> Option<Namespace> {
        match Namespace::new() {
            Ok(namespace) => Some(namespace),
            Err(error @ NetnsError::Privilege { .. }) => {
                eprintln!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn datagram_crosses_a_veth_pair() {
        let (Some(a), Some(b)) = (namespace(), namespace()) else { return };
        veth(&a, "veth0", &b, "veth1").unwrap();
        a.add_address("veth0", Ipv4Addr::new(192, 0, 2, 1).into(), 24).unwrap();
        b.add_address("veth1", Ipv4Addr::new(192, 0, 2, 2).into(), 24).unwrap();
        let receiver = b.run(|| UdpSocket::bind("192.0.2.2:0").unwrap()).unwrap();
        let to = receiver.local_addr().unwrap();
        a.run(|| UdpSocket::bind("192.0.2.1:0").unwrap().send_to(b"hello", to).unwrap()).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        assert_eq!(from.ip(), Ipv4Addr::new(192, 0, 2, 1));
    }

    #[test]
    fn bridge_over_a_veth_carries_addresses() {
        let (Some(a), Some(b)) = (namespace(), namespace()) else { return };
        veth(&a, "veth0", &b, "veth1").unwrap();
        b.bridge("br0", &["veth1"]).unwrap();
        b.add_address("br0", Ipv4Addr::new(192, 0, 2, 2).into(), 24).unwrap();
        b.run(|| UdpSocket::bind("192.0.2.2:0").unwrap()).unwrap();
    }

    #[test]
    fn child_starts_in_the_namespace() {
        let Some(a) = namespace() else { return };
        let output = a.command("cat").arg("/proc/self/net/dev").output().unwrap();
        let devices = String::from_utf8(output.stdout).unwrap();
        assert!(devices.contains("lo:"), "{devices}");
        assert_eq!(devices.lines().filter(|line| line.contains("eth")).count(), 0, "{devices}");
    }

    #[test]
    fn child_dies_with_the_thread_that_spawned_it() {
        let Some(a) = namespace() else { return };
        let mut child =
            thread::spawn(move || a.command("sleep").arg("600").spawn().unwrap()).join().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn deleted_interface_takes_its_peer_along() {
        let (Some(a), Some(b)) = (namespace(), namespace()) else { return };
        veth(&a, "veth0", &b, "veth1").unwrap();
        a.delete("veth0").unwrap();
        b.set_up("veth1").unwrap_err();
    }

    #[test]
    fn missing_interface_is_named_in_the_message() {
        let Some(a) = namespace() else { return };
        let message = a.set_up("nothing0").unwrap_err().to_string();
        assert!(message.contains("nothing0"), "{message}");
    }

    #[test]
    fn tentative_link_local_address_is_not_usable() {
        let table = "\
            fe80000000000000a0b1c2fffed3e4f5 02 40 20 40    veth0\n\
            fe80000000000000a0b1c2fffed3e4f6 03 40 20 80    veth1\n\
            20010db8000000000000000000000001 04 40 00 80    veth2\n";
        assert!(!has_usable_link_local(table, "veth0"));
        assert!(has_usable_link_local(table, "veth1"));
        assert!(!has_usable_link_local(table, "veth2"));
    }
}
