//! A benchmark for people: the table of paths, the differences to the baseline, and what spoilt it. Also as CSV.
#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a failing write! to a String cannot happen and would have to be handled"
)]

pub(crate) mod handshakes;
#[cfg(test)]
mod tests;

use std::ops::Range;

use anstyle::Style;

use super::TextOptions;
use super::words::{BAD, FAINT, Page, STRONG, duration};
use crate::bench::attempt::Failure;
use crate::bench::interval::{Comparison, Difference};
use crate::bench::result::{Bench, Measured, Times};
use crate::escape::escape;

/// The table's columns behind the path.
pub(crate) const HEADINGS: [&str; 10] = ["attempts", "mean", "p50", "p90", "p99", "p99.9", "max", "failed", "resent", "per s"];

/// So many of the columns are about times.
const TIMES: usize = 7;

/// What the paths of a rebuilt set-up are made of: names, and what they are.
pub fn bench_ways(ways: &[(&str, &str)], options: TextOptions) -> String {
    let page = options.page();
    let head = "The ways into WSL, rebuilt without Windows in private networks of this machine";
    let mut text = format!("{}\n", page.wrap(head, 0, 2, STRONG));
    for (name, what) in ways {
        text.push_str(&format!("  {}\n", page.wrap(&format!("{name}: {what}"), 2, 4, Style::new())));
    }
    let note = "`resent` counts segments of the client's own connections. Behind a proxy there is another connection, and the relay's socket pair is no TCP: nothing is sent again in it.";
    text + &format!("{}\n\n", page.wrap(note, 0, 2, FAINT))
}

/// The whole text.
pub fn bench(bench: &Bench, options: TextOptions) -> String {
    let page = options.page();
    let mut text = format!("{}\n\n", page.wrap(&head(bench), 0, 2, STRONG));
    text.push_str(&table(page, bench));
    text.push_str(&format!("\n{}\n", page.wrap(&addresses(bench), 0, 2, FAINT)));
    text.push_str(&format!("{}\n", page.wrap(&order(bench), 0, 2, FAINT)));
    for said in service_sentences(bench) {
        text.push_str(&format!("\n{}\n", page.wrap(&said, 0, 2, Style::new())));
    }
    if let Some(said) = tracer_sentences(bench) {
        text.push_str(&format!("\n{}\n", page.wrap(&said, 0, 2, BAD)));
    }
    for (index, said) in difference_sentences(bench).enumerate() {
        let between = if index == 0 { "\n" } else { "" };
        text.push_str(&format!("{between}{}\n", page.wrap(&said, 0, 2, Style::new())));
    }
    for said in unknown_sentences(bench) {
        text.push_str(&format!("\n{}\n", page.wrap(&said, 0, 2, FAINT)));
    }
    for said in failure_sentences(bench) {
        text.push_str(&format!("\n{}\n", page.wrap(&said, 0, 2, BAD)));
    }
    text.push_str(&handshakes::handshakes(page, bench));
    text.push_str(&cost(page, bench));
    for warning in &bench.warnings {
        text.push_str(&format!("\n{} {}\n", page.paint(BAD, "spoilt:"), page.wrap(warning, 8, 2, Style::new())));
    }
    text
}

/// Where the paths lead: a name may have many addresses, of which one was measured.
pub(crate) fn addresses(bench: &Bench) -> String {
    let said: Vec<String> = bench.paths.iter().map(|path| format!("{}: {}", path.path, path.address)).collect();
    said.join("; ")
}

/// How the turns were taken.
pub(crate) fn order(bench: &Bench) -> String {
    let rounds = if bench.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", bench.rounds) };
    format!("{rounds} in an order that was drawn (seed {}), after a warm-up of {} s", bench.seed, bench.warm_up)
}

/// At a fixed rate, the times without the wait for a client, which the table holds.
pub(crate) fn service_sentences(bench: &Bench) -> impl Iterator<Item = String> {
    let paths = bench.paths.iter().filter(|path| bench.rate.is_some() && path.service.count > 0);
    paths.map(|path| {
        let Times { mean, p50, p90, p99, p999, max, .. } = path.service;
        let times = [nanoseconds(mean), p50, p90, p99, p999, max].map(duration);
        let said: Vec<String> = HEADINGS.iter().skip(1).zip(times).map(|(heading, time)| format!("{heading} {time}")).collect();
        format!("{}: counted from when an attempt was begun, not from when it was due: {}", path.path, said.join(", "))
    })
}

/// The table in one part or in two, as the width allows; where even that is too wide, a paragraph a path.
fn table(page: Page, bench: &Bench) -> String {
    let rows: Vec<(String, [String; 10])> = bench.paths.iter().map(|path| (escape(&path.path), cells(path))).collect();
    let columns = |range: Range<usize>| columns(page, &rows, range);
    let parts = columns(0..HEADINGS.len()).or_else(|| Some(columns(0..TIMES)? + "\n" + &columns(TIMES..HEADINGS.len())?));
    parts.unwrap_or_else(|| {
        let paragraph = |(name, row): &(String, [String; 10])| {
            // A number and its unit stay in one line.
            let said = HEADINGS.iter().zip(row).map(|(heading, cell)| format!("{heading} {cell}").replace(' ', "\u{a0}"));
            let said = page.wrap(&said.collect::<Vec<_>>().join(", "), 2, 2, Style::new()).replace('\u{a0}', " ");
            format!("{}\n  {said}\n", page.paint(STRONG, name))
        };
        rows.iter().map(paragraph).collect()
    })
}

/// Some columns of the table; `None` where they are too wide.
fn columns(page: Page, rows: &[(String, [String; 10])], range: Range<usize>) -> Option<String> {
    let headings = HEADINGS.get(range.clone())?;
    let cells = |row: &[String; 10]| row.get(range.clone()).unwrap_or_default().to_vec();
    let first = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(4);
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.len()).collect();
    for (_, row) in rows {
        for (width, cell) in widths.iter_mut().zip(cells(row)) {
            *width = cell.chars().count().max(*width);
        }
    }
    if first + widths.iter().map(|width| width + 2).sum::<usize>() > page.width {
        return None;
    }
    let line = |name: &str, cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}")).collect::<String>();
        format!("{name:<first$}{cells}")
    };
    let heads: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let mut text = format!("{}\n", page.paint(FAINT, &line("path", &heads)));
    for (name, row) in rows {
        text.push_str(&format!("{}\n", line(name, &cells(row))));
    }
    Some(text)
}

/// What stands in them.
pub(crate) fn cells(path: &Measured) -> [String; 10] {
    let times = &path.waited;
    let time = |ns: u64| if times.count == 0 { "-".to_owned() } else { duration(ns) };
    [
        path.attempts.to_string(),
        time(nanoseconds(times.mean)),
        time(times.p50),
        time(times.p90),
        time(times.p99),
        time(times.p999),
        time(times.max),
        share(path.failed.values().sum(), path.attempts),
        if path.segments_unknown.is_some() { "n/a".to_owned() } else { share(path.segments_sent_again, path.segments_sent) },
        format!("{:.0}", path.per_second),
    ]
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of times, never negative")]
fn nanoseconds(mean: f64) -> u64 {
    mean.round() as u64
}

/// A part of all in percent; `0` only where there was none.
fn share(part: u64, all: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let percent = if all == 0 { 0.0 } else { part as f64 * 100.0 / all as f64 };
    match part {
        0 => "0".to_owned(),
        _ if percent < 0.01 => "<0.01 %".to_owned(),
        _ => format!("{percent:.2} %"),
    }
}

fn failures(path: &Measured) -> impl Iterator<Item = (Failure, u64)> {
    Failure::ALL.into_iter().filter_map(|failure| Some((failure, *path.failed.get(&failure)?)))
}

/// What was done, in a line.
pub(crate) fn head(bench: &Bench) -> String {
    let rate = bench.rate.map_or_else(|| "each as fast as it can".to_owned(), |rate| format!("{rate} attempts a second"));
    let partial = if bench.partial { "; partial: ended before its time" } else { "" };
    let clients = if bench.clients == 1 { "1 client".to_owned() } else { format!("{} clients", bench.clients) };
    format!("{clients}, {rate}, {} s a path{partial}", bench.seconds)
}

/// Which rows hold the tracer's cost, and why.
pub(crate) fn tracer_sentences(bench: &Bench) -> Option<String> {
    let with: Vec<&str> = bench.paths.iter().filter(|path| path.with_tracer).map(|path| path.path.as_str()).collect();
    let named = with.join(", ");
    (!with.is_empty()).then(|| {
        format!("{named}: measured with the tracer on only, since the run was ended before the first round without it; the times hold what the tracer costs")
    })
}

/// How the paths compare to the first.
pub(crate) fn difference_sentences(bench: &Bench) -> impl Iterator<Item = String> {
    bench.paths.iter().filter_map(|path| {
        let (difference, baseline) = (path.difference?, path.baseline.as_ref()?);
        let verdict = match difference.comparison() {
            Comparison::Faster => "faster than",
            Comparison::Slower => "slower than",
            Comparison::NoDifference => "no different from",
        };
        Some(format!("{} is {verdict} {baseline}: p50 {}", path.path, interval(difference)))
    })
}

/// Why segments that were sent again are not known, each reason once.
pub(crate) fn unknown_sentences(bench: &Bench) -> impl Iterator<Item = String> {
    let mut reasons: Vec<&str> = bench.paths.iter().filter_map(|path| path.segments_unknown.as_deref()).collect();
    reasons.dedup();
    reasons.into_iter().map(|reason| format!("resent n/a: {reason}"))
}

/// How attempts failed.
pub(crate) fn failure_sentences(bench: &Bench) -> impl Iterator<Item = String> {
    bench.paths.iter().filter(|path| !path.failed.is_empty()).map(|path| {
        let failed: Vec<String> = failures(path)
            .map(|(failure, count)| format!("{} {count} ({})", failure.words(), share(count, path.attempts)))
            .collect();
        format!("{}: {}", path.path, failed.join("; "))
    })
}

/// What the tracer cost, of each path.
pub(crate) fn cost_sentences(bench: &Bench) -> impl Iterator<Item = String> {
    bench.paths.iter().filter_map(|path| {
        // Where nothing was answered, or nothing was measured without the tracer, there is nothing to compare.
        let is_answered = !path.with_tracer && path.per_second > 0.0;
        let traced = path.traced.as_ref().filter(|traced| traced.per_second > 0.0 && is_answered)?;
        let added = match traced.cost {
            Some(cost) => format!("p50 {}", interval(cost)),
            None => "too few rounds to tell".to_owned(),
        };
        Some(format!("{}: {added}; {:.0} instead of {:.0} per s", path.path, traced.per_second, path.per_second))
    })
}

fn cost(page: Page, bench: &Bench) -> String {
    let said: String = cost_sentences(bench).map(|said| format!("  {}\n", page.wrap(&said, 2, 4, Style::new()))).collect();
    if said.is_empty() {
        return said;
    }
    let head = "What the tracer cost (the table above is without it)";
    format!("\n{}\n{said}", page.wrap(head, 0, 2, STRONG))
}

/// What changed since an earlier run: of each path that both measured in the same way.
pub fn bench_comparison(before: &Bench, now: &Bench, options: TextOptions) -> String {
    let page = options.page();
    let mut text = format!("\n{}\n", page.paint(STRONG, &format!("Since {:.0}", before.time.0)));
    if (before.clients, before.rate) != (now.clients, now.rate) {
        text.push_str(&page.wrap("the runs had other numbers of clients or another rate: the times do not compare", 0, 2, BAD));
        return text + "\n";
    }
    for path in &now.paths {
        let Some(old) = counterpart(before, path) else {
            let known = before.paths.iter().any(|old| old.path == path.path);
            let why = if known { "its clients did something else in the earlier run" } else { "not in the earlier run" };
            text.push_str(&format!("{}\n", page.wrap(&format!("{}: {why}", path.path), 0, 2, Style::new())));
            continue;
        };
        if old.path != path.path {
            let said = format!("{} was called {} in the earlier run", path.path, old.path);
            text.push_str(&format!("{}\n", page.wrap(&said, 0, 2, FAINT)));
        }
        if old.with_tracer != path.with_tracer {
            let said = format!("{}: the tracer was on in one of the runs only: the times do not compare", path.path);
            text.push_str(&format!("{}\n", page.wrap(&said, 0, 2, BAD)));
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds stay far below 2^52")]
        let medians = |path: &Measured| answered(path).map(|ns| ns as f64).collect::<Vec<_>>();
        if old.address != path.address {
            let said = format!("{}: it leads to {} now, and led to {}", path.path, path.address, old.address);
            text.push_str(&format!("{}\n", page.wrap(&said, 0, 2, BAD)));
        }
        let said = match Difference::between(&medians(path), &medians(old)) {
            Some(difference) => format!("{}: {}, p50 {}", path.path, verdict(difference), interval(difference)),
            // Nothing is slower than no answer.
            None if answered(path).next().is_none() && path.attempts > 0 && answered(old).next().is_some() => {
                format!("{}: worse, nothing was answered", path.path)
            }
            None => format!("{}: too few rounds to tell", path.path),
        };
        text.push_str(&format!("{}\n", page.wrap(&said, 0, 2, Style::new())));
        if let (Some(then), Some(now), Some(baseline)) = (to_baseline(before, old), to_baseline(now, path), &path.baseline)
            && let Some(difference) = Difference::between(&now, &then)
        {
            let alone = Difference::between(&medians(path), &medians(old)).map(Difference::comparison);
            let is_common =
                difference.comparison() == Comparison::NoDifference && alone.is_some_and(|it| it != Comparison::NoDifference);
            let why = if is_common { "; what changed is common to both, such as how busy the machine is" } else { "" };
            let said =
                format!("beside {}, at the same time: {}, {}{why}", escape(baseline), verdict(difference), interval(difference));
            text.push_str(&format!("  {}\n", page.wrap(&said, 2, 4, Style::new())));
        }
        let empty = [old, path].map(|path| path.round_p50.len().saturating_sub(answered(path).count()));
        if empty != [0, 0] {
            let said = format!("rounds without an answer, which are left out: {} then, {} now", empty[0], empty[1]);
            text.push_str(&format!("  {}\n", page.wrap(&said, 2, 4, BAD)));
        }
        let failed = [old, path].map(|path| share(path.failed.values().sum(), path.attempts));
        if failed[0] != failed[1] {
            text.push_str(&format!("  {}\n", page.wrap(&format!("failed: {} then, {} now", failed[0], failed[1]), 2, 4, BAD)));
        }
    }
    text
}

/// The same path in an earlier run: by its name, else by its address; with clients that did the same.
fn counterpart<'a>(before: &'a Bench, path: &Measured) -> Option<&'a Measured> {
    let same = || before.paths.iter().filter(|old| old.mode == path.mode);
    same().find(|old| old.path == path.path).or_else(|| same().find(|old| old.address == path.address))
}

/// What a difference means.
fn verdict(difference: Difference) -> &'static str {
    match difference.comparison() {
        Comparison::Faster => "better",
        Comparison::Slower => "worse",
        Comparison::NoDifference => "no difference",
    }
}

/// By how much each round's median differs from the baseline's, which was measured at the same time; nothing for the baseline itself, and
/// where a round of either had no answer.
fn to_baseline(bench: &Bench, path: &Measured) -> Option<Vec<f64>> {
    let baseline = bench.paths.iter().find(|other| Some(&other.path) == path.baseline.as_ref() && other.mode == path.mode)?;
    let rounds = path.round_p50.iter().zip(&baseline.round_p50);
    let whole = rounds.len() == path.round_p50.len() && path.with_tracer == baseline.with_tracer;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds stay far below 2^52")]
    let difference = |(path, other): (&u64, &u64)| (*path > 0 && *other > 0).then_some(*path as f64 - *other as f64);
    rounds.map(difference).collect::<Option<Vec<f64>>>().filter(|_| whole)
}

/// The medians of the rounds that had an answer; none takes 0 ns, which stands for a round without one.
fn answered(path: &Measured) -> impl Iterator<Item = u64> {
    path.round_p50.iter().copied().filter(|ns| *ns > 0)
}

/// A difference with its interval.
fn interval(difference: Difference) -> String {
    let signed = |ns: f64| format!("{}{}", if ns < 0.0 { "-" } else { "+" }, duration(nanoseconds(ns.abs())));
    format!("{} (95 % interval {} to {})", signed(difference.mean), signed(difference.low), signed(difference.high))
}

/// The table for other programs; times in nanoseconds.
pub fn bench_csv(bench: &Bench) -> String {
    let failures: Vec<String> = Failure::ALL.iter().map(|failure| failure.words().replace(", ", "_").replace(' ', "_")).collect();
    let mut text = format!(
        "path,address,attempts,mean_ns,p50_ns,p90_ns,p99_ns,p999_ns,max_ns,service_p50_ns,service_p99_ns,segments_sent,segments_sent_again,per_second,{},with_tracer,not_begun,errors,service_mean_ns,service_p90_ns,service_p999_ns,service_max_ns,given_up\n",
        failures.join(",")
    );
    for path in &bench.paths {
        let Times { mean, p50, p90, p99, p999, max, .. } = path.waited;
        let service = &path.service;
        let times = [nanoseconds(mean), p50, p90, p99, p999, max, service.p50, service.p99];
        let name = path.path.replace('"', "\"\"");
        // Nothing is not 0.
        let known = |known: bool, figure: u64| if known { figure.to_string() } else { String::new() };
        let (answers, segments) = (path.waited.count > 0, path.segments_unknown.is_none());
        let failed: Vec<String> = Failure::ALL.iter().map(|failure| path.failed.get(failure).unwrap_or(&0).to_string()).collect();
        text.push_str(&format!(
            "\"{}\",{},{},{},{},{},{:.3},{},{},{},{},{},{}\n",
            escape(&name),
            path.address,
            path.attempts,
            times.map(|ns| known(answers, ns)).join(","),
            known(segments, path.segments_sent),
            known(segments, path.segments_sent_again),
            path.per_second,
            failed.join(","),
            path.with_tracer,
            path.not_begun,
            path.errors,
            [nanoseconds(service.mean), service.p90, service.p999, service.max].map(|ns| known(answers, ns)).join(","),
            path.given_up,
        ));
    }
    text
}
