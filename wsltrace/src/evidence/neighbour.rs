//! Why a neighbour's hardware address was not learned: a rule keeps this machine's question from getting out, or the answer from coming
//! in; or the neighbour is there, in a namespace that is watched, and does not answer: for a rule, a setting or its interface. Rules and
//! settings as they are now are followed, so this proves nothing.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::around::{Around, Stands};
use super::gather::Gatherer;
use super::policy::{self, Packet};
use super::simulated::Rules;
use super::sysctls::{self, arp_ignore};
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Astray, Evidence, OwnAddress, Rule, routes, way};
use crate::journey::{Journey, Stage};
use crate::kernel::addresses::list_addresses;
use crate::simulate::{End, Port, Prediction, Search, Suspect, predict_search, stopping};

/// A neighbour that is there, and does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deaf {
    /// The inode number of its namespace.
    pub netns: u32,
    /// The words before a command that run it there.
    pub entrance: Option<String>,
    /// Its interface behind which the question came.
    pub device: String,
    /// Why, as far as that is known.
    pub why: Deafness,
}

/// Why a neighbour does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Deafness {
    /// Its interface is switched off.
    SwitchedOff,
    /// Its interface neither asks for hardware addresses nor answers who does (`NOARP`).
    NoArp,
    /// These settings of its namespace have it answer nobody who asks for this address, with their values.
    Ignores {
        /// Names as `sysctl` writes them.
        settings: Vec<(String, String)>,
    },
    /// Its routing does not take the address for its own, and who has not asks in vain. Only ARP goes by that.
    Astray {
        /// What is missing there.
        missing: Astray,
        /// The interface that has the address.
        device: String,
    },
    /// A rule or policy of its namespace drops the question, or the answer.
    Drops {
        /// Which.
        rule: Rule,
        /// Whether it is certain by these rules that it does; otherwise it is the only one that may.
        certain: bool,
    },
    /// It is not known. Rules of these chains, here and there, decide about such questions by what is not known.
    Unknown {
        /// Family, table and chain of each.
        undecided: Vec<String>,
    },
}

/// A rule of this machine's own that keeps it from learning a neighbour's hardware address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unheard {
    /// The rule or policy.
    pub rule: Rule,
    /// Whether it is certain by the rules that it does; otherwise it is the only one that may, and the neighbour is there.
    pub certain: bool,
}

/// What rules do with a search.
enum Searched {
    Stopped(Rule),
    /// The only one that may stop it.
    Suspected(Rule),
    /// What decides about it.
    Undecided(Vec<String>),
}

impl Gatherer {
    /// Why a packet waited for a neighbour in vain.
    pub(super) fn add_search(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let last = journey.died_at.or_else(|| journey.stages.last().map(|visit| visit.stage));
        let in_vain = last == Some(Stage::Neighbour) && evidence.rule.is_none();
        let Some((whom, device)) = way::waited_for(journey).filter(|_| in_vain) else { return };
        let (neighbour, here) = (evidence.gateway.unwrap_or(whom), journey.last_netns());
        let stands = self.lend_around(here, |_, around| (around.stands(device, neighbour), port(around, device)));
        let (stands, port) = stands.unwrap_or_default();
        let search = Search { whom: neighbour, asker: None, device: Some(device.to_owned()), port, own: true };
        let mut undecided = match self.watched.get_mut(&here).and_then(|watched| watched.searched(search.clone())) {
            Some(Searched::Stopped(rule)) => {
                evidence.unheard = Some(Unheard { rule, certain: true });
                return;
            }
            // That the neighbour is gone is likelier where nobody that is seen has its address.
            Some(Searched::Suspected(rule)) if stands.is_some() => {
                evidence.unheard = Some(Unheard { rule, certain: false });
                return;
            }
            Some(Searched::Undecided(places)) => places,
            _ => Vec::new(),
        };
        let Some(stands) = stands else { return };
        let asker = self.watched.get_mut(&here).and_then(|watched| watched.asker(&search));
        let Some(watched) = self.watched.get_mut(&stands.netns) else { return };
        let why = watched.deafness(neighbour, asker, &stands).unwrap_or_else(|places| {
            undecided.extend(places);
            Deafness::Unknown { undecided }
        });
        let entrance = watched.entrance.get(|| Ok(watched.netns.entrance())).or_told(stands.netns, "look for processes");
        let entrance = entrance.cloned().flatten();
        evidence.deaf = Some(Deaf { netns: stands.netns, entrance, device: stands.device, why });
    }
}

/// The port of a bridge by which it searches, where it has but one.
fn port(around: &Around, device: &str) -> Port {
    let Some(mut ports) = around.ports(device) else { return Port::NoBridge };
    match (ports.next(), ports.next()) {
        (Some(port), None) => Port::Named(port.name.clone()),
        _ => Port::Any,
    }
}

impl Watched {
    fn searched(&mut self, search: Search) -> Option<Searched> {
        let inum = self.netns.inum();
        let own = self.addresses.get(|| list_addresses(&self.netns)).or_told(inum, "list the addresses")?;
        let asker = if search.own { search.asker.or_else(|| asker(own, &search)) } else { search.asker };
        let rules = self.rules()?;
        searched(rules, &Search { asker, ..search })
    }

    /// The address by which this namespace asks.
    fn asker(&mut self, search: &Search) -> Option<IpAddr> {
        let own = self.addresses.get(|| list_addresses(&self.netns)).or_told(self.netns.inum(), "list the addresses")?;
        asker(own, search)
    }

    /// What keeps the kernel from taking an address that it has for its own, when it is asked for the address's hardware by ARP
    /// (`arp_process` answers for what `ip_route_input_noref` calls local; 6.18). IPv6 looks at the addresses.
    fn astray(&mut self, neighbour: IpAddr, asker: Option<IpAddr>, came_by: &str) -> Option<Deafness> {
        let inum = self.netns.inum();
        let own = self.addresses.get(|| list_addresses(&self.netns)).or_told(inum, "list the addresses")?;
        let device = own.iter().find(|own| own.address == neighbour)?.interface.clone();
        let packet = Packet { from: asker?, to: neighbour, came_by, ports: (0, 0) };
        let rules = policy::Rules::read(&self.netns, neighbour).or_told(inum, "read the rules of routing")?;
        if !rules.lead_to_local(&packet) {
            return Some(Deafness::Astray { missing: Astray::NoRule, device });
        }
        let is_local = routes::is_local(&self.netns, neighbour).or_told(inum, "read the routes")?;
        (!is_local).then_some(Deafness::Astray { missing: Astray::NoRoute, device })
    }

    /// Why the neighbour that stands here does not answer; else what decides about such questions.
    fn deafness(&mut self, neighbour: IpAddr, asker: Option<IpAddr>, stands: &Stands) -> Result<Deafness, Vec<String>> {
        if !stands.up {
            return Ok(Deafness::SwitchedOff);
        }
        if stands.no_arp {
            return Ok(Deafness::NoArp);
        }
        if neighbour.is_ipv4() {
            let read = sysctls::of_arp(&self.netns, std::slice::from_ref(&stands.device));
            let settings = read.or_told(self.netns.inum(), "read the settings").unwrap_or_default();
            let settings = ignoring(&settings, &stands.device, stands.has);
            if !settings.is_empty() {
                return Ok(Deafness::Ignores { settings });
            }
            if let Some(astray) = self.astray(neighbour, asker, &stands.device) {
                return Ok(astray);
            }
        }
        let (device, port) = (Some(stands.device.clone()), stands.port.clone().map_or(Port::NoBridge, Port::Named));
        match self.searched(Search { whom: neighbour, asker: None, device, port, own: false }) {
            Some(Searched::Stopped(rule)) => Ok(Deafness::Drops { rule, certain: true }),
            Some(Searched::Suspected(rule)) => Ok(Deafness::Drops { rule, certain: false }),
            Some(Searched::Undecided(places)) => Err(places),
            None => Err(Vec::new()),
        }
    }
}

/// The settings that have an interface answer nobody who asks for an address, which is its own (`has`) or another one's.
pub(crate) fn ignoring(settings: &[(String, String)], device: &str, has: bool) -> Vec<(String, String)> {
    // linux/Documentation/networking/ip-sysctl.rst: the stricter of the two counts; 1 and 2 leave out addresses of other interfaces.
    let refuses = |value: &str| value == "8" || !has && matches!(value, "1" | "2");
    let named = ["all", device].map(arp_ignore);
    settings.iter().filter(|(name, value)| named.contains(name) && refuses(value)).cloned().collect()
}

/// The address by which a question is asked, where the device has but one in the neighbour's network.
fn asker(own: &[OwnAddress], search: &Search) -> Option<IpAddr> {
    let fits = |own: &&OwnAddress| Some(&own.interface) == search.device.as_ref() && own.covers(search.whom);
    let mut fitting = own.iter().filter(fits);
    fitting.next().map(|own| own.address).filter(|_| fitting.next().is_none())
}

fn searched(rules: &Rules, search: &Search) -> Option<Searched> {
    let predictions = predict_search(&rules.rulesets, search, &rules.machine);
    let dropped = predictions.iter().find_map(|prediction| match &prediction.end {
        End::Dropped { rule, .. } | End::Rejected { rule, .. } => Some(rule.clone()),
        _ => None,
    });
    if let Some(rule) = dropped {
        return Some(Searched::Stopped(rule));
    }
    let undecided: Vec<String> = predictions.iter().flat_map(undecided).collect();
    if undecided.is_empty() {
        return None;
    }
    match suspects(&predictions).as_deref() {
        Some([only]) => Some(Searched::Suspected(only.rule.clone())),
        _ => Some(Searched::Undecided(undecided)),
    }
}

/// Where it is decided by what is not known.
fn undecided(prediction: &Prediction) -> Vec<String> {
    let End::Maybe { because, .. } = &prediction.end else { return Vec::new() };
    let mut places: Vec<String> = because.iter().map(|because| because.place.clone()).filter(|place| !place.is_empty()).collect();
    places.dedup();
    places
}

/// The rules that may stop one of the two; `None` where something else may.
fn suspects(predictions: &[Prediction]) -> Option<Vec<Suspect>> {
    let ends = predictions.iter().map(Prediction::ends).collect::<Option<Vec<_>>>()?;
    stopping(ends.into_iter().flatten().cloned().map(Some))
}

#[cfg(test)]
mod tests {
    use super::{Port, Rules, Search, Searched, ignoring, searched};
    use crate::output::samples::ip;
    use crate::simulate::tests::{chain, machine, rule, rulesets};

    const DROP: &str = r#"{"drop": null}"#;
    const ACCEPT: &str = r#"{"accept": null}"#;

    fn of(left: &str, right: &str, then: &str) -> String {
        format!(r#"{{"match": {{"op": "==", "left": {left}, "right": {right}}}}}, {then}"#)
    }

    fn arp(field: &str, value: &str) -> String {
        of(&format!(r#"{{"payload": {{"protocol": "arp", "field": "{field}"}}}}"#), &format!(r#""{value}""#), DROP)
    }

    /// What is said of a chain of this family, at the hook, with these rules: `drop` or `maybe` with the rule's handle.
    fn said((family, hook, policy): (&str, &str, &str), rules: &[&str], search: &Search) -> String {
        let rules = rules.iter().zip(2..).map(|(text, handle)| rule("c", handle, text));
        let device = r#""dev": "veth0", "hook""#;
        let all: Vec<String> = std::iter::once(chain("c", 1, hook, 0, policy)).chain(rules).collect();
        let mut all = all.join(",").replace("\"inet\"", &format!("\"{family}\""));
        if family == "netdev" {
            all = all.replace("\"hook\"", device);
        }
        let rules = Rules::of(rulesets(&all), machine());
        let handle = |rule: &super::Rule| rule.handle.map_or("policy".to_owned(), |handle| handle.to_string());
        match searched(&rules, search) {
            None => "pass".to_owned(),
            Some(Searched::Stopped(rule)) => format!("drop {}", handle(&rule)),
            Some(Searched::Suspected(rule)) => format!("maybe {}", handle(&rule)),
            Some(Searched::Undecided(places)) => format!("undecided {}", places.join(", ")),
        }
    }

    /// From docker0 with the port veth0, for the container with this address.
    fn asks(whom: &str) -> Search {
        let (device, port) = (Some("docker0".to_owned()), Port::Named("veth0".to_owned()));
        Search { whom: ip(whom), asker: Some(ip("172.17.0.1")), device, port, own: true }
    }

    #[test]
    fn what_a_rule_asks_of_arp_is_followed() {
        let at = |hook: &str, rule: &str| said(("arp", hook, "accept"), &[rule], &asks("172.17.0.2"));
        assert_eq!([at("output", &arp("operation", "request")), at("output", &arp("operation", "reply"))], ["drop 2", "pass"]);
        assert_eq!([at("input", &arp("operation", "request")), at("input", &arp("operation", "reply"))], ["pass", "drop 2"]);
        assert_eq!(
            [at("output", &arp("daddr ip", "172.17.0.2")), at("output", &arp("daddr ip", "172.17.0.3"))],
            ["drop 2", "pass"]
        );
        assert_eq!(
            [at("input", &arp("saddr ip", "172.17.0.2")), at("input", &arp("daddr ip", "172.17.0.2"))],
            ["drop 2", "pass"]
        );
        let iif = |name: &str| of(r#"{"meta": {"key": "iifname"}}"#, &format!(r#""{name}""#), DROP);
        assert_eq!([at("input", &iif("docker0")), at("input", &iif("eth0"))], ["drop 2", "pass"]);
        assert_eq!(at("input", &of(r#"{"meta": {"key": "length"}}"#, "28", DROP)), "maybe 2");
        assert_eq!(
            said(("arp", "output", "drop"), &[&arp("operation", "reply").replace(DROP, ACCEPT)], &asks("172.17.0.2")),
            "drop policy"
        );
        // Who is asked gets the question, and sends the answer.
        let asked = Search { device: Some("eth0".to_owned()), port: Port::NoBridge, own: false, ..asks("172.17.0.2") };
        let at = |hook: &str, rule: &str| said(("arp", hook, "accept"), &[rule], &asked);
        assert_eq!([at("output", &arp("operation", "request")), at("input", &arp("operation", "request"))], ["pass", "drop 2"]);
    }

    #[test]
    fn bridges_and_their_ports_are_passed_as_well() {
        let at = |hook: &str, rule: &str, whom: &str| said(("bridge", hook, "accept"), &[rule], &asks(whom));
        let ether = |kind: &str| of(r#"{"meta": {"key": "protocol"}}"#, &format!(r#""{kind}""#), DROP);
        for hook in ["output", "postrouting", "prerouting", "input"] {
            assert_eq!(at(hook, &ether("arp"), "172.17.0.2"), "drop 2", "{hook}");
            assert_eq!([at(hook, &ether("ip"), "172.17.0.2"), at(hook, &ether("arp"), "fd00::9")], ["pass", "pass"], "{hook}");
            assert_eq!(at(hook, &ether("ip6"), "fd00::9"), "drop 2", "{hook}");
        }
        assert_eq!(at("forward", &ether("arp"), "172.17.0.2"), "pass");
        let oif = |name: &str| of(r#"{"meta": {"key": "oifname"}}"#, &format!(r#""{name}""#), DROP);
        assert_eq!([at("output", &oif("veth0"), "172.17.0.2"), at("output", &oif("veth1"), "172.17.0.2")], ["drop 2", "pass"]);
        let tcp = of(r#"{"payload": {"protocol": "tcp", "field": "dport"}}"#, "80", DROP);
        assert_eq!([at("output", &tcp, "172.17.0.2"), at("output", &tcp, "fd00::9")], ["pass", "pass"]);
        // Of several ports it is not known which one it is.
        let search = Search { port: Port::Any, ..asks("172.17.0.2") };
        assert_eq!(said(("bridge", "output", "accept"), &[&oif("veth0")], &search), "maybe 2");
        let alone = Search { port: Port::NoBridge, ..asks("172.17.0.2") };
        assert_eq!(said(("bridge", "output", "drop"), &[], &alone), "pass", "it is no bridge");
        assert_eq!(said(("netdev", "ingress", "drop"), &[&ether("arp").replace(DROP, ACCEPT)], &asks("172.17.0.2")), "pass");
    }

    #[test]
    fn a_policy_without_a_word_of_neighbours_keeps_this_machine_from_hearing_them() {
        let tcp = of(r#"{"meta": {"key": "l4proto"}}"#, r#""tcp""#, ACCEPT);
        let icmp = of(r#"{"meta": {"key": "l4proto"}}"#, r#""ipv6-icmp""#, ACCEPT);
        let eth0 = |whom: &str, own: bool| Search {
            whom: ip(whom),
            asker: None,
            device: Some("eth0".to_owned()),
            port: Port::NoBridge,
            own,
        };
        for (hook, own) in [("input", true), ("output", true), ("input", false), ("output", false)] {
            let found = |policy: &str, rule: &str, whom: &str| said(("inet", hook, policy), &[rule], &eth0(whom, own));
            assert_eq!(found("drop", &tcp, "fd00::9"), "drop policy", "{hook}");
            assert_eq!([found("drop", &icmp, "fd00::9"), found("accept", &tcp, "fd00::9")], ["pass", "pass"], "{hook}");
            assert_eq!(found("drop", &tcp, "10.0.0.9"), "pass", "{hook}: ARP has rules of its own");
        }
        let found = |hook: &str, policy: &str, rules: &[&str]| said(("inet", hook, policy), rules, &eth0("fd00::9", true));
        assert_eq!([found("forward", "drop", &[]), found("input", "accept", &[DROP])], ["pass", "drop 2"]);
        // What is not understood may let it pass.
        let kind = of(r#"{"payload": {"protocol": "icmpv6", "field": "type"}}"#, r#""nd-neighbor-advert""#, ACCEPT);
        assert_eq!(found("input", "drop", &[&kind]), "maybe policy");
    }

    #[test]
    fn of_two_settings_the_stricter_counts() {
        let set = |all: &str, own: &str| {
            [("net.ipv4.conf.all.arp_ignore", all), ("net.ipv4.conf.eth0/5.arp_ignore", own)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let count = |all, own, has| ignoring(&set(all, own), "eth0.5", has).len();
        assert_eq!([count("0", "0", true), count("8", "0", true), count("0", "8", false), count("8", "8", true)], [0, 1, 1, 2]);
        assert_eq!([count("1", "0", true), count("1", "0", false), count("0", "2", false)], [0, 1, 1]);
        assert_eq!(ignoring(&set("0", "8"), "eth1", true), []);
    }
}
