//! Transparent proxies (TPROXY): a rule chooses their socket, and gives the packet a mark; it is `ip rule` and a route that have the kernel
//! take such packets for this machine's, whoever they are for.

use std::io;

use serde::{Deserialize, Serialize};

use super::policy::{Packet, Rules};
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Rule, routes};
use crate::journey::{Journey, Outcome, Stage};

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
