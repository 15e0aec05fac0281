//! What comes out of an examination: the ways in, the findings, and how bad it is.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Facts, Finding, Linux, Severity, diagnose};
use crate::output::contract::{Time, Version};
use crate::windows::Windows;
use crate::wsl::{Answer, Row, Source, Wsl};

/// `doctor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExaminationTag {
    /// The only value.
    #[default]
    Doctor,
}

/// The answer of `wsltrace doctor --json`: one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Examination {
    /// `doctor`.
    pub r#type: ExaminationTag,
    /// The version of this contract, 1.
    pub schema: Version,
    /// When it was made.
    pub time: Time,
    /// The port that was examined.
    pub port: u16,
    /// The worst finding's severity.
    pub worst: Severity,
    /// `2`, `1`, or null outside WSL.
    pub wsl: Option<u8>,
    /// WSL's version, such as `2.6.1`.
    pub wsl_version: Option<String>,
    /// WSL's networking mode, when known.
    pub mode: Option<String>,
    /// Whether the mode was guessed from the interfaces.
    pub mode_is_guessed: bool,
    /// The ways by which a connection can come.
    pub ways: Vec<Row>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// What Linux says.
    pub linux: Linux,
    /// What Windows says.
    pub windows: Windows,
}

impl Examination {
    /// Judges the facts.
    pub fn of(facts: &Facts, time: Timestamp) -> Self {
        let findings = diagnose(facts);
        Self {
            r#type: ExaminationTag::Doctor,
            schema: Version,
            time: Time(time),
            port: facts.port,
            worst: findings.first().map_or(Severity::Fine, |worst| worst.severity),
            wsl: match facts.wsl.wsl {
                Wsl::No => None,
                Wsl::One => Some(1),
                Wsl::Two => Some(2),
            },
            wsl_version: facts.wsl.version.clone(),
            mode: facts.mode().map(|mode| mode.name().to_owned()),
            mode_is_guessed: matches!(facts.wsl.mode, Some((_, Source::Interfaces))),
            ways: facts.rows(),
            findings,
            linux: facts.linux.clone(),
            windows: facts.windows.clone(),
        }
    }

    /// The exit status: 0 nothing is wrong, 1 something will fail, 3 what decides could not be examined.
    pub fn status(&self) -> u8 {
        let blind = self.linux.unseen.iter().any(|unseen| unseen.what == super::gather::LISTENERS);
        // As where the firewall rules could not be read.
        let undecided = self.ways.iter().all(|row| row.answer == Answer::Unknown);
        // Who listens on Windows decides about most ways into WSL: whoever could not look there has found nothing to be right.
        let half = match &self.windows {
            Windows::NotAsked => false,
            Windows::Unavailable(_) => true,
            Windows::Facts(facts) => facts.listeners.known().is_none(),
        };
        match self.worst {
            Severity::Fails => 1,
            _ if blind || undecided || half => 3,
            _ => 0,
        }
    }
}

/// The JSON Schema of [`Examination`].
pub fn schema() -> serde_json::Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let mut schema: serde_json::Value = generator.into_root_schema_for::<Examination>().into();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("title".to_owned(), "wsltrace doctor --json, schema 1".into());
    }
    schema
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/doctor-1.json");

    #[test]
    fn the_schema_of_examinations_in_docs_is_the_one_of_the_types() {
        let now = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(SCHEMA, &now).unwrap();
        }
        let kept = std::fs::read_to_string(SCHEMA).unwrap_or_default();
        assert!(
            kept == now,
            "docs/schema/doctor-1.json is out of date: UPDATE=1 cargo test -p wsltrace the_schema_of_examinations"
        );
    }
}
