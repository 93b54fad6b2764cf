//! Steering a clock of the host on behalf of `run`: who else steers it, taking it over, looking after
//! it once a second, and leaving it in order.

use std::path::{Path, PathBuf};

use ptp_common::time::{Duration, Mono, Time};

use super::{AgentError, drive::Drive};
use crate::{
    clock::{
        Clock, ClockError,
        followed::Followed,
        phc,
        policy::Limits,
        rivals, saved,
        system::{HostKernel, Keeping, Kernel, SystemClock},
    },
    engine::{Monotonic, discipline::Discipline},
    servo::{ServoState, Trust},
};

/// How a clock of the host is steered.
#[derive(Clone, Debug, PartialEq)]
pub struct Steering {
    /// What may be done to it.
    pub limits: Limits,
    /// Where its frequency is kept from one run to the next.
    pub frequency_file: Option<PathBuf>,
    /// What that said, parts per billion.
    pub frequency_ppb: Option<f64>,
    /// To steer though another program is known to.
    pub beside_others: bool,
}

/// Takes the system clock over, unless another program steers it.
pub(super) async fn take_over_system(steering: &Steering) -> Result<Followed, AgentError> {
    let mut found = rivals::programs().into_iter().next().map(|program| format!("{program} runs"));
    if found.is_none() {
        let state = || {
            HostKernel.state().map_err(|source| ClockError::Os {
                action: "read the state of",
                clock: "system".into(),
                source: source.into(),
            })
        };
        let before = state()?;
        tokio::time::sleep(rivals::WATCH).await;
        found = rivals::change(&before, &state()?);
    }
    if let Some(what) = found {
        let error = ClockError::Interference { clock: "system".into(), what };
        if !steering.beside_others {
            return Err(error.into());
        }
        tracing::warn!(%error, "goes on all the same, as it is told to in the configuration");
    }
    let clock =
        SystemClock::take_over(Box::new(HostKernel), steering.limits, steering.frequency_ppb)?;
    tracing::info!(frequency_ppb = clock.frequency_ppb(), "steers CLOCK_REALTIME");
    Ok(Followed::System(Box::new(clock)))
}

/// Takes a hardware clock over, unless another program steers it.
pub(super) fn take_over_phc(device: &Path, steering: &Steering) -> Result<Followed, AgentError> {
    let clock = phc::take_over(device, steering.limits)?;
    tracing::info!(device = %device.display(), "steers");
    Ok(Followed::Phc(Box::new(clock)))
}

/// Once a second. Returns whether somebody else has stepped the clock.
pub(super) fn keep(
    client: &mut Discipline<Followed>,
    now: Time<Mono>,
    grandmaster_accuracy: Option<Duration>,
) -> Result<bool, AgentError> {
    let state = client.servo().state();
    let trust = client.trust(now);
    // The kernel has no word for what a bound is against; the status has.
    let bound = |trust: Trust| client.origin().utc_bound(&trust, grandmaster_accuracy).0;
    let error_bound = trust.map(bound);
    let properties = client.receiver().parent().map(|parent| parent.time_properties);
    let clock = match client.clock_mut() {
        Followed::System(clock) => clock,
        Followed::Phc(clock) => return clock.keep().map(|()| false).map_err(AgentError::from),
        Followed::Virtual(_) | Followed::Watched(_) => return Ok(false),
    };
    let mut is_stepped = false;
    while let Some(by) = clock.next_foreign_step() {
        tracing::warn!(by_ns = by.as_nanos(), "somebody else has stepped the clock");
        is_stepped = true;
    }
    clock.keep(Keeping {
        now,
        state,
        precision: trust.map(|trust| trust.precision),
        error_bound,
        time_properties: properties.as_ref(),
    })?;
    Ok(is_stepped)
}

/// At the end, however it came: the clock runs on with the frequency that was learnt, which is kept.
pub(super) fn release(
    runner: &mut Drive<Discipline<Followed>>,
    now: Time<Mono>,
    steering: Option<&Steering>,
) {
    let Some(steering) = steering else {
        return;
    };
    runner.with(now, &Monotonic::default(), |client, cx| client.release(cx));
    let client = &mut runner.engine;
    let has_learnt = client.servo().state() == ServoState::Holdover;
    let frequency_ppb = client.clock().frequency_ppb();
    let released = match client.clock_mut() {
        Followed::System(clock) => clock.release(),
        Followed::Phc(clock) => clock.release(),
        Followed::Virtual(_) | Followed::Watched(_) => Ok(()),
    };
    if let Err(error) = released {
        tracing::warn!(%error, "clock");
    }
    if let Some(path) = &steering.frequency_file
        && has_learnt
        && let Err(error) = saved::write(path, frequency_ppb)
    {
        tracing::warn!(%error, path = %path.display(), "cannot keep the frequency");
    }
}
