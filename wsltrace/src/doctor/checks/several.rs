//! What is said of connections of which something that is not known decides how they end.

use super::super::{Facts, Finding, Severity};
use crate::simulate::{Part, Prediction};
use crate::wsl::{Entry, Gate};

/// What is said of connections that end in one of several ways; nothing where all of them work.
pub(super) fn maybe(facts: &Facts, entry: &Entry, who: &str, (prediction, packet): (&Prediction, Part)) -> Option<Finding> {
    let several = if packet == Part::Syn { facts.several(entry) } else { None };
    let depends = |finding: Finding| {
        prediction.maybe().iter().fold(finding, |finding, why| finding.because(format!("it depends on {why}")))
    };
    let mends = || {
        let mut lines: Vec<String> = Vec::new();
        for line in facts.mends_of_several(entry, prediction) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    };
    match several {
        Some(Gate::Open | Gate::Led { works: true, .. }) => None,
        Some(Gate::Shut(why)) => {
            let finding = Finding::new(Severity::Fails, format!("connections of {who} fail, whichever way they take: {why}"));
            Some(mends().into_iter().fold(depends(finding), Finding::linux))
        }
        _ => {
            let lines = mends();
            let finding = if lines.is_empty() {
                let summary = format!("whether the firewall lets a connection by {} pass cannot be said", entry.interface);
                Finding::new(Severity::Unknown, summary)
            } else {
                let summary =
                    format!("some connections of {who} may fail: rules lead them to several servers, and not all of those serve");
                Finding::new(Severity::Warns, summary)
            };
            let finding = match several {
                Some(Gate::Unknown(why)) => finding.because(why),
                _ => depends(finding),
            };
            Some(lines.into_iter().fold(finding, Finding::linux))
        }
    }
}
