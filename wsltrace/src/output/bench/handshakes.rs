//! Where the time of the handshakes went: one bar a leg, all of one scale, made of the letters of the parts; below it a table of the
//! parts with a column a leg.
#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a failing write! to a String cannot happen and would have to be handled"
)]

use anstyle::Style;

use crate::bench::result::Bench;
use crate::bench::trace::legs::Leg;
use crate::bench::trace::parts::Part;
use crate::escape::escape;
use crate::journey::Origin;
use crate::output::words::{FAINT, Page, STRONG, duration};

/// Columns of a time in the table.
const TIME: usize = 9;
/// Columns of a part's name, its letter included.
const NAME: usize = 18;
/// Longest bar.
const LONGEST: usize = 64;

/// What the figures are, and what they are not.
const NOTE: &str = "The middle half of the handshakes by their whole time, mean of each part; with the tracer on. What an attempt takes beyond that is the request, the programs, and their wait for a processor.";

/// A leg with the path that it belongs to.
struct Row<'a> {
    path: &'a str,
    leg: &'a Leg,
}

/// The picture, or why there is none.
pub(super) fn handshakes(page: Page, bench: &Bench) -> String {
    if let Some(off) = &bench.tracer.off {
        let said = format!("Where the handshakes' time went is not shown: {off}");
        return format!("\n{}\n", page.wrap(&said, 0, 2, FAINT));
    }
    let traced = || bench.paths.iter().filter_map(|path| Some((path.path.as_str(), path.traced.as_ref()?)));
    let rows: Vec<Row> = traced().flat_map(|(path, traced)| traced.legs.iter().map(move |leg| Row { path, leg })).collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str(&format!("\n{}\n", page.wrap("Where the handshakes' time went, in this Linux", 0, 2, STRONG)));
        text.push_str(&legend(page, &rows));
        text.push_str(&bars(page, &rows));
        let room = page.width.saturating_sub(NAME) / TIME;
        for (number, some) in rows.chunks(room.max(1)).enumerate() {
            text.push_str(&table(page, some, number * room.max(1)));
        }
        text.push_str(&format!("{}\n", page.wrap(NOTE, 0, 0, FAINT)));
    }
    if let Some(said) = sent_again(bench) {
        text.push_str(&format!("{}\n", page.wrap(&said, 0, 2, FAINT)));
    }
    for (path, remark) in traced().filter_map(|(path, traced)| Some((path, traced.remark.as_ref()?))) {
        text.push_str(&format!("{}\n", page.wrap(&format!("{path}: {remark}"), 0, 2, Style::new())));
    }
    for missing in &bench.tracer.missing {
        let said = format!("without {}: {} ({})", missing.probe, missing.cost, missing.reason);
        text.push_str(&format!("{}\n", page.wrap(&said, 0, 2, FAINT)));
    }
    if bench.tracer.lost > 0 {
        let said = format!("{} records of the tracer were lost: as many handshakes may be missing here", bench.tracer.lost);
        text.push_str(&format!("{}\n", page.wrap(&said, 0, 2, Style::new())));
    }
    text
}

/// What the servers' side of each path sent again.
pub(crate) fn sent_again(bench: &Bench) -> Option<String> {
    let traced = bench.paths.iter().filter_map(|path| Some((&path.path, path.traced.as_ref()?)));
    let counts: Vec<String> = traced
        .map(|(path, traced)| match (traced.server_sent_again, &traced.server_sent_again_unknown) {
            (Some(count), _) => format!("{path} {count}"),
            (None, Some(why)) => format!("{path} n/a ({why})"),
            (None, None) => format!("{path} n/a"),
        })
        .collect();
    (!counts.is_empty()).then(|| format!("Segments that the servers sent again, with the tracer on: {}", counts.join("; ")))
}

/// Each leg's number and what it is.
fn legend(page: Page, rows: &[Row]) -> String {
    let longest = rows.iter().map(|row| escape(row.path).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (number, Row { path, leg }) in rows.iter().enumerate() {
        let path = escape(path);
        let start = format!("{:>2} {path:<longest$}  ", number + 1);
        let indent = start.chars().count();
        text.push_str(&format!("{start}{}\n", page.wrap(&place(leg), indent, indent.min(6), FAINT)));
    }
    text
}

/// Where a leg is seen.
pub(crate) fn place(leg: &Leg) -> String {
    let interface = leg.interface.as_deref().unwrap_or("no interface");
    let from = match leg.origin {
        Origin::Remote => format!("in by {interface}"),
        Origin::Local => "from inside".to_owned(),
        Origin::WslLocalhostRelay => "from WSL's relay".to_owned(),
    };
    let onward = leg.onward.map(|onward| format!(", sent on to {onward}")).unwrap_or_default();
    format!("{from} to {}{onward}; {} handshakes", leg.destination, leg.handshake.count)
}

/// A bar for each leg.
fn bars(page: Page, rows: &[Row]) -> String {
    let longest = rows.iter().map(|row| whole(row.leg)).fold(0.0, f64::max);
    let room = page.width.saturating_sub(3 + 1 + TIME).clamp(8, LONGEST);
    let mut text = String::from("\n");
    for (number, row) in rows.iter().enumerate() {
        let bar = bar(row.leg, longest, room);
        text.push_str(&format!("{:>2} {bar:<room$} {:>TIME$}\n", number + 1, time(whole(row.leg))));
    }
    text
}

/// The letters of the parts, each as often as its time is long. What is rounded is the place where a part ends, so that bars of the
/// same length stand for the same time; a part too short for a letter has none.
fn bar(leg: &Leg, longest: f64, room: usize) -> String {
    let mut bar = String::new();
    let (mut so_far, mut written) = (0.0, 0_usize);
    for share in &leg.parts {
        so_far += share.ns;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "columns of a terminal"
        )]
        let end = (so_far / longest * room as f64).round() as usize;
        bar.extend(std::iter::repeat_n(share.part.words().1, end.saturating_sub(written)));
        written = written.max(end);
    }
    bar
}

/// The parts of some legs, the first of which has the number after `before`.
fn table(page: Page, rows: &[Row], before: usize) -> String {
    let heads: String = (1..=rows.len()).map(|number| format!("{:>TIME$}", before + number)).collect();
    let mut text = format!("\n{}\n", page.paint(FAINT, &format!("{:<NAME$}{heads}", "")));
    for part in Part::ALL {
        let spent = |row: &Row| row.leg.parts.iter().find(|share| share.part == part).map(|share| share.ns);
        if rows.iter().all(|row| spent(row).is_none()) {
            continue;
        }
        let (name, letter) = part.words();
        let times: String =
            rows.iter().map(|row| format!("{:>TIME$}", spent(row).map_or_else(|| "-".to_owned(), time))).collect();
        text.push_str(&format!("{:<NAME$}{times}\n", format!("{letter} {name}")));
    }
    let whole: String = rows.iter().map(|row| format!("{:>TIME$}", time(whole(row.leg)))).collect();
    text.push_str(&format!("{:<NAME$}{whole}\n", "  together"));
    text
}

/// The mean of the middle half.
pub(crate) fn whole(leg: &Leg) -> f64 {
    leg.parts.iter().map(|share| share.ns).sum()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of times, never negative")]
pub(crate) fn time(ns: f64) -> String {
    duration(ns.round() as u64)
}
