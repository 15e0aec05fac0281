//! Judges of answers that the client never confirmed, or confirmed in vain.

use super::{
    case::{Case, Finding},
    firewall,
    remedy::{around, mend_for_answer},
    routes::{ip, show_marks},
};
use crate::escape::{escape, shell_word};
use crate::evidence::{FilteredEgress, Rule, Wrapped};
use crate::journey::{Conntrack, Facts, Journey, Outcome, Stage};
use crate::units::duration;

pub(super) fn unanswered(case: &Case) -> Option<Finding> {
    let Facts { syn_ack, syn_ack_again, acknowledged, established, .. } = case.journey.facts;
    let unconfirmed = !acknowledged || case.journey.is_confirmed_in_vain();
    if let Some(finding) = super::held_back::answer(case).filter(|_| unconfirmed && !established) {
        return Some(finding);
    }
    if case.journey.is_confirmed_in_vain() && !case.journey.is_unconfirmed() {
        return Some(confirmed_in_vain(case));
    }
    if acknowledged || established || case.journey.is_unconfirmed() {
        return None;
    }
    if let Some(rule) = case.evidence.answer_rewriter.as_ref().filter(|_| syn_ack) {
        return Some(rewritten(case, rule));
    }
    if let Some(finding) = wrapped(case) {
        return Some(finding);
    }
    if case.journey.outcome != Outcome::Answered {
        return None;
    }
    if case.journey.facts.answer_alien {
        return to_a_stranger(case).filter(|_| case.evidence.source_rewriter.is_some()).or_else(|| Some(not_turned_back(case)));
    }
    if let Some(finding) = to_a_stranger(case).filter(|_| syn_ack) {
        return Some(finding);
    }
    if let Some(finding) = given_up(case) {
        return Some(finding);
    }
    if !syn_ack_again {
        return not_taken(case);
    }
    let source = case.journey.flow.source;
    let misaddressed = super::misaddressed::unconfirmed(case).or_else(|| super::hardware::set_by_hand(case));
    let (by_hand, forget) = misaddressed.unwrap_or_default();
    let summary = format!(
        "answered, but {source} never confirmed: the SYN-ACK was sent again and no ACK came in, so the answer is lost on the way back{by_hand}"
    );
    // A SYN that was sent again and met what the first had left: that one's report has the way of the answer.
    let sees_no_answer = case.journey.attempt > 1 && case.journey.answer.is_none();
    let first =
        sees_no_answer.then(|| "# see the report of the first SYN: it tells by which way the answer left; then:".to_owned());
    let is_here = case.evidence.has_address(source);
    let summary = if is_here { summary + ", inside this machine" } else { summary };
    let tunnel = case.evidence.tunnel.as_ref();
    let through = tunnel.map(|tunnel| {
        let (device, kind) = (escape(&tunnel.device), escape(&tunnel.kind));
        format!("; it left by {device}, a tunnel ({kind}), and the packets that carry it were not followed: they may be lost in this machine, too")
    });
    let carriers = tunnel.map(|tunnel| {
        let device = shell_word(&tunnel.device);
        [
            case.root(&format!("ip -d link show dev {device}")),
            case.root("nft list ruleset | grep -iE 'hook output|udp|drop|reject'"),
        ]
    });
    let (filtered, filters) = filtered(case).unzip();
    let summary = summary + &through.unwrap_or_default() + &filtered.unwrap_or_default();
    let behind = if is_here {
        "# then see what takes the packets of this client in this machine: filters of its socket, programs of its control group"
    } else {
        "# then look behind this machine: a VPN or a firewall on Windows may take the answers"
    };
    let look = [case.root(&format!("{} route get {source}", ip(case))), behind.to_owned()];
    let first = first.into_iter().chain(filters.into_iter().flatten());
    Some(Finding::proved(summary).remedy(forget).remedy(first).remedy(carriers.into_iter().flatten()).remedy(look))
}

/// The answer was made, and what it goes on in is not followed.
fn wrapped(case: &Case) -> Option<Finding> {
    let client = case.journey.answer_destination();
    let (how, look) = match case.evidence.wrapped.as_ref()? {
        Wrapped::Ipsec(policy) => {
            let selector = escape(&policy.selector);
            let look = [
                case.root("ip -s xfrm state list nokeys"),
                "# both ends need the same keys for both directions; connect the VPN anew. And see whether a rule drops what IPsec sends:"
                    .to_owned(),
                case.root("nft list ruleset | grep -iE 'hook output|esp|udp|drop|reject'"),
            ];
            (format!("protected by IPsec (policy `{selector}`)"), look.to_vec())
        }
        Wrapped::Route => {
            let look = case.root(&format!("{} route get {client}", ip(case)));
            ("inside of another packet, as its route has it (encap)".to_owned(), vec![look])
        }
    };
    let summary = format!(
        "answered, but {client} was not seen to confirm it: the SYN-ACK leaves {how}, which was not followed; so it is lost on the way back, in this machine or behind it"
    );
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(look))
}

/// Filters that the answer met behind the last place that is seen.
fn filtered(case: &Case) -> Option<(String, [String; 2])> {
    let FilteredEgress { netns, entrance, device } = case.evidence.filtered_egress.as_ref()?;
    let there = if entrance.is_some() { format!(" of network namespace {netns}") } else { String::new() };
    let why = format!(
        "; filters of traffic control (tc) stand at the egress of {}{there}, behind the last place that is seen here: they may have changed it",
        escape(device)
    );
    let root = entrance.as_ref().map_or_else(|| "sudo".to_owned(), |entrance| format!("sudo {entrance}"));
    let show = |side: &str| format!("{root} tc -s filter show dev {}{side}", shell_word(device));
    Some((why, [show(" egress"), show("")]))
}

/// The client's confirmation came in, and the server's kernel did not get it.
fn confirmed_in_vain(case: &Case) -> Finding {
    let Journey { flow, interface, .. } = case.journey;
    let by = interface.as_ref().map(|name| format!(" by {}", escape(name))).unwrap_or_default();
    let summary = format!(
        "answered, and {} confirmed it: that came in{by}, but not to the server's socket, whose kernel sent its SYN-ACK again; so what follows a SYN is lost or led elsewhere inside this machine, and the client may see itself connected",
        flow.source
    );
    Finding::inferred(summary).remedy(case.where_to_type()).remedy(show_marks(case))
}

/// The answer left with another source than the client asked, and no rule is known to have changed it: what was translated on the way in
/// was not turned back.
fn not_turned_back(case: &Case) -> Finding {
    let Journey { flow, .. } = case.journey;
    let asked = super::case::endpoint(flow.destination, flow.destination_port);
    let (server, port) = case.journey.last_destination();
    let from = case.journey.translated.as_ref().map(|_| format!(" (the server has {})", super::case::endpoint(server, port)));
    let summary = format!(
        "answered, but the answer left with another address or port than {asked}, which was asked for{}: so {} does not know it for the answer to its SYN",
        from.unwrap_or_default(),
        flow.source
    );
    let look = [
        "# NAT turns an answer back only as a part of its connection: a rule that takes answers out of connection tracking"
            .to_owned(),
        "# (notrack, NOTRACK), or puts them into a zone of their own, keeps it from that; take it away or except this port:"
            .to_owned(),
        case.root("nft -a list ruleset | grep -iE 'notrack|ct zone|xt target \"CT\"'"),
        case.root(if case.is_v6() { "ip6tables-save -t raw" } else { "iptables-save -t raw" }),
    ];
    Finding::proved(summary).remedy(case.where_to_type()).remedy(look)
}

/// The SYN was given another source outside of NAT, which alone turns answers back: they go to that one.
fn to_a_stranger(case: &Case) -> Option<Finding> {
    let flow = &case.journey.flow;
    let now = case.journey.translated.as_ref().filter(|now| (now.source, now.source_port) != (flow.source, flow.source_port))?;
    let writer = case.evidence.source_rewriter.as_ref();
    if writer.is_none() && case.journey.conntrack.is_some_and(|state| state != Conntrack::Untracked) {
        return None;
    }
    let rule = writer.or(now.rule.as_ref());
    let by = rule.map_or_else(|| "something here".to_owned(), firewall::name);
    let text = rule.and_then(|rule| rule.text.as_ref()).map(|text| format!(": {text}")).unwrap_or_default();
    let summary = format!(
        "answered, but not to {}: {by} gives its SYN the source {} without connection tracking, which alone would turn the answer back, so that goes there{text}",
        super::case::endpoint(flow.source, flow.source_port),
        super::case::endpoint(now.source, now.source_port),
    );
    let commands = rule.map(|rule| around(rule, flow.destination_port, case.is_v6())).unwrap_or_default();
    let look = rule.is_none().then(|| case.root("nft -a list ruleset | grep -E 'addr set|port set'"));
    let commands: Vec<String> = commands.into_iter().map(|command| case.root(&command)).collect();
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(commands).remedy(look))
}

/// A rule here gave the answer another address or port than the client asked for.
fn rewritten(case: &Case, rule: &Rule) -> Finding {
    let text = rule.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    let summary = format!(
        "answered, but {} changes an address or a port of the answer on its way out, so {} does not know it for the answer to its SYN, or never gets it{text}",
        firewall::name(rule),
        case.journey.flow.source
    );
    Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend_for_answer(case, rule))
}

/// The client sent the same SYN again though it was answered, and the server's kernel had forgotten the first one by then: as
/// after a reset, or where it keeps nothing because it answers by SYN cookies.
fn not_taken(case: &Case) -> Option<Finding> {
    let Facts { syn_ack, socket_lookup, answered_before, asked_again, .. } = case.journey.facts;
    let reset = case.evidence.resets_of_half_open > 0;
    let again = answered_before && socket_lookup && syn_ack;
    if !(again || asked_again && reset) {
        return None;
    }
    let source = case.journey.flow.source;
    let why = if reset {
        format!("most likely it, or a firewall on its side, refuses the answers by a reset{}", reset_here(case))
    } else {
        "the answers do not reach it, or it, or a firewall on its side, refuses them".to_owned()
    };
    let look = [
        case.root("nstat -az TcpExtEmbryonicRsts"),
        format!(
            "# then look at the firewall of {source}: it has to let in what port {} answers",
            case.journey.flow.destination_port
        ),
    ];
    Some(Finding::inferred(format!("answered, but {source} does not take the answer and asks again: {why}")).remedy(look))
}

/// The SYN was held up here for so long that its client had given up before it was answered, and reset what came then.
fn given_up(case: &Case) -> Option<Finding> {
    /// After so long a client sends its SYN again, or a program gives up.
    const LATE_NS: u64 = 1_000_000_000;
    let Journey { flow, stages, answer, .. } = case.journey;
    let made = (*answer)?;
    let (before, after) = stages
        .get(..=made)?
        .windows(2)
        .filter_map(|pair| Some((pair.first()?, pair.last()?)))
        .max_by_key(|(before, after)| after.ns - before.ns)?;
    let held_ns = after.ns - before.ns;
    if held_ns < LATE_NS || case.evidence.resets_of_half_open == 0 {
        return None;
    }
    let (held, behind) = (duration(held_ns), before.stage.name());
    let by = before.interface.as_ref().map(|name| format!(" on {}", escape(name))).unwrap_or_default();
    // Behind the last rules of its way out, nothing else keeps it.
    let waits = after.stage == Stage::TcEgress;
    let what = if waits { "waited for its neighbour's hardware address" } else { "was held up" };
    let summary = format!(
        "answered, but too late: it {what} for {held} behind {behind}{by}, and {} has most likely given up meanwhile{}",
        flow.source,
        reset_here(case)
    );
    let again = if waits {
        "# connect again: a container that was just started is not there at once. If it takes as long each time, see the neighbours:"
    } else {
        "# see what holds it up there: a program that a rule hands packets to (queue, NFQUEUE), or a full queue"
    };
    let look = waits.then(|| case.root("ip neighbour"));
    Some(Finding::inferred(summary).remedy([again.to_owned()]).remedy(look))
}

/// That half-open connections were reset here.
pub(super) fn reset_here(case: &Case) -> String {
    let resets = case.evidence.resets_of_half_open;
    let (connections, were) = if resets == 1 { ("connection", "was") } else { ("connections", "were") };
    format!(" ({resets} half-open {connections} {were} reset here meanwhile)")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, Confidence::Proved, tests::expect};
    use crate::evidence::{Evidence, FilteredEgress, IpsecPolicy, Tunnel, Wrapped};
    use crate::journey::{Conntrack, Outcome, Stage, Translated};
    use crate::output::samples;

    #[test]
    fn a_source_that_nat_did_not_write_is_answered_in_the_place_of_the_client() {
        let mut journey = samples::journey(&[Stage::TcIngress, Stage::TcEgress], Outcome::Answered, None, None);
        (journey.facts.syn_ack, journey.facts.syn_ack_again, journey.facts.answer_left) = (true, true, true);
        let (source, destination) = ("10.9.9.9".parse().unwrap(), journey.flow.destination);
        let (source_port, destination_port) = (journey.flow.source_port, journey.flow.destination_port);
        journey.translated = Some(Translated { source, source_port, destination, destination_port, rule: None });
        journey.conntrack = None;
        let found = expect(&journey, &Evidence::default(), Code::ReplyUnanswered, Inferred);
        assert!(found.summary.contains("something here gives its SYN the source 10.9.9.9:"), "{}", found.summary);
        // NAT's own are turned back.
        journey.conntrack = Some(Conntrack::New);
        let found = expect(&journey, &Evidence::default(), Code::ReplyUnanswered, Proved);
        assert!(found.summary.contains("never confirmed"), "{}", found.summary);
    }

    #[test]
    fn an_answer_that_left_by_a_tunnel_may_be_lost_here() {
        let mut journey = samples::journey(&[Stage::TcIngress, Stage::TcEgress], Outcome::Answered, None, None);
        (journey.facts.syn_ack, journey.facts.syn_ack_again, journey.facts.answer_left) = (true, true, true);
        let plain = expect(&journey, &Evidence::default(), Code::ReplyUnanswered, Proved);
        assert!(!plain.summary.contains("tunnel"), "{}", plain.summary);
        let tunnel = Some(Tunnel { device: "vx0".to_owned(), kind: "vxlan".to_owned() });
        let found = expect(&journey, &Evidence { tunnel, ..Evidence::default() }, Code::ReplyUnanswered, Proved);
        assert!(found.summary.contains("it left by vx0, a tunnel (vxlan)"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo ip -d link show dev vx0");
    }

    #[test]
    fn filters_behind_our_place_are_told_of_an_answer_that_is_lost() {
        let mut journey = samples::journey(&[Stage::TcIngress, Stage::TcEgress], Outcome::Answered, None, None);
        (journey.facts.syn_ack, journey.facts.syn_ack_again, journey.facts.answer_left) = (true, true, true);
        let with = |entrance: Option<&str>| {
            let entrance = entrance.map(str::to_owned);
            let filtered_egress = Some(FilteredEgress { netns: samples::CONTAINER, entrance, device: "eth0".to_owned() });
            Evidence { filtered_egress, ..Evidence::default() }
        };
        let found = expect(&journey, &with(None), Code::ReplyUnanswered, Proved);
        assert!(
            found.summary.contains("filters of traffic control (tc) stand at the egress of eth0, behind"),
            "{}",
            found.summary
        );
        assert_eq!(found.remedy[..2], ["sudo tc -s filter show dev eth0 egress", "sudo tc -s filter show dev eth0"]);
        let inside = expect(&journey, &with(Some("nsenter -t 412 -n")), Code::ReplyUnanswered, Proved);
        assert!(inside.remedy[0].starts_with("sudo nsenter -t 412 -n tc"), "{:?}", inside.remedy);
    }

    #[test]
    fn an_answer_that_leaves_inside_of_another_packet_waits_for_no_neighbour() {
        let stages = [Stage::TcIngress, Stage::SynAck, Stage::Output, Stage::Postrouting, Stage::Neighbour];
        let mut journey = samples::journey(&stages, Outcome::Unfinished, None, None);
        journey.facts.syn_ack = true;
        expect(&journey, &Evidence::default(), Code::NoNeighbour, Inferred);
        let selector = "src 172.28.16.2/32 dst 172.28.16.1/32".to_owned();
        let policy = IpsecPolicy { selector, direction: "out".to_owned(), blocks: false };
        let by = |wrapped| Evidence { wrapped: Some(wrapped), ..Evidence::default() };
        let found = expect(&journey, &by(Wrapped::Ipsec(policy)), Code::ReplyUnanswered, Inferred);
        assert!(found.summary.contains("leaves protected by IPsec (policy `src 172.28.16.2/32"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo ip -s xfrm state list nokeys");
        let found = expect(&journey, &by(Wrapped::Route), Code::ReplyUnanswered, Inferred);
        assert!(found.summary.contains("(encap)"), "{}", found.summary);
        journey.facts.established = true;
        assert_ne!(super::super::diagnose(&journey, &by(Wrapped::Route)).code, Code::ReplyUnanswered);
    }
}
