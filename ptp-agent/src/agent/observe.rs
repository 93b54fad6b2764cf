//! `ptp-agent observe`.
