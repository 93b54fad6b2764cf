//! What the status says of unicast: who is asked for time and what was granted, and what is granted to others.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

/// Unicast on a port; what does not apply is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unicast {
    /// To whom Delay_Req go: `unicast`, `multicast`, or `fallback` where the time transmitter alone did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_req: Option<Cow<'static, str>>,
    /// Whom it asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Server>,
    /// Whom it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
}

/// A promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// Interval, log2 s.
    pub log_interval: i8,
    /// For how much longer, s.
    pub remaining_s: f64,
}

/// One that is asked for time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// As it was named.
    pub name: String,
    /// Its address, once that is known.
    pub address: Option<String>,
    /// Its port, once it has answered.
    pub port: Option<String>,
    /// `followed`, `announced`, `asked`, `refused`, ...
    pub state: Cow<'static, str>,
    /// What it has granted, by type.
    pub grants: BTreeMap<Cow<'static, str>, Grant>,
    /// Refusals in a row.
    pub refusals: u8,
    /// Requests in a row without an answer.
    pub unanswered: u8,
}

/// What is granted to others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// How many clients.
    pub clients: usize,
    /// Grants, by type.
    pub grants: BTreeMap<Cow<'static, str>, u32>,
    /// What became of requests and grants.
    pub requests: BTreeMap<Cow<'static, str>, u64>,
    /// Messages that were sent as granted.
    pub sent: u64,
    /// Those of them that were sent more than 10 ms after their time.
    pub late: u64,
    /// Messages that were granted and not sent, since the next one of the same client was due already.
    pub skipped: u64,
    /// The first of the clients.
    pub of: Vec<Client>,
}

/// One that has grants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Client {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: String,
    /// What it was granted, by type.
    pub grants: BTreeMap<Cow<'static, str>, Grant>,
}
