//! Which rule keeps this machine from learning a neighbour's hardware address: its own question dies on the way out, or the answer on the
//! way in; or the same in the namespace of a container that has the address. The rules as they are now are followed, so this proves
//! nothing.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::gather::Gatherer;
use super::simulated::Rules;
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Rule, addresses, way};
use crate::journey::Journey;
use crate::simulate::{Packet, Way};

impl Watched {
    /// The rule behind a packet that waited for a neighbour in vain.
    pub(super) fn add_unheard(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let Some((whom, device)) = way::waited_for(journey) else { return };
        let rules = self.rules.get(|| Rules::read(&self.netns)).or_told(self.netns.inum(), "read the firewall rules");
        evidence.unheard = rules.and_then(|rules| unheard(rules, whom, device));
    }
}

/// A rule of the neighbour's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deaf {
    /// The inode number of that namespace.
    pub netns: u32,
    /// The words before a command that run it there.
    pub entrance: Option<String>,
    /// The rule or policy.
    pub rule: Rule,
}

impl Gatherer {
    /// The rule of a namespace which has the address that a packet waited for, where that one drops the question or its answer.
    pub(super) fn add_deaf(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let Some((whom, _)) = way::waited_for(journey).filter(|_| evidence.rule.is_none() && evidence.unheard.is_none()) else {
            return;
        };
        let (neighbour, here) = (evidence.gateway.unwrap_or(whom), journey.last_netns());
        evidence.deaf = self.watched.iter_mut().filter(|(inum, _)| **inum != here).find_map(|(inum, watched)| {
            let own = watched.addresses.get(|| addresses::of(&watched.netns)).or_told(*inum, "list the addresses")?;
            let own = own.iter().find(|own| own.address == neighbour)?;
            let rules = watched.rules.get(|| Rules::read(&watched.netns)).or_told(*inum, "read the firewall rules")?;
            let rule = deaf(rules, neighbour, &own.interface)?;
            let entrance = watched.entrance.get(|| Ok(watched.netns.entrance())).or_told(*inum, "look for processes");
            Some(Deaf { netns: *inum, entrance: entrance.cloned().flatten(), rule })
        });
    }
}

/// What keeps a namespace from hearing the question for its own address, or from answering.
fn deaf(rules: &Rules, own: IpAddr, device: &str) -> Option<Rule> {
    dropper(rules, own, device, |device| {
        [Way::Solicitation { device: device.clone(), own: false }, Way::Advertisement { device, own: true }]
    })
}

fn unheard(rules: &Rules, whom: IpAddr, device: &str) -> Option<Rule> {
    dropper(rules, whom, device, |device| {
        [Way::Solicitation { device: device.clone(), own: true }, Way::Advertisement { device, own: false }]
    })
}

fn dropper(rules: &Rules, whom: IpAddr, device: &str, ways: impl FnOnce(Option<String>) -> [Way; 2]) -> Option<Rule> {
    if whom.is_ipv4() {
        return rules.arp_dropper();
    }
    let ways = ways(Some(device.to_owned()));
    let packet = |way| Packet { way, source: None, source_port: None, destination: whom, destination_port: 0, ecn: None };
    ways.into_iter().find_map(|way| rules.dropper_of(&packet(way)))
}

#[cfg(test)]
mod tests {
    use super::{Rules, deaf, unheard};
    use crate::output::samples::ip;
    use crate::simulate::tests::{chain, machine, rule, rulesets};

    fn found(hook: &str, policy: &str, rules: &[&str], whom: &str) -> Option<bool> {
        let rules = made(hook, policy, rules);
        let found = unheard(&rules, ip(whom), "eth0").map(|rule| rule.handle.is_none());
        // Of a rule that looks at no type, question and answer are the same, whoever sends them.
        assert_eq!(deaf(&rules, ip(whom), "eth0").map(|rule| rule.handle.is_none()), found, "{hook}");
        found
    }

    fn made(hook: &str, policy: &str, rules: &[&str]) -> Rules {
        let rules = rules.iter().zip(2..).map(|(text, handle)| rule("c", handle, text));
        let all: Vec<String> = std::iter::once(chain("c", 1, hook, 0, policy)).chain(rules).collect();
        Rules::of(rulesets(&all.join(",")), machine())
    }

    #[test]
    fn a_policy_without_a_word_of_neighbours_keeps_this_machine_from_hearing_them() {
        const ACCEPT: &str = r#"{"accept": null}"#;
        let of = |left: &str, right: &str| format!(r#"{{"match": {{"op": "==", "left": {left}, "right": {right}}}}}, {ACCEPT}"#);
        let tcp = of(r#"{"meta": {"key": "l4proto"}}"#, r#""tcp""#);
        let icmp = of(r#"{"meta": {"key": "l4proto"}}"#, r#""ipv6-icmp""#);
        for hook in ["input", "output"] {
            assert_eq!(found(hook, "drop", &[&tcp], "fd00::9"), Some(true), "{hook}");
            assert_eq!(found(hook, "drop", &[&tcp, &icmp], "fd00::9"), None, "{hook}");
            assert_eq!(found(hook, "accept", &[&tcp], "fd00::9"), None, "{hook}");
            assert_eq!(found(hook, "drop", &[&tcp], "10.0.0.9"), None, "{hook}: ARP has rules of its own");
        }
        assert_eq!(found("forward", "drop", &[], "fd00::9"), None);
        assert_eq!(found("input", "accept", &[r#"{"drop": null}"#], "fd00::9"), Some(false));
        // What is not understood may let it pass.
        let kind = of(r#"{"payload": {"protocol": "icmpv6", "field": "type"}}"#, r#""nd-neighbor-advert""#);
        assert_eq!(found("input", "drop", &[&kind], "fd00::9"), None);
    }
}
