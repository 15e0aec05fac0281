//! Gathers the rulesets of a namespace from the programs that list them.

use std::io;
use std::process::Command;
use std::time::Duration;

use super::ruleset::{Chains, Place, Unread};
use super::{iptables, nft};
use crate::evidence::Backend;
use crate::evidence::rules::event::RuleRef;
use crate::evidence::rules::legacy::{Counted, saved};
use crate::evidence::rules::{Listing, generation, inside, legacy_tables, list, owner_backend, present};
use crate::journey::Family;
use crate::kernel::command::output_within;
use crate::kernel::netns::Netns;

/// Longest time that `nft -j` may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How often a ruleset is read that changes meanwhile.
const ATTEMPTS: usize = 3;

/// The rulesets of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Rulesets {
    pub(super) chains: Chains,
    pub(super) listing: Option<Listing>,
    /// What the old iptables printed, by family.
    pub(super) legacy: Vec<(&'static str, Vec<Counted>)>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

impl Rulesets {
    /// From what the programs print: both listings of nft, what iptables on top of nftables says of IPv4 and IPv6, and what the old
    /// iptables says of them.
    pub(super) fn of(json: &str, listing: Listing, nft: &[(&'static str, Vec<Counted>)]) -> io::Result<Self> {
        let lines = |place: &Place| {
            let (family, saved) = nft.iter().find(|(family, _)| *family == place.family)?;
            Some(iptables::lines(saved, &place.table, &place.chain, *family == "ip"))
        };
        let mut chains = Chains::default();
        nft::parse(json, &listing, &lines, &mut chains)?;
        Ok(Self { chains, listing: Some(listing), ..Self::default() })
    }

    /// With the tables of the old iptables of a family.
    pub(super) fn with_legacy(mut self, family: &'static str, saved: Vec<Counted>) -> Self {
        iptables::add_legacy(&saved, family, &mut self.chains);
        self.legacy.push((family, saved));
        self
    }
}

/// Reads the rulesets. No table is made and no module loaded by that. What cannot be read is among the rest as such.
pub fn read(netns: &Netns) -> io::Result<Rulesets> {
    let mut rulesets = Rulesets::default();
    if inside(netns, present)?.tables {
        match read_nft(netns) {
            Ok(read) => rulesets = read,
            Err(error) => rulesets.unread.push(Unread { what: "nft".to_owned(), why: error.to_string() }),
        }
    }
    for (family, of, program) in [(Family::Ipv4, "ip", "iptables-legacy-save"), (Family::Ipv6, "ip6", "ip6tables-legacy-save")] {
        if legacy_tables(netns, family)?.is_empty() {
            continue;
        }
        match saved(netns, program) {
            Ok(saved) => rulesets = rulesets.with_legacy(of, saved),
            Err(error) => rulesets.unread.push(Unread { what: program.to_owned(), why: error.to_string() }),
        }
    }
    Ok(rulesets)
}

fn read_nft(netns: &Netns) -> io::Result<Rulesets> {
    for _ in 0..ATTEMPTS {
        let before = inside(netns, generation)?;
        let json = inside(netns, || output_within(LIMIT, Command::new("nft").args(["-j", "-a", "list", "ruleset"])))?;
        let listing = list(netns)?;
        let mut of_iptables = Vec::new();
        for (family, program) in [("ip", "iptables-nft-save"), ("ip6", "ip6tables-nft-save")] {
            if has_iptables(&listing, family) {
                // Without it what iptables alone can explain stays unexplained.
                match saved(netns, program) {
                    Ok(saved) => of_iptables.push((family, saved)),
                    Err(error) => log::debug!("{program}: {error}"),
                }
            }
        }
        if inside(netns, generation)? == before {
            return Rulesets::of(&json, listing, &of_iptables);
        }
    }
    Err(io::Error::other("the ruleset changed again and again while it was read"))
}

/// Whether there is a table of iptables in nftables.
fn has_iptables(listing: &Listing, family: &'static str) -> bool {
    ["raw", "mangle", "nat", "filter", "security"].into_iter().any(|table| {
        listing.chains_of(family, table).any(|chain| {
            let rule = RuleRef { family, table: table.to_owned(), chain: chain.to_owned(), handle: None };
            owner_backend(&rule, chain) == Backend::IptablesNft
        })
    })
}
