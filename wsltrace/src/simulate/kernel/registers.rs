//! What the registers of a rule hold, and the constants that stand for it. Registers are 64 bytes, in which expressions put
//! fields of the packet side by side; a constant has the same bytes.

use std::collections::HashMap;

use super::set::Mapped;
use crate::simulate::unknown;
use crate::simulate::value::{Field, Item, Operand, Step};

/// How bytes of a field become its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// They are the number.
    Whole,
    /// They are the upper part of it, with this many bits below.
    Upper(usize),
    /// The same, and the bits below count as none.
    UpperAlone(usize),
    /// The number stands above this many bits, which are none.
    Shifted(usize),
    /// The byte with the version of IP, of which the lower half is something else.
    Version,
}

/// A field in a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) operand: Operand,
    pub(super) len: usize,
    /// In network byte order, otherwise in the machine's.
    pub(super) big: bool,
    pub(super) scale: Scale,
}

impl Piece {
    pub(super) fn new(field: Field, len: usize, big: bool) -> Self {
        Self { operand: Operand::from(field), len, big, scale: Scale::Whole }
    }

    /// The same after `(bytes & mask) ^ flip`.
    pub(super) fn masked(mut self, mask: &[u8], flip: &[u8]) -> Self {
        let (mask, flip) = (number(mask, self.big), number(flip, self.big));
        let shift = match self.scale {
            Scale::Version if (mask, flip) == (0xf0, 0) => return Self { scale: Scale::Shifted(4), ..self },
            Scale::Version | Scale::Shifted(_) => {
                self.operand.steps.push(Step::Other);
                return self;
            }
            Scale::Whole => 0,
            Scale::Upper(bits) | Scale::UpperAlone(bits) => {
                self.scale = Scale::UpperAlone(bits);
                bits
            }
        };
        self.operand.steps.push(Step::And(mask << shift));
        if flip != 0 {
            self.operand.steps.push(Step::Xor(flip << shift));
        }
        self
    }

    /// Constants from one to another of the same length; `devices` are the names of interfaces by their numbers.
    pub(super) fn item(&self, from: &[u8], to: &[u8], devices: &HashMap<u32, String>) -> Item {
        const NAME: usize = 16;
        if matches!(self.operand.field, Field::InputName | Field::OutputName) {
            if self.len == NAME {
                return name(from, to);
            }
            let named = u32::try_from(number(from, self.big)).ok().and_then(|index| devices.get(&index));
            return match named {
                Some(text) if from == to => Item::Name { text: text.clone(), beginning: false },
                // The number of a device that is gone or has no name here.
                _ => Item::Unknown(unknown::CONSTANT),
            };
        }
        let (from, to) = (number(from, self.big), number(to, self.big));
        match self.scale {
            Scale::Whole | Scale::Version => Item::Range(from, to),
            Scale::Upper(bits) => Item::Range(from << bits, (to << bits) | ((1 << bits) - 1)),
            Scale::UpperAlone(bits) => Item::Range(from << bits, to << bits),
            Scale::Shifted(bits) => Item::Range(from >> bits, to >> bits),
        }
    }
}

/// A device's name, or what begins one.
fn name(from: &[u8], to: &[u8]) -> Item {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let end = from.iter().position(|byte| *byte == 0).unwrap_or(from.len());
    let (begins, rest) = from.split_at(end);
    let is_all = |bytes: &[u8], byte: u8| bytes.iter().all(|one| *one == byte);
    if from == to {
        // Shorter than a name and without its end, it is the beginning of one.
        let beginning = end == from.len() && from.len() < 16;
        return Item::Name { text: text(begins), beginning };
    }
    if to.get(..end) == Some(begins) && is_all(rest, 0) && is_all(to.get(end..).unwrap_or_default(), 0xff) {
        return Item::Name { text: text(begins), beginning: true };
    }
    Item::Unknown(unknown::CONSTANT)
}

/// What bytes say as a number.
pub(super) fn number(bytes: &[u8], big: bool) -> u128 {
    let add = |sum: u128, byte: &u8| (sum << 8) | u128::from(*byte);
    if big || cfg!(target_endian = "big") { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

/// What stands somewhere in the registers.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Field(Piece),
    Constant(Vec<u8>),
    /// The entry of a map.
    Mapped(Mapped),
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Field(piece) => piece.len,
            Self::Constant(bytes) => bytes.len(),
            Self::Mapped(mapped) => mapped.len,
        }
    }
}

/// The registers, by the places of their bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Registers {
    cells: Vec<(usize, Content)>,
}

impl Registers {
    /// The place of a register: the first four have 16 bytes, those from 8 on have 4.
    pub(super) fn place(register: u32) -> Option<usize> {
        match register {
            1..=4 => Some((register as usize - 1) * 16),
            8..=23 => Some((register as usize - 8) * 4),
            _ => None,
        }
    }

    /// Puts something into a register, in the place of what it covers.
    pub(super) fn put(&mut self, register: u32, contents: Vec<Content>) {
        let Some(mut at) = Self::place(register) else { return };
        for content in contents {
            // What is shorter is filled up with zeros to a multiple of four bytes, but fields of one load stand side by side.
            let end = at + content.len();
            self.cells.retain(|(place, other)| place + other.len() <= at || *place >= end);
            self.cells.push((at, content));
            at = end;
        }
    }

    /// What stands at a place, and how far inside of it that is.
    pub(super) fn at(&self, place: usize) -> Option<(&Content, usize)> {
        let within = |(start, content): &&(usize, Content)| (*start..start + content.len()).contains(&place);
        self.cells.iter().find(within).map(|(start, content)| (content, place - start))
    }

    /// The fields in so many bytes of a register, each with its place in them; `None` when something else is among them.
    pub(super) fn pieces(&self, register: u32, len: usize) -> Option<Vec<(usize, Piece)>> {
        let start = Self::place(register)?;
        let (mut at, mut pieces) = (0, Vec::new());
        while at < len {
            match self.at(start + at) {
                Some((Content::Field(piece), 0)) => {
                    pieces.push((at, piece.clone()));
                    at += piece.len;
                }
                // The rest of a register that is not filled.
                None if at % 4 != 0 => at = at.next_multiple_of(4),
                _ => return None,
            }
        }
        Some(pieces)
    }
}
