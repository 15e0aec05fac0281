//! The rules by which the kernel chooses a routing table (`ip rule`), followed through the tables as the kernel does: which rule or
//! route refuses a packet, and whether one leads to the table of this machine's own addresses. The mark of a packet is not known, nor
//! whose it is: what only marked packets meet, or those of some users, is told only where the others would get through.

mod rule;

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::route::{RouteMessage, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::Mirror;
use super::routes::{MAIN_TABLE, Refusing, all, is_local, refusal_of, table};
use crate::kernel::netlink;
use crate::kernel::netns::Netns;
use rule::Rule;

/// `RT_TABLE_LOCAL`: this machine's own addresses.
const LOCAL_TABLE: u32 = 255;

/// WSL's table for Windows' localhost, in mirrored mode.
const MIRROR_TABLE: u32 = 127;

/// A rule that takes packets only to throw them away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RefusingRule {
    /// Rules are asked in the order of this number.
    pub preference: u32,
    /// As `ip rule` prints it: `from all iif eth0 prohibit`.
    pub text: Cow<'static, str>,
    /// Whether it is only for packets with a mark; what mark the packet had is not known.
    pub marked: bool,
}

/// A packet whose way is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// Its source.
    pub(super) from: IpAddr,
    /// Its destination.
    pub(super) to: IpAddr,
    /// The interface that it came in by; `lo` for one that was made here.
    pub(super) came_by: &'a str,
    /// Its ports.
    pub(super) ports: (u16, u16),
}

/// What refuses a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A rule of `ip rule`.
    Rule(RefusingRule),
    /// A route.
    Route(Refusing),
}

impl Refusal {
    /// Whether it is only for packets with a mark; what mark a packet has is not known.
    pub fn is_marked(&self) -> bool {
        match self {
            Self::Rule(rule) => rule.marked,
            Self::Route(route) => route.marked,
        }
    }
}

/// A rule that leads a packet to its route, and is none of those that every machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LeadingRule {
    /// Rules are asked in the order of this number.
    pub preference: u32,
    /// As `ip rule` prints it: `from 172.17.0.0/16 lookup 99`.
    pub text: Cow<'static, str>,
    /// The number of the table that it leads to.
    pub table: u32,
}

/// Where the rules end.
enum Decision<'a> {
    Refused(Refusal),
    /// A route takes it, to which this rule leads.
    Leads(&'a Rule),
    /// No route does.
    Nothing,
}

/// The rules of a family, in the order in which they are asked.
pub(super) struct Rules(Vec<Rule>);

/// What leads packets to or from this address of the machine otherwise than on every machine: rules between tables, routes that
/// refuse, what is missing. `None` where nothing does.
pub fn own_routing(netns: &Netns, own: IpAddr) -> io::Result<Option<String>> {
    let rules = Rules::read(netns, own)?;
    if let Some(rule) = rules.0.iter().find(|rule| !rule.is_usual()) {
        return Ok(Some(format!("the rule of preference {} between routing tables", rule.preference)));
    }
    if !rules.0.iter().any(|rule| rule.table == LOCAL_TABLE) {
        return Ok(Some("that no rule leads to the routing table of own addresses".to_owned()));
    }
    let routes = netns.run(|| all(own)).map_err(io::Error::other)??;
    if let Some(refusing) = routes.iter().find_map(|route| refusal_of(route, own)) {
        let (network, bits) = refusing.destination;
        return Ok(Some(format!("the {} route of {network}/{bits}", refusing.kind)));
    }
    if !is_local(netns, own)? {
        return Ok(Some(format!("that the routing tables do not have {own}")));
    }
    let leads = |route: &RouteMessage| route.header.kind == RouteType::Unicast && table(route) == u32::from(MAIN_TABLE);
    Ok((!routes.iter().any(leads)).then(|| "that no route leads to other machines".to_owned()))
}

impl Rules {
    /// Reads the rules of a namespace, for the family of an address.
    pub(super) fn read(netns: &Netns, like: IpAddr) -> io::Result<Self> {
        let mut all = RuleMessage::default();
        all.header.family = if like.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let rules =
            netns.run(|| netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetRule(all))).map_err(io::Error::other)??;
        let read = |message: RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRule(rule) => Some(Rule::of(rule)),
            _ => None,
        };
        let mut rules: Vec<Rule> = rules.into_iter().filter_map(read).collect();
        rules.sort_by_key(|rule| rule.preference);
        Ok(Self(rules))
    }

    /// What refuses this packet, by these routes.
    pub(super) fn refusal(&self, packet: &Packet<'_>, routes: &[RouteMessage]) -> Option<Refusal> {
        match self.follow(packet, routes, false) {
            Decision::Refused(refusal) => Some(refusal),
            Decision::Nothing => None,
            Decision::Leads(_) => match self.follow(packet, routes, true) {
                Decision::Refused(Refusal::Rule(rule)) => Some(Refusal::Rule(RefusingRule { marked: true, ..rule })),
                Decision::Refused(Refusal::Route(route)) => Some(Refusal::Route(Refusing { marked: true, ..route })),
                _ => None,
            },
        }
    }

    /// The way of a packet through the rules, as one without a mark or as one with the mark that each rule asks for.
    fn follow(&self, packet: &Packet<'_>, routes: &[RouteMessage], marked: bool) -> Decision<'_> {
        let (mut next, mut thrown) = (0, None);
        for rule in self.0.iter().filter(|rule| rule.matches(packet, marked)) {
            if rule.preference < next {
                continue;
            }
            if rule.action == RuleAction::Goto {
                // A jump to a rule that is not there does nothing.
                next = rule.goto.filter(|target| self.0.iter().any(|rule| rule.preference == *target)).unwrap_or(next);
                continue;
            }
            if let Some(text) = rule.refusal().map(|refusal| rule.text(refusal)) {
                let rule = RefusingRule { preference: rule.preference, text: text.into(), marked: false };
                return Decision::Refused(Refusal::Rule(rule));
            }
            let Some(route) = rule.route(packet, routes) else { continue };
            if is_throw(route) {
                // It stands in the way of what its table has behind it; of nothing, where that is nothing.
                let behind = rule.best(packet, routes.iter().filter(|route| !is_throw(route)));
                let hides = behind.is_some_and(|behind| refusal_of(behind, packet.to).is_none());
                thrown = thrown.or_else(|| refusal_of(route, packet.to).filter(|_| hides));
                continue;
            }
            return refusal_of(route, packet.to).map_or(Decision::Leads(rule), |route| Decision::Refused(Refusal::Route(route)));
        }
        // A route that throws back to the next rule refuses what no other rule takes.
        thrown.map_or(Decision::Nothing, |route| Decision::Refused(Refusal::Route(route)))
    }

    /// The rule that leads a packet without a mark to its route, where it is not one of those that every machine has.
    pub(super) fn leading(&self, packet: &Packet<'_>, routes: &[RouteMessage]) -> Option<LeadingRule> {
        let Decision::Leads(rule) = self.follow(packet, routes, false) else { return None };
        let text = rule.text(&format!("lookup {}", rule.table));
        let told = || LeadingRule { preference: rule.preference, text: text.into(), table: rule.table };
        (!rule.is_usual()).then(told)
    }

    /// Whether one of them asks for a mark.
    pub(super) fn ask_for_marks(&self) -> bool {
        self.0.iter().any(|rule| rule.mark.is_some())
    }

    /// Whether one of them takes packets with a mark for this machine's, by these routes: as a transparent proxy needs it.
    pub(super) fn take_marked(&self, packet: &Packet<'_>, routes: &[RouteMessage]) -> bool {
        let takes = |rule: &&Rule| rule.route(packet, routes).is_some_and(|route| route.header.kind == RouteType::Local);
        self.0.iter().any(|rule| rule.mark.is_some() && rule.matches(packet, true) && takes(&rule))
    }

    /// Whether one of the rules leads to this table.
    pub(super) fn lead_to(&self, table: u32) -> bool {
        self.0.iter().any(|rule| rule.table == table)
    }

    /// What keeps an answer to Windows' localhost from the table that WSL's mirrored mode has for it.
    pub(super) fn mirror(&self, answer: &Packet<'_>) -> Option<Mirror> {
        let to = |table: u32| {
            self.0.iter().find(|rule| rule.table == table && rule.action == RuleAction::ToTable && rule.matches(answer, true))
        };
        match (to(MIRROR_TABLE), to(LOCAL_TABLE)) {
            (None, _) => Some(Mirror::NoRule),
            (Some(mirror), Some(local)) if local.preference <= mirror.preference => Some(Mirror::RuleBehind(local.preference)),
            (Some(_), _) => None,
        }
    }

    /// Whether what comes for an address of the table `local` gets there whoever sent it: the first rule that is asked leads every packet
    /// to that table.
    pub(super) fn begin_with_local(&self) -> bool {
        let first = self.0.first();
        first.is_some_and(|rule| rule.table == LOCAL_TABLE && rule.action == RuleAction::ToTable && rule.is_for_all())
    }

    /// Whether a rule that refuses meets every client's packets of this server: it does not ask for the client's end, and none before it
    /// leads anything elsewhere than to own addresses. Of an answer the client is the destination.
    pub(super) fn refuses_everybody(&self, refusing: &RefusingRule, answer: bool) -> bool {
        let before = self.0.iter().take_while(|rule| rule.preference < refusing.preference);
        let mut at = self.0.iter().filter(|rule| rule.preference == refusing.preference);
        let (Some(rule), None) = (at.next(), at.next()) else { return false };
        let of_client = if answer { (rule.destination, rule.ports[1]) } else { (rule.source, rule.ports[0]) };
        let asks = of_client.0.is_some() || of_client.1.is_some() || rule.inverted || rule.mark.is_some() || rule.more;
        // An answer goes to no own address; a SYN that one before leads to the table of those is not refused.
        let harmless = |rule: &Rule| rule.refusal().is_some() || answer && rule.table == LOCAL_TABLE && rule.goto.is_none();
        !asks && before.into_iter().all(harmless)
    }

    /// Whether they tell this machine's answers apart by nothing but addresses, marks and the server's port, of which the kernel can be
    /// asked.
    pub(super) fn tell_answers_by_ends(&self) -> bool {
        self.0.iter().all(|rule| !rule.more && rule.uids.is_none() && rule.ports[1].is_none())
    }

    /// Whether they tell packets apart by nothing but addresses, interfaces and marks.
    pub(super) fn tell_by_addresses(&self) -> bool {
        self.0.iter().all(|rule| !rule.more && rule.uids.is_none() && rule.ports == [None, None])
    }

    /// The networks of sources that rules ask for.
    pub(super) fn sources(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        self.0.iter().filter_map(|rule| rule.source)
    }

    /// The networks of destinations that rules ask for.
    pub(super) fn destinations(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        self.0.iter().filter_map(|rule| rule.destination)
    }

    /// The clients' networks that rules which refuse ask for.
    pub(super) fn refused_networks(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        let refusing = self.0.iter().filter(|rule| rule.refusal().is_some());
        refusing.flat_map(|rule| [rule.source, rule.destination]).flatten()
    }

    /// Whether a rule leads what belongs to VRFs to their tables.
    pub(super) fn lead_to_vrfs(&self) -> bool {
        self.0.iter().any(|rule| rule.of_vrfs && !rule.inverted)
    }

    /// Whether a rule leads this packet to the table of this machine's own addresses.
    pub(super) fn lead_to_local(&self, packet: &Packet<'_>) -> bool {
        self.0.iter().any(|rule| rule.table == LOCAL_TABLE && rule.action == RuleAction::ToTable && rule.matches(packet, true))
    }
}

/// Whether a route sends packets on to the next rule, as if its table had none.
fn is_throw(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Throw
}

#[cfg(test)]
mod tests;
