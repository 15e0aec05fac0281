//! A rule of a firewall, and what its text tells of it.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// Which program wrote a firewall rule's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Backend {
    /// nftables' own tables.
    #[serde(rename = "nft")]
    Nft,
    /// iptables on top of nftables.
    #[serde(rename = "iptables-nft")]
    IptablesNft,
    /// The old `x_tables` in the kernel.
    #[serde(rename = "iptables-legacy")]
    IptablesLegacy,
}

/// Who manages a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Owner {
    Firewalld,
    Ufw,
    Docker,
    Podman,
    Wsl,
    Libvirt,
    User,
}

impl Owner {
    /// The program by which a manager's rules are changed, where remedies use it.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::Ufw => Some("ufw"),
            Self::Firewalld => Some("firewall-cmd"),
            _ => None,
        }
    }
}

/// A firewall rule or a chain's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The kind of table it stands in.
    pub backend: Backend,
    /// nft's family, `ip` or `ip6` for iptables.
    pub family: String,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// nft's rule handle; `None` for a policy and for iptables-legacy.
    pub handle: Option<u64>,
    /// Position in its chain from 1, for iptables-legacy.
    pub number: Option<u32>,
    /// The rule as its own tool prints it; `policy drop` for a policy.
    pub text: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
    /// What it answered: `drop`, `reject`, ...
    pub verdict: String,
    /// Who manages it.
    pub owner: Owner,
    /// Not part of what is told of a rule: it is Docker's, and nothing in FORWARD leads to DOCKER-USER, where an exception would belong.
    #[serde(skip)]
    pub without_users_chain: bool,
    /// Nor is this: it is a policy, and what comes to it has passed all of its chain, for no rule there returns.
    #[serde(skip)]
    pub at_chains_end: bool,
}

/// What the rule that killed a packet is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamedBy {
    /// An event of this very packet, or a counter that it moved.
    #[default]
    Packet,
    /// The kernel named it for another attempt of the same client that died in the same place: it traces so many packets a second and no
    /// more.
    Twin,
    /// The rules as they are now were followed, and it is the only one that may have done it: it stands where the kernel's trace does not
    /// begin yet.
    Rules,
}

impl Rule {
    /// Whether it asks the routes for the way back, as firewalld's check and `-m rpfilter` do.
    pub fn asks_for_way_back(&self) -> bool {
        let text = self.text.as_deref().unwrap_or_default();
        // nft calls it `check` since 1.1.6, where it asks only whether there is a way.
        let asked =
            text.split_once("fib saddr").and_then(|(_, rest)| rest.split_once(" oif ").or_else(|| rest.split_once(" check ")));
        let none = |value: &str| matches!(value.trim_start_matches("eq ").split(' ').next(), Some("missing" | "0"));
        asked.is_some_and(|(_, value)| none(value)) || self.words().contains(&"rpfilter")
    }

    /// Whether it kills only what exceeds a limit: of connections at once, of how fast they come, or of bytes.
    pub fn is_limit(&self) -> bool {
        let exceeds = |three: &[&str]| {
            matches!(three, ["ct", "count", "over"] | ["limit", "rate", "over"] | ["quota", "over", _])
                || matches!(three, ["xt", "match", "connlimit" | "hashlimit"])
        };
        let words = self.words();
        // ufw's chain for what comes too often after `ufw limit`: the rule that counts leads there.
        let by_ufw = self.owner == Owner::Ufw && self.chain.ends_with("-user-limit");
        by_ufw
            || words.windows(3).any(exceeds)
            || words.iter().any(|word| matches!(*word, "--connlimit-above" | "--hashlimit-above"))
    }

    /// Whether it asks for what came from an address before (iptables' `recent`). nft does not tell what it does with the answer.
    pub fn remembers(&self) -> bool {
        let words = self.words();
        let asks = words.iter().any(|word| matches!(*word, "--update" | "--rcheck"));
        words.windows(3).any(|three| matches!(three, ["xt", "match", "recent"]) || asks && matches!(three, ["-m", "recent", _]))
    }

    /// Whether it takes some packets and leaves others alike, by chance or by counting them.
    pub fn is_by_chance(&self) -> bool {
        let words = self.words();
        let chooses = |two: &[&str]| matches!(two, ["-m" | "match", "statistic"] | ["meta", "random"] | ["numgen", _]);
        words.windows(2).any(chooses)
    }

    /// Whether it is about this port of a server and no other: of what comes to it, or of its answers.
    pub fn names_port(&self, port: u16, answer: bool) -> bool {
        let is_a_rule = self.handle.is_some() || self.number.is_some();
        let number = port.to_string();
        is_a_rule
            && self.words().windows(2).any(|two| match two {
                ["dport" | "--dport" | "--dports", value] => !answer && **value == *number,
                ["sport" | "--sport" | "--sports", value] => answer && **value == *number,
                _ => false,
            })
    }

    /// Whether it is about what goes to this address and to no other.
    pub fn names_destination(&self, address: IpAddr) -> bool {
        let is_it = |value: &str| {
            let (text, prefix) = value.split_once('/').map_or((value, None), |(text, prefix)| (text, Some(prefix)));
            let whole = prefix.is_none_or(|prefix| prefix == if address.is_ipv4() { "32" } else { "128" });
            whole && text.parse() == Ok(address)
        };
        self.words().windows(2).any(|two| matches!(two, ["-d" | "daddr", value] if is_it(value)))
    }

    /// Whether Docker keeps its networks apart by it, or other machines away from its containers' own addresses: whoever wants to pass is to
    /// be let in by Docker, and what lets a packet past it opens more than that. One for a port of 127.0.0.1 is none.
    pub fn is_wall_of_docker(&self) -> bool {
        let apart = ["DOCKER-ISOLATION", "DOCKER-INTERNAL"].iter().any(|chain| self.chain.starts_with(chain));
        self.owner == Owner::Docker && (apart || self.is_shield_of_docker())
    }

    /// Whether it is one that keeps other machines away from a container's own address.
    pub fn is_shield_of_docker(&self) -> bool {
        self.owner == Owner::Docker && self.table == "raw" && !self.names_destination(Ipv4Addr::LOCALHOST.into())
    }

    /// Whether the two are one rule, whatever is told of it.
    pub fn is(&self, other: &Self) -> bool {
        let place = |rule: &Self| (rule.backend == Backend::IptablesLegacy, rule.handle, rule.number);
        place(self) == place(other) && [&self.family, &self.table, &self.chain] == [&other.family, &other.table, &other.chain]
    }

    /// Whether it hands packets to a transparent proxy by iptables' `TPROXY`, which drops them where no proxy takes them. nft's own
    /// statement goes on to the next rule then.
    pub fn leads_to_proxy(&self) -> bool {
        // nft tells iptables' target in the words of its own statement since 1.1.
        let in_words_of_nft = |two: &[&str]| self.backend == Backend::IptablesNft && matches!(two, ["tproxy", "to"]);
        self.words().windows(2).any(|two| matches!(two, ["-j" | "target", "TPROXY"]) || in_words_of_nft(two))
    }

    /// The mark that it gives packets on their way to a transparent proxy, where the text has it.
    pub fn proxy_mark(&self) -> Option<u32> {
        let words = self.words();
        let number = |text: &str| match text.split('/').next()?.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.split('/').next()?.parse().ok(),
        };
        words.iter().enumerate().find_map(|(at, word)| match *word {
            "--tproxy-mark" => number(words.get(at + 1)?),
            "mark" if words.get(at + 1) == Some(&"set") => number(words.get(at + 2)?),
            _ => None,
        })
    }

    /// That proxy's port, where the text has it.
    pub fn proxy_port(&self) -> Option<u16> {
        self.words().windows(2).find_map(|two| match two {
            ["--on-port", port] => port.parse().ok(),
            ["to", end] => end.rsplit_once(':')?.1.parse().ok(),
            _ => None,
        })
    }

    fn words(&self) -> Vec<&str> {
        let mut words = words(self.text.as_deref().unwrap_or_default());
        // nft has the names of iptables' matches and targets in quotes since 1.1.
        for at in 1..words.len() {
            if matches!(words[at - 1], "match" | "target") {
                words[at] = words[at].trim_matches('"');
            }
        }
        words
    }
}

/// The words of a rule, as nft and iptables print it. What stands in quotes, as a comment, is one word, quotes included.
pub(crate) fn words(text: &str) -> Vec<&str> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = text.split(|letter: char| {
        quoted ^= letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        letter.is_whitespace() && !quoted
    });
    parts.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn what_stands_in_quotes_is_one_word() {
        let nft = r#"iifname "eth0"  tcp dport 8080 drop comment "not dport 22""#;
        assert_eq!(words(nft), ["iifname", "\"eth0\"", "tcp", "dport", "8080", "drop", "comment", "\"not dport 22\""]);
        let iptables = r#"-m comment --comment "a \"quoted one\" -d 10.0.0.1" -j DROP"#;
        assert_eq!(words(iptables), ["-m", "comment", "--comment", r#""a \"quoted one\" -d 10.0.0.1""#, "-j", "DROP"]);
    }
}
