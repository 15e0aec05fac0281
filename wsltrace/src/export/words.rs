//! What several formats say of a journey.

use crate::diagnosis::Confidence;
use crate::escape::escape;
use crate::journey::Journey;
use crate::output::{Report, words};

/// `172.28.16.1:51234 → 172.28.16.2:8080`.
pub(super) fn ends(journey: &Journey) -> String {
    words::ends(&journey.flow)
}

/// `dropped at input_filter`.
pub(super) fn outcome(journey: &Journey) -> String {
    let at = journey.died_at.map(|stage| format!(" at {stage}")).unwrap_or_default();
    format!("{}{at}", journey.outcome.name())
}

/// `firewall_drop (proved): Dropped in ...`.
pub(super) fn finding(report: &Report) -> String {
    let sure = match report.diagnosis.confidence {
        Confidence::Proved => "proved",
        Confidence::Inferred => "inferred",
    };
    escape(&format!("{} ({sure}): {}", report.diagnosis.code, words::sentence(&report.diagnosis.summary)))
}

/// The place of an interface for people: its name, or that it has none.
pub(super) fn interface(name: Option<&str>) -> String {
    name.map_or_else(|| "no interface yet".to_owned(), escape)
}
