//! Reading a recording: as hostile input, for it comes from somebody else.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Buf;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use wsltrace_common::Record;

use super::dictionary::{Defined, NoSuchPlace, Place, Reason, Table};
use super::frame::{Damage, Frames, Kind, MAGIC, PREAMBLE, read_up_to};
use super::packed::{Malformed, Meanings, PlaceKey, Unpacker, blank, unpack};
use super::writer::{COMPLETE, RELAY};
use super::{End, FORMAT, Header, Missed};
use crate::diagnosis::Diagnosis;
use crate::evidence::Evidence;
use crate::journey::{InterfaceName, Names, assemble};
use crate::output::Report;

/// Why a file cannot be read as a recording at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("it is not a recording of wsltrace")]
    Foreign,
    /// Made by a newer wsltrace.
    #[error("it has format {format}, made by wsltrace {made_by}; this is wsltrace {} and reads formats up to {FORMAT}", env!("CARGO_PKG_VERSION"))]
    Newer {
        /// The format of the file.
        format: u16,
        /// The version that made it; `?` when the file does not say.
        made_by: String,
    },
    /// Its first frame cannot be read.
    #[error("its beginning cannot be read: {0}")]
    NoHeader(Damage),
}

/// How the reading ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By the recording's last frame.
    Whole(End),
    /// Before it.
    Short(Damage),
}

/// What a frame says.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are journeys")]
pub enum Entry {
    /// A journey with all that was known and said about it.
    Journey {
        /// The journey.
        report: Report,
        /// When it was told, nanoseconds since the header's clock.
        told_ns: u64,
    },
    /// No SYN came.
    Missed(Box<Missed>),
    /// Something was told to people.
    Talk(String),
}

/// Reads a recording frame by frame; needs no more memory for a longer one.
pub struct Reader<R> {
    frames: Frames<R>,
    header: Header,
    known: Known,
    record: Box<Record>,
    ending: Option<Ending>,
    journeys: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the header. `from` should be buffered.
    pub fn new(mut from: R) -> Result<Self, ReadError> {
        let mut preamble = [0; PREAMBLE];
        let got = read_up_to(&mut from, &mut preamble)?;
        let Some(mut format) = preamble.strip_prefix(&MAGIC).filter(|_| got == PREAMBLE) else {
            return Err(ReadError::Foreign);
        };
        let format = format.get_u16_le();
        if format == 0 {
            return Err(ReadError::Foreign);
        }
        let mut frames = Frames::new(from, PREAMBLE as u64);
        let first = match frames.next()? {
            Ok(Some((kind, payload))) if kind == Kind::Header as u8 => payload,
            Ok(Some(_)) => return Err(ReadError::NoHeader(damaged(PREAMBLE as u64, "the header is missing"))),
            Ok(None) => return Err(ReadError::NoHeader(Damage::CutOff { at: PREAMBLE as u64 })),
            Err(damage) => return Err(ReadError::NoHeader(damage)),
        };
        if format > FORMAT {
            return Err(ReadError::Newer { format, made_by: made_by(first) });
        }
        let header =
            serde_json::from_slice(first).map_err(|error| ReadError::NoHeader(damaged(PREAMBLE as u64, &error.to_string())))?;
        Ok(Self { frames, header, known: Known::default(), record: blank(), ending: None, journeys: 0 })
    }

    /// Where and how it was made.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes were read.
    pub fn at(&self) -> u64 {
        self.frames.at()
    }

    /// How many journeys were read.
    pub fn journeys(&self) -> u64 {
        self.journeys
    }

    /// How it ended; `None` before its end.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// The next entry; `None` at the end, whatever that is (see [`Reader::ending`]).
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        while self.ending.is_none() {
            let at = self.frames.at();
            let (kind, payload) = match self.frames.next()? {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.ending = Some(Ending::Short(Damage::CutOff { at }));
                    break;
                }
                Err(damage) => {
                    self.ending = Some(Ending::Short(damage));
                    break;
                }
            };
            match self.known.read(kind, payload, &self.header, &mut self.record) {
                Ok(Meaning::Nothing) => {}
                Ok(Meaning::Entry(entry)) => {
                    self.journeys += u64::from(matches!(entry, Entry::Journey { .. }));
                    return Ok(Some(entry));
                }
                Ok(Meaning::End(end)) => self.ending = Some(Ending::Whole(end)),
                Err(what) => self.ending = Some(Ending::Short(damaged(at, &what))),
            }
        }
        Ok(None)
    }
}

fn damaged(at: u64, what: &str) -> Damage {
    Damage::Damaged { at, what: what.to_owned() }
}

/// The version that made a recording, from a header that may have a shape that is not known here.
fn made_by(header: &[u8]) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(header).ok();
    let name = value.as_ref().and_then(|value| value.get("wsltrace")?.as_str());
    name.map_or_else(|| "?".to_owned(), crate::escape::escape)
}

#[expect(clippy::large_enum_variant, reason = "nearly all are entries")]
enum Meaning {
    Nothing,
    Entry(Entry),
    End(End),
}

/// What was defined so far.
#[derive(Default)]
struct Known {
    places: Defined<PlaceKey>,
    /// Names by interface and namespace: of those that are defined now.
    interfaces: BTreeMap<PlaceKey, Option<InterfaceName>>,
    reasons: Defined<u32>,
    reason_names: BTreeMap<u32, String>,
    locations: Defined<String>,
    evidence: Defined<Arc<Evidence>>,
    /// What a journey has about which nothing was found out.
    nothing: Arc<Evidence>,
    diagnoses: Defined<Arc<Diagnosis>>,
}

impl Known {
    fn read(&mut self, kind: u8, payload: &[u8], header: &Header, record: &mut Record) -> Result<Meaning, String> {
        Ok(match Kind::from_number(kind) {
            Some(Kind::Define) => {
                self.define(payload)?;
                Meaning::Nothing
            }
            Some(Kind::Journey) => {
                let (report, told_ns) = self.journey(payload, header, record).map_err(|malformed| malformed.to_string())?;
                Meaning::Entry(Entry::Journey { report, told_ns })
            }
            Some(Kind::Missed) => Meaning::Entry(Entry::Missed(Box::new(json(payload)?))),
            Some(Kind::Talk) => Meaning::Entry(Entry::Talk(String::from_utf8_lossy(payload).into_owned())),
            Some(Kind::End) => Meaning::End(json(payload)?),
            Some(Kind::Header) => return Err("a second header".to_owned()),
            // A later version of this format may tell more; what it adds can be left out.
            None => Meaning::Nothing,
        })
    }

    fn define(&mut self, mut payload: &[u8]) -> Result<(), String> {
        const BAD: &str = "a definition that cannot be read";
        let (table, number) = (payload.try_get_u8().map_err(|_| BAD)?, payload.try_get_u16_le().map_err(|_| BAD)?);
        let bad = |error: NoSuchPlace| error.to_string();
        match Table::from_number(table) {
            Some(Table::Place) => {
                let place: Place = json(payload)?;
                let key = (place.netns, place.index);
                if let Some(before) = self.places.set(number, key).map_err(bad)?
                    && !self.places.holds(&before)
                {
                    self.interfaces.remove(&before);
                }
                self.interfaces.insert(key, place.name);
            }
            Some(Table::Reason) => {
                let reason: Reason = json(payload)?;
                if let Some(before) = self.reasons.set(number, reason.number).map_err(bad)?
                    && !self.reasons.holds(&before)
                {
                    self.reason_names.remove(&before);
                }
                self.reason_names.insert(reason.number, reason.name);
            }
            Some(Table::Location) => {
                self.locations.set(number, String::from_utf8_lossy(payload).into_owned()).map_err(bad)?;
            }
            Some(Table::Evidence) => drop(self.evidence.set(number, Arc::new(json(payload)?)).map_err(bad)?),
            Some(Table::Diagnosis) => drop(self.diagnoses.set(number, Arc::new(json(payload)?)).map_err(bad)?),
            // As with frames: what a later version adds can be left out.
            None => {}
        }
        Ok(())
    }

    fn journey(&self, payload: &[u8], header: &Header, record: &mut Record) -> Result<(Report, u64), Malformed> {
        let mut from = Unpacker::new(payload);
        let id = from.number("number")?;
        let time = header.clock.wall.checked_add(SignedDuration::from_nanos(from.number("time")?));
        let time = time.map_err(|_| Malformed("time"))?;
        let told_ns = from.number::<i64>("time")?.max(0).cast_unsigned();
        let marks = from.byte("marks")?;
        let evidence: u64 = from.number("evidence")?;
        let diagnosis = from.number("diagnosis")?;
        unpack(&mut from, header.clock.monotonic_ns, self, record)?;
        if !from.is_empty() {
            return Err(Malformed("end"));
        }
        let evidence = match evidence.checked_sub(1) {
            None => self.nothing.clone(),
            Some(number) => self.evidence.get(number).ok_or(Malformed("evidence"))?.clone(),
        };
        let diagnosis = self.diagnoses.get(diagnosis).ok_or(Malformed("diagnosis"))?.clone();
        let names = Recorded { known: self, time, relay: marks & RELAY != 0 };
        let mut journey = assemble(record, id, &names);
        journey.complete = marks & COMPLETE != 0;
        Ok((Report::told(journey, evidence, diagnosis), told_ns))
    }
}

impl Meanings for Known {
    fn place(&self, number: u64) -> Option<PlaceKey> {
        self.places.get(number).copied()
    }

    fn is_location(&self, number: u64) -> bool {
        number.checked_sub(1).is_some_and(|number| self.locations.get(number).is_some())
    }
}

fn json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// The names that a recording has.
struct Recorded<'a> {
    known: &'a Known,
    time: Timestamp,
    relay: bool,
}

impl Names for Recorded<'_> {
    fn interface(&self, netns: u32, ifindex: u32) -> Option<InterfaceName> {
        self.known.interfaces.get(&(netns, ifindex)).copied().flatten()
    }

    fn reason(&self, number: u32) -> Option<String> {
        self.known.reason_names.get(&number).cloned()
    }

    fn location(&self, address: u64) -> Option<String> {
        self.known.locations.get(address.checked_sub(1)?).cloned()
    }

    fn is_relay(&self, _tgid: u32, _comm: &[u8; 16]) -> bool {
        self.relay
    }

    fn time(&self, _monotonic_ns: u64) -> Timestamp {
        self.time
    }
}
