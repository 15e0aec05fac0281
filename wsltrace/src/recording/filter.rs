//! Which journeys of a recording are wanted.

use jiff::Timestamp;

use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::output::Report;
use crate::source::Source;

/// What must be so of a journey: one of each list that is not empty.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// How it ended.
    pub outcomes: Vec<Outcome>,
    /// What was found.
    pub codes: Vec<Code>,
    /// The stage of its death.
    pub stages: Vec<Stage>,
    /// Who the client is.
    pub sources: Vec<Source>,
    /// It was first seen then or later.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Whether a journey is wanted.
    pub fn wants(&self, report: &Report) -> bool {
        let journey = &report.journey;
        let one = |empty: bool, any: bool| empty || any;
        one(self.outcomes.is_empty(), self.outcomes.contains(&journey.outcome))
            && one(self.codes.is_empty(), self.codes.contains(&report.diagnosis.code))
            && one(self.stages.is_empty(), journey.died_at.is_some_and(|stage| self.stages.contains(&stage)))
            && one(self.sources.is_empty(), self.sources.iter().any(|source| source.contains(journey.flow.source)))
            && self.since.is_none_or(|since| journey.time >= since)
    }

    /// Whether anything may be left out.
    pub fn is_open(&self) -> bool {
        self.outcomes.is_empty()
            && self.codes.is_empty()
            && self.stages.is_empty()
            && self.sources.is_empty()
            && self.since.is_none()
    }
}
