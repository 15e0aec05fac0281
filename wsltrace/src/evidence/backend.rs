//! Which kind of firewall killed a packet, when no event named the rule: told from the chains that stand in the namespace and
//! from the place in the kernel where the packet was freed, and only where both leave one answer.

use std::io;
use std::process::Command;

use serde::Deserialize;

use super::Backend;
use super::rules::{OWN_PREFIX, legacy_tables};
use crate::journey::{Family, Stage};
use crate::kernel::check::version;
use crate::kernel::command::{LISTING_LIMIT, output_within};
use crate::kernel::netns::Netns;

/// The first kernel whose nftables frees what it drops.
const NFT_FREES_SINCE: (u32, u32) = (6, 7);
/// Tables that the iptables commands make in nftables.
const IPTABLES_TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// The firewalls that stand in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewalls {
    /// Base chains of nftables; `None` when `nft` could not be asked.
    pub nft: Option<Vec<BaseChain>>,
    /// Names of the old IPv4 tables that are loaded.
    pub legacy_ipv4: Vec<String>,
    /// The same for IPv6.
    pub legacy_ipv6: Vec<String>,
    /// Whether nftables frees what it drops itself, as since Linux 6.7; before, it leaves that to the hook like everybody else.
    pub nft_frees: bool,
}

/// A chain of nftables that hangs on a hook.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BaseChain {
    /// `ip`, `ip6`, `inet`, `netdev`, ...
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `prerouting`, `input`, ...
    pub hook: String,
}

impl BaseChain {
    fn backend(&self) -> Backend {
        let iptables = matches!(self.family.as_str(), "ip" | "ip6")
            && IPTABLES_TABLES.contains(&self.table.as_str())
            && self.name == self.hook.to_ascii_uppercase();
        if iptables { Backend::IptablesNft } else { Backend::Nft }
    }

    fn sees(&self, family: Family) -> bool {
        match self.family.as_str() {
            "inet" => true,
            "ip" => family == Family::Ipv4,
            "ip6" => family == Family::Ipv6,
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct Ruleset {
    nftables: Vec<serde_json::Map<String, serde_json::Value>>,
}

fn parse_chains(json: &str) -> serde_json::Result<Vec<BaseChain>> {
    let ruleset: Ruleset = serde_json::from_str(json)?;
    // Chains without a hook are not base chains and do not fit the type.
    let chains = ruleset.nftables.into_iter().filter_map(|mut object| serde_json::from_value(object.remove("chain")?).ok());
    Ok(chains.filter(|chain: &BaseChain| !chain.table.starts_with(OWN_PREFIX)).collect())
}

/// Looks at the firewalls of a namespace without making a table anywhere; takes as long as nft.
pub fn firewalls(netns: &Netns) -> io::Result<Firewalls> {
    let legacy_ipv4 = legacy_tables(netns, Family::Ipv4)?;
    let legacy_ipv6 = legacy_tables(netns, Family::Ipv6)?;
    let list = || {
        output_within(LISTING_LIMIT, Command::new("nft").args(["-j", "list", "chains"]))
            .and_then(|json| parse_chains(&json).map_err(io::Error::from))
    };
    let nft = netns.run(list).map_err(io::Error::other)?;
    let nft = nft.inspect_err(|error| log::debug!("nft -j list chains: {error}")).ok();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let nft_frees = version(&release).is_some_and(|version| version >= NFT_FREES_SINCE);
    Ok(Firewalls { nft, legacy_ipv4, legacy_ipv6, nft_frees })
}

/// The hook of a stage, as nftables spells it.
pub(super) fn hook(stage: Stage) -> Option<&'static str> {
    ["prerouting", "input", "forward", "output", "postrouting"].into_iter().find(|hook| stage.name().starts_with(hook)).or(
        match stage {
            Stage::Conntrack | Stage::Dnat => Some("prerouting"),
            Stage::Snat => Some("postrouting"),
            _ => None,
        },
    )
}

/// The table that the iptables commands call by a stage's second half.
pub(super) fn legacy_table(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Dnat | Stage::Snat | Stage::OutputNat => Some("nat"),
        stage => ["raw", "mangle", "filter", "security"].into_iter().find(|table| stage.name().ends_with(table)),
    }
}

/// The kind of firewall that killed a packet of `family` at `stage`, freed at `location`; `None` when it is not certain.
pub fn decide(firewalls: &Firewalls, family: Family, stage: Stage, location: Option<&str>) -> Option<Backend> {
    if stage == Stage::NetfilterIngress {
        return Some(Backend::Nft);
    }
    let hook = hook(stage)?;
    let nft = firewalls.nft.as_ref()?;
    let mut kinds: Vec<Backend> =
        nft.iter().filter(|chain| chain.hook == hook && chain.sees(family)).map(BaseChain::backend).collect();
    kinds.dedup();
    let one_of_nft = || kinds.first().copied().filter(|first| kinds.iter().all(|kind| kind == first));
    let tables = if family == Family::Ipv4 { &firewalls.legacy_ipv4 } else { &firewalls.legacy_ipv6 };
    let legacy = legacy_table(stage).map_or(!tables.is_empty(), |table| tables.iter().any(|name| name == table));
    match location.and_then(|place| place.split('+').next()) {
        // Since 6.7 nftables frees what it drops itself.
        Some("nft_do_chain") => one_of_nft(),
        // The old tables, and before 6.7 nftables too, leave it to the hook.
        Some("nf_hook_slow") => match (legacy, kinds.is_empty() || firewalls.nft_frees) {
            (true, true) => Some(Backend::IptablesLegacy),
            (false, false) => one_of_nft(),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::fresh;

    fn chain(family: &str, table: &str, name: &str, hook: &str) -> BaseChain {
        let own = str::to_owned;
        BaseChain { family: own(family), table: own(table), name: own(name), hook: own(hook) }
    }

    fn decided(nft: &[BaseChain], legacy: &[&str], location: &str) -> Option<Backend> {
        decided_by(false, nft, legacy, location)
    }

    fn decided_by(nft_frees: bool, nft: &[BaseChain], legacy: &[&str], location: &str) -> Option<Backend> {
        let legacy_ipv4 = legacy.iter().map(|name| (*name).to_owned()).collect();
        let firewalls = Firewalls { nft: Some(nft.to_vec()), legacy_ipv4, legacy_ipv6: Vec::new(), nft_frees };
        decide(&firewalls, Family::Ipv4, Stage::InputFilter, Some(location))
    }

    #[test]
    fn only_one_possible_kind_is_named() {
        let (nft, iptables) = (chain("inet", "firewalld", "filter_INPUT", "input"), chain("ip", "filter", "INPUT", "input"));
        let other = [chain("ip6", "filter", "INPUT", "input"), chain("ip", "filter", "FORWARD", "forward")];
        let own = |chain: &BaseChain| vec![chain.clone()];
        assert_eq!(decided(&own(&nft), &[], "nft_do_chain+0x3e8"), Some(Backend::Nft));
        assert_eq!(decided(&own(&iptables), &[], "nft_do_chain+0x3e8"), Some(Backend::IptablesNft));
        assert_eq!(decided(&[nft.clone(), iptables.clone()], &[], "nft_do_chain+0x3e8"), None);
        assert_eq!(decided(&[iptables.clone(), nft.clone(), iptables.clone()], &[], "nft_do_chain"), None);
        assert_eq!(decided(&other, &[], "nft_do_chain+0x3e8"), None);
        assert_eq!(decided(&own(&iptables), &["filter"], "nft_do_chain+0x3e8"), Some(Backend::IptablesNft));
        assert_eq!(decided(&own(&iptables), &["filter"], "nf_hook_slow+0x84"), None);
        assert_eq!(decided(&own(&nft), &[], "nf_hook_slow+0x84"), Some(Backend::Nft));
        assert_eq!(decided(&other, &["filter"], "nf_hook_slow+0x84"), Some(Backend::IptablesLegacy));
        assert_eq!(decided(&[], &["raw"], "nf_hook_slow+0x84"), None);
        assert_eq!(decided(&[], &["filter"], "tcp_v4_rcv+0x1"), None);
        let since_6_7 = |legacy: &[&str]| decided_by(true, &own(&iptables), legacy, "nf_hook_slow+0x7d");
        assert_eq!((since_6_7(&["filter"]), since_6_7(&[])), (Some(Backend::IptablesLegacy), None));
    }

    #[test]
    fn an_unknown_nftables_decides_nothing() {
        let firewalls = Firewalls { nft: None, legacy_ipv4: vec!["filter".to_owned()], ..Firewalls::default() };
        assert_eq!(decide(&firewalls, Family::Ipv4, Stage::InputFilter, Some("nf_hook_slow")), None);
        assert_eq!(decide(&firewalls, Family::Ipv4, Stage::NetfilterIngress, None), Some(Backend::Nft));
    }

    #[test]
    fn chains_are_read_and_our_own_left_out() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "inet", "table": "t", "name": "c", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "t", "name": "jumped_to", "handle": 2}},
            {"chain": {"family": "inet", "table": "wsltrace-7", "name": "c", "handle": 1, "type": "filter", "hook": "input", "prio": 0}}]}"#;
        assert_eq!(parse_chains(json).unwrap(), [chain("inet", "t", "c", "input")]);
        assert!(parse_chains("").is_err());
    }

    #[test]
    fn looking_at_a_clean_namespace_makes_no_tables() {
        let Some(netns) = fresh("looking_at_a_clean_namespace_makes_no_tables") else { return };
        let before = firewalls(&netns).unwrap();
        assert_eq!((before.legacy_ipv4.len(), before.legacy_ipv6.len()), (0, 0));
        if before.nft.is_none() {
            crate::kernel::skip("looking_at_a_clean_namespace_makes_no_tables", "nft is not installed");
            return;
        }
        assert_eq!(before.nft, Some(Vec::new()));
        let rule = ["add table ip t", "add chain ip t c { type filter hook input priority 0 ; }"];
        for command in rule {
            let status = netns.run(|| Command::new("nft").args(command.split_whitespace()).status().unwrap()).unwrap();
            assert!(status.success());
        }
        assert_eq!(firewalls(&netns).unwrap().nft, Some(vec![chain("ip", "t", "c", "input")]));
    }
}
