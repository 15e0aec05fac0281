//! What bears on a packet's way through routing, there and back: settings, routes, rules between tables, own addresses.

use std::io;
use std::net::IpAddr;

use super::ipsec::{self, Ends};
use super::policy::{Packet, Refusal, Rules};
use super::{Astray, Evidence, Mirror, Queue, addresses, counters, routes, sysctls};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::kernel::links;
use crate::kernel::netns::Netns;

/// The interface of what this machine itself sends, in the rules of `ip rule`.
const MADE_HERE: &str = "lo";
/// The device by which Windows' localhost comes in mirrored mode.
const MIRRORED: &str = "loopback0";

/// What bears on a death in routing.
pub(super) fn add_routing(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let to = journey.last_destination();
    let came_by = journey.entrance();
    let interface = journey.death.as_ref().and_then(|death| death.interface.as_deref()).or(came_by);
    let ports = (journey.flow.source_port, to.1);
    let packet = Packet { from: journey.last_source(), to: to.0, came_by: came_by.unwrap_or(MADE_HERE), ports };
    evidence.sysctls = sysctls::of_routing(netns, journey.flow.family, interface)?;
    let rules = add_refusal(netns, &packet, evidence)?;
    evidence.addresses = addresses::of(netns)?;
    if evidence.has_address(to.0) {
        evidence.astray = if !rules.lead_to_local(&packet) {
            Some(Astray::NoRule)
        } else if !routes::is_local(netns, to.0)? {
            Some(Astray::NoRoute)
        } else {
            None
        };
    }
    add_way_back(netns, journey, evidence)
}

/// Where answers go, and where they would have to.
pub(super) fn add_way_back(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let (own, client) = (journey.last_destination().0, journey.last_source());
    if evidence.addresses.is_empty() {
        evidence.addresses = addresses::of(netns)?;
    }
    // For a packet that is on its way through this machine the kernel would have to be asked as for one that comes in.
    let own = if evidence.has_address(own) { own } else { unspecified(own) };
    evidence.way_back = routes::way_by(netns, own, client)?;
    evidence.route_back = routes::is_way(netns, own, client)?;
    if let Some((whom, device)) = waited_for(journey) {
        evidence.gateway = routes::hop_by(netns, whom, device)?.and_then(|hop| hop.gateway).filter(|gateway| *gateway != whom);
    }
    if let Some(entrance) = journey.entrance() {
        evidence.hop_back = routes::hop_by(netns, client, entrance)?;
        if entrance == MIRRORED && client.is_loopback() && client.is_ipv4() {
            let ports = (journey.last_destination().1, journey.flow.source_port);
            let answer = Packet { from: journey.last_destination().0, to: client, came_by: MADE_HERE, ports };
            let by_rules = Rules::read(netns, client)?.mirror(&answer);
            evidence.mirror = by_rules.or((evidence.way_back.as_deref() != Some(MIRRORED)).then_some(Mirror::NoRoute));
        }
    }
    Ok(())
}

/// Where the packet was to go that no neighbour answered for, and the device on which it waited.
fn waited_for(journey: &Journey) -> Option<(IpAddr, &str)> {
    let waited = journey.stages.iter().rfind(|visit| visit.stage == Stage::Neighbour)?;
    let device = waited.interface.as_deref().or_else(|| journey.death.as_ref()?.interface.as_deref())?;
    let of_answer = journey.outcome == Outcome::AnswerDropped || journey.facts.syn_ack;
    Some((if of_answer { journey.last_source() } else { journey.last_destination().0 }, device))
}

/// The interface by which a packet of this machine that DNAT rewrote would leave.
pub(super) fn add_way_on(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let to = journey.last_destination().0;
    evidence.way_on = routes::way_by(netns, unspecified(to), to)?;
    Ok(())
}

/// The queue of the device of the death.
pub(super) fn add_queue(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let device = journey.death.as_ref().and_then(|death| death.interface.as_deref());
    let Some(link) = links::list_links(netns)?.into_iter().find(|link| Some(link.name.as_str()) == device) else { return Ok(()) };
    evidence.queue = Some(Queue { up: link.up, qdisc: links::root_qdisc(netns, link.index)? });
    Ok(())
}

/// The VRF whose interface the packet came in by.
pub(super) fn vrf(netns: &Netns, journey: &Journey) -> io::Result<Option<String>> {
    let Some(entrance) = journey.entrance() else { return Ok(None) };
    let links = links::list_links(netns)?;
    let master = links.iter().find(|link| link.name == entrance).and_then(|link| link.master);
    let vrf = |link: &&links::Link| Some(link.index) == master && link.kind.as_deref() == Some("vrf");
    Ok(links.iter().find(vrf).map(|link| link.name.clone()))
}

/// The policy of `IPsec` that refused the packet, or wants an answer encrypted for which there is no key.
pub(super) fn add_ipsec(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let place = journey.location.as_deref().map(symbol);
    let coming = Ends { from: source_end(journey), to: journey.last_destination() };
    let asked: &[(Ends, &str)] = match (journey.outcome, place) {
        (Outcome::AnswerDropped, _) => &[(answer_ends(journey), "out")],
        (_, Some("ip_forward" | "ip6_forward")) => &[(coming, "fwd"), (coming, "out")],
        _ => &[(coming, "in")],
    };
    for (ends, direction) in asked {
        if evidence.ipsec_policy.is_none() {
            evidence.ipsec_policy = ipsec::refusing(netns, *ends, direction)?;
        }
    }
    Ok(())
}

fn answer_ends(journey: &Journey) -> Ends {
    Ends { from: journey.last_destination(), to: source_end(journey) }
}

pub(super) fn source_end(journey: &Journey) -> (IpAddr, u16) {
    journey.translated.as_ref().map_or((journey.flow.source, journey.flow.source_port), |now| (now.source, now.source_port))
}

/// What refuses the answer of a listener that made none.
pub(super) fn add_refused_answer(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let (own, port) = journey.last_destination();
    let ports = (port, journey.flow.source_port);
    let answer = Packet { from: own, to: journey.last_source(), came_by: MADE_HERE, ports };
    add_refusal(netns, &answer, evidence)?;
    if evidence.route_back == Some(true) {
        evidence.ipsec_refused = counters::refused_by_ipsec(netns)?;
        if evidence.ipsec_refused > 0 {
            evidence.ipsec_policy = ipsec::refusing(netns, answer_ends(journey), "out")?;
        }
    }
    Ok(())
}

fn add_refusal(netns: &Netns, packet: &Packet<'_>, evidence: &mut Evidence) -> io::Result<Rules> {
    let rules = Rules::read(netns, packet.to)?;
    let routes = netns.run(|| routes::all(packet.to)).map_err(io::Error::other)??;
    match rules.refusal(packet, &routes) {
        Some(Refusal::Rule(rule)) => evidence.refusing_rule = Some(rule),
        Some(Refusal::Route(route)) => evidence.refusing_route = Some(route),
        None => {}
    }
    Ok(rules)
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}
