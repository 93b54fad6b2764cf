//! How packets are marked that are sent over IP: their class of service (DSCP, RFC 2474), how far groups reach (TTL, hop
//! limit), and the scope of IPv6's primary group. Networks that carry audio and video ask for it (AES67: DSCP 46).

use std::io;

use socket2::Socket;

use super::scope::Scope;

/// See the module's paragraph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marking {
    /// DSCP of event messages, 0 to 63.
    pub dscp_event: u8,
    /// DSCP of general messages, 0 to 63.
    pub dscp_general: u8,
    /// TTL and hop limit of messages to groups.
    pub ttl: u8,
    /// Scope of IPv6's primary group, 2 to 14.
    pub udp6_scope: u8,
}

impl Default for Marking {
    fn default() -> Self {
        Self { dscp_event: 0, dscp_general: 0, ttl: 1, udp6_scope: 0xe }
    }
}

impl Marking {
    /// Whether general messages leave as they do without it, so that somebody else may send them.
    pub fn leaves_answers_alone(&self) -> bool {
        let usual = Self::default();
        (self.dscp_general, self.ttl) == (usual.dscp_general, usual.ttl)
    }

    /// The scope for what has no other.
    pub(super) const fn scope(&self) -> Scope {
        Scope::of_number(self.udp6_scope)
    }

    /// Marks what a socket sends.
    pub(super) fn apply(&self, socket: &Socket, is_event: bool, is_v6: bool) -> io::Result<()> {
        let class = u32::from(if is_event { self.dscp_event } else { self.dscp_general }) << 2;
        let hops = u32::from(self.ttl);
        if is_v6 {
            socket.set_multicast_hops_v6(hops)?;
            return if class == 0 { Ok(()) } else { socket.set_tclass_v6(class) };
        }
        socket.set_multicast_ttl_v4(hops)?;
        if class == 0 { Ok(()) } else { socket.set_tos_v4(class) }
    }
}
