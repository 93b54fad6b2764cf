//! The kernel's part of answering: whether it can be had for what is asked of a server.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use super::{AgentError, IoError, ServeConfig};
use crate::{
    answers::{self, Answers},
    capture::Choice,
    stamp::StampSource,
};

/// The kernel's part of answering, where it is wanted and possible.
pub(super) fn open_answers(config: &ServeConfig) -> Result<Option<Answers>, AgentError> {
    let io = &config.common.io;
    // A program has no keys, and does not see the other end of a wire.
    let obstacle = if io.security.is_some() {
        Some("messages are authenticated")
    } else if !io.wire.is_empty() {
        Some("stamps are taken at the other end of the wire")
    } else if matches!(
        io.rx_source,
        Choice::AnyXdp | Choice::Fixed(StampSource::XdpNative | StampSource::XdpGeneric)
    ) {
        Some("receive stamps are taken by XDP")
    } else if !io.marking.leaves_answers_alone() {
        Some("general messages are marked")
    } else {
        None
    };
    let mode = config.answers.mode;
    if mode == answers::Mode::Off {
        return Ok(None);
    }
    if let Some(reason) = obstacle {
        if mode == answers::Mode::Tc {
            tracing::warn!(reason, "requests are answered by the agent");
        }
        return Ok(None);
    }
    let is_stack = io.rx_source != Choice::Fixed(StampSource::TcIngress);
    // The standard library's, which nobody can know.
    let key = RandomState::new().build_hasher().finish();
    let opened = Answers::open(
        config.answers.clone(),
        &io.interfaces,
        io.transport,
        is_stack,
        key,
        config.exchanges,
    );
    match opened {
        Ok(answers) => Ok(Some(answers)),
        Err(error) if mode == answers::Mode::Tc => Err(IoError::Capture(error).into()),
        Err(error) => {
            tracing::info!(%error, "requests are answered by the agent");
            Ok(None)
        }
    }
}
