//! Packets that wait in a queueing discipline, which was told to send slowly or late.

use super::case::{Case, Finding, endpoint};
use crate::escape::{escape, shell_word};
use crate::evidence::HeldBack;
use crate::journey::Outcome;

/// An answer, or what confirms it, that waits here.
pub(super) fn answer(case: &Case) -> Option<Finding> {
    let held = case.evidence.held_back.as_ref().filter(|_| case.journey.facts.syn_ack)?;
    let client = case.journey.flow.source;
    let seen = if case.journey.is_confirmed_in_vain() {
        format!(
            "answered, and {client} confirmed it, but that did not come to the server's socket, whose kernel sent its SYN-ACK again"
        )
    } else if case.journey.outcome == Outcome::Unfinished {
        "the listener answered, but its SYN-ACK was not seen to come on".to_owned()
    } else {
        format!("answered, but {client} never confirmed: the SYN-ACK was sent again and no ACK came in")
    };
    Some(Finding::inferred(format!("{seen}; most likely it still waits here, {}", told(held))).remedy(mend(held)))
}

/// A SYN that was sent on, as far as that.
pub(super) fn sent_on(case: &Case) -> Option<Finding> {
    let held = case.evidence.held_back.as_ref()?;
    let (to, port) = case.journey.last_destination();
    let summary = format!(
        "sent on to {} by {}, and most likely it still waits there, {}",
        endpoint(to, port),
        escape(&held.device),
        told(held)
    );
    Some(Finding::inferred(summary).remedy(mend(held)))
}

fn told(held: &HeldBack) -> String {
    let HeldBack { netns, entrance, device, kind, packets } = held;
    let there = if entrance.is_some() { format!(" of network namespace {netns}") } else { String::new() };
    let wait = if *packets == 1 { "packet waits" } else { "packets wait" };
    format!("in the queueing discipline `{}` of {}{there}: {packets} {wait} in it", escape(kind), escape(device))
}

fn mend(held: &HeldBack) -> [String; 2] {
    let root = held.entrance.as_ref().map_or_else(|| "sudo".to_owned(), |entrance| format!("sudo {entrance}"));
    let device = shell_word(&held.device);
    [format!("{root} tc -s qdisc show dev {device}"), format!("{root} tc qdisc del dev {device} root")]
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, Confidence::Proved, tests::expect};
    use crate::evidence::{Evidence, HeldBack};
    use crate::journey::{Facts, Outcome};
    use crate::output::samples::{self, CONTAINER};

    fn held(entrance: Option<&str>, packets: u32) -> Evidence {
        let (device, kind) = ("eth0".to_owned(), "htb".to_owned());
        let held_back = HeldBack { netns: CONTAINER, entrance: entrance.map(str::to_owned), device, kind, packets };
        Evidence { held_back: Some(held_back), ..Evidence::default() }
    }

    #[test]
    fn what_waits_here_is_not_told_as_lost_elsewhere() {
        let mut answered = samples::other(Outcome::Answered).journey;
        answered.facts = Facts { syn_ack: true, syn_ack_again: true, answer_left: true, ..answered.facts };
        expect(&answered, &Evidence::default(), Code::ReplyUnanswered, Proved);
        let found = expect(&answered, &held(None, 2), Code::ReplyUnanswered, Inferred);
        assert!(found.summary.ends_with("still waits here, in the queueing discipline `htb` of eth0: 2 packets wait in it"));
        assert_eq!(found.remedy, ["sudo tc -s qdisc show dev eth0", "sudo tc qdisc del dev eth0 root"]);
        let mut last = answered.clone();
        last.outcome = Outcome::Unfinished;
        let found = expect(&last, &held(Some("nsenter -t 412 -n"), 2), Code::ReplyUnanswered, Inferred);
        assert!(found.summary.starts_with("the listener answered, but its SYN-ACK was not seen to come on"), "{}", found.summary);
        answered.facts.acknowledged = true;
        let found = expect(&answered, &held(None, 2), Code::ReplyUnanswered, Inferred);
        assert!(found.summary.contains("confirmed it, but that did not come"), "{}", found.summary);
        let forwarded = samples::other(Outcome::Forwarded).journey;
        let found = expect(&forwarded, &held(Some("nsenter -t 412 -n"), 1), Code::Forwarded, Inferred);
        assert!(found.summary.contains("still waits there, in the queueing discipline `htb` of eth0 of network namespace"));
        assert_eq!(found.remedy[1], "sudo nsenter -t 412 -n tc qdisc del dev eth0 root");
    }
}
