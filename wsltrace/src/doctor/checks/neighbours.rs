//! Whether clients of the same network can find this machine at all.

use super::super::firewall::described;
use super::super::neighbours::Silence;
use super::super::{Facts, Finding, Severity};
use super::firewall::{entries, passes};
use crate::diagnosis::allow_neighbours;
use crate::simulate::{End, Prediction};
use crate::wsl::NetworkingMode;

/// Whether clients of the same network can find this machine: they ask for its hardware address before they send a SYN.
pub(super) fn neighbours(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for v4 in [true, false] {
        let asked: Vec<_> = entries(facts).into_iter().filter(|(entry, _)| entry.destination.is_ipv4() == v4).collect();
        if let Some((silence, who)) = asked.iter().find_map(|(entry, who)| Some((facts.silence(entry)?, who))) {
            found.push(silent(facts, silence, who));
            continue;
        }
        let mut let_in = asked.into_iter().filter(|(entry, _)| passes(facts, entry));
        let first = let_in.find_map(|(entry, who)| Some((facts.search(&entry)?, who)));
        if let Some((searched, who)) = first {
            found.push(unfound(facts, &searched.prediction, &who, v4));
        }
    }
    found
}

fn silent(facts: &Facts, silence: Silence, who: &str) -> Finding {
    let severity = if shares_addresses(facts) { Severity::Warns } else { Severity::Fails };
    let finding = Finding::new(severity, format!("{who} cannot find this machine: {}", silence.why));
    silence.mend.into_iter().fold(finding, Finding::linux)
}

fn unfound(facts: &Facts, prediction: &Prediction, who: &str, v4: bool) -> Finding {
    let protocol = if v4 { "ARP" } else { "ICMPv6" };
    let (End::Dropped { rule, .. } | End::Rejected { rule, .. }) = &prediction.end else {
        let summary = format!(
            "whether {who} can find this machine cannot be said: rules decide about questions for hardware addresses ({protocol})"
        );
        let finding = Finding::new(Severity::Unknown, summary);
        return prediction.maybe().iter().fold(finding, |finding, why| finding.because(format!("it depends on {why}")));
    };
    let severity = if shares_addresses(facts) { Severity::Warns } else { Severity::Fails };
    let finding = Finding::new(
        severity,
        format!(
            "{who} cannot find this machine: questions for its hardware address ({protocol}), or the answers, are dropped by {}",
            described(rule)
        ),
    );
    finding.because("the rules were read and followed").linux(format!("sudo {}", allow_neighbours(rule, !v4)))
}

/// Whether Windows has this Linux' addresses too, so that it is not known whom others ask for them.
fn shares_addresses(facts: &Facts) -> bool {
    matches!(facts.mode(), Some(NetworkingMode::Mirrored | NetworkingMode::Consomme))
}
