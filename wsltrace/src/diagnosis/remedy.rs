//! Commands that let a port through a known rule and change nothing else: the managers' own where one manages the rule, the
//! rule's removal where it is about this very port, and otherwise an exception before it.

use super::case::Case;
use crate::{
    escape::shell_word,
    evidence::{Backend, Owner, Rule},
    journey::{Outcome, Stage},
};

/// Stages that both directions pass.
const FORWARD: [Stage; 4] = [Stage::Forward, Stage::ForwardMangle, Stage::ForwardFilter, Stage::ForwardSecurity];

/// The commands, most lasting last.
pub(super) fn mend(case: &Case, rule: &Rule) -> Vec<String> {
    let Some(port) = Port::of(case) else { return Vec::new() };
    match rule.owner {
        // What is on its way through this machine is none of the ports that it has open.
        Owner::Ufw if case.died_at(&FORWARD) => {
            vec![case.root(&format!("ufw route allow proto tcp to any port {}", port.number))]
        }
        Owner::Ufw => vec![case.root(&format!("ufw allow {}/tcp", port.number))],
        Owner::Firewalld if case.died_at(&FORWARD) => {
            let policy = format!("forward-{}", port.number);
            let options = [
                format!("--permanent --new-policy={policy}"),
                format!("--permanent --policy={policy} --add-ingress-zone=ANY"),
                format!("--permanent --policy={policy} --add-egress-zone=ANY"),
                format!("--permanent --policy={policy} --add-port={}/tcp", port.number),
                "--reload".to_owned(),
            ];
            options.map(|options| case.root(&format!("firewall-cmd {options}"))).into()
        }
        Owner::Firewalld => {
            let zone = zone(&rule.chain).map(|zone| format!(" --zone={}", shell_word(zone))).unwrap_or_default();
            let add = |lasting: &str| case.root(&format!("firewall-cmd{lasting}{zone} --add-port={}/tcp", port.number));
            vec![add(""), add(" --permanent")]
        }
        // Its chain for the user's rules is asked in this table only.
        Owner::Docker if rule.backend != Backend::Nft && rule.table == "filter" => {
            let iptables = program(case, rule);
            vec![case.root(&format!("{iptables} -I DOCKER-USER -p tcp {} -j ACCEPT", port.iptables()))]
        }
        _ => {
            let delete = if is_about(rule, port) { delete(case, rule) } else { None };
            let commands = delete.map_or_else(|| except(case, rule, port), |delete| vec![delete]);
            commands.iter().map(|command| case.root(command)).collect()
        }
    }
}

/// The port by which rules know the packet: the destination of a SYN, the source of an answer.
#[derive(Clone, Copy)]
struct Port {
    number: u16,
    answer: bool,
}

impl Port {
    fn of(case: &Case) -> Option<Self> {
        let number = case.journey.last_destination().1;
        (number != 0).then_some(Self { number, answer: case.journey.outcome == Outcome::AnswerDropped })
    }

    fn nft(self) -> String {
        format!("tcp {} {}", if self.answer { "sport" } else { "dport" }, self.number)
    }

    fn iptables(self) -> String {
        format!("{} {}", if self.answer { "--sport" } else { "--dport" }, self.number)
    }
}

/// Whether a rule names this port and no other.
fn is_about(rule: &Rule, port: Port) -> bool {
    let Some(text) = rule.text.as_deref().filter(|_| rule.handle.is_some() || rule.number.is_some()) else { return false };
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = port.number.to_string();
    words.windows(2).any(|two| match two {
        ["dport" | "--dport" | "--dports", value] => !port.answer && **value == *number,
        ["sport" | "--sport" | "--sports", value] => port.answer && **value == *number,
        _ => false,
    })
}

fn delete(case: &Case, rule: &Rule) -> Option<String> {
    let [family, table, chain] = [&rule.family, &rule.table, &rule.chain].map(|word| shell_word(word));
    match (rule.backend, rule.handle, rule.number) {
        (Backend::IptablesLegacy, _, Some(number)) => Some(format!("{} -t {table} -D {chain} {number}", legacy(case))),
        (_, Some(handle), _) => Some(format!("nft delete rule {family} {table} {chain} handle {handle}")),
        _ => None,
    }
}

/// Exceptions before the rule, or in front of a policy at the chain's beginning: for the port, and where the answers come through
/// the same chain, for them.
fn except(case: &Case, rule: &Rule, port: Port) -> Vec<String> {
    let [family, table, chain] = [&rule.family, &rule.table, &rule.chain].map(|word| shell_word(word));
    let iptables = program(case, rule);
    let except = |nft: &str, matches: &str| match (rule.backend, rule.handle) {
        (Backend::Nft, Some(handle)) => format!("nft insert rule {family} {table} {chain} handle {handle} {nft} accept"),
        (Backend::Nft, None) => format!("nft insert rule {family} {table} {chain} {nft} accept"),
        (Backend::IptablesNft | Backend::IptablesLegacy, _) => {
            let before = rule.number.map(|number| format!(" {number}")).unwrap_or_default();
            format!("{iptables} -t {table} -I {chain}{before} {matches} -j ACCEPT")
        }
    };
    let answers = except("ct state established,related", "-m conntrack --ctstate ESTABLISHED,RELATED");
    let both_ways = !port.answer && case.died_at(&FORWARD);
    let for_port = except(&port.nft(), &format!("-p tcp {}", port.iptables()));
    both_ways.then_some(answers).into_iter().chain([for_port]).collect()
}

/// The iptables command that the rule's table belongs to.
fn program(case: &Case, rule: &Rule) -> &'static str {
    match (rule.backend, case.is_v6()) {
        (Backend::IptablesLegacy, _) => legacy(case),
        (_, true) => "ip6tables",
        (_, false) => "iptables",
    }
}

fn legacy(case: &Case) -> &'static str {
    if case.is_v6() { "ip6tables-legacy" } else { "iptables-legacy" }
}

/// The zone in the name of one of firewalld's chains, such as `filter_IN_public_deny`.
fn zone(chain: &str) -> Option<&str> {
    let rest = chain
        .split_once("_IN_")
        .or_else(|| chain.split_once("_FWD_"))
        .map_or_else(|| chain.strip_prefix("IN_"), |(_, rest)| Some(rest))?;
    let zone = ["_pre", "_log", "_deny", "_allow", "_post"].iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest);
    (!zone.is_empty() && !zone.starts_with("POLICIES") && !zone.starts_with("policy")).then_some(zone)
}

#[cfg(test)]
mod tests {
    use super::zone;

    #[test]
    fn zones_are_read_from_firewalld_chains() {
        assert_eq!(zone("filter_IN_public_deny"), Some("public"));
        assert_eq!(zone("filter_IN_docker"), Some("docker"));
        assert_eq!(zone("IN_home_allow"), Some("home"));
        assert_eq!(zone("filter_INPUT"), None);
    }
}
