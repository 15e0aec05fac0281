//! Writing a recording.

use std::io::{self, Write};

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use wsltrace_common::Record;

use super::dictionary::{Known, Place, Reason, Table};
use super::frame::{self, Kind};
use super::packed::{self, Numbers, PlaceKey, put};
use super::{Clock, End, FORMAT, Header, Missed};
use crate::evidence::Evidence;
use crate::journey::Names;
use crate::output::Report;

/// Set in a journey's marks when nothing that belongs to it was lost.
pub(super) const COMPLETE: u8 = 1;
/// Set when the connecting task was WSL's relay.
pub(super) const RELAY: u8 = 2;

/// When a journey was first seen and when it was told.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The first sight by the wall clock.
    pub time: jiff::Timestamp,
    /// When it was told, nanoseconds of `CLOCK_MONOTONIC`.
    pub told_ns: u64,
}

/// Writes frames to `out`, which should be buffered.
pub struct Recorder<W> {
    out: W,
    clock: Clock,
    known: Dictionary,
    /// The frames that are written next.
    frames: BytesMut,
    /// The journey that is packed.
    journey: BytesMut,
    journeys: u64,
    written: u64,
}

impl<W: Write> Recorder<W> {
    /// Writes the preamble and the header.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        frame::put_preamble(&mut out, FORMAT)?;
        let mut recorder = Self {
            out,
            clock: header.clock,
            known: Dictionary::default(),
            frames: BytesMut::new(),
            journey: BytesMut::new(),
            journeys: 0,
            written: frame::PREAMBLE as u64,
        };
        recorder.json(Kind::Header, header)?;
        Ok(recorder)
    }

    /// How many bytes of whole frames were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// How many journeys were written.
    pub fn journeys(&self) -> u64 {
        self.journeys
    }

    /// What it writes to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Interfaces may have other names from now on.
    pub fn forget_places(&mut self) {
        self.known.places.clear();
    }

    /// Writes a journey: its record, and what the report says beside what follows from the record.
    pub fn journey(&mut self, record: &Record, report: &Report, moment: Moment, names: &impl Names) -> io::Result<()> {
        let evidence = if *report.evidence == Evidence::default() {
            0
        } else {
            self.known.evidence(report.evidence.as_ref(), &mut self.frames)? + 1
        };
        let diagnosis = self.known.diagnosis(report.diagnosis.as_ref(), &mut self.frames)?;
        let since = moment.time.duration_since(self.clock.wall).as_nanos();
        let complete = if report.journey.complete { COMPLETE } else { 0 };
        let relay = if names.is_relay(record.tgid, &record.comm) { RELAY } else { 0 };
        self.journey.clear();
        put(&mut self.journey, report.journey.id);
        put(&mut self.journey, i64::try_from(since).unwrap_or(i64::MAX));
        put(&mut self.journey, moment.told_ns.wrapping_sub(self.clock.monotonic_ns).cast_signed());
        self.journey.put_u8(complete | relay);
        put(&mut self.journey, evidence);
        put(&mut self.journey, diagnosis);
        let mut numbers = Defining { known: &mut self.known, names, frames: &mut self.frames };
        packed::pack(&mut self.journey, record, self.clock.monotonic_ns, &mut numbers);
        frame::put(&mut self.frames, Kind::Journey, |out| out.put_slice(&self.journey));
        self.write()?;
        self.journeys += 1;
        Ok(())
    }

    /// Writes that no SYN came.
    pub fn missed(&mut self, missed: &Missed) -> io::Result<()> {
        self.json(Kind::Missed, missed)
    }

    /// Writes something that was told.
    pub fn talk(&mut self, said: &str) -> io::Result<()> {
        frame::put(&mut self.frames, Kind::Talk, |out| out.put_slice(said.as_bytes()));
        self.write()
    }

    /// Writes the last frame, and all that is still in buffers.
    pub fn end(&mut self, end: &End) -> io::Result<()> {
        self.json(Kind::End, end)?;
        self.out.flush()
    }

    /// Writes all that is still in buffers.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn json(&mut self, kind: Kind, value: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(value)?;
        frame::put(&mut self.frames, kind, |out| out.put_slice(&bytes));
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.out.write_all(&self.frames)?;
        self.written += self.frames.len() as u64;
        self.frames.clear();
        Ok(())
    }
}

/// What was defined so far.
#[derive(Default)]
struct Dictionary {
    places: Known<PlaceKey>,
    reasons: Known<u32>,
    locations: Known<u64>,
    evidence: Known<Vec<u8>>,
    diagnoses: Known<Vec<u8>>,
    /// The text that is looked up.
    text: Vec<u8>,
}

impl Dictionary {
    fn evidence(&mut self, evidence: &Evidence, frames: &mut BytesMut) -> io::Result<u32> {
        let Self { evidence: known, text, .. } = self;
        number(known, text, evidence, Table::Evidence, frames)
    }

    fn diagnosis(&mut self, diagnosis: &crate::diagnosis::Diagnosis, frames: &mut BytesMut) -> io::Result<u32> {
        let Self { diagnoses: known, text, .. } = self;
        number(known, text, diagnosis, Table::Diagnosis, frames)
    }
}

/// The number of a value in its table; defines it when it is new.
fn number(
    known: &mut Known<Vec<u8>>,
    text: &mut Vec<u8>,
    value: &impl Serialize,
    table: Table,
    frames: &mut BytesMut,
) -> io::Result<u32> {
    text.clear();
    serde_json::to_writer(&mut *text, value)?;
    let number = known.get(text.as_slice()).unwrap_or_else(|| {
        let number = known.add(text.clone());
        define(frames, table, number, text);
        number
    });
    Ok(u32::from(number))
}

fn define(frames: &mut BytesMut, table: Table, number: u16, text: &[u8]) {
    frame::put(frames, Kind::Define, |out| {
        out.put_u8(table as u8);
        out.put_u16_le(number);
        out.put_slice(text);
    });
}

fn define_json(frames: &mut BytesMut, table: Table, number: u16, value: &impl Serialize) {
    // Numbers and names are always JSON.
    if let Ok(text) = serde_json::to_vec(value) {
        define(frames, table, number, &text);
    }
}

/// Defines what a journey refers to, in frames before its own.
struct Defining<'a, N> {
    known: &'a mut Dictionary,
    names: &'a N,
    frames: &'a mut BytesMut,
}

impl<N: Names> Numbers for Defining<'_, N> {
    fn place(&mut self, place: PlaceKey) -> u16 {
        let Self { known, names, frames } = self;
        known.places.get(&place).unwrap_or_else(|| {
            let (netns, ifindex) = place;
            let number = known.places.add(place);
            let place = Place { netns, index: ifindex, name: names.interface(netns, ifindex) };
            define_json(frames, Table::Place, number, &place);
            number
        })
    }

    fn location(&mut self, address: u64) -> u16 {
        let Self { known, names, frames } = self;
        let number = known.locations.get(&address).or_else(|| {
            let name = if address == 0 { None } else { names.location(address) }?;
            let number = known.locations.add(address);
            define(frames, Table::Location, number, name.as_bytes());
            Some(number)
        });
        number.map_or(0, |number| number + 1)
    }

    fn reason(&mut self, reason: u32) {
        let Self { known, names, frames } = self;
        if reason != 0
            && known.reasons.get(&reason).is_none()
            && let Some(name) = names.reason(reason)
        {
            let number = known.reasons.add(reason);
            define_json(frames, Table::Reason, number, &Reason { number: reason, name });
        }
    }
}
