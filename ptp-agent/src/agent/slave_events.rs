//! Slave event monitoring: what a time receiver has measured of each Sync and each Delay_Req, sent to a local socket as
//! Signaling, as linuxptp's ptp4l does. Whoever listens there has all four stamps of an exchange. Nobody waits for it.

use std::{collections::BTreeMap, io, os::unix::net::UnixDatagram, path::PathBuf};

use ptp_common::{
    time::{Duration, Ptp, Time},
    wire::{
        Body, DelayTiming, EventTiming, Header, Message, PortIdentity, SyncTiming, TimeInterval,
        Timestamp, Tlvs,
    },
};

use crate::engine::outcome::{Measurement, Observation};

/// See the module's paragraph.
#[derive(Debug)]
pub(super) struct SlaveEvents {
    socket: UnixDatagram,
    path: PathBuf,
    /// Of Sync, and of Delay_Req.
    sequence_ids: [u16; 2],
    /// Messages that were sent, and those that nobody took.
    counts: (u64, u64),
}

impl SlaveEvents {
    /// To whoever listens at `path`, now or later.
    ///
    /// # Errors
    /// What the kernel says to a socket more.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, sequence_ids: [0; 2], counts: (0, 0) })
    }

    /// By outcome.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([("sent", self.counts.0), ("unsent", self.counts.1)])
    }

    /// Sends what was measured, if it is of a Sync or a Delay_Req. `port` is the own one, `clock` says what the clock
    /// showed, `asymmetry` is what was added for the path.
    pub(super) fn measured(
        &mut self,
        port: &Header,
        measurement: &Measurement,
        asymmetry: Duration,
        clock: impl Fn(Time<ptp_common::time::Mono>) -> Time<Ptp>,
    ) {
        let stamp = |time| Timestamp::from_time(time).0;
        let (which, timing) = match measurement.observation {
            Observation::Sync(sync) => (
                0,
                EventTiming::Sync(SyncTiming {
                    sequence_id: sync.sequence_id,
                    origin: stamp(sync.t1 - sync.correction - asymmetry),
                    correction: sync.correction.into(),
                    rate_offset: 0,
                    ingress: stamp(clock(sync.t2.time)),
                }),
            ),
            Observation::Delay(delay) => (
                1,
                EventTiming::Delay(DelayTiming {
                    sequence_id: delay.sequence_id,
                    origin: stamp(clock(delay.t3.time)),
                    correction: delay.correction.into(),
                    response: stamp(delay.t4 + delay.correction - asymmetry),
                }),
            ),
            Observation::PeerDelay(_) | Observation::LinkTold(_) => return,
        };
        let sequence_id = self.sequence_ids[which];
        self.sequence_ids[which] = sequence_id.wrapping_add(1);
        let mut header = *port;
        (header.sequence_id, header.correction) = (sequence_id, TimeInterval(0));
        let sent = message(header, measurement.parent, &timing)
            .and_then(|bytes| self.socket.send_to(&bytes, &self.path).ok());
        match sent {
            Some(_) => self.counts.0 += 1,
            None => self.counts.1 += 1,
        }
    }
}

fn message(header: Header, parent: PortIdentity, timing: &EventTiming) -> Option<Vec<u8>> {
    let mut room = [0; EventTiming::MAX_LENGTH];
    let length = timing.emit(parent, &mut room).ok()?;
    let message = Message {
        header,
        body: Body::Signaling { target_port_identity: PortIdentity::ALL },
        tlvs: Tlvs::new(&room[..length]).ok()?,
    };
    let mut bytes = vec![0; 44 + EventTiming::MAX_LENGTH];
    let length = message.emit(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}
