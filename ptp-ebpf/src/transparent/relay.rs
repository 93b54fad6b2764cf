//! What bridges keep: messages to the link-local group 01-80-C2-00-00-0E, where peers measure their links and where
//! 802.1AS sends everything. Peer delay ends here, as it should; the rest goes to the other ports, if the agent
//! wants so, and is timed and corrected there like what a bridge forwards.

use aya_ebpf::{helpers::generated::bpf_clone_redirect, programs::TcContext};
use ptp_common::{
    classify::Network,
    residence::{Head, LINK_LOCAL, PDELAY_REQ, PDELAY_RESP, PDELAY_RESP_FOLLOW_UP, RELAYS, config},
};

use crate::{
    maps::{Config, relay_to},
    packet::Packet,
};

/// Sends copies by all other ports.
#[inline(always)]
pub fn copies(ctx: &TcContext, packet: &Packet, head: &Head, config: &Config, now_ns: u64) {
    if config.get(config::RELAYS) == 0
        || now_ns >= config.get(config::ALTER_UNTIL)
        || packet.location.network != Network::Ethernet
        || packet.load::<[u8; 6]>(0) != Some(LINK_LOCAL)
        || matches!(head.message_type(), PDELAY_REQ | PDELAY_RESP | PDELAY_RESP_FOLLOW_UP)
    {
        return;
    }
    // SAFETY: the program's context; the verifier checks the field access.
    let own = unsafe { (*ctx.skb.skb).ifindex };
    for number in 0..RELAYS {
        let ifindex = relay_to(number);
        if ifindex == 0 {
            break;
        }
        if ifindex != own {
            // SAFETY: the program's context; nothing that was read from the packet is used afterwards.
            unsafe { bpf_clone_redirect(ctx.skb.skb, ifindex, 0) };
        }
    }
}
