//! Rules of `ip rule` and routes that refuse packets: in words, and the command that takes one away.

use std::net::IpAddr;

use crate::escape::escape;
use crate::evidence::Refusal;

/// The table that routes stand in unless told otherwise.
const MAIN_TABLE: u32 = 254;

/// What refuses packets to an address, in words.
pub(crate) fn refuser(by: &Refusal, to: IpAddr) -> String {
    let if_marked = if by.is_marked() { ", if they have the mark that leads there" } else { "" };
    match by {
        Refusal::Rule(rule) => {
            let (preference, text) = (rule.preference, escape(&rule.text));
            let only = if rule.text.contains(" uidrange ") { ", if the server is one of those users" } else { if_marked };
            format!("the rule \"{preference}: {text}\" of `ip rule` refuses packets to {to}{only}")
        }
        Refusal::Route(route) => {
            let (kind, network, table) = (&route.kind, network(by), of_table(route.table));
            format!("the route \"{kind} {network}\"{table} refuses packets to {to}{if_marked}")
        }
    }
}

/// The command that takes it away, without `sudo`.
pub(crate) fn removal(by: &Refusal, to: IpAddr) -> String {
    let ip = if to.is_ipv6() { "ip -6" } else { "ip" };
    match by {
        Refusal::Rule(rule) => format!("{ip} rule del pref {} {}", rule.preference, escape(&rule.text)),
        Refusal::Route(route) => {
            // A nexthop object makes it what it is: `ip route` finds it by no such kind.
            let kind = if route.nexthop.is_some() { String::new() } else { format!("{} ", route.kind) };
            format!("{ip} route del {kind}{}{}", network(by), of_table(route.table))
        }
    }
}

fn network(by: &Refusal) -> String {
    let Refusal::Route(route) = by else { return String::new() };
    let from = route.source.map(|(network, bits)| format!(" from {network}/{bits}")).unwrap_or_default();
    let nexthop = route.nexthop.map(|id| format!(" nhid {id}")).unwrap_or_default();
    format!("{}/{}{from}{nexthop}", route.destination.0, route.destination.1)
}

/// The table of a route, as `ip route` takes it; nothing for that of which it speaks unless told otherwise.
pub(super) fn of_table(table: u32) -> String {
    if table == MAIN_TABLE { String::new() } else { format!(" table {table}") }
}
