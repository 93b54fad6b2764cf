//! What agents that run here say of themselves, through their status sockets. The sockets are the
//! whole host's; those of other network namespaces are left out.

use std::fs;

use crate::{doctor::facts::Agent, publish::local};

pub(super) fn read() -> Vec<Agent> {
    let paths = local::running().unwrap_or_default();
    let all = paths.iter().filter_map(|path| local::read_status(path).ok());
    all.filter_map(|answer| {
        // Whose answer it is counts even where the rest is not understood.
        let process = answer.get("pid")?.as_u64()?;
        is_of_this_namespace(process).then(|| Agent::new(process, &answer))
    })
    .collect()
}

fn is_of_this_namespace(process: u64) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
    match (namespace("self"), namespace(&process.to_string())) {
        (Ok(own), Ok(other)) => own == other,
        // That of somebody else cannot be told; most hosts have one for all.
        _ => true,
    }
}
