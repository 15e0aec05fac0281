//! A benchmark as one HTML file that needs nothing else: the table, the times as histograms, the handshakes' time as stacks.

use askama::Template;

use super::histogram::{Chart, named};
use crate::bench::result::Bench;
use crate::bench::rounds::Path;
use crate::bench::trace::legs::Leg;
use crate::bench::trace::parts::Part;
use crate::output::bench::handshakes::{place, sent_again, time, whole};
use crate::output::bench::{
    HEADINGS, addresses, cells, cost_sentences, difference_sentences, failure_sentences, head, order, service_sentences,
    tracer_sentences, unknown_sentences,
};

/// Width of the longest stack.
const WIDTH: f64 = 1000.0;

/// What the template asks for.
#[derive(Template)]
#[template(path = "bench.html")]
struct Page {
    paths: String,
    provenance: String,
    warnings: Vec<String>,
    headings: [&'static str; HEADINGS.len()],
    rows: Vec<Row>,
    sentences: Vec<String>,
    charts: Vec<Chart>,
    tracer_off: Option<String>,
    stacks: Vec<Stack>,
    parts: Vec<PartRow>,
    remarks: Vec<String>,
    costs: Vec<String>,
}

/// A row of the table of paths.
struct Row {
    name: String,
    cells: [String; HEADINGS.len()],
}

/// A row of the table of parts.
struct PartRow {
    class: String,
    name: &'static str,
    cells: Vec<String>,
}

/// The handshakes of one leg.
struct Stack {
    number: usize,
    path: String,
    place: String,
    whole: String,
    /// The same in words, for those who do not see it.
    description: String,
    pieces: Vec<Piece>,
}

/// A part of a stack.
struct Piece {
    class: String,
    x: String,
    width: String,
    words: String,
}

/// The page; `paths` are those of the result, with every time of theirs.
pub fn bench_page(bench: &Bench, paths: &[Path]) -> Result<String, askama::Error> {
    let traced = || bench.paths.iter().filter_map(|path| Some((path, path.traced.as_ref()?)));
    let legs: Vec<(&str, &Leg)> =
        traced().flat_map(|(path, traced)| traced.legs.iter().map(|leg| (path.path.as_str(), leg))).collect();
    let longest = legs.iter().map(|(_, leg)| whole(leg)).fold(0.0, f64::max);
    let totals: Vec<_> = bench.paths.iter().zip(paths).map(|(told, path)| (told.path.clone(), path.total().waited)).collect();
    let answered = totals.iter().filter(|(_, waited)| !waited.is_empty());
    let remarks = traced().filter_map(|(path, traced)| Some(format!("{}: {}", path.path, traced.remark.as_ref()?)));
    let missing =
        bench.tracer.missing.iter().map(|missing| format!("Without {}: {} ({})", missing.probe, missing.cost, missing.reason));
    Page {
        paths: bench.paths.iter().map(|path| path.path.as_str()).collect::<Vec<_>>().join("; "),
        provenance: format!(
            "{}; {}; ended {:.0}; wsltrace {}",
            head(bench),
            order(bench),
            bench.time.0,
            env!("CARGO_PKG_VERSION")
        ),
        warnings: bench.warnings.clone(),
        headings: HEADINGS,
        rows: bench.paths.iter().map(|path| Row { name: path.path.clone(), cells: cells(path) }).collect(),
        sentences: std::iter::once(addresses(bench))
            .chain(tracer_sentences(bench))
            .chain(service_sentences(bench))
            .chain(difference_sentences(bench))
            .chain(unknown_sentences(bench))
            .chain(failure_sentences(bench))
            .collect(),
        charts: named(answered.map(|(name, waited)| (name.clone(), waited)).collect()),
        tracer_off: bench.tracer.off.clone(),
        stacks: legs.iter().enumerate().map(|(index, (path, leg))| stack(index + 1, path, leg, longest)).collect(),
        parts: Part::ALL.into_iter().filter_map(|part| part_row(part, &legs)).collect(),
        remarks: sent_again(bench).into_iter().chain(remarks).chain(missing).collect(),
        costs: cost_sentences(bench).collect(),
    }
    .render()
}

fn stack(number: usize, path: &str, leg: &Leg, longest: f64) -> Stack {
    let mut so_far = 0.0;
    let pieces = leg.parts.iter().map(|share| {
        let x = so_far / longest * WIDTH;
        so_far += share.ns;
        Piece {
            class: class(share.part),
            x: format!("{x:.1}"),
            width: format!("{:.1}", share.ns / longest * WIDTH),
            words: format!("{}: {}", share.part.words().0, time(share.ns)),
        }
    });
    let pieces: Vec<Piece> = pieces.collect();
    Stack {
        number,
        path: path.to_owned(),
        place: place(leg),
        whole: time(whole(leg)),
        description: pieces.iter().map(|piece| piece.words.as_str()).collect::<Vec<_>>().join("; "),
        pieces,
    }
}

/// A part's row; none where it took no time of any leg.
fn part_row(part: Part, legs: &[(&str, &Leg)]) -> Option<PartRow> {
    let spent = |leg: &Leg| leg.parts.iter().find(|share| share.part == part).map(|share| share.ns);
    legs.iter().any(|(_, leg)| spent(leg).is_some()).then(|| PartRow {
        class: class(part),
        name: part.words().0,
        cells: legs.iter().map(|(_, leg)| spent(leg).map_or_else(|| "-".to_owned(), time)).collect(),
    })
}

fn class(part: Part) -> String {
    format!("part-{}", part.words().1)
}
