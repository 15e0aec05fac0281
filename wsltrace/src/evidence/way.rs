//! What bears on a packet's way through routing, there and back: settings, routes, rules between tables, own addresses.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ipsec::{self, Ends};
use super::policy::{Packet, Refusal, Rules};
use super::routes::Question;
use super::{Evidence, OwnAddress, Queue, counters, routes, sysctls};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::kernel::addresses::list_addresses;
use crate::kernel::links;
use crate::kernel::neighbours;
use crate::kernel::netns::Netns;

/// Why the kernel does not find an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Astray {
    /// No rule of `ip rule` leads such a packet to the table of own addresses.
    NoRule,
    /// The table of own addresses does not have it.
    NoRoute,
    /// The table of a VRF has it, and no rule of `ip rule` leads what comes by the VRF to its table.
    NoVrfRule,
}

/// What is wrong with the routing by which answers to Windows' localhost leave, in mirrored mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mirror {
    /// No rule leads to its table (127).
    NoRule,
    /// The rule of this preference, which leads to the own addresses, comes before it.
    RuleBehind(u32),
    /// Its table has no route.
    NoRoute,
}

/// The interface of what this machine itself sends, in the rules of `ip rule`.
pub(super) const MADE_HERE: &str = "lo";
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
    evidence.addresses = list_addresses(netns)?;
    if evidence.has_address(to.0) {
        evidence.astray = if !rules.lead_to_local(&packet) {
            Some(Astray::NoRule)
        } else if !routes::is_local(netns, to.0)? {
            Some(Astray::NoRoute)
        } else {
            vrf(netns, journey)?.filter(|_| !rules.lead_to_vrfs()).map(|_| Astray::NoVrfRule)
        };
    }
    // What the filter asks is whether the way back leads by the same interface.
    let filtered = journey.reason.as_deref() == Some("IP_RPFILTER");
    if filtered {
        add_refusal(netns, &answer(journey), evidence)?;
    }
    add_way_back(netns, journey, evidence)?;
    if filtered && evidence.hop_back.is_none() && evidence.way_back.as_deref() != came_by {
        let came_by = came_by.map_or(Ok(None), |device| only_neighbour(netns, device, to.0))?;
        evidence.router = evidence.router.or(came_by);
    }
    Ok(())
}

/// The only neighbour of the family of `like` that is known behind an interface: what came by there from another network came by it.
fn only_neighbour(netns: &Netns, device: &str, like: IpAddr) -> io::Result<Option<IpAddr>> {
    let links = links::list_links(netns)?;
    let Some(link) = links.iter().find(|link| link.name == device) else { return Ok(None) };
    let is_local = |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let is_one = |address: IpAddr| address.is_ipv4() == like.is_ipv4() && !address.is_multicast() && !is_local(address);
    let mut there = neighbours::neighbours(netns)?;
    there.retain(|found| found.index == link.index && is_one(found.address));
    Ok(there.pop().filter(|_| there.is_empty()).map(|found| found.address))
}

/// What bears on the death of an answer in routing.
pub(super) fn add_routing_of_answer(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let interface = journey.death.as_ref().and_then(|death| death.interface.as_deref());
    evidence.sysctls = sysctls::of_routing(netns, journey.flow.family, interface)?;
    add_refusal(netns, &answer(journey), evidence)?;
    add_way_back(netns, journey, evidence)
}

/// Where answers go, and where they would have to.
pub(super) fn add_way_back(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let answer = answer(journey);
    let (own, client) = (answer.from, answer.to);
    if evidence.addresses.is_empty() {
        evidence.addresses = list_addresses(netns)?;
    }
    let comes_back = answer.came_by != MADE_HERE;
    // Without an interface that it came in by, the kernel takes a source for one of its own addresses.
    let from = if comes_back || evidence.has_address(own) { own } else { unspecified(own) };
    let question = Question { from, to: client, came_by: comes_back.then_some(answer.came_by) };
    let vrf = if comes_back { None } else { vrf_of_answer(netns, journey, evidence)? };
    evidence.way_back = routes::way_by(netns, question, vrf.as_deref())?;
    evidence.route_back = routes::is_way(netns, question, vrf.as_deref())?;
    let all = netns.run(|| routes::all(client)).map_err(io::Error::other)??;
    let rules = Rules::read(netns, client)?;
    evidence.leading_rule = rules.leading(&Packet { from, ..answer }, &all);
    evidence.rules_by_mark = rules.ask_for_marks();
    if let Some((whom, device)) = waited_for(journey) {
        // Rules of `ip rule` go by the source as well; the kernel takes none for it that is not its own.
        let source = (whom == client && !comes_back && evidence.has_address(own)).then_some(own);
        evidence.gateway =
            routes::hop_by(netns, source, whom, device)?.and_then(|hop| hop.gateway).filter(|gateway| *gateway != whom);
    }
    if let Some(entrance) = journey.entrance() {
        evidence.hop_back = routes::hop_by(netns, None, client, entrance)?;
        if entrance == MIRRORED && client.is_loopback() && client.is_ipv4() {
            let by_rules = Rules::read(netns, client)?.mirror(&answer);
            evidence.mirror = by_rules.or((evidence.way_back.as_deref() != Some(MIRRORED)).then_some(Mirror::NoRoute));
        }
    }
    Ok(())
}

/// Where answers go, and what refuses them where they go nowhere.
pub(super) fn add_way_back_or_refusal(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    add_way_back(netns, journey, evidence)?;
    if evidence.route_back == Some(false) {
        add_refusal(netns, &answer(journey), evidence)?;
    }
    Ok(())
}

/// Where the packet was to go that no neighbour answered for, and the device on which it waited.
pub(super) fn waited_for(journey: &Journey) -> Option<(IpAddr, &str)> {
    let waited = journey.stages.iter().rfind(|visit| visit.stage == Stage::Neighbour)?;
    let device = waited.interface.as_deref().or_else(|| journey.death.as_ref()?.interface.as_deref())?;
    let of_answer = journey.outcome == Outcome::AnswerDropped || journey.facts.syn_ack;
    Some((if of_answer { journey.answer_destination() } else { journey.last_destination().0 }, device))
}

/// The interface by which a packet of this machine that DNAT rewrote would leave.
pub(super) fn add_way_on(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let to = journey.last_destination().0;
    evidence.way_on = routes::way_by(netns, Question { from: unspecified(to), to, came_by: None }, None)?;
    Ok(())
}

/// The queue of the device of the death.
pub(super) fn add_queue(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let device = journey.death.as_ref().and_then(|death| death.interface.as_deref());
    let Some(link) = links::list_links(netns)?.into_iter().find(|link| Some(link.name.as_str()) == device) else { return Ok(()) };
    let qdisc = links::root_qdisc(netns, link.index)?;
    let is_bridge = link.kind.as_deref() == Some("bridge");
    evidence.queue = Some(Queue { up: link.up, carrier: link.carrier, qdisc, is_bridge });
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

/// The VRF in which an answer from here is made and routed. One that is switched off has no routes.
pub(super) fn vrf_of_answer(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<Option<String>> {
    if journey.last_netns() != journey.netns {
        return Ok(None);
    }
    evidence.vrf = vrf(netns, journey)?;
    let is_off = |link: &links::Link| Some(&link.name) == evidence.vrf.as_ref() && !link.up;
    if evidence.vrf.is_some() && links::list_links(netns)?.iter().any(is_off) {
        evidence.down_here.clone_from(&evidence.vrf);
    }
    Ok(evidence.vrf.clone())
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

/// The answer as routing has it in the namespace of the end: what NAT did to the SYN's destination is undone only behind that.
fn answer(journey: &Journey) -> Packet<'_> {
    let (from, port) = journey.last_destination();
    let back = journey.answer_entrance().filter(|_| journey.last_netns() == journey.netns);
    let ports = (port, journey.flow.source_port);
    Packet { from, to: journey.answer_destination(), came_by: back.unwrap_or(MADE_HERE), ports }
}

/// Of the addresses that a router has on an interface, the one that the namespace behind it can send to.
pub(super) fn router(of_router: &[OwnAddress], interface: &str, behind: &[OwnAddress], client: IpAddr) -> Option<IpAddr> {
    let near = |own: &&OwnAddress| own.interface == interface && own.address.is_ipv4() == client.is_ipv4();
    let reached = |router: &IpAddr| behind.iter().any(|own| own.covers(*router));
    let is_local = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    of_router.iter().filter(near).map(|own| own.address).filter(reached).min_by_key(is_local)
}

pub(super) fn answer_ends(journey: &Journey) -> Ends {
    Ends { from: journey.last_destination(), to: source_end(journey) }
}

pub(super) fn source_end(journey: &Journey) -> (IpAddr, u16) {
    journey.translated.as_ref().map_or((journey.flow.source, journey.flow.source_port), |now| (now.source, now.source_port))
}

/// What refuses the answer of a listener that made none.
pub(super) fn add_refused_answer(netns: &Netns, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    add_refusal(netns, &answer(journey), evidence)?;
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

pub(super) fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}
