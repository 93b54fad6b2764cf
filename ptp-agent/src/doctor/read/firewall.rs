//! Reading packet filters with their own tools: `nft` as JSON; where there is none, or rules of the
//! old kind are in use, what `iptables-save` prints, in the same form.

use std::process::Command;

use serde_json::{Value, json};

use super::file;
use crate::doctor::facts::Firewall;

pub(super) fn read() -> Firewall {
    let mut rulesets = Vec::new();
    let mut problem = None;
    match run("nft", &["-j", "list", "ruleset"]) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(rules) => rulesets.push(rules),
            Err(error) => problem = Some(format!("what `nft -j` says is no JSON: {error}")),
        },
        Err(why) => problem = Some(why),
    }
    let has_nft = !rulesets.is_empty();
    for (names, family, newest, old) in [
        ("/proc/net/ip_tables_names", "ip", "iptables-save", "iptables-legacy-save"),
        ("/proc/net/ip6_tables_names", "ip6", "ip6tables-save", "ip6tables-legacy-save"),
    ] {
        // Tables of the old kind are not among those of nft.
        let has_old = file(names).is_some_and(|tables| !tables.is_empty());
        let program = match (has_nft, has_old) {
            (true, false) => continue,
            (true, true) => old,
            (false, _) => newest,
        };
        match run(program, &[]) {
            Ok(text) => rulesets.push(iptables(&text, family)),
            Err(why) => drop(problem.get_or_insert(why)),
        }
    }
    match problem {
        Some(why) if rulesets.is_empty() => Firewall::Unknown(why),
        _ => Firewall::Rules(rulesets),
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let places = ["/usr/sbin/", "/sbin/", "/usr/bin/", ""];
    let output = places.iter().find_map(|place| {
        let mut command = Command::new(format!("{place}{program}"));
        // The rules are read in words and not in a language.
        command.args(arguments).env("LC_ALL", "C").output().ok()
    });
    let Some(output) = output else {
        return Err(format!("{program} is not installed, which could list the packet filter"));
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("no reason given").to_owned();
        return Err(format!("{program} does not list the packet filter: {said}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The rules of `iptables-save` in the form of `nft -j`.
fn iptables(text: &str, family: &str) -> Value {
    let mut table = "";
    let mut objects = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let name = words.next().unwrap_or_default();
            let policy = words.next().unwrap_or_default();
            let hook = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]
                .contains(&name)
                .then(|| name.to_lowercase());
            objects.push(json!({"chain": {
                "family": family, "table": table, "name": name, "hook": hook,
                "policy": policy.to_lowercase(),
            }}));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rest) = rule.split_once(' ').unwrap_or((rule, ""));
            objects.push(json!({"rule": {
                "family": family, "table": table, "chain": chain, "handle": at, "text": line,
                "expr": expressions(rest, family),
            }}));
        }
    }
    json!({ "nftables": objects })
}

fn expressions(rule: &str, family: &str) -> Vec<Value> {
    let mut words = rule.split_whitespace().peekable();
    let mut expressions = Vec::new();
    let unknown = || json!({"xt": {"type": "match"}});
    let equal =
        |left: Value, right: Value| json!({"match": {"op": "==", "left": left, "right": right}});
    let meta = |key: &str| json!({"meta": {"key": key}});
    let field = |field: &str| json!({"payload": {"protocol": "udp", "field": field}});
    while let Some(word) = words.next() {
        if word == "!" {
            // Whatever is negated.
            expressions.push(unknown());
            words.next();
            words.next();
            continue;
        }
        let value = words.peek().copied().unwrap_or_default();
        let known = match word {
            "-p" => Some(equal(meta("l4proto"), value.into())),
            "-i" => Some(equal(meta("iifname"), interface(value))),
            "-o" => Some(equal(meta("oifname"), interface(value))),
            "--dport" | "--dports" => Some(equal(field("dport"), ports(value))),
            "--sport" | "--sports" => Some(equal(field("sport"), ports(value))),
            "-d" => Some(match value.split_once('/') {
                Some((address, length)) => equal(
                    json!({"payload": {"protocol": family, "field": "daddr"}}),
                    json!({"prefix": {"addr": address, "len": length.parse::<u32>().ok()}}),
                ),
                None => unknown(),
            }),
            "--ctstate" | "--state" => {
                let states: Vec<String> = value.split(',').map(str::to_lowercase).collect();
                Some(equal(json!({"ct": {"key": "state"}}), json!(states)))
            }
            "-j" | "-g" => Some(match (word, value) {
                (_, "ACCEPT") => json!({"accept": null}),
                (_, "DROP") => json!({"drop": null}),
                (_, "REJECT") => json!({"reject": null}),
                (_, "RETURN") => json!({"return": null}),
                ("-g", chain) => json!({"goto": {"target": chain}}),
                (_, chain) => json!({"jump": {"target": chain}}),
            }),
            // Announces a match whose own words follow.
            "-m" => Some(json!({"counter": null})),
            "--reject-with" | "--log-prefix" | "--comment" => Some(json!({"counter": null})),
            _ => None,
        };
        match known {
            Some(expression) => {
                expressions.push(expression);
                words.next();
            }
            None if word.starts_with('-') => {
                expressions.insert(0, unknown());
            }
            // The value of a word that is not known.
            None => {}
        }
    }
    expressions
}

/// `eth+` is every name that begins so.
fn interface(name: &str) -> Value {
    name.strip_suffix('+').map_or_else(|| name.into(), |prefix| format!("{prefix}*").into())
}

fn ports(list: &str) -> Value {
    let port = |text: &str| text.parse::<u16>().map_or(Value::Null, Value::from);
    let one = |text: &str| match text.split_once(':') {
        Some((from, to)) => json!({"range": [port(from), port(to)]}),
        None => port(text),
    };
    json!({"set": list.split(',').map(one).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_iptables_are_read_as_those_of_nft() {
        let text = "# comment\n*filter\n:INPUT DROP [0:0]\n:f2b - [0:0]\n\
            -A INPUT -i eth+ -p udp -m multiport --dports 319,320:330 -m conntrack --ctstate NEW -j ACCEPT\n\
            -A INPUT -s 192.0.2.1/32 -j f2b\nCOMMIT\n";
        let rules = iptables(text, "ip");
        let objects = rules["nftables"].as_array().unwrap();
        assert_eq!(objects[0]["chain"]["policy"], "drop");
        assert_eq!(
            (&objects[0]["chain"]["hook"], &objects[1]["chain"]["hook"]),
            (&json!("input"), &Value::Null)
        );
        let first = &objects[2]["rule"]["expr"];
        assert_eq!(first[0]["match"]["right"], "eth*");
        assert_eq!(first[3]["match"]["right"], json!({"set": [319, {"range": [320, 330]}]}));
        assert_eq!(first.as_array().unwrap().last().unwrap(), &json!({"accept": null}));
        let second = &objects[3]["rule"];
        assert!(second["expr"][0].get("xt").is_some(), "{second}");
        assert_eq!(second["text"], "-A INPUT -s 192.0.2.1/32 -j f2b");
    }
}
