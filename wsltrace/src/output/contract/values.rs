//! Values that the contract writes in a form of its own: its version, moments, and counts by name.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use crate::{diagnosis::Code, journey::Outcome};

/// The version of the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(1)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(D::Error::custom(format_args!("version {other} of the contract is not known"))),
        }
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": 1 })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A moment in UTC, in RFC 3339 with nine digits of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.9}", self.0))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z$"
        })
    }
}

/// How often each name occurred; every name is present, with 0 where it did not occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts<K: Ord>(pub BTreeMap<K, u64>);

/// A closed set of names to count by.
pub trait Countable: Ord + Copy + 'static {
    /// The name of the counting structure in the schema.
    const SCHEMA_NAME: &'static str;
    /// Every name.
    fn all() -> &'static [Self];
    /// The name in the contract.
    fn key(self) -> &'static str;
}

impl Countable for Outcome {
    const SCHEMA_NAME: &'static str = "ByOutcome";
    fn all() -> &'static [Self] {
        &Self::ALL
    }
    fn key(self) -> &'static str {
        self.name()
    }
}

impl Countable for Code {
    const SCHEMA_NAME: &'static str = "ByCode";
    fn all() -> &'static [Self] {
        &Self::ALL
    }
    fn key(self) -> &'static str {
        self.name()
    }
}

impl<K: Countable> Serialize for Counts<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(K::all().iter().map(|name| (name.key(), self.0.get(name).copied().unwrap_or(0))))
    }
}

impl<K: Countable> JsonSchema for Counts<K> {
    fn schema_name() -> Cow<'static, str> {
        K::SCHEMA_NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = K::all().iter().map(|name| name.key()).collect();
        let properties: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), serde_json::json!({ "type": "integer", "minimum": 0 }))).collect();
        json_schema!({ "type": "object", "properties": properties, "required": names, "additionalProperties": false })
    }
}
