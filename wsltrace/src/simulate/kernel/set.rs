//! Sets and maps: their elements as pairs of a range of keys and what belongs to it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use netlink_packet_netfilter::nftables::SetFlags;

use super::dump::DumpedRule;
use super::expression::Data;
use super::registers::Piece;
use crate::simulate::ruleset::Place;
use crate::simulate::unknown;
use crate::simulate::value::{Elements, Item, Operand};

/// `NFTA_DYNSET_SET_NAME`.
const NFTA_DYNSET_SET_NAME: u16 = 1;

/// A set or map.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) flags: SetFlags,
    /// Bytes of a key.
    pub(super) key_len: usize,
    /// Bytes of what belongs to a key.
    pub(super) data_len: usize,
    /// Most elements.
    pub(super) size: Option<u32>,
    pub(super) elements: Vec<Element>,
    /// Whether rules change it.
    pub(super) changes: bool,
}

/// An element, as the kernel tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct Element {
    pub(super) key: Option<Vec<u8>>,
    /// The last key, in sets of concatenated ranges.
    pub(super) end: Option<Vec<u8>>,
    /// The first key behind a range, in sets of ranges.
    pub(super) is_end: bool,
    /// It is for every key that the others are not for.
    pub(super) is_for_the_rest: bool,
    pub(super) data: Option<Data>,
}

/// The entry of a map for the fields in a register.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    pub(super) key: Vec<Operand>,
    pub(super) entries: Rc<Vec<(Vec<Item>, Option<Data>)>>,
    pub(super) len: usize,
    /// Whether rules change the map.
    pub(super) changes: bool,
}

/// A first and last key with what belongs to them; no keys for all the rest.
type Span<'a> = (Option<(Vec<u8>, Vec<u8>)>, Option<&'a Data>);

impl Set {
    fn spans(&self) -> Vec<Span<'_>> {
        // Of concatenated ranges each element has both ends.
        let has_ends = self.flags.contains(SetFlags::Concat) || self.elements.iter().any(|element| element.end.is_some());
        if self.flags.contains(SetFlags::Interval) && !has_ends {
            return self.intervals();
        }
        let span = |element: &Element| {
            let key = element.key.clone()?;
            Some((key.clone(), element.end.clone().unwrap_or(key)))
        };
        let all = self.elements.iter().filter(|element| element.is_for_the_rest || element.key.is_some());
        all.map(|element| (span(element).filter(|_| !element.is_for_the_rest), element.data.as_ref())).collect()
    }

    /// Ranges of which each begins with one element and ends before another.
    fn intervals(&self) -> Vec<Span<'_>> {
        let mut spans: Vec<Span<'_>> =
            self.elements.iter().filter(|one| one.is_for_the_rest).map(|one| (None, one.data.as_ref())).collect();
        let mut bounds: Vec<_> = self.elements.iter().filter(|one| !one.is_for_the_rest).collect();
        // A range may begin where another ends.
        bounds.sort_by_key(|one| (one.key.clone(), !one.is_end));
        let mut open: Option<(&Vec<u8>, Option<&Data>)> = None;
        for bound in bounds {
            let Some(key) = &bound.key else { continue };
            if let Some((from, data)) = open.take() {
                spans.push((Some((from.clone(), before(key))), data));
            }
            if !bound.is_end {
                open = Some((key, bound.data.as_ref()));
            }
        }
        // The last one may have no end.
        spans.extend(open.map(|(from, data)| (Some((from.clone(), vec![0xff; from.len()])), data)));
        spans
    }

    /// The elements for the fields of a key.
    fn entries(&self, pieces: &[(usize, Piece)], devices: &HashMap<u32, String>) -> Vec<(Vec<Item>, Option<Data>)> {
        let items = |from: &[u8], to: &[u8]| -> Vec<Item> {
            let item = |(at, piece): &(usize, Piece)| {
                let part = |bytes: &[u8]| bytes.get(*at..bytes.len().min(at + piece.len)).map(<[u8]>::to_vec);
                match (part(from), part(to)) {
                    (Some(from), Some(to)) => piece.item(&from, &to, devices),
                    _ => Item::Unknown(unknown::CONSTANT),
                }
            };
            pieces.iter().map(item).collect()
        };
        let entry = |(keys, data): Span<'_>| {
            let key = keys.map_or_else(|| vec![Item::Any], |(from, to)| items(&from, &to));
            (key, data.cloned())
        };
        self.spans().into_iter().map(entry).collect()
    }
}

/// The key before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    key
}

/// Where sets are looked up.
#[derive(Debug, Default)]
pub(super) struct Sets {
    named: HashMap<(String, String, String), Set>,
}

impl Sets {
    pub(super) fn of(sets: Vec<Set>, rules: &[DumpedRule]) -> Self {
        let named = sets.into_iter().map(|set| ((set.family.clone(), set.table.clone(), set.name.clone()), set));
        let mut sets = Self { named: named.collect() };
        for rule in rules {
            for expression in rule.expressions.iter().filter(|expression| expression.name == "dynset") {
                let name = expression.text(NFTA_DYNSET_SET_NAME).unwrap_or_default();
                let key = (rule.place.family.clone(), rule.place.table.clone(), name);
                if let Some(set) = sets.named.get_mut(&key) {
                    set.changes = true;
                }
            }
        }
        sets
    }

    pub(super) fn get(&self, place: &Place, name: &str) -> Option<&Set> {
        self.named.get(&(place.family.clone(), place.table.clone(), name.to_owned()))
    }
}

impl Set {
    /// What a field in a register is looked for among.
    pub(super) fn for_match(&self, pieces: &[(usize, Piece)], devices: &HashMap<u32, String>) -> Arc<Elements> {
        let list = self.entries(pieces, devices).into_iter().map(|(key, _)| key).collect();
        Arc::new(Elements { list, changes: self.changes })
    }

    /// The entry for the fields in a register.
    pub(super) fn mapped(&self, pieces: &[(usize, Piece)], devices: &HashMap<u32, String>) -> Mapped {
        Mapped {
            key: pieces.iter().map(|(_, piece)| piece.operand.clone()).collect(),
            entries: Rc::new(self.entries(pieces, devices)),
            len: self.data_len,
            changes: self.changes,
        }
    }
}
