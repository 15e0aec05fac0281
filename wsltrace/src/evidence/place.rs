//! What bears on an end by the place where it came: sockets, routes, queues, programs, settings.

use std::io;

use super::readings::Span;
use super::routes::Question;
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, routes, sysctls, way};
use crate::journey::{Conntrack, Journey, Outcome, Stage, symbol};
use crate::kernel::addresses::list_addresses;

impl Watched {
    /// All that the place of an end makes worth asking.
    pub(super) fn add_place(&mut self, journey: &Journey, died_at: Option<Stage>, span: Span, evidence: &mut Evidence) {
        let inum = self.netns.inum();
        if is_silent(journey, died_at) {
            self.add_silence(journey, span, evidence).or_told(inum, "find out why a listener is silent");
        }
        // A socket's address may be gone, and a destination may be nobody's own.
        if journey.met_no_socket() || died_at == Some(Stage::SocketLookup) {
            self.add_addresses(evidence);
        }
        if journey.met_no_socket() {
            self.add_refusal(journey, evidence);
        }
        if journey.is_refused_in_vain() {
            self.add_way_of_answer(journey, evidence).or_told(inum, "read the routes");
        }
        self.add_older_connection(journey, died_at, span, evidence);
        self.add_way(journey, died_at, evidence).or_told(inum, "read the routes");
        // Its network may have the client's address.
        if evidence.way_back.is_some() && evidence.way_back.as_deref() != journey.entrance() {
            self.add_addresses(evidence);
        }
        if died_at == Some(Stage::Neighbour) {
            self.add_lost_address(journey, evidence);
        }
        if died_at == Some(Stage::TcIngress) {
            self.add_mtu(journey, evidence);
        }
        if journey.reason.as_deref().is_some_and(|reason| reason.starts_with("QDISC_")) {
            way::add_queue(&self.netns, journey, evidence).or_told(inum, "look at the devices");
        }
        self.add_handed(journey, evidence);
        self.add_aside(journey, evidence);
        self.add_unled(journey, evidence);
        self.add_tunnel(journey, evidence);
        self.add_bridge_port(journey, evidence);
        self.add_wrapped(journey, evidence);
        if journey.sent_back().is_some() {
            self.add_addresses(evidence);
        }
        if is_refused_by_ipsec(journey) {
            way::add_ipsec(&self.netns, journey, evidence).or_told(inum, "list the IPsec policies");
        }
        if journey.facts.confirmation_reset {
            let read = sysctls::by_name(&self.netns, [sysctls::TAKES_UP_IN_THE_MIDDLE, sysctls::ABORTS_ON_OVERFLOW]);
            evidence.sysctls.extend(read.or_told(inum, "read the settings").into_iter().flatten());
        }
        let unconfirmed_at_tc = journey.is_unconfirmed() && journey.reason.as_deref() == Some("TC_INGRESS");
        let device = journey.death.as_ref().and_then(|death| death.interface);
        if let Some(device) = device
            && (unconfirmed_at_tc || matches!(died_at, Some(Stage::TcIngress | Stage::TcEgress)))
        {
            // What confirms an answer comes in, though the answer's last stage was its way out.
            let others = self.others_at_tc(device, unconfirmed_at_tc || died_at != Some(Stage::TcEgress));
            evidence.tc_programs = others.or_told(inum, "list the programs at tc").unwrap_or_default();
        }
        if matches!(died_at, Some(Stage::Conntrack | Stage::OutputConntrack)) {
            let settings = self.conntrack_settings.get(|| sysctls::of_conntrack(&self.netns));
            evidence.sysctls.extend(settings.or_told(inum, "read the limits of conntrack").into_iter().flatten().cloned());
            let sealed = sysctls::is_sealed(&self.netns, sysctls::MOST_TRACKED);
            evidence.tracked_by_first = sealed.or_told(inum, "read the limits of conntrack").unwrap_or_default();
        }
        if journey.conntrack == Some(Conntrack::Untracked) && evidence.exempted_by.is_none() && inum == journey.netns {
            let rule = self.legacy_exempter(journey, span.began);
            evidence.exempted_by = rule.or_told(inum, "read the counters of iptables-legacy").flatten();
        }
    }

    /// What bears on a listener's silence. The route back is asked for only where the counters do not settle it.
    fn add_silence(&mut self, journey: &Journey, span: Span, evidence: &mut Evidence) -> io::Result<()> {
        let (_, port) = journey.last_destination();
        let listeners = self.listeners(port, Some(span.began))?;
        evidence.silence = self.readings.silence(&self.netns, span, port, &listeners)?;
        evidence.sysctls.clone_from(self.listener_settings.get(|| sysctls::of_listeners(&self.netns))?);
        if !evidence.silence.is_some_and(|silence| silence.proves_a_full_queue()) {
            self.add_way_of_answer(journey, evidence)?;
        }
        Ok(())
    }

    /// Whether an answer from here has a way to the client, and what refuses it.
    pub(super) fn add_way_of_answer(&self, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
        if evidence.addresses.is_empty() {
            // Among them is the network whose broadcast address the SYN may have been for.
            evidence.addresses = list_addresses(&self.netns)?;
        }
        let (asked_for, to) = (journey.last_destination().0, journey.last_source());
        // The kernel knows no way for a source that is not its own; an error about what it leads on has one that is.
        let from = if evidence.has_address(asked_for) { asked_for } else { way::unspecified(asked_for) };
        let vrf = way::vrf_of_answer(&self.netns, journey, evidence)?;
        evidence.route_back = routes::is_way(&self.netns, Question { from, to, came_by: None }, vrf.as_deref())?;
        way::add_refused_answer(&self.netns, journey, evidence)
    }

    /// What bears on a death in routing or beside a neighbour, on an answer that goes another way than its SYN came, and on a packet
    /// that OUTPUT's DNAT gave a destination without a way.
    fn add_way(&self, journey: &Journey, died_at: Option<Stage>, evidence: &mut Evidence) -> io::Result<()> {
        match (died_at, journey.outcome) {
            (Some(Stage::Routing), Outcome::AnswerDropped) => way::add_routing_of_answer(&self.netns, journey, evidence),
            (Some(Stage::Routing), Outcome::Dropped | Outcome::Rejected) => way::add_routing(&self.netns, journey, evidence),
            (Some(Stage::OutputNat), _) if journey.translated.is_some() => way::add_way_on(&self.netns, journey, evidence),
            (Some(Stage::Neighbour), _) => way::add_way_back(&self.netns, journey, evidence),
            _ if journey.is_answer_dropped_by_hook() => way::add_refused_answer(&self.netns, journey, evidence),
            _ if journey.facts.answer_elsewhere || journey.strayed_by().is_some() => {
                way::add_way_back(&self.netns, journey, evidence)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a listener took the SYN and made no answer.
pub(super) fn is_silent(journey: &Journey, died_at: Option<Stage>) -> bool {
    journey.outcome == Outcome::Ignored
        || journey.outcome == Outcome::Dropped
            && died_at.is_some_and(|stage| matches!(stage, Stage::Listener | Stage::SocketLookup))
}

/// Whether a policy of `IPsec` refused it, or may have: an answer that has no key ends where the kernel discards what has no way, and
/// IPv6 gives no reason where it sends on.
fn is_refused_by_ipsec(journey: &Journey) -> bool {
    let place = journey.location.as_deref().map(symbol);
    match (journey.outcome, journey.reason.as_deref()) {
        (_, Some("XFRM_POLICY")) => true,
        (Outcome::AnswerDropped, _) => place == Some("dst_discard_out"),
        (Outcome::Dropped, None | Some("NOT_SPECIFIED")) => place == Some("ip6_forward"),
        _ => false,
    }
}
