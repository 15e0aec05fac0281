//! Ways of the table that fail, and of which no check has told: an examination that ends well must not hold one.

use super::super::{Facts, Finding, Severity};
use super::firewall::entries;
use crate::wsl::Gate;

/// What stops connections that somebody would take, each reason once; for where no check has found what fails.
pub(in super::super) fn untold(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (entry, who) in entries(facts) {
        // It is told as what many want.
        let lost_v6 = entry.destination.is_ipv6() && facts.linux.loopback_gone.contains(&entry.destination);
        let Gate::Shut(why) = facts.gate(&entry) else { continue };
        let summary = format!("connections of {who} fail: {why}");
        let told = |known: &Finding| known.summary.ends_with(&why);
        if lost_v6 || found.iter().any(told) {
            continue;
        }
        let finding = Finding { check: "ways".to_owned(), ..Finding::new(Severity::Fails, summary) };
        found.push(finding.linux(format!("# what becomes of a connection: sudo wsltrace --port {}", facts.port)));
    }
    found
}
