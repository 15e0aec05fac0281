//! The kernel's own counters of a namespace (/proc/net/netstat, snmp and snmp6), such as `ListenOverflows`.

use std::collections::HashMap;
use std::io;

use crate::kernel::netns::Netns;

/// Counters by name; names of the group `TcpExt` and those for IPv6 stand without a group, others as `IpExt.InOctets`.
pub type Counters = HashMap<String, u64>;

/// Reads the counters of a namespace.
pub fn read(netns: &Netns) -> io::Result<Counters> {
    // Not /proc/net: that is the namespace of the process's first thread.
    let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let [extended, basic, v6] = netns.run(|| ["netstat", "snmp", "snmp6"].map(read)).map_err(io::Error::other)?;
    let v6 = match v6 {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let mut counters = parse(&(extended? + &basic?));
    counters.extend(v6.lines().filter_map(parse_v6));
    Ok(counters)
}

/// How many ICMP errors the kernel did not send because it limits their rate; `None` where it does not count them (before
/// Linux 6.4).
pub fn icmp_suppressed(counters: &Counters) -> Option<u64> {
    let v6 = counters.get("Icmp6OutRateLimitHost").unwrap_or(&0);
    Some(counters.get("Icmp.OutRateLimitGlobal")? + counters.get("Icmp.OutRateLimitHost")? + v6)
}

/// How many packets of a namespace's own `IPsec` policies have refused so far; 0 on a kernel without `IPsec`.
pub fn refused_by_ipsec(netns: &Netns) -> io::Result<u64> {
    let text = match netns.run(|| std::fs::read_to_string("/proc/thread-self/net/xfrm_stat")).map_err(io::Error::other)? {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        text => text?,
    };
    let refusals = ["XfrmOutPolBlock", "XfrmOutNoStates"];
    Ok(text.lines().filter_map(parse_v6).filter(|(name, _)| refusals.contains(&name.as_str())).map(|(_, count)| count).sum())
}

fn parse_v6(line: &str) -> Option<(String, u64)> {
    let (name, value) = line.split_once(char::is_whitespace)?;
    Some((name.to_owned(), value.trim().parse().ok()?))
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
        assert_eq!(parse_v6("Icmp6OutRateLimitHost           \t7"), Some(("Icmp6OutRateLimitHost".to_owned(), 7)));
    }

    #[test]
    fn suppressed_errors_are_counted_where_the_kernel_does() {
        let old = parse("Icmp: OutMsgs\nIcmp: 1\n");
        assert_eq!(icmp_suppressed(&old), None);
        let mut new = parse("Icmp: OutRateLimitGlobal OutRateLimitHost\nIcmp: 1 2\n");
        assert_eq!(icmp_suppressed(&new), Some(3));
        new.insert("Icmp6OutRateLimitHost".to_owned(), 4);
        assert_eq!(icmp_suppressed(&new), Some(7));
    }

    #[test]
    fn a_fresh_namespace_counts_from_nothing() {
        let Some(netns) = fresh("a_fresh_namespace_counts_from_nothing") else { return };
        let counters = read(&netns).unwrap();
        for name in ["ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "IPReversePathFilter", "Icmp.OutMsgs", "Icmp6OutMsgs"] {
            assert_eq!(counters[name], 0, "{name}");
        }
    }
}
