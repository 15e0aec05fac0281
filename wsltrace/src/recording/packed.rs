//! A journey's record, packed: numbers of variable length, times as differences, interfaces and names by their number in the
//! dictionary. Addresses of the kernel's memory and code are left out: a recording travels.

use bytes::{BufMut, BytesMut};
use integer_encoding::VarInt;
use wsltrace_common::{Address, Death, Flags, Flow, HEADER_SIZE, Key, MAX_STAGES, Record, StageEntry, octets};

/// Bytes that cannot be a journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a journey without a readable {0}")]
pub struct Malformed(pub &'static str);

/// A network namespace and the number of an interface in it.
pub(super) type PlaceKey = (u32, u32);

/// What the packer asks for numbers.
pub(super) trait Numbers {
    /// The number of an interface.
    fn place(&mut self, place: PlaceKey) -> u16;
    /// The number of a place in the kernel's code, from 1; 0 when it has no name.
    fn location(&mut self, address: u64) -> u16;
    /// A drop reason is about to be referred to by the kernel's own number.
    fn reason(&mut self, number: u32);
}

/// What the unpacker asks numbers for.
pub(super) trait Meanings {
    /// The interface of this number.
    fn place(&self, number: u64) -> Option<PlaceKey>;
    /// Whether this number, from 1, is a place in the kernel's code.
    fn is_location(&self, number: u64) -> bool;
}

/// It did not happen.
const NO_DEATH: Death = Death { time_ns: 0, location: 0, reason: 0, netns: 0, ifindex: 0, stage_count: 0 };
/// What stands before an IPv4 address that is mapped into IPv6.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

pub(super) fn put(out: &mut BytesMut, value: impl VarInt) {
    let mut buffer = [0; 10];
    let length = value.encode_var(&mut buffer);
    out.put_slice(buffer.get(..length).unwrap_or_default());
}

fn put_address(out: &mut BytesMut, address: Address) {
    let octets = octets(address);
    if let Some(v4) = octets.strip_prefix(&MAPPED) {
        out.put_u8(4);
        out.put_slice(v4);
    } else {
        out.put_u8(16);
        out.put_slice(&octets);
    }
}

fn put_flow(out: &mut BytesMut, flow: &Flow) {
    put_address(out, flow.source);
    put_address(out, flow.destination);
    put(out, flow.source_port);
    put(out, flow.destination_port);
    put(out, flow.family);
}

/// How far `time` is from `base`; whatever wraps around wraps back.
fn difference(time: u64, base: u64) -> i64 {
    time.wrapping_sub(base).cast_signed()
}

/// Adds a record; `base_ns` is the header's instant of `CLOCK_MONOTONIC`.
pub(super) fn pack(out: &mut BytesMut, record: &Record, base_ns: u64, numbers: &mut impl Numbers) {
    put_flow(out, &record.flow);
    put_flow(out, &record.now);
    put_address(out, record.key.address);
    put(out, record.key.sequence);
    put(out, record.key.port);
    put(out, record.key.slot);
    put(out, difference(record.first_ns, base_ns));
    put(out, difference(record.last_ns, record.first_ns));
    put(out, record.flags);
    put(out, record.attempt);
    put(out, numbers.place((record.netns, record.ifindex)));
    put(out, numbers.place((record.syn_netns, record.syn_ifindex)));
    put(out, numbers.place((record.answer_netns, record.answer_ifindex)));
    put(out, record.tgid);
    put(out, record.conntrack);
    put(out, record.payload_len);
    out.put_slice(&record.comm);
    for death in [&record.death, &record.consumed, &record.answer_death, &record.stray] {
        put_death(out, death, record.first_ns, numbers);
    }
    if record.flags & Flags::CONFIRMATION_DROPPED != 0 {
        put_death(out, &record.confirmation_death, record.first_ns, numbers);
    }
    let stages = record.stages.get(..record.stage_count as usize).unwrap_or_default();
    put(out, stages.len());
    let mut before = 0;
    for entry in stages {
        let time = entry.time_and_code >> StageEntry::TIME_SHIFT;
        put(out, entry.time_and_code & ((1 << StageEntry::TIME_SHIFT) - 1));
        put(out, difference(time, before));
        put(out, numbers.place((entry.netns, entry.ifindex)));
        before = time;
    }
}

fn put_death(out: &mut BytesMut, death: &Death, first_ns: u64, numbers: &mut impl Numbers) {
    if death.time_ns == 0 {
        out.put_u8(0);
        return;
    }
    out.put_u8(1);
    put(out, difference(death.time_ns, first_ns));
    put(out, numbers.location(death.location));
    numbers.reason(death.reason);
    put(out, death.reason);
    put(out, numbers.place((death.netns, death.ifindex)));
    put(out, death.stage_count);
}

/// Reads what was packed from a slice, and keeps the rest of it.
pub(super) struct Unpacker<'a> {
    rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn number<T: VarInt>(&mut self, what: &'static str) -> Result<T, Malformed> {
        let (value, length) = T::decode_var(self.rest).ok_or(Malformed(what))?;
        self.rest = self.rest.get(length..).ok_or(Malformed(what))?;
        Ok(value)
    }

    /// Most numbers are small: one byte is read here, longer ones by the library.
    fn unsigned(&mut self, what: &'static str) -> Result<u64, Malformed> {
        match self.rest.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.number(what),
        }
    }

    /// A number of up to 32 bits: the library would take a longer one's lower half.
    fn word(&mut self, what: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.unsigned(what)?).map_err(|_| Malformed(what))
    }

    fn half(&mut self, what: &'static str) -> Result<u16, Malformed> {
        u16::try_from(self.unsigned(what)?).map_err(|_| Malformed(what))
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(*first)
    }

    fn bytes(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn address(&mut self) -> Result<Address, Malformed> {
        let mut all = [0; 16];
        match self.byte("address")? {
            4 => {
                let (prefix, v4) = all.split_at_mut(MAPPED.len());
                prefix.copy_from_slice(&MAPPED);
                v4.copy_from_slice(self.bytes(4, "address")?);
            }
            16 => all.copy_from_slice(self.bytes(16, "address")?),
            _ => return Err(Malformed("address")),
        }
        let mut address = [0; 4];
        for (word, bytes) in address.iter_mut().zip(all.as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Ok(address)
    }

    fn flow(&mut self) -> Result<Flow, Malformed> {
        let (source, destination) = (self.address()?, self.address()?);
        let (source_port, destination_port) = (self.half("port")?, self.half("port")?);
        let family = self.word("family")?;
        if !matches!(family, 4 | 6) {
            return Err(Malformed("family"));
        }
        Ok(Flow { source, destination, source_port, destination_port, family })
    }

    fn time(&mut self, base: u64) -> Result<u64, Malformed> {
        Ok(base.wrapping_add(self.number::<i64>("time")?.cast_unsigned()))
    }

    fn place(&mut self, meanings: &impl Meanings) -> Result<PlaceKey, Malformed> {
        let number = self.unsigned("interface")?;
        meanings.place(number).ok_or(Malformed("interface"))
    }

    fn death(&mut self, first_ns: u64, meanings: &impl Meanings) -> Result<Death, Malformed> {
        match self.byte("death")? {
            0 => return Ok(NO_DEATH),
            1 => {}
            _ => return Err(Malformed("death")),
        }
        let time_ns = self.time(first_ns)?;
        let location = self.number("location")?;
        if location != 0 && !meanings.is_location(location) {
            return Err(Malformed("location"));
        }
        let reason = self.word("reason")?;
        let (netns, ifindex) = self.place(meanings)?;
        Ok(Death { time_ns, location, reason, netns, ifindex, stage_count: self.word("number of stages")? })
    }
}

/// A record to unpack into, so that its two kilobytes are not copied about for each journey.
pub(super) fn blank() -> Box<Record> {
    let flow = Flow { source: [0; 4], destination: [0; 4], source_port: 0, destination_port: 0, family: 4 };
    Box::new(Record {
        key: Key { address: [0; 4], sequence: 0, port: 0, slot: 0 },
        flow,
        now: flow,
        first_ns: 0,
        last_ns: 0,
        skb: 0,
        answer_skb: 0,
        death: NO_DEATH,
        consumed: NO_DEATH,
        answer_death: NO_DEATH,
        stray: NO_DEATH,
        confirmation_death: NO_DEATH,
        counted: 0,
        flags: 0,
        attempt: 0,
        netns: 0,
        ifindex: 0,
        syn_netns: 0,
        syn_ifindex: 0,
        answer_netns: 0,
        answer_ifindex: 0,
        tgid: 0,
        conntrack: 0,
        payload_len: 0,
        stage_count: 0,
        comm: [0; 16],
        stages: [StageEntry { time_and_code: 0, netns: 0, ifindex: 0 }; MAX_STAGES],
    })
}

/// Reads a record, but for the addresses of the kernel's memory. The location of a death is then the number of its name.
pub(super) fn unpack(from: &mut Unpacker, base_ns: u64, meanings: &impl Meanings, into: &mut Record) -> Result<(), Malformed> {
    into.flow = from.flow()?;
    into.now = from.flow()?;
    into.key.address = from.address()?;
    into.key.sequence = from.word("sequence number")?;
    into.key.port = from.half("port")?;
    into.key.slot = from.half("attempt")?;
    into.first_ns = from.time(base_ns)?;
    into.last_ns = from.time(into.first_ns)?;
    into.flags = from.word("flags")?;
    into.attempt = from.word("attempt")?;
    (into.netns, into.ifindex) = from.place(meanings)?;
    (into.syn_netns, into.syn_ifindex) = from.place(meanings)?;
    (into.answer_netns, into.answer_ifindex) = from.place(meanings)?;
    into.tgid = from.word("process")?;
    into.conntrack = from.word("conntrack")?;
    into.payload_len = from.word("length")?;
    let length = into.comm.len();
    into.comm.copy_from_slice(from.bytes(length, "command")?);
    for death in [&mut into.death, &mut into.consumed, &mut into.answer_death, &mut into.stray] {
        *death = from.death(into.first_ns, meanings)?;
    }
    let confirmation_dropped = into.flags & Flags::CONFIRMATION_DROPPED != 0;
    into.confirmation_death = if confirmation_dropped { from.death(into.first_ns, meanings)? } else { NO_DEATH };
    let count = from.word("number of stages")?;
    if count as usize > MAX_STAGES {
        return Err(Malformed("number of stages"));
    }
    into.stage_count = count;
    let mut time = 0;
    for entry in into.stages.iter_mut().take(count as usize) {
        let code = u64::from(from.half("stage")?);
        time = from.time(time)?;
        let (netns, ifindex) = from.place(meanings)?;
        *entry = StageEntry { time_and_code: time << StageEntry::TIME_SHIFT | code, netns, ifindex };
    }
    Ok(())
}

const _: () = assert!(
    HEADER_SIZE == 368,
    "a new field of the record must be packed too, unless it means nothing to a reader, as `counted`"
);
