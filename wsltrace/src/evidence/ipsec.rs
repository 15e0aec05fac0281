//! Which policy of `IPsec` refuses a packet, by the list that `ip` prints.

use std::io;
use std::net::IpAddr;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::kernel::addresses::covers;
use crate::kernel::command::{LISTING_LIMIT, output_within};
use crate::kernel::netns::Netns;

/// `proto` of a selector, as `ip` prints it.
const TCP: [&str; 2] = ["tcp", "6"];

/// A policy of `IPsec` that refuses a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpsecPolicy {
    /// What it is about, as `ip xfrm policy` prints it and takes it, such as `src 10.0.0.1/32 dst 0.0.0.0/0 proto tcp`.
    pub selector: String,
    /// `in`, `out` or `fwd`.
    pub direction: String,
    /// Whether it blocks; otherwise it wants a transformation, such as encryption.
    pub blocks: bool,
}

/// The ends of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// Source and port.
    pub(super) from: (IpAddr, u16),
    /// Destination and port.
    pub(super) to: (IpAddr, u16),
}

/// The policy that refuses TCP packets with these ends in this direction; `None` also where several could be it, or one is about more
/// than ends.
pub(super) fn refusing(netns: &Netns, ends: Ends, direction: &str) -> io::Result<Option<IpsecPolicy>> {
    let list = || output_within(LISTING_LIMIT, Command::new("ip").args(["-o", "xfrm", "policy", "list"]));
    Ok(choose(&netns.run(list).map_err(io::Error::other)??, ends, direction))
}

/// Whether a policy wants what comes in protected in transport mode. Such a packet comes to this machine's devices unreadable, and is not
/// seen there again when it is readable: it goes on behind PREROUTING's entrance (6.12).
pub fn protects_what_comes(netns: &Netns) -> io::Result<bool> {
    let list = || output_within(LISTING_LIMIT, Command::new("ip").args(["-o", "xfrm", "policy", "list"]));
    Ok(protects(&netns.run(list).map_err(io::Error::other)??))
}

fn protects(list: &str) -> bool {
    let words = |line: &str, wanted: [&str; 2]| {
        let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || c == '\\').filter(|word| !word.is_empty()).collect();
        words.windows(2).any(|pair| pair == wanted)
    };
    list.lines().any(|line| words(line, ["dir", "in"]) && words(line, ["mode", "transport"]))
}

/// The kernel takes the first that fits, by priority.
fn choose(list: &str, ends: Ends, direction: &str) -> Option<IpsecPolicy> {
    let listed: Vec<Listed> = list.lines().filter_map(|line| Listed::parse(line, ends)).collect();
    // What a socket has of its own comes before all others, and which socket is not told.
    if listed.iter().any(|policy| policy.of_socket) {
        return None;
    }
    let fitting = || listed.iter().filter(|policy| policy.fits != Some(false) && policy.direction == direction);
    let first = fitting().map(|policy| policy.priority).min()?;
    let mut candidates = fitting().filter(|policy| policy.priority == first);
    let (Some(policy), None) = (candidates.next(), candidates.next()) else { return None };
    let refuses = policy.blocks || policy.transforms;
    (policy.fits == Some(true) && refuses).then(|| IpsecPolicy {
        selector: policy.selector.join(" "),
        direction: direction.to_owned(),
        blocks: policy.blocks,
    })
}

/// One policy of the list.
struct Listed<'a> {
    selector: Vec<&'a str>,
    direction: &'a str,
    priority: u32,
    blocks: bool,
    transforms: bool,
    of_socket: bool,
    /// Whether it is about these packets; `None` where more than their ends decides.
    fits: Option<bool>,
}

impl<'a> Listed<'a> {
    fn parse(line: &'a str, ends: Ends) -> Option<Self> {
        let mut parts = line.split('\\').map(|part| part.split_whitespace().collect::<Vec<_>>());
        let (selector, action) = (parts.next()?, parts.next()?);
        let after = |key: &str| action.iter().skip_while(|word| **word != key).nth(1).copied();
        let rest: Vec<Vec<&str>> = parts.collect();
        let further = |key: &str| rest.iter().any(|part| part.first() == Some(&key));
        let by_more = further("mark") || further("if_id");
        let fits = match (fits(&selector, ends), by_more) {
            (Some(true), true) => None,
            (fits, _) => fits,
        };
        Some(Self {
            direction: after("dir").unwrap_or_default(),
            priority: after("priority").and_then(|number| number.parse().ok()).unwrap_or(0),
            blocks: after("action") == Some("block"),
            transforms: further("tmpl"),
            of_socket: action.first() == Some(&"socket"),
            selector,
            fits,
        })
    }
}

fn fits(selector: &[&str], ends: Ends) -> Option<bool> {
    let mut known = true;
    for pair in selector.chunks(2) {
        let holds = match *pair {
            ["src", network] => within(network, ends.from.0),
            ["dst", network] => within(network, ends.to.0),
            ["proto", protocol] => Some(TCP.contains(&protocol)),
            ["sport", port] => port.parse().ok().map(|port: u16| port == ends.from.1),
            ["dport", port] => port.parse().ok().map(|port: u16| port == ends.to.1),
            _ => None,
        };
        match holds {
            Some(false) => return Some(false),
            Some(true) => {}
            None => known = false,
        }
    }
    known.then_some(true)
}

fn within(network: &str, address: IpAddr) -> Option<bool> {
    let (network, bits) = network.split_once('/')?;
    let (network, bits): (IpAddr, u8) = (network.parse().ok()?, bits.parse().ok()?);
    Some(covers(network, bits, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "src 0.0.0.0/0 dst 0.0.0.0/0 \\\tdir out priority 9 ptype main \\\ttmpl src 0.0.0.0 dst 0.0.0.0\\\t\tproto esp reqid 0 mode transport\\\n\
        src 10.0.0.1/32 dst 0.0.0.0/0 proto tcp dport 80 \\\tdir in action block priority 3 ptype main \\\n\
        src 10.0.0.0/8 dst 0.0.0.0/0 \\\tdir in priority 5 ptype main \\\n\
        src ::/0 dst ::/0 \\\tdir fwd action block priority 0 ptype main \\\tmark 0x1/0xff \\\n";

    fn refusing(list: &str, from: &str, to: &str, direction: &str) -> Option<(String, bool)> {
        let end = |text: &str| text.parse::<std::net::SocketAddr>().map(|end| (end.ip(), end.port())).ok();
        let ends = Ends { from: end(from)?, to: end(to)? };
        choose(list, ends, direction).map(|policy| (policy.selector, policy.blocks))
    }

    #[test]
    fn the_first_that_fits_decides() {
        let blocks = Some(("src 10.0.0.1/32 dst 0.0.0.0/0 proto tcp dport 80".to_owned(), true));
        assert_eq!(refusing(LIST, "10.0.0.1:50000", "10.0.0.2:80", "in"), blocks);
        assert_eq!(refusing(LIST, "10.0.0.1:50000", "10.0.0.2:81", "in"), None, "the next one allows");
        let encrypts = Some(("src 0.0.0.0/0 dst 0.0.0.0/0".to_owned(), false));
        assert_eq!(refusing(LIST, "10.0.0.2:80", "10.0.0.1:50000", "out"), encrypts);
        assert_eq!(refusing(LIST, "10.0.0.2:80", "10.0.0.1:50000", "fwd"), None);
    }

    #[test]
    fn what_comes_protected_in_transport_mode_is_known() {
        assert!(!protects(LIST), "that is for what leaves");
        assert!(protects(&LIST.replace("dir out", "dir in")));
        assert!(!protects(&LIST.replace("dir out", "dir in").replace("transport", "tunnel")));
    }

    #[test]
    fn what_more_than_ends_decides_is_not_named() {
        assert_eq!(refusing(LIST, "[fd00::1]:50000", "[fd00::2]:80", "fwd"), None, "a mark");
        let of_device = LIST.replace("dport 80", "dport 80 dev eth1");
        assert_eq!(refusing(&of_device, "10.0.0.1:50000", "10.0.0.2:80", "in"), None);
        let twice = LIST.replace("priority 5", "action block priority 3");
        assert_eq!(refusing(&twice, "10.0.0.1:50000", "10.0.0.2:80", "in"), None);
        let of_socket = format!("{LIST}src 0.0.0.0/0 dst 0.0.0.0/0 \\\tsocket in priority 0 ptype main \\\n");
        assert_eq!(refusing(&of_socket, "10.0.0.1:50000", "10.0.0.2:80", "in"), None);
    }
}
