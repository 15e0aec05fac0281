//! The lines of `--json`.

use std::io;

use super::{Export, Out};
use crate::output::contract::SummaryLine;
use crate::output::{JsonOutput, Report};
use crate::recording::{End, Header, Missed};

pub(super) struct Jsonl {
    lines: JsonOutput<Out>,
}

impl Jsonl {
    pub(super) fn new(out: Out) -> Self {
        Self { lines: JsonOutput::new(out, false) }
    }
}

impl Export for Jsonl {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.lines.armed(&header.armed)
    }

    fn journey(&mut self, report: &Report) -> io::Result<()> {
        self.lines.journey(report)
    }

    fn missed(&mut self, missed: &Missed) -> io::Result<()> {
        self.lines.absence(&missed.absence)
    }

    fn end(&mut self, _end: Option<&End>, summary: &SummaryLine) -> io::Result<()> {
        self.lines.summary(summary)?;
        self.lines.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()
    }
}
