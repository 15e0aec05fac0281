//! The kernel's own counters of a namespace (/proc/net/netstat), such as `ListenOverflows`.

use std::collections::HashMap;
use std::io;

use crate::kernel::netns::Netns;

/// Counters by name; names of the group `TcpExt` stand without it, others as `IpExt.InOctets`.
pub type Counters = HashMap<String, u64>;

/// Reads the counters of a namespace.
pub fn read(netns: &Netns) -> io::Result<Counters> {
    // Not /proc/net: that is the namespace of the process's first thread.
    let text = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat")).map_err(io::Error::other)??;
    Ok(parse(&text))
}

fn parse(text: &str) -> Counters {
    let mut counters = Counters::new();
    let mut lines = text.lines();
    // Lines come in pairs: names, then values, both led by the group's name.
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((same, values))) = (names.split_once(':'), values.split_once(':')) else { break };
        if group != same {
            break;
        }
        for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
            if let Ok(value) = value.parse() {
                counters.insert(if group == "TcpExt" { name.to_owned() } else { format!("{group}.{name}") }, value);
            }
        }
    }
    counters
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::fresh;

    #[test]
    fn names_and_values_are_paired() {
        let counters = parse("TcpExt: ListenOverflows ListenDrops\nTcpExt: 3 4\nIpExt: InOctets\nIpExt: 5\n");
        assert_eq!((counters["ListenOverflows"], counters["ListenDrops"], counters["IpExt.InOctets"]), (3, 4, 5));
        assert!(parse("TcpExt: A\nIpExt: 1\n").is_empty());
        assert!(parse("nonsense\n\n").is_empty());
    }

    #[test]
    fn a_fresh_namespace_counts_from_nothing() {
        let Some(netns) = fresh("a_fresh_namespace_counts_from_nothing") else { return };
        let counters = read(&netns).unwrap();
        for name in ["ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "IPReversePathFilter"] {
            assert_eq!(counters[name], 0, "{name}");
        }
    }
}
