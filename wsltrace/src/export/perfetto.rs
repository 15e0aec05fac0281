//! Trace events as Chrome and Perfetto read them: a process for each network namespace, a track for each interface in it, a slice for
//! each stage, arrows where a packet goes on elsewhere, a mark where it died.

use std::collections::HashMap;
use std::io;

use serde_json::{Value, json};

use super::{Export, Out, words};
use crate::journey::{Journey, StageVisit};
use crate::output::Report;
use crate::output::contract::SummaryLine;
use crate::recording::{End, Header};

/// Packets that are on one interface at the same time get tracks of their own, so many at most.
const LANES: usize = 32;
/// How long the last stage of a journey is drawn: its end is not known, nanoseconds.
const LAST_NS: u64 = 500;

pub(super) struct Perfetto {
    out: Out,
    start: jiff::Timestamp,
    traced: u32,
    tracks: HashMap<(u32, Option<String>), Track>,
    processes: Vec<u32>,
    threads: u64,
    flows: u64,
    any: bool,
}

/// The tracks of one interface: when each is free again, nanoseconds since the start, and its number.
#[derive(Default)]
struct Track {
    lanes: Vec<(u64, u64)>,
}

/// Stages of a journey that stand together on one interface.
struct Leg<'a> {
    visits: &'a [StageVisit],
    /// Where the next leg begins; `None` for the last.
    until: Option<u64>,
    of_answer: bool,
}

impl Perfetto {
    pub(super) fn new(out: Out) -> Self {
        Self {
            out,
            start: jiff::Timestamp::UNIX_EPOCH,
            traced: 0,
            tracks: HashMap::new(),
            processes: Vec::new(),
            threads: 0,
            flows: 0,
            any: false,
        }
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        self.out.write_all(if self.any { b",\n" } else { b"\n" })?;
        self.any = true;
        serde_json::to_writer(&mut self.out, event)?;
        Ok(())
    }

    /// The number of a namespace (inode numbers are larger than what readers take); names it when it is new.
    fn process(&mut self, netns: u32) -> io::Result<usize> {
        if let Some(index) = self.processes.iter().position(|known| *known == netns) {
            return Ok(index + 1);
        }
        self.processes.push(netns);
        let number = self.processes.len();
        let what = if netns == self.traced { ", where tracing began" } else { "" };
        let name = format!("network namespace {netns}{what}");
        self.event(&json!({ "ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": { "name": name } }))?;
        Ok(number)
    }

    /// The track for a leg from `start` to `end`, nanoseconds; names it when it is new.
    fn track(&mut self, visit: &StageVisit, start: u64, end: u64) -> io::Result<(usize, u64)> {
        let process = self.process(visit.netns)?;
        let key = (visit.netns, visit.interface.as_deref().map(str::to_owned));
        let track = self.tracks.entry(key).or_default();
        let lane = track.lanes.iter().position(|(free, _)| *free <= start);
        let lane = lane.unwrap_or(track.lanes.len().min(LANES - 1));
        if let Some((free, number)) = track.lanes.get_mut(lane) {
            *free = end.max(*free);
            return Ok((process, *number));
        }
        self.threads += 1;
        let number = self.threads;
        track.lanes.push((end, number));
        let more = if lane == 0 { String::new() } else { format!(" ({})", lane + 1) };
        let name = format!("{}{more}", words::interface(visit.interface.as_deref()));
        self.event(&json!({ "ph": "M", "name": "thread_name", "pid": process, "tid": number, "args": { "name": name } }))?;
        let order = json!({ "sort_index": number });
        self.event(&json!({ "ph": "M", "name": "thread_sort_index", "pid": process, "tid": number, "args": order }))?;
        Ok((process, number))
    }

    fn legs(&mut self, report: &Report) -> io::Result<()> {
        let journey = &report.journey;
        let first = journey.time.duration_since(self.start).as_nanos();
        let Ok(first) = u64::try_from(first.max(0)) else { return Ok(()) };
        let mut before: Option<((usize, u64), u64)> = None;
        let mut death = None;
        let died_ns = journey.death_index().and_then(|at| journey.stages.get(at)).map(|visit| visit.ns);
        for leg in legs(journey) {
            let Some(visit) = leg.visits.first() else { continue };
            let start = first.saturating_add(visit.ns);
            let last = leg.visits.last().map_or(visit.ns, |last| last.ns);
            let end = first.saturating_add(leg.until.unwrap_or(last.saturating_add(LAST_NS)));
            let track = self.track(visit, start, end)?;
            self.slices(report, &leg, (first, end), track)?;
            if let Some(((process, thread), at)) = before {
                self.flows += 1;
                let id = self.flows;
                let flow = json!({ "ph": "s", "id": id, "name": "goes on", "cat": "way", "pid": process, "tid": thread, "ts": micros(at) });
                self.event(&flow)?;
                let flow = json!({ "ph": "f", "bp": "e", "id": id, "name": "goes on", "cat": "way", "pid": track.0, "tid": track.1, "ts": micros(start) });
                self.event(&flow)?;
            }
            // No two stages have one time.
            if let Some(died) = leg.visits.iter().find(|visit| Some(visit.ns) == died_ns) {
                death = Some((track, first.saturating_add(died.ns)));
            }
            before = Some((track, end.saturating_sub(1)));
        }
        let Some(((process, thread), at)) = death else { return Ok(()) };
        let args = json!({ "finding": words::finding(report), "reason": journey.reason, "location": journey.location });
        let name = words::outcome(journey);
        self.event(&json!({ "ph": "i", "s": "t", "name": name, "cat": "death", "pid": process, "tid": thread, "ts": micros(at), "args": args }))
    }

    /// The leg's own slice, and one for each stage in it.
    fn slices(
        &mut self,
        report: &Report,
        leg: &Leg,
        (first, end): (u64, u64),
        (process, thread): (usize, u64),
    ) -> io::Result<()> {
        let journey = &report.journey;
        let Some(visit) = leg.visits.first() else { return Ok(()) };
        let start = first.saturating_add(visit.ns);
        let what = if leg.of_answer { "answer to" } else { "SYN" };
        let name = format!("{what} {} ({})", words::ends(journey), words::outcome(journey));
        let args = json!({
            "journey": journey.id,
            "attempt": journey.attempt,
            "finding": words::finding(report),
            "rule": report.evidence.rule.as_ref().and_then(|rule| rule.text.clone()),
            "mend it": report.diagnosis.remedy,
            "complete": journey.complete,
        });
        self.event(&json!({
            "ph": "X", "name": name, "cat": "journey", "pid": process, "tid": thread,
            "ts": micros(start), "dur": micros(end.saturating_sub(start)), "args": args,
        }))?;
        let ends = leg.visits.iter().skip(1).map(|next| first.saturating_add(next.ns)).chain([end]);
        for (visit, until) in leg.visits.iter().zip(ends) {
            let start = first.saturating_add(visit.ns);
            self.event(&json!({
                "ph": "X", "name": visit.stage.name(), "cat": "stage", "pid": process, "tid": thread,
                "ts": micros(start), "dur": micros(until.saturating_sub(start)),
            }))?;
        }
        Ok(())
    }
}

impl Export for Perfetto {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.start = header.clock.wall;
        self.traced = header.armed.netns;
        let about = json!({
            "wsltrace": header.wsltrace,
            "kernel": header.machine.kernel,
            "wsl": header.machine.wsl,
            "mode": header.machine.mode,
            "start": self.start.to_string(),
        });
        write!(self.out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{about},\"traceEvents\":[")
    }

    fn journey(&mut self, report: &Report) -> io::Result<()> {
        self.legs(report)
    }

    fn end(&mut self, _end: Option<&End>, _summary: &SummaryLine) -> io::Result<()> {
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Microseconds, the unit of the format, with all the nanoseconds.
fn micros(ns: u64) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "exact for a hundred days, and a double is all that readers have")]
    Value::from(ns as f64 / 1e3)
}

/// The stages of a journey, divided where the interface changes or the answer begins.
fn legs(journey: &Journey) -> Vec<Leg<'_>> {
    let mut cuts: Vec<usize> = (1..journey.stages.len())
        .filter(|index| {
            let place = |index: usize| journey.stages.get(index).map(|visit| (visit.netns, visit.interface.as_deref()));
            place(*index) != place(index - 1) || journey.answer == Some(*index)
        })
        .collect();
    cuts.push(journey.stages.len());
    let mut start = 0;
    let mut legs = Vec::with_capacity(cuts.len());
    for cut in cuts {
        let visits = journey.stages.get(start..cut).unwrap_or_default();
        let until = journey.stages.get(cut).map(|next| next.ns);
        legs.push(Leg { visits, until, of_answer: journey.answer.is_some_and(|answer| start >= answer) });
        start = cut;
    }
    legs
}
