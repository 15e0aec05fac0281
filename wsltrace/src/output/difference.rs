//! What changed between two recordings, in words: how attempts ended, what was found, by which rule, and how long each stage took.
#![expect(clippy::format_push_string, reason = "a failing write! to a String cannot happen and would have to be handled")]

use std::collections::BTreeMap;

use anstyle::Style;
use hdrhistogram::Histogram;

use super::words::{BAD, FAINT, GOOD, Page, STRONG, duration, is_fine, sentence};
use super::{Report, Summary, TextOptions};
use crate::diagnosis::Code;
use crate::evidence::Listener;
use crate::journey::{Outcome, Stage};
use crate::recording::Header;

/// Fewer times say nothing of a stage.
const ENOUGH: u64 = 5;
/// By how much the chance that one side is slower must differ from a half to be called small, medium and large: the usual bounds of
/// Vargha and Delaney.
const EFFECTS: [(f64, &str); 3] = [(0.21, "large"), (0.14, "medium"), (0.06, "small")];
/// So many causes are kept of a recording.
const CAUSES: usize = 1000;

/// One of the two recordings.
pub struct Side {
    /// As it is called: its file.
    pub name: String,
    header: Header,
    summary: Summary,
    outcomes: BTreeMap<Outcome, u64>,
    codes: BTreeMap<Code, u64>,
    causes: BTreeMap<Cause, Told>,
}

/// What makes two failures the same in two recordings: handles of rules change with every reload, so they do not count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cause {
    code: Code,
    died_at: Option<&'static str>,
    rule: Option<(String, String, String)>,
    port: u16,
}

struct Told {
    count: u64,
    summary: String,
}

impl Side {
    /// Nothing read yet.
    pub fn new(name: String, header: Header) -> Self {
        let (outcomes, codes) = (BTreeMap::new(), BTreeMap::new());
        Self { name, header, summary: Summary::default(), outcomes, codes, causes: BTreeMap::new() }
    }

    /// Counts a journey.
    pub fn add(&mut self, report: &Report) {
        let journey = &report.journey;
        self.summary.add(journey, &report.diagnosis);
        *self.outcomes.entry(journey.outcome).or_default() += 1;
        *self.codes.entry(report.diagnosis.code).or_default() += 1;
        if is_fine(report.diagnosis.code) {
            return;
        }
        let rule = report.evidence.rule.as_ref();
        let cause = Cause {
            code: report.diagnosis.code,
            died_at: journey.died_at.map(Stage::name),
            rule: rule.map(|rule| (rule.table.clone(), rule.chain.clone(), rule.text.clone().unwrap_or_default())),
            port: journey.flow.destination_port,
        };
        if self.causes.len() < CAUSES || self.causes.contains_key(&cause) {
            let told =
                self.causes.entry(cause).or_insert_with(|| Told { count: 0, summary: sentence(&report.diagnosis.summary) });
            told.count += 1;
        }
    }

    fn all(&self) -> u64 {
        self.summary.journeys()
    }

    fn fine(&self) -> u64 {
        self.all() - self.summary.failed()
    }
}

/// The whole comparison; `then` is the older one.
pub fn difference(then: &Side, now: &Side, options: TextOptions) -> String {
    let page = options.page();
    let mut text = format!("{}\n", page.wrap(&verdict(then, now), 0, 2, STRONG));
    let part = |text: &mut String, title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{}\n", page.paint(FAINT, title)));
            text.extend(lines);
        }
    };
    part(&mut text, "new failures", causes(page, now, then, "+", BAD));
    part(&mut text, "failures that are gone", causes(page, then, now, "-", GOOD));
    part(&mut text, "failures in both", both(page, then, now));
    part(&mut text, "how attempts ended", counts(page, then, now, &then.outcomes, &now.outcomes, Outcome::name));
    part(&mut text, "findings", counts(page, then, now, &then.codes, &now.codes, Code::name));
    part(&mut text, "the machine", machine(page, &then.header, &now.header));
    part(&mut text, "time spent in each stage", times(page, then, now));
    text
}

fn verdict(then: &Side, now: &Side) -> String {
    let told = |side: &Side| match (side.all(), side.fine()) {
        (0, _) => "no SYN came".to_owned(),
        (1, 1) => "the only attempt went well".to_owned(),
        (1, 0) => "the only attempt failed".to_owned(),
        (all, fine) if all == fine => format!("all {all} attempts went well"),
        (all, 0) => format!("all {all} attempts failed"),
        (all, fine) => format!("{fine} of {all} attempts went well"),
    };
    let new = now.causes.iter().filter(|(cause, _)| !then.causes.contains_key(*cause)).max_by_key(|(_, told)| told.count);
    let new = new.map(|(cause, told)| format!("; new is {}: {}", cause.code, told.summary)).unwrap_or_default();
    format!("{}: {}; {}: {}{}", then.name, told(then), now.name, told(now), new.trim_end_matches('.'))
}

/// Failures of one side that the other does not have.
fn causes(page: Page, of: &Side, other: &Side, sign: &str, style: Style) -> Vec<String> {
    let only = of.causes.iter().filter(|(cause, _)| !other.causes.contains_key(*cause));
    only.map(|(cause, told)| {
        let said = format!("{} \u{d7} {}: {}", told.count, cause.code, told.summary);
        format!("  {} {}\n", page.paint(style, sign), page.wrap(&said, 4, 4, Style::new()))
    })
    .collect()
}

fn both(page: Page, then: &Side, now: &Side) -> Vec<String> {
    let both = now.causes.iter().filter_map(|(cause, told)| Some((cause, then.causes.get(cause)?, told)));
    both.map(|(cause, before, after)| {
        let said = format!("{} \u{d7} \u{2192} {} \u{d7} {}: {}", before.count, after.count, cause.code, after.summary);
        format!("    {}\n", page.wrap(&said, 4, 4, Style::new()))
    })
    .collect()
}

/// Counts that differ as shares of their sides.
fn counts<K: Ord + Copy>(
    page: Page,
    then: &Side,
    now: &Side,
    before: &BTreeMap<K, u64>,
    after: &BTreeMap<K, u64>,
    name: fn(K) -> &'static str,
) -> Vec<String> {
    let keys: std::collections::BTreeSet<K> = before.keys().chain(after.keys()).copied().collect();
    keys.into_iter()
        .filter_map(|key| {
            let count = |counts: &BTreeMap<K, u64>| counts.get(&key).copied().unwrap_or(0);
            let (a, b) = (count(before), count(after));
            // The same share, exactly: a / all = b / all.
            let same = u128::from(a) * u128::from(now.all()) == u128::from(b) * u128::from(then.all());
            let said = format!("{} \u{2192} {}", share(a, then.all()), share(b, now.all()));
            (!same || a != b).then(|| format!("  {:<26} {}\n", name(key), page.paint(if same { FAINT } else { STRONG }, &said)))
        })
        .collect()
}

/// `14 (100 %)`.
fn share(count: u64, all: u64) -> String {
    match (u128::from(count) * 100).checked_div(u128::from(all)) {
        Some(percent) => format!("{count} ({percent} %)"),
        None => count.to_string(),
    }
}

fn machine(page: Page, then: &Header, now: &Header) -> Vec<String> {
    let unknown = || "not known".to_owned();
    let (a, b) = (&then.machine, &now.machine);
    let missing =
        |header: &Header| header.armed.probes_missing.iter().map(|probe| probe.probe.clone()).collect::<Vec<_>>().join(", ");
    let facts = [
        ("kernel", a.kernel.clone(), b.kernel.clone()),
        ("WSL", a.wsl.clone().unwrap_or_else(unknown), b.wsl.clone().unwrap_or_else(unknown)),
        ("networking", a.mode.clone().unwrap_or_else(unknown), b.mode.clone().unwrap_or_else(unknown)),
        ("wsltrace", then.wsltrace.clone(), now.wsltrace.clone()),
        ("probes missing", missing(then), missing(now)),
        ("listeners", listeners(then), listeners(now)),
    ];
    let changed = facts.into_iter().filter(|(_, a, b)| a != b);
    let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    changed
        .map(|(name, a, b)| format!("  {name:<16} {}\n", page.wrap(&format!("{} \u{2192} {}", none(a), none(b)), 19, 19, STRONG)))
        .collect()
}

/// Who listened on the traced ports when tracing began.
fn listeners(header: &Header) -> String {
    let traced = |port: u16| header.armed.ports.iter().any(|range| (range.first..=range.last).contains(&port));
    let name = |listener: &Listener| {
        let end = std::net::SocketAddr::new(listener.address, listener.port);
        listener.command.as_ref().map_or_else(|| end.to_string(), |command| format!("{command} on {end}"))
    };
    let mut all: Vec<String> = header.start.listeners.iter().filter(|listener| traced(listener.port)).map(name).collect();
    all.sort();
    all.dedup();
    all.join(", ")
}

fn times(page: Page, then: &Side, now: &Side) -> Vec<String> {
    let before: BTreeMap<Stage, &Histogram<u32>> = then.summary.spent().collect();
    let mut lines = Vec::new();
    let mut same = 0;
    for (stage, after) in now.summary.spent() {
        let Some(before) = before.get(&stage).filter(|before| before.len() >= ENOUGH && after.len() >= ENOUGH) else { continue };
        let slower = chance_that_second_is_more(before, after);
        let size = EFFECTS.iter().find(|(bound, _)| (slower - 0.5).abs() >= *bound);
        let Some((_, size)) = size.filter(|_| is_significant(slower, before.len(), after.len())) else {
            same += 1;
            continue;
        };
        let (a, b) = (before.value_at_quantile(0.5), after.value_at_quantile(0.5));
        let word = if slower > 0.5 { "slower" } else { "faster" };
        let chance = if slower > 0.5 { slower } else { 1.0 - slower };
        let said =
            format!("p50 {} \u{2192} {}  {word} in {:.0} % of pairs: a {size} effect", duration(a), duration(b), chance * 100.0);
        let style = if slower > 0.5 { BAD } else { GOOD };
        lines.push(format!("  {:<18} {}\n", stage.name(), page.wrap(&said, 21, 21, style)));
    }
    match (lines.is_empty(), same) {
        (_, 0) => {}
        (true, _) => lines.push(format!("  {}\n", page.wrap("no stage is known to take longer or shorter", 2, 2, Style::new()))),
        (false, same) => {
            lines.push(format!("  {}\n", page.wrap(&format!("the other {same} take as long as before"), 2, 2, Style::new())));
        }
    }
    lines
}

/// Whether such a chance is hardly one of luck, for so many times on either side: three standard deviations of the rank-sum test.
fn is_significant(chance: f64, a: u64, b: u64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a standard deviation")]
    let (a, b) = (a as f64, b as f64);
    (chance - 0.5).abs() > 3.0 * ((a + b + 1.0) / (12.0 * a * b)).sqrt()
}

/// The chance that a time of `b` is more than one of `a`; ties count half. 0.5 where they do not differ.
fn chance_that_second_is_more(a: &Histogram<u32>, b: &Histogram<u32>) -> f64 {
    let mut below = 0_u64;
    let mut values = a.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).peekable();
    let mut sum = 0.0;
    for value in b.iter_recorded() {
        let at = value.value_iterated_to();
        while let Some((_, count)) = values.next_if(|(value, _)| *value < at) {
            below += u64::from(count);
        }
        let equal = values.peek().filter(|(value, _)| *value == at).map_or(0, |(_, count)| *count);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let less = below as f64 + f64::from(equal) / 2.0;
        sum += less * f64::from(value.count_at_value());
    }
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let pairs = a.len() as f64 * b.len() as f64;
    if pairs > 0.0 { sum / pairs } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::spent_histogram;

    fn histogram(values: &[u64]) -> Histogram<u32> {
        let mut histogram = spent_histogram();
        for value in values {
            histogram.saturating_record(*value);
        }
        histogram
    }

    #[test]
    fn few_times_prove_little() {
        assert!(!is_significant(0.7, 17, 17));
        assert!(is_significant(0.7, 100, 100));
        assert!(is_significant(1.0, 20, 20));
        assert!(!is_significant(0.5, 1_000_000, 1_000_000));
    }

    #[test]
    fn the_chance_counts_pairs() {
        let chance = |a: &[u64], b: &[u64]| chance_that_second_is_more(&histogram(a), &histogram(b));
        assert!((chance(&[1, 2, 3], &[10, 20]) - 1.0).abs() < 1e-9);
        assert!((chance(&[10, 20], &[1, 2, 3]) - 0.0).abs() < 1e-9);
        assert!((chance(&[5, 5], &[5, 5]) - 0.5).abs() < 1e-9);
        // Of nine pairs four are more, three equal and two less: 5.5 / 9.
        assert!((chance(&[1, 2, 3], &[1, 3, 3]) - 5.5 / 9.0).abs() < 1e-9);
        assert!((chance(&[], &[1]) - 0.5).abs() < 1e-9);
    }
}
