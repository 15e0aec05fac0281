//! The statements of a rule.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::expression::{bits, element, elements, operand, operands};
use super::{Reader, entries, only, verdict};
use crate::simulate::ruleset::{Known, Mark, Relation, Source, Statement, Target, Tproxy, Verdict};
use crate::simulate::unknown;
use crate::simulate::value::{Elements, Field, Item, Operand, Step};

/// Statements that change nothing of what is simulated and always hold.
const HARMLESS: [&str; 9] = ["counter", "log", "ct helper", "ct timeout", "ct expectation", "dup", "secmark", "comment", "last"];
/// Payloads whose change is not followed.
const FOLLOWED: [&str; 5] = ["saddr", "daddr", "sport", "dport", "flags"];

/// Entries of a map.
type Entries = Vec<(Vec<Item>, Value)>;

impl Reader<'_> {
    /// Reads a rule.
    pub(super) fn statements(&self, list: &[Value]) -> Vec<Statement> {
        let explained = list.iter().any(|value| only(value).is_some_and(|(name, inner)| name == "xt" && !is_comment(inner)));
        if explained && let Some(saved) = self.saved {
            // The rule is iptables' own: nothing else makes such expressions, so that its own words say all of it.
            return saved.statements.clone();
        }
        let end = list.len().saturating_sub(1);
        list.iter().enumerate().flat_map(|(at, value)| self.statement(value, at == end)).collect()
    }

    fn statement(&self, value: &Value, last: bool) -> Vec<Statement> {
        let Some((name, inner)) = only(value) else { return vec![Statement::Anything(unknown::EXPRESSION)] };
        if let Some(verdict) = verdict(name, inner) {
            return vec![Statement::Verdict(verdict)];
        }
        vec![match name {
            "match" => self.comparison(inner),
            "vmap" => self.verdicts(inner),
            "mangle" => return self.mangle(inner),
            "reject" => Statement::Verdict(Verdict::Reject),
            "queue" => Statement::Verdict(Verdict::Queue),
            "dnat" => self.dnat(inner),
            "redirect" => Statement::Redirect(inner.get("port").map(port)),
            "tproxy" => {
                let name = unknown::named(name, unknown::EXPRESSION);
                Statement::Tproxy(Tproxy { name, port: inner.get("port").map(port), is_final: false })
            }
            "snat" | "masquerade" => Statement::Snat,
            "notrack" => Statement::NoTrack,
            "set" | "map" => return self.update(name, inner, last),
            "xt" if is_comment(inner) => return Vec::new(),
            "xt" if inner.get("type").and_then(Value::as_str) == Some("match") => Statement::Perhaps(unknown::XT),
            "xt" => Statement::Anything(unknown::XT),
            // It takes only what conntrack has seen answered, and ends the rule for others.
            "flow" if last => return Vec::new(),
            "flow" => Statement::Perhaps(unknown::CT),
            "limit" | "quota" | "ct count" => Statement::Perhaps(unknown::named(name, unknown::EXPRESSION)),
            name if HARMLESS.contains(&name) => return Vec::new(),
            name => Statement::Anything(unknown::named(name, unknown::EXPRESSION)),
        }]
    }

    fn comparison(&self, inner: &Value) -> Statement {
        let (Some(left), Some(right)) = (inner.get("left"), inner.get("right")) else {
            return Statement::Perhaps(unknown::EXPRESSION);
        };
        let left = operands(left);
        let relation = match inner.get("op").and_then(Value::as_str) {
            Some("==") => Relation::Equal,
            Some("!=") => Relation::NotEqual,
            Some("<") => Relation::Less,
            Some("<=") => Relation::LessOrEqual,
            Some(">") => Relation::Greater,
            Some(">=") => Relation::GreaterOrEqual,
            Some("in") => Relation::AnyBit,
            Some("!") => Relation::NoBit,
            _ => return Statement::Perhaps(unknown::EXPRESSION),
        };
        let right = match right.as_str().and_then(|word| word.strip_prefix('@')) {
            Some(name) => match self.sets.elements(self.place, name, &left) {
                Some(set) => set,
                None => return Statement::Perhaps(unknown::EXPRESSION),
            },
            None => match right.get("set").and_then(Value::as_array) {
                Some(list) => Arc::new(Elements { list: elements(list, &left), changes: false }),
                None => Arc::new(Elements { list: vec![element(right, &left)], changes: false }),
            },
        };
        Statement::Match { left, relation, right }
    }

    /// The entries of a map for these fields, and whether rules change it.
    fn map(&self, data: &Value, key: &[Operand]) -> Option<(Entries, bool)> {
        let own = |list: &[Value]| entries(list, key).into_iter().map(|(key, data)| (key, data.clone())).collect();
        if let Some(name) = data.as_str().and_then(|word| word.strip_prefix('@')) {
            let set = self.sets.get(self.place, name)?;
            return Some((own(&set.elements), set.changes));
        }
        Some((own(data.get("set")?.as_array()?), false))
    }

    fn verdicts(&self, inner: &Value) -> Statement {
        let read = || {
            let key = operands(inner.get("key")?);
            let (list, changes) = self.map(inner.get("data")?, &key)?;
            let verdicts = list.into_iter().map(|(key, data)| {
                let (name, inner) = only(&data)?;
                Some((key, verdict(name, inner)?))
            });
            Some(Statement::Verdicts { map: verdicts.collect::<Option<_>>()?, key, changes })
        };
        read().unwrap_or(Statement::Anything(unknown::EXPRESSION))
    }

    /// A value that is a constant, or comes from a map.
    fn source<T>(&self, value: &Value, constant: impl Fn(&Value) -> Option<T>) -> Source<T> {
        if let Some(constant) = constant(value) {
            return Source::Constant(constant);
        }
        let read = || {
            let map = value.get("map")?;
            let key = operands(map.get("key")?);
            let (list, changes) = self.map(map.get("data")?, &key)?;
            let list = list.into_iter().map(|(key, data)| (key, constant(&data))).collect();
            // What is added to a map may give the packet any value.
            (!changes).then_some(Source::Map(key, list))
        };
        read().unwrap_or(Source::Unknown(unknown::EXPRESSION))
    }

    fn mangle(&self, inner: &Value) -> Vec<Statement> {
        let (Some(key), Some(value)) = (inner.get("key"), inner.get("value")) else {
            return vec![Statement::Anything(unknown::EXPRESSION)];
        };
        let mark = match operand(key).field {
            Field::Mark => Mark::Packet,
            Field::ConnectionMark => Mark::Connection,
            Field::Source { .. } | Field::Destination { .. } | Field::TcpFlags | Field::State => {
                return vec![Statement::Anything(unknown::EXPRESSION)];
            }
            Field::PacketType => return vec![Statement::Anything(unknown::named("pkttype", unknown::EXPRESSION))],
            _ if is_followed(key) => return vec![Statement::Anything(unknown::EXPRESSION)],
            _ if key.get("ct").is_some_and(|ct| ct.get("key").and_then(Value::as_str) == Some("zone")) => {
                return vec![Statement::Template];
            }
            _ => return header(key).into_iter().collect(),
        };
        let constant = |value: &Value| bits(Field::Mark, value).and_then(|bits| u32::try_from(bits).ok());
        let flip = match self.source(value, constant) {
            Source::Unknown(_) => {
                let from = operand(value);
                let followed = matches!(from.field, Field::Mark | Field::ConnectionMark);
                if followed && !from.steps.contains(&Step::Other) { Source::Field(from) } else { Source::Unknown(unknown::MARK) }
            }
            known => known,
        };
        vec![Statement::SetMark { mark, keep: 0, flip }]
    }

    fn dnat(&self, inner: &Value) -> Statement {
        let own_port = inner.get("port").map(port);
        let Some(address) = inner.get("addr") else {
            return Statement::Dnat(Source::Constant(Target { address: None, port: own_port }));
        };
        let target = |value: &Value| target(value, own_port);
        match self.source(address, target) {
            Source::Unknown(_) => {
                let several = Target { address: Some(Known::No), port: own_port.or(Some(Known::No)) };
                if address.get("map").is_some() {
                    Statement::Anything(unknown::DESTINATION)
                } else {
                    Statement::Dnat(Source::Constant(several))
                }
            }
            source => Statement::Dnat(source),
        }
    }

    /// A statement that puts the packet into a set: it ends the rule when the set is full.
    fn update(&self, kind: &str, inner: &Value, last: bool) -> Vec<Statement> {
        let limited = inner
            .get("stmt")
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|value| only(value).is_none_or(|(name, _)| !HARMLESS.contains(&name))));
        let set = inner.get(kind).and_then(Value::as_str).and_then(|name| name.strip_prefix('@'));
        let set = set.and_then(|name| self.sets.get(self.place, name));
        let room = set.is_some_and(|set| set.size.is_none_or(|size| (set.elements.len() as u64) < size));
        if limited {
            vec![Statement::Perhaps(unknown::named("limit", unknown::EXPRESSION))]
        } else if room || last {
            Vec::new()
        } else {
            vec![Statement::Perhaps(unknown::CHANGING_SET)]
        }
    }
}

fn is_comment(xt: &Value) -> bool {
    xt.get("name").and_then(Value::as_str) == Some("comment")
}

fn is_followed(key: &Value) -> bool {
    let Some(payload) = key.get("payload") else { return false };
    payload.get("field").and_then(Value::as_str).is_none_or(|field| FOLLOWED.contains(&field))
}

/// The check of the protocol that nft puts before a change of a header without printing it.
fn header(key: &Value) -> Option<Statement> {
    let is = |field, number: u128| {
        let right = Arc::new(Elements::one(Item::Range(number, number)));
        Statement::Match { left: vec![Operand::from(field)], relation: Relation::Equal, right }
    };
    match key.get("payload")?.get("protocol").and_then(Value::as_str)? {
        "ip" => Some(is(Field::IpVersion { ipv4: true }, 4)),
        "ip6" => Some(is(Field::IpVersion { ipv4: false }, 6)),
        "tcp" | "th" | "ether" | "vlan" => None,
        _ => Some(is(Field::Absent, 0)),
    }
}

fn port(value: &Value) -> Known<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).map_or(Known::No, Known::Yes)
}

/// Where DNAT sends, if it is no map: an address, or an address with a port.
fn target(value: &Value, own_port: Option<Known<u16>>) -> Option<Target> {
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    match value.get("concat").and_then(Value::as_array).map(Vec::as_slice) {
        Some([to, at]) => Some(Target { address: Some(Known::Yes(address(to)?)), port: Some(port(at)) }),
        _ => Some(Target { address: Some(Known::Yes(address(value)?)), port: own_port }),
    }
}
