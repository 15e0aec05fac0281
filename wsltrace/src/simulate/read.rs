//! Gathers the rulesets of a namespace: those of nftables from the kernel, which does what it tells; their texts from nft, where it is
//! installed; those of the old iptables from its own programs.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use super::ruleset::{Chain, Chains, Known, Place, Source, Statement, Target, Unread};
use super::{iptables, kernel, nft};
use crate::evidence::Backend;
use crate::evidence::rules::event::RuleRef;
use crate::evidence::rules::legacy::{Counted, saved};
use crate::evidence::rules::{Listing, OWN_PREFIX, arp_tables, generation, inside, legacy_tables, list, owner_backend, present};
use crate::journey::Family;
use crate::kernel::command::{LISTING_LIMIT, output_within};
use crate::kernel::links::list_links;
use crate::kernel::netns::Netns;

/// Why nothing was read where a program is missing.
const NOT_INSTALLED: &str = "it is not installed";
/// How often a ruleset is read that changes meanwhile.
const ATTEMPTS: usize = 3;

/// Who tells the rulesets of nftables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The kernel, over netlink.
    Kernel,
    /// The program nft, which undoes what it made of somebody's text: a second opinion, by which the tests see that the first one is
    /// understood.
    Nft,
}

/// The rulesets of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Rulesets {
    pub(super) chains: Chains,
    pub(super) listing: Option<Listing>,
    /// What the old iptables printed, by family.
    pub(super) legacy: Vec<(&'static str, Vec<Counted>)>,
    /// Whether there are tables of the old arptables, which are not read.
    pub(super) arptables: bool,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

impl Rulesets {
    /// From what the programs print: both listings of nft, and what iptables on top of nftables says of each family.
    pub(super) fn of(objects: nft::Objects, listing: Listing, nft: &[(&'static str, Vec<Counted>)]) -> io::Result<Self> {
        let mut chains = Chains::default();
        nft::parse(objects, &listing, &|place| lines(nft, place), &mut chains)?;
        Ok(Self { chains, listing: Some(listing), ..Self::default() })
    }

    /// From what the kernel tells. `listing` has the texts, where nft gave them; `devices` are the names of interfaces by their
    /// numbers.
    fn of_kernel(
        dump: kernel::Dump,
        listing: Option<Listing>,
        devices: &HashMap<u32, String>,
        nft: &[(&'static str, Vec<Counted>)],
    ) -> Self {
        let mut chains = Chains::default();
        kernel::parse(dump, devices, &|place| lines(nft, place), &mut chains);
        // Without nft's words those of iptables are told, where there are any.
        let named = |chain: &Arc<Chain>| {
            let Place { family, table, chain: name, .. } = chain.place.clone();
            let texts = chain.rules.iter().filter_map(|line| line.handle.zip(line.text.clone()));
            ((family, table, name), texts.collect())
        };
        let listing = listing.unwrap_or_else(|| Listing::of(chains.all().map(named)));
        Self { chains, listing: Some(listing), ..Self::default() }
    }

    /// The addresses to which rules give packets for this machine away (DNAT), as far as they name one.
    pub fn targets(&self) -> BTreeSet<IpAddr> {
        let address = |target: &Target| target.address.and_then(Known::value);
        let of = |statement: &Statement| match statement {
            Statement::Dnat(Source::Constant(target)) => address(target).into_iter().collect(),
            Statement::Dnat(Source::Map(_, entries)) => {
                entries.iter().filter_map(|(_, target)| address(target.as_ref()?)).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        };
        self.chains.all().flat_map(|chain| &chain.rules).flat_map(|line| &line.statements).flat_map(of).collect()
    }

    /// The ports to which rules lead packets at an address, where what comes to this port keeps it unless they give another; `None` for one
    /// that is not known.
    pub(super) fn ports_to(&self, address: IpAddr, own: u16) -> Vec<Option<u16>> {
        let of = |target: &Target| {
            let there = target.address.and_then(Known::value) == Some(address);
            there.then(|| target.port.map_or(Some(own), Known::value))
        };
        let of = |statement: &Statement| match statement {
            Statement::Dnat(Source::Constant(target)) => of(target).into_iter().collect(),
            Statement::Dnat(Source::Map(_, entries)) => {
                entries.iter().filter_map(|(_, target)| of(target.as_ref()?)).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        };
        self.chains.all().flat_map(|chain| &chain.rules).flat_map(|line| &line.statements).flat_map(of).collect()
    }

    /// Whether something in them may stop a packet, or could not be read. Rules that only translate do not: containers have such of
    /// Docker's for names.
    pub fn may_stop(&self) -> bool {
        let stops = |chain: &Arc<Chain>| {
            let translates = chain.place.table == "nat" || chain.base.as_ref().is_some_and(|base| base.nat);
            !translates && (chain.base.as_ref().is_some_and(|base| base.drops) || !chain.rules.is_empty())
        };
        !self.unread.is_empty() || self.chains.all().any(stops)
    }

    /// Whether something in them may give packets another destination, or could not be read; but for Docker's rules for names, which lead
    /// what asks for a loopback address on to it.
    pub fn may_lead_on(&self) -> bool {
        let leads = |statement: &Statement| match statement {
            Statement::Dnat(Source::Constant(target)) => {
                target.address.and_then(Known::value).is_none_or(|address| !address.is_loopback())
            }
            Statement::Dnat(_) | Statement::Redirect(_) | Statement::Anything(_) => true,
            _ => false,
        };
        !self.unread.is_empty() || self.chains.all().flat_map(|chain| &chain.rules).flat_map(|line| &line.statements).any(leads)
    }

    /// Whether any of them hands packets to a transparent proxy.
    pub fn hand_to_proxies(&self) -> bool {
        let statements = self.chains.all().flat_map(|chain| &chain.rules).flat_map(|line| &line.statements);
        statements.into_iter().any(|statement| matches!(statement, Statement::Tproxy(_)))
    }

    /// Whether both nftables and the old iptables have rules, or policies that stop packets.
    pub fn are_of_two_worlds(&self) -> bool {
        let acts = |legacy: bool| {
            self.chains.all().any(|chain| {
                let stops = chain.base.as_ref().is_some_and(|base| base.drops);
                chain.place.legacy == legacy && (stops || !chain.rules.is_empty())
            })
        };
        acts(true) && acts(false)
    }

    /// With the tables of the old iptables of a family.
    pub(super) fn with_legacy(mut self, family: &'static str, saved: Vec<Counted>) -> Self {
        iptables::add_legacy(&saved, family, &mut self.chains);
        self.legacy.push((family, saved));
        self
    }
}

/// What iptables on top of nftables says of a chain, in the order of its rules.
fn lines(nft: &[(&'static str, Vec<Counted>)], place: &Place) -> Option<Vec<super::ruleset::Line>> {
    let (family, saved) = nft.iter().find(|(family, _)| *family == place.family)?;
    Some(iptables::lines(saved, &place.table, &place.chain, *family == "ip"))
}

/// Reads the rulesets. No table is made and no module loaded by that. What cannot be read is among the rest as such.
pub fn read(netns: &Netns) -> io::Result<Rulesets> {
    read_by(netns, Reader::Kernel)
}

/// The same, as this reader tells those of nftables.
pub fn read_by(netns: &Netns, reader: Reader) -> io::Result<Rulesets> {
    let mut rulesets = Rulesets::default();
    if inside(netns, present)?.tables {
        match read_nft(netns, reader) {
            Ok(read) => rulesets = read,
            Err(error) => rulesets.unread.push(Unread { what: "nftables".to_owned(), why: reason(&error) }),
        }
    }
    for (family, of, program) in [(Family::Ipv4, "ip", "iptables-legacy-save"), (Family::Ipv6, "ip6", "ip6tables-legacy-save")] {
        if legacy_tables(netns, family)?.is_empty() {
            continue;
        }
        match saved(netns, program) {
            Ok(saved) => rulesets = rulesets.with_legacy(of, saved),
            Err(error) => rulesets.unread.push(Unread { what: program.to_owned(), why: reason(&error) }),
        }
    }
    rulesets.arptables = !arp_tables(netns)?.is_empty();
    Ok(rulesets)
}

fn read_nft(netns: &Netns, reader: Reader) -> io::Result<Rulesets> {
    for _ in 0..ATTEMPTS {
        let before = inside(netns, generation)?;
        let rulesets = match reader {
            Reader::Nft => {
                let listing = list(netns)?;
                let objects = printed(netns, &["ruleset"]).or_else(|error| {
                    log::debug!("nft -j list ruleset: {error}");
                    piecemeal(netns, &listing)
                });
                let names = listing.names().map(|(family, table, chain)| (family.as_str(), table.as_str(), chain.as_str()));
                let of_iptables = saved_on_nftables(netns, names);
                objects.and_then(|objects| Rulesets::of(objects, listing, &of_iptables))
            }
            Reader::Kernel => {
                let devices = list_links(netns)?.into_iter().map(|link| (link.index, link.name)).collect();
                let dump = inside(netns, kernel::dump)?;
                let listing = list(netns).inspect_err(|error| log::debug!("nft -a list ruleset: {error}")).ok();
                let of_iptables = saved_on_nftables(netns, dump.names());
                Ok(Rulesets::of_kernel(dump, listing, &devices, &of_iptables))
            }
        };
        if inside(netns, generation)? == before {
            return rulesets;
        }
    }
    Err(io::Error::other("the ruleset changed again and again while it was read"))
}

/// What iptables on top of nftables prints of the families that have tables of it.
fn saved_on_nftables<'a>(
    netns: &Netns,
    names: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) -> Vec<(&'static str, Vec<Counted>)> {
    let families: BTreeSet<&str> = names.filter(|name| is_of_iptables(*name)).map(|(family, ..)| family).collect();
    let programs = [("ip", "iptables-nft-save"), ("ip6", "ip6tables-nft-save")];
    let mut all = Vec::new();
    for (family, program) in programs.into_iter().filter(|(family, _)| families.contains(family)) {
        // Without it what iptables alone can explain stays unexplained.
        match saved(netns, program) {
            Ok(saved) => all.push((family, saved)),
            Err(error) => log::debug!("{program}: {error}"),
        }
    }
    all
}

/// What nft lists.
fn printed(netns: &Netns, what: &[&str]) -> io::Result<nft::Objects> {
    let list = || output_within(LISTING_LIMIT, Command::new("nft").args(["-j", "-a", "list"]).args(what));
    Ok(nft::objects(&inside(netns, list)?)?)
}

/// The ruleset in parts. Up to nft 1.0.6 a table with flags is printed with bytes from anywhere, which are no JSON: its chains and
/// sets can be listed without it.
fn piecemeal(netns: &Netns, listing: &Listing) -> io::Result<nft::Objects> {
    let names: BTreeSet<&(String, String, String)> =
        listing.names().filter(|(_, table, _)| !table.starts_with(OWN_PREFIX)).collect();
    let tables: BTreeSet<(&str, &str)> = names.iter().map(|(family, table, _)| (family.as_str(), table.as_str())).collect();
    let mut objects = nft::Objects::new();
    for (family, table) in tables {
        match printed(netns, &["table", family, table]) {
            Ok(table) => objects.extend(table),
            Err(error) => {
                log::debug!("nft -j list table {family} {table}: {error}");
                // Asked for all at once they may come without their elements.
                for (kind, kinds) in [("set", "sets"), ("map", "maps")] {
                    for name in nft::names(&printed(netns, &[kinds])?, kind, family, table) {
                        objects.extend(printed(netns, &[kind, family, table, &name])?);
                    }
                }
                for (_, _, chain) in names.iter().filter(|(f, t, _)| (f.as_str(), t.as_str()) == (family, table)) {
                    objects.extend(printed(netns, &["chain", family, table, chain])?);
                }
            }
        }
    }
    Ok(objects)
}

/// Why a program gave no answer.
fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound { NOT_INSTALLED.to_owned() } else { error.to_string() }
}

/// Whether a chain, by its family, table and name, is one of iptables in nftables.
fn is_of_iptables((family, table, chain): (&str, &str, &str)) -> bool {
    let Some(family) = ["ip", "ip6"].into_iter().find(|known| *known == family) else { return false };
    let rule = RuleRef { family, table: table.to_owned(), chain: chain.to_owned(), handle: None };
    ["raw", "mangle", "nat", "filter", "security"].contains(&table) && owner_backend(&rule, chain) == Backend::IptablesNft
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::fresh;

    #[test]
    fn reading_makes_no_tables_and_leaves_nothing_out() {
        let name = "reading_makes_no_tables_and_leaves_nothing_out";
        let Some(netns) = fresh(name) else { return };
        let empty = read(&netns).unwrap();
        assert_eq!((empty.chains.all().count(), empty.unread.len()), (0, 0));
        assert!(!inside(&netns, present).unwrap().tables);
        assert!(legacy_tables(&netns, Family::Ipv4).unwrap().is_empty());
        let run = |program: &str, arguments: &[&str]| {
            let run = || Command::new(program).args(arguments).status();
            netns.run(run).unwrap().is_ok_and(|status| status.success())
        };
        let dormant = "table ip6 asleep { flags dormant; chain c { type filter hook input priority 0; policy drop; }; }";
        let made = [
            run("nft", &[dormant]),
            run("nft", &["table inet t { chain c { type filter hook input priority 0; drop; }; }"]),
            run("iptables-nft", &["-A", "INPUT", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "DROP"]),
            run("iptables-legacy", &["-A", "INPUT", "-j", "DROP"]),
        ];
        if made.contains(&false) {
            crate::kernel::skip(name, "this machine has not every kind of iptables");
            return;
        }
        let read = read(&netns).unwrap();
        assert_eq!(read.unread, []);
        let of = |legacy, family: &str| {
            let chains = read.chains.all().filter(|chain| (chain.place.legacy, chain.place.family.as_str()) == (legacy, family));
            chains.filter(|chain| !chain.rules.is_empty()).count()
        };
        let parts = piecemeal(&netns, read.listing.as_ref().unwrap()).unwrap();
        let in_parts = Rulesets::of(parts, read.listing.clone().unwrap(), &[]).unwrap();
        assert_eq!(in_parts.chains.all().count() + 3, read.chains.all().count(), "three chains are of the old table");
        assert_eq!([of(false, "inet"), of(false, "ip"), of(false, "ip6"), of(true, "ip")], [1, 1, 0, 1]);
    }

    #[test]
    fn a_table_with_an_owner_is_read_too() {
        use std::io::{BufRead, BufReader, Write};
        use std::process::Stdio;
        let name = "a_table_with_an_owner_is_read_too";
        let Some(netns) = fresh(name) else { return };
        let start = || Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut nft) = netns.run(start).unwrap() else {
            crate::kernel::skip(name, "nft is not installed");
            return;
        };
        let table = "table inet o { flags owner; set s { type inet_service; elements = { 8080 }; }; \
                     chain c { type filter hook input priority 0; tcp dport @s drop; }; }\nlist tables\n";
        nft.stdin.as_mut().unwrap().write_all(table.as_bytes()).unwrap();
        // It lives as long as its input, and so does its table.
        assert!(BufReader::new(nft.stdout.take().unwrap()).lines().map_while(Result::ok).any(|line| line.contains("inet o")));
        let read = read(&netns).unwrap();
        // It ends with its input, and the table with it.
        drop(nft.stdin.take());
        nft.wait().unwrap();
        assert_eq!(read.unread, []);
        let prediction = crate::simulate::predict(&read, &crate::simulate::tests::syn(), &crate::simulate::tests::machine());
        let told = crate::simulate::tests::told(&prediction);
        assert!(told.starts_with("drop "), "{told}");
    }
}
