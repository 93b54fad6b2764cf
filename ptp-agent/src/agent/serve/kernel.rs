//! The kernel's part of a grandmaster's answers: whether it can be had, and at which hook, and what its figures are.

use std::collections::BTreeMap;

use super::ServeConfig;
use crate::{
    agent::{
        AgentError,
        io::{IoConfig, IoError},
    },
    answers::{self, Answers, Mode},
    capture::Choice,
    engine::{PortIndex, counters::Counters},
    stamp::StampSource,
};

/// How the agent itself stamps: nobody tells a grandmaster when its messages arrived, so there is nothing to compare
/// points by. Where XDP may be had for the answers it is theirs, since an interface has one such place.
pub(super) fn io_config(config: &ServeConfig) -> IoConfig {
    let io = &config.common.io;
    let rx_source = match io.rx_source {
        Choice::AnyXdp | Choice::Fixed(StampSource::XdpNative) if leaves_xdp(config) => {
            Choice::Fixed(StampSource::Stack)
        }
        other => other.or(StampSource::Stack),
    };
    IoConfig { rx_source, tx_source: io.tx_source.or(StampSource::StartXmit), ..io.clone() }
}

/// Whether XDP is the answers', by mode and by what the stamps are to be taken by.
fn leaves_xdp(config: &ServeConfig) -> bool {
    obstacle(config).is_none() && matches!(config.answers.mode, Mode::Auto | Mode::Xdp)
}

/// A program has no keys, and does not see the other end of a wire.
fn obstacle(config: &ServeConfig) -> Option<&'static str> {
    let io = &config.common.io;
    if io.security.is_some() {
        Some("messages are authenticated")
    } else if !io.wire.is_empty() {
        Some("stamps are taken at the other end of the wire")
    } else if io.rx_source.is(StampSource::XdpGeneric)
        || (config.answers.mode == Mode::Tc && io.rx_source.xdp().is_some())
    {
        Some("receive stamps are taken by XDP")
    } else if !io.marking.leaves_answers_alone() {
        Some("general messages are marked")
    } else {
        None
    }
}

/// The kernel's answers, where they are wanted and possible.
pub(super) fn open(config: &ServeConfig) -> Result<Option<Answers>, AgentError> {
    let io = &config.common.io;
    let mode = config.answers.mode;
    if mode == Mode::Off {
        return Ok(None);
    }
    if let Some(reason) = obstacle(config) {
        if mode != Mode::Auto {
            tracing::warn!(reason, "requests are answered by the agent");
        }
        return Ok(None);
    }
    let is_stack = io.rx_source != Choice::Fixed(StampSource::TcIngress);
    let opened = Answers::open(
        answers::Config { tries_xdp: io.rx_source.xdp().is_some(), ..config.answers.clone() },
        &io.interfaces,
        io.transport,
        is_stack,
        config.exchanges,
    );
    match opened {
        Ok(answers) => Ok(Some(answers)),
        Err(error) if mode == Mode::Tc => Err(IoError::Capture(error).into()),
        Err(error) => {
            tracing::info!(%error, "requests are answered by the agent");
            Ok(None)
        }
    }
}

/// Answers by who gave them, or why not.
pub(super) fn figures(
    answers: Option<&mut Answers>,
    port: PortIndex,
    counters: &Counters,
) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut figures = BTreeMap::new();
    figures.insert(("agent", "answered"), counters.delay_exchanges + counters.answers);
    for ((_, outcome), total) in
        answers.map(|each| each.counts(usize::from(port.0))).unwrap_or_default()
    {
        *figures.entry(("kernel", outcome.name())).or_default() += total;
    }
    figures
}
