//! Which rule drops what a client sends to confirm an answer. The kernel is not asked to name rules for such packets, of which every
//! connection has many; the rules as they are now are followed instead, so this proves nothing.

use super::simulated::{Rules, came};
use super::{Backend, Rule};
use crate::journey::{Conntrack, Journey, symbol};
use crate::simulate::{End, Standing, Suspect, Way, predict_as, suspects};

impl Rules {
    /// The rule or policy that drops or rejects the client's confirmation, where it is certain by these rules, and the port that the
    /// confirmation has there. What these rules would certainly let pass as part of its connection was none to connection tracking,
    /// since it died.
    pub(super) fn dropper(&self, journey: &Journey) -> Option<(Rule, Option<u16>)> {
        let likely = match journey.conntrack {
            Some(Conntrack::Untracked) => [Standing::Untracked, Standing::Established, Standing::Invalid],
            _ => [Standing::Established, Standing::Invalid, Standing::Untracked],
        };
        let outside = |device| Way::Confirmation { device, bridged: false };
        let packet = came(journey, outside, Way::LoopbackConfirmation);
        for standing in likely {
            match predict_as(&self.rulesets, &packet, &self.machine, standing).end {
                End::Dropped { rule, port, .. } | End::Rejected { rule, port, .. } => return Some((rule, port)),
                End::Passes { .. } => {}
                // What is not understood may have done it.
                End::Maybe { .. } | End::Queued { .. } => return None,
            }
        }
        None
    }

    /// The rules and policies that may have dropped it, where that depends on what is not known; none where something else may have.
    pub(super) fn suspects_of_confirmation(&self, journey: &Journey) -> Vec<Suspect> {
        if matches!(journey.conntrack, Some(Conntrack::Untracked | Conntrack::Invalid)) {
            return Vec::new();
        }
        let outside = |device| Way::Confirmation { device, bridged: false };
        let found = suspects(&self.rulesets, &came(journey, outside, Way::LoopbackConfirmation), &self.machine);
        // Since Linux 6.7 only chains of nftables free there.
        let by_nft = journey.location.as_deref().is_some_and(|place| symbol(place) == "nft_do_chain");
        let fits = |suspect: &Suspect| !by_nft || suspect.rule.backend != Backend::IptablesLegacy;
        found.unwrap_or_default().into_iter().filter(fits).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Rules;
    use crate::output::samples;
    use crate::simulate::tests::{chain, machine, rule, rulesets};

    fn dropper(rules: &[String]) -> Option<u64> {
        let all = [&[chain("c", 1, "input", 0, "accept")], rules].concat();
        let rules = Rules::of(rulesets(&all.join(",")), machine());
        rules.dropper(&samples::healthy().journey).and_then(|(rule, _)| rule.handle)
    }

    #[test]
    fn a_rule_for_invalid_packets_is_named_only_where_nothing_else_can_have_done_it() {
        let state = |which: &str| {
            format!(r#"{{"match": {{"op": "in", "left": {{"ct": {{"key": "state"}}}}, "right": "{which}"}}}}, {{"drop": null}}"#)
        };
        let invalid = rule("c", 3, &state("invalid"));
        assert_eq!(dropper(std::slice::from_ref(&invalid)), Some(3));
        assert_eq!(dropper(&[rule("c", 2, &state("established")), invalid.clone()]), Some(2));
        let strange = rule("c", 2, r#"{"something": "new"}, {"drop": null}"#);
        assert_eq!(dropper(&[strange, invalid]), None);
    }
}
