//! Answers that a rule of OUTPUT has marked, so that the kernel looks for their way once more: where it finds none, the hook drops them as a
//! firewall would, and no rule did it.

use super::case::{Case, Finding};
use super::{firewall, routes};
use crate::evidence::Backend;

/// The rule of `ip rule`, or the route, to which the mark leads.
pub(super) fn answer(case: &Case) -> Option<Finding> {
    // Rules of the old iptables and programs at netfilter drop in the same place, and name nobody.
    let others = case.evidence.backend == Some(Backend::IptablesLegacy) || !case.evidence.netfilter_programs.is_empty();
    if case.evidence.rule.is_some() || others || !case.journey.is_answer_dropped_by_hook() {
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

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, Confidence::Proved, tests::dropped, tests::expect};
    use crate::evidence::{Backend, Evidence, RefusingRule};
    use crate::journey::{Outcome, Stage};

    #[test]
    fn what_others_may_have_dropped_there_is_not_put_down_to_a_mark() {
        let mut journey = dropped(&[Stage::TcIngress, Stage::OutputMangle], "NETFILTER_DROP", "nf_hook_slow+0x7d");
        journey.outcome = Outcome::AnswerDropped;
        let refusing_rule = Some(RefusingRule { preference: 5, text: "from all fwmark 0x5 unreachable".into(), marked: true });
        let marked = Evidence { refusing_rule, backend: Some(Backend::Nft), ..Evidence::default() };
        let found = expect(&journey, &marked, Code::ReplyDropped, Inferred);
        assert!(found.remedy.contains(&"sudo ip rule del pref 5 from all fwmark 0x5 unreachable".to_owned()), "{found:?}");
        let legacy = Evidence { backend: Some(Backend::IptablesLegacy), ..marked.clone() };
        let program = Evidence { netfilter_programs: vec!["guard".to_owned()], ..marked };
        for others in [legacy, program] {
            let found = expect(&journey, &others, Code::ReplyDropped, Proved);
            assert!(!found.summary.contains("marked"), "{}", found.summary);
        }
    }
}
