//! One HTML file that needs nothing else: what failed and what to type first, then the path with its deaths, the time spent in each
//! stage, and the attempts. The page's words and looks are in templates/; here is what goes into it.

mod bench;
mod histogram;
mod picture;
mod rows;

use std::io;

use askama::Template;
pub use bench::bench_page;

use self::histogram::Chart;
use self::picture::{Drawing, Picture};
use self::rows::{Row, Rows};
use super::{Export, Out};
use crate::command::report::provenance;
use crate::output::contract::SummaryLine;
use crate::output::words::{duration, is_fine, ports};
use crate::output::{Report, Summary};
use crate::recording::{End, Header};

pub(super) struct Html {
    out: Out,
    header: Option<Header>,
    summary: Summary,
    picture: Picture,
    rows: Rows,
}

/// What the template asks for.
#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    ports: String,
    provenance: String,
    headline: String,
    /// Whether the attempts all went well.
    fine: bool,
    causes: Vec<rows::Cause>,
    drawing: Drawing,
    charts: Vec<Chart>,
    rows: Vec<Row>,
    /// How many attempts are not in the table.
    left_out: u64,
    outcomes: Vec<(&'static str, u64)>,
    warnings: Vec<String>,
}

impl Html {
    pub(super) fn new(out: Out) -> Self {
        Self { out, header: None, summary: Summary::default(), picture: Picture::default(), rows: Rows::default() }
    }

    fn page(&mut self, end: Option<&End>, line: &SummaryLine) -> Page {
        let header = self.header.take();
        let mut warnings = Vec::new();
        if end.is_none() {
            warnings.push("The recording was cut off: what came after is not here.".to_owned());
        }
        if line.lost.total > 0 {
            warnings.push(format!("{} records were lost: attempts may be missing or marked incomplete.", line.lost.total));
        }
        for missing in header.iter().flat_map(|header| &header.armed.probes_missing) {
            warnings.push(format!("Without {}: {} ({}).", missing.probe, missing.cost, missing.reason));
        }
        let attempts =
            if line.journeys == 1 { "1 connection attempt".to_owned() } else { format!("{} connection attempts", line.journeys) };
        let failed: u64 = line.by_code.0.iter().filter(|(code, _)| !is_fine(**code)).map(|(_, count)| count).sum();
        let how = match (line.journeys, failed) {
            (0, _) => "no SYN came, so no rule, route or server of this Linux refused it".to_owned(),
            (_, 0) => "all went well".to_owned(),
            (all, failed) if all == failed => "all failed".to_owned(),
            (_, failed) => format!("{failed} failed"),
        };
        let (rows, left_out) = self.rows.take();
        Page {
            ports: header.as_ref().map(|header| ports(&header.armed.ports)).unwrap_or_default(),
            provenance: header.as_ref().map(provenance).unwrap_or_default(),
            headline: format!("{attempts} in {}: {how}", duration(line.duration_ns)),
            fine: failed == 0,
            causes: self.rows.causes(),
            drawing: self.picture.draw(),
            charts: histogram::charts(&self.summary),
            rows,
            left_out,
            outcomes: line.by_outcome.0.iter().map(|(outcome, count)| (outcome.name(), *count)).collect(),
            warnings,
        }
    }
}

impl Export for Html {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.header = Some(header.clone());
        Ok(())
    }

    fn journey(&mut self, report: &Report) -> io::Result<()> {
        self.summary.add(&report.journey, &report.diagnosis);
        self.picture.add(report);
        self.rows.add(report);
        Ok(())
    }

    fn end(&mut self, end: Option<&End>, summary: &SummaryLine) -> io::Result<()> {
        let page = self.page(end, summary);
        page.write_into(&mut self.out)?;
        self.out.flush()
    }

    /// The page is written at the end, in one go.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
