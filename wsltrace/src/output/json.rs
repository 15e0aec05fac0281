//! JSON lines: one object a line. Live, `out` is line-buffered, as stdout is.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Report, StallLine,
    contract::{Absence, Armed, JourneyLine, SummaryLine},
};

/// Writes the contract's lines.
pub struct JsonOutput<W> {
    out: W,
    failures_only: bool,
}

impl<W: Write> JsonOutput<W> {
    /// Writes to `out`; `failures_only` leaves out healthy journeys.
    pub fn new(out: W, failures_only: bool) -> Self {
        Self { out, failures_only }
    }

    /// Writes that tracing has begun.
    pub fn armed(&mut self, armed: &Armed) -> io::Result<()> {
        self.line(armed)
    }

    /// Writes one journey.
    pub fn journey(&mut self, report: &Report) -> io::Result<()> {
        if self.failures_only && report.diagnosis.code == crate::diagnosis::Code::Healthy {
            return Ok(());
        }
        self.line(&JourneyLine::from(report))
    }

    /// Writes that no SYN came.
    pub fn absence(&mut self, absence: &Absence) -> io::Result<()> {
        self.line(absence)
    }

    /// Writes that a connection does not get on.
    pub fn stall(&mut self, stall: &StallLine) -> io::Result<()> {
        self.line(stall)
    }

    /// Writes the summary.
    pub fn summary(&mut self, summary: &SummaryLine) -> io::Result<()> {
        self.line(summary)
    }

    /// Writes what is in buffers.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.out.write_all(&bytes)
    }
}
