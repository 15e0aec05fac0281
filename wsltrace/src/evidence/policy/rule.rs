//! One rule of `ip rule`: what the kernel tells of it, and which packets it is about.

use std::cmp::Reverse;
use std::net::IpAddr;

use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::Packet;
use crate::evidence::routes::{bits, metric, network, source, table};
use crate::kernel::addresses::covers;

/// One rule.
pub(super) struct Rule {
    pub(super) preference: u32,
    pub(super) inverted: bool,
    pub(super) action: RuleAction,
    pub(super) table: u32,
    pub(super) source: Option<(IpAddr, u8)>,
    pub(super) destination: Option<(IpAddr, u8)>,
    pub(super) iif: Option<String>,
    pub(super) mark: Option<(u32, Option<u32>)>,
    /// The preference of the rule that is asked next.
    pub(super) goto: Option<u32>,
    pub(super) protocol: Option<IpProtocol>,
    pub(super) ports: [Option<(u16, u16)>; 2],
    /// The users whose packets it is about, by their numbers.
    pub(super) uids: Option<(u32, u32)>,
    /// Routes of no more than so many bits do not count.
    pub(super) suppresses: Option<u32>,
    /// It leads what belongs to a VRF to the VRF's table.
    pub(super) of_vrfs: bool,
    /// It asks for something that is not looked at here, such as the outgoing interface.
    pub(super) more: bool,
}

impl Rule {
    pub(super) fn of(message: RuleMessage) -> Self {
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
            of_vrfs: false,
            more: header.tos != 0,
        };
        let mut mark_bits = None;
        for attribute in message.attributes {
            rule.of_vrfs |= attribute == RuleAttribute::L3MDev(true);
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
    pub(super) fn is_usual(&self) -> bool {
        self.action == RuleAction::ToTable && !self.inverted && matches!(self.table, 127 | 128 | 253..=255)
    }

    /// Whether it is about every packet.
    pub(super) fn is_for_all(&self) -> bool {
        let ends = self.source.is_none() && self.destination.is_none() && self.ports == [None, None];
        ends && self.iif.is_none() && self.mark.is_none() && self.protocol.is_none() && !self.inverted && !self.more
    }

    /// How it refuses.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        match self.action {
            RuleAction::Blackhole => Some("blackhole"),
            RuleAction::Unreachable => Some("unreachable"),
            RuleAction::Prohibit => Some("prohibit"),
            _ => None,
        }
    }

    /// Whether it is about this packet, as one without a mark, or as one with the mark that it asks for. A rule that is inverted is about
    /// what does not fit: `not fwmark 51820`, as VPNs have it, about packets without a mark.
    pub(super) fn matches(&self, packet: &Packet<'_>, marked: bool) -> bool {
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

    /// The route of its table that takes this packet, or throws it back to the next rule.
    pub(super) fn route<'a>(&self, packet: &Packet<'_>, routes: &'a [RouteMessage]) -> Option<&'a RouteMessage> {
        self.best(packet, routes.iter())
    }

    /// The same of some of the routes.
    pub(super) fn best<'a>(
        &self,
        packet: &Packet<'_>,
        routes: impl Iterator<Item = &'a RouteMessage>,
    ) -> Option<&'a RouteMessage> {
        let to = packet.to;
        if self.action != RuleAction::ToTable {
            return None;
        }
        // A route for another type of service is not asked; nobody's SYN has one.
        let takes = |route: &&RouteMessage| {
            table(route) == self.table
                && route.header.tos == 0
                && covers(network(route, to), bits(route), to)
                && source(route).is_none_or(|(network, bits)| covers(network, bits, packet.from))
        };
        // Of routes to one network IPv6 asks those of some sources first.
        let wideness = |route: &RouteMessage| (bits(route), source(route).map_or(0, |(_, bits)| bits));
        let best = routes.filter(takes).min_by_key(|route| (Reverse(wideness(route)), metric(route)))?;
        self.suppresses.is_none_or(|most| u32::from(bits(best)) > most).then_some(best)
    }

    /// A rule that does this, as `ip rule` takes and prints it.
    pub(super) fn text(&self, does: &str) -> String {
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
