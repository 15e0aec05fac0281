//! The old iptables: which rule's counter a packet moved. Two readings, one from before the packet came and one from after its
//! death; when the table that killed it has one killing rule whose counter rose between them, that rule did it.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::process::Command;
use std::time::Instant;

use super::old_tables::{Shape, shapes, tables};
use super::plain::{Ends, is_for_others};
use crate::evidence::{Backend, Owner, Rule, rules::owner};
use crate::journey::Family;
use crate::kernel::command::{LISTING_LIMIT, output_within};
use crate::kernel::netns::Netns;

/// How many journeys may have the counters read in a second: each look runs a program. Those of a flood beyond that stay unnamed.
const LOOKS_PER_SECOND: u32 = 50;
/// How many readings are kept.
const MAX_READINGS: usize = 16;
/// Targets that end a packet's way; `TPROXY` does where nothing takes the port that it names.
const KILLERS: [&str; 4] = ["DROP", "REJECT", "NFQUEUE", "TPROXY"];

/// Targets that give a packet another address.
const TRANSLATORS: [&str; 5] = ["DNAT", "REDIRECT", "NETMAP", "SNAT", "MASQUERADE"];

/// A rule or policy with its counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Its table.
    pub(crate) table: String,
    /// Its chain.
    pub(crate) chain: String,
    /// From 1; `None` for the chain's policy.
    pub(crate) number: Option<u32>,
    /// As iptables-save prints it.
    pub(crate) text: String,
    /// `-j`'s word, or the policy; `-` for a chain without one.
    pub(crate) target: String,
    packets: u64,
}

impl Counted {
    fn is_same(&self, other: &Self) -> bool {
        (&self.table, &self.chain, self.number, &self.text) == (&other.table, &other.chain, other.number, &other.text)
    }

    fn kills(&self) -> bool {
        KILLERS.contains(&self.target.as_str())
    }

    /// Whether it gives packets another address.
    fn translates(&self) -> bool {
        TRANSLATORS.contains(&self.target.as_str())
    }

    /// Whether it exempts packets from connection tracking.
    fn exempts(&self) -> bool {
        self.target == "NOTRACK" || self.target == "CT" && self.text.split_whitespace().any(|word| word == "--notrack")
    }
}

/// A packet whose rule is sought: when it came, and what rules can know it by.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    /// When.
    pub(crate) began: Instant,
    /// What it has; other rules' counters were moved by other packets.
    pub(crate) ends: Ends,
}

/// The counters of one family in one namespace.
#[derive(Debug)]
pub(crate) struct LegacyCounters {
    netns: Netns,
    family: Family,
    /// Oldest first; each with the moments before and after it was taken.
    readings: VecDeque<(Instant, Instant, Vec<Counted>)>,
    /// What the tables looked like at the last reading.
    shapes: Vec<Shape>,
    /// How often journeys asked in this second.
    looks: u32,
}

impl LegacyCounters {
    /// Takes a first reading, where the old tables are in use.
    pub(crate) fn start(netns: &Netns, family: Family) -> io::Result<Option<Self>> {
        if tables(netns, family)?.is_empty() {
            return Ok(None);
        }
        let mut counters = Self { netns: netns.clone(), family, readings: VecDeque::new(), shapes: Vec::new(), looks: 0 };
        counters.read()?;
        Ok(Some(counters))
    }

    /// Takes another reading when the rules have changed. Nobody tells of that, so it is looked for.
    pub(crate) fn tick(&mut self) -> io::Result<()> {
        self.looks = 0;
        if shapes(&self.netns, self.family)? != self.shapes {
            self.read()?;
        }
        Ok(())
    }

    /// Whether the tables do anything: a table without rules lets everything pass.
    pub(crate) fn has_rules(&self) -> bool {
        let Some((_, _, last)) = self.readings.back() else { return false };
        last.iter().any(|counted| counted.number.is_some() || counted.kills())
    }

    fn read(&mut self) -> io::Result<()> {
        let program = if self.family == Family::Ipv4 { "iptables-legacy-save" } else { "ip6tables-legacy-save" };
        self.shapes = shapes(&self.netns, self.family)?;
        let before = Instant::now();
        let saved = saved(&self.netns, program)?;
        if self.readings.len() == MAX_READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back((before, Instant::now(), saved));
        Ok(())
    }

    /// The rule of this table, on the way from this hook's chain, that killed a packet which is dead by now.
    pub(crate) fn killer(&mut self, table: &str, hook: &str, came: &Came) -> io::Result<Option<Rule>> {
        self.mover(table, hook, came, Counted::kills)
    }

    /// The rule, on the way from this hook's chain, that exempted a packet from connection tracking.
    pub(crate) fn exempter(&mut self, hook: &str, came: &Came) -> io::Result<Option<Rule>> {
        self.mover("raw", hook, came, Counted::exempts)
    }

    /// The rule, on the way from this hook's chain, that gave a packet another address.
    pub(crate) fn translator(&mut self, hook: &str, came: &Came) -> io::Result<Option<Rule>> {
        self.mover("nat", hook, came, Counted::translates)
    }

    /// The one rule of the wanted kind whose counter a packet moved.
    fn mover(&mut self, table: &str, hook: &str, came: &Came, wanted: fn(&Counted) -> bool) -> io::Result<Option<Rule>> {
        self.looks += 1;
        if self.looks > LOOKS_PER_SECOND {
            return Ok(None);
        }
        let Some(base) = self.readings.iter().rposition(|(_, after, _)| *after < came.began) else {
            self.read()?;
            return Ok(None);
        };
        self.read()?;
        let (Some((_, _, before)), Some((_, _, now))) = (self.readings.get(base), self.readings.back()) else { return Ok(None) };
        let family = if self.family == Family::Ipv4 { "ip" } else { "ip6" };
        let may_be = |counted: &Counted| wanted(counted) && !is_for_others(&counted.text, &came.ends);
        Ok(moved(before, now, (table, hook), may_be).map(|counted| rule(counted, family, now)))
    }
}

/// What a program such as `iptables-legacy-save` prints of a namespace.
pub(crate) fn saved(netns: &Netns, program: &str) -> io::Result<Vec<Counted>> {
    let save = || output_within(LISTING_LIMIT, Command::new(program).arg("-c"));
    Ok(parse(&netns.run(save).map_err(io::Error::other)??))
}

/// The chains of a table that a packet can come to from a hook's own.
fn reachable<'a>(list: &[&'a Counted], hook: &'a str) -> HashSet<&'a str> {
    let mut found = HashSet::from([hook]);
    loop {
        let known = found.len();
        let jumps: Vec<&str> =
            list.iter().filter(|rule| found.contains(rule.chain.as_str())).map(|rule| rule.target.as_str()).collect();
        found.extend(jumps);
        // Targets that are no chains do no harm.
        if found.len() == known {
            return found;
        }
    }
}

/// The one rule of the wanted kind in a table, on the way from a hook's chain, whose counter rose; `None` when there is none,
/// several, or the table is not the same.
fn moved<'a>(
    before: &[Counted],
    now: &'a [Counted],
    (table, hook): (&str, &'a str),
    wanted: impl Fn(&Counted) -> bool,
) -> Option<&'a Counted> {
    let of = |list: &'a [Counted]| list.iter().filter(|counted| counted.table == table).collect::<Vec<_>>();
    let old: Vec<&Counted> = before.iter().filter(|counted| counted.table == table).collect();
    let new = of(now);
    let same = old.len() == new.len() && old.iter().zip(&new).all(|(old, new)| old.is_same(new));
    if !same {
        return None;
    }
    let on_the_way = reachable(&new, hook);
    let risen = old.iter().zip(new).filter(|(old, new)| wanted(new) && new.packets > old.packets).map(|(_, new)| new);
    let mut risen = risen.filter(|rule| on_the_way.contains(rule.chain.as_str()));
    let only = risen.next()?;
    risen.next().is_none().then_some(only)
}

/// As it is told; `all` is the listing that it stands in.
pub(crate) fn rule(counted: &Counted, family: &str, all: &[Counted]) -> Rule {
    let chains = || all.iter().filter(|other| other.table == counted.table).map(|other| other.chain.as_str());
    let of_policy = || owner::of_policy(&counted.chain, chains).filter(|_| counted.number.is_none());
    let owner = owner::by_chain(&counted.chain).or_else(of_policy).unwrap_or(Owner::User);
    let leads = |rule: &Counted| rule.table == counted.table && rule.chain == "FORWARD" && rule.target == owner::USERS_CHAIN;
    let of_chain = |other: &&Counted| (&other.table, &other.chain) == (&counted.table, &counted.chain);
    let goes_back = |rule: &Counted| rule.target == "RETURN" || rule.text.split(' ').any(|word| word == "-g");
    let comment = counted.text.split_once("--comment ").map(|(_, rest)| first_word(rest));
    Rule {
        backend: Backend::IptablesLegacy,
        family: family.to_owned(),
        table: counted.table.clone(),
        chain: counted.chain.clone(),
        handle: None,
        number: counted.number,
        text: Some(counted.text.clone()),
        comment,
        verdict: match counted.target.as_str() {
            "REJECT" => "reject",
            "NFQUEUE" | "QUEUE" => "queue",
            "CT" | "NOTRACK" => "notrack",
            target if TRANSLATORS.contains(&target) => "accept",
            _ => "drop",
        }
        .to_owned(),
        owner,
        without_users_chain: owner == Owner::Docker && counted.table == "filter" && !all.iter().any(leads),
        at_chains_end: counted.number.is_none() && !all.iter().filter(of_chain).any(goes_back),
    }
}

/// The first word, as iptables-save quotes it.
fn first_word(text: &str) -> String {
    let Some(quoted) = text.strip_prefix('"') else { return text.split_whitespace().next().unwrap_or_default().to_owned() };
    let mut word = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => word.extend(characters.next()),
            other => word.push(other),
        }
    }
    word
}

/// Reads what `iptables-legacy-save -c` prints.
pub(crate) fn parse(text: &str) -> Vec<Counted> {
    let mut found: Vec<Counted> = Vec::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
        } else if let Some(policy) = line.strip_prefix(':') {
            let mut words = policy.split_whitespace();
            let (Some(chain), Some(target), Some(packets)) = (words.next(), words.next(), words.next().and_then(counter)) else {
                continue;
            };
            let (table, chain, target) = (table.to_owned(), chain.to_owned(), target.to_owned());
            let text = format!("policy {}", target.to_ascii_lowercase());
            found.push(Counted { table, chain, number: None, text, target, packets });
        } else if let Some((packets, rule)) = line.split_once(' ').and_then(|(count, rule)| Some((counter(count)?, rule))) {
            let Some(chain) = rule.strip_prefix("-A ").and_then(|rest| rest.split_whitespace().next()) else { continue };
            let number =
                found.iter().filter(|other| other.table == table && other.chain == chain && other.number.is_some()).count();
            let words: Vec<&str> = rule.split_whitespace().collect();
            let target = words.windows(2).rev().find_map(|pair| match pair {
                ["-j" | "-g", target] => Some(*target),
                _ => None,
            });
            found.push(Counted {
                table: table.to_owned(),
                chain: chain.to_owned(),
                number: u32::try_from(number + 1).ok(),
                text: rule.to_owned(),
                target: target.unwrap_or_default().to_owned(),
                packets,
            });
        }
    }
    found
}

/// The packets of `[packets:bytes]`.
fn counter(text: &str) -> Option<u64> {
    text.strip_prefix('[')?.strip_suffix(']')?.split_once(':')?.0.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn save(web: u64, other: u64, policy: u64) -> Vec<Counted> {
        parse(&format!(
            "# Generated\n*raw\n:PREROUTING ACCEPT [9:540]\nCOMMIT\n*filter\n:INPUT DROP [{policy}:0]\n:web - [0:0]\n\
             [3:4] -A INPUT -j web\n[{web}:60] -A web -p tcp -m tcp --dport 8080 -m comment --comment \"block \\\"web\\\"\" -j DROP\n\
             [{other}:0] -A web -j REJECT --reject-with tcp-reset\nCOMMIT\n"
        ))
    }

    fn killer<'a>(before: &[Counted], now: &'a [Counted], table: &str, hook: &'a str) -> Option<&'a Counted> {
        moved(before, now, (table, hook), Counted::kills)
    }

    #[test]
    fn the_rule_that_exempts_is_told_by_its_counter() {
        let save = |ours: u64, other: u64| {
            parse(&format!(
                "*raw\n:PREROUTING ACCEPT [9:540]\n[{other}:0] -A PREROUTING -p tcp -m tcp --dport 80 -j CT --helper ftp\n\
                 [{ours}:60] -A PREROUTING -p tcp -m tcp --dport 8080 -j CT --notrack\nCOMMIT\n"
            ))
        };
        let (before, now) = (save(1, 1), save(2, 2));
        let rule = rule(moved(&before, &now, ("raw", "PREROUTING"), Counted::exempts).unwrap(), "ip", &now);
        assert_eq!((rule.number, rule.verdict.as_str()), (Some(2), "notrack"));
        assert_eq!(moved(&before, &before, ("raw", "PREROUTING"), Counted::exempts), None);
    }

    #[test]
    fn the_only_counter_that_rose_names_the_rule() {
        let (before, now) = (save(1, 5, 0), save(2, 5, 0));
        let rule = rule(killer(&before, &now, "filter", "INPUT").unwrap(), "ip", &now);
        assert_eq!((rule.chain.as_str(), rule.number, rule.verdict.as_str()), ("web", Some(1), "drop"));
        assert_eq!(rule.comment.as_deref(), Some("block \"web\""));
        assert_eq!(killer(&before, &now, "raw", "PREROUTING"), None);
        assert_eq!(killer(&before, &now, "filter", "FORWARD"), None, "another way");
        assert_eq!(killer(&before, &before, "filter", "INPUT"), None);
        assert_eq!(killer(&before, &save(2, 6, 0), "filter", "INPUT"), None, "two rose");
        assert_eq!(killer(&before, &now[..now.len() - 1], "filter", "INPUT"), None, "another ruleset");
    }

    #[test]
    fn a_proxy_that_is_not_there_counts_like_a_rule_that_drops() {
        let save = |ours: u64| {
            parse(&format!(
                "*mangle\n:PREROUTING ACCEPT [9:540]\n[{ours}:60] -A PREROUTING -p tcp -m tcp --dport 8080 -j TPROXY --on-port 9999 \
                 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1\nCOMMIT\n"
            ))
        };
        let (before, now) = (save(1), save(2));
        let rule = rule(killer(&before, &now, "mangle", "PREROUTING").unwrap(), "ip", &now);
        assert_eq!((rule.verdict.as_str(), rule.leads_to_proxy(), rule.proxy_port()), ("drop", true, Some(9999)));
    }

    #[test]
    fn a_policy_counts_like_a_rule() {
        let (before, now) = (save(1, 5, 0), save(1, 5, 3));
        let rule = rule(killer(&before, &now, "filter", "INPUT").unwrap(), "ip6", &now);
        assert_eq!((rule.chain.as_str(), rule.number, rule.text.as_deref()), ("INPUT", None, Some("policy drop")));
    }

    #[test]
    fn a_policy_is_that_of_the_manager_whose_chains_are_there() {
        let owner_of = |chains: &str, policy: &str| {
            let save = |dropped: u64| parse(&format!("*filter\n:{policy} DROP [{dropped}:0]\n{chains}COMMIT\n"));
            let (before, now) = (save(1), save(2));
            rule(killer(&before, &now, "filter", policy).unwrap(), "ip", &now).owner
        };
        assert_eq!(owner_of(":DOCKER-USER - [0:0]\n", "FORWARD"), Owner::Docker);
        assert_eq!(owner_of(":DOCKER-USER - [0:0]\n", "INPUT"), Owner::User);
        assert_eq!(owner_of(":ufw-before-input - [0:0]\n", "INPUT"), Owner::Ufw);
        assert_eq!(owner_of("", "FORWARD"), Owner::User);
    }

    #[test]
    fn a_change_of_the_rules_is_read_and_nothing_else() {
        let name = "a_change_of_the_rules_is_read_and_nothing_else";
        let Some(netns) = crate::kernel::netns::tests::fresh(name) else { return };
        let iptables = |arguments: &str| {
            let run = || Command::new("iptables-legacy").args(arguments.split(' ')).status();
            netns.run(run).unwrap().is_ok_and(|status| status.success())
        };
        assert!(LegacyCounters::start(&netns, Family::Ipv4).unwrap().is_none(), "no table");
        if !iptables("-A INPUT -p tcp -j ACCEPT") {
            crate::kernel::skip(name, "this machine or kernel has no iptables-legacy");
            return;
        }
        let mut counters = LegacyCounters::start(&netns, Family::Ipv4).unwrap().unwrap();
        assert!(counters.has_rules());
        counters.tick().unwrap();
        assert_eq!(counters.readings.len(), 1);
        assert!(iptables("-D INPUT 1"));
        counters.tick().unwrap();
        assert_eq!((counters.readings.len(), counters.has_rules()), (2, false));
        assert!(iptables("-P FORWARD DROP"));
        counters.read().unwrap();
        assert!(counters.has_rules());
    }

    #[test]
    fn comments_are_read_as_they_are_quoted() {
        assert_eq!(first_word("plain -j DROP"), "plain");
        assert_eq!(first_word("\"two words\" -j DROP"), "two words");
        assert_eq!(first_word("\"open"), "open");
    }
}
