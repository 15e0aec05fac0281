//! A recording is somebody else's file: whatever is in it, reading it and telling what it says must not panic, hang, or take more
//! memory than its own size allows. Built for fuzzing, the reader takes frames whatever their checksum is.
#![no_main]

use std::io;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use wsltrace::export::Format;
use wsltrace::output::contract::Lost;
use wsltrace::output::{Shown, Summary, TextOptions, TextOutput, Verbosity};
use wsltrace::recording::{Ending, Entry, Reader};

fuzz_target!(|bytes: &[u8]| tell(bytes));

fn tell(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let options = TextOptions {
        color: true,
        width: 80,
        talk_width: 80,
        terminal: false,
        verbosity: Verbosity::Verbose,
        shown: Shown::Each,
        live: false,
    };
    let mut text = TextOutput::new(io::sink(), io::sink(), options);
    let formats = [Format::Jsonl, Format::Pcapng, Format::Perfetto, Format::Hlog, Format::Html];
    let mut exports = formats.map(|format| format.writer(Box::new(io::sink())));
    let header = reader.header().clone();
    text.armed(&header.armed, &header.start).expect("a sink takes everything");
    exports.iter_mut().for_each(|export| export.begin(&header).expect("a sink takes everything"));
    let mut summary = Summary::default();
    let now = Instant::now();
    while let Some(entry) = reader.next_entry().expect("a slice is read without errors") {
        match entry {
            Entry::Journey { report, .. } => {
                summary.add(&report.journey, &report.diagnosis);
                exports.iter_mut().for_each(|export| export.journey(&report).expect("a sink takes everything"));
                text.journey(report, now).expect("a sink takes everything");
            }
            Entry::Missed(missed) => {
                exports.iter_mut().for_each(|export| export.missed(&missed).expect("a sink takes everything"));
                text.absence(&missed.absence, &missed.waited).expect("a sink takes everything");
            }
            Entry::Talk(said) => text.talk(&said).expect("a sink takes everything"),
        }
    }
    let (end, line) = match reader.ending() {
        Some(Ending::Whole(end)) => (Some(end), summary.line(end.time, end.duration_ns, end.lost)),
        _ => (None, summary.line(header.clock.wall, 0, Lost::default())),
    };
    exports.iter_mut().for_each(|export| export.end(end, &line).expect("a sink takes everything"));
    text.summary(&line, now).expect("a sink takes everything");
}
