//! What bears on ends that their place does not explain: answers that nobody confirms, SYNs that TCP frees before it looks for a
//! listener, packets of this machine's own addresses that wait for a neighbour, IPv6 on a device that has none.

use super::readings::Span;
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Astray, Evidence, connection, routes, way};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::kernel::links;

/// Whether an answer was made, and the client has not confirmed it.
pub(super) fn is_unconfirmed(journey: &Journey) -> bool {
    let facts = journey.facts;
    facts.syn_ack
        && !facts.acknowledged
        && !facts.established
        && matches!(journey.outcome, Outcome::Answered | Outcome::Unfinished)
}

impl Watched {
    /// What is known of an answer that the client has not confirmed: a rule that changed it here.
    pub(super) fn add_rewriter(&mut self, journey: &Journey, evidence: &mut Evidence) {
        if is_unconfirmed(journey)
            && let Some(trace) = &mut self.trace
        {
            evidence.answer_rewriter = trace.rewriter(journey);
            evidence.source_rewriter = trace.source_rewriter(journey);
        }
    }

    /// How many half-open connections were reset meanwhile, in the namespace of the server.
    pub(super) fn add_resets(&mut self, journey: &Journey, span: Span, evidence: &mut Evidence) {
        if !is_unconfirmed(journey) {
            return;
        }
        let resets = self.readings.resets_of_half_open(&self.netns, span);
        evidence.resets_of_half_open = resets.or_told(self.netns.inum(), "read the counters").unwrap_or_default();
    }

    /// Whether the kernel has an older connection between the ends of a SYN that TCP freed without a reason and without a lookup.
    pub(super) fn add_older_connection(
        &mut self,
        journey: &Journey,
        died_at: Option<Stage>,
        span: Span,
        evidence: &mut Evidence,
    ) {
        let in_tcp = journey.location.as_deref().is_some_and(|place| symbol(place).starts_with("tcp_"));
        let unnamed = journey.reason.as_deref().is_none_or(|reason| reason == "NOT_SPECIFIED");
        let looked_up = journey.facts.socket_lookup || died_at != Some(Stage::SocketLookup);
        if journey.outcome != Outcome::Dropped || looked_up || !in_tcp || !unnamed {
            return;
        }
        let ends = (journey.last_destination().into(), way::source_end(journey).into());
        // A half-open one has gone when the client has reset what it was told of it.
        let found = connection::is_there(&self.netns, ends)
            .and_then(|found| Ok(found || self.readings.resets_of_half_open(&self.netns, span)? > 0));
        evidence.older_connection = found.or_told(self.netns.inum(), "look for a connection");
    }

    /// What keeps a SYN that waits for its neighbour from being taken for this machine's own, where it is.
    pub(super) fn add_lost_address(&self, journey: &Journey, evidence: &mut Evidence) {
        let destination = journey.last_destination().0;
        if journey.facts.syn_ack || !evidence.has_address(destination) || destination.is_loopback() {
            return;
        }
        if routes::is_local(&self.netns, destination).or_told(self.netns.inum(), "read the routes") == Some(false) {
            evidence.astray = Some(Astray::NoRoute);
        }
    }

    /// How large packets the device takes by which an IPv6 packet came that IPv6 freed at once.
    pub(super) fn add_mtu(&self, journey: &Journey, evidence: &mut Evidence) {
        let at_once = journey.location.as_deref().is_some_and(|place| ["ip6_rcv_core", "ipv6_rcv"].contains(&symbol(place)));
        let device = journey.death.as_ref().and_then(|death| death.interface.as_deref());
        let Some(device) = device.filter(|_| at_once && journey.outcome == Outcome::Dropped) else { return };
        let links = links::list_links(&self.netns).or_told(self.netns.inum(), "look at the devices");
        evidence.mtu = links.iter().flatten().find(|link| link.name == device).map(|link| link.mtu);
    }
}
