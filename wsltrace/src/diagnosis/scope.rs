//! Which packets a rule is about, by interface and address: an exception to it needs to be no wider. What a later rule says of the others
//! stays so.

use crate::evidence::{Backend, Rule, words};

/// What a rule asks of an interface or an address, as far as an exception can ask it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match<'a> {
    what: What,
    turned: bool,
    /// As the rule's own tool prints it: a name, an address, a network, or of nft a set.
    value: Vec<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Input,
    Output,
    Source,
}

/// The words of nft and of iptables for it.
const WORDS: [(What, &[&str], &str); 3] =
    [(What::Input, &["iifname", "iif"], "-i"), (What::Output, &["oifname", "oif"], "-o"), (What::Source, &["saddr"], "-s")];

/// What a rule asks; nothing of a policy.
pub(super) fn matches(rule: &Rule) -> Vec<Match<'_>> {
    let text = rule.text.as_deref().filter(|_| rule.handle.or(rule.number.map(u64::from)).is_some()).unwrap_or_default();
    let words = words(text);
    if text.starts_with("-A ") { of_iptables(&words) } else { of_nft(&words) }
}

fn of_iptables<'a>(words: &[&'a str]) -> Vec<Match<'a>> {
    let one = |at: usize, option: &str| {
        let (what, ..) = WORDS.into_iter().find(|(.., own)| *own == option)?;
        let turned = at.checked_sub(1).and_then(|before| words.get(before)) == Some(&"!");
        Some(Match { what, turned, value: vec![words.get(at + 1)?] })
    };
    words.iter().enumerate().filter_map(|(at, word)| one(at, word)).collect()
}

fn of_nft<'a>(words: &[&'a str]) -> Vec<Match<'a>> {
    // What the routes are asked for is named by the same words.
    let words = words.split(|word| *word == "fib").next().unwrap_or_default();
    let one = |at: usize, word: &str| {
        let (what, ..) = WORDS.into_iter().find(|(_, own, _)| own.contains(&word))?;
        let before = at.checked_sub(1).and_then(|before| words.get(before)).copied();
        // Of an address `ip` or `ip6` stands before it; `update @set { ip saddr ... }` asks something else.
        let begins = if what == What::Source { at.checked_sub(1) } else { Some(at) };
        let asks_else = ["{", ".", "map", "vmap", "jhash"];
        let inside =
            begins.and_then(|begin| begin.checked_sub(1)).and_then(|at| words.get(at)).is_some_and(|w| asks_else.contains(w));
        if inside || what == What::Source && !matches!(before, Some("ip" | "ip6")) {
            return None;
        }
        let rest = words.get(at + 1..)?;
        let turned = rest.first() == Some(&"!=");
        let rest = if turned { rest.get(1..)? } else { rest };
        let length = if rest.first()? == &"{" { rest.iter().position(|word| *word == "}")? + 1 } else { 1 };
        // What is joined to something else, or looked up in a map, is no value.
        let joined = matches!(rest.get(length), Some(&("." | ":")))
            || matches!(rest.first(), Some(&("." | "vmap" | "map" | "and" | "&" | "type" | "mod")));
        (!joined).then(|| Match { what, turned, value: rest[..length].to_vec() })
    };
    words.iter().enumerate().filter_map(|(at, word)| one(at, word)).collect()
}

impl Match<'_> {
    /// In the words of a rule's own tool, with a space behind; nothing where they are not plain ones.
    fn words(&self, backend: Backend, v6: bool) -> String {
        let Some((_, nft, iptables)) = WORDS.into_iter().find(|(what, ..)| *what == self.what) else { return String::new() };
        let value = self.value.join(" ");
        let plain = |more: &str| value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/".contains(c) || more.contains(c));
        if backend == Backend::Nft {
            if !plain("\"{}, @*") {
                return String::new();
            }
            let family = if self.what != What::Source {
                ""
            } else if v6 {
                "ip6 "
            } else {
                "ip "
            };
            let not = if self.turned { "!= " } else { "" };
            return format!("{family}{} {not}{value} ", nft[0]);
        }
        let value = value.trim_matches('"');
        let value = value.strip_suffix('*').map_or_else(|| value.to_owned(), |begin| format!("{begin}+"));
        if !plain("\"+*") || value.contains(['"', '*']) {
            return String::new();
        }
        let not = if self.turned { "! " } else { "" };
        format!("{not}{iptables} {value} ")
    }
}

/// What an exception to a rule asks besides the port, with a space behind.
pub(super) fn of_exception(rule: &Rule, v6: bool) -> String {
    matches(rule).iter().map(|one| one.words(rule.backend, v6)).collect()
}

/// The interface and the source that a rule is about, where it is about one of each kind at most and turns nothing round.
pub(super) fn plain(rule: &Rule) -> [Option<String>; 2] {
    let matches = matches(rule);
    [What::Input, What::Source].map(|wanted| {
        let one = matches.iter().find(|one| one.what == wanted && !one.turned)?;
        let words = one.words(Backend::IptablesNft, false);
        Some(words.split_whitespace().nth(1)?.to_owned()).filter(|value| !value.contains('+'))
    })
}

#[cfg(test)]
mod tests {
    use super::{of_exception, plain};
    use crate::evidence::{Backend, Rule};
    use crate::output::samples;

    fn rule(backend: Backend, text: &str) -> Rule {
        Rule { backend, text: Some(text.to_owned()), ..samples::rule() }
    }

    #[test]
    fn an_exception_is_no_wider_than_the_rule() {
        for (text, nft, iptables) in [
            ("iifname \"eth0\" drop", "iifname \"eth0\" ", "-i eth0 "),
            ("iif \"eth0\" counter drop", "iifname \"eth0\" ", "-i eth0 "),
            ("iifname != \"lo\" tcp dport 8000-9000 drop", "iifname != \"lo\" ", "! -i lo "),
            ("iifname \"wl*\" drop", "iifname \"wl*\" ", "-i wl+ "),
            ("iifname { \"eth0\", \"eth1\" } drop", "iifname { \"eth0\", \"eth1\" } ", ""),
            ("iifname \"eth0\" oifname \"docker0\" drop", "iifname \"eth0\" oifname \"docker0\" ", "-i eth0 -o docker0 "),
            ("ip saddr 10.0.0.0/8 tcp dport 1-9999 drop", "ip saddr 10.0.0.0/8 ", "-s 10.0.0.0/8 "),
            ("ip saddr != 10.0.0.0/8 drop", "ip saddr != 10.0.0.0/8 ", "! -s 10.0.0.0/8 "),
            ("ip saddr @blocked drop", "ip saddr @blocked ", ""),
            ("tcp dport 8000-9000 drop", "", ""),
            ("fib saddr . iif oif missing drop", "", ""),
            ("ip saddr . tcp dport { 10.0.0.1 . 80 } drop", "", ""),
            ("iifname \"a;b\" drop", "", ""),
            ("jhash ip saddr mod 2 seed 0x1 0 drop", "", ""),
            ("jhash tcp dport . ip saddr mod 2 0 drop", "", ""),
            ("add @came { ip saddr limit rate over 1/minute } drop", "", ""),
        ] {
            assert_eq!(of_exception(&rule(Backend::Nft, text), false), nft, "{text}");
            assert_eq!(of_exception(&rule(Backend::IptablesNft, text), false), iptables, "{text}");
        }
        let saved = "-A INPUT -s 10.0.0.0/8 ! -i lo -p tcp -m tcp --dport 8000:9000 -j DROP";
        assert_eq!(of_exception(&rule(Backend::IptablesLegacy, saved), false), "-s 10.0.0.0/8 ! -i lo ");
        let policy = Rule { handle: None, ..rule(Backend::Nft, "policy drop") };
        assert_eq!(of_exception(&policy, false), "");
        assert_eq!(of_exception(&rule(Backend::Nft, "ip6 saddr fd00::/8 drop"), true), "ip6 saddr fd00::/8 ");
    }

    #[test]
    fn what_a_manager_is_told_is_plain() {
        let of = |text| plain(&rule(Backend::IptablesNft, text));
        assert_eq!(of("iifname \"eth0\" ip saddr 10.0.0.1 drop"), [Some("eth0".to_owned()), Some("10.0.0.1".to_owned())]);
        assert_eq!(of("iifname != \"lo\" drop"), [None, None]);
        assert_eq!(of("iifname \"eth*\" drop"), [None, None]);
    }
}
