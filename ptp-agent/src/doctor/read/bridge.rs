//! How long PTP messages are inside a bridge: the transparent clock's own programs, which time and change
//! nothing.

use std::time::Duration;

use crate::{
    doctor::facts::{BridgePort, Inside, Watched},
    publish::metrics::{Forwarding, Way},
    transparent::{
        Transparent, TransparentConfig, TransparentError, figures::quantile_ns, ports::Wanted,
    },
};

/// Seconds, unless told otherwise.
const USUAL: u16 = 5;

pub(super) fn measure(name: &str, seconds: Option<u16>) -> Watched {
    let seconds = seconds.unwrap_or(USUAL);
    let watched = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            runtime.block_on(watch(name, seconds)).map_err(|error| error.to_string())
        });
    Watched { name: name.to_owned(), seconds, ports: watched }
}

async fn watch(name: &str, seconds: u16) -> Result<Vec<BridgePort>, TransparentError> {
    let mut config = TransparentConfig::new(Wanted::Bridge(name.to_owned()));
    config.is_dry = true;
    let mut clock = Transparent::start(config).await?;
    let seen = clock.watch(Duration::from_secs(seconds.into())).await?;
    let port = |(name, (_, port)): (&String, &(u8, crate::transparent::ports::Port))| BridgePort {
        name: name.clone(),
        is_switched: port.is_switched,
        flows: port.flows,
        downstream: seen.get(name).and_then(|seen| inside(seen, Way::Downstream)),
        upstream: seen.get(name).and_then(|seen| inside(seen, Way::Upstream)),
        is_relayed: seen
            .get(name)
            .is_some_and(|seen| seen.messages.keys().any(|(_, outcome)| *outcome == "relayed")),
    };
    Ok(clock.ports().iter().map(port).collect())
}

fn inside(seen: &Forwarding, way: Way) -> Option<Inside> {
    let (counts, _) = seen.residence.get(&way)?;
    Some(Inside {
        n: counts.iter().sum(),
        p50_ns: quantile_ns(counts, 0.5)?,
        p99_ns: quantile_ns(counts, 0.99)?,
        max_ns: quantile_ns(counts, 1.0)?,
    })
}
