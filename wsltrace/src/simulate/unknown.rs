//! For what the simulation says "maybe": the written list. Whatever is not understood answers by a name that stands here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its name, with which every text of [`super::End::Maybe`] begins.
    pub name: &'static str,
    /// Why no answer is given.
    pub why: &'static str,
}

/// What is not understood, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// The entry's name.
    pub name: String,
    /// The table and chain, or the program.
    pub place: String,
}

impl Because {
    /// Whether there may be other ends than those that were found.
    pub(super) fn hides_ends(&self) -> bool {
        [TOO_MANY, UNREAD, BRIDGE, ARP].contains(&self.name.as_str()) || (self.name.as_str(), self.place.as_str()) == (CT, EXEMPT)
    }
}

/// The place that is told of what a rule exempts from connection tracking.
pub(super) const EXEMPT: &str = "notrack";
pub(super) const SOURCE: &str = "the client's address";
pub(super) const SOURCE_PORT: &str = "the client's port";
pub(super) const DESTINATION: &str = "the address after DNAT";
pub(super) const DESTINATION_PORT: &str = "the port after DNAT";
pub(super) const INPUT_DEVICE: &str = "the input device";
pub(super) const OUTPUT_DEVICE: &str = "the output device";
pub(super) const MARK: &str = "mark";
pub(super) const CT: &str = "ct";
pub(super) const FLAGS: &str = "tcp flags";
pub(super) const FIB: &str = "fib";
pub(super) const CHANGING_SET: &str = "a set that rules change";
pub(super) const CONSTANT: &str = "a constant";
pub(super) const EXPRESSION: &str = "another nft expression";
pub(super) const XT: &str = "xt";
pub(super) const MATCH: &str = "another iptables match";
pub(super) const TARGET: &str = "another iptables target";
pub(super) const ORDER: &str = "chains of equal priority";
pub(super) const ARP: &str = "arp tables";
pub(super) const BRIDGE: &str = "bridge tables";
pub(super) const UNREAD: &str = "not read";
pub(super) const TOO_MANY: &str = "too many ways";

const EARLIER: &str = "earlier packets decide";
const CHANCE: &str = "chance decides";
const CLOCK: &str = "the time of day decides";
const BYTES: &str = "other bytes of the packet decide, which are not known";
const SOCKETS: &str = "the sockets of this machine decide";

/// The list.
pub const LIST: [Unknown; 72] = [
    entry(SOURCE, "it is not given, or was translated to one of several"),
    entry(SOURCE_PORT, "a client takes any"),
    entry(DESTINATION, "a range, a prefix, or a map whose key is not known"),
    entry(DESTINATION_PORT, "a range, or a map whose key is not known"),
    entry(INPUT_DEVICE, "it is not given"),
    entry(OUTPUT_DEVICE, "it is not given; routing decides"),
    entry(MARK, "it was set from something that is not known"),
    entry(
        CT,
        "connection tracking's state is not known here: a part of it that is not simulated, a chain at its own priority, or a chain of NAT where no rule is known to ask for tracking",
    ),
    entry(FLAGS, "a SYN may ask for congestion notification by two flags more"),
    entry(FIB, "routing decides more than whether the destination is this machine"),
    entry(CHANGING_SET, "a rule adds to it or takes from it"),
    entry(CONSTANT, "a name whose number is not known"),
    entry(EXPRESSION, "nft prints an expression that is not on either list"),
    entry(XT, "an expression of iptables that no text of iptables explains"),
    entry(MATCH, "a match or an option that is not on either list"),
    entry(TARGET, "a target or an option that is not on either list"),
    entry(ORDER, "the order in which they were made decides, which is not kept"),
    entry(ARP, "the tables of the old arptables are not read"),
    entry(BRIDGE, "frames on a bridge are not simulated"),
    entry(UNREAD, "a program that lists rules is missing or failed"),
    entry(TOO_MANY, "so many things are not known that not all of their ends were followed"),
    entry("limit", EARLIER),
    entry("hashlimit", EARLIER),
    entry("quota", EARLIER),
    entry("recent", EARLIER),
    entry("ct count", EARLIER),
    entry("connlimit", EARLIER),
    entry("connbytes", EARLIER),
    entry("rateest", EARLIER),
    entry("nfacct", EARLIER),
    entry("meter", EARLIER),
    entry("numgen", CHANCE),
    entry("statistic", CHANCE),
    entry("random", CHANCE),
    entry("jhash", "a hash of bytes decides"),
    entry("symhash", "a hash of bytes decides"),
    entry("cluster", "a hash of bytes decides"),
    entry("cpu", "the processor that takes the packet decides"),
    entry("time", CLOCK),
    entry("hour", CLOCK),
    entry("day", CLOCK),
    entry("socket", SOCKETS),
    entry("owner", SOCKETS),
    entry("cgroup", SOCKETS),
    entry("skuid", SOCKETS),
    entry("skgid", SOCKETS),
    entry("rt", "routing decides"),
    entry("rpfilter", "routing decides"),
    entry("policy", "IPsec decides"),
    entry("ipsec", "IPsec decides"),
    entry("osf", "the client's operating system decides"),
    entry("set", "the contents of an ipset are not read"),
    entry("string", BYTES),
    entry("bpf", BYTES),
    entry("u32", BYTES),
    entry("length", BYTES),
    entry("ttl", BYTES),
    entry("hl", BYTES),
    entry("mac", BYTES),
    entry("ether", BYTES),
    entry("tcp option", BYTES),
    entry("tcpmss", BYTES),
    entry("exthdr", BYTES),
    entry("payload", BYTES),
    entry("physdev", "frames on a bridge are not simulated"),
    entry("pkttype", "how the frame was addressed decides"),
    entry("devgroup", "the group or kind of a device decides"),
    entry("synproxy", "the kernel answers in the server's place"),
    entry("SYNPROXY", "the kernel answers in the server's place"),
    entry("tproxy", SOCKETS),
    entry("TPROXY", SOCKETS),
    entry("fwd", "the packet goes on by another device"),
];

const fn entry(name: &'static str, why: &'static str) -> Unknown {
    Unknown { name, why }
}

/// The list's own spelling of a name; `otherwise` when it is not on the list.
pub(super) fn named(name: &str, otherwise: &'static str) -> &'static str {
    LIST.iter().find(|entry| entry.name == name).map_or(otherwise, |entry| entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once() {
        let mut names: Vec<&str> = LIST.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LIST.len());
        assert_eq!((named("limit", XT), named("nothing", XT)), ("limit", XT));
    }

    #[test]
    fn the_list_is_written_down() {
        let page = include_str!("../../../docs/simulation.md");
        let missing = LIST.iter().filter(|entry| !page.contains(&format!("\n| {} | {} |\n", entry.name, entry.why)));
        assert_eq!(missing.map(|entry| entry.name).collect::<Vec<_>>(), Vec::<&str>::new());
        let (_, table) = page.split_once("## What \"maybe\" may depend on").unwrap_or_default();
        assert_eq!(table.lines().filter(|line| line.starts_with("| ")).count(), LIST.len() + 1, "nothing else stands there");
    }
}
