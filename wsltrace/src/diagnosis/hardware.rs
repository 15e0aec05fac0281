//! Frames that went to a hardware address which nobody has: of a container that has stopped, or one that somebody has set by hand.

use super::case::{Case, Finding, endpoint};
use crate::escape::{escape, shell_word};
use crate::evidence::Unclaimed;
use crate::journey::Outcome;

/// A SYN that was sent on, to nobody.
pub(super) fn sent_to_nobody(case: &Case) -> Option<Finding> {
    let Unclaimed { neighbour, device, hardware, permanent, real, is_nobodys } =
        case.evidence.unclaimed.as_ref().filter(|_| case.journey.outcome == Outcome::Forwarded)?;
    let neighbour = (*neighbour)?;
    let (to, port) = case.journey.last_destination();
    let device_name = escape(device);
    let sent = format!("sent on to {} by {device_name}, and taken by nobody:", endpoint(to, port));
    let of_hand = if *permanent { ", which somebody has set by hand (permanent)" } else { "" };
    let show = case.root(&format!("ip neighbour show {neighbour}"));
    let forget = case.root(&format!("ip neighbour del {neighbour} dev {}", shell_word(device)));
    let start = format!("# then start what had {neighbour}: `docker ps -a` lists containers that have stopped");
    let Some(hardware) = hardware else {
        let summary = format!("{sent} nothing behind {device_name} has {neighbour} any longer, as when a container was stopped");
        return Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([show, start]));
    };
    if let Some(real) = real {
        let summary = format!("{sent} the frame went to the hardware address {hardware}{of_hand}, and {neighbour} has {real}");
        return Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([show, forget]));
    }
    if !is_nobodys {
        return None;
    }
    let summary = format!(
        "{sent} the frame went to the hardware address {hardware}, which this machine has for {neighbour}{of_hand} and which nothing behind {device_name} has, as when a container was stopped"
    );
    let forget = permanent.then(|| format!("# or, if it is there under another hardware address: {forget}"));
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([show, start]).remedy(forget))
}

/// What is to be said of an answer that nobody confirms, where its hardware address was set by hand, and the command that forgets it.
pub(super) fn set_by_hand(case: &Case) -> Option<(String, Vec<String>)> {
    let entry = case.evidence.unclaimed.as_ref().filter(|entry| entry.permanent)?;
    let (neighbour, hardware) = entry.neighbour.zip(entry.hardware.as_deref())?;
    let said = format!(
        "; it went to the hardware address {hardware}, which somebody has set by hand for {neighbour} (permanent), so the kernel never asks whether it is right"
    );
    let forget = format!("sudo ip neighbour del {neighbour} dev {}", shell_word(&entry.device));
    // Some networks of containers set the gateway's, and live by it.
    let mend = if neighbour == case.journey.flow.source {
        vec![format!("# have the kernel ask {neighbour} itself:"), forget]
    } else {
        vec![format!("# if that is not the gateway's: {forget}")]
    };
    Some((said, mend))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::diagnosis::{
        Code,
        Confidence::Inferred,
        Confidence::Proved,
        tests::{dropped, expect},
    };
    use crate::evidence::{Evidence, Isolated, Unclaimed};
    use crate::journey::{Facts, Outcome, Stage};
    use crate::output::samples::{self, ip};

    fn to(neighbour: &str, change: impl FnOnce(&mut Unclaimed)) -> Evidence {
        let mut entry = Unclaimed {
            neighbour: Some(ip(neighbour)),
            device: "docker0".into(),
            hardware: Some("02:de:ad:be:ef:01".into()),
            ..Unclaimed::default()
        };
        change(&mut entry);
        Evidence { unclaimed: Some(entry), ..Evidence::default() }
    }

    #[test]
    fn what_is_sent_to_nobody_is_not_told_as_sent_on() {
        let journey = samples::other(Outcome::Forwarded).journey;
        expect(&journey, &Evidence::default(), Code::Forwarded, Proved);
        // Who is behind the other ports is not known.
        expect(&journey, &to("172.17.0.2", |_| ()), Code::Forwarded, Proved);
        let found = expect(&journey, &to("172.17.0.2", |entry| entry.is_nobodys = true), Code::NoNeighbour, Inferred);
        assert!(found.summary.contains("by docker0, and taken by nobody") && found.summary.ends_with("a container was stopped"));
        assert_eq!(found.remedy[0], "sudo ip neighbour show 172.17.0.2");
        let given_up = to("172.17.0.2", |entry| (entry.is_nobodys, entry.hardware) = (true, None));
        let found = expect(&journey, &given_up, Code::NoNeighbour, Inferred);
        assert!(found.summary.contains("taken by nobody: nothing behind docker0 has 172.17.0.2 any longer"), "{}", found.summary);
        let by_hand = to("172.17.0.2", |entry| {
            (entry.permanent, entry.real) = (true, Some("02:42:ac:11:00:02".into()));
        });
        let found = expect(&journey, &by_hand, Code::NoNeighbour, Inferred);
        assert!(found.summary.contains("set by hand (permanent), and 172.17.0.2 has 02:42:ac:11:00:02"), "{}", found.summary);
        assert_eq!(found.remedy.last().unwrap(), "sudo ip neighbour del 172.17.0.2 dev docker0");
    }

    #[test]
    fn an_entry_that_was_set_by_hand_is_told_where_nobody_confirms() {
        let mut journey = samples::other(Outcome::Answered).journey;
        journey.facts = Facts { syn_ack: true, syn_ack_again: true, answer_left: true, ..journey.facts };
        let client = journey.flow.source.to_string();
        let learned = expect(&journey, &to(&client, |_| ()), Code::ReplyUnanswered, Proved);
        assert!(!learned.summary.contains("by hand"));
        let found = expect(&journey, &to(&client, |entry| entry.permanent = true), Code::ReplyUnanswered, Proved);
        assert!(found.summary.contains(&format!("set by hand for {client} (permanent)")), "{}", found.summary);
        assert_eq!(found.remedy[1], format!("sudo ip neighbour del {client} dev docker0"));
        // A gateway's may be meant so.
        let gateway = expect(&journey, &to("172.28.16.77", |entry| entry.permanent = true), Code::ReplyUnanswered, Proved);
        assert!(gateway.remedy[0].starts_with("# if that is not the gateway's: sudo ip neighbour del"), "{:?}", gateway.remedy);
    }

    #[test]
    fn isolated_ports_are_told_where_the_bridge_freed_it() {
        let isolated = Isolated { bridge: "br0".into(), from: "vk".into(), to: "vk2".into() };
        let isolated = Evidence { isolated: Some(isolated), ..Evidence::default() };
        let by = |symbol: &str| dropped(&[Stage::TcIngress], "NOT_SPECIFIED", symbol);
        let found = expect(&by("br_handle_frame_finish+0x380"), &isolated, Code::NoForwarding, Inferred);
        assert_eq!(found.remedy, ["sudo ip link set dev vk type bridge_slave isolated off"]);
        expect(&by("br_handle_frame_finish+0x380"), &Evidence::default(), Code::UnexplainedDrop, Inferred);
        expect(&by("somewhere+0x1"), &isolated, Code::UnexplainedDrop, Inferred);
    }
}
