//! Judge of packets that a rule hands to a program (`NFQUEUE`).

use super::{
    Confidence,
    case::{Case, Finding},
    firewall::{by_rule_of, name, remedy, see},
    stages::stage_page,
};
use crate::journey::{Outcome, Stage};

/// Lists the queues that programs read. Without the module that serves them there is no such file.
const QUEUES: &str = "grep -s . /proc/net/netfilter/nfnetlink_queue || echo 'no program reads a queue'";

pub(super) fn queue(case: &Case) -> Option<Finding> {
    if case.journey.was_dropped_by_reader() && case.journey.outcome == Outcome::Dropped {
        return Some(dropped_by_reader(case));
    }
    if let Some(rule) = case.evidence.rule.as_ref().filter(|rule| rule.verdict == "queue") {
        let rule_name = name(rule);
        let summary = if is_given_up(case) {
            format!(
                "dropped in {}: {rule_name} hands it to a program (NFQUEUE), and none took it: no program reads the queue, or it is full",
                case.place()
            )
        } else {
            format!("handed to a program by {rule_name}; the program gave no verdict in time")
        };
        let look = case.root(QUEUES);
        let start = "# start the program that reads the queue, or else take the rule away:".to_owned();
        return Some(Finding::proved(summary).remedy([look, start]).remedy(remedy(case)));
    }
    if is_given_up(case) {
        let summary =
            format!("dropped in {}: a rule queues it to a program (NFQUEUE), and no program reads the queue", case.place());
        return Some(Finding::inferred(summary).remedy([case.root(QUEUES)]).remedy(see(case)));
    }
    // A packet that entered a hook and was neither passed on nor freed waits in a queue: nothing else holds a SYN there.
    let last = case.journey.stages.last().filter(|_| case.journey.outcome == Outcome::Unfinished)?;
    stage_page(last.stage).hook.filter(|_| last.stage != Stage::Routing)?;
    let summary = format!(
        "still held in {}: it entered and was neither passed on nor freed, as happens when a rule queues packets to a program (NFQUEUE) that does not answer",
        stage_page(last.stage).place
    );
    Some(Finding::inferred(summary).remedy([case.root(QUEUES)]).remedy(see(case)))
}

/// The queue itself gave it up: nobody reads the queue, or it is full.
fn is_given_up(case: &Case) -> bool {
    case.journey.outcome != Outcome::Unfinished
        && matches!(case.symbol(), Some("nf_queue" | "__nf_queue" | "nfqnl_enqueue_packet"))
}

/// A program that reads a queue dropped it, or ended while it held it: then the kernel drops it as well.
fn dropped_by_reader(case: &Case) -> Finding {
    let rule = case.evidence.rule.as_ref().filter(|rule| rule.verdict == "queue");
    let by = rule.map_or_else(|| "a rule".to_owned(), name);
    let summary = format!(
        "dropped in {}: {by} hands it to a program (NFQUEUE), and the program dropped it, or ended meanwhile",
        case.place()
    );
    let who = "# the second number of each line is the process that reads the queue; have it let the port in:".to_owned();
    let finding = Finding::new(if rule.is_some() { by_rule_of(case) } else { Confidence::Inferred }, summary);
    let finding = finding.remedy(case.where_to_type()).remedy([who, case.root(QUEUES)]);
    match rule {
        Some(_) => finding.remedy(["# or else take the rule away:".to_owned()]).remedy(remedy(case)),
        None => finding.remedy(see(case)),
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, Confidence::Proved, tests::dropped, tests::expect};
    use crate::evidence::{Evidence, Rule};
    use crate::journey::{Outcome, Stage};
    use crate::output::samples;

    #[test]
    fn a_queue_that_nobody_reads_is_no_program_that_is_slow() {
        let mut journey = dropped(&[Stage::Input, Stage::InputFilter], "NOT_SPECIFIED", "nf_queue+0x2b6");
        let rule = Rule { verdict: "queue".to_owned(), ..samples::rule() };
        let named = Evidence { rule: Some(rule), ..Evidence::default() };
        let none = expect(&journey, &named, Code::QueuedToUserspace, Proved);
        assert!(none.summary.ends_with("none took it: no program reads the queue, or it is full"), "{}", none.summary);
        let unnamed = expect(&journey, &Evidence::default(), Code::QueuedToUserspace, Inferred);
        assert!(unnamed.summary.contains("a rule queues it to a program"), "{}", unnamed.summary);
        (journey.outcome, journey.died_at, journey.reason, journey.location) = (Outcome::Unfinished, None, None, None);
        let slow = expect(&journey, &named, Code::QueuedToUserspace, Proved);
        assert!(slow.summary.ends_with("gave no verdict in time"), "{}", slow.summary);
    }
}
