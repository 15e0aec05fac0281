//! The checks, in the order in which equally bad findings are told. A check is a function here and a row of [`CHECKS`].

use super::{Facts, Finding};

/// One check.
pub struct Check {
    /// Its name in the report.
    pub name: &'static str,
    /// What it finds; nothing where it has nothing to say.
    pub judge: fn(&Facts) -> Vec<Finding>,
}

/// All of them.
pub const CHECKS: &[Check] = &[];
