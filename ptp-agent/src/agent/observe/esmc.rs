//! What ESMC says, told once a second where it was heard: a line of text or of JSON for each interface.

use ptp_common::time::{Mono, Time};
use serde::Serialize;

use super::super::{AgentError, drive::HOUSEKEEPING, print};
use crate::{
    publish::{json::Output, snapshot::EsmcStatus},
    synce::{SyncE, esmc_text},
};

/// A line of JSON.
#[derive(Serialize)]
struct EsmcLine {
    event: &'static str,
    #[serde(flatten)]
    status: EsmcStatus,
}

/// Tells what was heard since the last time.
pub(super) fn tell(
    output: Option<&Output>,
    now: Time<Mono>,
    synce: &SyncE,
) -> Result<(), AgentError> {
    let is_news =
        |status: &EsmcStatus| status.age_s.is_some_and(|age| age <= HOUSEKEEPING.as_secs_f64());
    for status in synce.status(now).into_iter().filter(is_news) {
        match output {
            Some(output) => output.emit(&EsmcLine { event: "esmc", status })?,
            None => print(&format!("{} SyncE: {}", status.interface, esmc_text(&status)))?,
        }
    }
    Ok(())
}
