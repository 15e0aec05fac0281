//! Values of a packet's fields, the constants that they are compared with, and the comparison with three answers.

use std::net::IpAddr;

use super::ruleset::Relation;
use super::unknown;

/// A field of the packet, or of what the kernel keeps with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The address of IPv4 or, if not, IPv6.
    Source {
        ipv4: bool,
    },
    Destination {
        ipv4: bool,
    },
    /// Either family's, for iptables.
    SourcePort,
    DestinationPort,
    TcpFlags,
    TransportProtocol,
    /// The protocol in the header of IPv4, or the next header of IPv6.
    NextHeader {
        ipv4: bool,
    },
    IpVersion {
        ipv4: bool,
    },
    /// The flags and offset of fragments, of IPv4.
    FragmentOffset,
    NetworkFamily,
    EtherType,
    InputName,
    OutputName,
    Mark,
    State,
    /// `-m conntrack`'s states, which have two bits for translations.
    XtState,
    Status,
    Direction,
    ConnectionMark,
    /// Where the connection was to go before any translation, as connection tracking remembers it.
    AskedAddress {
        ipv4: bool,
    },
    AskedPort,
    PacketType,
    /// `fib daddr type`; with the device, an address of another device is not local.
    DestinationType {
        device: bool,
    },
    /// `fib saddr type`.
    SourceType,
    /// The hop limit of IPv6.
    HopLimit,
    /// Of the question for the hardware address of an IPv4 neighbour, or of its answer.
    Arp(Arp),
    /// A header that a TCP packet of IP has not.
    Absent,
    /// One of IPv6 that stands before what it carries, which no packet here has.
    Extension,
    /// A number that chance or a hash decides, from and to this one.
    Between {
        first: u32,
        last: u32,
        name: &'static str,
    },
    Unknown(&'static str),
}

/// A field of ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arp {
    HardwareType,
    ProtocolType,
    HardwareLength,
    ProtocolLength,
    Operation,
    /// The address of IPv4 of who sends it.
    Sender,
    /// The address of IPv4 that it is about, or for.
    Target,
}

impl Field {
    /// A number that chance or a hash decides: one of so many, from this one on.
    pub(super) fn between(many: u32, first: u32, name: &'static str) -> Self {
        let last = many.checked_sub(1).and_then(|more| first.checked_add(more));
        // A hash may have no limit.
        last.map_or(Self::Unknown(name), |last| Self::Between { first, last, name })
    }
}

/// A step of arithmetic on a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    And(u128),
    Or(u128),
    Xor(u128),
    /// One that is not done here.
    Other,
}

/// A field after arithmetic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operand {
    pub(super) field: Field,
    pub(super) steps: Vec<Step>,
}

impl From<Field> for Operand {
    fn from(field: Field) -> Self {
        Self { field, steps: Vec::new() }
    }
}

/// What a field has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A number, of which these bits are known, and what the others depend on.
    Bits {
        value: u128,
        known: u128,
        open: &'static str,
    },
    /// Any number from and to this one.
    Between(u128, u128, &'static str),
    /// Any number but this.
    Not(u128, &'static str),
    Name(String),
    /// The packet has no such field: the rule ends, however it compares.
    Absent,
    Unknown(&'static str),
}

impl Seen {
    pub(super) fn number(value: impl Into<u128>) -> Self {
        Self::Bits { value: value.into(), known: u128::MAX, open: unknown::CT }
    }

    pub(super) fn after(self, steps: &[Step]) -> Self {
        steps.iter().fold(self, |seen, step| match (seen, step) {
            (Self::Bits { value, known, open }, Step::And(mask)) => {
                Self::Bits { value: value & mask, known: known | !mask, open }
            }
            (Self::Bits { value, known, open }, Step::Or(mask)) => Self::Bits { value: value | mask, known: known | mask, open },
            (Self::Bits { value, known, open }, Step::Xor(mask)) => Self::Bits { value: value ^ mask, known, open },
            (Self::Absent, _) => Self::Absent,
            (Self::Unknown(name) | Self::Not(_, name) | Self::Between(_, _, name), _) => Self::Unknown(name),
            (Self::Bits { .. } | Self::Name(_), _) => Self::Unknown(unknown::EXPRESSION),
        })
    }
}

/// One component of a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// From, to.
    Range(u128, u128),
    /// A device's name, or the beginning of one.
    Name {
        text: String,
        beginning: bool,
    },
    /// The element for all that is not in the set.
    Any,
    Unknown(&'static str),
}

/// A constant, or the elements of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elements {
    /// Each with a component for every part of a concatenation.
    pub(super) list: Vec<Vec<Item>>,
    /// Whether rules change it.
    pub(super) changes: bool,
}

impl Elements {
    pub(super) fn one(item: Item) -> Self {
        Self { list: vec![vec![item]], changes: false }
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    Maybe(&'static str),
}

impl Answer {
    pub(super) fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe(name) => Self::Maybe(name),
        }
    }

    pub(super) fn all(answers: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::Yes;
        for answer in answers {
            match answer {
                Self::No => return Self::No,
                Self::Maybe(_) if all == Self::Yes => all = answer,
                _ => {}
            }
        }
        all
    }

    pub(super) fn any(answers: impl IntoIterator<Item = Self>) -> Self {
        Self::all(answers.into_iter().map(Self::not)).not()
    }
}

/// An address as a number.
pub(super) fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Whether a value is this constant.
pub(super) fn is(seen: &Seen, item: &Item) -> Answer {
    match (seen, item) {
        (_, Item::Any) => Answer::Yes,
        (Seen::Not(value, _), Item::Range(from, to)) if from == value && to == value => Answer::No,
        (Seen::Between(first, last, _), Item::Range(from, to)) if to < first || last < from => Answer::No,
        (Seen::Between(first, last, _), Item::Range(from, to)) if from <= first && last <= to => Answer::Yes,
        (Seen::Unknown(name) | Seen::Not(_, name) | Seen::Between(_, _, name), _)
        | (Seen::Bits { .. } | Seen::Name(_), Item::Unknown(name)) => Answer::Maybe(name),
        (Seen::Bits { value, known: u128::MAX, .. }, Item::Range(from, to)) => Answer::of((from..=to).contains(&value)),
        (Seen::Bits { value, known, open }, Item::Range(from, to)) if from == to => {
            if (value ^ from) & known == 0 {
                Answer::Maybe(open)
            } else {
                Answer::No
            }
        }
        (Seen::Name(name), Item::Name { text, beginning: false }) => Answer::of(name == text),
        (Seen::Name(name), Item::Name { text, beginning: true }) => Answer::of(name.starts_with(text.as_str())),
        (Seen::Absent, _) => Answer::No,
        (Seen::Bits { .. } | Seen::Name(_), _) => Answer::Maybe(unknown::CONSTANT),
    }
}

/// Whether concatenated values are this element.
pub(super) fn is_element(seen: &[Seen], element: &[Item]) -> Answer {
    if let [Item::Any] = element {
        return Answer::Yes;
    }
    if seen.len() != element.len() {
        return Answer::Maybe(unknown::CONSTANT);
    }
    Answer::all(seen.iter().zip(element).map(|(seen, item)| is(seen, item)))
}

/// Compares.
pub(super) fn compare(seen: &[Seen], relation: Relation, right: &Elements) -> Answer {
    if seen.contains(&Seen::Absent) {
        return Answer::No;
    }
    let within = || {
        let answer = Answer::any(right.list.iter().map(|element| is_element(seen, element)));
        if right.changes { Answer::Maybe(unknown::CHANGING_SET) } else { answer }
    };
    match (relation, seen, right.list.as_slice()) {
        (Relation::Equal, ..) => within(),
        (Relation::NotEqual, ..) => within().not(),
        (Relation::AnyBit, [seen], [element]) => any_bit(seen, element),
        (Relation::NoBit, [seen], [element]) => any_bit(seen, element).not(),
        (_, [seen], [element]) => ordered(seen, relation, element),
        _ => Answer::Maybe(unknown::EXPRESSION),
    }
}

fn any_bit(seen: &Seen, element: &[Item]) -> Answer {
    match (seen, element) {
        (Seen::Unknown(name) | Seen::Between(_, _, name), _) | (_, [Item::Unknown(name)]) => Answer::Maybe(name),
        (Seen::Bits { value, known, open }, [Item::Range(bits, to)]) if bits == to => {
            if value & known & bits != 0 {
                Answer::Yes
            } else if bits & !known == 0 {
                Answer::No
            } else {
                Answer::Maybe(open)
            }
        }
        _ => Answer::Maybe(unknown::EXPRESSION),
    }
}

fn ordered(seen: &Seen, relation: Relation, element: &[Item]) -> Answer {
    match (seen, element) {
        (Seen::Between(first, last, name), [Item::Range(number, to)]) if number == to => {
            let ends = [first, last].map(|end| ordered(&Seen::number(*end), relation, element));
            if ends[0] == ends[1] { ends[0] } else { Answer::Maybe(name) }
        }
        (Seen::Unknown(name), _) | (_, [Item::Unknown(name)]) => Answer::Maybe(name),
        (Seen::Bits { value, known: u128::MAX, .. }, [Item::Range(number, to)]) if number == to => match relation {
            Relation::Less => Answer::of(value < number),
            Relation::LessOrEqual => Answer::of(value <= number),
            Relation::Greater => Answer::of(value > number),
            Relation::GreaterOrEqual => Answer::of(value >= number),
            _ => Answer::Maybe(unknown::EXPRESSION),
        },
        _ => Answer::Maybe(unknown::EXPRESSION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u128) -> Item {
        Item::Range(value, value)
    }

    fn elements(list: Vec<Item>) -> Elements {
        Elements { list: list.into_iter().map(|item| vec![item]).collect(), changes: false }
    }

    #[test]
    fn three_answers_are_kept_apart() {
        let maybe = Answer::Maybe(unknown::MARK);
        assert_eq!(Answer::all([maybe, Answer::No]), Answer::No);
        assert_eq!(Answer::all([maybe, Answer::Yes]), maybe);
        assert_eq!(Answer::any([maybe, Answer::Yes]), Answer::Yes);
        assert_eq!(Answer::any([maybe, Answer::No]), maybe);
        assert_eq!(Answer::any([]), Answer::No);
    }

    #[test]
    fn what_is_absent_matches_nothing_and_not_nothing_either() {
        let right = elements(vec![number(5)]);
        for relation in [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::NoBit] {
            assert_eq!(compare(&[Seen::Absent], relation, &right), Answer::No);
        }
    }

    #[test]
    fn sets_intervals_and_orders_are_compared() {
        let set = elements(vec![number(80), Item::Range(443, 500)]);
        let compare_port = |port: u16, relation| compare(&[Seen::number(port)], relation, &set);
        assert_eq!(compare_port(450, Relation::Equal), Answer::Yes);
        assert_eq!(compare_port(450, Relation::NotEqual), Answer::No);
        assert_eq!(compare_port(81, Relation::Equal), Answer::No);
        let changing = Elements { changes: true, ..set };
        assert_eq!(compare(&[Seen::number(80u8)], Relation::Equal, &changing), Answer::Maybe(unknown::CHANGING_SET));
        let bound = elements(vec![number(1024)]);
        let ordered = |relation| compare(&[Seen::number(1024u16)], relation, &bound);
        assert_eq!([ordered(Relation::Less), ordered(Relation::LessOrEqual)], [Answer::No, Answer::Yes]);
        assert_eq!([ordered(Relation::Greater), ordered(Relation::GreaterOrEqual)], [Answer::No, Answer::Yes]);
    }

    #[test]
    fn what_chance_decides_has_its_limits() {
        let dice = [Seen::Between(2, 4, "numgen")];
        let answer = |relation, item| compare(&dice, relation, &elements(vec![item]));
        let maybe = Answer::Maybe("numgen");
        assert_eq!([1, 2, 4, 5].map(|it| answer(Relation::Equal, number(it))), [Answer::No, maybe, maybe, Answer::No]);
        assert_eq!(answer(Relation::Equal, Item::Range(0, 9)), Answer::Yes);
        assert_eq!(answer(Relation::Equal, Item::Range(3, 9)), maybe);
        assert_eq!([2, 3, 5].map(|it| answer(Relation::Less, number(it))), [Answer::No, maybe, Answer::Yes]);
        assert_eq!([1, 3, 4].map(|it| answer(Relation::Greater, number(it))), [Answer::Yes, maybe, Answer::No]);
    }

    #[test]
    fn bits_that_are_not_known_leave_it_open() {
        let seen = |value, known| Seen::Bits { value, known, open: unknown::CT };
        let bit = |bits| elements(vec![number(bits)]);
        assert_eq!(compare(&[seen(32, 48)], Relation::AnyBit, &bit(32)), Answer::Yes);
        assert_eq!(compare(&[seen(32, 48)], Relation::AnyBit, &bit(16)), Answer::No);
        assert_eq!(compare(&[seen(32, 48)], Relation::NoBit, &bit(16)), Answer::Yes);
        assert_eq!(compare(&[seen(32, 48)], Relation::AnyBit, &bit(64)), Answer::Maybe(unknown::CT));
        let masked = seen(32, 48).after(&[Step::And(32)]);
        assert_eq!(compare(&[masked], Relation::Equal, &bit(32)), Answer::Yes);
    }

    #[test]
    fn devices_are_compared_by_their_beginning_too() {
        let name = |text: &str, beginning| Item::Name { text: text.to_owned(), beginning };
        let eth0 = Seen::Name("eth0".to_owned());
        assert_eq!(is(&eth0, &name("eth", true)), Answer::Yes);
        assert_eq!(is(&eth0, &name("eth", false)), Answer::No);
        assert_eq!(is(&eth0, &Item::Range(2, 2)), Answer::Maybe(unknown::CONSTANT));
        assert_eq!(is(&Seen::Not(2, unknown::FIB), &number(2)), Answer::No);
        assert_eq!(is(&Seen::Not(2, unknown::FIB), &number(1)), Answer::Maybe(unknown::FIB));
    }
}
