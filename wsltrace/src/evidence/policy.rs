//! The rules by which the kernel chooses a routing table (`ip rule`), followed through the tables as the kernel does: which rule or
//! route refuses a packet, and whether one leads to the table of this machine's own addresses. The mark of a packet is not known, nor
//! whose it is: what only marked packets meet, or those of some users, is told only where the others would get through.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::route::{RouteMessage, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::Mirror;
use super::routes::{Refusing, all, bits, covers, is_local, metric, network, refusal_of, table};
use crate::kernel::netlink;
use crate::kernel::netns::Netns;

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

/// One rule.
struct Rule {
    preference: u32,
    inverted: bool,
    action: RuleAction,
    table: u32,
    source: Option<(IpAddr, u8)>,
    destination: Option<(IpAddr, u8)>,
    iif: Option<String>,
    mark: Option<(u32, Option<u32>)>,
    /// The preference of the rule that is asked next.
    goto: Option<u32>,
    protocol: Option<IpProtocol>,
    ports: [Option<(u16, u16)>; 2],
    /// The users whose packets it is about, by their numbers.
    uids: Option<(u32, u32)>,
    /// Routes of no more than so many bits do not count.
    suppresses: Option<u32>,
    /// It asks for something that is not looked at here, such as the outgoing interface.
    more: bool,
}

/// What leads packets to or from this address of the machine otherwise than on every machine: rules between tables, routes that
/// refuse, what is missing. `None` where nothing does.
pub fn own_routing(netns: &Netns, own: IpAddr) -> io::Result<Option<String>> {
    const LOCAL: u32 = 255;
    const MAIN: u32 = 254;
    let rules = Rules::read(netns, own)?;
    if let Some(rule) = rules.0.iter().find(|rule| !rule.is_usual()) {
        return Ok(Some(format!("the rule of preference {} between routing tables", rule.preference)));
    }
    if !rules.0.iter().any(|rule| rule.table == LOCAL) {
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
    let leads = |route: &RouteMessage| route.header.kind == RouteType::Unicast && table(route) == MAIN;
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
            let Some(route) = rule.route(packet.to, routes) else { continue };
            if route.header.kind == RouteType::Throw {
                thrown = thrown.or_else(|| refusal_of(route, packet.to));
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
        let takes = |rule: &&Rule| rule.route(packet.to, routes).is_some_and(|route| route.header.kind == RouteType::Local);
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

    /// Whether a rule leads this packet to the table of this machine's own addresses.
    pub(super) fn lead_to_local(&self, packet: &Packet<'_>) -> bool {
        self.0.iter().any(|rule| rule.table == LOCAL_TABLE && rule.action == RuleAction::ToTable && rule.matches(packet, true))
    }
}

impl Rule {
    fn of(message: RuleMessage) -> Self {
        let header = message.header;
        let mut rule = Self {
            preference: 0,
            inverted: header.flags.contains(RuleFlags::Invert),
            action: header.action,
            table: u32::from(header.table),
            source: None,
            destination: None,
            iif: None,
            mark: None,
            goto: None,
            protocol: None,
            ports: [None, None],
            uids: None,
            suppresses: None,
            more: header.tos != 0,
        };
        let mut mark_bits = None;
        for attribute in message.attributes {
            match attribute {
                RuleAttribute::Priority(preference) => rule.preference = preference,
                RuleAttribute::Table(table) => rule.table = table,
                RuleAttribute::Source(address) => rule.source = Some((address, header.src_len)),
                RuleAttribute::Destination(address) => rule.destination = Some((address, header.dst_len)),
                RuleAttribute::Iifname(name) => rule.iif = Some(name),
                RuleAttribute::FwMark(mark) => rule.mark = Some((mark, None)),
                RuleAttribute::FwMask(bits) => mark_bits = Some(bits),
                RuleAttribute::Goto(preference) => rule.goto = Some(preference),
                RuleAttribute::IpProtocol(protocol) => rule.protocol = Some(protocol),
                RuleAttribute::SourcePortRange(range) => rule.ports[0] = Some((range.start, range.end)),
                RuleAttribute::DestinationPortRange(range) => rule.ports[1] = Some((range.start, range.end)),
                RuleAttribute::UidRange(users) => rule.uids = Some((users.start, users.end)),
                RuleAttribute::Oifname(_) | RuleAttribute::TunId(_) => rule.more = true,
                RuleAttribute::SuppressPrefixLen(bits) => rule.suppresses = Some(bits).filter(|bits| *bits != u32::MAX),
                RuleAttribute::L3MDev(of_device) => rule.more |= of_device,
                _ => {}
            }
        }
        // A mask of 0 is that of a rule for every mark.
        rule.mark = rule.mark.map(|(mark, _)| (mark, mark_bits)).filter(|(_, mask)| *mask != Some(0));
        rule
    }

    /// Whether it leads to a table that every machine has, or to those of WSL's mirrored mode.
    fn is_usual(&self) -> bool {
        self.action == RuleAction::ToTable && !self.inverted && matches!(self.table, 127 | 128 | 253..=255)
    }

    /// Whether it is about every packet.
    fn is_for_all(&self) -> bool {
        let ends = self.source.is_none() && self.destination.is_none() && self.ports == [None, None];
        ends && self.iif.is_none() && self.mark.is_none() && self.protocol.is_none() && !self.inverted && !self.more
    }

    /// How it refuses.
    fn refusal(&self) -> Option<&'static str> {
        match self.action {
            RuleAction::Blackhole => Some("blackhole"),
            RuleAction::Unreachable => Some("unreachable"),
            RuleAction::Prohibit => Some("prohibit"),
            _ => None,
        }
    }

    /// Whether it is about this packet, as one without a mark, or as one with the mark that it asks for. A rule that is inverted is about
    /// what does not fit: `not fwmark 51820`, as VPNs have it, about packets without a mark.
    fn matches(&self, packet: &Packet<'_>, marked: bool) -> bool {
        let within = |of: Option<(IpAddr, u8)>, address| of.is_none_or(|(network, bits)| covers(network, bits, address));
        let port = |range: Option<(u16, u16)>, port| range.is_none_or(|(first, last)| (first..=last).contains(&port));
        let all = within(self.source, packet.from)
            && within(self.destination, packet.to)
            && self.iif.as_deref().is_none_or(|name| name == packet.came_by)
            && self.mark.is_none_or(|(mark, mask)| marked || mark & mask.unwrap_or(u32::MAX) == 0)
            && (marked || self.uids.is_none())
            && self.protocol.is_none_or(|protocol| protocol == IpProtocol::Tcp)
            && port(self.ports[0], packet.ports.0)
            && port(self.ports[1], packet.ports.1);
        // What else it asks for may or may not be so.
        !self.more && all != self.inverted
    }

    /// The route of its table that takes packets to this address, or throws them back to the next rule.
    fn route<'a>(&self, to: IpAddr, routes: &'a [RouteMessage]) -> Option<&'a RouteMessage> {
        if self.action != RuleAction::ToTable {
            return None;
        }
        // A route for another type of service is not asked; nobody's SYN has one.
        let takes = |route: &&RouteMessage| {
            table(route) == self.table && route.header.tos == 0 && covers(network(route, to), bits(route), to)
        };
        let best = routes.iter().filter(takes).min_by_key(|route| (u8::MAX - bits(route), metric(route)))?;
        self.suppresses.is_none_or(|most| u32::from(bits(best)) > most).then_some(best)
    }

    /// A rule that does this, as `ip rule` takes and prints it.
    fn text(&self, does: &str) -> String {
        use std::fmt::Write as _;
        let network = |of: Option<(IpAddr, u8)>| of.map(|(address, bits)| format!("{address}/{bits}"));
        let mut text = if self.inverted { "not ".to_owned() } else { String::new() };
        let mut say = |what: &str, value: String| _ = write!(text, "{what} {value} ");
        say("from", network(self.source).unwrap_or_else(|| "all".to_owned()));
        if let Some(to) = network(self.destination) {
            say("to", to);
        }
        if let Some((mark, mask)) = self.mark {
            let mask = mask.filter(|mask| *mask != u32::MAX).map(|mask| format!("/{mask:#x}")).unwrap_or_default();
            say("fwmark", format!("{mark:#x}{mask}"));
        }
        if let Some(name) = &self.iif {
            say("iif", name.clone());
        }
        if self.protocol.is_some() {
            say("ipproto", "tcp".to_owned());
        }
        for (what, range) in ["sport", "dport"].into_iter().zip(self.ports) {
            if let Some((first, last)) = range {
                say(what, format!("{first}-{last}"));
            }
        }
        if let Some((first, last)) = self.uids {
            say("uidrange", format!("{first}-{last}"));
        }
        text.push_str(does);
        text
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
