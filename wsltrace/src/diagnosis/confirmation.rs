//! What a client sends to confirm an answer, and a firewall drops: by which rule.

use super::case::{Case, Finding};
use super::firewall::{name, one_of, remedy, see_suspects};
use crate::evidence::Backend;

/// The SYN was let in and answered, and what the client sends next is dropped: as by rules for new connections only. That a firewall
/// dropped it was seen; which rule does so is known by following the rules.
pub(super) fn unconfirmed(case: &Case, verb: &str, so: &str) -> Finding {
    let on = case.interface().map(|name| format!(" on {name}")).unwrap_or_default();
    let told = |verb: &str, so: &str| {
        format!("answered, and then a firewall {verb} the client's next packet{on}, which confirms the answer: {so}")
    };
    let Some(rule) = &case.evidence.rule else {
        let so = "the client sees itself connected, and then waits in vain or gets an error";
        let summary = format!("{}; which rule is not known{}", told("refused", so), one_of(&case.evidence.suspects));
        return Finding::inferred(summary).remedy(case.where_to_type()).remedy(see_suspects(case));
    };
    let text = rule.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    // What such a rule decides does not follow from the rules, nor is it followed where only a counter tells.
    let counted = rule.backend == Backend::IptablesLegacy && case.evidence.port_there.is_none();
    let followed = !counted && !rule.is_limit() && !rule.remembers() && !rule.is_by_chance();
    let known = if !case.evidence.suspects.is_empty() {
        "the only rule there that can drop it, by the rules as they are now, is"
    } else if followed {
        "by the rules as they are now it is"
    } else {
        "most likely it is"
    };
    let summary = format!("{}; {known} {}{text}", told(verb, so), name(rule));
    Finding::inferred(summary).remedy(remedy(case))
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, tests::expect};
    use crate::evidence::{Evidence, Rule};
    use crate::journey::{Journey, Outcome};
    use crate::output::samples;

    fn dropped() -> Journey {
        let mut journey = samples::other(Outcome::Answered).journey;
        journey.reason = Some("NETFILTER_DROP".to_owned());
        journey
    }

    #[test]
    fn the_only_rule_that_can_is_named_and_of_several_none() {
        let [first, second] = [4, 5].map(|handle| Rule { handle: Some(handle), ..samples::rule() });
        let one = Evidence { rule: Some(first.clone()), suspects: vec![first.clone()], ..Evidence::default() };
        let found = expect(&dropped(), &one, Code::FirewallDrop, Inferred);
        assert!(found.summary.contains("the only rule there that can drop it, by the rules as they are now, is rule handle 4"));
        let two = Evidence { suspects: vec![first, second], ..Evidence::default() };
        let found = expect(&dropped(), &two, Code::FirewallDrop, Inferred);
        assert!(
            found.summary.contains("which rule is not known, by the rules as they are now it is rule handle 4"),
            "{}",
            found.summary
        );
        assert!(found.summary.contains(" or rule handle 5"), "{}", found.summary);
        let opens = |line: &&String| ["insert", "delete", "-I ", "-D "].iter().any(|word| line.contains(word));
        // One of them is enough.
        let (advice, commands): (Vec<_>, Vec<_>) = found.remedy.iter().partition(|line| line.starts_with('#'));
        assert!(!commands.iter().any(opens), "{commands:?}");
        assert_eq!(advice.iter().copied().filter(|line| opens(line)).count(), 2, "{advice:?}");
    }
}
