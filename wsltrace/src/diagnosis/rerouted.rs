//! Answers that a rule of OUTPUT has marked, so that the kernel looks for their way once more: where it finds none, the hook drops them as a
//! firewall would, and no rule did it.

use super::case::{Case, Finding};
use super::{firewall, routes};

/// The rule of `ip rule`, or the route, to which the mark leads.
pub(super) fn answer(case: &Case) -> Option<Finding> {
    if case.evidence.rule.is_some() || !case.journey.is_answer_dropped_by_hook() {
        return None;
    }
    let refusal = routes::refused_by_tables(case, case.journey.answer_destination())?;
    let summary = format!(
        "the answer was dropped in {}, and no rule of a firewall did it: most likely one has marked it, for which the kernel looks for its way anew, and {}",
        firewall::place(case),
        refusal.what
    );
    let marks = case.root("nft -a list ruleset | grep -i mark");
    let or = ["# or take away what marks the answers:".to_owned(), format!("# {marks}")];
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(refusal.mend).remedy(or))
}
