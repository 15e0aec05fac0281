//! The JSON contract, schema 1: one structure for each type of line, and the JSON Schema made from them. Every field is always
//! present; null where it does not apply.

mod values;

pub use values::{Countable, Counts, Time, Version};

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Report, StallLine};
use crate::{
    diagnosis::{Code, Diagnosis},
    evidence::{Rule, Sockets},
    journey::{Conntrack, DeathPlace, Flow, InterfaceName, Origin, Outcome, Stage, StageVisit, Translated},
};

/// Which type of line it is.
macro_rules! tag {
    ($name:ident, $variant:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(inline)]
        pub enum $name {
            #[doc = "The only value."]
            #[default]
            $variant,
        }
    };
}

tag!(ArmedTag, Armed, "Marks the line that says that tracing has begun.");
tag!(JourneyTag, Journey, "Marks the line of one journey.");
tag!(AbsenceTag, Absence, "Marks the line that says that no SYN came.");
tag!(StallTag, Stall, "Marks the line of a connection that was made and does not get on.");
tag!(SummaryTag, Summary, "Marks the last line.");

/// Tracing has begun: every probe that can be on is on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Armed {
    /// The line's type.
    pub r#type: ArmedTag,
    /// The contract's version.
    pub schema: Version,
    /// When.
    pub time: Time,
    /// Inode number of the traced network namespace.
    pub netns: u32,
    /// The traced ports.
    pub ports: Vec<PortRange>,
    /// How many netfilter positions are watched.
    pub detail: Detail,
    /// The watched interfaces.
    pub interfaces: Vec<Interface>,
    /// The probes that are on.
    pub probes_on: Vec<ProbeOn>,
    /// The probes that are missing.
    pub probes_missing: Vec<ProbeMissing>,
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port; the same for a single one.
    pub last: u16,
}

/// How many netfilter positions are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// The standard priorities at which something is hooked in.
    Auto,
    /// Every standard priority.
    Full,
    /// Seven positions a family.
    Light,
}

/// A watched interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Its index there.
    pub index: u32,
}

/// A probe that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeOn {
    /// Its name.
    pub name: String,
    /// In how many places it is attached.
    pub count: u32,
}

/// A probe that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeMissing {
    /// Its name.
    pub probe: String,
    /// Why it is missing.
    pub reason: String,
    /// What cannot be seen without it.
    pub cost: String,
}

/// One journey with its diagnosis.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JourneyLine {
    /// The line's type.
    pub r#type: JourneyTag,
    /// The contract's version.
    pub schema: Version,
    /// Counts the journeys of this run, from 1.
    pub id: u64,
    /// When the SYN was first seen.
    pub time: Time,
    /// Where the connection came from.
    pub origin: Origin,
    /// The interface of the first sight.
    pub interface: Option<InterfaceName>,
    /// Inode number of the network namespace of the first sight.
    pub netns: u32,
    /// Addresses and ports as first seen.
    pub flow: Flow,
    /// Counts the SYNs of one flow and initial sequence number, from 1.
    pub attempt: u32,
    /// conntrack's state of the SYN.
    pub conntrack: Option<Conntrack>,
    /// The addresses as last seen, when something rewrote them.
    pub translated: Option<Translated>,
    /// The stages entered, in order; `ns` strictly increases.
    pub stages: Vec<StageVisit>,
    /// How it ended.
    pub outcome: Outcome,
    /// The last stage entered before the death.
    pub died_at: Option<Stage>,
    /// Where it died.
    pub death: Option<DeathPlace>,
    /// The kernel's drop reason without its prefix.
    pub reason: Option<String>,
    /// Where in the kernel it was freed.
    pub location: Option<String>,
    /// The rule that killed it.
    pub rule: Option<Rule>,
    /// The listeners on its port.
    pub socket: Option<Sockets>,
    /// False when any record that belongs to the journey may have been lost.
    pub complete: bool,
    /// What it means.
    pub diagnosis: Diagnosis,
}

impl From<&Report> for JourneyLine {
    fn from(report: &Report) -> Self {
        let journey = report.journey.clone();
        Self {
            r#type: JourneyTag::Journey,
            schema: Version,
            id: journey.id,
            time: Time(journey.time),
            origin: journey.origin,
            interface: journey.interface,
            netns: journey.netns,
            flow: journey.flow,
            attempt: journey.attempt,
            conntrack: journey.conntrack,
            translated: journey.translated,
            stages: journey.stages,
            outcome: journey.outcome,
            died_at: journey.died_at,
            death: journey.death,
            reason: journey.reason,
            location: journey.location,
            rule: report.evidence.rule.clone(),
            socket: report.evidence.sockets.clone(),
            complete: journey.complete,
            diagnosis: Diagnosis::clone(&report.diagnosis),
        }
    }
}

/// No SYN came for so long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Absence {
    /// The line's type.
    pub r#type: AbsenceTag,
    /// The contract's version.
    pub schema: Version,
    /// When it was noted.
    pub time: Time,
    /// For how many seconds no SYN came.
    pub seconds: u64,
    /// The traced ports.
    pub ports: Vec<PortRange>,
    /// The watched interfaces.
    pub interfaces: Vec<Interface>,
    /// WSL's networking mode, such as `nat` or `mirrored`, when known.
    pub mode: Option<String>,
    /// What that means.
    pub message: String,
    /// SYNs to other ports in that time, and to a traced one for another hardware address.
    pub near_misses: Vec<NearMiss>,
}

/// SYNs to a port that is not traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NearMiss {
    /// The port.
    pub port: u16,
    /// The interface that they came in by.
    pub interface: String,
    /// How many.
    pub count: u64,
}

/// The last line: all journeys counted.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SummaryLine {
    /// The line's type.
    pub r#type: SummaryTag,
    /// The contract's version.
    pub schema: Version,
    /// When it was made.
    pub time: Time,
    /// For how long was traced, nanoseconds.
    pub duration_ns: u64,
    /// How many journeys.
    pub journeys: u64,
    /// Journeys by outcome.
    pub by_outcome: Counts<Outcome>,
    /// Journeys by diagnosis.
    pub by_code: Counts<Code>,
    /// Records lost, by place.
    pub lost: Lost,
    /// Time spent in each stage.
    pub latency: Vec<Latency>,
}

/// Records lost, by the place that lost them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// SYNs that did not fit into the table of journeys.
    pub table_full: u64,
    /// Journeys that did not fit into the ring buffer and could not be collected later: 0, they wait in the table.
    pub ring_full: u64,
    /// Stages that did not fit into their journey.
    pub stages_full: u64,
    /// Keys that could not be stored.
    pub keys_full: u64,
    /// The sum.
    pub total: u64,
}

/// Time spent in a stage until the next was entered, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the usual names of statistics, all in nanoseconds")]
pub struct Latency {
    /// The stage.
    pub stage: Stage,
    /// How many packets passed it.
    pub count: u64,
    pub min: u64,
    pub mean: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// The JSON Schema of every line, by its `type`.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let lines: [Schema; 5] = [
        generator.subschema_for::<Armed>(),
        generator.subschema_for::<JourneyLine>(),
        generator.subschema_for::<Absence>(),
        generator.subschema_for::<StallLine>(),
        generator.subschema_for::<SummaryLine>(),
    ];
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wsltrace output, schema 1",
        "description": "One object a line, told apart by `type`. Every field is always present; null where it does not apply.",
        "oneOf": lines,
        "$defs": generator.take_definitions(true),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::samples;
    use serde_json::Value;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/wsltrace-1.json");

    #[test]
    fn the_schema_in_docs_is_the_one_of_the_types() {
        let now = serde_json::to_string_pretty(&super::schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(std::path::Path::new(FILE).parent().unwrap()).unwrap();
            std::fs::write(FILE, &now).unwrap();
        }
        let kept = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(kept == now, "docs/schema/wsltrace-1.json is out of date: UPDATE=1 cargo test -p wsltrace the_schema_in_docs");
    }

    /// Every way to remove or rename one field, at any depth.
    fn mutations(value: &Value) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        match value {
            Value::Object(fields) => {
                for (name, child) in fields {
                    let mut without = fields.clone();
                    without.remove(name);
                    all.push((format!("-{name}"), Value::Object(without.clone())));
                    without.insert(format!("{name}_x"), child.clone());
                    all.push((format!("~{name}"), Value::Object(without)));
                    for (path, mutated) in mutations(child) {
                        let mut with = fields.clone();
                        with.insert(name.clone(), mutated);
                        all.push((format!("{name}.{path}"), Value::Object(with)));
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    for (path, mutated) in mutations(item) {
                        let mut with = items.clone();
                        *with.get_mut(index).unwrap() = mutated;
                        all.push((format!("[{index}].{path}"), Value::Array(with)));
                    }
                }
            }
            _ => {}
        }
        all
    }

    #[test]
    fn every_line_is_valid_and_every_mutation_is_not() {
        let validator = jsonschema::validator_for(&super::schema()).unwrap();
        for line in samples::lines() {
            let error = validator.validate(&line).err().map(|error| error.to_string());
            assert_eq!(error, None, "{line}");
            let all = mutations(&line);
            assert!(all.len() > 15, "{line}");
            for (path, mutated) in all {
                assert!(!validator.is_valid(&mutated), "{path} may be missing or renamed");
            }
        }
    }
}
