//! What the agent tells others about the clock that it follows.

pub mod json;
