//! Where a packet is led that is not for this machine, or no longer: whether anybody is known to be there, which server it passes by,
//! and whether a rule of today sends it there or an old entry of connection tracking.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::routes::{self, Question};
use super::rules::{leads_on, one_sends_to, translating_rules};
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Gatherer, Listener, Rule, way};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::kernel::addresses::list_addresses;
use crate::wsl::takers;

/// What is known of the place that a packet is led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lead {
    /// The interface by which a packet for there leaves; `None` where no route leads there.
    pub leaves_by: Option<String>,
    /// Whether a network namespace that is watched has the address.
    pub owned: bool,
    /// Listeners that would take the packet, had it kept the destination that the client asked for.
    pub passed_by: Vec<Listener>,
    /// Whether a rule sends packets there; `None` where none had to, or the rules do not tell.
    pub sent_by_rule: Option<bool>,
    /// Where another rule would lead it, and who listens there, once the rule is gone that led it to where nobody is.
    #[serde(default)]
    pub otherwise: Option<(SocketAddr, Listener)>,
}

/// Whether a rule gave the packet another destination.
pub(super) fn is_led_elsewhere(journey: &Journey) -> bool {
    let asked = (journey.flow.destination, journey.flow.destination_port);
    journey.translated.is_some() && journey.last_destination() != asked
}

/// Whether it is worth asking where a packet was led.
pub(super) fn is_worth_asking(journey: &Journey) -> bool {
    let came_to_nothing = !matches!(journey.outcome, Outcome::Answered | Outcome::Challenged | Outcome::Ignored);
    came_to_nothing && (is_led_elsewhere(journey) || is_for_nobody(journey))
}

/// Whether routing found the SYN to be for none of this machine's addresses, as it came.
pub(super) fn is_for_nobody(journey: &Journey) -> bool {
    let freed_by = journey.location.as_deref().map(symbol);
    let in_routing = journey.died_at == Some(Stage::Routing);
    journey.translated.is_none() && in_routing && matches!(freed_by, Some("ip_error" | "ip6_forward" | "ip6_pkt_discard"))
}

impl Watched {
    /// Whether this namespace has an address.
    pub(super) fn has(&mut self, address: IpAddr) -> io::Result<bool> {
        let own = self.addresses.get(|| list_addresses(&self.netns))?;
        Ok(own.iter().any(|own| own.address == address))
    }

    /// A rule for the port of a packet that it did not take, as one in PREROUTING takes none of this machine's own.
    pub(super) fn add_leading_rule(&mut self, journey: &Journey, began: Instant, evidence: &mut Evidence) {
        let listens = evidence.sockets.as_ref().is_none_or(|sockets| !sockets.listeners.is_empty());
        if journey.translated.is_some() || journey.last_netns() != journey.netns || listens {
            return;
        }
        let rules = self.translating_rules.get_since(began, || translating_rules(&self.netns));
        let rules = rules.or_told(self.netns.inum(), "list the rules that translate").and_then(Option::as_ref);
        let led = rules.and_then(|rules| leads_on(rules, journey.flow.destination_port, journey.flow.destination));
        evidence.led_on_to = led.as_ref().map(|led| led.to);
        evidence.led_on_by = led.as_ref().and_then(|led| led.by);
        evidence.led_on_except = led.and_then(|led| led.except);
    }

    /// What this namespace, into which the packet came at that time, knows of where it was led.
    pub(super) fn lead(&mut self, journey: &Journey, began: Instant, evidence: &Evidence) -> io::Result<Lead> {
        let to = journey.last_destination().0;
        let leaves_by = routes::way_by(&self.netns, Question { from: way::unspecified(to), to, came_by: None }, None)?;
        let mut sent_by_rule = None;
        if is_led_elsewhere(journey) && evidence.translator.is_none() {
            let rules = self.translating_rules.get_since(began, || translating_rules(&self.netns))?;
            sent_by_rule = rules.as_ref().and_then(|rules| one_sends_to(rules, to));
        }
        Ok(Lead { leaves_by, sent_by_rule, ..Lead::default() })
    }
}

impl Gatherer {
    /// Where the packet was led from the namespace into which it came.
    pub(super) fn add_lead(&mut self, journey: &Journey, began: Instant, evidence: &mut Evidence) {
        let (here, to) = (journey.netns, journey.last_destination().0);
        let Some(watched) = self.watched.get_mut(&here) else { return };
        let Some(mut lead) = watched.lead(journey, began, evidence).or_told(here, "tell where a packet was led") else { return };
        let flow = &journey.flow;
        if is_led_elsewhere(journey) {
            let found = watched.listeners(flow.destination_port, None).or_told(here, "list the listeners").unwrap_or_default();
            let named = self.all_with_owners(found);
            lead.passed_by = takers(&named, flow.destination, journey.interface.as_deref()).into_iter().cloned().collect();
        }
        let mut has = self.watched.iter_mut().map(|(inum, watched)| watched.has(to).or_told(*inum, "list the addresses"));
        lead.owned = to.is_loopback() || has.any(|has| has == Some(true));
        if !lead.owned {
            lead.otherwise = evidence.translator.as_ref().and_then(|rule| self.led_otherwise(journey, rule));
        }
        evidence.lead = Some(lead);
    }

    /// Where another rule would lead a packet, and who listens there, without the rule that led it.
    fn led_otherwise(&mut self, journey: &Journey, rule: &Rule) -> Option<(SocketAddr, Listener)> {
        if journey.last_netns() != journey.netns {
            return None;
        }
        let to: SocketAddr = self.watched.get_mut(&journey.netns)?.way_without(journey, rule)?.into();
        let listeners = self.listeners_at(to)?;
        let taker = takers(&listeners, to.ip(), None).into_iter().next()?.clone();
        (to.ip() != journey.last_destination().0 && to.ip() != journey.flow.destination).then_some((to, taker))
    }
}
