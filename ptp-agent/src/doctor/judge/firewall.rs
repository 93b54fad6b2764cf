//! Whether a packet filter lets PTP over UDP through. Rules come as nftables' JSON says them, which
//! is also what iptables' are turned into. A rule may ask for what cannot be known here, such as a
//! rate or an address; then the answer is "perhaps".

use serde_json::Value;

use crate::doctor::{check::Check, facts::Firewall};

/// Chains in chains; more is a loop, which the kernel refuses.
const MAX_DEPTH: usize = 16;

/// A packet as far as rules can know it.
#[derive(Clone, Copy, Debug)]
struct Packet<'a> {
    is_incoming: bool,
    port: u16,
    is_ipv6: bool,
    interface: &'a str,
}

/// Three-valued: a rule may ask for what is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Perhaps,
}
use Truth::{No, Perhaps, Yes};

impl From<bool> for Truth {
    fn from(is: bool) -> Self {
        if is { Yes } else { No }
    }
}

impl Truth {
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (No, _) | (_, No) => No,
            (Yes, Yes) => Yes,
            _ => Perhaps,
        }
    }

    const fn not(self) -> Self {
        match self {
            Yes => No,
            No => Yes,
            Perhaps => Perhaps,
        }
    }

    fn any(all: impl Iterator<Item = Self>) -> Self {
        all.fold(No, |any, one| any.not().and(one.not()).not())
    }
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Passes,
    Perhaps(String),
    Dropped(String),
}

pub(super) fn check(firewall: &Firewall, interface: &str) -> Check {
    const NAME: &str = "firewall";
    let rulesets = match firewall {
        Firewall::Unknown(why) => return Check::skip(NAME, why.clone()),
        Firewall::Rules(rulesets) => rulesets,
    };
    let mut doubt = None;
    for is_ipv6 in [false, true] {
        for (is_incoming, port) in [(true, 319), (true, 320), (false, 319), (false, 320)] {
            let packet = Packet { is_incoming, port, is_ipv6, interface };
            let direction = if is_incoming { "coming in" } else { "going out" };
            let what = if is_ipv6 { "IPv6, UDP port" } else { "UDP port" };
            for rules in rulesets {
                match fate(rules, packet) {
                    Fate::Passes => {}
                    Fate::Dropped(by) if !is_ipv6 => {
                        return Check::fail(
                            NAME,
                            format!("{what} {port} {direction} is dropped by {by}"),
                            "let UDP ports 319 and 320 pass both ways before that, for instance nft insert rule inet TABLE CHAIN udp dport { 319, 320 } accept; `observe` and --transport l2 are not concerned",
                        );
                    }
                    Fate::Dropped(by) => {
                        doubt
                            .get_or_insert(format!("{what} {port} {direction} is dropped by {by}"));
                    }
                    Fate::Perhaps(by) => {
                        doubt.get_or_insert(format!(
                            "{what} {port} {direction} may be dropped by {by}"
                        ));
                    }
                }
            }
        }
    }
    match doubt {
        Some(doubt) => Check::warn(
            NAME,
            doubt,
            "look at that rule: UDP ports 319 and 320 must pass both ways, with any source address",
        ),
        None => Check::ok(NAME, "UDP ports 319 and 320 pass both ways, as far as rules tell"),
    }
}

fn fate(rules: &Value, packet: Packet<'_>) -> Fate {
    let objects = rules.get("nftables").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let walk = Walk { objects, packet };
    let mut worst = Fate::Passes;
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        if !walk.is_on_the_way(chain) {
            continue;
        }
        match walk.base(chain) {
            Fate::Passes => {}
            doubt @ Fate::Perhaps(_) => worst = doubt,
            dropped @ Fate::Dropped(_) => return dropped,
        }
    }
    worst
}

/// How a chain ends for the packet.
#[derive(Debug)]
enum End {
    Accepted,
    Dropped(String),
}

/// What could have happened before.
#[derive(Debug, Default)]
struct Doubts {
    accepted: bool,
    dropped: Option<String>,
}

struct Walk<'a> {
    objects: &'a [Value],
    packet: Packet<'a>,
}

impl Walk<'_> {
    fn is_on_the_way(&self, chain: &Value) -> bool {
        let text = |key| chain.get(key).and_then(Value::as_str).unwrap_or_default();
        let hooks: &[&str] = if self.packet.is_incoming {
            &["ingress", "prerouting", "input"]
        } else {
            &["output", "postrouting", "egress"]
        };
        let is_of_device = match chain.get("dev") {
            None => true,
            Some(Value::Array(devices)) => devices.iter().any(|it| it == self.packet.interface),
            Some(device) => device == self.packet.interface,
        };
        hooks.contains(&text("hook")) && is_of_device && self.is_of_family(text("family"))
    }

    fn is_of_family(&self, family: &str) -> bool {
        let own = if self.packet.is_ipv6 { "ip6" } else { "ip" };
        ["inet", "netdev", own].contains(&family)
    }

    fn base(&self, chain: &Value) -> Fate {
        let mut doubts = Doubts::default();
        let end = self.chain(chain, &mut doubts, 0);
        let policy = chain.get("policy").and_then(Value::as_str);
        let end = end.unwrap_or_else(|| match policy {
            Some("drop") => End::Dropped(format!("the policy of chain {}", name(chain))),
            _ => End::Accepted,
        });
        match (end, doubts) {
            (End::Dropped(by), Doubts { accepted: false, .. }) => Fate::Dropped(by),
            (End::Dropped(by), _) => Fate::Perhaps(by),
            (End::Accepted, Doubts { dropped: Some(by), .. }) => Fate::Perhaps(by),
            (End::Accepted, _) => Fate::Passes,
        }
    }

    /// `None` where the packet comes out at the end.
    fn chain(&self, chain: &Value, doubts: &mut Doubts, depth: usize) -> Option<End> {
        if depth > MAX_DEPTH {
            return None;
        }
        let is_in = |rule: &Value| {
            rule.get("chain") == chain.get("name")
                && rule.get("table") == chain.get("table")
                && rule.get("family") == chain.get("family")
        };
        for rule in
            self.objects.iter().filter_map(|object| object.get("rule")).filter(|it| is_in(it))
        {
            let expressions = rule.get("expr").and_then(Value::as_array);
            let mut truth = Yes;
            for expression in expressions.into_iter().flatten() {
                let Some((kind, value)) = expression.as_object().and_then(|it| it.iter().next())
                else {
                    continue;
                };
                match kind.as_str() {
                    "match" => truth = truth.and(self.matches(rule, value)),
                    "limit" | "quota" | "xt" | "ct count" | "connlimit" => {
                        truth = truth.and(Perhaps)
                    }
                    "vmap" => {
                        let key = value.get("key").unwrap_or(&Value::Null);
                        let elements =
                            self.elements(rule, value.get("data").unwrap_or(&Value::Null));
                        for element in elements.unwrap_or_default() {
                            let Some([value, verdict]) = element.as_array().map(Vec::as_slice)
                            else {
                                continue;
                            };
                            let is = truth.and(self.is(rule, key, value));
                            let verdict = verdict.as_object().and_then(|it| it.iter().next());
                            let Some((kind, value)) = verdict else { continue };
                            match self.verdict(rule, kind, value, is, doubts, depth) {
                                Next::End(end) => return end,
                                Next::Rule => {}
                            }
                        }
                    }
                    _ => match self.verdict(rule, kind, value, truth, doubts, depth) {
                        Next::End(end) => return end,
                        Next::Rule => {}
                    },
                }
            }
        }
        None
    }

    fn verdict(
        &self,
        rule: &Value,
        kind: &str,
        value: &Value,
        truth: Truth,
        doubts: &mut Doubts,
        depth: usize,
    ) -> Next {
        let by = || match rule.get("text").and_then(Value::as_str) {
            Some(text) => format!("the rule {text}"),
            None => {
                let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or(0);
                let chain = rule.get("chain").unwrap_or(&Value::Null);
                let chain = serde_json::json!({
                    "family": rule.get("family"), "table": rule.get("table"), "name": chain,
                });
                format!("rule {handle} of chain {}", name(&chain))
            }
        };
        if truth == No {
            return Next::Rule;
        }
        match (kind, truth) {
            ("accept", Yes) => Next::End(Some(End::Accepted)),
            ("drop" | "reject", Yes) => Next::End(Some(End::Dropped(by()))),
            ("return", Yes) => Next::End(None),
            ("accept" | "return", _) => {
                doubts.accepted = true;
                Next::Rule
            }
            ("drop" | "reject", _) | ("queue", _) => {
                doubts.dropped.get_or_insert_with(by);
                Next::Rule
            }
            ("jump" | "goto", truth) => {
                let target = value.get("target");
                let is_target = |chain: &&Value| {
                    chain.get("name") == target
                        && chain.get("table") == rule.get("table")
                        && chain.get("family") == rule.get("family")
                };
                let chain = self.objects.iter().filter_map(|object| object.get("chain"));
                let end = match chain.into_iter().find(is_target) {
                    Some(chain) => self.chain(chain, doubts, depth + 1),
                    None => None,
                };
                match (end, truth) {
                    (Some(end), Yes) => Next::End(Some(end)),
                    (None, Yes) if kind == "goto" => Next::End(None),
                    (Some(End::Accepted), _) => {
                        doubts.accepted = true;
                        Next::Rule
                    }
                    (Some(End::Dropped(by)), _) => {
                        doubts.dropped.get_or_insert(by);
                        Next::Rule
                    }
                    (None, _) => Next::Rule,
                }
            }
            _ => Next::Rule,
        }
    }

    fn matches(&self, rule: &Value, test: &Value) -> Truth {
        let part = |key| test.get(key).unwrap_or(&Value::Null);
        let (left, right) = (part("left"), part("right"));
        let other = left.get("payload").and_then(|payload| payload.get("protocol"));
        if let Some(other) = other.and_then(Value::as_str)
            && self.is_other_protocol(other)
        {
            return No;
        }
        let equal = || self.is(rule, left, right);
        let number = || Some((self.value(left)?.as_u64()?, right.as_u64()?));
        let compared =
            |is: fn(u64, u64) -> bool| number().map_or(Perhaps, |(a, b)| is(a, b).into());
        match part("op").as_str() {
            Some("==" | "in") => equal(),
            Some("!=") => equal().not(),
            Some("<") => compared(|a, b| a < b),
            Some(">") => compared(|a, b| a > b),
            Some("<=") => compared(|a, b| a <= b),
            Some(">=") => compared(|a, b| a >= b),
            _ => Perhaps,
        }
    }

    fn is_other_protocol(&self, protocol: &str) -> bool {
        match protocol {
            "udp" | "th" | "ether" | "vlan" => false,
            "ip" => self.packet.is_ipv6,
            "ip6" => !self.packet.is_ipv6,
            _ => true,
        }
    }

    /// What the packet has there, as far as that is known.
    fn value(&self, left: &Value) -> Option<Value> {
        let Packet { is_incoming, port, is_ipv6, interface } = self.packet;
        let word = |text: &str| Some(Value::from(text));
        let text = |part: &Value, key: &str| {
            part.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        if let Some(payload) = left.get("payload") {
            return match text(payload, "field").as_str() {
                // PTP is sent from the port that it is sent to.
                "dport" | "sport" => Some(port.into()),
                "protocol" | "nexthdr" => word("udp"),
                "daddr" => word(if is_ipv6 { "ff0e::181" } else { "224.0.1.129" }),
                _ => None,
            };
        }
        if let Some(meta) = left.get("meta") {
            return match (text(meta, "key").as_str(), is_incoming) {
                ("l4proto", _) => word("udp"),
                ("nfproto", _) => word(if is_ipv6 { "ipv6" } else { "ipv4" }),
                ("protocol", _) => word(if is_ipv6 { "ip6" } else { "ip" }),
                ("iif" | "iifname", true) | ("oif" | "oifname", false) => word(interface),
                ("pkttype", true) => word("multicast"),
                _ => None,
            };
        }
        // Nobody answers a multicast from the address that it was sent to: it stays new.
        let state = left.get("ct").filter(|ct| text(ct, "key") == "state");
        state.and_then(|_| word("new"))
    }

    fn is(&self, rule: &Value, left: &Value, right: &Value) -> Truth {
        self.value(left).map_or(Perhaps, |value| self.is_in(rule, &value, right))
    }

    fn is_in(&self, rule: &Value, value: &Value, right: &Value) -> Truth {
        match right {
            Value::Array(_) => match self.elements(rule, right) {
                Some(all) => Truth::any(all.iter().map(|one| self.is_in(rule, value, one))),
                None => Perhaps,
            },
            Value::String(set) if set.starts_with('@') => match self.elements(rule, right) {
                Some(all) => Truth::any(all.iter().map(|one| self.is_in(rule, value, one))),
                None => Perhaps,
            },
            Value::String(pattern) => match (value.as_str(), pattern.strip_suffix('*')) {
                (Some(text), Some(prefix)) => text.starts_with(prefix).into(),
                (Some(text), None) => (text == pattern).into(),
                (None, _) => Perhaps,
            },
            Value::Number(number) => match value {
                Value::Number(own) => (own == number).into(),
                // Protocols may be numbers.
                Value::String(own) if own == "udp" => (number.as_u64() == Some(17)).into(),
                _ => Perhaps,
            },
            Value::Object(object) => self.is_in_object(rule, value, object),
            _ => Perhaps,
        }
    }

    fn is_in_object(
        &self,
        rule: &Value,
        value: &Value,
        object: &serde_json::Map<String, Value>,
    ) -> Truth {
        if let Some(set) = object.get("set") {
            let elements = set.as_array().map_or_else(|| vec![set.clone()], Clone::clone);
            return Truth::any(elements.iter().map(|one| self.is_in(rule, value, one)));
        }
        if let Some(element) = object.get("elem").and_then(|element| element.get("val")) {
            return self.is_in(rule, value, element);
        }
        if let Some([from, to]) = object.get("range").and_then(Value::as_array).map(Vec::as_slice) {
            return match (from.as_u64(), value.as_u64(), to.as_u64()) {
                (Some(from), Some(value), Some(to)) => (from..=to).contains(&value).into(),
                _ => Perhaps,
            };
        }
        if let Some(prefix) = object.get("prefix") {
            return is_in_prefix(value, prefix).map_or(Perhaps, Truth::from);
        }
        Perhaps
    }

    /// The elements of a set or a map, named or written out.
    fn elements(&self, rule: &Value, set: &Value) -> Option<Vec<Value>> {
        match set {
            Value::Array(elements) => Some(elements.clone()),
            Value::Object(object) => object.get("set")?.as_array().cloned(),
            Value::String(name) => {
                let name = name.strip_prefix('@')?;
                let is_it = |set: &&Value| {
                    set.get("name").and_then(Value::as_str) == Some(name)
                        && set.get("table") == rule.get("table")
                        && set.get("family") == rule.get("family")
                };
                let sets = self.objects.iter().filter_map(|it| it.get("set").or(it.get("map")));
                let set = sets.into_iter().find(is_it)?;
                Some(set.get("elem").and_then(Value::as_array).cloned().unwrap_or_default())
            }
            _ => None,
        }
    }
}

enum Next {
    Rule,
    End(Option<End>),
}

fn name(chain: &Value) -> String {
    let text = |key| chain.get(key).and_then(Value::as_str).unwrap_or("?");
    format!("{} {} {}", text("family"), text("table"), text("name"))
}

fn is_in_prefix(value: &Value, prefix: &Value) -> Option<bool> {
    let address: std::net::IpAddr = value.as_str()?.parse().ok()?;
    let network: std::net::IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
    let length = u32::try_from(prefix.get("len")?.as_u64()?).ok()?;
    let bits = |address| match address {
        std::net::IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 4),
        std::net::IpAddr::V6(address) => (u128::from(address), 6),
    };
    let ((address, one), (network, other)) = (bits(address), bits(network));
    let mask = u128::MAX.checked_shl(128u32.saturating_sub(length)).unwrap_or(0);
    Some(one == other && address & mask == network & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Status;
    use serde_json::json;

    /// A ruleset of one table whose chain `input` has these rules.
    fn ruleset(policy: &str, rules: &[Value]) -> Value {
        let chain = json!({"chain": {"family": "inet", "table": "t", "name": "input",
            "type": "filter", "hook": "input", "policy": policy}});
        let other = json!({"chain": {"family": "inet", "table": "t", "name": "other"}});
        let set = json!({"set": {"family": "inet", "table": "t", "name": "ports",
            "elem": [22, {"range": [300, 330]}]}});
        let rule = |(at, expr): (usize, &Value)| {
            json!({"rule": {"family": "inet", "table": "t", "handle": at, "expr": expr,
                "chain": if at >= 100 { "other" } else { "input" }}})
        };
        let rules = rules.iter().enumerate().map(rule);
        let objects: Vec<_> = [chain, other, set].into_iter().chain(rules).collect();
        json!({ "nftables": objects })
    }

    fn port(right: Value) -> Value {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}},
            "right": right}})
    }

    fn key(kind: &str, key: &str, right: Value) -> Value {
        json!({"match": {"op": "==", "left": {kind: {"key": key}}, "right": right}})
    }

    fn status(policy: &str, rules: &[Value]) -> Status {
        check(&Firewall::Rules(vec![ruleset(policy, rules)]), "eth0").status
    }

    #[test]
    fn empty_ruleset_lets_everything_pass() {
        let empty = Firewall::Rules(vec![json!({"nftables": []}), json!(null)]);
        assert_eq!(check(&empty, "eth0").status, Status::Ok);
        assert_eq!(status("accept", &[]), Status::Ok);
        assert_eq!(status("drop", &[]), Status::Fail);
    }

    #[test]
    fn certain_drop_of_a_port_is_a_failure_that_names_the_rule() {
        for right in
            [json!(319), json!({"set": [1, 320]}), json!({"range": [300, 330]}), json!("@ports")]
        {
            assert_eq!(status("accept", &[json!([port(right), {"drop": null}])]), Status::Fail);
        }
        let rules = [json!([port(json!(319)), {"counter": {}}, {"reject": {}}])];
        let check = check(&Firewall::Rules(vec![ruleset("accept", &rules)]), "eth0");
        assert_eq!(
            check.reason,
            "UDP port 319 coming in is dropped by rule 0 of chain inet t input"
        );
    }

    #[test]
    fn what_is_accepted_before_is_not_dropped() {
        let accept = json!([port(json!({"set": [319, 320]})), {"accept": null}]);
        assert_eq!(status("drop", &[accept]), Status::Ok);
        let others = json!([key("meta", "iifname", json!("wlan*")), {"drop": null}]);
        let tcp = json!([{"match": {"op": "!=", "right": 22,
            "left": {"payload": {"protocol": "tcp", "field": "dport"}}}}, {"drop": null}]);
        let known = json!([key("ct", "state", json!(["established", "related"])), {"drop": null}]);
        assert_eq!(status("accept", &[others, tcp, known]), Status::Ok);
    }

    #[test]
    fn what_cannot_be_known_is_a_warning() {
        let source = json!({"match": {"op": "==", "right": "192.0.2.1",
            "left": {"payload": {"protocol": "ip", "field": "saddr"}}}});
        assert_eq!(status("drop", &[json!([source, {"accept": null}])]), Status::Warn);
        let rate = json!({"limit": {"rate": 5}});
        assert_eq!(status("drop", &[json!([rate, {"accept": null}])]), Status::Warn);
        let opaque = json!([{"xt": {"type": "match", "name": "multiport"}}, {"drop": null}]);
        assert_eq!(status("accept", &[opaque]), Status::Warn);
    }

    #[test]
    fn maps_chains_and_networks_are_followed() {
        let left = json!({"payload": {"protocol": "udp", "field": "dport"}});
        let map = json!([{"vmap": {"key": left, "data": {"set": [[319, {"drop": null}]]}}}]);
        assert_eq!(status("accept", &[map]), Status::Fail);
        let network = json!({"match": {"op": "==",
            "left": {"payload": {"protocol": "ip", "field": "daddr"}},
            "right": {"prefix": {"addr": "224.0.0.0", "len": 4}}}});
        assert_eq!(status("accept", &[json!([network, {"drop": null}])]), Status::Fail);
        let mut rules = vec![json!([]); 101];
        rules[0] = json!([port(json!(320)), {"jump": {"target": "other"}}]);
        rules[100] = json!([{"drop": null}]);
        assert_eq!(status("accept", &rules), Status::Fail);
        // A loop, which no kernel has.
        rules[100] = json!([{"jump": {"target": "other"}}]);
        assert_eq!(status("accept", &rules), Status::Ok);
    }
}
