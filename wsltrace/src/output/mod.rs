//! What the user gets to see: text for people, JSON lines for programs, and the pages of `explain`. Nothing here judges.

mod absence;
mod attempts;
pub(crate) mod bench;
pub mod contract;
mod difference;
mod doctor;
pub mod explain;
mod fold;
#[cfg(test)]
mod handbook;
mod json;
mod listening;
mod live;
mod options;
mod path;
mod stall;
mod summary;
mod summary_text;
mod telling;
mod text;
mod verdict;
pub(crate) mod words;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod text_tests;

pub use absence::{Waited, Why, absence_message, near_miss_hint};
pub use bench::{bench, bench_comparison, bench_csv, bench_ways};
pub use difference::{Side, difference};
pub use doctor::{examination, script};
pub use json::JsonOutput;
pub use listening::{Start, table as listening_table};
pub use options::{Shown, TextOptions, Verbosity};
pub(crate) use path::plain as path_text;
pub use stall::StallLine;
pub(crate) use summary::histogram as spent_histogram;
pub use summary::{StageTimes, Summary};
pub(crate) use telling::wrapped;
pub use telling::{tell, tell_whole};
pub use text::TextOutput;

use std::sync::Arc;

use crate::{
    diagnosis::{Diagnosis, diagnose},
    evidence::{Evidence, Rule},
    journey::{Conntrack, Journey},
    kernel::programs::Programs,
};

/// Whether a rule takes invalid packets and no others.
fn matches_invalid(rule: &Rule) -> bool {
    rule.text.as_deref().is_some_and(|text| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let nft = words.windows(3).any(|three| three == ["ct", "state", "invalid"]);
        nft || words.windows(2).any(|two| matches!(two, ["--ctstate" | "--state", "INVALID"]))
    })
}

/// Adds to a journey what the evidence knows better.
fn refine(journey: &mut Journey, evidence: &Evidence) {
    if journey.died_at.is_some() {
        journey.died_at = evidence.stage.or(journey.died_at);
    }
    // `_nfct` is 0 for an invalid packet as well as without conntrack; a rule that matched by the state knows.
    if journey.conntrack.is_none() && evidence.rule.as_ref().is_some_and(matches_invalid) {
        journey.conntrack = Some(Conntrack::Invalid);
    }
    if let Some(translated) = &mut journey.translated {
        // Where a container's own rules have rewritten it again, it is not this one that made it what it is.
        translated.rule =
            evidence.translator.clone().filter(|rule| !crate::evidence::rules::sends_elsewhere(rule, translated.destination));
    }
}

/// A journey with all that is known and said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What was seen.
    pub journey: Journey,
    /// What was found out.
    pub evidence: Arc<Evidence>,
    /// What it means.
    pub diagnosis: Arc<Diagnosis>,
}

impl Report {
    /// Diagnoses a journey. What named the killer makes the place of its death finer.
    pub fn new(mut journey: Journey, evidence: Evidence) -> Self {
        refine(&mut journey, &evidence);
        let diagnosis = diagnose(&journey, &evidence).into();
        Self { journey, evidence: evidence.into(), diagnosis }
    }

    /// Has the remedy as it is to be typed here.
    #[must_use]
    pub fn typed_with(mut self, programs: &Programs) -> Self {
        let diagnosis = Arc::make_mut(&mut self.diagnosis);
        diagnosis.remedy = programs.typed(std::mem::take(&mut diagnosis.remedy));
        self
    }

    /// What was told of a journey at another time, perhaps by another version.
    pub fn told(mut journey: Journey, evidence: Arc<Evidence>, diagnosis: Arc<Diagnosis>) -> Self {
        refine(&mut journey, &evidence);
        Self { journey, evidence, diagnosis }
    }
}
