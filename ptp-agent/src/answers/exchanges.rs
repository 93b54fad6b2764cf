//! Exchanges of two messages (CSPTP, SPTP) in the kernel: what the programs are told of them, and the trial. Where that
//! fails the agent answers them, and Delay_Req is answered in the kernel all the same.

use ptp_common::answer::interface;

use super::{Answers, PortAnswers, probe};
use crate::transport::TransportKind;

/// The most that may lie between a request's arrival and its answer's departure, in a trial.
const PLAUSIBLE: std::ops::Range<i64> = 0..100_000_000;

/// Puts a message among the numbers of an interface.
pub(super) fn put(numbers: &mut [u64], first: usize, message: &[u8]) {
    for (word, bytes) in numbers[first..].iter_mut().zip(message.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
}

impl Answers {
    /// The messages of a port's exchanges.
    pub(super) fn set_forms(
        &self,
        index: usize,
        numbers: &mut [u64; interface::LENGTH],
        wanted: &PortAnswers,
    ) {
        numbers[interface::EGRESS_LATENCY] = wanted.egress_latency.as_nanos() as u64;
        let is_possible = self.programs.has_exchanges()
            && self.ports[index].no_exchanges.is_none()
            && self.transport != TransportKind::L2;
        let Some(forms) = wanted.forms.filter(|_| is_possible) else { return };
        for (first, message) in [
            (interface::CSPTP_ANSWER, &forms.csptp[0]),
            (interface::CSPTP_FOLLOW_UP, &forms.csptp[1]),
            (interface::SPTP_SYNC, &forms.sptp[0]),
            (interface::SPTP_ANNOUNCE, &forms.sptp[1]),
        ] {
            put(numbers, first, message);
        }
        for (is_served, flag) in
            [(forms.served.csptp, interface::CSPTP), (forms.served.sptp, interface::SPTP)]
        {
            numbers[interface::FLAGS] |= if is_served { flag } else { 0 };
        }
    }

    /// Tries whether both messages go out. The program is the same for both kinds.
    pub(super) fn prove_exchanges(&mut self, index: usize, wanted: &PortAnswers, ifindex: u32) {
        let has_any = wanted.forms.is_some_and(|it| it.served != Default::default());
        if !has_any || !self.programs.has_exchanges() || self.transport == TransportKind::L2 {
            return;
        }
        let before = self.ports[index].no_exchanges.take();
        let mut numbers = self.numbers(index, wanted);
        // The trial is one of CSPTP.
        numbers[interface::FLAGS] |= interface::CSPTP;
        let _ = self.programs.set_interface(ifindex, Some(numbers));
        let problem = self.try_exchange(index, wanted, ifindex).err();
        let interface = &self.ports[index].interface;
        match &problem {
            Some(reason) if before.as_ref() != Some(reason) => {
                tracing::warn!(interface, reason, "CSPTP and SPTP are answered by the agent");
            }
            None if before.is_some() => {
                tracing::info!(interface, "CSPTP and SPTP are answered in the kernel again");
            }
            _ => {}
        }
        self.ports[index].no_exchanges = problem;
        let numbers = self.numbers(index, wanted);
        let _ = self.programs.set_interface(ifindex, Some(numbers));
        self.ports[index].told = Some(numbers);
    }

    fn try_exchange(
        &mut self,
        index: usize,
        wanted: &PortAnswers,
        ifindex: u32,
    ) -> Result<(), String> {
        let mut wanted = wanted.clone();
        wanted.domain = 0;
        let place = self.place(index, &wanted, ifindex)?;
        let port = &mut self.ports[index];
        port.sequence_id = port.sequence_id.wrapping_add(1);
        let sequence_id = port.sequence_id;
        let tried = probe::probe_exchange(&mut self.programs, &place, self.probe, sequence_id);
        let taken = tried.map_err(|error| error.to_string())?;
        match PLAUSIBLE.contains(&taken.as_nanos()) {
            true => Ok(()),
            false => Err(format!("the trial took {} ns", taken.as_nanos())),
        }
    }
}
