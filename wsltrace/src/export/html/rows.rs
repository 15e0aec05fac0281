//! The table of attempts, and the causes of those that failed.

use crate::diagnosis::{Code, Confidence};
use crate::escape::escape;
use crate::output::words::{duration, ends, is_fine, sentence};
use crate::output::{Report, path_text};

/// So many failed attempts have a row of their own.
const FAILED: usize = 800;
/// So many of the others.
const FINE: usize = 200;
/// So many causes are told.
const CAUSES: usize = 50;

/// An attempt, as words.
pub(super) struct Row {
    pub(super) id: u64,
    /// RFC 3339.
    pub(super) time: String,
    pub(super) clock: String,
    pub(super) ends: String,
    pub(super) outcome: &'static str,
    pub(super) code: &'static str,
    pub(super) sure: &'static str,
    pub(super) died_at: &'static str,
    pub(super) took: String,
    pub(super) took_ns: u64,
    pub(super) summary: String,
    pub(super) path: String,
    pub(super) kernel: Option<String>,
    pub(super) rule: Option<String>,
    pub(super) remedy: Vec<Piece>,
    pub(super) fine: bool,
    pub(super) complete: bool,
}

/// Failures with one sentence.
pub(super) struct Cause {
    pub(super) code: Code,
    pub(super) sure: &'static str,
    pub(super) summary: String,
    pub(super) remedy: Vec<Piece>,
    pub(super) count: u64,
}

/// A part of what to type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Such as `--bind`, in which a browser would break the line.
    pub(super) option: bool,
}

#[derive(Default)]
pub(super) struct Rows {
    failed: Vec<Row>,
    fine: Vec<Row>,
    left_out: u64,
    causes: Vec<Cause>,
}

impl Rows {
    pub(super) fn add(&mut self, report: &Report) {
        let fine = is_fine(report.diagnosis.code);
        if !fine {
            self.count(report);
        }
        let (rows, most) = if fine { (&mut self.fine, FINE) } else { (&mut self.failed, FAILED) };
        if rows.len() < most {
            rows.push(row(report, fine));
        } else {
            self.left_out += 1;
        }
    }

    fn count(&mut self, report: &Report) {
        let summary = escape(&sentence(&report.diagnosis.summary));
        let code = report.diagnosis.code;
        if let Some(cause) = self.causes.iter_mut().find(|cause| cause.code == code && cause.summary == summary) {
            cause.count += 1;
        } else if self.causes.len() < CAUSES {
            let remedy = commands(report);
            self.causes.push(Cause { code, sure: sure(report), summary, remedy, count: 1 });
        }
    }

    /// The attempts in the order of their numbers, and how many have no row.
    pub(super) fn take(&mut self) -> (Vec<Row>, u64) {
        let mut rows = std::mem::take(&mut self.failed);
        rows.append(&mut self.fine);
        rows.sort_by_key(|row| row.id);
        (rows, self.left_out)
    }

    /// The causes, the most frequent first.
    pub(super) fn causes(&mut self) -> Vec<Cause> {
        let mut causes = std::mem::take(&mut self.causes);
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
        causes
    }
}

fn sure(report: &Report) -> &'static str {
    match report.diagnosis.confidence {
        Confidence::Proved => "proved",
        Confidence::Inferred => "inferred",
    }
}

fn commands(report: &Report) -> Vec<Piece> {
    pieces(&report.diagnosis.remedy.iter().map(|line| escape(line)).collect::<Vec<_>>().join("\n"))
}

fn row(report: &Report, fine: bool) -> Row {
    let journey = &report.journey;
    let took_ns = journey.stages.last().map_or(0, |last| last.ns);
    let at = |location: &String| format!(" at {location}");
    let kernel = journey.reason.as_ref().map(|reason| {
        let at = journey.location.as_ref().map(at).unwrap_or_default();
        escape(&format!("{reason}{at}"))
    });
    let rule = report.evidence.rule.as_ref().map(|rule| {
        let text = rule.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        escape(&format!("{}{text}", crate::diagnosis::rule_name(rule)))
    });
    Row {
        id: journey.id,
        time: format!("{:.9}", journey.time),
        clock: journey.time.strftime("%H:%M:%S%.3f").to_string(),
        ends: ends(&journey.flow),
        outcome: journey.outcome.name(),
        code: report.diagnosis.code.name(),
        sure: sure(report),
        died_at: journey.died_at.map_or("", crate::journey::Stage::name),
        took: duration(took_ns),
        took_ns,
        summary: escape(&sentence(&report.diagnosis.summary)),
        path: path_text(journey),
        kernel,
        rule,
        remedy: commands(report),
        fine,
        complete: journey.complete,
    }
}

/// A text cut at its options.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for word in text.split_inclusive([' ', '\n']) {
        let (word, end) = word.split_at(word.trim_end_matches([' ', '\n']).len());
        let option = word.starts_with('-');
        for (text, option) in [(word, option), (end, false)].into_iter().filter(|(text, _)| !text.is_empty()) {
            match pieces.last_mut().filter(|last| !last.option && !option) {
                Some(last) => last.text.push_str(text),
                None => pieces.push(Piece { text: text.to_owned(), option }),
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_pieces_of_their_own_and_nothing_is_lost() {
        let text = "sudo nft -a list ruleset\n# with --host, --bind or 0.0.0.0";
        let found = pieces(text);
        assert_eq!(found.iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
        let options: Vec<&str> = found.iter().filter(|piece| piece.option).map(|piece| piece.text.as_str()).collect();
        assert_eq!(options, ["-a", "--host,", "--bind"]);
        assert_eq!(found.len(), 7);
    }
}
