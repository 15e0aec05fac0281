//! Where DNAT leads to: the addresses that rulesets name. Packets are followed into the namespaces that have them.

use std::io;
use std::net::IpAddr;
use std::process::Command;

use super::super::Rule;
use super::super::words;
use super::{inside, legacy_tables, listing::Listing, present};
use crate::journey::Family;
use crate::kernel::command::{LISTING_LIMIT, output_within};
use crate::kernel::netns::Netns;

/// The addresses to which the DNAT rules of a namespace send, as far as the programs that list rules are installed.
pub fn dnat_targets(netns: &Netns) -> io::Result<Vec<IpAddr>> {
    let mut targets = Vec::new();
    if inside(netns, present)?.tables
        && let Some(text) = asked(netns, "nft", &["-s", "-a", "list", "ruleset"])?
    {
        targets
            .extend(Listing::parse(&text).texts().filter_map(|rule| rule.split_once("dnat")).flat_map(|(_, to)| addresses(to)));
    }
    for (family, program) in [(Family::Ipv4, "iptables-legacy-save"), (Family::Ipv6, "ip6tables-legacy-save")] {
        if legacy_tables(netns, family)?.iter().any(|table| table == "nat")
            && let Some(text) = asked(netns, program, &["-t", "nat"])?
        {
            targets.extend(text.lines().filter_map(|rule| rule.split_once("--to-destination")).flat_map(|(_, to)| addresses(to)));
        }
    }
    targets.sort_unstable();
    targets.dedup();
    Ok(targets)
}

/// The rules of a namespace that give packets another destination; `None` where a program that lists them is not there.
pub(crate) fn translating_rules(netns: &Netns) -> io::Result<Option<Vec<String>>> {
    let mut rules = Vec::new();
    if inside(netns, present)?.tables {
        let Some(text) = asked(netns, "nft", &["-s", "-a", "list", "ruleset"])? else { return Ok(None) };
        rules.extend(
            Listing::parse(&text).texts().filter(|rule| translates(rule, true) || rewrites_end(rule, true)).map(str::to_owned),
        );
    }
    for (family, program) in [(Family::Ipv4, "iptables-legacy-save"), (Family::Ipv6, "ip6tables-legacy-save")] {
        if legacy_tables(netns, family)?.iter().any(|table| table == "nat") {
            let Some(text) = asked(netns, program, &["-t", "nat"])? else { return Ok(None) };
            let targets = ["-j DNAT", "-j REDIRECT", "-j NETMAP"];
            rules.extend(text.lines().filter(|rule| targets.iter().any(|target| rule.contains(target))).map(str::to_owned));
        }
    }
    Ok(Some(rules))
}

/// The ports from which the rules of a namespace lead connections on to this one: a container's is published so.
pub(crate) fn published_as(netns: &Netns, port: u16) -> io::Result<Vec<u16>> {
    Ok(leading_to(&translating_rules(netns)?.unwrap_or_default(), port))
}

/// The same of these rules. None where a rule takes them from a set or a range.
fn leading_to(rules: &[String], port: u16) -> Vec<u16> {
    let leads = |rule: &String| {
        let (matches, target) = rule.split_once("dnat").or_else(|| rule.split_once("--to-destination"))?;
        let behind = target.split_whitespace().rev().find_map(|word| word.rsplit_once(':')?.1.parse::<u16>().ok())?;
        let words = words(matches);
        let asked = words.windows(2).find(|two| matches!(two[0], "dport" | "--dport")).and_then(|two| two[1].parse().ok())?;
        (behind == port && asked != port).then_some(asked)
    };
    let mut ports: Vec<u16> = rules.iter().filter_map(leads).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Where a rule leads connections on, and which it leaves alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leading {
    /// The address that it gives them.
    pub to: IpAddr,
    /// The only one that it has to be asked by.
    pub by: Option<IpAddr>,
    /// The interface whose packets it leaves alone, as Docker's rules do where no proxy of its own serves containers.
    pub except: Option<String>,
}

/// The rule that leads connections for this port on, where one does; rather one of the family of `like`.
pub(crate) fn leads_on(rules: &[String], port: u16, like: IpAddr) -> Option<Leading> {
    let leads = |rule: &String| {
        let (matches, target) = rule.split_once("dnat").or_else(|| rule.split_once("--to-destination"))?;
        let words = words(matches);
        let is_of_port = |two: &[&str]| matches!(two[0], "dport" | "--dport") && two[1].parse() == Ok(port);
        let to = addresses(target).next().filter(|_| words.windows(2).any(is_of_port))?;
        // What is turned round (`!`, `!=`) is no address by itself.
        let by = words.iter().enumerate().find_map(|(at, word)| {
            let turned = at > 0 && words.get(at - 1) == Some(&"!");
            let value = words.get(at + 1).filter(|_| matches!(*word, "daddr" | "-d") && !turned)?;
            value.trim_end_matches("/32").trim_end_matches("/128").parse().ok()
        });
        let except = words.windows(3).find_map(|three| match three {
            ["iifname" | "iif", "!=", name] | ["!", "-i", name] => Some(name.trim_matches('"').to_owned()),
            _ => None,
        });
        Some(Leading { to, by, except })
    };
    let all = || rules.iter().filter_map(leads);
    all().find(|leading| leading.to.is_ipv6() == like.is_ipv6()).or_else(|| all().next())
}

/// Whether one of the rules that give another destination sends packets to an address; `None` where they do not tell: one takes its
/// target from a map, from a range, or in words that nft does not have.
pub(crate) fn one_sends_to(rules: &[String], to: IpAddr) -> Option<bool> {
    let mut all_plain = true;
    for rule in rules {
        let target = rule.split_once("dnat").or_else(|| rule.split_once("--to-destination")).map(|(_, target)| target);
        let Some(target) = target else {
            // A port of this machine.
            all_plain &= rule.contains("redirect") || rule.contains("-j REDIRECT");
            continue;
        };
        if addresses(target).any(|address| address == to) {
            return Some(true);
        }
        all_plain &= addresses(target).next().is_some() && !target.contains(['@', '-', '/', '{']) && !target.contains("map");
    }
    all_plain.then_some(false)
}

/// Whether a rule plainly sends packets to another address than this.
pub(crate) fn sends_elsewhere(rule: &Rule, to: IpAddr) -> bool {
    let leads = |text: &&String| text.contains("dnat") || text.contains("--to-destination");
    let text = rule.text.as_ref().filter(leads);
    text.is_some_and(|text| one_sends_to(std::slice::from_ref(text), to) == Some(false))
}

/// The port behind `dnat to ADDRESS:PORT` or `redirect to :PORT`.
pub(super) fn translated_port(text: &str) -> Option<u16> {
    let (_, target) = text.split_once("dnat").or_else(|| text.split_once("redirect"))?;
    let (_, target) = target.split_once(" to ")?;
    target.split_whitespace().next()?.rsplit_once(':')?.1.parse().ok()
}

/// Whether a rule of nft gives packets another destination, or else another source.
pub(super) fn translates(text: &str, destination: bool) -> bool {
    // Which of the two NETMAP gives, its chain says.
    let statements = if destination { ["dnat", "redirect", "netmap"] } else { ["snat", "masquerade", "netmap"] };
    // Targets of iptables that nft has no words for stand as `xt target "DNAT"`.
    super::named::without_comment(text)
        .split(' ')
        .any(|word| statements.iter().any(|statement| word.trim_matches('"').eq_ignore_ascii_case(statement)))
}

/// Whether a rule writes into a packet's addresses or ports, as NAT does not: `ip daddr set ADDRESS`, `tcp sport set PORT`.
pub(super) fn rewrites(text: &str) -> bool {
    rewrites_end(text, true) || rewrites_end(text, false)
}

/// The same of the destination, or else of the source.
pub(super) fn rewrites_end(text: &str, destination: bool) -> bool {
    let (address, port) = if destination { ("daddr", "dport") } else { ("saddr", "sport") };
    let words: Vec<&str> = super::named::without_comment(text).split(' ').collect();
    words.windows(3).any(|three| {
        let [what, end, "set"] = three else { return false };
        matches!(*what, "ip" | "ip6") && *end == address || matches!(*what, "tcp" | "th") && *end == port
    })
}

/// What a program says; nothing when it is not installed or fails, which is logged.
fn asked(netns: &Netns, program: &str, arguments: &[&str]) -> io::Result<Option<String>> {
    let answer = netns.run(|| output_within(LISTING_LIMIT, Command::new(program).args(arguments))).map_err(io::Error::other)?;
    Ok(answer.inspect_err(|error| log::debug!("{program}: {error}")).ok())
}

/// The addresses in a text such as `ip to 10.0.0.2:8080` or `to [fd00::2]:80`.
fn addresses(text: &str) -> impl Iterator<Item = IpAddr> {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == ':' || c == '.'));
    words.filter_map(|word| {
        word.parse().ok().or_else(|| word.rsplit_once(':')?.0.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4))
    })
}

#[cfg(test)]
mod tests {
    use super::{Leading, addresses, leading_to, leads_on, one_sends_to, rewrites, rewrites_end, translates};

    #[test]
    fn rules_that_write_addresses_or_ports_are_told_from_those_that_compare_them() {
        for (text, destination) in [
            ("tcp sport 8080 ip daddr set 172.28.16.99", true),
            ("tcp sport 8080 counter tcp sport set 8081", false),
            ("ip6 saddr set fd00::9", false),
        ] {
            assert!(rewrites(text), "{text}");
            assert_eq!((rewrites_end(text, true), rewrites_end(text, false)), (destination, !destination), "{text}");
        }
        for text in [
            "ip saddr 10.0.0.1 tcp dport 80 accept",
            "meta mark set 5",
            "tcp dport 80 comment \"ip daddr set\"",
            "ip dscp set cs1",
        ] {
            assert!(!rewrites(text), "{text}");
        }
    }

    #[test]
    fn a_rule_translates_the_destination_or_the_source() {
        for (text, destination, source) in [
            ("tcp dport 8080 dnat to 172.17.0.2:80", true, false),
            ("redirect to :9090", true, false),
            ("xt target \"REDIRECT\"", true, false),
            ("oifname \"br0\" masquerade", false, true),
            ("snat to 10.0.0.1", false, true),
            ("tcp dport 8080 accept comment \"no dnat here\"", false, false),
        ] {
            assert_eq!((translates(text, true), translates(text, false)), (destination, source), "{text}");
        }
    }

    #[test]
    fn a_published_port_leads_to_the_one_behind_it() {
        let rules = [
            "tcp dport 8080 counter packets 3 bytes 180 dnat to 172.17.0.2:80",
            "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8443 -j DNAT --to-destination 172.17.0.2:80",
            "tcp dport 80 dnat to 172.17.0.3:80",
            "tcp dport 9000-9009 dnat to 172.17.0.2:80",
            "tcp dport 7000 dnat ip6 to [fd00::2]:80 persistent",
            "tcp dport 81 dnat to 172.17.0.2",
            "tcp dport 82 dnat to 172.17.0.2:8082",
        ];
        let rules = rules.map(str::to_owned);
        assert_eq!(leading_to(&rules, 80), [7000, 8080, 8443]);
        assert_eq!(leading_to(&rules, 8082), [82]);
        let like = std::net::IpAddr::from([172, 28, 16, 2]);
        let told = |Leading { to, by, except }: Leading| {
            let by = by.map(|by| format!("{by} to ")).unwrap_or_default();
            format!("{by}{to}{}", except.map(|except| format!(" not {except}")).unwrap_or_default())
        };
        let leads = |port| leads_on(&rules, port, like).map_or_else(String::new, told);
        assert_eq!([leads(8080), leads(7000)], ["172.17.0.2", "fd00::2"]);
        assert_eq!([leads(7001), leads(9000)], ["", ""]);
        let rules = [
            "tcp dport 1 dnat ip6 to [fd00::2]:80",
            "-A DOCKER -d 172.28.16.3/32 ! -i br0 -p tcp -m tcp --dport 1 -j DNAT --to-destination 172.17.0.2:80",
            "-A OUTPUT ! -d 127.0.0.0/8 -p tcp --dport 2 -j DNAT --to-destination 172.17.0.2:80",
            "ip daddr 127.0.0.1 tcp dport 3 dnat to 172.17.0.2:80",
            "ip daddr != 127.0.0.1 tcp dport 4 dnat to 172.17.0.2:80",
        ];
        let rules = rules.map(str::to_owned);
        let leads = |port| leads_on(&rules, port, like).map_or_else(String::new, told);
        let all = [leads(1), leads(2), leads(3), leads(4)];
        assert_eq!(all, ["172.28.16.3 to 172.17.0.2 not br0", "172.17.0.2", "127.0.0.1 to 172.17.0.2", "172.17.0.2"]);
        assert!(leading_to(&rules, 81).is_empty());
    }

    #[test]
    fn where_rules_send_is_known_of_plain_rules_only() {
        let old = "172.17.0.9".parse().unwrap_or(std::net::IpAddr::from([0; 4]));
        let sends = |rules: &[&str]| one_sends_to(&rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>(), old);
        let new = "tcp dport 8080 dnat to 172.17.0.2:80";
        assert_eq!(sends(&[]), Some(false), "the rule is gone");
        assert_eq!(sends(&[new, "tcp dport 81 redirect to :82"]), Some(false), "the rule has changed");
        assert_eq!(sends(&["-A PREROUTING -p tcp -j DNAT --to-destination 172.17.0.2:80"]), Some(false));
        assert_eq!(sends(&[new, "tcp dport 81 dnat ip to 172.17.0.9:80"]), Some(true));
        assert_eq!(sends(&["-A DOCKER -j DNAT --to-destination 172.17.0.9:80"]), Some(true));
        for unknown in [
            "dnat ip to tcp dport map @ports",
            "dnat to 172.17.0.2-172.17.0.12",
            "tcp dport 8080 xt target \"DNAT\"",
            "-A PREROUTING -j NETMAP --to 172.17.0.0/24",
            "dnat to numgen inc mod 2 map { 0 : 172.17.0.2, 1 : 172.17.0.3 }",
        ] {
            assert_eq!(sends(&[new, unknown]), None, "{unknown}");
        }
    }

    #[test]
    fn addresses_are_found_with_ports_brackets_and_ranges() {
        let found = |text| addresses(text).map(|address| address.to_string()).collect::<Vec<_>>();
        assert_eq!(found(" ip to 10.0.0.2:8080"), ["10.0.0.2"]);
        assert_eq!(found(" to [fd00::2]:80 # handle 4"), ["fd00::2"]);
        assert_eq!(found(" to 10.0.0.2-10.0.0.4 random"), ["10.0.0.2", "10.0.0.4"]);
        assert_eq!(found(" to tcp dport map { 80 : 10.0.0.9 . 8080 }"), ["10.0.0.9"]);
        assert_eq!(found(" to 8080"), Vec::<String>::new());
    }
}
