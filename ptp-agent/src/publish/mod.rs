//! What the agent tells others about the clock that it follows: JSON lines, Prometheus metrics, and
//! the HTTP server for them.

pub mod http;
pub mod json;
pub mod metrics;
