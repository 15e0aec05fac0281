//! What stands between tc and the first place of the machine's own hooks: chains at the ingress of a device, those of the bridge that it is a
//! port of, and what hangs on PREROUTING before everything else. The kernel's trace may begin behind them.

use super::packet::{Machine, Packet, Standing};
use super::read::Rulesets;
use super::ruleset::{Chain, Hook};
use super::state::Layer;
use super::suspects::{Suspect, stopping};
use super::walk::ends_at;

/// The priority before which no program of ours can stand (`i32::MIN` is refused), as a number of nftables.
const FIRST: i64 = i32::MIN as i64;

/// The rules and policies there that may stop a packet which came in by this device; `None` where something else may.
pub fn behind_device(
    rulesets: &Rulesets,
    packet: &Packet,
    machine: &Machine,
    (device, is_port): (&str, bool),
) -> Option<Vec<Suspect>> {
    if !rulesets.unread.is_empty() {
        return None;
    }
    let early = Rulesets { chains: rulesets.chains.keeping(|chain| !is_late(chain)), ..rulesets.clone() };
    let of_bridge = [Hook::Prerouting, Hook::Input, Hook::Forward].map(|hook| (Layer::Bridge, hook));
    let hooks = [(Layer::Network, Hook::Ingress)]
        .into_iter()
        .chain(of_bridge.into_iter().filter(|_| is_port))
        .chain([(Layer::Network, Hook::Prerouting)]);
    // Each is asked as if those before it had let it pass.
    let ends = hooks.flat_map(|hook| ends_at(&early, packet, machine, hook, device, Standing::Established));
    stopping(ends.map(|(end, _)| end))
}

/// Whether it hangs on PREROUTING behind our first place there.
fn is_late(chain: &Chain) -> bool {
    let of_network = matches!(chain.place.family.as_str(), "inet" | "ip" | "ip6");
    of_network && chain.base.as_ref().is_some_and(|base| base.hook == Hook::Prerouting && base.priority > FIRST)
}

#[cfg(test)]
mod tests {
    use super::behind_device;
    use crate::simulate::tests::{address, chain, machine, rule, rulesets, syn};
    use crate::simulate::{Packet, Way};

    const DROP: &str = r#"{"drop": null}"#;

    fn port(field: &str, number: u16) -> String {
        format!(
            r#"{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "tcp", "field": "{field}"}}}}, "right": {number}}}}}, {DROP}"#
        )
    }

    /// The handles of what may stop this packet.
    fn found(family: &str, hook: &str, text: &str, packet: &Packet, is_port: bool) -> Option<Vec<u64>> {
        let priority = if (family, hook) == ("inet", "prerouting") { i64::from(i32::MIN) } else { 0 };
        let mut objects =
            [chain("c", 1, hook, priority, "accept"), rule("c", 2, text)].join(",").replace("\"inet\"", &format!("\"{family}\""));
        if family == "netdev" {
            objects = objects.replace("\"hook\"", r#""dev": "veth0", "hook""#);
        }
        let found = behind_device(&rulesets(&objects), packet, &machine(), ("veth0", is_port))?;
        Some(found.iter().filter_map(|suspect| suspect.rule.handle).collect())
    }

    fn answer() -> Packet {
        Packet { way: Way::ForwardedAnswer { device: None }, destination: address("172.17.0.2"), destination_port: 80, ..syn() }
    }

    #[test]
    fn chains_of_the_device_and_of_its_bridge_see_what_comes_in() {
        let of_answer = port("sport", 80);
        for (family, hook) in
            [("netdev", "ingress"), ("bridge", "prerouting"), ("bridge", "input"), ("bridge", "forward"), ("inet", "prerouting")]
        {
            assert_eq!(found(family, hook, &of_answer, &answer(), true), Some(vec![2]), "{family} {hook}");
            assert_eq!(found(family, hook, &port("sport", 81), &answer(), true), Some(vec![]), "{family} {hook}");
            assert_eq!(found(family, hook, &port("dport", 8080), &syn(), true), Some(vec![2]), "{family} {hook}");
        }
        assert_eq!(found("bridge", "input", &of_answer, &answer(), false), Some(vec![]), "it is no port of one");
        assert_eq!(found("inet", "input", &of_answer, &answer(), true), Some(vec![]), "that comes later");
        let late = [chain("c", 1, "prerouting", -300, "accept"), rule("c", 2, &of_answer)].join(",");
        let late = behind_device(&rulesets(&late), &answer(), &machine(), ("veth0", true));
        assert_eq!(late, Some(vec![]), "our first place comes before it");
        assert_eq!(found("bridge", "input", r#"{"something": "new"}"#, &answer(), true), None);
    }
}
