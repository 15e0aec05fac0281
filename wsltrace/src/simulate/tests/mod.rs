//! What the programs print of real rulesets, and what becomes of a SYN.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod answer;
mod confirmation;
mod iptables;
mod matches;
mod solicitation;
mod statements;
mod way;

use std::net::IpAddr;

use super::unknown::LIST;
use super::{End, Machine, Packet, Prediction, Rulesets, Way, predict};
use crate::evidence::rules::Listing;

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A SYN from a client to port 8080, by `eth0`.
pub(crate) fn syn() -> Packet {
    Packet {
        way: Way::Outside { device: Some("eth0".to_owned()), bridged: false },
        source: Some(address("172.28.16.1")),
        source_port: None,
        destination: address("172.28.16.2"),
        destination_port: 8080,
        ecn: Some(false),
    }
}

pub(crate) fn machine() -> Machine {
    let own = |name: &str, text: &str| (name.to_owned(), address(text));
    let addresses =
        vec![own("lo", "127.0.0.1"), own("eth0", "172.28.16.2"), own("eth0", "fd00::2"), own("docker0", "172.17.0.1")];
    let ways = [(address("172.17.0.2"), "docker0".to_owned())].into();
    Machine { addresses, ways, proxies: None }
}

/// What `nft -j` prints of a table with these objects of its own.
pub(crate) fn rulesets(objects: &str) -> Rulesets {
    Rulesets::of(objects_of(objects), Listing::default(), &[]).unwrap()
}

/// The same, with one text for all rules of these chains that have these handles.
pub(crate) fn told_rulesets(objects: &str, chains: &[&str], handles: std::ops::Range<u64>, text: &str) -> Rulesets {
    let lines: Vec<(u64, String)> = handles.map(|handle| (handle, text.to_owned())).collect();
    let chains = chains.iter().map(|chain| (("inet".to_owned(), "t".to_owned(), (*chain).to_owned()), lines.clone()));
    Rulesets::of(objects_of(objects), Listing::of(chains), &[]).unwrap()
}

pub(super) fn objects_of(objects: &str) -> crate::simulate::nft::Objects {
    crate::simulate::nft::objects(&format!(r#"{{"nftables": [{objects}]}}"#)).unwrap()
}

pub(crate) fn chain(name: &str, handle: u64, hook: &str, priority: i64, policy: &str) -> String {
    let kind = if name.starts_with("nat") { "nat" } else { "filter" };
    format!(
        r#"{{"chain": {{"family": "inet", "table": "t", "name": "{name}", "handle": {handle}, "type": "{kind}", "hook": "{hook}", "prio": {priority}, "policy": "{policy}"}}}}"#
    )
}

pub(crate) fn rule(chain: &str, handle: u64, expressions: &str) -> String {
    format!(r#"{{"rule": {{"family": "inet", "table": "t", "chain": "{chain}", "handle": {handle}, "expr": [{expressions}]}}}}"#)
}

/// One word: `pass`, `drop 5` with the rule's handle, `maybe` with what it depends on.
pub(super) fn told(prediction: &Prediction) -> String {
    let of =
        |rule: &crate::evidence::Rule| rule.handle.or(rule.number.map(u64::from)).map_or("policy".to_owned(), |n| n.to_string());
    match &prediction.end {
        End::Passes { .. } => "pass".to_owned(),
        End::Dropped { rule, .. } => format!("drop {}", of(rule)),
        End::Rejected { rule, .. } => format!("reject {}", of(rule)),
        End::Queued { rule } => format!("queue {}", of(rule)),
        End::Maybe { because, .. } => {
            assert!(because.iter().all(|because| LIST.iter().any(|entry| entry.name == because.name)), "{because:?}");
            let names: Vec<&str> = because.iter().map(|because| because.name.as_str()).collect();
            format!("maybe {}", names.join(", "))
        }
    }
}

pub(super) fn end(objects: &[String], packet: &Packet) -> Prediction {
    predict(&rulesets(&objects.join(",")), packet, &machine())
}
