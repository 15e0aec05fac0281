//! A benchmark for people: the table of paths, the differences to the baseline, and what spoilt it. Also as CSV.
#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a failing write! to a String cannot happen and would have to be handled"
)]

use anstyle::Style;

use super::TextOptions;
use super::words::{BAD, FAINT, Page, STRONG, duration};
use crate::bench::attempt::Failure;
use crate::bench::interval::{Comparison, Difference};
use crate::bench::result::{Bench, Measured, Times};
use crate::escape::escape;

/// The table's columns behind the path.
const HEADINGS: [&str; 10] = ["attempts", "mean", "p50", "p90", "p99", "p99.9", "max", "failed", "resent", "per s"];

/// The whole text.
pub fn bench(bench: &Bench, options: TextOptions) -> String {
    let page = options.page();
    let rate = bench.rate.map_or_else(|| "each as fast as it can".to_owned(), |rate| format!("{rate} attempts a second"));
    let partial = if bench.partial { ", ended before its time" } else { "" };
    let head = format!("{} clients, {rate}, {} s a path{partial}", bench.clients, bench.seconds);
    let mut text = format!("{}\n\n", page.wrap(&head, 0, 2, STRONG));
    let rows: Vec<[String; 10]> = bench.paths.iter().map(cells).collect();
    let names: Vec<String> = bench.paths.iter().map(|path| escape(&path.path)).collect();
    let longest = |index: usize| rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let first = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(4);
    let widths: Vec<usize> = HEADINGS.iter().enumerate().map(|(index, heading)| longest(index).max(heading.len())).collect();
    if first + widths.iter().map(|width| width + 2).sum::<usize>() <= options.width {
        let line = |name: &str, cells: &[String]| {
            let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}")).collect::<String>();
            format!("{name:<first$}{cells}")
        };
        text.push_str(&format!("{}\n", page.paint(FAINT, &line("path", &HEADINGS.map(str::to_owned)))));
        for (name, row) in names.iter().zip(&rows) {
            text.push_str(&format!("{}\n", line(name, row)));
        }
    } else {
        for (name, row) in names.iter().zip(&rows) {
            let said = HEADINGS.iter().zip(row).map(|(heading, cell)| format!("{heading} {cell}")).collect::<Vec<_>>().join(", ");
            text.push_str(&format!("{}\n  {}\n", page.paint(STRONG, name), page.wrap(&said, 2, 2, Style::new())));
        }
    }
    text.push_str(&differences(page, bench));
    for path in bench.paths.iter().filter(|path| !path.failed.is_empty()) {
        let failed: Vec<String> = failures(path).map(|(failure, count)| format!("{} {count}", failure.words())).collect();
        text.push_str(&format!("\n{}: {}\n", escape(&path.path), page.wrap(&failed.join(", "), 0, 2, BAD)));
    }
    for warning in &bench.warnings {
        text.push_str(&format!("\n{} {}\n", page.paint(BAD, "spoilt:"), page.wrap(warning, 8, 2, Style::new())));
    }
    text
}

fn cells(path: &Measured) -> [String; 10] {
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
        if path.segments_sent == 0 { "n/a".to_owned() } else { share(path.segments_sent_again, path.segments_sent) },
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

/// How the paths compare to the first.
fn differences(page: Page, bench: &Bench) -> String {
    let mut text = String::new();
    for path in &bench.paths {
        let (Some(difference), Some(baseline)) = (path.difference, &path.baseline) else { continue };
        let verdict = match difference.comparison() {
            Comparison::Faster => "faster than",
            Comparison::Slower => "slower than",
            Comparison::NoDifference => "no different from",
        };
        let said = format!("{} is {verdict} {baseline}: p50 {}", path.path, interval(difference));
        text.push_str(&format!("\n{}", page.wrap(&said, 0, 2, Style::new())));
    }
    if text.is_empty() { text } else { text + "\n" }
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
        let Some(old) = before.paths.iter().find(|old| (&old.path, old.mode) == (&path.path, path.mode)) else {
            text.push_str(&format!("{}\n", page.wrap(&format!("{}: not in the earlier run", path.path), 0, 2, Style::new())));
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds stay far below 2^52")]
        let medians = |path: &Measured| path.round_p50.iter().map(|ns| *ns as f64).collect::<Vec<_>>();
        let said = match Difference::between(&medians(path), &medians(old)) {
            Some(difference) => {
                let verdict = match difference.comparison() {
                    Comparison::Faster => "better",
                    Comparison::Slower => "worse",
                    Comparison::NoDifference => "no difference",
                };
                format!("{}: {verdict}, p50 {}", path.path, interval(difference))
            }
            None => format!("{}: too few rounds to tell", path.path),
        };
        text.push_str(&format!("{}\n", page.wrap(&said, 0, 2, Style::new())));
        let failed = [old, path].map(|path| share(path.failed.values().sum(), path.attempts));
        if failed[0] != failed[1] {
            text.push_str(&format!("  {}\n", page.wrap(&format!("failed: {} then, {} now", failed[0], failed[1]), 2, 4, BAD)));
        }
    }
    text
}

/// A difference with its interval.
fn interval(difference: Difference) -> String {
    let signed = |ns: f64| format!("{}{}", if ns < 0.0 { "-" } else { "+" }, duration(nanoseconds(ns.abs())));
    format!("{} (95 % interval {} to {})", signed(difference.mean), signed(difference.low), signed(difference.high))
}

/// The table for other programs; times in nanoseconds.
pub fn bench_csv(bench: &Bench) -> String {
    let failures: Vec<String> = Failure::ALL.iter().map(|failure| failure.words().replace([',', ' '], "_")).collect();
    let mut text = format!(
        "path,address,attempts,mean_ns,p50_ns,p90_ns,p99_ns,p999_ns,max_ns,service_p50_ns,service_p99_ns,segments_sent,segments_sent_again,per_second,{}\n",
        failures.join(",")
    );
    for path in &bench.paths {
        let Times { mean, p50, p90, p99, p999, max, .. } = &path.waited;
        let name = path.path.replace('"', "\"\"");
        let failed: Vec<String> = Failure::ALL.iter().map(|failure| path.failed.get(failure).unwrap_or(&0).to_string()).collect();
        text.push_str(&format!(
            "\"{}\",{},{},{mean:.0},{p50},{p90},{p99},{p999},{max},{},{},{},{},{:.3},{}\n",
            escape(&name),
            path.address,
            path.attempts,
            path.service.p50,
            path.service.p99,
            path.segments_sent,
            path.segments_sent_again,
            path.per_second,
            failed.join(",")
        ));
    }
    text
}
