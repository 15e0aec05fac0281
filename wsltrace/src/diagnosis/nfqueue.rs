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
        let summary = format!("handed to a program by {}; the program gave no verdict in time", name(rule));
        let look = case.root(QUEUES);
        let start = "# start the program that reads the queue, or else take the rule away:".to_owned();
        return Some(Finding::proved(summary).remedy([look, start]).remedy(remedy(case)));
    }
    // The queue itself gave it up: nobody reads the queue, or it is full.
    if matches!(case.symbol(), Some("nf_queue" | "__nf_queue" | "nfqnl_enqueue_packet")) {
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
