//! What the user gets to see: text for people, JSON lines for programs, and the pages of `explain`. Nothing here judges.

mod absence;
pub mod contract;
pub mod explain;
mod json;
mod path;
mod summary;
mod summary_text;
mod text;
mod words;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod snapshot_tests;

pub use absence::absence_message;
pub use json::JsonOutput;
pub use summary::Summary;
pub use text::{TextOptions, TextOutput, Verbosity};

use crate::{
    diagnosis::{Diagnosis, diagnose},
    evidence::Evidence,
    journey::Journey,
};

/// A journey with all that is known and said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What was seen.
    pub journey: Journey,
    /// What was found out.
    pub evidence: Evidence,
    /// What it means.
    pub diagnosis: Diagnosis,
}

impl Report {
    /// Diagnoses a journey. What named the killer makes the place of its death finer.
    pub fn new(mut journey: Journey, evidence: Evidence) -> Self {
        if journey.died_at.is_some() {
            journey.died_at = evidence.stage.or(journey.died_at);
        }
        if let Some(translated) = &mut journey.translated {
            translated.rule.clone_from(&evidence.translator);
        }
        let diagnosis = diagnose(&journey, &evidence);
        Self { journey, evidence, diagnosis }
    }
}
