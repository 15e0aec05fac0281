//! Both sides of a match.

use serde_json::Value;

use super::only;
use crate::simulate::symbol::{self, network};
use crate::simulate::unknown;
use crate::simulate::value::{Arp, Field, Item, Operand, Step};

/// The parts of the left side, of which a concatenation has several.
pub(super) fn operands(value: &Value) -> Vec<Operand> {
    match value.get("concat").and_then(Value::as_array) {
        Some(parts) => parts.iter().map(operand).collect(),
        None => vec![operand(value)],
    }
}

pub(super) fn operand(value: &Value) -> Operand {
    let unknown = |name| Operand::from(Field::Unknown(name));
    let Some((name, inner)) = only(value) else { return unknown(unknown::EXPRESSION) };
    match (name, inner.as_array().map(Vec::as_slice)) {
        ("&" | "|" | "^", Some([left, right])) => {
            let mut operand = operand(left);
            let step = match (bits(operand.field, right), name) {
                (Some(bits), "&") => Step::And(bits),
                (Some(bits), "|") => Step::Or(bits),
                (Some(bits), _) => Step::Xor(bits),
                (None, _) => Step::Other,
            };
            operand.steps.push(step);
            operand
        }
        _ => Operand::from(field(name, inner)),
    }
}

fn field(name: &str, inner: &Value) -> Field {
    let text = |key: &str| inner.get(key).and_then(Value::as_str).unwrap_or_default();
    match name {
        "payload" => payload(text("protocol"), text("field")),
        "meta" => meta(inner.as_str().unwrap_or_else(|| text("key"))),
        "ct" => match (text("key"), inner.get("dir")) {
            ("state", None) => Field::State,
            ("status", None) => Field::Status,
            ("direction", None) => Field::Direction,
            ("mark", None) => Field::ConnectionMark,
            ("proto-dst", Some(direction)) if direction == "original" => Field::AskedPort,
            ("ip daddr", Some(direction)) if direction == "original" => Field::AskedAddress { ipv4: true },
            ("ip6 daddr", Some(direction)) if direction == "original" => Field::AskedAddress { ipv4: false },
            _ => Field::Unknown(unknown::CT),
        },
        "fib" => {
            let flags = inner.get("flags").map(ToString::to_string).unwrap_or_default();
            match (text("result"), flags.as_str()) {
                ("type", r#"["daddr"]"# | r#""daddr""#) => Field::DestinationType { device: false },
                ("type", r#"["daddr","iif"]"#) => Field::DestinationType { device: true },
                ("type", r#"["saddr"]"# | r#""saddr""#) => Field::SourceType,
                _ => Field::Unknown(unknown::FIB),
            }
        }
        "xt" => Field::Unknown(unknown::XT),
        "numgen" | "jhash" | "symhash" => chance(name, inner),
        _ => Field::Unknown(unknown::named(name, unknown::EXPRESSION)),
    }
}

/// A number that chance or a hash decides, below `mod`.
fn chance(name: &str, inner: &Value) -> Field {
    let number = |key: &str| inner.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let name = unknown::named(name, unknown::EXPRESSION);
    Field::between(number("mod").unwrap_or(0), number("offset").unwrap_or(0), name)
}

fn payload(protocol: &str, field: &str) -> Field {
    match (protocol, field) {
        ("ip", "saddr") => Field::Source { ipv4: true },
        ("ip6", "saddr") => Field::Source { ipv4: false },
        ("ip", "daddr") => Field::Destination { ipv4: true },
        ("ip6", "daddr") => Field::Destination { ipv4: false },
        ("ip", "protocol") => Field::NextHeader { ipv4: true },
        ("ip6", "hoplimit") => Field::HopLimit,
        ("ip6", "nexthdr") => Field::NextHeader { ipv4: false },
        ("ip", "frag-off") => Field::FragmentOffset,
        ("ip", "version") => Field::IpVersion { ipv4: true },
        ("ip6", "version") => Field::IpVersion { ipv4: false },
        ("tcp" | "th", "sport") => Field::SourcePort,
        ("tcp" | "th", "dport") => Field::DestinationPort,
        ("tcp", "flags") => Field::TcpFlags,
        // nft puts a check of the protocol before them, which it does not print.
        ("udp" | "udplite" | "icmp" | "icmpv6" | "igmp" | "sctp" | "dccp" | "ah" | "esp" | "comp", _) => Field::Absent,
        ("arp", field) => arp(field),
        ("ether" | "vlan", _) => Field::Unknown(unknown::named("ether", unknown::EXPRESSION)),
        _ => Field::Unknown(unknown::named("payload", unknown::EXPRESSION)),
    }
}

fn arp(field: &str) -> Field {
    Field::Arp(match field {
        "htype" => Arp::HardwareType,
        "ptype" => Arp::ProtocolType,
        "hlen" => Arp::HardwareLength,
        "plen" => Arp::ProtocolLength,
        "operation" => Arp::Operation,
        "saddr ip" => Arp::Sender,
        "daddr ip" => Arp::Target,
        _ => return Field::Unknown(unknown::named("payload", unknown::EXPRESSION)),
    })
}

fn meta(key: &str) -> Field {
    match key {
        "l4proto" => Field::TransportProtocol,
        "nfproto" => Field::NetworkFamily,
        "protocol" => Field::EtherType,
        "iif" | "iifname" => Field::InputName,
        "oif" | "oifname" => Field::OutputName,
        "mark" => Field::Mark,
        "pkttype" => Field::PacketType,
        "iifgroup" | "oifgroup" | "iiftype" | "oiftype" | "iifkind" | "oifkind" => Field::Unknown("devgroup"),
        key => Field::Unknown(unknown::named(key, unknown::EXPRESSION)),
    }
}

/// A constant of bits: a number, a name, or several names.
pub(super) fn bits(field: Field, value: &Value) -> Option<u128> {
    let several = |list: &Vec<Value>| list.iter().try_fold(0, |all, one| Some(all | bits(field, one)?));
    match value {
        Value::Number(number) => number.as_u64().map(u128::from),
        Value::String(word) => symbol::number(field, word),
        Value::Array(list) => several(list),
        Value::Object(object) => object.get("|").and_then(Value::as_array).and_then(several),
        _ => None,
    }
}

/// The elements of a set for these fields.
pub(super) fn elements(list: &[Value], fields: &[Operand]) -> Vec<Vec<Item>> {
    list.iter().map(|value| element(value, fields)).collect()
}

pub(super) fn element(value: &Value, fields: &[Operand]) -> Vec<Item> {
    if let Some(inner) = value.get("elem").and_then(|element| element.get("val")) {
        return element(inner, fields);
    }
    if value.as_str() == Some("*") {
        return vec![Item::Any];
    }
    let parts: Vec<&Value> = match value.get("concat").and_then(Value::as_array) {
        Some(parts) => parts.iter().collect(),
        None => vec![value],
    };
    if parts.len() != fields.len() {
        return vec![Item::Unknown(unknown::CONSTANT); fields.len()];
    }
    parts.into_iter().zip(fields).map(|(value, operand)| item(operand.field, value)).collect()
}

fn item(field: Field, value: &Value) -> Item {
    constant(field, value).unwrap_or(Item::Unknown(unknown::CONSTANT))
}

fn constant(field: Field, value: &Value) -> Option<Item> {
    if let Some(word) = value.as_str() {
        return Some(symbol::item(field, word));
    }
    if let Some(range) = value.get("range").and_then(Value::as_array) {
        let [from, to] = range.as_slice() else { return None };
        return Some(Item::Range(bits(field, from)?, bits(field, to)?));
    }
    if let Some(prefix) = value.get("prefix") {
        let ipv4 = match field {
            Field::Source { ipv4 } | Field::Destination { ipv4 } | Field::AskedAddress { ipv4 } => ipv4,
            Field::Arp(Arp::Sender | Arp::Target) => true,
            _ => return None,
        };
        let length = u32::try_from(prefix.get("len")?.as_u64()?).ok()?;
        return Some(network(bits(field, prefix.get("addr")?)?, length, ipv4));
    }
    if matches!(field, Field::InputName | Field::OutputName) {
        // The number of a device that is gone or has no name here.
        return None;
    }
    bits(field, value).map(|bits| Item::Range(bits, bits))
}
