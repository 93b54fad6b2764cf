//! The laboratory: the agent's main job on an embedded default, with the truth known.

pub mod netns;
pub mod truth;
