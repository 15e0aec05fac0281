//! What `nft -a -s -y list ruleset` prints, as far as it is needed to name a rule: texts by handle, base chains, owners' marks.

use std::collections::{HashMap, HashSet};

use super::super::words;
use super::event::RuleRef;

/// A ruleset as nft prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Chains by family, table and name.
    chains: HashMap<(String, String, String), Chain>,
    /// Tables that are switched off, by family and name.
    dormant: HashSet<(String, String)>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Type, hook and priority, for a base chain.
    pub(crate) base: Option<Base>,
    /// Handles and texts, in order.
    pub(crate) rules: Vec<(u64, String)>,
}

/// How a base chain hangs on its hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// `filter`, `nat` or `route`.
    pub(crate) kind: String,
    /// `prerouting`, `input`, ...
    pub(crate) hook: String,
    /// Its priority.
    pub(crate) priority: i32,
    /// The devices of a chain at ingress or egress.
    pub(crate) devices: Vec<String>,
}

impl Listing {
    /// Reads the text; what it does not know it leaves out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut listing = Self::default();
        let mut table: Option<(String, String)> = None;
        let mut chain: Option<(String, Chain)> = None;
        // Depth of other blocks (sets, counters) inside a table, and the beginning of a rule that goes over several lines.
        let (mut other, mut pending) = (0usize, String::new());
        for line in text.lines() {
            let line = line.trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            match (&table, &mut chain) {
                (None, _) => {
                    if let ["table", family, name, "{", ..] = words.as_slice() {
                        table = Some(((*family).to_owned(), (*name).to_owned()));
                    }
                }
                (Some(_), None) if other > 0 => match line {
                    "}" => other -= 1,
                    _ if opens(line) => other += 1,
                    _ => {}
                },
                (Some((family, name)), None) => match words.as_slice() {
                    ["chain", of, "{", ..] => chain = Some(((*of).to_owned(), Chain::default())),
                    ["}"] => table = None,
                    ["flags", flags @ ..] => {
                        if flags.iter().flat_map(|flags| flags.split([',', ';'])).any(|flag| flag == "dormant") {
                            listing.dormant.insert((family.clone(), name.clone()));
                        }
                    }
                    _ if opens(line) => other += 1,
                    _ => log::trace!("nft list ruleset: {family} {name}: {line}"),
                },
                (Some((family, name)), Some((of, found))) => {
                    if line == "}" && pending.is_empty() {
                        listing.chains.insert((family.clone(), name.clone(), std::mem::take(of)), std::mem::take(found));
                        chain = None;
                    } else if words.first() == Some(&"type") && words.contains(&"hook") && pending.is_empty() {
                        found.base = base(&words);
                    } else {
                        if !pending.is_empty() {
                            pending.push(' ');
                        }
                        pending.push_str(line);
                        if let Some((rule, handle)) = split_handle(&pending) {
                            found.rules.push((handle, rule));
                            pending.clear();
                        }
                    }
                }
            }
        }
        listing
    }

    /// The chains alone, by family, table and name, each with what is known of its rules' texts: for where nft cannot be asked.
    pub(crate) fn of(chains: impl Iterator<Item = ((String, String, String), Vec<(u64, String)>)>) -> Self {
        let chains = chains.map(|(place, rules)| (place, Chain { base: None, rules })).collect();
        Self { chains, dormant: HashSet::new() }
    }

    /// A chain.
    pub(crate) fn chain(&self, family: &str, table: &str, name: &str) -> Option<&Chain> {
        self.chains.get(&(family.to_owned(), table.to_owned(), name.to_owned()))
    }

    /// The chain that a rule stands in.
    pub(crate) fn chain_of(&self, rule: &RuleRef) -> Option<&Chain> {
        self.chain(rule.family, &rule.table, &rule.chain)
    }

    /// A rule's text.
    pub(crate) fn text(&self, rule: &RuleRef) -> Option<&str> {
        let handle = rule.handle?;
        self.chain_of(rule)?.rules.iter().find(|(known, _)| *known == handle).map(|(_, text)| text.as_str())
    }

    /// Names of the chains of a table.
    pub(crate) fn chains_of<'a>(&'a self, family: &'a str, table: &'a str) -> impl Iterator<Item = &'a str> {
        self.chains.keys().filter(move |(f, t, _)| f == family && t == table).map(|(_, _, name)| name.as_str())
    }

    /// Every chain: family, table and name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &(String, String, String)> {
        self.chains.keys()
    }

    /// The only rule of those reached from a device's egress hook that sends packets out by another device, and that hook's chain; one that
    /// takes the device from a map may mean any.
    pub(crate) fn forwarder(&self, from: &str, to: &str) -> Option<(RuleRef, String)> {
        let is_there = |base: &Base| base.hook == "egress" && base.devices.iter().any(|device| device == from);
        let mut found = Vec::new();
        for ((family, table, name), chain) in self.chains.iter().filter(|((family, ..), _)| family == "netdev") {
            let of_table = self.chains.iter().filter(|((f, t, _), _)| (f, t) == (family, table));
            let mut hooks = of_table.filter(|(_, chain)| chain.base.as_ref().is_some_and(is_there)).map(|((.., base), _)| base);
            let Some(hook) = hooks.next() else { continue };
            let elsewhere = chain.base.as_ref().is_some_and(|base| !is_there(base));
            let rules =
                chain.rules.iter().filter(|(_, text)| !elsewhere && forwards(text, to) && !self.is_dormant(family, table));
            found.extend(rules.map(|(handle, _)| {
                let (table, chain) = (table.clone(), name.clone());
                (RuleRef { family: "netdev", table, chain, handle: Some(*handle) }, hook.clone())
            }));
        }
        found.pop().filter(|_| found.is_empty())
    }

    /// Whether a table is switched off.
    pub(crate) fn is_dormant(&self, family: &str, table: &str) -> bool {
        self.dormant.contains(&(family.to_owned(), table.to_owned()))
    }

    /// The hooks that have a base chain.
    pub(crate) fn hooks(&self) -> impl Iterator<Item = &str> {
        self.chains.values().filter_map(|chain| chain.base.as_ref()).map(|base| base.hook.as_str())
    }

    /// Every text of every rule.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.chains.values().flat_map(|chain| &chain.rules).map(|(_, text)| text.as_str())
    }
}

/// Whether a rule sends packets out by this device (`fwd to`), or by one that it takes from elsewhere.
fn forwards(text: &str, device: &str) -> bool {
    let words = words(text);
    let mut targets = words.windows(3).filter_map(|three| if let ["fwd", "to", target] = three { Some(*target) } else { None });
    let name = |target: &str| target.strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
    targets.any(|target| name(target).is_none_or(|name| name == device))
}

/// Whether a line opens a block that is closed on another line; a handle may stand behind the brace as a comment.
fn opens(line: &str) -> bool {
    line.split(" # handle").next().unwrap_or(line).ends_with('{')
}

fn base(words: &[&str]) -> Option<Base> {
    let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1)).copied();
    Some(Base {
        kind: after("type")?.to_owned(),
        hook: after("hook")?.to_owned(),
        priority: after("priority")?.trim_end_matches(';').parse().ok()?,
        devices: devices(words),
    })
}

/// The names behind `device "eth0"` or `devices = { eth0, "lo" }`.
fn devices(words: &[&str]) -> Vec<String> {
    let from = words.iter().position(|word| matches!(*word, "device" | "devices")).map_or(words.len(), |at| at + 1);
    let names = words.iter().skip(from).take_while(|word| !matches!(**word, "priority" | "}"));
    let names = names.map(|word| word.trim_end_matches(',').trim_matches('"'));
    names.filter(|name| !matches!(*name, "=" | "{" | "")).map(str::to_owned).collect()
}

/// A rule's text and handle, when this is the end of the rule.
fn split_handle(text: &str) -> Option<(String, u64)> {
    let (rule, handle) = text.rsplit_once(" # handle ")?;
    let handle = handle.trim().parse().ok()?;
    Some((rule.split_whitespace().collect::<Vec<_>>().join(" "), handle))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const TEXT: &str = r#"table inet fw { # handle 1
	set blocked { # handle 6
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 172.16.0.0/12 }
	}

	map verdicts { # handle 7
		type inet_service : verdict
		elements = { 22 : accept,
			     23 : drop }
	}

	chain in { # handle 1
		type filter hook input priority 5; policy drop;
		ct state established accept # handle 3
		tcp dport { 80,
			    8080 } jump web comment "to # handle 9" # handle 4
	}

	chain web { # handle 2
		counter drop comment "block web" # handle 5
	}
}
table netdev nd { # handle 2
	flags owner,dormant

	chain ing { # handle 1
		type filter hook ingress device "lo" priority -500; policy accept;
		tcp dport 9 drop # handle 2
	}
}
"#;

    fn rule(family: &'static str, table: &str, chain: &str, handle: u64) -> RuleRef {
        RuleRef { family, table: table.to_owned(), chain: chain.to_owned(), handle: Some(handle) }
    }

    #[test]
    fn rules_are_found_by_handle() {
        let listing = Listing::parse(TEXT);
        let jump = rule("inet", "fw", "in", 4);
        assert_eq!(listing.text(&jump), Some(r#"tcp dport { 80, 8080 } jump web comment "to # handle 9""#));
        assert_eq!(listing.text(&rule("inet", "fw", "web", 5)), Some(r#"counter drop comment "block web""#));
        assert_eq!(listing.text(&rule("inet", "fw", "web", 6)), None);
        assert_eq!(listing.texts().count(), 4);
    }

    #[test]
    fn base_chains_tell_their_hook() {
        let listing = Listing::parse(TEXT);
        let base = |family, table, chain| listing.chain(family, table, chain).unwrap().base.clone();
        let (kind, hook) = ("filter".to_owned(), "input".to_owned());
        assert_eq!(base("inet", "fw", "in"), Some(Base { kind: kind.clone(), hook, priority: 5, devices: Vec::new() }));
        let devices = vec!["lo".to_owned()];
        assert_eq!(base("netdev", "nd", "ing"), Some(Base { kind, hook: "ingress".to_owned(), priority: -500, devices }));
        let several: Vec<&str> = "type filter hook ingress devices = { eth0, \"lo\" } priority 0;".split(' ').collect();
        assert_eq!(super::base(&several).unwrap().devices, ["eth0", "lo"]);
        assert_eq!(base("inet", "fw", "web"), None);
        assert!(listing.is_dormant("netdev", "nd") && !listing.is_dormant("inet", "fw"));
        let mut chains: Vec<&str> = listing.chains_of("inet", "fw").collect();
        chains.sort_unstable();
        assert_eq!(chains, ["in", "web"]);
    }

    #[test]
    fn half_a_listing_is_read_as_far_as_it_goes() {
        for end in 0..TEXT.len() {
            if let Some(text) = TEXT.get(..end) {
                Listing::parse(text);
            }
        }
        assert_eq!(Listing::parse("no ruleset"), Listing::default());
    }

    #[test]
    fn the_only_rule_that_sends_on_what_leaves_a_device_is_found() {
        let chain = |hook: &str, device: &str, rule: &str| {
            format!(
                "table netdev t {{\n chain c {{\n type filter hook {hook} device \"{device}\" priority 0; policy accept;\n {rule} # handle 4\n }}\n}}\n"
            )
        };
        let found = |text: &str| Listing::parse(text).forwarder("eth0", "d0").map(|(rule, _)| rule.handle);
        let forwards = r#"tcp sport 8080 fwd to "d0""#;
        assert_eq!(found(&chain("egress", "eth0", forwards)), Some(Some(4)));
        assert_eq!(found(&chain("egress", "eth0", "fwd to tcp sport map { 8080 : \"d0\" }")), Some(Some(4)));
        for (hook, device, rule) in [
            ("ingress", "eth0", forwards),
            ("egress", "eth1", forwards),
            ("egress", "eth0", r#"fwd to "d1""#),
            ("egress", "eth0", r#"accept comment "fwd to d0""#),
        ] {
            assert_eq!(found(&chain(hook, device, rule)), None, "{hook} {device} {rule}");
        }
        let twice = chain("egress", "eth0", &format!("{forwards} # handle 3\n {forwards}"));
        assert_eq!(found(&twice), None, "one of two");
    }
}
