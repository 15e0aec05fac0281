//! Commands that let a port through a known rule and change nothing else: the managers' own where one manages the rule, the
//! rule's removal where it is about this very port, and otherwise an exception before it.

use std::net::IpAddr;

use super::case::Case;
use super::managers;
use super::scope;
use crate::{
    escape::{escape, shell_word},
    evidence::{Backend, Further, Owner, Rule, TableHolder},
    journey::{Origin, Outcome, Stage},
};

/// A rule that is to let a port through.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the packet, and no two make one")]
pub(crate) struct Obstacle<'a> {
    /// The rule.
    pub(crate) rule: &'a Rule,
    /// The port by which rules know the packet: the destination of a SYN, the source of an answer.
    pub(crate) port: u16,
    /// Whether it stops answers.
    pub(crate) answer: bool,
    /// Whether the packets are IPv6.
    pub(crate) v6: bool,
    /// Whether it stops packets on their way through this machine.
    pub(crate) forward: bool,
    /// The device by which they leave this machine then, where it is known.
    pub(crate) leaves_by: Option<&'a str>,
    /// The address that they go to there, or the answers come from, where it is known.
    pub(crate) server: Option<IpAddr>,
    /// Whether it stops packets over `lo`, where the answers come through the same chains.
    pub(crate) loopback: bool,
}

/// The commands against the rule that killed a journey, most lasting last.
pub(super) fn mend(case: &Case, rule: &Rule) -> Vec<String> {
    if let Some(holder) = &case.evidence.table_holder {
        return vec![held(rule, holder)];
    }
    let port = port_there(case, rule);
    if port == 0 {
        return Vec::new();
    }
    let answer = case.journey.outcome == Outcome::AnswerDropped;
    let forward = case.journey.died_at.is_some_and(Stage::is_forward);
    let server = Some(case.journey.last_destination().0);
    let leaves_by = if forward && !answer { case.interface() } else { None };
    let obstacle =
        Obstacle { rule, port, answer, v6: case.is_v6(), forward, leaves_by, server, loopback: is_over_loopback(case) };
    let lines = if case.evidence.manager_missing { managers::missing(&obstacle) } else { obstacle.mend() };
    lines.into_iter().map(|line| if line.starts_with('#') { line } else { case.root(&line) }).collect()
}

/// The commands against a rule that would stop the packet next.
pub(super) fn mend_further(case: &Case, further: &Further) -> Vec<String> {
    let Further { rule, address, port, forward } = further;
    let obstacle = Obstacle {
        rule,
        port: *port,
        answer: false,
        v6: case.is_v6(),
        forward: *forward,
        leaves_by: None,
        server: *address,
        loopback: is_over_loopback(case),
    };
    obstacle.mend().into_iter().map(|line| if line.starts_with('#') { line } else { case.root(&line) }).collect()
}

fn is_over_loopback(case: &Case) -> bool {
    case.journey.origin != Origin::Remote && case.elsewhere_netns().is_none()
}

/// What is to be done about a rule of a table that only its program may change.
fn held(rule: &Rule, holder: &TableHolder) -> String {
    let [family, table] = [&rule.family, &rule.table].map(|word| escape(word));
    format!(
        "# the kernel lets only {} change the table {family} {table} (flags owner): let that program allow the port, or stop it; its rules go with it",
        who_holds(holder)
    )
}

/// The program that a table belongs to.
pub(super) fn who_holds(holder: &TableHolder) -> String {
    match (&holder.command, holder.pid) {
        (Some(command), Some(pid)) => format!("{} (pid {pid})", escape(command)),
        _ => "a program that is not seen here".to_owned(),
    }
}

/// The commands against a rule that an answer met which left its server.
pub(super) fn mend_for_answer(case: &Case, rule: &Rule) -> Vec<String> {
    mend_answers(case, rule, case.journey.last_destination().1)
}

/// The commands against a rule that answers from a port would meet.
pub(super) fn mend_answers(case: &Case, rule: &Rule, port: u16) -> Vec<String> {
    let obstacle =
        Obstacle { rule, port, answer: true, v6: case.is_v6(), forward: false, leaves_by: None, server: None, loopback: false };
    obstacle.mend().into_iter().map(|line| if line.starts_with('#') { line } else { case.root(&line) }).collect()
}

/// The commands that keep a rule which gives packets another destination from doing so with those for a port; none where a manager has
/// its own ways.
pub(crate) fn around(rule: &Rule, port: u16, v6: bool) -> Vec<String> {
    if matches!(rule.owner, Owner::Firewalld | Owner::Ufw) {
        return Vec::new();
    }
    let obstacle = Obstacle { rule, port, answer: false, v6, forward: false, leaves_by: None, server: None, loopback: false };
    let delete = if obstacle.is_its_own() { obstacle.delete() } else { None };
    delete.map_or_else(|| obstacle.except(), |delete| vec![delete])
}

/// The port by which rules know the packet where it died. Where the first namespace translates it, the client's own port stands
/// in the answer once that is turned back, behind the source NAT of POSTROUTING.
fn port_there(case: &Case, rule: &Rule) -> u16 {
    if let Some(port) = case.evidence.port_there {
        return port;
    }
    let journey = case.journey;
    let here = journey.last_netns() == journey.netns;
    let sends = rule.family == "netdev" && !case.died_at(&[Stage::NetfilterIngress, Stage::TcIngress]);
    let behind = journey.outcome == Outcome::AnswerDropped && (sends || is_behind_snat(case));
    if here && behind { journey.flow.destination_port } else { journey.last_destination().1 }
}

/// Whether an answer died at a hook of POSTROUTING behind the source NAT, or on a device behind that.
fn is_behind_snat(case: &Case) -> bool {
    let journey = case.journey;
    let answer = journey.answer.and_then(|first| journey.stages.get(first..)).unwrap_or_default();
    let passed = answer.iter().any(|visit| visit.stage == Stage::Snat && visit.netns == journey.netns);
    passed && case.died_at(&[Stage::Postrouting, Stage::TcEgress])
}

/// The command that lets pass what neighbours ask and answer to find each other, before a rule or in front of a policy.
pub(crate) fn allow_neighbours(rule: &Rule, v6: bool) -> String {
    if !v6 {
        // Of the other families only what is ARP's; those of `arp` see nothing else.
        let what = if rule.family == "arp" { "" } else { "meta protocol arp " };
        let (table, chain) = (shell_word(&rule.table), shell_word(&rule.chain));
        return format!("nft insert rule {} {table} {chain} {what}accept", rule.family);
    }
    let obstacle = Obstacle { rule, port: 0, answer: false, v6, forward: false, leaves_by: None, server: None, loopback: false };
    obstacle.except_for("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }", "-p ipv6-icmp")
}

impl Obstacle<'_> {
    /// The commands for root, most lasting last; a line that begins with `#` says what no command can do.
    pub(crate) fn mend(&self) -> Vec<String> {
        if let Some(commands) = managers::mend(self) {
            return commands;
        }
        let delete = || if self.is_its_own() { self.delete() } else { None };
        managers::open(self).unwrap_or_else(|| delete().map_or_else(|| self.except(), |delete| vec![delete]))
    }

    /// What the packets have in common. Of answers not the port alone: whoever sends from that port would come in to every other one. What
    /// opens a connection has no ACK.
    fn nft_port(&self) -> String {
        let port = self.port;
        if self.answer { format!("tcp sport {port} tcp flags ack") } else { format!("tcp dport {port}") }
    }

    /// The same in iptables' words.
    pub(super) fn iptables_port(&self) -> String {
        let port = self.port;
        if self.answer { format!("--sport {port} ! --syn") } else { format!("--dport {port}") }
    }

    /// The server's address where it stands behind this machine: on the way there, and where the rule itself is about that address. An
    /// address of this machine may be another one tomorrow.
    pub(super) fn behind(&self) -> Option<IpAddr> {
        self.server.filter(|server| self.forward || !server.is_loopback() && self.rule.names_destination(*server))
    }

    /// Whether the rule names this port and no other.
    pub(super) fn is_its_own(&self) -> bool {
        self.rule.names_port(self.port, self.answer)
    }

    /// Whether the rule is about certain ports of servers, so that no answer meets it.
    fn names_a_destination_port(&self) -> bool {
        let words = |text: &str| text.split_whitespace().any(|word| matches!(word, "dport" | "--dport" | "--dports"));
        self.rule.text.as_deref().is_some_and(words)
    }

    /// The table, as words of a command: family, name, chain.
    fn place(&self) -> [String; 3] {
        [&self.rule.family, &self.rule.table, &self.rule.chain].map(|word| shell_word(word))
    }

    pub(super) fn delete(&self) -> Option<String> {
        let [family, table, chain] = self.place();
        match (self.rule.backend, self.rule.handle, self.rule.number) {
            (Backend::IptablesNft, ..) if self.rule.text.as_deref().is_some_and(|text| text.starts_with("-A ")) => {
                let words = self.rule.text.as_deref()?.strip_prefix("-A ");
                let words = words.filter(|words| is_plain(words) && !has_state(words))?;
                Some(format!("{} -t {table} -D {words}", self.program()))
            }
            (Backend::IptablesLegacy, _, Some(number)) => {
                // Its number is another's as soon as somebody inserts a rule before it.
                let words = self.rule.text.as_deref().and_then(|text| text.strip_prefix("-A "));
                if words.is_some_and(has_state) {
                    return None;
                }
                let words = words.filter(|words| is_plain(words));
                let rule = words.map_or_else(|| format!("{chain} {number}"), str::to_owned);
                Some(format!("{} -t {table} -D {rule}", self.program()))
            }
            (_, Some(handle), _) => Some(format!("nft delete rule {family} {table} {chain} handle {handle}")),
            _ => None,
        }
    }

    /// One exception, in the words of nft and of iptables, before the rule or in front of a policy: at the chain's end, or at its beginning
    /// where that may not be reached.
    fn except_for(&self, nft: &str, matches: &str) -> String {
        let [family, table, chain] = self.place();
        let iptables = self.program();
        match (self.rule.backend, self.rule.handle) {
            (Backend::Nft, Some(handle)) => format!("nft insert rule {family} {table} {chain} handle {handle} {nft} accept"),
            // What the chain refuses by rules of its own stays refused where the exception comes behind them.
            (Backend::Nft, None) if self.rule.at_chains_end => format!("nft add rule {family} {table} {chain} {nft} accept"),
            (Backend::Nft, None) => format!("nft insert rule {family} {table} {chain} {nft} accept"),
            (_, None) if self.rule.at_chains_end => format!("{iptables} -t {table} -A {chain} {matches} -j ACCEPT"),
            (Backend::IptablesNft | Backend::IptablesLegacy, _) => {
                let before = self.rule.number.map(|number| format!(" {number}")).unwrap_or_default();
                format!("{iptables} -t {table} -I {chain}{before} {matches} -j ACCEPT")
            }
        }
    }

    /// Exceptions before the rule, or in front of a policy: for the port, and where the answers come through
    /// the same chain, for them.
    pub(super) fn except(&self) -> Vec<String> {
        let answers = self.except_for("ct state established,related", "-m conntrack --ctstate ESTABLISHED,RELATED");
        let both_ways = !self.answer && (self.forward || self.loopback && !self.names_a_destination_port());
        // On the way through this machine only to the one server: others behind it may have been left closed on purpose.
        let (nft, iptables) = match (self.behind(), self.answer) {
            (Some(server), true) => (format!("{} saddr {server} ", self.ip()), format!("-s {server} ")),
            (Some(server), false) => (format!("{} daddr {server} ", self.ip()), format!("-d {server} ")),
            (None, _) => (String::new(), String::new()),
        };
        let scope = scope::of_exception(self.rule, self.v6);
        let for_port = self.except_for(
            &format!("{scope}{nft}{}", self.nft_port()),
            &format!("{scope}{iptables}-p tcp {}", self.iptables_port()),
        );
        both_ways.then_some(answers).into_iter().chain([for_port]).collect()
    }

    /// nft's word for its family.
    fn ip(&self) -> &'static str {
        if self.v6 { "ip6" } else { "ip" }
    }

    /// The iptables command that the rule's table belongs to.
    pub(super) fn program(&self) -> &'static str {
        iptables(self.rule.backend, self.v6)
    }
}

/// The command that lets a rule which gives packets another source choose their port itself; `None` where it names none, or is not
/// written in words that its tool takes again.
pub(super) fn without_port(rule: &Rule, v6: bool) -> Option<String> {
    let text = rule.text.as_deref().filter(|_| rule.comment.is_none())?;
    let [table, chain] = [&rule.table, &rule.chain].map(|word| shell_word(word));
    match (rule.backend, rule.handle, rule.number) {
        (Backend::Nft, Some(handle), _) => {
            let text = shell_word(&free_port(text)?);
            Some(format!("nft replace rule {} {table} {chain} handle {handle} {text}", rule.family))
        }
        (Backend::IptablesLegacy, _, Some(number)) => {
            let words = text.strip_prefix("-A ")?.split_once(' ')?.1;
            let free = free_port_of_iptables(words).filter(|words| is_plain(words))?;
            Some(format!("{} -t {table} -R {chain} {number} {free}", iptables(rule.backend, v6)))
        }
        _ => None,
    }
}

/// nft's `masquerade to :PORT` or `snat to ADDRESS:PORT`, without the port.
fn free_port(text: &str) -> Option<String> {
    let mut words: Vec<&str> = text.split(' ').collect();
    let statement = words.iter().position(|word| matches!(*word, "snat" | "masquerade"))?;
    // A table of both families says which before `to`.
    let to = words.iter().skip(statement).position(|word| *word == "to")? + statement;
    let address = without_its_port(words.get(to + 1)?)?;
    let address = address.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(address);
    words.splice(to..=to + 1, ["to", address].into_iter().filter(|_| !address.is_empty()));
    Some(words.join(" "))
}

/// The same in iptables' words: `--to-ports PORT` or `--to-source ADDRESS:PORT`.
fn free_port_of_iptables(words: &str) -> Option<String> {
    if let Some((before, after)) = words.split_once(" --to-ports ") {
        let rest = after.split_once(' ').map(|(_, rest)| format!(" {rest}")).unwrap_or_default();
        return Some(format!("{before}{rest}"));
    }
    let (before, after) = words.split_once(" --to-source ")?;
    let (end, rest) = after.split_once(' ').map_or((after, String::new()), |(end, rest)| (end, format!(" {rest}")));
    Some(format!("{before} --to-source {}{rest}", without_its_port(end)?))
}

/// What stands before a port; `None` where there is none. The last part of an IPv6 address is no port.
fn without_its_port(end: &str) -> Option<&str> {
    let (address, _) = end.rsplit_once(':')?;
    (!address.contains(':') || address.ends_with(']')).then_some(address)
}

/// The iptables command of a backend. By its full name: which of the two worlds plain `iptables` means is a setting, and on WSL many
/// have set it to legacy for Docker's sake.
pub(super) fn iptables(backend: Backend, v6: bool) -> &'static str {
    match (backend, v6) {
        (Backend::IptablesLegacy, true) => "ip6tables-legacy",
        (Backend::IptablesLegacy, false) => "iptables-legacy",
        (_, true) => "ip6tables-nft",
        (_, false) => "iptables-nft",
    }
}

/// Whether iptables compares the state of a match of this rule, which no text has: then it does not find the rule by its words (seen with
/// iptables 1.8.9, old tables).
fn has_state(words: &str) -> bool {
    let words: Vec<&str> = words.split(' ').collect();
    words.windows(2).any(|two| matches!(two, ["-m", "connlimit" | "recent"]))
}

/// Whether a shell takes words as they are.
fn is_plain(words: &str) -> bool {
    words.chars().all(|c| c.is_ascii_alphanumeric() || " -_.,:/+!=".contains(c))
}

#[cfg(test)]
mod tests {
    use super::free_port_of_iptables;

    #[test]
    fn iptables_chooses_the_port_itself_when_none_is_named() {
        let free = |words| free_port_of_iptables(words);
        assert_eq!(free("-o br0 -j MASQUERADE --to-ports 5000").as_deref(), Some("-o br0 -j MASQUERADE"));
        assert_eq!(free("-j MASQUERADE --to-ports 5000 --random").as_deref(), Some("-j MASQUERADE --random"));
        assert_eq!(free("-j SNAT --to-source 10.0.0.1:5000").as_deref(), Some("-j SNAT --to-source 10.0.0.1"));
        assert_eq!(free("-j SNAT --to-source [fd00::1]:5000").as_deref(), Some("-j SNAT --to-source [fd00::1]"));
        for portless in ["-j SNAT --to-source fd00::1", "-j MASQUERADE", "-j SNAT --to-source 10.0.0.1"] {
            assert_eq!(free(portless), None, "{portless}");
        }
    }
}
