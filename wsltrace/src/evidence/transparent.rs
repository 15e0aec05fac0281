//! Transparent proxies (TPROXY): a rule chooses their socket, and gives the packet a mark; it is `ip rule` and a route that have the kernel
//! take such packets for this machine's, whoever they are for.

use std::io;

use serde::{Deserialize, Serialize};

use super::gather::Gatherer;
use super::policy::{Packet, Rules};
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Listener, Rule, routes, simulated};
use crate::journey::{Journey, Outcome, Stage};
use crate::simulate::{End, Goes, Way, predict};

/// Tables that `ip` itself has names for begin here, and WSL's own are below them.
const TABLES: std::ops::Range<u32> = 100..253;

/// A rule that gives packets to a transparent proxy which they do not come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unled {
    /// The rule.
    pub rule: Rule,
    /// A number of a routing table that is not in use.
    pub free_table: Option<u32>,
}

/// A rule that hands packets to a transparent proxy which did not take one. Where no transparent socket is there, nftables goes on as if the
/// rule did not match, and the kernel tells of nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassedProxy {
    /// The rule.
    pub rule: Rule,
    /// The proxy's port.
    pub port: u16,
    /// Who listens on it, without being transparent.
    pub listener: Option<Listener>,
}

impl Gatherer {
    /// The rule that would have handed a packet to a proxy which no socket took. By the rules as they are now.
    pub(super) fn add_passed_proxy(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let inum = journey.last_netns();
        if !journey.met_no_socket() {
            return;
        }
        let Some(watched) = self.watched.get_mut(&inum) else { return };
        let rules = watched.rules();
        let Some((port, rule)) = rules.filter(|rules| rules.hand_to_proxies).and_then(|rules| proxy_of(rules, journey)) else {
            return;
        };
        let Some(found) = watched.listeners(port, None).or_told(inum, "list the listeners") else { return };
        // One that is transparent by now, or may be, explains nothing.
        if found.iter().any(|found| found.transparent != Some(false)) {
            return;
        }
        let listener = self.all_with_owners(found).into_iter().next();
        evidence.passed_proxy = Some(PassedProxy { rule, port, listener });
    }
}

/// The proxy's port to which a rule hands the SYN of a journey if a transparent socket is there, and the rule.
fn proxy_of(rules: &simulated::Rules, journey: &Journey) -> Option<(u16, Rule)> {
    let packet = simulated::came(journey, |device| Way::Outside { device, bridged: false }, Way::Loopback);
    // It is not known of any proxy's socket, so nothing is certain.
    let End::Maybe { possible, .. } = predict(&rules.rulesets, &packet, &rules.machine).end else { return None };
    possible.into_iter().find_map(|end| match end {
        End::Passes { port: Some(port), translated_by: Some(rule), goes: Goes::Proxy, .. } => Some((port, rule)),
        _ => None,
    })
}

impl Watched {
    /// The rule that gave a packet to a transparent proxy, where routing has led it on or refused it, and takes no marked packet for this
    /// machine's.
    pub(super) fn add_unled(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let in_routing = journey.outcome == Outcome::Dropped && journey.died_at == Some(Stage::Routing);
        let led_on = in_routing || journey.outcome == Outcome::Forwarded;
        if !led_on || journey.netns != self.netns.inum() {
            return;
        }
        let Some(rule) = self.trace.as_mut().and_then(|trace| trace.proxying(journey)) else { return };
        evidence.unled = self.unled(journey, rule).or_told(self.netns.inum(), "read the routes").flatten();
    }

    /// The rule, where what its packets need is missing.
    fn unled(&self, journey: &Journey, rule: Rule) -> io::Result<Option<Unled>> {
        let flow = &journey.flow;
        let ports = (flow.source_port, flow.destination_port);
        let came_by = journey.entrance().unwrap_or_default();
        let packet = Packet { from: flow.source, to: flow.destination, came_by, ports };
        let rules = Rules::read(&self.netns, flow.destination)?;
        let all = self.netns.try_run(|| routes::all(flow.destination))?;
        if rules.take_marked(&packet, &all) {
            return Ok(None);
        }
        let is_free = |number: &u32| !rules.lead_to(*number) && !all.iter().any(|route| routes::table(route) == *number);
        Ok(Some(Unled { rule, free_table: TABLES.clone().find(is_free) }))
    }
}
