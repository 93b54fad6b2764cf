//! What the observer counts: closed sets of figures with names.

use serde::Serialize;

macro_rules! figures {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: u64,)* }

        impl $name {
            /// Every figure with its name, in the order of their declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}

figures! {
    /// What arrived at the observer and was no message of a port that it follows.
    Refusals {
        /// Shorter than its header, its fixed part or its own length says.
        truncated,
        /// `versionPTP` is not 2.
        wrong_version,
        /// Reserved type, or a timestamp out of range.
        malformed,
        /// A correction field that says "too large to represent".
        correction,
        /// From a port for which there was no room.
        table_full,
    }
}

figures! {
    /// Exchanges that were complete, stamps included, of one port.
    Exchanges {
        /// Sync of this port with the time of its transmission.
        sync,
        /// Delay_Req of this port and the Delay_Resp to it.
        delay,
        /// Delay_Resp of this port and the Delay_Req of another one.
        delay_answered,
        /// Pdelay_Req of this port and the answer to it.
        peer_delay,
        /// Delay_Req and Delay_Resp that went the same way, so that nothing can be measured: between
        /// two others on a multicast network, or forwarded.
        foreign_delay,
        /// Pdelay_Req and the answer to it, likewise.
        foreign_peer_delay,
    }
}

figures! {
    /// What was lost of the exchanges of one port.
    Losses {
        /// Two-step Sync whose Follow_Up did not come.
        sync_without_follow_up,
        /// Follow_Up whose Sync did not come.
        follow_up_without_sync,
        /// Sync that are missing from the sequence.
        sync_gap,
        /// Sync that came after a later one.
        sync_reordered,
        /// Sync sequences that began anew.
        sync_restart,
        /// Delay_Req without an answer.
        delay_req_without_resp,
        /// Delay_Resp to a request of this port that was not seen.
        delay_resp_without_req,
        /// Pdelay_Req without an answer.
        pdelay_req_without_resp,
        /// Two-step Pdelay_Resp to this port whose Pdelay_Resp_Follow_Up did not come.
        pdelay_resp_without_follow_up,
        /// Answers to peer delay requests that are not known, or from a second port.
        pdelay_resp_refused,
        /// Answers of this port to requests of ports that are not known.
        unknown_requester,
        /// Messages that say again what has been said.
        duplicate,
        /// Exchanges that were complete but for the stamp of this host.
        stamp_missing,
        /// Sync so far from the others that the filter left it out.
        outlier,
        /// Sync after which one of the clocks had been set.
        clock_jump,
    }
}
