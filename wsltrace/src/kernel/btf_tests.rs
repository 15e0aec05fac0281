//! Hand-made BTF: what is found in it, and that no damage to it does more than an error.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

/// Builds BTF type by type.
pub(crate) struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: u32,
}

impl Default for Blob {
    fn default() -> Self {
        Self { types: Vec::new(), strings: vec![0], next: 1 }
    }
}

impl Blob {
    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    pub(crate) fn record(&mut self, name: &str, kind: u32, count: usize, size_or_type: u32) -> u32 {
        let name = self.name(name);
        self.words(&[name, kind << 24 | u32::try_from(count).unwrap(), size_or_type]);
        self.next += 1;
        self.next - 1
    }

    /// Members: name, type, offset in bits.
    pub(crate) fn structure(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        self.members(name, kind::STRUCT, members)
    }

    fn members(&mut self, name: &str, kind: u32, members: &[(&str, u32, u32)]) -> u32 {
        let id = self.record(name, kind, members.len(), 64);
        for (name, member_type, bits) in members {
            let name = self.name(name);
            self.words(&[name, *member_type, *bits]);
        }
        id
    }

    pub(crate) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
        let id = self.record(name, kind::ENUM, values.len(), 4);
        for (name, value) in values {
            let name = self.name(name);
            self.words(&[name, *value]);
        }
        id
    }

    fn int(&mut self) -> u32 {
        let id = self.record("int", kind::INT, 0, 4);
        self.words(&[32]);
        id
    }

    pub(crate) fn pointer(&mut self, target: u32) -> u32 {
        self.record("", kind::PTR, 0, target)
    }

    pub(crate) fn function(&mut self, name: &str) -> u32 {
        self.record(name, kind::FUNC, 0, 0)
    }

    pub(crate) fn event(&mut self, typedef: &str, arguments: &[u32]) -> u32 {
        let prototype = self.record("", kind::FUNC_PROTO, arguments.len(), 0);
        for argument in arguments {
            self.words(&[0, *argument]);
        }
        let pointer = self.pointer(prototype);
        self.record(typedef, kind::TYPEDEF, 0, pointer)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        let (types, strings) = (u32::try_from(self.types.len()).unwrap(), u32::try_from(self.strings.len()).unwrap());
        for word in [24, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.types);
        bytes.extend(self.strings);
        bytes
    }
}

const NET: &[(Kind, &str)] = &[(Kind::Struct, "net"), (Kind::Enum, "verdict"), (Kind::Typedef, "btf_trace_x")];

fn sample() -> Vec<u8> {
    let mut blob = Blob::default();
    let int = blob.int();
    let inner = blob.members("", kind::UNION, &[("other", int, 0), ("inum", int, 32)]);
    let ns = blob.structure("ns_common", &[("stashed", int, 0), ("", inner, 64)]);
    let ns_const = blob.record("", kind::CONST, 0, ns);
    blob.structure("net", &[("passive", int, 0), ("ns", ns_const, 256)]);
    blob.enumeration("verdict", &[("NF_DROP", 0), ("NF_ACCEPT", 1)]);
    let void_pointer = blob.pointer(0);
    blob.event("btf_trace_x", &[void_pointer, int]);
    blob.finish()
}

#[test]
fn paths_go_through_unnamed_members_and_qualifiers() {
    let btf = Btf::parse(sample(), NET).unwrap();
    let net = btf.find(Kind::Struct, "net").unwrap();
    assert_eq!(btf.offset_of(net, "ns.inum"), Some(32 + 8 + 4));
    assert_eq!(btf.offset_of(net, "passive"), Some(0));
    assert_eq!(btf.offset_of(net, "ns.absent"), None);
    assert_eq!(btf.offset_of(net, "passive.deeper"), None);
    assert_eq!(btf.enumerators(btf.find(Kind::Enum, "verdict").unwrap()), [("NF_DROP", 0), ("NF_ACCEPT", 1)]);
    assert_eq!(btf.find(Kind::Struct, "ns_common"), None);
}

#[test]
fn bitfields_have_a_byte_offset_when_they_are_whole_bytes() {
    let mut blob = Blob::default();
    let int = blob.int();
    // With the kind flag an offset has the bitfield's length in its high byte.
    let name = blob.name("net");
    let (flag, half, whole) = (blob.name("flag"), blob.name("half"), blob.name("whole"));
    let members = [flag, int, 1 << 24 | 3, half, int, 16 << 24 | 16, whole, int, 32];
    blob.words(&[&[name, 1 << 31 | kind::STRUCT << 24 | 3, 8], &members[..]].concat());
    let btf = Btf::parse(blob.finish(), NET).unwrap();
    let net = btf.find(Kind::Struct, "net").unwrap();
    assert_eq!(btf.offset_of(net, "flag"), None);
    assert_eq!(btf.offset_of(net, "half"), Some(2));
    assert_eq!(btf.offset_of(net, "whole"), Some(4));
}

#[test]
fn loops_end() {
    let mut blob = Blob::default();
    blob.record("loop", kind::TYPEDEF, 0, 1);
    blob.structure("net", &[("", 2, 0), ("", 2, 0), ("", 2, 0), ("ns", 1, 0)]);
    let btf = Btf::parse(blob.finish(), NET).unwrap();
    let net = btf.find(Kind::Struct, "net").unwrap();
    assert_eq!(btf.offset_of(net, "absent"), None);
    assert_eq!(btf.offset_of(net, "ns.inum"), None);
}

#[test]
fn what_is_not_btf_is_an_error() {
    let message = |bytes: &[u8]| Btf::parse(bytes.to_vec(), NET).unwrap_err().to_string();
    assert!(message(&[]).contains("magic number"));
    assert!(message(&MAGIC.swap_bytes().to_ne_bytes()).contains("byte order"));
    let mut version = sample();
    version[2] = 2;
    assert!(message(&version).contains("version"));
    let mut unknown = sample();
    unknown[24 + 7] = 31;
    assert!(message(&unknown).contains("its kind is not known"));
}

/// Damages every byte in four ways and cuts off at every length; anything but a panic is right.
#[test]
fn damage_is_never_a_panic() {
    let exercise = |bytes: Vec<u8>| {
        let Ok(btf) = Btf::parse(bytes, NET) else { return };
        if let Some(net) = btf.find(Kind::Struct, "net") {
            btf.offset_of(net, "ns.inum");
        }
        if let Some(verdict) = btf.find(Kind::Enum, "verdict") {
            btf.enumerators(verdict);
        }
        if let Some(event) = btf.find(Kind::Typedef, "btf_trace_x") {
            btf.event_arguments(event);
        }
    };
    let good = sample();
    for at in 0..good.len() {
        exercise(good[..at].to_vec());
        for change in [0x01, 0x80, 0xff, good[at]] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            exercise(bytes);
        }
    }
}
