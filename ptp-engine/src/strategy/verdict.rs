//! What would be truest, by the round trips and the scatter of both ways.

use super::*;

impl Strategist {
    /// What would be truest now; `None` while too little is known.
    pub(super) fn verdict(&mut self) -> Option<Strategy> {
        let line = self.line?;
        let rounds: Vec<f64> = self.syncs.iter().filter_map(|sync| sync.round_ns).collect();
        if rounds.len() < LEAST_SYNCS {
            return None;
        }
        let usual = quantile(rounds, 0.5)?;
        let fastest = self.gone_by_ns?;
        let excess = self
            .requests
            .iter()
            .rev()
            .filter(|request| self.use_of_request(request.manner) == Use::Learn)
            .take(LINE)
            .map(|request| request.back_ns - line.at(request.input.t3.mono));
        let request_noise = quantile(excess.collect(), 0.5)?;
        let round_of = |is_wanted: fn(f64) -> bool| {
            let wanted = |sync: &&Sync| is_wanted(sync.lead_ns.unwrap_or(f64::INFINITY));
            let rounds = self.syncs.iter().filter(wanted).filter_map(|sync| sync.round_ns);
            quantile(rounds.collect(), 0.5)
        };
        let (unasked, asked) = (round_of(|lead| lead > COOLED), round_of(|lead| lead <= WARMED));
        let is_primeable = self.evidence.verdict();
        self.findings = Findings {
            remote_priming_ns: unasked.zip(asked).map(|(unasked, asked)| unasked - asked),
            round_trip_ns: Some(fastest),
            sync_noise_ns: Some(usual - fastest),
            request_noise_ns: Some(request_noise),
            is_primeable,
            is_priming_late: self.is_priming_late,
        };
        let quiet_ns = QUIET_NS.max(QUIET_FACTOR * request_noise + 50.0);
        // What made it quiet must not be given up for it.
        let quiet_ns = if self.strategy == Strategy::Remote { 0.5 * quiet_ns } else { quiet_ns };
        let is_quiet = usual - fastest <= quiet_ns;
        Some(if is_quiet { Strategy::Primed } else { Strategy::Remote })
    }
}
