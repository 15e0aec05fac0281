//! Counts journeys and measures the time spent in every stage.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use jiff::Timestamp;

use super::contract::{Counts, Latency, Lost, SummaryLine, SummaryTag, Time, Version};
use super::words::is_fine;
use crate::{
    diagnosis::{Code, Diagnosis},
    journey::{Journey, Outcome, Stage},
};

/// Longer times count as this long: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Collects what the summary says.
#[derive(Default)]
pub struct Summary {
    journeys: u64,
    by_outcome: BTreeMap<Outcome, u64>,
    by_code: BTreeMap<Code, u64>,
    /// SYNs that left for another machine and were sent again.
    sent_on_again: u64,
    times: StageTimes,
}

/// The times that journeys spent in each stage.
#[derive(Clone, Debug, Default)]
pub struct StageTimes {
    /// By the stage's place among [`Stage::ALL`].
    spent: Vec<Option<Histogram<u32>>>,
}

impl StageTimes {
    /// Counts the stages of one journey.
    pub fn add(&mut self, journey: &Journey) {
        for pair in journey.stages.windows(2) {
            if let [stage, next] = pair {
                let index = stage.stage as usize;
                if self.spent.len() <= index {
                    self.spent.resize(index + 1, None);
                }
                let Some(spent) = self.spent.get_mut(index) else { continue };
                let histogram = spent.get_or_insert_with(histogram);
                histogram.saturating_record(next.ns.saturating_sub(stage.ns).clamp(1, LONGEST_NS));
            }
        }
    }

    /// Adds the stages of other journeys.
    pub fn join(&mut self, other: &Self) {
        if self.spent.len() < other.spent.len() {
            self.spent.resize(other.spent.len(), None);
        }
        for (mine, other) in self.spent.iter_mut().zip(&other.spent) {
            match (mine, other) {
                // Both have the same bounds, so that nothing can be lost.
                (Some(mine), Some(other)) => drop(mine.add(other)),
                (mine @ None, other) => mine.clone_from(other),
                (Some(_), None) => {}
            }
        }
    }

    /// The stages that were passed, in order, with the times spent in each.
    pub fn spent(&self) -> impl Iterator<Item = (Stage, &Histogram<u32>)> {
        Stage::ALL.into_iter().filter_map(|stage| Some((stage, self.spent.get(stage as usize)?.as_ref()?)))
    }

    /// The same as the contract has it.
    pub fn latencies(&self) -> Vec<Latency> {
        self.spent().map(|(stage, spent)| latency(stage, spent)).collect()
    }
}

impl Summary {
    /// Counts one journey.
    pub fn add(&mut self, journey: &Journey, diagnosis: &Diagnosis) {
        self.journeys += 1;
        *self.by_outcome.entry(journey.outcome).or_default() += 1;
        *self.by_code.entry(diagnosis.code).or_default() += 1;
        // The client would not ask again had it been answered beyond.
        self.sent_on_again += u64::from(journey.outcome == Outcome::Forwarded && journey.attempt > 1);
        self.times.add(journey);
    }

    /// How many journeys were counted.
    pub fn journeys(&self) -> u64 {
        self.journeys
    }

    /// How many of them failed: all but those that were answered, or left for another machine for the first time.
    pub fn failed(&self) -> u64 {
        let failed: u64 = self.by_code.iter().filter(|(code, _)| !is_fine(**code)).map(|(_, count)| count).sum();
        failed + self.sent_on_again
    }

    /// The stages that were passed, in order, with the times spent in each.
    pub fn spent(&self) -> impl Iterator<Item = (Stage, &Histogram<u32>)> {
        self.times.spent()
    }

    /// The line that says it all; `duration_ns` is the time traced. The sum of `lost` is computed here.
    pub fn line(&self, time: Timestamp, duration_ns: u64, lost: Lost) -> SummaryLine {
        let total = lost.table_full + lost.ring_full + lost.stages_full + lost.keys_full;
        SummaryLine {
            r#type: SummaryTag::Summary,
            schema: Version,
            time: Time(time),
            duration_ns,
            journeys: self.journeys,
            by_outcome: Counts(self.by_outcome.clone()),
            by_code: Counts(self.by_code.clone()),
            lost: Lost { total, ..lost },
            latency: self.times.latencies(),
        }
    }
}

/// An empty histogram for times up to an hour, nanoseconds, with three digits.
#[expect(clippy::expect_used, reason = "the arguments are constants that the library takes")]
pub(crate) fn histogram() -> Histogram<u32> {
    Histogram::new_with_max(LONGEST_NS, 3).expect("1 <= LONGEST_NS / 2 and 3 <= 5 significant digits")
}

fn latency(stage: Stage, spent: &Histogram<u32>) -> Latency {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of times up to an hour, in nanoseconds")]
    let mean = spent.mean().round() as u64;
    Latency {
        stage,
        count: spent.len(),
        min: spent.min(),
        mean,
        p50: spent.value_at_quantile(0.5),
        p90: spent.value_at_quantile(0.9),
        p99: spent.value_at_quantile(0.99),
        p999: spent.value_at_quantile(0.999),
        max: spent.max(),
    }
}
