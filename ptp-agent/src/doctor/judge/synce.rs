//! Synchronous Ethernet: what a neighbour tells by ESMC, and what the kernel's DPLLs do. A link without it is as good for
//! PTP as one with it, so that nothing here is more than a warning.

use crate::{
    doctor::{check::Check, facts::Heard},
    publish::snapshot::DpllStatus,
    synce::{dpll_text, esmc_text},
};

const ESMC: &str = "esmc";
const DPLL: &str = "dpll";
/// QL-DNU.
const NOT_TO_BE_USED: u8 = 15;

/// What listening has brought; nothing where nobody listened, which another check says.
pub(super) fn esmc(heard: Option<&Heard>) -> Option<Check> {
    let heard = heard?;
    let status = match &heard.esmc {
        Err(problem) => return Some(Check::skip(ESMC, format!("not heard: {problem}"))),
        Ok(None) => {
            let text =
                format!("no ESMC in {} s: no synchronous Ethernet on this link", heard.seconds);
            return Some(Check::skip(ESMC, text));
        }
        Ok(Some(status)) => status,
    };
    let text = esmc_text(status);
    Some(match status.rank {
        None => Check::warn(
            ESMC,
            text,
            "look at how the neighbour is configured for synchronous Ethernet",
        ),
        Some(NOT_TO_BE_USED) => Check::warn(
            ESMC,
            text,
            "the neighbour takes its frequency from here, or has none: do not take the card's from this link",
        ),
        Some(_) => Check::ok(ESMC, text),
    })
}

/// The kernel's DPLLs, where it has any.
pub(super) fn dplls(dplls: Option<&Result<Vec<DpllStatus>, String>>) -> Option<Check> {
    let dplls = match dplls? {
        Err(problem) => return Some(Check::skip(DPLL, problem)),
        Ok(dplls) if dplls.is_empty() => return Some(Check::skip(DPLL, "the kernel has none")),
        Ok(dplls) => dplls,
    };
    let text = dplls.iter().map(dpll_text).collect::<Vec<_>>().join("; ");
    let is_lost = |dpll: &DpllStatus| ["unlocked", "holdover"].contains(&dpll.lock_status.as_str());
    Some(match dplls.iter().find(|dpll| is_lost(dpll)) {
        Some(dpll) => Check::warn(
            DPLL,
            text,
            format!(
                "DPLL {} follows no input: look at its pins and at ESMC of their links",
                dpll.id
            ),
        ),
        None => Check::ok(DPLL, text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::check::Status, publish::snapshot::EsmcStatus};

    #[test]
    fn a_link_that_is_not_to_be_used_is_a_warning_and_one_without_esmc_is_none() {
        let judged = |esmc| esmc_of(Ok(esmc)).status;
        let with = |rank| {
            Some(EsmcStatus { level: Some("QL".into()), rank: Some(rank), ..EsmcStatus::default() })
        };
        assert_eq!(judged(with(3)), Status::Ok);
        assert_eq!(judged(with(15)), Status::Warn);
        assert_eq!(judged(None), Status::Skip);
        assert_eq!(esmc_of(Err("not permitted".to_owned())).status, Status::Skip);
        assert!(esmc(None).is_none());
    }

    fn esmc_of(esmc: Result<Option<EsmcStatus>, String>) -> Check {
        super::esmc(Some(&Heard { esmc, ..Heard::default() })).unwrap()
    }

    #[test]
    fn a_loop_that_follows_nothing_is_a_warning() {
        let judged = |lock: &str| {
            let dpll = DpllStatus { lock_status: lock.to_owned(), ..DpllStatus::default() };
            dplls(Some(&Ok(vec![dpll]))).unwrap().status
        };
        assert_eq!((judged("locked_ho_acq"), judged("holdover")), (Status::Ok, Status::Warn));
        assert_eq!(dplls(Some(&Err("none".to_owned()))).unwrap().status, Status::Skip);
    }
}
