//! One interface's coming and going: which points its packets are stamped at, and what is done when it goes and
//! when it is back.

use super::*;

impl Io {
    /// Compares what the interfaces are with what they were, and opens again what has come back.
    pub(super) fn check_links(&mut self, now: Time<Mono>) {
        for (index, port) in self.ports.iter_mut().enumerate() {
            let number = PortIndex(u16::try_from(index).unwrap_or(u16::MAX));
            let state = match &port.transport {
                Some(transport) => transport.link_state(&port.interface),
                None => link_state(&port.interface),
            };
            let gone = match state {
                LinkState::Missing => true,
                LinkState::Up(ifindex) => ifindex != port.ifindex,
                LinkState::Down => false,
            };
            if gone && port.transport.is_some() {
                port.counts = port.counts();
                port.transport = None;
                self.programs.detach(port.ifindex);
            }
            let wanted = matches!(state, LinkState::Up(_));
            port.reopen_at = None;
            if wanted && port.transport.is_none() {
                let kind = self.config.transport_of(&port.interface);
                let is_shared = self.config.shares_event_port();
                match reopen(
                    &mut self.programs,
                    kind,
                    &port.interface,
                    is_shared,
                    &self.config.marking,
                ) {
                    Ok((transport, hooks)) => {
                        port.ifindex = transport.ifindex();
                        port.driver_stamps =
                            wants_driver_stamps(self.config.tx_source, &transport, &port.interface);
                        let wanted = [self.config.rx_source, self.config.tx_source];
                        // The card may be another one; the one before is told what it was told before.
                        port.card = None;
                        port.card = card(wanted, &transport, &port.interface)
                            .inspect_err(|error| tracing::warn!(%error, "hardware stamps"))
                            .ok()
                            .flatten();
                        port.transport = Some(transport);
                        self.hooks[index] = hooks;
                        port.complaint.clear();
                        // Perhaps another driver: measure anew.
                        port.rx.compare_anew(rx_selector(self.config.rx_source, hooks));
                        port.tx.compare_anew(tx_selector(self.config.tx_source));
                        port.primer = Primer::new(self.config.prime, &port.interface);
                        port.brackets = Default::default();
                    }
                    Err(error) => {
                        port.report(&format!(
                            "{} is back but cannot be used: {error}",
                            port.interface
                        ));
                        port.reopen_at = Some(now + REOPEN);
                    }
                }
            }
            let up = wanted && port.transport.is_some();
            if up != port.up {
                port.up = up;
                let state = engine::LinkState::up_if(up);
                self.ready.push_back(Delivery::Link { port: number, state });
            }
        }
        self.check_places();
    }
}

pub(super) fn rx_selector(wanted: Choice, hooks: AttachedHooks) -> Selector {
    use StampSource::{Hardware, Stack, TcIngress};
    match wanted.received_at(hooks) {
        None => Selector::automatic(&[Stack, TcIngress]),
        Some(Stack) => Selector::fixed(&[Stack, TcIngress]),
        Some(TcIngress) => Selector::fixed(&[TcIngress, Stack]),
        Some(Hardware) => Selector::fixed(&[Hardware, Stack, TcIngress]),
        Some(xdp) => Selector::fixed(&[xdp, Stack, TcIngress]),
    }
}

/// Whether the driver is to stamp as well: only where its stamp is asked for, because taking it costs the
/// packet half a microsecond on its way. That it cannot be asked for leaves the other points.
pub(super) fn wants_driver_stamps(wanted: Choice, transport: &Transport, interface: &str) -> bool {
    if !wanted.is(StampSource::DriverSoftware) {
        return false;
    }
    let asked = transport.ask_for_driver_stamps(true);
    if let Err(error) = &asked {
        tracing::warn!(interface, %error, "cannot ask for the driver's transmit stamps");
    }
    asked.is_ok()
}

pub(super) fn tx_selector(wanted: Choice) -> Selector {
    use StampSource::{DriverSoftware, Hardware, StartXmit, TcEgress, XmitDone};
    match wanted {
        Choice::Fixed(DriverSoftware) => {
            Selector::fixed(&[DriverSoftware, XmitDone, StartXmit, TcEgress])
        }
        Choice::Fixed(Hardware) => Selector::fixed(&[Hardware, StartXmit, XmitDone, TcEgress]),
        Choice::Fixed(XmitDone) => {
            Selector::fixed(&[XmitDone, StartXmit, TcEgress, DriverSoftware])
        }
        Choice::Fixed(StartXmit) => {
            Selector::fixed(&[StartXmit, XmitDone, TcEgress, DriverSoftware])
        }
        Choice::Fixed(TcEgress) => Selector::fixed(&[TcEgress, DriverSoftware]),
        // What is behind the driver is later than the wire by nobody knows how much: it only shows how far
        // before the wire the others are at the most. The driver's is asked for only where packets do not
        // reach the programs.
        _ => Selector::automatic(&[StartXmit, TcEgress]).with_stand_in(DriverSoftware),
    }
}

/// Asks the card of an interface for its stamps, where these are wanted.
///
/// # Errors
/// [`HardwareError`].
pub(super) fn card(
    [rx, tx]: [Choice; 2],
    transport: &Transport,
    interface: &str,
) -> Result<Option<Card>, HardwareError> {
    if !rx.is(StampSource::Hardware) && !tx.is(StampSource::Hardware) {
        return Ok(None);
    }
    let card = Card::open(interface, monotonic())?;
    if tx.is(StampSource::Hardware)
        && let Err(error) = transport.ask_for_hardware_stamps()
    {
        return Err(HardwareError::Refused { interface: interface.to_owned(), error });
    }
    Ok(Some(card))
}

impl Port {
    /// Counts an event message, and tells the kernel to hold back who sends too many. Whether this one is too many itself.
    pub(super) fn hold_back(
        &mut self,
        now: Time<Mono>,
        source: Option<Address>,
        bytes: &[u8],
    ) -> bool {
        let identity = bytes.get(20..30).and_then(|identity| identity.try_into().ok());
        let Some(transport) = &self.transport else { return false };
        let dropped = || transport.overflowed();
        let Some(held) = self.crowd.count(now, source, identity, dropped) else {
            return self.crowd.is_excess(source, identity);
        };
        let senders = (!held.is_everybody).then_some(&held.senders[..]);
        match transport.hold_back(senders, &held.regulars, held.keep) {
            Ok(()) => tracing::debug!(interface = self.interface, ?held, "senders held back"),
            Err(error) => tracing::debug!(interface = self.interface, %error, "senders"),
        }
        self.crowd.is_excess(source, identity)
    }

    pub(super) fn counts(&self) -> IoCounts {
        let overflowed = self.transport.as_ref().map_or(0, Transport::overflowed);
        let socket_overflow = self.counts.socket_overflow + overflowed;
        IoCounts { socket_overflow, ..self.counts }
    }

    /// Prepares the way for an event message in the manner that it is to be sent in. In which it is.
    pub(super) fn prepare(&mut self) -> Manner {
        let primed = match self.sending {
            Sending::Free => self.primer.before_event(),
            Sending::Told(Manner::Primed) => self.primer.prime(),
            Sending::Told(Manner::Plain) => false,
        };
        if primed { Manner::Primed } else { Manner::Plain }
    }

    /// Reads the driver's stamps. The ring has been read before, so their packets are known.
    pub(super) fn collect_driver_stamps(&mut self) {
        if let Some(wire) = &self.wire {
            let relation = ClockRelation::now();
            while let Some((message, real)) = wire.next(&mut self.buffer) {
                // A frame may have been padded.
                let said = message.get(2..4).map_or(0, |said| {
                    usize::from(u16::from_be_bytes([said[0], said[1]])).min(message.len())
                });
                let stamp = Stamp::new(relation.mono_at(real), StampSource::Stack);
                self.tx.pairing.amend_message(self.ifindex, &message[..said], stamp);
            }
        }
        if let (Some(card), Some(transport)) = (&self.card, &self.transport) {
            while let Some((message, time)) = transport.next_hardware_stamp(&mut self.buffer) {
                if let Some(stamp) = card.stamp(time) {
                    self.tx.pairing.amend_message(self.ifindex, message, stamp);
                }
            }
            return;
        }
        let Some(transport) = self.transport.as_ref().filter(|_| self.driver_stamps) else {
            return;
        };
        let relation = ClockRelation::now();
        while let Some((message, real)) = transport.next_driver_stamp(&mut self.buffer) {
            let source = StampSource::DriverSoftware;
            let stamp = Stamp::new(relation.mono_at(real), source);
            if !self.tx.pairing.amend_message(self.ifindex, message, stamp) {
                self.standby.keep(message, stamp);
            }
        }
    }

    pub(super) fn stop_driver_stamps(&mut self) {
        if self.driver_stamps
            && !self.tx.reach.is_displaced()
            && let Some(transport) = &self.transport
        {
            self.driver_stamps = transport.ask_for_driver_stamps(false).is_err();
        }
    }

    /// Says a problem once, until it is another or has gone away, and not too often.
    pub(super) fn report(&mut self, problem: &str) {
        if self.complaint.is_news(monotonic(), problem) {
            tracing::warn!("{problem}");
        }
    }
}

fn reopen(
    programs: &mut Programs,
    kind: TransportKind,
    interface: &str,
    is_shared: bool,
    marking: &Marking,
) -> Result<(Transport, AttachedHooks), IoError> {
    let hooks = programs.attach_beside_xdp(interface)?;
    // Nobody else is to have the port, but the own client of NTP may have it by now.
    let open = if is_shared { Transport::open_shared } else { Transport::open };
    Ok((open(kind, interface, marking)?, hooks))
}

pub(super) async fn receive_any(ports: &mut [Port]) -> (PortIndex, io::Result<Received>) {
    let mut receiving: Vec<_> = ports
        .iter_mut()
        .enumerate()
        .filter_map(|(index, Port { transport, buffer, .. })| {
            let transport = transport.as_ref()?;
            let index = PortIndex(u16::try_from(index).unwrap_or(u16::MAX));
            Some(Box::pin(async move { (index, transport.receive(buffer).await) }))
        })
        .collect();
    if receiving.is_empty() {
        return pending().await;
    }
    poll_fn(|context| {
        for future in &mut receiving {
            if let Poll::Ready(result) = pin!(future).poll(context) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}
