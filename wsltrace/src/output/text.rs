//! Text for people: what is told when, and where. The words of one attempt are in `verdict.rs`, what makes journeys one attempt
//! in `attempts.rs`, and what makes failures one in `fold.rs`.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    time::{Duration, Instant},
};

use anstyle::Style;
use jiff::Timestamp;

use super::{
    Report, StallLine, Waited, Why,
    attempts::{Attempt, Attempts, Failed},
    contract::{Absence, Armed, SummaryLine},
    fold::{Cause, Folds},
    listening::{Start, invitation, sentences},
    live::Live,
    options::{NARROWEST, Shown, TextOptions, Verbosity, WIDEST},
    stall, summary_text, verdict,
    words::{BAD, FAINT, Page, STRONG, duration, ends, needs_a_line_only, ports},
};
use crate::{
    diagnosis::{self, Code},
    journey::{Flow, Journey, Outcome},
};

/// How many answered flows are remembered for telling that one was answered again.
const REMEMBERED: usize = 4096;

/// How often counts are looked at.
const SECOND: Duration = Duration::from_secs(1);

/// Writes text: findings to `out`, talk to `err`.
pub struct TextOutput<O, E> {
    out: O,
    err: E,
    options: TextOptions,
    page: Page,
    attempts: Attempts,
    folds: Folds,
    live: Live,
    /// When a flow was answered.
    answered: HashMap<Flow, Timestamp>,
    /// When counts are looked at next.
    tick: Instant,
    /// Why connections were told not to get on.
    stalls: HashSet<diagnosis::Cause>,
    /// How many.
    stalled: u64,
    /// The last text was a single line, so that a block needs an empty line before it.
    after_line: bool,
}

impl<O: Write, E: Write> TextOutput<O, E> {
    /// Writes to these two, from this moment on.
    pub fn new(out: O, err: E, options: TextOptions, now: Instant) -> Self {
        let page = options.page();
        Self {
            out,
            err,
            options,
            page,
            attempts: Attempts::default(),
            folds: Folds::default(),
            live: Live::default(),
            answered: HashMap::new(),
            tick: now + SECOND,
            stalls: HashSet::new(),
            stalled: 0,
            after_line: false,
        }
    }

    #[cfg(test)]
    pub(super) fn out(&self) -> &O {
        &self.out
    }

    /// Says on `err` who listens, what is watched, which probes are missing, and what to do now. What was told before this moment is
    /// complete, and the seconds count from it.
    pub fn armed(&mut self, armed: &Armed, start: &Start, now: Instant) -> io::Result<()> {
        self.tick = now + SECOND;
        if self.options.verbosity == Verbosity::Quiet {
            return Ok(());
        }
        let names: Vec<_> = armed.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let probes: u32 = armed.probes_on.iter().map(|probe| probe.count).sum();
        let mut said = sentences(&armed.ports, start);
        let on = if names.is_empty() { "no interface, for none is up,".to_owned() } else { names.join(", ") };
        said.push(format!("watching {} on {on} with {probes} probes", ports(&armed.ports)));
        let missing = armed.probes_missing.iter();
        said.extend(missing.map(|missing| format!("without {}: {} ({})", missing.probe, missing.cost, missing.reason)));
        // A recording is told when it is too late to do anything.
        said.extend(Some(invitation(&armed.ports, start)).filter(|invitation| !invitation.is_empty()));
        let page = self.talk_page();
        for text in said {
            self.say(&page.wrap(&text, 0, 2, Style::new()));
        }
        // On a terminal the talk stands above the findings.
        self.after_line = self.options.terminal;
        Ok(())
    }

    /// Writes a line to `err`. One that cannot be written is left out: the findings are what the run is for.
    fn say(&mut self, line: &str) {
        let _ = writeln!(self.err, "{line}").and_then(|()| self.err.flush());
    }

    /// Colours were chosen for stdout; stderr may be another file.
    fn talk_page(&self) -> Page {
        Page { width: self.options.talk_width.clamp(NARROWEST, WIDEST), color: false }
    }

    /// Says something on `err`.
    pub fn talk(&mut self, said: &str) -> io::Result<()> {
        if self.options.verbosity == Verbosity::Quiet {
            return Ok(());
        }
        let page = self.talk_page();
        self.clear()?;
        self.say(&page.wrap(said, 0, 2, Style::new()));
        Ok(())
    }

    /// Takes one journey. It is written when its attempt is complete (see [`TextOutput::due`]), or counted when its cause was
    /// told before.
    pub fn journey(&mut self, report: Report, now: Instant) -> io::Result<()> {
        self.advance(now)?;
        let journey = &report.journey;
        let fine = needs_a_line_only(&report.diagnosis);
        if self.options.shown == Shown::Each {
            let text = if fine {
                verdict::fine(self.page, self.options.verbosity, &report, 0, &[])
            } else {
                verdict::failure(self.page, self.options.verbosity, &report, &[])
            };
            return self.write(&text, now);
        }
        if fine {
            if self.options.shown == Shown::Failures && report.diagnosis.code == Code::Healthy {
                return Ok(());
            }
            if let Some(time) = self.answered.get(&journey.flow) {
                let apart = journey.time.duration_since(*time).unsigned_abs();
                let text = self.again(journey, apart);
                return self.write(&text, now);
            }
        } else if self.folds.count(&Cause::of(&report), journey.time, now) {
            return Ok(());
        }
        self.attempts.add(report, now);
        self.settle(now)
    }

    /// When [`TextOutput::advance`] has to be called next, if nothing else happens.
    pub fn due(&self) -> Option<Instant> {
        self.attempts.due()
    }

    /// Ctrl-C was typed, and the terminal may have written `^C` where the next text begins.
    pub fn interrupted(&mut self) -> io::Result<()> {
        if self.options.live {
            self.clear()?;
            self.out.write_all(b"\r\x1b[K")?;
        } else if self.options.terminal {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    /// Writes what is due by now, each in the order and as of the time when it was due: what is written does not depend on how
    /// often, or how late, this is called, so that a recording is told as the run was.
    pub fn advance(&mut self, now: Instant) -> io::Result<()> {
        loop {
            let settles = self.attempts.due().filter(|due| *due <= now);
            match settles {
                Some(due) if due <= self.tick => self.settle(due)?,
                _ if self.tick <= now => {
                    let lines = if self.options.live { Vec::new() } else { self.folds.due(self.tick) };
                    self.counts(&lines, self.tick)?;
                    // A second in which nothing can be due is passed over.
                    let until = if self.folds.has_untold() { self.tick } else { settles.unwrap_or(now) };
                    self.tick = next_second(self.tick, until);
                }
                _ => return Ok(()),
            }
        }
    }

    fn settle(&mut self, now: Instant) -> io::Result<()> {
        let settled = self.attempts.settled(now);
        settled.into_iter().try_for_each(|attempt| self.attempt(attempt, now))
    }

    /// Writes how long ago failures repeated last, where lines are rewritten; once a second is often enough.
    pub fn refresh(&mut self, now: Instant) -> io::Result<()> {
        self.advance(now)?;
        if !self.options.live {
            return Ok(());
        }
        self.clear()?;
        self.redraw(now)
    }

    /// Somebody else has written to the terminal meanwhile. A line of ours may stand there again already, where a count was due
    /// before this was heard of.
    pub fn resumed(&mut self) -> io::Result<()> {
        self.live.forget();
        if self.options.live {
            self.out.write_all(b"\r\x1b[J")?;
        }
        self.out.flush()
    }

    /// Writes everything that waits, and every count.
    fn flush(&mut self, now: Instant) -> io::Result<()> {
        let all = self.attempts.all();
        all.into_iter().try_for_each(|attempt| self.attempt(attempt, now))?;
        let lines = self.folds.rest(now);
        self.counts(&lines, now)
    }

    fn attempt(&mut self, attempt: Attempt, now: Instant) -> io::Result<()> {
        if self.folds.is_full() {
            let lines = self.folds.rest(now);
            self.counts(&lines, now)?;
            self.folds = Folds::default();
        }
        let Attempt { fine, more, mut failed, .. } = attempt;
        if let Some(report) = fine {
            // The other half of localhost did no harm when this one was answered.
            let destination = report.journey.flow.destination;
            let other_half = |other: &Report| {
                let other = other.journey.flow.destination;
                destination.is_loopback() && other.is_loopback() && destination.is_ipv4() != other.is_ipv4()
            };
            let tried: Vec<Report> =
                failed.extract_if(.., |failed| other_half(&failed.report)).map(|failed| failed.report).collect();
            if self.answered.len() >= REMEMBERED {
                self.answered.clear();
            }
            self.answered.insert(report.journey.flow, report.journey.time);
            let text = verdict::fine(self.page, self.options.verbosity, &report, more, &tried);
            self.write(&text, now)?;
        }
        while !failed.is_empty() {
            let first = failed.remove(0);
            // It may have been told meanwhile, by an attempt of another client.
            if self.folds.count(&first.cause, first.report.journey.time, now) {
                self.count_others(&first, now);
                continue;
            }
            let twins: Vec<_> = failed.extract_if(.., |other| first.cause.is_twin(&other.cause)).collect();
            let reports: Vec<&Report> = twins.iter().map(|twin| &twin.report).collect();
            let text = verdict::failure(self.page, self.options.verbosity, &first.report, &reports);
            self.write(&text, now)?;
            let all = std::iter::once(&first).chain(&twins);
            let causes: Vec<_> = all.clone().map(|failed| (failed.cause.clone(), failed.report.journey.time)).collect();
            self.folds.told(&causes, now);
            all.for_each(|failed| self.count_others(failed, now));
        }
        Ok(())
    }

    fn count_others(&mut self, failed: &Failed, now: Instant) {
        for time in &failed.others {
            self.folds.count(&failed.cause, *time, now);
        }
    }

    /// Writes what it means that no SYN came.
    pub fn absence(&mut self, absence: &Absence, waited: &Waited) -> io::Result<()> {
        let page = self.page;
        let names: Vec<_> = absence.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let sought = match waited.from.as_slice() {
            [] => format!("no SYN to {}", ports(&absence.ports)),
            from => {
                let from = from.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
                format!("no SYN from {from} to {}", ports(&absence.ports))
            }
        };
        let mine = if waited.astray.is_some() { " for this machine's hardware address" } else { "" };
        let verdict = match waited.why {
            Why::Time(time) if waited.astray.is_some() => format!("{sought}{mine} in {} s", time.as_secs_f64()),
            Why::Time(time) => format!("{sought} in {} s: the packet has not reached Linux", time.as_secs_f64()),
            Why::Command(_) => format!("{sought}{mine} came while the command ran"),
        };
        let mut text = format!("{} {}\n", page.paint(BAD, "?"), page.wrap(&verdict, 2, 2, STRONG));
        if self.options.verbosity != Verbosity::Quiet {
            text.push('\n');
            text.push_str(&page.labelled("watched", &names.join(", ")));
            if let Some(mode) = &absence.mode {
                text.push_str(&page.labelled("mode", mode));
            }
            if !absence.message.is_empty() {
                text.push_str(&page.labelled("means", &absence.message));
            }
            for miss in &absence.near_misses {
                let times = if miss.count == 1 { "once".to_owned() } else { format!("{} times", miss.count) };
                let whose = if waited.astray.as_ref() == Some(miss) { ", for another hardware address" } else { "" };
                text.push_str(&page.labelled("near miss", &format!("port {} on {}, {times}{whose}", miss.port, miss.interface)));
            }
            text.push('\n');
        }
        self.write(&text, Instant::now())
    }

    /// Tells that a connection does not get on: the first of a cause in full.
    pub fn stall(&mut self, line: &StallLine, now: Instant) -> io::Result<()> {
        self.advance(now)?;
        self.stalled += 1;
        let text = if self.stalls.insert(line.cause) {
            stall::in_full(self.page, self.options.verbosity, line)
        } else {
            self.repeated(&stall::in_short(line))
        };
        self.write(&text, now)
    }

    /// Writes all that waits, then the summary.
    pub fn summary(&mut self, summary: &SummaryLine, now: Instant) -> io::Result<()> {
        self.advance(now)?;
        self.flush(now)?;
        if std::mem::take(&mut self.after_line) && self.options.verbosity != Verbosity::Quiet {
            self.clear()?;
            self.out.write_all(b"\n")?;
        }
        self.write(&summary_text::summary(self.page, summary, self.stalled, self.options.verbosity), now)
    }

    fn again(&self, journey: &Journey, apart: Duration) -> String {
        let apart = duration(u64::try_from(apart.as_nanos()).unwrap_or(u64::MAX));
        let what = match journey.outcome {
            Outcome::Forwarded => "sent on again, so nobody beyond has answered",
            _ => "answered again",
        };
        let said = format!("{}  attempt {}, {apart} later: {what}", ends(&journey.flow), journey.attempt);
        self.repeated(&said)
    }

    fn repeated(&self, said: &str) -> String {
        format!("{} {}\n", self.page.paint(FAINT, "\u{21bb}"), self.page.wrap(said, 2, 2, FAINT))
    }

    fn counts(&mut self, lines: &[String], now: Instant) -> io::Result<()> {
        lines.iter().try_for_each(|line| self.write(&self.repeated(line), now))
    }

    /// Writes a text above the live lines, with an empty line between single lines and blocks.
    fn write(&mut self, text: &str, now: Instant) -> io::Result<()> {
        self.clear()?;
        let block = text.contains("\n\n");
        if block && self.after_line {
            self.out.write_all(b"\n")?;
        }
        self.after_line = !block;
        self.out.write_all(text.as_bytes())?;
        self.redraw(now)?;
        self.out.flush()
    }

    fn clear(&mut self) -> io::Result<()> {
        let erased = self.live.erase();
        self.out.write_all(erased.as_bytes())?;
        self.out.flush()
    }

    fn redraw(&mut self, now: Instant) -> io::Result<()> {
        if !self.options.live {
            return Ok(());
        }
        let text: String = self.folds.shown(now).iter().map(|line| self.repeated(line)).collect();
        let drawn = self.live.draw(&text);
        self.out.write_all(drawn.as_bytes())?;
        self.out.flush()
    }
}

/// The first whole second after `tick` that is not before `until`.
fn next_second(tick: Instant, until: Instant) -> Instant {
    let apart = until.saturating_duration_since(tick);
    let whole = Duration::from_secs(apart.as_secs());
    let seconds = if apart > whole { whole + SECOND } else { whole };
    tick + seconds.max(SECOND)
}
