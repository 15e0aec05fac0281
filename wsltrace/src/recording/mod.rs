//! Recordings: everything that a run saw, in a file that somebody else can open without root and without that machine.
//!
//! A recording is a preamble and frames (`frame.rs`), each with a checksum, so that it can be cut off anywhere and is still read up
//! to its last whole frame. Texts that repeat (names of interfaces, findings, evidence) are defined once and then referred to by
//! number (`dictionary.rs`); a journey is its record as the kernel side left it, packed (`packed.rs`). docs/recording.md describes
//! every byte.

#[cfg(test)]
mod changed;
mod dictionary;
/// Files that a run makes.
pub mod file;
/// Which journeys are wanted.
pub mod filter;
mod frame;
mod packed;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use frame::{Damage, MAGIC};
pub use packed::Malformed;
pub use reader::{Ending, Entry, ReadError, Reader};
pub use writer::{Moment, Recorder};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::output::contract::{Absence, Armed, Lost};
use crate::output::{Start, Waited};

/// The version of the format that this program writes, and the newest that it reads.
pub const FORMAT: u16 = 1;

/// The first frame of a recording: where and how it was made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// The version of the wsltrace that made it.
    pub wsltrace: String,
    /// The machine it was made on.
    pub machine: Machine,
    /// What both kinds of time in the frames are counted from.
    pub clock: Clock,
    /// Counts the files of one run, from 1: a recording that grows too large goes on in another file.
    pub part: u32,
    /// What was on, as JSON lines tell it.
    pub armed: Armed,
    /// What was told at the start beside it.
    pub start: Start,
}

/// The machine that a recording was made on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// The processor's architecture, such as `x86_64`.
    pub architecture: String,
    /// WSL's version, such as `2.6.1`; `None` outside WSL, and where nothing tells.
    pub wsl: Option<String>,
    /// WSL's networking mode, when known.
    pub mode: Option<String>,
}

/// One instant by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// The wall clock.
    pub wall: Timestamp,
    /// `CLOCK_MONOTONIC`, which the probes use, nanoseconds.
    pub monotonic_ns: u64,
}

/// No SYN came: what was told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Missed {
    /// The line of the contract.
    pub absence: Absence,
    /// What was waited for.
    pub waited: Waited,
}

/// The last frame of a recording that was not cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// When it ended.
    pub time: Timestamp,
    /// How many journeys this file holds.
    pub journeys: u64,
    /// For how long was traced up to here, nanoseconds.
    pub duration_ns: u64,
    /// Records lost by the tracer up to here.
    pub lost: Lost,
    /// The name of the file that it goes on in; `None` when the run has ended.
    pub continued: Option<String>,
}

/// The JSON Schema of the texts in a recording, by what they are.
pub fn schema() -> serde_json::Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let texts = [
        ("header", generator.subschema_for::<Header>()),
        ("missed", generator.subschema_for::<Missed>()),
        ("end", generator.subschema_for::<End>()),
        ("place", generator.subschema_for::<dictionary::Place>()),
        ("reason", generator.subschema_for::<dictionary::Reason>()),
        ("evidence", generator.subschema_for::<crate::evidence::Evidence>()),
        ("diagnosis", generator.subschema_for::<crate::diagnosis::Diagnosis>()),
    ];
    let texts: serde_json::Map<String, serde_json::Value> =
        texts.into_iter().map(|(name, schema)| (name.to_owned(), schema.into())).collect();
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "the texts in a recording of wsltrace, format 1",
        "description": "Not one document: each property is the schema of the text in one kind of frame or definition.",
        "properties": texts,
        "$defs": generator.take_definitions(true),
    })
}
