//! Judges of journeys whose SYN was answered: what became of the answer.
#![expect(clippy::unnecessary_wraps, reason = "judges share one signature")]

use super::{
    Confidence,
    case::{Case, Finding},
    cgroup, firewall,
    remedy::{mend, mend_further},
    routes::{ip, refused_answer, route_back_by_entrance},
    unanswered::reset_here,
};
use crate::escape::{escape, shell_word};
use crate::evidence::{BridgePort, Mirror};
use crate::journey::{Facts, Origin, Outcome, REFUSED_BY_CLIENT, Stage, StageVisit};
use crate::units::duration;

pub(super) fn healthy(case: &Case) -> Option<Finding> {
    if case.journey.is_unconfirmed() {
        return None;
    }
    let Facts { acknowledged, established, answer_from_outside, asked_again, .. } = case.journey.facts;
    let by = if answer_from_outside { "answered from beyond this machine" } else { "answered" };
    Some(if established || acknowledged && answer_from_outside {
        Finding::proved(format!("{by}, and the client completed the connection{}{}", by_another_way(case), closed_unsaid(case)))
    } else if acknowledged {
        Finding::inferred(format!("{by}, and the client confirmed it; that the connection was made here was not seen"))
    } else if case.evidence.resets_of_half_open > 0 {
        let resets = reset_here(case);
        Finding::inferred(format!(
            "{by}, and most likely the client gave the connection up by a reset, as a port scan does{resets}"
        ))
    } else if asked_again {
        Finding::inferred(format!("{by}, but the client sent its SYN again meanwhile, so the answer came late or was lost"))
    } else {
        Finding::inferred(format!("{by}; whether the client got the answer was not seen"))
    })
}

/// A server that closes without a word is none to its client, which may show an empty reply; a protocol in which it does so is rare.
fn closed_unsaid(case: &Case) -> String {
    let Some(after_ns) = case.journey.facts.server_closed_ns else { return String::new() };
    format!(
        "; the server closed it {} later without having sent a byte, as a proxy does that cannot reach what it leads to",
        duration(after_ns)
    )
}

/// The answer may leave by another interface than its SYN came by; where the client got it, that is no fault.
fn by_another_way(case: &Case) -> String {
    let Facts { answer_elsewhere, answer_left, .. } = case.journey.facts;
    let left = left_by(case).filter(|_| answer_elsewhere && !answer_left);
    left.map_or_else(String::new, |left| format!(" (the answer left by {left}, not by the interface that the SYN came in by)"))
}

/// The interface by which the answer left the namespace where its SYN came in.
fn left_by<'a>(case: &Case<'a>) -> Option<&'a str> {
    let leaves = |visit: &&StageVisit| visit.stage == Stage::TcEgress && visit.netns == case.journey.netns;
    answer(case).filter(leaves).last()?.interface.as_deref()
}

pub(super) fn wrong_interface(case: &Case) -> Option<Finding> {
    let entered = case.journey.entrance();
    let source = case.journey.answer_destination();
    let mend = route_back_by_entrance(case).unwrap_or_default();
    let (by_rule, by_mark) = (by_rule(case), by_mark(case));
    let marks = by_mark.is_some().then(|| case.root("nft -a list ruleset | grep mark"));
    let took = case.journey.strayed_by().or_else(|| left_by(case)).or_else(|| waits_on(case));
    let overlap = if by_rule.is_some() { None } else { super::overlap::of_answer(case, took, entered) };
    let for_good = overlap.as_ref().map(|(took, _)| super::overlap::another_range(took));
    let why = by_rule.or(overlap.map(|(_, why)| why)).or(by_mark);
    let iif = case.journey.answer_entrance().map(|name| format!(" iif {}", shell_word(name))).unwrap_or_default();
    let get = format!("{} route get {source} from {}{iif}", ip(case), case.journey.last_destination().0);
    let look = [case.root(&get), case.root(&format!("{} rule show", ip(case)))];
    let finding =
        |finding: Finding| finding.remedy(case.where_to_type()).remedy(mend).remedy(for_good).remedy(look).remedy(marks);
    if let Some(port) = &case.evidence.bridge_port {
        return Some(sent_by_port(case, port));
    }
    // It never left: nobody has the client's address on the other interface.
    if let Some((entered, other)) = entered.zip(waits_on(case)).filter(|(entered, other)| entered != other) {
        let (fate, confidence) = match case.journey.outcome {
            Outcome::Unfinished => ("so far answers", Confidence::Inferred),
            _ => ("answers", Confidence::Proved),
        };
        let summary = format!(
            "answered by the wrong way: the SYN came in by {entered} and the answer was routed to {other}, where no next hop towards {source} {fate}{}",
            why.unwrap_or_default()
        );
        return Some(finding(Finding::new(confidence, summary)));
    }
    if let Some(left) = case.journey.strayed_by() {
        let summary = format!(
            "answered by the wrong way: in network namespace {} the SYN came in by {} and the answer left by {left}, and was not seen again{}",
            case.journey.last_netns(),
            entered.unwrap_or("one interface"),
            why.unwrap_or_default()
        );
        return Some(finding(Finding::inferred(summary)));
    }
    if let Some(finding) = super::aside::sent_aside(case) {
        return Some(finding);
    }
    let Facts { answer_elsewhere, answer_left, acknowledged, established, .. } = case.journey.facts;
    let arrived = acknowledged || established;
    if !answer_elsewhere || answer_left || arrived || case.journey.outcome == Outcome::Unfinished {
        return None;
    }
    let left = left_by(case);
    if left == Some("lo") && case.evidence.has_address(source) {
        return Some(answered_to_itself(case));
    }
    let summary = format!(
        "answered by the wrong way: the SYN came in by {} and the answer left by {}, so the client never gets it{}",
        entered.unwrap_or("one interface"),
        left.unwrap_or("another"),
        why.unwrap_or_default()
    );
    Some(finding(Finding::proved(summary)))
}

/// The server's address is on a port of the bridge by which everything comes.
fn sent_by_port(case: &Case, BridgePort { device, bridge, address, prefix }: &BridgePort) -> Finding {
    let summary = format!(
        "answered by the wrong way: the SYN came in by the bridge {}, and its answer was to leave by {} alone, which is a port of that bridge and has {address}: what comes back to a port comes to its bridge, so nobody is found there; address and routes belong on the bridge",
        escape(bridge),
        escape(device)
    );
    let (ip, port, bridge) = (ip(case), shell_word(device), shell_word(bridge));
    let change = |does: &str, device: &str| case.root(&format!("{ip} address {does} {address}/{prefix} dev {device}"));
    let routes = format!("# and likewise the routes by {port}, such as the default one (see: {ip} route show dev {port})");
    Finding::inferred(summary).remedy([change("del", &port), change("add", &bridge), routes])
}

fn answer<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a StageVisit> {
    case.journey.stages.iter().skip(case.journey.answer.unwrap_or(usize::MAX))
}

/// The interface on which the answer waited for a next hop, for ever or until now.
fn waits_on<'a>(case: &Case<'a>) -> Option<&'a str> {
    if case.elsewhere_netns().is_some() {
        return None;
    }
    if case.died_at(&[Stage::Neighbour]) {
        return case.journey.death.as_ref()?.interface.as_deref();
    }
    let waits = |visit: &&StageVisit| case.journey.outcome == Outcome::Unfinished && visit.stage == Stage::Neighbour;
    answer(case).last().filter(waits)?.interface.as_deref()
}

/// What explains that an answer did not take the way of the routes.
fn by_mark(case: &Case) -> Option<String> {
    let right = case.evidence.way_back.as_deref() == case.journey.entrance() && case.evidence.way_back.is_some();
    (right && case.evidence.rules_by_mark).then(|| "; the routes for packets without a mark are right, so most likely a firewall marks it, or the server itself does (SO_MARK), and a rule of `ip rule` (fwmark) takes it there".to_owned())
}

/// The rule of `ip rule` that leads it there, as far as rules without marks tell.
fn by_rule(case: &Case) -> Option<String> {
    let rule = case.evidence.leading_rule.as_ref()?;
    let took = case.journey.strayed_by().or_else(|| left_by(case)).or_else(|| waits_on(case))?;
    if case.evidence.way_back.as_deref() != Some(took) {
        return None;
    }
    let (preference, text) = (rule.preference, escape(&rule.text));
    Some(format!("; by the rules as they are now, \"{preference}: {text}\" of `ip rule` leads it to {}", escape(took)))
}

/// The client has an address that is also this machine's: the answer stays here.
fn answered_to_itself(case: &Case) -> Finding {
    let (entered, source) = (case.journey.entrance().unwrap_or("one interface"), case.journey.last_source());
    let to_itself = format!(
        "answered by the wrong way: the SYN came in by {entered} from {source}, which is an address of this machine too, so the answer went to lo and never left"
    );
    let mend = match case.evidence.mirror {
        None => {
            let look = case.root(&format!("ip address show to {source}"));
            return Finding::proved(to_itself).remedy(["# give one of the two machines another address:".to_owned(), look]);
        }
        Some(Mirror::NoRule) => "ip rule add pref 1 ipproto tcp lookup 127".to_owned(),
        Some(Mirror::RuleBehind(preference)) => format!("ip rule del pref {preference} lookup local"),
        Some(Mirror::NoRoute) => {
            format!("ip route add 127.0.0.1 via 169.254.73.249 dev {} onlink src 127.0.0.1 table 127", shell_word(entered))
        }
    };
    let summary = format!(
        "{to_itself}; WSL's routing for Windows' localhost (table 127 and the rules that lead to it) is not as WSL has set it, so most likely a program in a distro has changed it"
    );
    let again = "# or let WSL set it again, from Windows: wsl --shutdown".to_owned();
    Finding::proved(summary).remedy([case.root(&mend), again])
}

pub(super) fn dropped(case: &Case) -> Option<Finding> {
    let refused = case.journey.facts.reset && !case.journey.facts.syn_ack;
    if case.evidence.rule.is_none()
        && !refused
        && let Some(finding) = super::ipsec::unprotected(case)
    {
        return Some(finding);
    }
    if let Some(finding) = super::rerouted::answer(case)
        .or_else(|| super::misaddressed::freed_by_bridge(case))
        .or_else(|| super::bad_packet::short_lived_answer(case))
        .or_else(|| super::refusing_device::of_answer(case))
        .or_else(|| super::bridge_vlan::of_answer(case))
    {
        return Some(finding);
    }
    if case.evidence.rule.is_none()
        && let Some(refusal) = refused_answer(case)
    {
        let summary = format!("{} was dropped in {}: {}", answer_in_words(case), firewall::place(case), refusal.what);
        return Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(refusal.mend));
    }
    if case.journey.origin != Origin::Remote
        && let Some(reason) = case.reason().filter(|reason| REFUSED_BY_CLIENT.contains(reason))
    {
        return Some(refused_by_client(case, reason));
    }
    if case.reason() == Some("IP_RPFILTER") {
        return Some(by_reverse_path_filter(case));
    }
    let by = match (&case.evidence.rule, case.reason()) {
        (Some(_), _) | (None, Some("NETFILTER_DROP")) => " by a firewall",
        _ => "",
    };
    // These programs are asked between POSTROUTING and the device.
    let behind = if case.reason() == Some("BPF_CGROUP_EGRESS") { "behind" } else { "in" };
    let place = format!("{behind} {}", firewall::place(case));
    let mut summary = format!("{} was dropped{by} {place}", answer_in_words(case));
    let detail = match (&case.evidence.rule, case.reason()) {
        (Some(rule), _) => {
            let text = rule.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            format!(" by {}{text}{}", firewall::name(rule), firewall::known_by(case))
        }
        (None, Some("NETFILTER_DROP")) => "; which rule is not known".to_owned(),
        (None, Some("BPF_CGROUP_EGRESS")) => match &case.evidence.cgroup {
            Some(cgroup) => format!(" by {}", cgroup::name(cgroup, "server")),
            None => " by a BPF program of a control group (systemd's IPAddressDeny= is one)".to_owned(),
        },
        (None, Some(reason)) => format!(" ({reason}){}{}", super::tc::named_at_tc(case), super::tc::queue_of(case)),
        (None, None) if matches!(case.symbol(), Some("ip_fragment" | "ip6_fragment")) => {
            ": it is larger than the route to the client allows (its MTU is set, and locked), and must not be taken apart"
                .to_owned()
        }
        (None, None) => String::new(),
    };
    summary.push_str(&detail);
    let confidence = match (&case.evidence.rule, case.reason()) {
        (Some(_), _) => firewall::by_rule_of(case),
        (None, Some(_)) => Confidence::Proved,
        (None, None) => Confidence::Inferred,
    };
    let look = match (&case.evidence.rule, case.reason()) {
        (Some(rule), _) => mend(case, rule),
        _ if !by.is_empty() => vec![case.root("nft -a list ruleset")],
        (None, Some(reason)) if matches!(reason, "TC_INGRESS" | "TC_EGRESS") || reason.starts_with("QDISC_") => {
            super::tc::mend_tc(case)
        }
        (None, Some("BPF_CGROUP_EGRESS")) => match &case.evidence.cgroup {
            Some(cgroup) => cgroup::mend(cgroup, case.journey.last_source()),
            None => vec!["sudo bpftool cgroup tree".to_owned()],
        },
        _ => vec![case.root(&format!("ip route get {}", case.journey.flow.source))],
    };
    // Without the rule the client would only be refused sooner.
    let server = (refused && case.journey.facts.kernel_reset)
        .then(|| [case.root("ss -ltnp"), "# start the server, or find its port; then:".to_owned()]);
    // What drops the reset only hides it.
    let rejecter = case.evidence.rejecter.as_ref().map(|rejecter| {
        let mut lines = mend_further(case, rejecter);
        lines.push("# and for what drops the answers:".to_owned());
        lines
    });
    let first = rejecter.into_iter().flatten().chain(server.into_iter().flatten());
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy(first).remedy(look))
}

/// The client is here, and its own socket does not take the answer.
fn refused_by_client(case: &Case, reason: &str) -> Finding {
    let what = match reason {
        "SOCKET_FILTER" => {
            "a filter on the socket or a BPF program of the client's control group (systemd's IPAddressDeny= is one)"
        }
        "TCP_MINTTL" => "its time to live is below the least that the socket takes (IP_MINTTL)",
        _ => "its signature is not what the socket wants (TCP-MD5)",
    };
    let summary =
        format!("the listener answered, but the client, which runs here, does not let the SYN-ACK in at its own socket: {what}");
    let flow = &case.journey.flow;
    let show = case.root(&format!("ss -tnpe state syn-sent 'dport = :{}'", flow.destination_port));
    let cgroup = (reason == "SOCKET_FILTER").then(|| {
        [
            "# while it asks, this shows the client and its control group; then look at that group's programs:".to_owned(),
            "sudo bpftool cgroup tree".to_owned(),
        ]
    });
    Finding::proved(summary).remedy(case.where_to_type()).remedy([show]).remedy(cgroup.into_iter().flatten())
}

/// An answer that came to this machine by another interface than the way to its server, as of a container in two networks.
fn by_reverse_path_filter(case: &Case) -> Finding {
    let (interface, server) = (case.interface().unwrap_or("its interface"), case.journey.last_destination().0);
    let summary = format!(
        "{} was dropped by the reverse path filter on {interface}: the way to {server} is by another interface, so the kernel takes the answer's source for forged",
        answer_in_words(case)
    );
    let way = format!("# or let {server} answer by the network in which it is asked (its default route)");
    Finding::proved(summary).remedy(case.set_for_interface("rp_filter", 0, true)).remedy([way])
}

/// What a dropped answer was.
fn answer_in_words(case: &Case) -> String {
    if let Some(rejecter) = &case.evidence.rejecter {
        let text = rejecter.rule.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        return format!("rejected by {}{text}, and the reset that says so", firewall::name(&rejecter.rule));
    }
    let Facts { reset, syn_ack, kernel_reset, .. } = case.journey.facts;
    match (reset && !syn_ack, kernel_reset) {
        (true, true) => format!("nothing took {}, and the reset that says so", case.destination()),
        // A firewall's, or one of a kernel that does not tell.
        (true, false) => "refused by a reset, which itself".to_owned(),
        (false, _) => "the listener answered, but its SYN-ACK".to_owned(),
    }
}
