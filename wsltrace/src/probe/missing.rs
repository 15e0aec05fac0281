//! The probes that this kernel does not allow, and what is not known without them.

use crate::kernel::KernelFacts;

/// A probe that is not on, and what that costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which probe.
    pub probe: String,
    /// Why it is not on.
    pub reason: String,
    /// What is not known without it.
    pub cost: String,
}

impl Missing {
    pub(super) fn new(probe: &str, reason: &str, costs: Option<&str>) -> Self {
        Self { probe: probe.to_owned(), reason: reason.to_owned(), cost: costs.unwrap_or_default().to_owned() }
    }
}

/// The facts about the kernel that its type information does not hold.
pub(super) fn missing_fields(facts: &KernelFacts) -> Vec<Missing> {
    let missing = facts.missing.iter();
    missing
        .map(|field| Missing {
            probe: field.name.to_owned(),
            reason: "this kernel has no such field".to_owned(),
            cost: field.costs.to_owned(),
        })
        .collect()
}
