//! The marks that rules may give to a SYN, and to answers that are made here, by which `ip rule` would lead them elsewhere.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use super::packet::{Machine, Packet, Way};
use super::read::Rulesets;
use super::ruleset::{Chain, Hook, Mark, Statement, Verdict};
use super::walk;

/// The marks that may decide about the way of a server's answers, where its sockets give them one of these: those of the answers, and
/// where the kernel goes by the SYN's mark as well, those of the SYN. `None` where they are not known.
pub fn marks_back(
    rulesets: &Rulesets,
    syn: &Packet,
    machine: &Machine,
    of_sockets: &[u32],
    by_syn: bool,
) -> Option<BTreeSet<u32>> {
    let Way::Outside { device, .. } = &syn.way else { return None };
    let mut marks: BTreeSet<u32> = of_sockets.iter().copied().collect();
    if rulesets.may_mark_answers() {
        // Rules may change a socket's mark, and see the ports that a SYN was led to.
        if rulesets.may_lead_on() || marks.iter().any(|mark| *mark != 0) {
            return None;
        }
        let answer = Packet { way: Way::Answer { device: device.clone() }, ..syn.clone() };
        marks.extend(walk::marks(rulesets, &answer, machine)?);
    }
    if by_syn {
        marks.extend(walk::marks(rulesets, syn, machine)?);
    }
    // What comes in without one is looked up to see whether its answer would leave by the same interface (rp_filter).
    marks.insert(0);
    Some(marks)
}

/// The marks that a SYN which is led on to `target`, and the answer from there, may have when their ways are chosen; `None` where they are
/// not known.
pub fn marks_through(rulesets: &Rulesets, syn: &Packet, machine: &Machine, target: IpAddr) -> Option<BTreeSet<u32>> {
    let Way::Outside { device, .. } = &syn.way else { return None };
    let way = Way::ForwardedAnswer { device: device.clone() };
    let mut marks = walk::marks(rulesets, syn, machine)?;
    for port in rulesets.ports_to(target, syn.destination_port) {
        let answer = Packet { way: way.clone(), destination: target, destination_port: port?, ..syn.clone() };
        marks.extend(walk::marks(rulesets, &answer, machine)?);
    }
    // As which a packet comes in that is looked at for its way back (rp_filter).
    marks.insert(0);
    Some(marks)
}

impl Rulesets {
    /// Whether a rule that answers of this machine meet before their way is chosen anew sets a mark, or may do so; also where not all
    /// rules could be read. Chains of NAT do not see answers.
    fn may_mark_answers(&self) -> bool {
        let of_output = |chain: &&Chain| chain.base.as_ref().is_some_and(|base| base.hook == Hook::Output && !base.nat);
        let mut ahead: Vec<&Chain> = self.chains.all().map(AsRef::as_ref).filter(of_output).collect();
        let mut seen = HashSet::new();
        while let Some(chain) = ahead.pop() {
            if !seen.insert(&chain.place) {
                continue;
            }
            for statement in chain.rules.iter().flat_map(|line| &line.statements) {
                let targets: Vec<&String> = match statement {
                    Statement::SetMark { mark: Mark::Packet, .. }
                    | Statement::Anything(_)
                    | Statement::Verdicts { changes: true, .. } => return true,
                    Statement::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => vec![name],
                    Statement::Verdicts { map, .. } => map.iter().filter_map(|(_, verdict)| target(verdict)).collect(),
                    _ => Vec::new(),
                };
                for name in targets {
                    match self.chains.beside(&chain.place, name) {
                        Some(chain) => ahead.push(chain),
                        // A target that is no chain may do anything.
                        None => return true,
                    }
                }
            }
        }
        !self.unread.is_empty()
    }
}

fn target(verdict: &Verdict) -> Option<&String> {
    match verdict {
        Verdict::Jump(name) | Verdict::Goto(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::marks_back;
    use crate::simulate::tests::{chain, machine, rule, rulesets, syn};

    const MARK: &str = r#"{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}"#;
    const SAVE: &str = r#"{"mangle": {"key": {"ct": {"key": "mark"}}, "value": 1}}"#;

    fn marks(objects: &[String]) -> bool {
        rulesets(&objects.join(",")).may_mark_answers()
    }

    #[test]
    fn only_what_answers_meet_marks_them() {
        let of = |hook: &str, text: &str| marks(&[chain("c", 1, hook, -150, "accept"), rule("c", 2, text)]);
        assert!(of("output", MARK));
        assert!(!of("prerouting", MARK) && !of("output", SAVE) && !of("postrouting", MARK));
        assert!(of("output", r#"{"something": "new"}"#));
        let nat = [chain("nat", 1, "output", -100, "accept"), rule("nat", 2, MARK)];
        assert!(!marks(&nat));
    }

    #[test]
    fn chains_are_followed() {
        let other = r#"{"chain": {"family": "inet", "table": "t", "name": "u", "handle": 2}}"#.to_owned();
        let by = |hook: &str, text: &str| {
            marks(&[chain("c", 1, hook, -150, "accept"), other.clone(), rule("c", 3, text), rule("u", 4, MARK)])
        };
        let jump = r#"{"jump": {"target": "u"}}"#;
        assert!(by("output", jump) && !by("input", jump) && !by("output", r#"{"accept": null}"#));
        let map = r#"{"vmap": {"key": {"meta": {"key": "oifname"}}, "data": {"set": [["eth0", {"goto": {"target": "u"}}]]}}}"#;
        assert!(by("output", map));
    }

    #[test]
    fn the_marks_of_the_packets_in_question_are_known() {
        let of = |hook: &str, text: &str, sockets: &[u32], by_syn: bool| {
            let rulesets = rulesets(&[chain("c", 1, hook, -150, "accept"), rule("c", 2, text)].join(","));
            marks_back(&rulesets, &syn(), &machine(), sockets, by_syn).map(|marks| marks.into_iter().collect::<Vec<_>>())
        };
        let port = |field: &str, port: u16| {
            let payload = format!(r#"{{"payload": {{"protocol": "tcp", "field": "{field}"}}}}"#);
            format!(r#"{{"match": {{"op": "==", "left": {payload}, "right": {port}}}}}, {MARK}"#)
        };
        assert_eq!(of("output", &port("sport", 8080), &[0], false), Some(vec![0, 1]));
        assert_eq!(of("output", &port("sport", 9090), &[0], false), Some(vec![0]));
        assert_eq!(of("output", &port("sport", 9090), &[0, 7], false), None);
        assert_eq!(of("prerouting", MARK, &[0, 7], false), Some(vec![0, 7]));
        assert_eq!(of("prerouting", MARK, &[0], true), Some(vec![0, 1]));
        // As wg-quick's rules, which are about UDP alone.
        let udp = r#"{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}"#;
        assert_eq!(of("prerouting", &format!("{udp}, {MARK}"), &[0], true), Some(vec![0]));
        assert_eq!(of("prerouting", r#"{"something": "new"}"#, &[0], true), None);
    }
}
