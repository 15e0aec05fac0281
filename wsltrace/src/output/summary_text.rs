//! The summary as text: journeys counted, the time spent in each stage with small bars, lost records.
#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a failing write! to a String cannot happen and would have to be handled"
)]

use super::{
    contract::{Latency, Lost, SummaryLine},
    options::Verbosity,
    words::{BAD, FAINT, GOOD, Page, STRONG, duration, is_fine},
};

/// Eighths of a column.
const BLOCKS: [&str; 8] = ["", "\u{258f}", "\u{258e}", "\u{258d}", "\u{258c}", "\u{258b}", "\u{258a}", "\u{2589}"];
/// From so many attempts on the time spent in each stage is told.
const ENOUGH: u64 = 10;
/// Columns of a bar.
const BAR: u64 = 12;

pub(super) fn summary(page: Page, line: &SummaryLine, stalled: u64, verbosity: Verbosity) -> String {
    let journeys =
        if line.journeys == 1 { "1 connection attempt".to_owned() } else { format!("{} connection attempts", line.journeys) };
    let outcomes: Vec<_> = line.by_outcome.0.iter().map(|(outcome, count)| format!("{count} {}", outcome.name())).collect();
    let colon = if outcomes.is_empty() { "" } else { ": " };
    let head = format!("{journeys} in {}{colon}{}", duration(line.duration_ns), outcomes.join(", "));
    let mut text = format!("{}\n", page.wrap(&head, 0, 2, STRONG));
    if verbosity != Verbosity::Quiet {
        for (code, count) in &line.by_code.0 {
            let style = if is_fine(*code) { GOOD } else { BAD };
            text.push_str(&format!("  {count:>5}  {}\n", page.paint(style, code.name())));
        }
        if stalled > 0 {
            let of_those = page.wrap("of those answered, connected and then a stall", 9, 9, BAD);
            text.push_str(&format!("  {stalled:>5}  {of_those}\n"));
        }
        // Percentiles of a few say nothing that their paths have not said.
        if line.journeys >= ENOUGH || verbosity == Verbosity::Verbose {
            text.push_str(&table(page, &line.latency));
        }
    }
    text.push_str(&lost(page, line.lost));
    text
}

/// A column's heading and how its value is found.
type Column = (&'static str, fn(&Latency) -> u64);

fn table(page: Page, rows: &[Latency]) -> String {
    let Some(most) = rows.iter().map(|row| row.p50).max() else { return String::new() };
    let all: [Column; 4] = [("p50", |row| row.p50), ("p90", |row| row.p90), ("p99", |row| row.p99), ("max", |row| row.max)];
    let columns: Vec<_> = all.iter().filter(|(name, _)| page.width >= 64 || matches!(*name, "p50" | "max")).collect();
    let heads: String = columns.iter().map(|(name, _)| format!("{name:>9}")).collect();
    let count = page.width >= 48;
    let head = format!("  {:<18}{}{heads}", "time spent in", if count { format!("{:>8}", "count") } else { String::new() });
    let mut text = format!("\n{}\n", page.paint(FAINT, &head));
    for row in rows {
        let times: String = columns.iter().map(|(_, value)| format!("{:>9}", duration(value(row)))).collect();
        let counted = if count { format!("{:>8}", row.count) } else { String::new() };
        let bar = if page.width >= 78 { format!("  {}", page.paint(FAINT, &bar(row.p50, most))) } else { String::new() };
        text.push_str(&format!("  {:<18}{counted}{times}{bar}\n", row.stage.name()));
    }
    text.push('\n');
    text
}

/// A bar as long as `value` is of `most`.
fn bar(value: u64, most: u64) -> String {
    let eighths = (value.saturating_mul(BAR * 8) / most.max(1)).max(1);
    let whole = usize::try_from(eighths / 8).unwrap_or(0);
    let rest = usize::try_from(eighths % 8).ok().and_then(|rest| BLOCKS.get(rest)).copied().unwrap_or("");
    format!("{}{rest}", "\u{2588}".repeat(whole))
}

fn lost(page: Page, lost: Lost) -> String {
    if lost.total == 0 {
        return format!("{}\n", page.paint(FAINT, "no records were lost"));
    }
    let places = [
        (lost.table_full, "table of journeys full"),
        (lost.ring_full, "ring buffer full"),
        (lost.stages_full, "too many stages"),
        (lost.keys_full, "table of keys full"),
    ];
    let said: Vec<_> = places.iter().filter(|(count, _)| *count > 0).map(|(count, place)| format!("{count} {place}")).collect();
    let records = if lost.total == 1 { "record was" } else { "records were" };
    let text = format!("{} {records} lost ({}): journeys may be missing or marked incomplete", lost.total, said.join(", "));
    format!("{}\n", page.wrap(&text, 0, 2, BAD))
}
