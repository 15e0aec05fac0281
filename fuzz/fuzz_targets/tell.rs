//! Opens a recording and has every output and every export tell what it says. Shared by the fuzzer and by a unit test.

use std::io;
use std::time::Instant;

use wsltrace::export::Format;
use wsltrace::output::contract::Lost;
use wsltrace::output::{Shown, Summary, TextOptions, TextOutput, Verbosity};
use wsltrace::recording::{Ending, Entry, Reader};

/// Tells what can be read; how many entries that were.
pub(crate) fn everything(bytes: &[u8]) -> usize {
    let Ok(mut reader) = Reader::new(bytes) else { return 0 };
    let options = TextOptions {
        color: true,
        width: 80,
        talk_width: 80,
        terminal: false,
        verbosity: Verbosity::Verbose,
        shown: Shown::Each,
        live: false,
    };
    let now = Instant::now();
    let mut text = TextOutput::new(io::sink(), io::sink(), options, now);
    let mut exports: Vec<_> = Format::all().iter().map(|format| format.writer(Box::new(io::sink()))).collect();
    let header = reader.header().clone();
    text.armed(&header.armed, &header.start, now).expect("a sink takes everything");
    for export in &mut exports {
        export.begin(&header).expect("a sink takes everything");
    }
    let mut summary = Summary::default();
    let mut entries = 0;
    while let Some(entry) = reader.next_entry().expect("a slice is read without errors") {
        entries += 1;
        match entry {
            Entry::Journey { report, .. } => {
                summary.add(&report.journey, &report.diagnosis);
                for export in &mut exports {
                    export.journey(&report).expect("a sink takes everything");
                }
                text.journey(report, now).expect("a sink takes everything");
            }
            Entry::Missed(missed) => {
                for export in &mut exports {
                    export.missed(&missed).expect("a sink takes everything");
                }
                text.absence(&missed.absence, &missed.waited).expect("a sink takes everything");
            }
            Entry::Talk(said) => text.talk(&said).expect("a sink takes everything"),
        }
    }
    let (end, line) = match reader.ending() {
        Some(Ending::Whole(end)) => (Some(end), summary.line(end.time, end.duration_ns, end.lost)),
        _ => (None, summary.line(header.clock.wall, 0, Lost::default())),
    };
    for export in &mut exports {
        export.end(end, &line).expect("a sink takes everything");
    }
    text.summary(&line, now).expect("a sink takes everything");
    entries
}
