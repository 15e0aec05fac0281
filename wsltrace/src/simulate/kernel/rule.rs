//! A rule's expressions, one after the other, as statements: what loads a field only fills a register, what compares or does
//! something becomes a statement. Numbers of settings are those of `linux/netfilter/nf_tables.h`.

use std::collections::HashMap;
use std::sync::Arc;

use super::expression::{Data, Expression, is_comment};
use super::field::{chance, dreg, fib, of};
use super::registers::{Content, Piece, Registers, Scale};
use super::set::{Mapped, Sets};
use crate::simulate::ruleset::{Line, Mark, Place, Relation, Source, Statement, Tproxy, Verdict};
use crate::simulate::unknown;
use crate::simulate::value::{Elements, Field, Item, Operand, Step};

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const FAMILIES: [(u128, bool); 2] = [(2, true), (10, false)];
/// `ETH_P_IP`, `ETH_P_IPV6`.
const ETHER_TYPES: [(u128, bool); 2] = [(0x0800, true), (0x86dd, false)];
/// `ETH_P_ARP`.
const ARP: u128 = 0x0806;
/// The bytes of all registers: nobody knows how many a field has that is not known here, and none of them may be taken for another.
pub(super) const ALL: usize = 64;
/// The bytes of a number that chance or a hash decides.
const CHANCE: usize = 4;

/// An expression lacks what it cannot be without, or has something that nobody knows yet.
pub(super) struct NotUnderstood;

/// What an expression says; nothing, when it only fills a register or does nothing that matters here.
pub(super) type Read = Result<Option<Statement>, NotUnderstood>;

/// Reads one rule.
pub(super) struct Reader<'a> {
    sets: &'a Sets,
    place: &'a Place,
    devices: &'a HashMap<u32, String>,
    pub(super) registers: Registers,
    /// Whether the header of the network is that of IPv4, once that is known.
    pub(super) ipv4: Option<bool>,
    /// Whether it is that of ARP.
    pub(super) arp: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sets: &'a Sets, place: &'a Place, devices: &'a HashMap<u32, String>) -> Self {
        let ipv4 = match place.family.as_str() {
            "ip" => Some(true),
            "ip6" => Some(false),
            _ => None,
        };
        let arp = place.family == "arp";
        Self { sets, place, devices, registers: Registers::default(), ipv4, arp }
    }

    /// Whether it sees frames as they are on the wire.
    pub(super) fn sees_frames(&self) -> bool {
        matches!(self.place.family.as_str(), "bridge" | "netdev")
    }

    /// The statements; `saved` is the same rule as iptables prints it, where it does.
    pub(super) fn statements(mut self, expressions: &[Expression], saved: Option<&Line>) -> Vec<Statement> {
        let is_xt = |expression: &Expression| matches!(expression.name.as_str(), "match" | "target") && !is_comment(expression);
        if let Some(saved) = saved.filter(|_| expressions.iter().any(is_xt)) {
            // The rule is iptables' own: nothing else makes such expressions, so that its own words say all of it.
            return saved.statements.clone();
        }
        let end = expressions.len().saturating_sub(1);
        let anything = |_| Some(Statement::Anything(unknown::EXPRESSION));
        expressions
            .iter()
            .enumerate()
            .filter_map(|(at, expression)| self.statement(expression, at == end).unwrap_or_else(anything))
            .collect()
    }

    fn statement(&mut self, expression: &Expression, last: bool) -> Read {
        const NFTA_FIB_DREG: u16 = 1;
        Ok(match expression.name.as_str() {
            "payload" => self.payload(expression)?,
            "meta" => self.meta(expression)?,
            "ct" => self.ct(expression)?,
            "fib" => self.load(must(expression, NFTA_FIB_DREG)?, fib(expression), 4, false),
            "cmp" => Some(self.comparison(expression)),
            "range" => Some(self.range(expression)),
            "lookup" => self.lookup(expression)?,
            "bitwise" => self.bitwise(expression)?,
            "byteorder" => self.byteorder(expression)?,
            "immediate" => self.immediate(expression)?,
            "nat" => Some(self.nat(expression)),
            "masq" => Some(Statement::Snat),
            "redir" => Some(Statement::Redirect(self.port(expression, 1, 2))),
            "tproxy" => {
                const NFTA_TPROXY_REG_PORT: u16 = 3;
                let port = self.port(expression, NFTA_TPROXY_REG_PORT, NFTA_TPROXY_REG_PORT);
                Some(Statement::Tproxy(Tproxy { name: named("tproxy"), port, is_final: false }))
            }
            "reject" => Some(Statement::Verdict(Verdict::Reject)),
            "queue" => Some(Statement::Verdict(Verdict::Queue)),
            "notrack" => Some(Statement::NoTrack),
            "dynset" => self.update(expression, last),
            "objref" => object(expression),
            "match" if is_comment(expression) => None,
            "match" => Some(Statement::Perhaps(unknown::XT)),
            "target" => Some(Statement::Anything(unknown::XT)),
            "limit" | "quota" => Some(perhaps(&expression.name)),
            "connlimit" => Some(perhaps("ct count")),
            // It takes only what conntrack has seen answered, and ends the rule for others.
            "flow_offload" => (!last).then_some(Statement::Perhaps(unknown::CT)),
            "counter" | "log" | "last" | "dup" => None,
            "exthdr" => self.header(expression),
            "numgen" | "hash" => self.load(must(expression, dreg(expression))?, chance(expression), CHANCE, false),
            "socket" | "rt" | "osf" | "xfrm" => self.load(must(expression, dreg(expression))?, of(expression), ALL, false),
            name => Some(Statement::Anything(named(name))),
        })
    }

    /// Puts a field into a register.
    pub(super) fn load(&mut self, register: u32, field: Field, len: usize, big: bool) -> Option<Statement> {
        let len = if matches!(field, Field::Unknown(_)) { ALL } else { len };
        self.registers.put(register, vec![Content::Field(Piece::new(field, len, big))]);
        None
    }

    pub(super) fn mark(&self, mark: Mark, register: u32) -> Statement {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_ne_bytes);
        let content = Registers::place(register).and_then(|place| self.registers.at(place));
        let flip = match content {
            Some((Content::Constant(bytes), 0)) => number(bytes).map(Source::Constant),
            Some((Content::Field(piece), 0))
                if matches!(piece.operand.field, Field::Mark | Field::ConnectionMark)
                    && !piece.operand.steps.contains(&Step::Other) =>
            {
                Some(Source::Field(piece.operand.clone()))
            }
            // What is added to a map may give the packet any value.
            Some((Content::Mapped(mapped), 0)) if !mapped.changes => Some(map(mapped, |data| number(data))),
            _ => None,
        };
        Statement::SetMark { mark, keep: 0, flip: flip.unwrap_or(Source::Unknown(unknown::MARK)) }
    }

    fn comparison(&mut self, expression: &Expression) -> Statement {
        const SREG: u16 = 1;
        const OP: u16 = 2;
        const DATA: u16 = 3;
        let relation = match expression.number(OP) {
            Some(0) => Relation::Equal,
            Some(1) => Relation::NotEqual,
            Some(2) => Relation::Less,
            Some(3) => Relation::LessOrEqual,
            Some(4) => Relation::Greater,
            Some(5) => Relation::GreaterOrEqual,
            _ => return Statement::Perhaps(unknown::EXPRESSION),
        };
        let Some((value, register)) = expression.value(DATA).zip(expression.number(SREG)) else {
            return Statement::Perhaps(unknown::EXPRESSION);
        };
        self.compared(register, relation, &value, &value)
    }

    fn range(&mut self, expression: &Expression) -> Statement {
        const SREG: u16 = 1;
        const OP: u16 = 2;
        const FROM: u16 = 3;
        const TO: u16 = 4;
        let relation = if expression.number(OP) == Some(0) { Relation::Equal } else { Relation::NotEqual };
        match (expression.number(SREG), expression.value(FROM), expression.value(TO)) {
            (Some(register), Some(from), Some(to)) if from.len() == to.len() => self.compared(register, relation, &from, &to),
            _ => Statement::Perhaps(unknown::EXPRESSION),
        }
    }

    /// A register beside constants from one to another.
    fn compared(&mut self, register: u32, relation: Relation, from: &[u8], to: &[u8]) -> Statement {
        let Some(pieces) = self.pieces(register, from.len()) else { return Statement::Perhaps(unknown::EXPRESSION) };
        if let [(_, Piece { operand, .. })] = pieces.as_slice()
            && let Field::Unknown(name) = operand.field
        {
            // The rule may end there.
            return Statement::Perhaps(name);
        }
        let (pieces, from, to) = &self.by_ether_type(pieces, from, to);
        let ordered = !matches!(relation, Relation::Equal | Relation::NotEqual) || from != to;
        let [(_, piece), rest @ ..] = pieces.as_slice() else { return Statement::Perhaps(unknown::EXPRESSION) };
        let is_comparable = rest.is_empty() && piece.scale == Scale::Whole && (piece.big || piece.len == 1);
        if ordered && !is_comparable {
            return Statement::Perhaps(unknown::EXPRESSION);
        }
        let part = |bytes: &[u8], at: usize, len: usize| bytes.get(at..bytes.len().min(at + len)).unwrap_or_default().to_vec();
        let items: Vec<Item> = pieces
            .iter()
            .map(|(at, piece)| piece.item(&part(from, *at, piece.len), &part(to, *at, piece.len), self.devices))
            .collect();
        if relation == Relation::Equal {
            self.learn(pieces, &items);
        }
        let left = pieces.iter().map(|(_, piece)| piece.operand.clone()).collect();
        Statement::Match { left, relation, right: Arc::new(Elements { list: vec![items], changes: false }) }
    }

    /// In the family `inet` nft asks for the protocol family before any header of IP is read, and does not say so; the type of the frame
    /// says the same there, at ingress too.
    fn by_ether_type(&self, pieces: Vec<(usize, Piece)>, from: &[u8], to: &[u8]) -> (Vec<(usize, Piece)>, Vec<u8>, Vec<u8>) {
        if let ([(0, piece)], [family], true) = (pieces.as_slice(), from, from == to && self.place.family == "inet")
            && piece.operand == Operand::from(Field::NetworkFamily)
            && let Some(at) = FAMILIES.iter().position(|(known, _)| *known == u128::from(*family))
        {
            let (ether_type, _) = ETHER_TYPES[at];
            let bytes = ether_type.to_be_bytes().to_vec();
            return (vec![(0, Piece::new(Field::EtherType, bytes.len(), true))], bytes.clone(), bytes);
        }
        (pieces, from.to_vec(), to.to_vec())
    }

    /// Remembers which header the packets have that go on.
    fn learn(&mut self, pieces: &[(usize, Piece)], items: &[Item]) {
        for ((_, piece), item) in pieces.iter().zip(items) {
            let Item::Range(number, to) = item else { continue };
            let known: &[(u128, bool)] = match piece.operand.field {
                Field::NetworkFamily => &FAMILIES,
                Field::EtherType => &ETHER_TYPES,
                _ => continue,
            };
            if number == to {
                self.arp = piece.operand.field == Field::EtherType && *number == ARP;
                self.ipv4 = known.iter().find(|(known, _)| known == number).map(|(_, ipv4)| *ipv4);
            }
        }
    }

    /// The fields of a register, when nothing else is there. The byte with the version alone is no field.
    fn pieces(&self, register: u32, len: usize) -> Option<Vec<(usize, Piece)>> {
        let whole = |(at, piece): (usize, Piece)| match piece.scale {
            Scale::Version => (at, Piece::new(Field::Unknown(named("payload")), piece.len, true)),
            _ => (at, piece),
        };
        Some(self.registers.pieces(register, len)?.into_iter().map(whole).collect())
    }

    /// The name of what stands in a register, when it is not known.
    fn unknown_in(&self, register: u32) -> Option<&'static str> {
        match self.registers.at(Registers::place(register)?)? {
            (Content::Field(Piece { operand: Operand { field: Field::Unknown(name), .. }, .. }), 0) => Some(name),
            _ => None,
        }
    }

    fn lookup(&mut self, expression: &Expression) -> Read {
        const SET: u16 = 1;
        const SREG: u16 = 2;
        const DREG: u16 = 3;
        const FLAGS: u16 = 5;
        const INVERTED: u32 = 1;
        let target = expression.number(DREG);
        let read = || {
            let set = self.sets.get(self.place, &expression.text(SET)?)?;
            Some((set, self.pieces(expression.number(SREG)?, set.key_len)?))
        };
        let Some((set, pieces)) = read() else {
            return Ok(match target {
                None => Some(Statement::Perhaps(unknown::EXPRESSION)),
                Some(0) => Some(Statement::Anything(unknown::EXPRESSION)),
                // Where there is no entry the rule ends.
                Some(register) => {
                    self.load(register, Field::Unknown(unknown::EXPRESSION), ALL, false);
                    Some(Statement::Perhaps(unknown::EXPRESSION))
                }
            });
        };
        let Some(register) = target else {
            let inverted = expression.number(FLAGS).is_some_and(|flags| flags & INVERTED != 0);
            let relation = if inverted { Relation::NotEqual } else { Relation::Equal };
            let right = set.for_match(&pieces, self.devices);
            return Ok(Some(Statement::Match {
                left: pieces.into_iter().map(|(_, piece)| piece.operand).collect(),
                relation,
                right,
            }));
        };
        let mapped = set.mapped(&pieces, self.devices);
        if register != 0 {
            self.registers.put(register, vec![Content::Mapped(mapped)]);
            return Ok(None);
        }
        let verdict = |(key, data): &(Vec<Item>, Option<Data>)| match data {
            Some(Data::Verdict(verdict)) => Some((key.clone(), verdict.clone())),
            _ => None,
        };
        let map: Option<Vec<_>> = mapped.entries.iter().map(verdict).collect();
        let map = map.ok_or(NotUnderstood)?;
        Ok(Some(Statement::Verdicts { key: mapped.key, map, changes: mapped.changes }))
    }

    fn bitwise(&mut self, expression: &Expression) -> Read {
        const SREG: u16 = 1;
        const DREG: u16 = 2;
        const LEN: u16 = 3;
        const MASK: u16 = 4;
        const XOR: u16 = 5;
        const OP: u16 = 6;
        let (from, to, len) = (must(expression, SREG)?, must(expression, DREG)?, size(expression, LEN)?);
        if let Some(name) = self.unknown_in(from) {
            return Ok(self.load(to, Field::Unknown(name), ALL, false));
        }
        let boolean = expression.number(OP).unwrap_or(0) == 0;
        let sides = expression.value(MASK).zip(expression.value(XOR)).filter(|_| boolean);
        let pieces = self.registers.pieces(from, len);
        let contents = match (pieces, sides) {
            (Some(pieces), Some((mask, flip))) => {
                let part = |bytes: &[u8], at: usize, len: usize| bytes.get(at..at + len).map(<[u8]>::to_vec);
                let masked = |(at, piece): (usize, Piece)| {
                    let (mask, flip) = (part(&mask, at, piece.len)?, part(&flip, at, piece.len)?);
                    Some(Content::Field(piece.masked(&mask, &flip)))
                };
                pieces.into_iter().map(masked).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        let other = || vec![Content::Field(Piece::new(Field::Unknown(unknown::EXPRESSION), len, false))];
        self.registers.put(to, contents.unwrap_or_else(other));
        Ok(None)
    }

    fn byteorder(&mut self, expression: &Expression) -> Read {
        const SREG: u16 = 1;
        const DREG: u16 = 2;
        const LEN: u16 = 4;
        const SIZE: u16 = 5;
        let (from, to, len) = (must(expression, SREG)?, must(expression, DREG)?, size(expression, LEN)?);
        if let Some(name) = self.unknown_in(from) {
            return Ok(self.load(to, Field::Unknown(name), ALL, false));
        }
        let of = size(expression, SIZE)?;
        let contents = match self.registers.pieces(from, len).as_deref() {
            Some([(_, piece)]) if piece.len == of => vec![Content::Field(Piece { big: !piece.big, ..piece.clone() })],
            _ => vec![Content::Field(Piece::new(Field::Unknown(unknown::EXPRESSION), len, false))],
        };
        self.registers.put(to, contents);
        Ok(None)
    }

    fn immediate(&mut self, expression: &Expression) -> Read {
        const DREG: u16 = 1;
        const DATA: u16 = 2;
        match expression.data(DATA) {
            Some(Data::Verdict(verdict)) => Ok(Some(Statement::Verdict(verdict))),
            Some(Data::Bytes(bytes)) => {
                self.registers.put(must(expression, DREG)?, vec![Content::Constant(bytes)]);
                Ok(None)
            }
            None => Err(NotUnderstood),
        }
    }

    /// A statement that puts the packet into a set: it ends the rule when the set is full.
    fn update(&self, expression: &Expression, last: bool) -> Option<Statement> {
        const NAME: u16 = 1;
        const EXPRESSION: u16 = 7;
        const FLAGS: u16 = 9;
        const EXPRESSIONS: u16 = 10;
        const INVERTED: u32 = 1;
        let inner = expression.inner_names(EXPRESSION, EXPRESSIONS);
        if inner.iter().any(|name| !matches!(name.as_str(), "counter" | "last")) {
            return Some(perhaps("limit"));
        }
        let set = expression.text(NAME).and_then(|name| self.sets.get(self.place, &name));
        let room = set.is_some_and(|set| set.size.is_none_or(|size| set.elements.len() < size as usize));
        let inverted = expression.number(FLAGS).unwrap_or(0) & INVERTED != 0;
        if (room && !inverted) || last { None } else { Some(Statement::Perhaps(unknown::CHANGING_SET)) }
    }
}

/// A setting that the expression cannot be without.
pub(super) fn must(expression: &Expression, setting: u16) -> Result<u32, NotUnderstood> {
    expression.number(setting).ok_or(NotUnderstood)
}

/// The same as a number of bytes.
pub(super) fn size(expression: &Expression, setting: u16) -> Result<usize, NotUnderstood> {
    must(expression, setting).map(|number| number as usize)
}

/// The entries of a map with what they are read as.
pub(super) fn map<T>(mapped: &Mapped, read: impl Fn(&[u8]) -> Option<T>) -> Source<T> {
    let entry = |(key, data): &(Vec<Item>, Option<Data>)| match data {
        Some(Data::Bytes(bytes)) => (key.clone(), read(bytes)),
        _ => (key.clone(), None),
    };
    Source::Map(mapped.key.clone(), mapped.entries.iter().map(entry).collect())
}

pub(super) fn named(name: &str) -> &'static str {
    unknown::named(name, unknown::EXPRESSION)
}

fn perhaps(name: &str) -> Statement {
    Statement::Perhaps(named(name))
}

/// A reference to an object with a name.
fn object(expression: &Expression) -> Option<Statement> {
    const IMMEDIATE_TYPE: u16 = 1;
    match expression.number(IMMEDIATE_TYPE) {
        Some(2) => Some(perhaps("quota")),
        Some(4) => Some(perhaps("limit")),
        Some(5) => Some(perhaps("ct count")),
        Some(10) => Some(Statement::Anything(named("synproxy"))),
        // Counters, helpers, timeouts, security marks and expectations.
        Some(1 | 3 | 7 | 8 | 9) => None,
        _ => Some(Statement::Anything(unknown::EXPRESSION)),
    }
}
