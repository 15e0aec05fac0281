//! Judges of what firewalls did: rules and policies.
//!
//! `NETFILTER_DROP` proves that a hook function refused this packet, and the stage says at which priority. Chains free it in
//! `nft_do_chain` (Linux 6.7 and later); `x_tables`, BPF links, conntrack and NAT leave that to `nf_hook_slow`, as every
//! back end does before 6.7. So `nf_hook_slow` proves a firewall only at priorities where neither conntrack nor NAT acts.

use super::{
    Confidence, case::Case, case::Finding, confirmation::unconfirmed, icmp, remedy::iptables, remedy::mend, remedy::mend_further,
    routes::Refusal, routes::mend_way_back, routes::refused_by_tables, stages::stage_page,
};
use crate::{
    evidence::{Backend, NamedBy, Owner, Rule},
    journey::{Outcome, Stage},
};

/// Stages whose priorities conntrack or NAT share with chains.
const SHARED_WITH_CONNTRACK: [Stage; 11] = [
    Stage::Prerouting,
    Stage::Conntrack,
    Stage::Dnat,
    Stage::Input,
    Stage::Forward,
    Stage::Output,
    Stage::OutputConntrack,
    Stage::OutputNat,
    Stage::Postrouting,
    Stage::Snat,
    Stage::Routing,
];

pub(super) fn drop(case: &Case) -> Option<Finding> {
    if case.journey.is_unconfirmed_by_firewall() {
        return Some(unconfirmed(case, "dropped", "the client sees itself connected and waits in vain"));
    }
    let confidence = if case.evidence.rule.is_some() { by_rule_of(case) } else { refused_by_hook(case)? };
    if let Some(rule) = case.evidence.rule.as_ref().filter(|rule| rule.leads_to_proxy()) {
        return Some(without_proxy(case, confidence, rule.proxy_port()));
    }
    let behind = behind(case).unwrap_or_default();
    Some(Finding::new(confidence, format!("{}{behind}", sentence(case, "dropped"))).remedy(remedy(case)))
}

/// A rule hands the packet to a transparent proxy which is not there.
fn without_proxy(case: &Case, confidence: Confidence, port: Option<u16>) -> Finding {
    let on = port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let sentence = sentence(case, "dropped");
    let summary = format!("{sentence}; it hands packets to a transparent proxy{on}, and no proxy takes them there");
    let start = format!("# start the proxy that is to listen{on} (`ss -ltnp` shows who listens), or else take the rule away:");
    Finding::new(confidence, summary).remedy([start]).remedy(remedy(case))
}

pub(super) fn reject(case: &Case) -> Option<Finding> {
    let by_rule = case.evidence.rule.as_ref().is_some_and(|rule| rule.verdict == "reject");
    if case.journey.outcome == Outcome::Answered {
        let rejected = by_rule && case.journey.is_unconfirmed_by_firewall();
        return rejected.then(|| unconfirmed(case, "rejected", "the client sees itself connected, and then gets an error"));
    }
    if case.journey.outcome == Outcome::Dropped {
        return suppressed_reject(case, by_rule);
    }
    if case.evidence.rule.is_none() && case.was_answered_beyond() {
        return Some(rejected_beyond(case));
    }
    let confidence = if by_rule { by_rule_of(case) } else { refused_by_hook(case).unwrap_or(Confidence::Inferred) };
    let answer = match (case.journey.facts.reset, case.journey.facts.icmp) {
        (true, _) => "; it answered with a TCP reset, so the client sees \"connection refused\"".to_owned(),
        (_, true) => match case.evidence.rule.as_ref().and_then(|rule| icmp::seen_by_client(rule, case.is_v6())) {
            Some(error) => format!("; it answered with an ICMP error, so a client on Linux sees \"{error}\""),
            None => "; it answered with an ICMP error, so the client sees an error such as \"connection refused\"".to_owned(),
        },
        _ => String::new(),
    };
    let behind = behind(case).unwrap_or_default();
    Some(Finding::new(confidence, format!("{}{answer}{behind}", sentence(case, "rejected"))).remedy(remedy(case)))
}

/// An ICMP error of another machine.
fn rejected_beyond(case: &Case) -> Finding {
    let (address, port) = case.journey.last_destination();
    let to = super::case::endpoint(address, port);
    let summary = format!(
        "rejected: the packet left this machine, and an error came back from {to} or a router or firewall on the way to it; they are not seen from here"
    );
    let look = format!("# look at the firewall of {address}, and whether the way there is right:");
    Finding::inferred(summary).remedy([look, case.root(&format!("ip route get {address}"))])
}

/// A `reject` that drops the packet like any other rule, because the kernel limits how many ICMP errors it sends.
fn suppressed_reject(case: &Case, by_rule: bool) -> Option<Finding> {
    let sentence = sentence(case, "rejected");
    let finding = if by_rule {
        Finding::new(by_rule_of(case), format!("{sentence}; {}", why_unanswered(case)))
    } else {
        let suppressed = case.evidence.icmp_suppressed.is_some_and(|rise| rise > 0 && rise >= case.evidence.dropped_by_netfilter);
        if !suppressed || case.evidence.rule.is_some() || refused_by_hook(case).is_none() {
            return None;
        }
        Finding::inferred(format!(
            "{sentence}; most likely it is a reject whose ICMP error the kernel's rate limit held back, so the client sees nothing"
        ))
    };
    Some(finding.remedy(remedy(case)))
}

/// Why the client hears nothing of a rule that rejects.
fn why_unanswered(case: &Case) -> String {
    let text = case.evidence.rule.as_ref().and_then(|rule| rule.text.as_deref()).unwrap_or_default();
    let resets = text.contains("tcp reset") || text.contains("tcp-reset");
    if case.evidence.route_back == Some(false) {
        let source = case.journey.last_source();
        return format!("there is no route back to {source} for its answer, so the client sees nothing");
    }
    if !resets && case.evidence.icmp_suppressed.is_none_or(|rise| rise > 0) {
        return "the kernel limits such answers, and none was sent for this attempt".to_owned();
    }
    let answer = case.journey.answer.and_then(|at| case.journey.stages.get(at..)).unwrap_or_default();
    if answer.iter().any(|visit| visit.stage == Stage::Input) {
        return "its answer was on its way in to the client, which is here: most likely this rule or another drops that, too, so the client \
                sees nothing"
            .to_owned();
    }
    "its answer did not leave: most likely another rule here drops that, so the client sees nothing".to_owned()
}

/// How sure it is that the rule which is known did it.
pub(super) fn by_rule_of(case: &Case) -> Confidence {
    if case.evidence.named_by == NamedBy::Packet { Confidence::Proved } else { Confidence::Inferred }
}

/// How sure it is that a rule or policy (and not conntrack) refused the packet; `None` when no hook did.
fn refused_by_hook(case: &Case) -> Option<Confidence> {
    let in_chain = matches!(case.symbol(), Some("nft_do_chain" | "ipt_do_table" | "ip6t_do_table"));
    match case.reason() {
        // That it was one of some rules is read off the rules.
        Some("NETFILTER_DROP") if !case.evidence.suspects.is_empty() => Some(Confidence::Inferred),
        Some("NETFILTER_DROP") => {
            let shared = case.died_at(&SHARED_WITH_CONNTRACK) || case.journey.died_at.is_none();
            let unclear = shared && !in_chain && case.evidence.backend.is_none();
            Some(if unclear { Confidence::Inferred } else { Confidence::Proved })
        }
        Some(_) => None,
        None => (in_chain || case.symbol() == Some("nf_hook_slow")).then_some(Confidence::Inferred),
    }
}

/// Where a rule did it. Chains of a device's way out and of bridges stand where no stage is named after them.
pub(super) fn place(case: &Case) -> String {
    let family = case.evidence.rule.as_ref().map(|rule| rule.family.as_str());
    let on = case.interface().map(|name| format!(" on {name}")).unwrap_or_default();
    match family {
        Some("netdev") if !case.died_at(&[Stage::NetfilterIngress, Stage::TcIngress]) => {
            format!("the nftables egress chain of its device{on}")
        }
        Some("bridge") => format!("a chain of the bridge{on}"),
        Some("ip" | "ip6") if case.died_at(&[Stage::TcIngress]) => format!("the very beginning of PREROUTING{on}"),
        Some("inet") if case.died_at(&[Stage::TcIngress]) => {
            format!("the very beginning of PREROUTING, or a chain at the ingress of its device,{on}")
        }
        // Behind tc, and before any hook of this machine's own.
        None if case.died_at(&[Stage::TcIngress]) && matches!(case.symbol(), Some("nft_do_chain" | "nf_hook_slow")) => {
            format!(
                "a chain at the ingress of its device, of the bridge that the device belongs to, or at the very beginning of PREROUTING,{on}"
            )
        }
        _ => case.place(),
    }
}

/// What a rule is known by that no event of the packet names.
pub(super) fn known_by(case: &Case) -> &'static str {
    match case.evidence.named_by {
        NamedBy::Packet => "",
        NamedBy::Twin => ", as the kernel named it for another attempt of this client",
        NamedBy::Rules => ", which by the rules as they are now is the only one there that may do so",
    }
}

fn sentence(case: &Case, verb: &str) -> String {
    let place = place(case);
    let Some(rule) = &case.evidence.rule else {
        let programs = &case.evidence.netfilter_programs;
        if !programs.is_empty() {
            let names: Vec<String> = programs.iter().map(|name| format!("'{name}'")).collect();
            let (what, names) = (if names.len() == 1 { "the BPF program" } else { "one of the BPF programs" }, names.join(", "));
            return format!("{verb} by a firewall in {place}; most likely {what} {names}, attached to netfilter, did it");
        }
        let kind = match (case.evidence.backend, case.symbol()) {
            (Some(Backend::Nft), _) => "an nftables chain did it, ",
            (Some(Backend::IptablesNft), _) => "an iptables-nft chain did it, ",
            (Some(Backend::IptablesLegacy), _) => "an iptables-legacy chain did it, ",
            (None, Some("nft_do_chain")) => "an nftables chain did it (nft or iptables-nft), ",
            (None, Some("nf_hook_slow")) if case.died_at(&SHARED_WITH_CONNTRACK) => {
                "a chain, a BPF program or connection tracking itself did it, "
            }
            (None, Some("nf_hook_slow")) if case.died_at(&[Stage::TcIngress]) => {
                "ebtables or a BPF program did it (before Linux 6.7 perhaps nftables), "
            }
            (None, Some("nf_hook_slow")) => "iptables-legacy or a BPF program did it (before Linux 6.7 also nftables), ",
            _ => "",
        };
        return format!("{verb} by a firewall in {place}; {kind}which rule is not known{}", one_of(&case.evidence.suspects));
    };
    let comment = rule.comment.as_ref().map(|comment| format!(" (\"{comment}\")")).unwrap_or_default();
    let text = rule.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    let twin = known_by(case);
    let reverse = if rule.asks_for_way_back() {
        let refused = no_way_back(case).map(|refusal| format!(", and {}", refusal.what)).unwrap_or_default();
        format!("; it lets in only what this machine would answer by the same interface{refused}")
    } else {
        String::new()
    };
    let limit = match (rule.is_limit(), rule.remembers()) {
        (true, _) => "; it is a limit, which what came before has used up, so a later attempt may pass",
        (_, true) => "; it asks how often this address came before, so a later attempt may pass",
        _ if rule.is_by_chance() => "; it takes some packets and leaves others alike, so a later attempt may pass",
        _ => "",
    };
    format!("{verb} in {place} by {}{comment}{text}{twin}{reverse}{limit}", name(rule))
}

/// The rules of which one did it.
pub(super) fn one_of(suspects: &[Rule]) -> String {
    let with_text =
        |rule: &Rule| format!("{}{}", name(rule), rule.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default());
    match suspects {
        [others @ .., last] if !others.is_empty() => {
            let others: Vec<String> = others.iter().map(with_text).collect();
            format!(", by the rules as they are now it is {} or {}", others.join(", "), with_text(last))
        }
        _ => String::new(),
    }
}

/// What stands behind the rule that did it, and would stop the next attempt.
pub(super) fn behind(case: &Case) -> Option<String> {
    let (first, rest) = case.evidence.further.split_first()?;
    let first = &first.rule;
    let text = first.text.as_ref().filter(|_| first.handle.or(first.number.map(u64::from)).is_some());
    let text = text.map(|text| format!(": {text}")).unwrap_or_default();
    let more = if rest.is_empty() { String::new() } else { format!(", and {} more behind that", rest.len()) };
    Some(format!("; once that lets it through, {} would stop it next{more}, by the rules as they are now{text}", name(first)))
}

/// The rule in words, such as `rule 4 of ip filter INPUT`.
pub fn name(rule: &Rule) -> String {
    let chain = format!("{} {} {}", rule.family, rule.table, rule.chain);
    let owner = match rule.owner {
        Owner::User => String::new(),
        owner => format!(", which {} manages", owner_name(owner)),
    };
    match (rule.handle, rule.number) {
        (Some(handle), _) => format!("rule handle {handle} of {chain}{owner}"),
        (None, Some(number)) => format!("rule {number} of {chain}{owner}"),
        (None, None) => format!("the policy of {chain}{owner}"),
    }
}

fn owner_name(owner: Owner) -> &'static str {
    match owner {
        Owner::Firewalld => "firewalld",
        Owner::Ufw => "ufw",
        Owner::Docker => "docker",
        Owner::Podman => "podman",
        Owner::Wsl => "WSL",
        Owner::Libvirt => "libvirt",
        Owner::User => "the user",
    }
}

pub(super) fn remedy(case: &Case) -> Vec<String> {
    // The last first: where a rule is known by its number, what is done about one behind it does not give it another.
    let further = case.evidence.further.iter().rev().flat_map(|further| mend_further(case, further));
    let rule = case.evidence.rule.as_ref().map_or_else(|| see_suspects(case), |rule| mend_rule(case, rule));
    case.where_to_type().into_iter().chain(further).chain(rule).collect()
}

/// Commands that show the rules, and what may be done about each of those that may have done it: with one of them it is enough.
pub(super) fn see_suspects(case: &Case) -> Vec<String> {
    let against = |rule: &Rule| mend_rule(case, rule).into_iter().map(|line| format!("# {}", line.trim_start_matches("# ")));
    let suspects = &case.evidence.suspects;
    let head = (!suspects.is_empty()).then(|| "# one of these is enough; try again after each:".to_owned());
    see(case).into_iter().chain(head).chain(suspects.iter().flat_map(against)).collect()
}

/// The commands against a rule; one that asks for the way back is content when there is one.
fn mend_rule(case: &Case, rule: &Rule) -> Vec<String> {
    let right_way = if rule.asks_for_way_back() {
        // A route beside one that refuses would not be asked.
        no_way_back(case).map(|refusal| refusal.mend).or_else(|| mend_way_back(case))
    } else {
        None
    };
    // Who set it wanted it, perhaps with another number.
    let limits = rule.is_limit() || rule.remembers();
    let raise = limits.then(|| "# wait until it lets more in, or change its numbers; or else:".to_owned());
    right_way.unwrap_or_else(|| raise.into_iter().chain(mend(case, rule)).collect())
}

/// What refuses the answer to a packet whose way back a rule asks for.
fn no_way_back(case: &Case) -> Option<Refusal> {
    refused_by_tables(case, case.journey.answer_destination())
}

/// Commands that show the rules which can have done it.
pub(super) fn see(case: &Case) -> Vec<String> {
    let table = case.journey.died_at.and_then(|stage| stage_page(stage).table);
    let only_table = table.map(|table| format!(" -t {table}")).unwrap_or_default();
    let save = if case.is_v6() { "ip6tables-legacy-save" } else { "iptables-legacy-save" };
    let nft = case.root("nft -a list ruleset");
    // -save only reads; -L and -S would create the table in a namespace that has none.
    let legacy = case.root(&format!("{save} -c{only_table}"));
    let iptables = iptables(Backend::IptablesNft, case.is_v6());
    let hook = case.journey.died_at.and_then(|stage| stage_page(stage).hook);
    let list = table.zip(hook).map(|(table, hook)| case.root(&format!("{iptables} -t {table} -L {hook} -nv --line-numbers")));
    match (case.evidence.backend, case.symbol()) {
        (Some(Backend::IptablesLegacy), _) => vec![legacy],
        (Some(Backend::IptablesNft), _) => vec![list.unwrap_or(nft)],
        (Some(Backend::Nft), _) | (None, Some("nft_do_chain")) => vec![nft],
        (None, _) if !case.evidence.netfilter_programs.is_empty() => {
            vec![case.root("bpftool net show"), "# then take it away with the program that attached it".to_owned()]
        }
        (None, _) => vec![legacy, nft],
    }
}
