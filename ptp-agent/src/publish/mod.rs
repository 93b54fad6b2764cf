//! What the agent tells others about the clock that it follows: JSON lines, Prometheus metrics, the
//! HTTP server for them, alarms, and reports with statistics and plots.

pub mod alarms;
pub mod http;
pub mod json;
pub mod metrics;
pub mod plot;
pub mod report;
pub mod statistics;
pub mod text;
