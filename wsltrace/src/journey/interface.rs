//! The name of an interface.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use arrayvec::ArrayString;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kernel's limit, without the zero at the end.
const LONGEST: usize = libc::IFNAMSIZ - 1;

/// A name such as `eth0`, in place: every stage of every journey has one, and a million of them are read from a recording. As the
/// kernel has it: control characters are not yet escaped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(ArrayString<LONGEST>);

impl From<&str> for InterfaceName {
    /// Takes as much as the kernel would.
    fn from(name: &str) -> Self {
        let fits = |end: &usize| name.is_char_boundary(*end);
        let end = (0..=name.len().min(LONGEST)).rev().find(fits).unwrap_or(0);
        Self(ArrayString::from(name.get(..end).unwrap_or_default()).unwrap_or_default())
    }
}

impl Deref for InterfaceName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InterfaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(Cow::<str>::deserialize(deserializer)?.as_ref()))
    }
}

impl JsonSchema for InterfaceName {
    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::InterfaceName;

    #[test]
    fn longer_names_than_the_kernels_are_cut_between_characters() {
        assert_eq!(&*InterfaceName::from("loopback0"), "loopback0");
        assert_eq!(&*InterfaceName::from("br-0123456789abcdef"), "br-0123456789ab");
        assert_eq!(&*InterfaceName::from("fourteen-chars\u{fc}"), "fourteen-chars");
        assert_eq!(&*InterfaceName::from(""), "");
    }
}
