//! Who manages a rule, told from the names that managers give to tables and chains.

use super::event::RuleRef;
use super::listing::Listing;
use crate::evidence::{Backend, Owner};

/// Tables that the iptables commands make in nftables.
const IPTABLES_TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
/// Beginnings of the names of managers' chains.
const CHAINS: [(&str, Owner); 8] = [
    ("DOCKER", Owner::Docker),
    ("NETAVARK", Owner::Podman),
    ("CNI-", Owner::Podman),
    ("ufw", Owner::Ufw),
    ("LIBVIRT", Owner::Libvirt),
    ("WSLOUTPUT", Owner::Wsl),
    ("WSLPOSTROUTING", Owner::Wsl),
    ("INPUT_ZONES", Owner::Firewalld),
];
/// The chain that Docker makes for the user's rules.
pub(super) const USERS_CHAIN: &str = "DOCKER-USER";
/// Managers' own tables.
const TABLES: [(&str, Owner); 5] = [
    ("firewalld", Owner::Firewalld),
    ("firewalld_policy_drop", Owner::Firewalld),
    ("netavark", Owner::Podman),
    ("libvirt_network", Owner::Libvirt),
    ("docker-bridges", Owner::Docker),
];

/// The kind of table that a rule of nftables stands in: the iptables commands' chains on hooks have the hooks' names in capitals.
pub(crate) fn backend(rule: &RuleRef, base_chain: &str) -> Backend {
    let builtin = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&base_chain);
    let iptables = matches!(rule.family, "ip" | "ip6") && IPTABLES_TABLES.contains(&rule.table.as_str()) && builtin;
    if iptables { Backend::IptablesNft } else { Backend::Nft }
}

/// Who manages a rule or policy. ufw sets the policies of the built-in chains too, and Docker that of FORWARD; a rule in them may
/// be anybody's.
pub(crate) fn owner(rule: &RuleRef, listing: Option<&Listing>) -> Owner {
    let of_table = TABLES.iter().find(|(name, _)| *name == rule.table).map(|(_, owner)| *owner);
    let of_chain = by_chain(&rule.chain);
    let of_policy = || {
        let listing = listing.filter(|_| rule.handle.is_none())?;
        of_policy(&rule.chain, || listing.chains_of(rule.family, &rule.table))
    };
    let shields = || listing.filter(|listing| shields_containers(rule, listing)).map(|_| Owner::Docker);
    of_table.or(of_chain).or_else(of_policy).or_else(shields).unwrap_or(Owner::User)
}

/// Who sets the policy of a built-in chain of a table that has these chains.
pub(super) fn of_policy<'a, I: Iterator<Item = &'a str>>(chain: &str, chains: impl Fn() -> I) -> Option<Owner> {
    let sets = |owner| chains().any(|chain| of_name(chain) == Some(owner)).then_some(owner);
    sets(Owner::Ufw).or_else(|| sets(Owner::Docker).filter(|_| chain == "FORWARD"))
}

/// Whether a rule of Docker's stands in a table whose FORWARD does not lead to the chain that Docker made for the user's rules: another
/// firewall, or `iptables -F`, has taken Docker's rules there away.
pub(super) fn lacks_users_chain(rule: &RuleRef, owner: Owner, listing: Option<&Listing>) -> bool {
    // A chain without its place is one whose rules are known in part.
    let forward =
        listing.and_then(|listing| listing.chain(rule.family, &rule.table, "FORWARD")).filter(|chain| chain.base.is_some());
    owner == Owner::Docker
        && rule.table == "filter"
        && forward.is_some_and(|forward| !forward.rules.iter().any(|(_, text)| leads_to(text, USERS_CHAIN)))
}

fn leads_to(text: &str, chain: &str) -> bool {
    let mut words = text.split(' ').rev();
    words.next() == Some(chain) && matches!(words.next(), Some("jump" | "goto"))
}

/// Whether a rule is one of those by which Docker keeps the network from containers' addresses and from ports that are published
/// on 127.0.0.1. They stand in a chain that is everybody's.
fn shields_containers(rule: &RuleRef, listing: &Listing) -> bool {
    // The interfaces that they let through, and the address where it tells them from others' rules.
    const SHIELDS: [(&str, &str); 3] = [("\"lo\" ", "ip daddr 127.0.0.1 "), ("\"docker0\" ", ""), ("\"br-", "")];
    let text = listing.text(rule).unwrap_or_default();
    (rule.table.as_str(), rule.chain.as_str()) == ("raw", "PREROUTING")
        && listing.chains_of(rule.family, "nat").any(|chain| chain == "DOCKER")
        && text.ends_with("drop")
        && SHIELDS.iter().any(|(device, address)| text.contains(&format!("iifname != {device}")) && text.contains(address))
}

/// The manager of the rules in a chain of this name. Docker makes a chain in which all rules are the user's own.
pub(crate) fn by_chain(chain: &str) -> Option<Owner> {
    of_name(chain).filter(|_| chain != USERS_CHAIN)
}

/// The manager that gives chains such a name.
fn of_name(chain: &str) -> Option<Owner> {
    CHAINS.iter().find(|(start, _)| chain.starts_with(start)).map(|(_, owner)| *owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(family: &'static str, table: &str, chain: &str, handle: Option<u64>) -> RuleRef {
        RuleRef { family, table: table.to_owned(), chain: chain.to_owned(), handle }
    }

    #[test]
    fn names_tell_managers() {
        for (family, table, chain, expected) in [
            ("inet", "firewalld", "filter_INPUT", Owner::Firewalld),
            ("ip", "filter", "DOCKER-USER", Owner::User),
            ("ip", "filter", "DOCKER-FORWARD", Owner::Docker),
            ("ip", "filter", "ufw-user-input", Owner::Ufw),
            ("ip6", "filter", "ufw6-user-input", Owner::Ufw),
            ("inet", "netavark", "INPUT", Owner::Podman),
            ("ip", "filter", "LIBVIRT_FWI", Owner::Libvirt),
            ("ip", "mangle", "WSLOUTPUT", Owner::Wsl),
            ("ip", "filter", "INPUT", Owner::User),
        ] {
            assert_eq!(owner(&rule(family, table, chain, Some(3)), None), expected, "{table} {chain}");
        }
    }

    #[test]
    fn a_policy_is_ufws_where_ufw_has_its_chains() {
        let text = "table ip filter { # handle 1\n\tchain ufw-user-input { # handle 2\n\t}\n}\n";
        let listing = Listing::parse(text);
        assert_eq!(owner(&rule("ip", "filter", "INPUT", None), Some(&listing)), Owner::Ufw);
        assert_eq!(owner(&rule("ip", "filter", "INPUT", Some(1)), Some(&listing)), Owner::User);
        assert_eq!(owner(&rule("ip", "filter", "INPUT", None), None), Owner::User);
    }

    #[test]
    fn it_is_seen_whether_forward_leads_to_the_users_chain() {
        let table = |rule: &str| {
            let forward =
                format!("chain FORWARD {{ # handle 1\n\t\ttype filter hook forward priority 0; policy drop;\n{rule}\t}}");
            Listing::parse(&format!("table ip filter {{ # handle 1\n\t{forward}\n\tchain DOCKER-USER {{ # handle 2\n\t}}\n}}\n"))
        };
        let (policy, of) = (rule("ip", "filter", "FORWARD", None), Owner::Docker);
        let (whole, flushed) = (table("\t\tcounter jump DOCKER-USER # handle 3\n"), table(""));
        assert!(lacks_users_chain(&policy, of, Some(&flushed)) && !lacks_users_chain(&policy, of, Some(&whole)));
        assert!(!lacks_users_chain(&policy, Owner::User, Some(&flushed)) && !lacks_users_chain(&policy, of, None));
        // Of chains that were read without nft not every text is known.
        let names = [(("ip".to_owned(), "filter".to_owned(), "FORWARD".to_owned()), Vec::new())];
        assert!(!lacks_users_chain(&policy, of, Some(&Listing::of(names.into_iter()))));
    }

    #[test]
    fn dockers_shields_are_told_from_rules_of_others() {
        let raw = "table ip raw { # handle 1\n\tchain PREROUTING { # handle 2\n\t\t\
                   iifname != \"lo\" ip daddr 127.0.0.1 tcp dport 8080 counter drop # handle 3\n\t\t\
                   tcp dport 8080 counter drop # handle 4\n\t}\n}\n";
        let nat = "table ip nat { # handle 1\n\tchain DOCKER { # handle 2\n\t}\n}\n";
        let (with, without) = (Listing::parse(&format!("{raw}{nat}")), Listing::parse(raw));
        let of = |handle, listing| owner(&rule("ip", "raw", "PREROUTING", Some(handle)), Some(listing));
        assert_eq!([of(3, &with), of(4, &with), of(3, &without)], [Owner::Docker, Owner::User, Owner::User]);
    }

    #[test]
    fn tables_of_iptables_are_known_by_their_built_in_chains() {
        assert_eq!(backend(&rule("ip", "filter", "web", Some(1)), "INPUT"), Backend::IptablesNft);
        assert_eq!(backend(&rule("ip", "filter", "input", Some(1)), "input"), Backend::Nft);
        assert_eq!(backend(&rule("inet", "filter", "INPUT", Some(1)), "INPUT"), Backend::Nft);
    }
}
