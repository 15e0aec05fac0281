//! Every rule that may stop a packet, where what is not known decides whether it does: of a packet that died, one of them has done it.

use super::End;
use super::packet::{Machine, Packet, Part, Standing};
use super::read::Rulesets;
use super::ruleset::{Base, Hook};
use super::walk::all_ends;
use crate::evidence::Rule;

/// A rule or policy that may stop a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Which.
    pub rule: Rule,
    /// The destination port that the packet has there, where it is one.
    pub port: Option<u16>,
    /// Whether it is on its way through this machine there.
    pub forward: bool,
}

/// The rules and policies that may drop or reject a packet which follows a SYN; `None` where something else may stop it: rules that were not
/// read or not understood, a queue, or what depends on connection tracking's seeing all.
pub fn suspects(rulesets: &Rulesets, packet: &Packet, machine: &Machine) -> Option<Vec<Suspect>> {
    let chains = &rulesets.chains;
    if !rulesets.unread.is_empty() || chains.bridges || chains.exempts(packet.family()) {
        return None;
    }
    stopping(all_ends(rulesets, packet, machine, Standing::Established).into_iter().map(|(end, _)| end))
}

/// The rules and policies of the hook of this name that may drop or reject a SYN, or the answer to one, which comes so far; `None` as above.
/// What stands at another hook as well, in a chain that both jump to, is left out.
pub fn suspects_at(rulesets: &Rulesets, packet: &Packet, machine: &Machine, hook: &str) -> Option<Vec<Suspect>> {
    let hook = Hook::named(hook)?;
    let exempt = packet.way.part() != Part::Syn && rulesets.chains.exempts(packet.family());
    if !rulesets.unread.is_empty() || exempt {
        return None;
    }
    let met = |rulesets: &Rulesets| {
        stopping(all_ends(rulesets, packet, machine, Standing::Established).into_iter().map(|(end, _)| end))
    };
    let at_others = |base: &Option<Base>| base.as_ref().is_none_or(|base| base.hook != hook);
    let without = Rulesets { chains: rulesets.chains.keeping(|chain| at_others(&chain.base)), ..rulesets.clone() };
    let (all, elsewhere) = (met(rulesets)?, met(&without)?);
    Some(all.into_iter().filter(|suspect| !elsewhere.iter().any(|other| other.rule.is(&suspect.rule))).collect())
}

/// The rules and policies that stop a packet at these ends, each once; `None` where one of them is not known, or is no rule's.
pub(crate) fn stopping(ends: impl IntoIterator<Item = Option<End>>) -> Option<Vec<Suspect>> {
    let mut found: Vec<Suspect> = Vec::new();
    for end in ends {
        match end? {
            End::Dropped { rule, port, forward, .. } | End::Rejected { rule, port, forward, .. } => {
                if !found.iter().any(|known| known.rule.is(&rule)) {
                    found.push(Suspect { rule, port, forward });
                }
            }
            End::Passes { .. } => {}
            End::Queued { .. } | End::Maybe { .. } => return None,
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::{Packet, suspects, suspects_at};
    use crate::simulate::Way;
    use crate::simulate::tests::{chain, machine, rule, rulesets, syn};

    const DROP: &str = r#"{"drop": null}"#;

    fn of(key: &str) -> String {
        format!(r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "{key}"}}}}, "right": 0}}}}, {DROP}"#)
    }

    fn found(way: Way, rules: &[String]) -> Option<Vec<u64>> {
        let all = [&[chain("c", 1, "input", 0, "accept")], rules].concat();
        let found = suspects(&rulesets(&all.join(",")), &Packet { way, ..syn() }, &machine())?;
        Some(found.iter().map(|suspect| suspect.rule.handle.unwrap_or_default()).collect())
    }

    #[test]
    fn of_a_hook_only_what_hangs_there_is_suspected() {
        let port = |number: u16| {
            let field = r#"{"payload": {"protocol": "tcp", "field": "dport"}}"#;
            format!(r#"{{"match": {{"op": "==", "left": {field}, "right": {number}}}}}, {DROP}"#)
        };
        let at = |hook: &str, rules: &[String]| {
            let chains = [chain("p", 1, "prerouting", -300, "accept"), chain("i", 2, "input", 0, "accept")];
            let found = suspects_at(&rulesets(&[&chains, rules].concat().join(",")), &syn(), &machine(), hook)?;
            Some(found.iter().map(|suspect| suspect.rule.handle.unwrap_or_default()).collect::<Vec<_>>())
        };
        let asked = syn().destination_port;
        let may = of("cgroup");
        let rules = [rule("p", 3, &may), rule("i", 4, &port(9)), rule("i", 5, &port(asked)), rule("i", 6, DROP)];
        assert_eq!(at("input", &rules), Some(vec![5]));
        assert_eq!(at("prerouting", &rules), Some(vec![3]));
        assert_eq!(at("forward", &rules), Some(Vec::new()));
        // By these rules it does not come so far.
        assert_eq!(at("input", &[rule("p", 3, DROP), rule("i", 4, DROP)]), Some(Vec::new()));
        assert_eq!(at("input", &[rule("i", 3, r#"{"queue": {"num": 1}}"#), rule("i", 4, DROP)]), None);
        assert_eq!(at("nowhere", &rules), None);
    }

    fn confirmation() -> Way {
        Way::Confirmation { device: Some("eth0".to_owned()), bridged: false }
    }

    #[test]
    fn what_depends_on_the_socket_is_suspected_and_nothing_that_cannot_match() {
        let other =
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 9}}, {"drop": null}"#;
        let rules = [rule("c", 2, &of("cgroup")), rule("c", 3, other)];
        assert_eq!(found(confirmation(), &rules), Some(vec![2]));
        assert_eq!(found(confirmation(), &[rules.as_slice(), &[rule("c", 4, &of("skuid"))]].concat()), Some(vec![2, 4]));
        assert_eq!(found(confirmation(), &[]), Some(Vec::new()));
        // What stops all that comes so far is the last.
        let all = [rule("c", 2, &of("cgroup")), rule("c", 3, DROP), rule("c", 4, &of("skuid"))];
        assert_eq!(found(confirmation(), &all), Some(vec![2, 3]));
    }

    #[test]
    fn nobody_is_suspected_where_something_is_not_understood() {
        let rules = [rule("c", 2, &of("cgroup")), rule("c", 3, r#"{"something": "new"}"#)];
        assert_eq!(found(confirmation(), &rules), None);
        let queue = [rule("c", 2, &of("cgroup")), rule("c", 3, r#"{"queue": {"num": 0}}"#)];
        assert_eq!(found(confirmation(), &queue), None);
    }

    #[test]
    fn data_may_have_a_flag_more_than_what_confirms() {
        let pushed = r#"{"match": {"op": "==", "left": {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, "psh"]}, "right": "psh"}}, {"drop": null}"#;
        let rules = [rule("c", 2, pushed)];
        assert_eq!(found(confirmation(), &rules), Some(Vec::new()));
        assert_eq!(found(Way::Data { device: Some("eth0".to_owned()) }, &rules), Some(vec![2]));
        assert_eq!(found(Way::LoopbackData, &rules), Some(vec![2]));
    }
}
