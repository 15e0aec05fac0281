//! What a run measured, as programs read it: one JSON object.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attempt::{Failure, Mode};
use super::interval::Difference;
use super::rounds::{Beside, Measurement, Path, Plan};
use super::tally::Tally;
use super::trace::legs::Leg;
use crate::output::contract::{ProbeMissing, Time, Version};
use crate::probe::Missing;

/// `bench`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BenchTag {
    /// The only value.
    #[default]
    Bench,
}

/// Times, nanoseconds, three significant digits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Times {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Times {
    /// Those of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u32>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

/// A path with the tracer on, in the same rounds as without it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TracedPath {
    /// Attempts, answered or not.
    pub attempts: u64,
    /// Answered attempts a second.
    pub per_second: f64,
    /// The median of each round, nanoseconds.
    pub round_p50: Vec<u64>,
    /// What the tracer costs: by how much the rounds' medians with it differ from those without it, nanoseconds; null with too few rounds,
    /// and where one had no answer.
    pub cost: Option<Difference>,
    /// Where the time of the handshakes went, a leg each: a path through a proxy in this Linux has more than one.
    pub legs: Vec<Leg>,
    /// What was not seen, in words.
    pub remark: Option<String>,
    /// How many segments the server's side sent again (the kernel's event `tcp_retransmit_skb`).
    #[serde(default)]
    pub server_sent_again: Option<u64>,
    /// Why that is not known; null where it is.
    #[serde(default)]
    pub server_sent_again_unknown: Option<String>,
}

/// The tracer beside the measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tracer {
    /// Why it was not on; null when it was.
    pub off: Option<String>,
    /// Records lost: so many handshakes may be missing.
    pub lost: u64,
    /// Probes that were not on, and what that costs.
    pub missing: Vec<ProbeMissing>,
}

/// A path and what was measured of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The path's name.
    pub path: String,
    /// Where it leads.
    pub address: String,
    /// What the clients did.
    pub mode: Mode,
    /// The figures were made with the tracer on, since the run was ended before the first round without it: they hold what the tracer
    /// costs. Else the tracer was off in all of them.
    #[serde(default)]
    pub with_tracer: bool,
    /// Attempts, answered or not.
    pub attempts: u64,
    /// Attempts that were due at a fixed rate, and for which no client was free before the time was up.
    pub not_begun: u64,
    /// Attempts that were under way when the run was ended before its time; they are not among `attempts`.
    #[serde(default)]
    pub given_up: u64,
    /// How long the longest of them had waited by then, nanoseconds; 0 where there is none.
    #[serde(default)]
    pub given_up_after: u64,
    /// Answered attempts a second.
    pub per_second: f64,
    /// Of answered attempts, from their intended start.
    pub waited: Times,
    /// Of answered attempts, from their real start.
    pub service: Times,
    /// Attempts that failed, by how.
    pub failed: BTreeMap<Failure, u64>,
    /// Answers that say by their status that there was an error (400 and above): a page of an error may be quicker than the page.
    #[serde(default)]
    pub errors: u64,
    /// TCP segments that the client's side sent, and how many of them again.
    pub segments_sent: u64,
    /// See `segments_sent`.
    pub segments_sent_again: u64,
    /// Why nothing is known of segments; null where it is.
    pub segments_unknown: Option<String>,
    /// Connections that the client made, or tried to make.
    #[serde(default)]
    pub connections: u64,
    /// How many of them had to send a segment again.
    #[serde(default)]
    pub connections_sent_again: u64,
    /// The median of each round, nanoseconds.
    pub round_p50: Vec<u64>,
    /// The path that it is compared to; null for the first.
    pub baseline: Option<String>,
    /// By how much the rounds' medians differ from that path's, nanoseconds; null for the first, with too few rounds, where a round of
    /// either had no answer, and where the tracer was on in the figures of one of the two only.
    pub difference: Option<Difference>,
    /// The same with the tracer on, and what it saw; null where it was not on.
    pub traced: Option<TracedPath>,
}

/// The answer of `wsltrace bench --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// `bench`.
    pub r#type: BenchTag,
    /// The version of this contract, 1.
    pub schema: Version,
    /// When the run ended.
    pub time: Time,
    /// How many clients there were at once.
    pub clients: u32,
    /// For how long each path was to be measured, seconds.
    pub seconds: f64,
    /// Attempts a second, when fixed.
    pub rate: Option<f64>,
    /// The number by which the order of the rounds was drawn.
    pub seed: u64,
    /// How often each path was to be measured; the paths of a round are in an order of its own.
    #[serde(default)]
    pub rounds: u32,
    /// For how long each path was warmed up before, seconds; that is in no figure.
    #[serde(default)]
    pub warm_up: f64,
    /// The run was ended before its time.
    pub partial: bool,
    /// What spoilt the run, each with what helps.
    pub warnings: Vec<String>,
    /// The tracer beside it.
    #[serde(default)]
    pub tracer: Tracer,
    /// The paths, the baseline first.
    pub paths: Vec<Measured>,
}

impl Bench {
    /// Puts together what was measured.
    pub fn of(plan: &Plan, measured: &Measurement, partial: bool, warnings: Vec<String>, time: Timestamp) -> Self {
        let paths = &measured.paths;
        // What differs in one thing says most: the first target in the same mode, else the first path.
        let baseline = |index: usize| {
            let before = paths.get(..index).unwrap_or_default();
            let mode = paths.get(index).map(|path| path.mode);
            before.iter().find(|path| Some(path.mode) == mode).or(before.first())
        };
        Self {
            r#type: BenchTag::Bench,
            schema: Version,
            time: Time(time),
            clients: plan.clients,
            seconds: plan.duration.as_secs_f64(),
            rate: plan.rate,
            seed: plan.seed,
            rounds: plan.rounds(),
            warm_up: plan.warm_up().as_secs_f64(),
            partial,
            warnings,
            tracer: match &measured.tracer {
                Beside::Not(why) => Tracer { off: Some(why.clone()), ..Tracer::default() },
                Beside::Traced { lost, missing, .. } => {
                    let missing =
                        missing.iter().cloned().map(|Missing { probe, reason, cost }| ProbeMissing { probe, reason, cost });
                    Tracer { off: None, lost: *lost, missing: missing.collect() }
                }
            },
            paths: paths
                .iter()
                .enumerate()
                .map(|(index, path)| told(path, baseline(index), plan.modes.len() > 1, measured))
                .collect(),
        }
    }
}

fn told(path: &Path, baseline: Option<&Path>, many_modes: bool, measured: &Measurement) -> Measured {
    let (total, unknown) = (path.total(), measured.segments_unknown);
    let sent_again = server_sent_again(path, &measured.tracer);
    Measured {
        path: path.name(many_modes),
        address: path.target.address.to_string(),
        mode: path.mode,
        with_tracer: path.is_with_tracer(),
        attempts: total.attempts(),
        not_begun: total.not_begun,
        given_up: total.given_up,
        given_up_after: u64::try_from(total.given_up_after.as_nanos()).unwrap_or(u64::MAX),
        per_second: total.rate,
        errors: total.errors,
        waited: Times::of(&total.waited),
        service: Times::of(&total.service),
        failed: total.failed.clone(),
        segments_sent: total.segments.sent,
        segments_sent_again: total.segments.again,
        segments_unknown: unknown.or((total.segments.sent == 0).then_some("no segment was sent")).map(str::to_owned),
        connections: total.connections,
        connections_sent_again: total.connections_again,
        round_p50: path.shown().iter().map(median).collect(),
        baseline: baseline.map(|baseline| baseline.name(many_modes)),
        // Between a path with the tracer and one without it, its cost would be told as the path's.
        difference: baseline
            .filter(|baseline| baseline.is_with_tracer() == path.is_with_tracer())
            .and_then(|baseline| difference(path.shown(), baseline.shown())),
        traced: (!path.traced.is_empty()).then(|| TracedPath {
            attempts: path.total_traced().attempts(),
            per_second: path.total_traced().rate,
            round_p50: path.traced.iter().map(median).collect(),
            cost: difference(&path.traced, &path.rounds),
            legs: path.legs.legs(),
            remark: path.legs.remark(path.total_traced().connections, path.target.address.port()),
            server_sent_again: sent_again.ok(),
            server_sent_again_unknown: sent_again.err().map(str::to_owned),
        }),
    }
}

/// How many segments the server's side of a path sent again; or why nobody knows. The kernel's event tells the server's own port, which
/// has to be one that was traced.
fn server_sent_again(path: &Path, tracer: &Beside) -> Result<u64, &'static str> {
    let Beside::Traced { ports, .. } = tracer else { return Err("the tracer failed") };
    let legs = path.legs.legs();
    let count = path.sent_again.ok_or("the probe for it was not on")?;
    if legs.is_empty() {
        return Err("no connection of it ends in this Linux");
    }
    let moved = legs.iter().any(|leg| leg.onward.is_some_and(|onward| !ports.contains(&onward.port())));
    if moved { Err("its server has another port than the targets: name it as a target, too") } else { Ok(count) }
}

/// By how much the medians of rounds that belong together differ; `None` where a round has no answer, and so no median.
fn difference(rounds: &[Tally], others: &[Tally]) -> Option<Difference> {
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds stay far below 2^52")]
    let medians = |rounds: &[Tally]| rounds.iter().map(|round| median(round) as f64).collect::<Vec<_>>();
    let is_answered = |rounds: &[Tally]| rounds.iter().all(|round| !round.waited.is_empty());
    let both = is_answered(rounds) && is_answered(others);
    both.then(|| Difference::of(medians(rounds).into_iter().zip(medians(others)))).flatten()
}

fn median(round: &Tally) -> u64 {
    round.waited.value_at_quantile(0.5)
}

/// The JSON Schema of [`Bench`].
pub fn schema() -> serde_json::Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let mut schema: serde_json::Value = generator.into_root_schema_for::<Bench>().into();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("title".to_owned(), "wsltrace bench --json, schema 1".into());
    }
    schema
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::target::Resolved;

    #[test]
    fn figures_with_and_without_the_tracer_are_never_mixed() {
        let round = |ns: &[u64]| {
            let mut tally = Tally { lasted: Duration::from_secs(1), ..Tally::default() };
            for time in ns.iter().copied().map(Duration::from_nanos) {
                tally.answered(time, time, false);
            }
            tally
        };
        let path = |name: &str, rounds: &[Tally], traced: &[Tally]| {
            let address = "127.0.0.1:80".parse().unwrap();
            let target = Resolved { name: name.to_owned(), host: name.to_owned(), address };
            Path { rounds: rounds.to_vec(), traced: traced.to_vec(), ..Path::new(target, Mode::Http) }
        };
        let (plain, slow) = (round(&[1_000, 1_000]), round(&[3_000; 5]));
        let paths = [
            path("both", &[plain.clone(), plain], std::slice::from_ref(&slow)),
            path("traced", &[], &[slow.clone(), slow]),
            path("nothing", &[], &[]),
        ];
        let tracer = Beside::Traced { lost: 0, missing: Vec::new(), ports: vec![80] };
        let measured = Measurement { paths: paths.to_vec(), tracer, segments_unknown: None };
        let told: Vec<Measured> = paths.iter().map(|path| told(path, paths.first(), false, &measured)).collect();
        let figures = told.iter().map(|path| (path.attempts, path.waited.count, path.round_p50.len(), path.with_tracer));
        assert_eq!(figures.collect::<Vec<_>>(), [(4, 4, 2, false), (10, 10, 2, true), (0, 0, 0, false)]);
        assert_eq!(told.iter().map(|path| path.difference.is_some()).collect::<Vec<_>>(), [true, false, false]);
        assert!(told[1].traced.as_ref().unwrap().cost.is_none(), "there is nothing without the tracer to compare to");
    }

    const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/bench-1.json");

    #[test]
    fn the_schema_of_benchmarks_in_docs_is_the_one_of_the_types() {
        let now = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(SCHEMA, &now).unwrap();
        }
        let kept = std::fs::read_to_string(SCHEMA).unwrap_or_default();
        assert!(kept == now, "docs/schema/bench-1.json is out of date: UPDATE=1 cargo test -p wsltrace the_schema_of_benchmarks");
    }
}
