//! Which rule of this machine keeps it from learning a neighbour's hardware address: its own question dies on the way out, or the answer
//! on the way in. The rules as they are now are followed, so this proves nothing.

use std::net::IpAddr;

use super::simulated::Rules;
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Rule, way};
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

fn unheard(rules: &Rules, whom: IpAddr, device: &str) -> Option<Rule> {
    if whom.is_ipv4() {
        return rules.arp_dropper();
    }
    let device = Some(device.to_owned());
    let ways = [Way::Solicitation { device: device.clone(), own: true }, Way::Advertisement { device, own: false }];
    let packet = |way| Packet { way, source: None, source_port: None, destination: whom, destination_port: 0, ecn: None };
    ways.into_iter().find_map(|way| rules.dropper_of(&packet(way)))
}

#[cfg(test)]
mod tests {
    use super::{Rules, unheard};
    use crate::output::samples::ip;
    use crate::simulate::tests::{chain, machine, rule, rulesets};

    fn found(hook: &str, policy: &str, rules: &[&str], whom: &str) -> Option<bool> {
        let rules = rules.iter().zip(2..).map(|(text, handle)| rule("c", handle, text));
        let all: Vec<String> = std::iter::once(chain("c", 1, hook, 0, policy)).chain(rules).collect();
        let rules = Rules::of(rulesets(&all.join(",")), machine());
        unheard(&rules, ip(whom), "eth0").map(|rule| rule.handle.is_none())
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
