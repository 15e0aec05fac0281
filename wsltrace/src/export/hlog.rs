//! The interval log of `HdrHistogram`, version 2: a line for each stage and second, with the time spent in the stage, nanoseconds. The tag
//! is the stage; `answered` is from the first sight to the answer's last stage.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use jiff::{SignedDuration, Timestamp};

use super::{Export, Out};
use crate::escape::escape;
use crate::journey::{Journey, Outcome};
use crate::output::contract::SummaryLine;
use crate::output::{Report, spent_histogram};
use crate::recording::{End, Header};

/// Length of an interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// The largest value of a line is shown in milliseconds, as the tools that draw such logs expect.
const DIVISOR: f64 = 1e6;
/// The tag of the whole way.
const ANSWERED: &str = "answered";

pub(super) struct Hlog {
    out: Out,
    builder: IntervalLogWriterBuilder,
    /// Bytes of the log's head, which the library writes before every interval.
    head: usize,
    start: Timestamp,
    /// Counts the intervals from the start.
    interval: u64,
    stages: BTreeMap<&'static str, Histogram<u32>>,
}

impl Hlog {
    pub(super) fn new(out: Out) -> Self {
        Self {
            out,
            builder: IntervalLogWriterBuilder::new(),
            head: 0,
            start: Timestamp::UNIX_EPOCH,
            interval: 0,
            stages: BTreeMap::new(),
        }
    }

    fn add(&mut self, tag: &'static str, ns: u64) {
        self.stages.entry(tag).or_insert_with(spent_histogram).saturating_record(ns.max(1));
    }

    /// Writes the interval and begins another.
    fn next(&mut self, interval: u64) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut writer = self.builder.begin_log_with(&mut lines, &mut serializer)?;
        let start = INTERVAL.saturating_mul(u32::try_from(self.interval).unwrap_or(u32::MAX));
        for (tag, histogram) in std::mem::take(&mut self.stages) {
            let written = writer.write_histogram(&histogram, start, INTERVAL, Tag::new(tag));
            written.map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
        self.interval = interval;
        self.out.write_all(lines.get(self.head..).unwrap_or_default())
    }
}

impl Export for Hlog {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.start = header.clock.wall;
        let since_epoch = Duration::try_from(self.start.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
        self.builder
            .add_comment(&escape(&format!(
                "[wsltrace {} on Linux {}: nanoseconds in each stage]",
                header.wsltrace, header.machine.kernel
            )))
            .with_start_time(SystemTime::UNIX_EPOCH + since_epoch)
            .with_base_time(SystemTime::UNIX_EPOCH + since_epoch)
            .with_max_value_divisor(DIVISOR);
        let mut head = Vec::new();
        self.builder.begin_log_with(&mut head, &mut V2DeflateSerializer::new())?;
        self.head = head.len();
        self.out.write_all(&head)
    }

    fn journey(&mut self, report: &Report) -> io::Result<()> {
        let journey = &report.journey;
        let interval = ended(journey).duration_since(self.start).as_secs().max(0).cast_unsigned();
        // Journeys are told as they end, or a moment later: time does not go back.
        if interval > self.interval {
            self.next(interval)?;
        }
        for pair in journey.stages.windows(2) {
            if let [stage, next] = pair {
                self.add(stage.stage.name(), next.ns.saturating_sub(stage.ns));
            }
        }
        if let Some(last) = journey.stages.last().filter(|_| journey.outcome == Outcome::Answered) {
            self.add(ANSWERED, last.ns);
        }
        Ok(())
    }

    fn end(&mut self, _end: Option<&End>, _summary: &SummaryLine) -> io::Result<()> {
        self.next(self.interval)?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn ended(journey: &Journey) -> Timestamp {
    let lasted = SignedDuration::from_nanos(i64::try_from(journey.facts.lasted_ns).unwrap_or(i64::MAX));
    journey.time.checked_add(lasted).unwrap_or(journey.time)
}
