//! What the agent tells others about the clock that it follows: JSON lines, Prometheus metrics, the
//! HTTP server for them, alarms, the service manager's part, what other programs are given in shared memory, and reports with
//! statistics and plots.

pub mod alarms;
pub(crate) mod attempt;
pub mod export;
mod format;
pub mod http;
pub mod json;
pub mod local;
pub mod management;
pub mod manager;
pub mod metrics;
pub mod plot;
pub mod report;
mod service;
pub mod snapshot;
pub mod statistics;
pub mod terminal;
pub mod text;

pub use format::Format;
