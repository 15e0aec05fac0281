//! The matches of a rule.

use std::net::IpAddr;
use std::sync::Arc;

use crate::simulate::ruleset::{Relation, Statement};
use crate::simulate::symbol::{self, network};
use crate::simulate::unknown;
use crate::simulate::value::{Elements, Field, Item, Operand, Step, number_of};

/// Reads what stands before the target; gives the comment too.
pub(super) fn read(words: &[&str], ipv4: bool) -> (Vec<Statement>, Option<String>) {
    let (mut statements, mut comment, mut module) = (Vec::new(), None, "");
    let mut rest = words;
    while let Some((option, values, negated, behind)) = next(rest) {
        rest = behind;
        match (option, values) {
            ("-m", [name, ..]) => {
                module = name;
                if let Some(statement) = whole(name) {
                    statements.push(statement);
                }
            }
            ("--comment", [text]) => comment = Some((*text).to_owned()),
            _ if whole(module).is_some() && option.starts_with("--") => {}
            _ => statements.push(one(module, option, values, negated, ipv4).unwrap_or(Statement::Perhaps(unknown::MATCH))),
        }
    }
    // Limits of the device belong to the whole match, whose meaning they change.
    let limited = words.iter().any(|word| word.starts_with("--limit-iface"));
    if limited {
        statements.push(Statement::Perhaps(unknown::FIB));
    }
    (statements, comment)
}

/// An option with its values, whether it is negated, and what follows.
type Next<'a, 'b> = (&'b str, &'a [&'b str], bool, &'a [&'b str]);

fn next<'a, 'b>(words: &'a [&'b str]) -> Option<Next<'a, 'b>> {
    let (negated, words) = match words {
        ["!", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (option, rest) = words.split_first()?;
    // The text of a comment or a string may look like an option.
    let least = usize::from(matches!(*option, "--comment" | "--string" | "--hex-string" | "-m"));
    let more = rest.iter().skip(least).position(|word| *word == "!" || is_option(word)).map_or(rest.len(), |at| at + least);
    let (values, behind) = rest.split_at_checked(more)?;
    Some((option, values, negated, behind))
}

fn is_option(word: &str) -> bool {
    word.starts_with("--") || word.len() == 2 && word.starts_with('-') && !word.ends_with(|c: char| c.is_ascii_digit())
}

/// A match that as a whole depends on what is not known.
fn whole(module: &str) -> Option<Statement> {
    const UNDERSTOOD: [&str; 12] =
        ["tcp", "multiport", "conntrack", "state", "comment", "addrtype", "mark", "connmark", "iprange", "icmp6", "hl", ""];
    // A TCP packet never comes to them: the protocol stands before.
    const OTHERS: [&str; 8] = ["udp", "icmp", "sctp", "dccp", "udplite", "esp", "ah", "ipcomp"];
    // Neither a SYN nor a question for a neighbour has one of IPv6's headers between its own and what it carries.
    const EXTENSIONS: [&str; 4] = ["rt", "frag", "hbh", "dst"];
    if UNDERSTOOD.contains(&module) {
        return None;
    }
    let unknown = unknown::named(module, unknown::MATCH);
    if EXTENSIONS.contains(&module) {
        return Some(matches(Field::Extension, Vec::new(), false, vec![Item::Unknown(unknown)]));
    }
    if OTHERS.contains(&module) {
        // What is no TCP packet may have what it looks for.
        return Some(matches(Field::Absent, Vec::new(), false, vec![Item::Unknown(unknown)]));
    }
    Some(Statement::Perhaps(unknown))
}

fn one(module: &str, option: &str, values: &[&str], negated: bool, ipv4: bool) -> Option<Statement> {
    let is = |field, items| Some(matches(field, Vec::new(), negated, items));
    let words = |field, text: &str| text.split(',').map(|word| symbol::item(field, word)).collect::<Vec<_>>();
    match (module, option, values) {
        (_, "-p" | "--protocol", ["all"]) => is(Field::TransportProtocol, vec![Item::Any]),
        (_, "-p" | "--protocol", [name]) => is(Field::TransportProtocol, vec![symbol::item(Field::TransportProtocol, name)]),
        (_, "-s" | "--source", [text]) => address(Field::Source { ipv4 }, text, ipv4, negated),
        (_, "-d" | "--destination", [text]) => address(Field::Destination { ipv4 }, text, ipv4, negated),
        (_, "-i" | "--in-interface", [name]) => is(Field::InputName, vec![device(name)]),
        (_, "-o" | "--out-interface", [name]) => is(Field::OutputName, vec![device(name)]),
        // The first packet of a connection is whole.
        (_, "-f" | "--fragment", []) => is(Field::Absent, vec![Item::Any]).filter(|_| !negated),
        ("tcp", "--sport" | "--source-port", [range]) => is(Field::SourcePort, vec![ports(range)]),
        ("tcp", "--dport" | "--destination-port", [range]) => is(Field::DestinationPort, vec![ports(range)]),
        ("tcp", "--syn", []) => flags("FIN,SYN,RST,ACK", "SYN", negated),
        ("tcp", "--tcp-flags", [mask, set]) => flags(mask, set, negated),
        ("tcp", "--tcp-option", [_]) => Some(Statement::Perhaps("tcp option")),
        ("multiport", "--sports" | "--source-ports", [list]) => is(Field::SourcePort, list.split(',').map(ports).collect()),
        ("multiport", "--dports" | "--destination-ports", [list]) => {
            is(Field::DestinationPort, list.split(',').map(ports).collect())
        }
        ("multiport", "--ports", [list]) => {
            let items: Vec<Item> = list.split(',').map(ports).collect();
            let either =
                [Field::SourcePort, Field::DestinationPort].map(|field| matches(field, Vec::new(), false, items.clone()));
            Some(Statement::AnyOf { negated, conditions: either.into() })
        }
        ("icmp6", "--icmpv6-type", [kind]) => is(Field::SourcePort, vec![icmpv6(kind)?]),
        ("hl", "--hl-eq", [limit]) => is(Field::HopLimit, vec![symbol::item(Field::HopLimit, limit)]),
        ("conntrack", "--ctstate", [list]) => bits(Field::XtState, list, negated),
        ("state", "--state", [list]) => bits(Field::State, list, negated),
        ("conntrack", "--ctdir", [direction]) => is(Field::Direction, words(Field::Direction, direction)),
        ("conntrack", "--ctorigdstport", [range]) => is(Field::AskedPort, vec![ports(range)]),
        ("conntrack", "--ctorigdst", [text]) => address(Field::AskedAddress { ipv4 }, text, ipv4, negated),
        ("conntrack", ..) => Some(Statement::Perhaps(unknown::CT)),
        ("addrtype", "--dst-type", [list]) => {
            let field = Field::DestinationType { device: false };
            is(field, words(field, list))
        }
        ("addrtype", "--src-type", [list]) => is(Field::SourceType, words(Field::SourceType, list)),
        ("addrtype", "--limit-iface-in" | "--limit-iface-out", []) => Some(Statement::Perhaps(unknown::FIB)),
        ("mark", "--mark", [text]) => mark(Field::Mark, text, negated),
        ("connmark", "--mark", [text]) => mark(Field::ConnectionMark, text, negated),
        ("iprange", "--src-range", [text]) => is(Field::Source { ipv4 }, vec![range(text)?]),
        ("iprange", "--dst-range", [text]) => is(Field::Destination { ipv4 }, vec![range(text)?]),
        _ => None,
    }
}

/// A match whose right side is any of these.
fn matches(field: Field, steps: Vec<Step>, negated: bool, items: Vec<Item>) -> Statement {
    let relation = if negated { Relation::NotEqual } else { Relation::Equal };
    let right = Elements { list: items.into_iter().map(|item| vec![item]).collect(), changes: false };
    Statement::Match { left: vec![Operand { field, steps }], relation, right: Arc::new(right) }
}

fn bits(field: Field, list: &str, negated: bool) -> Option<Statement> {
    let bits = list.split(',').try_fold(0, |all, word| Some(all | symbol::number(field, word)?))?;
    let relation = if negated { Relation::NoBit } else { Relation::AnyBit };
    let right = Arc::new(Elements::one(Item::Range(bits, bits)));
    Some(Statement::Match { left: vec![field.into()], relation, right })
}

fn flags(mask: &str, set: &str, negated: bool) -> Option<Statement> {
    let number = |list: &str| list.split(',').try_fold(0, |all, word| Some(all | symbol::number(Field::TcpFlags, word)?));
    let set = number(set)?;
    Some(matches(Field::TcpFlags, vec![Step::And(number(mask)?)], negated, vec![Item::Range(set, set)]))
}

fn mark(field: Field, text: &str, negated: bool) -> Option<Statement> {
    let (value, mask) = value_and_mask(text)?;
    Some(matches(field, vec![Step::And(mask.into())], negated, vec![Item::Range(value.into(), value.into())]))
}

/// `0x1/0xff`, or `0x1` for all bits.
pub(super) fn value_and_mask(text: &str) -> Option<(u32, u32)> {
    let number = |word: &str| symbol::plain(word).and_then(|number| u32::try_from(number).ok());
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

fn address(field: Field, text: &str, ipv4: bool, negated: bool) -> Option<Statement> {
    let (address, mask) = text.split_once('/').unwrap_or((text, if ipv4 { "32" } else { "128" }));
    let address: IpAddr = address.parse().ok()?;
    let number = number_of(address);
    if let Ok(length) = mask.parse::<u32>() {
        return Some(matches(field, Vec::new(), negated, vec![network(number, length, ipv4)]));
    }
    let mask = number_of(mask.parse().ok()?);
    Some(matches(field, vec![Step::And(mask)], negated, vec![Item::Range(number, number)]))
}

fn device(name: &str) -> Item {
    match name.strip_suffix('+') {
        Some(text) => Item::Name { text: text.to_owned(), beginning: true },
        None => Item::Name { text: name.to_owned(), beginning: false },
    }
}

fn ports(text: &str) -> Item {
    let (from, to) = text.split_once(':').unwrap_or((text, text));
    let bound = |text: &str, open: u16| if text.is_empty() { Some(open) } else { text.parse::<u16>().ok() };
    match (bound(from, 0), bound(to, u16::MAX)) {
        (Some(from), Some(to)) => Item::Range(from.into(), to.into()),
        _ => Item::Unknown(unknown::CONSTANT),
    }
}

/// A type of `ICMPv6`, or a type and a code, `1/4`, where they stand in the header.
fn icmpv6(text: &str) -> Option<Item> {
    let (kind, code) = text.split_once('/').map_or((text, None), |(kind, code)| (kind, Some(code)));
    let number = |text: &str| text.parse::<u8>().ok().map(u128::from);
    let kind = number(kind)? << 8;
    Some(match code {
        Some(code) => Item::Range(kind | number(code)?, kind | number(code)?),
        None => Item::Range(kind, kind | 0xff),
    })
}

fn range(text: &str) -> Option<Item> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<IpAddr>().ok().map(number_of);
    Some(Item::Range(number(from)?, number(to)?))
}
