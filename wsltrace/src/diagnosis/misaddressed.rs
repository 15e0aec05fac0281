//! Frames that went to a hardware address which is not their next hop's, and what bridges do with such.

use super::case::{Case, Finding, endpoint};
use crate::escape::{escape, shell_word};
use crate::evidence::{BRIDGE_FREES, Misaddress, Misaddressed};
use crate::journey::{Outcome, Stage};

/// An answer that a bridge did not hand on.
pub(super) fn freed_by_bridge(case: &Case) -> Option<Finding> {
    let freed = case.symbol().is_some_and(|symbol| BRIDGE_FREES.contains(&symbol));
    if !freed || case.journey.outcome != Outcome::AnswerDropped || case.evidence.rule.is_some() {
        return None;
    }
    let answer = case.journey.stages.get(case.journey.answer?..)?;
    let port = answer.iter().rfind(|visit| visit.stage == Stage::TcIngress)?.interface.as_deref()?;
    let why = case.evidence.misaddressed.as_ref().map(|sent| format!(": {}", told(sent))).unwrap_or_default();
    let reason = case.reason().filter(|_| why.is_empty()).map(|reason| format!(" ({reason})")).unwrap_or_default();
    let shown = escape(port);
    let summary = format!(
        "the listener answered, but its SYN-ACK, which came back by {shown}, was dropped by the bridge that {shown} is a port of{reason}{why}"
    );
    let mend = case.evidence.misaddressed.as_ref().map_or_else(
        || {
            let port = shell_word(port);
            vec![case.root(&format!("bridge -d link show dev {port}")), case.root("bridge fdb show")]
        },
        mend,
    );
    Some(Finding::inferred(summary).remedy(mend))
}

/// A SYN that was sent on by an interface that asks for no hardware address.
pub(super) fn sent_on(case: &Case) -> Option<Finding> {
    let sent = case.evidence.misaddressed.as_ref().filter(|sent| sent.why == Misaddress::NoArp)?;
    let (to, port) = case.journey.last_destination();
    let summary = format!("sent on to {} by {}, and taken by nobody: {}", endpoint(to, port), escape(&sent.device), told(sent));
    Some(Finding::inferred(summary).remedy(mend(sent)))
}

/// What is to be said of an answer that nobody confirms, and what helps.
pub(super) fn unconfirmed(case: &Case) -> Option<(String, Vec<String>)> {
    let sent = case.evidence.misaddressed.as_ref().filter(|sent| sent.why == Misaddress::NoArp)?;
    Some((format!("; most likely because {}", told(sent)), mend(sent)))
}

fn told(sent: &Misaddressed) -> String {
    let Misaddressed { netns, entrance, device, neighbour, why } = sent;
    let there = if entrance.is_some() { format!(" of network namespace {netns}") } else { String::new() };
    let device = escape(device);
    match why {
        Misaddress::NoArp => format!(
            "the interface {device}{there} asks nobody for hardware addresses (NOARP), so what it sends to {neighbour} goes to its own"
        ),
        Misaddress::Wrong { hardware, permanent, real } => {
            let by_hand = if *permanent { ", set by hand (permanent)" } else { "" };
            let real = real.as_ref().map(|real| format!("; {neighbour} has {real}")).unwrap_or_default();
            format!("the frame went to the hardware address {hardware}, which {device}{there} has for {neighbour}{by_hand}{real}")
        }
    }
}

fn mend(sent: &Misaddressed) -> Vec<String> {
    let Misaddressed { entrance, device, neighbour, why, .. } = sent;
    let root = entrance.as_ref().map_or_else(|| "sudo".to_owned(), |entrance| format!("sudo {entrance}"));
    let device = shell_word(device);
    vec![match why {
        Misaddress::NoArp => format!("{root} ip link set dev {device} arp on"),
        Misaddress::Wrong { .. } => format!("{root} ip neighbour del {neighbour} dev {device}"),
    }]
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{
        Code,
        Confidence::{Inferred, Proved},
        tests::expect,
    };
    use crate::evidence::{Evidence, Misaddress, Misaddressed};
    use crate::journey::{Facts, Journey, Outcome, Stage};
    use crate::output::samples::{self, CONTAINER, ip};

    fn sent(entrance: Option<&str>, why: Misaddress) -> Evidence {
        let (entrance, device, neighbour) = (entrance.map(str::to_owned), "eth0".to_owned(), ip("172.17.0.1"));
        let sent = Misaddressed { netns: CONTAINER, entrance, device, neighbour, why };
        Evidence { misaddressed: Some(sent), ..Evidence::default() }
    }

    /// An answer that the bridge gave up.
    fn freed(reason: &str) -> Journey {
        let stages = [Stage::TcIngress, Stage::SynAck, Stage::TcEgress, Stage::TcIngress, Stage::Routing];
        let place = Some((reason, "br_handle_frame_finish+0x140"));
        let mut journey = samples::journey(&stages, Outcome::AnswerDropped, Some(Stage::Routing), place);
        journey.facts = Facts { syn_ack: true, ..Facts::default() };
        journey.stages[3].interface = Some("veth0".into());
        journey
    }

    #[test]
    fn what_a_bridge_gives_up_died_in_no_routing() {
        let found = expect(&freed("NO_TX_TARGET"), &Evidence::default(), Code::ReplyDropped, Inferred);
        assert!(found.summary.ends_with("was dropped by the bridge that veth0 is a port of (NO_TX_TARGET)"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo bridge -d link show dev veth0");
        let wrong = Misaddress::Wrong { hardware: "02:de:ad:be:ef:01".into(), permanent: true, real: Some("02:aa".into()) };
        let found = expect(&freed("NO_TX_TARGET"), &sent(Some("nsenter -t 412 -n"), wrong), Code::ReplyDropped, Inferred);
        assert!(found.summary.ends_with("set by hand (permanent); 172.17.0.1 has 02:aa"), "{}", found.summary);
        assert_eq!(found.remedy, ["sudo nsenter -t 412 -n ip neighbour del 172.17.0.1 dev eth0"]);
        let found =
            expect(&freed("NOT_SPECIFIED"), &sent(Some("nsenter -t 412 -n"), Misaddress::NoArp), Code::ReplyDropped, Inferred);
        assert!(found.summary.contains("of network namespace") && found.summary.contains("(NOARP)"), "{}", found.summary);
        assert_eq!(found.remedy, ["sudo nsenter -t 412 -n ip link set dev eth0 arp on"]);
    }

    #[test]
    fn an_interface_that_asks_for_nobody_sends_to_nobody() {
        let forwarded = samples::other(Outcome::Forwarded).journey;
        let found = expect(&forwarded, &sent(None, Misaddress::NoArp), Code::NoNeighbour, Inferred);
        assert!(found.summary.contains("by eth0, and taken by nobody: the interface eth0 asks nobody"), "{}", found.summary);
        assert_eq!(found.remedy, ["sudo ip link set dev eth0 arp on"]);
        let mut answered = samples::other(Outcome::Answered).journey;
        answered.facts = Facts { syn_ack: true, syn_ack_again: true, answer_left: true, ..answered.facts };
        let found = expect(&answered, &sent(None, Misaddress::NoArp), Code::ReplyUnanswered, Proved);
        assert!(found.summary.contains("most likely because the interface eth0 asks nobody"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo ip link set dev eth0 arp on");
    }
}
