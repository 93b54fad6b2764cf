//! Whole Ethernet frames, sent on an interface as they are given: packet sockets (packet(7)).

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use nix::sys::socket::{setsockopt, sockopt};

/// Length of a `virtio_net_hdr` (linux/virtio_net.h).
const VNET_HEADER: usize = 10;

/// A socket that sends frames on one interface and receives none.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
    vnet: bool,
}

impl FrameSocket {
    /// On an interface of the current network namespace.
    ///
    /// # Errors
    /// What the kernel says; the socket needs CAP_NET_RAW.
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        // SAFETY: a system call without pointers. Protocol 0 receives nothing.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and that nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a plain structure for which zero is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        // SAFETY: pointer and length describe a structure that lives through the call.
        check(unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of_val(&address) as libc::socklen_t,
            )
        })?;
        Ok(Self { fd, vnet: false })
    }

    /// The same, but of a frame longer than a page only the link header is put into the linear part
    /// of the socket buffer: what some drivers do when they receive.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open_paged(interface: &str) -> io::Result<Self> {
        let mut socket = Self::open(interface)?;
        let on: libc::c_int = 1;
        // SAFETY: pointer and length describe an integer that lives through the call.
        check(unsafe {
            libc::setsockopt(
                socket.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                mem::size_of_val(&on) as libc::socklen_t,
            )
        })?;
        socket.vnet = true;
        Ok(socket)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(VNET_HEADER + frame.len());
        if self.vnet {
            let mut header = [0; VNET_HEADER];
            // `hdr_len`: how much is to be linear. The kernel makes it the link header at least.
            header[2..4].copy_from_slice(&1_u16.to_ne_bytes());
            bytes.extend(header);
        }
        bytes.extend(frame);
        // SAFETY: pointer and length describe a buffer that lives through the call.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A socket that receives whole frames that come in by one interface.
#[derive(Debug)]
pub struct FrameListener {
    socket: socket2::Socket,
}

impl FrameListener {
    /// On an interface of the current network namespace.
    ///
    /// # Errors
    /// What the kernel says; the socket needs CAP_NET_RAW.
    pub fn open(interface: &str) -> io::Result<Self> {
        let FrameSocket { fd, .. } = FrameSocket::open(interface)?;
        let index = nix::net::if_::if_nametoindex(interface)?;
        // SAFETY: a plain structure for which zero is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        // SAFETY: pointer and length describe a structure that lives through the call.
        check(unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of_val(&address) as libc::socklen_t,
            )
        })?;
        let on: libc::c_int = 1;
        // SAFETY: pointer and length describe an integer that lives through the call.
        check(unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_IGNORE_OUTGOING,
                (&raw const on).cast(),
                mem::size_of_val(&on) as libc::socklen_t,
            )
        })?;
        let socket = socket2::Socket::from(fd);
        // A few hundred small frames that nobody has read yet are more than fit by default, on machines with long
        // cache lines most of all.
        setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
        Ok(Self { socket })
    }

    /// A frame that is there already.
    pub fn ready(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(2048);
        let flags = libc::MSG_DONTWAIT;
        let length = self.socket.recv_with_flags(bytes.spare_capacity_mut(), flags).ok()?;
        // SAFETY: the kernel has written so many bytes.
        unsafe { bytes.set_len(length) };
        Some(bytes)
    }

    /// The next frame that `wanted` makes something of; `None` if none comes in time.
    pub fn hear<T>(
        &self,
        patience: std::time::Duration,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<T> {
        use std::io::Read as _;
        let deadline = std::time::Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).ok()?;
            let mut bytes = [0; 2048];
            let Ok(length) = (&self.socket).read(&mut bytes) else { continue };
            if let Some(found) = wanted(&bytes[..length]) {
                return Some(found);
            }
        }
    }
}

impl AsFd for FrameListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A tap: an interface whose other end is a guest, here the test.
#[derive(Debug)]
pub struct Tap {
    file: std::fs::File,
}

impl Tap {
    /// Makes one in the current network namespace.
    ///
    /// # Errors
    /// What the kernel says: no `/dev/net/tun`, no privilege.
    pub fn open(name: &str) -> io::Result<Self> {
        let options = libc::O_NONBLOCK;
        let file = {
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut open = std::fs::OpenOptions::new();
            open.read(true).write(true).custom_flags(options).open("/dev/net/tun")?
        };
        // SAFETY: a plain structure for which zero is a valid value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in request.ifr_name[..15].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        // SAFETY: pointer to a structure that lives through the call, as the request wants it.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        Ok(Self { file })
    }

    /// The guest sends a frame.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut &self.file, frame)
    }

    /// The next frame to the guest that `wanted` makes something of; `None` if none comes in time.
    pub fn hear<T>(
        &self,
        patience: std::time::Duration,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let deadline = std::time::Instant::now() + patience;
        while std::time::Instant::now() < deadline {
            let mut bytes = [0; 2048];
            match io::Read::read(&mut &self.file, &mut bytes) {
                Ok(length) => {
                    if let Some(found) = wanted(&bytes[..length]) {
                        return Some(found);
                    }
                }
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
        None
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
