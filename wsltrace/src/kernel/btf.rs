//! Reads BTF, the kernel's description of its own types: one pass over the type section notes where each record begins and
//! picks out the few that were asked for by name; everything else stays unparsed, because a start must not take long.
//!
//! The input is trusted in nothing: every read is checked against the section it lies in, and every chain has a limit.
//! Split BTF (of modules) is not read: all types that the probes need are the kernel's own, also where conntrack is a module.
//! Format: <https://docs.kernel.org/bpf/btf.html>

use thiserror::Error;

/// Where the kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Length of the header's fields that are read here, bytes.
const HEADER_LEN: usize = 24;
/// Length of the part that all type records have, bytes.
const RECORD_LEN: usize = 12;
/// Longest chain of typedefs and qualifiers, and deepest nesting of unnamed members, that is followed; kernels stay below 8.
const MAX_DEPTH: u32 = 32;
/// Most members that the search for one looks at, so that structures that contain themselves cannot make it endless;
/// the kernel's largest structure has about 300.
const MAX_MEMBERS: u32 = 10_000;

/// Why BTF could not be read.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("cannot read the kernel's type information {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not BTF of this machine's byte order.
    #[error("the kernel's type information is not BTF: {0}")]
    Header(&'static str),
    /// A record is cut off or of a kind that is not known.
    #[error("the kernel's type information is malformed at type {id}: {problem}")]
    Record {
        /// Number of the type.
        id: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Kinds of types that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A structure.
    Struct,
    /// An enumeration of 32 or 64 bits.
    Enum,
    /// A type definition; each tracepoint has one, `btf_trace_NAME`.
    Typedef,
    /// A function.
    Func,
}

/// Numbers of the kinds in the format.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// What a type is, as far as argument lists need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// A pointer to a structure of this name.
    PointerTo(&'a str),
    /// `void *`.
    VoidPointer,
    /// An enumeration of this name.
    Enum(&'a str),
    /// Anything else.
    Other,
}

/// The types of one kernel.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    types: std::ops::Range<usize>,
    strings: std::ops::Range<usize>,
    /// Where each record begins, from the start of the type section; type 1 is the first.
    records: Vec<u32>,
    found: Vec<(Kind, &'static str, u32)>,
}

/// The part that all type records have.
#[derive(Clone, Copy)]
struct Header {
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Header {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn kind_flag(self) -> bool {
        self.info >> 31 != 0
    }

    /// Bytes that follow the header, or `None` for a kind that is not known.
    fn extra_len(self) -> Option<usize> {
        Some(match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * self.count(),
            kind::ENUM | kind::FUNC_PROTO => 8 * self.count(),
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => 0,
            _ => return None,
        })
    }

    fn wanted_kind(self) -> Option<Kind> {
        Some(match self.kind() {
            kind::STRUCT => Kind::Struct,
            kind::ENUM | kind::ENUM64 => Kind::Enum,
            kind::TYPEDEF => Kind::Typedef,
            kind::FUNC => Kind::Func,
            _ => return None,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

fn section(bytes: &[u8], header_len: u32, offset: u32, len: u32) -> Option<std::ops::Range<usize>> {
    let start = (header_len as usize).checked_add(offset as usize)?;
    let end = start.checked_add(len as usize)?;
    (end <= bytes.len()).then_some(start..end)
}

impl Btf {
    /// Reads the running kernel's BTF and picks out the `wanted` types.
    pub fn of_kernel(wanted: &[(Kind, &'static str)]) -> Result<Self, BtfError> {
        let bytes = std::fs::read(VMLINUX).map_err(|source| BtfError::Read { path: VMLINUX.to_owned(), source })?;
        Self::parse(bytes, wanted)
    }

    /// Indexes BTF and picks out the `wanted` types; of several with one name the first counts.
    pub fn parse(bytes: Vec<u8>, wanted: &[(Kind, &'static str)]) -> Result<Self, BtfError> {
        let word = |at| u32_at(&bytes, at).ok_or(BtfError::Header("it is shorter than its header"));
        match bytes.first_chunk().map(|magic| u16::from_ne_bytes(*magic)) {
            Some(MAGIC) => {}
            Some(other) if other == MAGIC.swap_bytes() => return Err(BtfError::Header("its byte order is another machine's")),
            _ => return Err(BtfError::Header("the magic number is missing")),
        }
        if bytes.get(2) != Some(&1) {
            return Err(BtfError::Header("its version is not 1"));
        }
        let header_len = word(4)?;
        if (header_len as usize) < HEADER_LEN {
            return Err(BtfError::Header("its header is too short"));
        }
        let types =
            section(&bytes, header_len, word(8)?, word(12)?).ok_or(BtfError::Header("the types lie outside of the file"))?;
        let strings =
            section(&bytes, header_len, word(16)?, word(20)?).ok_or(BtfError::Header("the names lie outside of the file"))?;
        let mut btf = Self { bytes, types, strings, records: Vec::new(), found: Vec::new() };
        btf.index(wanted)?;
        Ok(btf)
    }

    fn index(&mut self, wanted: &[(Kind, &'static str)]) -> Result<(), BtfError> {
        let types = &self.bytes[self.types.clone()];
        let strings = &self.bytes[self.strings.clone()];
        // Kernels have 32 to 40 bytes a type.
        let mut records = Vec::with_capacity(types.len() / 32);
        let mut found: Vec<(Kind, &'static str, u32)> = Vec::with_capacity(wanted.len());
        let mut at = 0;
        while at < types.len() {
            let id = u32::try_from(records.len() + 1).unwrap_or(u32::MAX);
            let cut = || BtfError::Record { id, problem: "it is cut off" };
            let header = header_at(types, at).ok_or_else(cut)?;
            let extra = header.extra_len().ok_or(BtfError::Record { id, problem: "its kind is not known" })?;
            let end = at + RECORD_LEN + extra;
            if end > types.len() {
                return Err(cut());
            }
            if let Some(kind) = header.wanted_kind()
                && let Some(name) = strings.get(header.name as usize..)
                && let Some((_, wanted_name)) = wanted.iter().find(|(k, n)| *k == kind && is_name(name, n))
                && !found.iter().any(|(k, n, _)| *k == kind && n == wanted_name)
            {
                found.push((kind, wanted_name, id));
            }
            records.push(u32::try_from(at).map_err(|_| BtfError::Header("it is larger than 4 GiB"))?);
            at = end;
        }
        self.records = records;
        self.found = found;
        Ok(())
    }

    fn types(&self) -> &[u8] {
        &self.bytes[self.types.clone()]
    }

    fn header(&self, id: u32) -> Option<(Header, usize)> {
        let at = *self.records.get((id as usize).checked_sub(1)?)? as usize;
        Some((header_at(self.types(), at)?, at + RECORD_LEN))
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let tail = self.bytes[self.strings.clone()].get(offset as usize..)?;
        std::ffi::CStr::from_bytes_until_nul(tail).ok()?.to_str().ok()
    }

    /// The number of the type with this kind and name, if it was asked for and exists.
    pub fn find(&self, kind: Kind, name: &str) -> Option<u32> {
        self.found.iter().find(|(k, n, _)| *k == kind && *n == name).map(|(_, _, id)| *id)
    }

    /// Byte offset of a member, named by a path such as `ns.inum`, from the start of the structure; members of unnamed
    /// structures and unions count as members of what contains them, and a bitfield of whole bytes as what it is. `None` for other
    /// bitfields and for what is not there.
    pub fn offset_of(&self, structure: u32, path: &str) -> Option<u32> {
        let mut bits: u32 = 0;
        let mut id = structure;
        let mut budget = MAX_MEMBERS;
        for member in path.split('.') {
            let (member_bits, member_type) = self.member(id, member, 0, &mut budget)?;
            bits = bits.checked_add(member_bits)?;
            id = member_type;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn member(&self, id: u32, wanted: &str, depth: u32, budget: &mut u32) -> Option<(u32, u32)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (header, at) = self.header(self.strip(id)?)?;
        if !matches!(header.kind(), kind::STRUCT | kind::UNION) {
            return None;
        }
        for index in 0..header.count() {
            *budget = budget.checked_sub(1)?;
            let at = at + index * 12;
            let (name, member_type, raw) =
                (u32_at(self.types(), at)?, u32_at(self.types(), at + 4)?, u32_at(self.types(), at + 8)?);
            let (bits, bitfield_len) = if header.kind_flag() { (raw & 0xff_ffff, raw >> 24) } else { (raw, 0) };
            let name = self.name(name)?;
            if name == wanted {
                return bitfield_len.is_multiple_of(8).then_some((bits, member_type));
            }
            if name.is_empty()
                && let Some((inner_bits, inner_type)) = self.member(member_type, wanted, depth + 1, budget)
            {
                return Some((bits.checked_add(inner_bits)?, inner_type));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let (header, _) = self.header(id)?;
            match header.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => id = header.size_or_type,
                _ => return Some(id),
            }
        }
        None
    }

    /// Names and values of an enumeration; of 64-bit values the low half.
    pub fn enumerators(&self, id: u32) -> Vec<(&str, u32)> {
        let Some((header, at)) = self.header(id) else { return Vec::new() };
        let size = match header.kind() {
            kind::ENUM => 8,
            kind::ENUM64 => 12,
            _ => return Vec::new(),
        };
        (0..header.count())
            .filter_map(|index| {
                let at = at + index * size;
                Some((self.name(u32_at(self.types(), at)?)?, u32_at(self.types(), at + 4)?))
            })
            .collect()
    }

    /// The arguments of a tracepoint, from its typedef and without the leading context pointer.
    pub fn event_arguments(&self, typedef: u32) -> Option<Vec<Shape<'_>>> {
        let (pointer, _) = self.header(self.strip(typedef)?)?;
        if pointer.kind() != kind::PTR {
            return None;
        }
        let (prototype, at) = self.header(self.strip(pointer.size_or_type)?)?;
        if prototype.kind() != kind::FUNC_PROTO {
            return None;
        }
        (1..prototype.count()).map(|index| Some(self.shape(u32_at(self.types(), at + index * 8 + 4)?))).collect()
    }

    fn shape(&self, id: u32) -> Shape<'_> {
        let Some((header, _)) = self.strip(id).and_then(|id| self.header(id)) else { return Shape::Other };
        match header.kind() {
            kind::ENUM | kind::ENUM64 => self.name(header.name).map_or(Shape::Other, Shape::Enum),
            kind::PTR if header.size_or_type == 0 => Shape::VoidPointer,
            kind::PTR => {
                let Some((target, _)) = self.strip(header.size_or_type).and_then(|id| self.header(id)) else {
                    return Shape::Other;
                };
                match target.kind() {
                    kind::STRUCT | kind::FWD => self.name(target.name).map_or(Shape::Other, Shape::PointerTo),
                    _ => Shape::Other,
                }
            }
            _ => Shape::Other,
        }
    }
}

fn header_at(types: &[u8], at: usize) -> Option<Header> {
    let record = types.get(at..at.checked_add(RECORD_LEN)?)?;
    Some(Header { name: u32_at(record, 0)?, info: u32_at(record, 4)?, size_or_type: u32_at(record, 8)? })
}

/// Whether the zero-terminated name at the start of `strings` is `name`.
fn is_name(strings: &[u8], name: &str) -> bool {
    strings.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

#[cfg(test)]
#[path = "btf_tests.rs"]
pub(crate) mod tests;
