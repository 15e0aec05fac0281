//! The judge of answers that were routed rightly, and sent to another device at the one that they were routed to.

use super::case::{Case, Finding};
use super::firewall;
use crate::escape::{escape, shell_word};
use crate::evidence::Redirect;
use crate::journey::Aside;

/// Something at the way out of the right device sends the answer elsewhere.
pub(super) fn sent_aside(case: &Case) -> Option<Finding> {
    let aside = case.journey.lost_aside()?;
    let (from, to) = (escape(aside.from), escape(aside.to));
    let (by, mend) = suspects(case, aside);
    if aside.seen_leaving {
        // Without anything that can have sent it on, it was a copy.
        let by = by?;
        let summary = format!(
            "answered by the wrong way: the answer was routed to {from}, where it was handed on to {to}, and the client never confirmed: most likely {by} at tc egress of {from} sends it there"
        );
        return Some(Finding::inferred(summary).remedy(mend).remedy(look(case, aside)));
    }
    let who = by.map_or_else(|| "something".to_owned(), |by| format!("most likely {by}"));
    let summary = format!(
        "answered by the wrong way: the answer was routed to {from}, by which its SYN came, and left by {to}, so the client never gets it: {who} at the way out of {from} sends it there"
    );
    let chains = case.root("nft -a list ruleset netdev");
    Some(Finding::proved(summary).remedy(mend).remedy([chains]).remedy(look(case, aside)))
}

/// Who can have done it, in words, and what takes that away where it is one.
fn suspects(case: &Case, aside: Aside<'_>) -> (Option<String>, Vec<String>) {
    if let Some(rule) = &case.evidence.forwarder {
        let text = rule.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        let [family, table, chain] = [&rule.family, &rule.table, &rule.chain].map(|word| shell_word(word));
        let delete = rule.handle.map(|handle| case.root(&format!("nft delete rule {family} {table} {chain} handle {handle}")));
        return (Some(format!("{}{text}", firewall::name(rule))), delete.into_iter().collect());
    }
    let redirects = case.evidence.redirects.as_slice();
    let (filters, programs): (Vec<_>, Vec<_>) = redirects.iter().partition(|redirect| redirect.program.is_none());
    let device = shell_word(aside.from);
    let delete = |redirect: &Redirect| {
        let delete = format!("tc filter del dev {device} egress pref {}", redirect.preference);
        Vec::from_iter(redirect.alone.then(|| case.root(&delete)))
    };
    if let [first, rest @ ..] = filters.as_slice() {
        let (kind, preference) = (escape(&first.kind), first.preference);
        let by = format!("the filter of tc `{kind}` of pref {preference}");
        let by =
            if rest.is_empty() { by } else { format!("one of several filters of tc, such as `{kind}` of pref {preference},") };
        return (Some(by), if rest.is_empty() { delete(first) } else { Vec::new() });
    }
    let by_links = case.evidence.tc_programs.iter().map(|program| program.name.as_str());
    let by_filters = programs.iter().filter_map(|redirect| redirect.program.as_deref());
    let names: Vec<String> = by_links.chain(by_filters).map(|name| format!("`{}`", escape(name))).collect();
    match names.as_slice() {
        [] => (None, Vec::new()),
        [name] => {
            let link = case.evidence.tc_programs.first().and_then(|program| program.link);
            let detach = link.map(|link| case.root(&format!("bpftool link detach id {link}")));
            let delete = programs.first().into_iter().flat_map(|redirect| delete(redirect));
            (Some(format!("the BPF program {name}")), detach.into_iter().chain(delete).collect())
        }
        names => (Some(format!("one of the BPF programs {}", names.join(", "))), Vec::new()),
    }
}

/// Commands that show what stands there.
fn look(case: &Case, aside: Aside<'_>) -> [String; 2] {
    let device = shell_word(aside.from);
    [case.root(&format!("tc filter show dev {device} egress")), case.root(&format!("bpftool net show dev {device}"))]
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence, Diagnosis, diagnose, tests::expect};
    use crate::evidence::{Evidence, Redirect, Rule, TcProgram};
    use crate::journey::{Journey, Outcome, Stage, StageVisit};
    use crate::output::samples;

    use Confidence::{Inferred, Proved};

    /// An answer that was routed to `eth0`, by which its SYN came, and was seen leaving by these.
    fn seen_at(devices: &[&str]) -> Journey {
        let mut journey = samples::journey(&[Stage::TcIngress], Outcome::Answered, None, None);
        let first = journey.stages[0].clone();
        let visit = |stage, interface: &str, ns| StageVisit { stage, ns, interface: Some(interface.into()), ..first };
        journey.stages.push(visit(Stage::Postrouting, "eth0", 10));
        journey.stages.extend(devices.iter().zip(20..).map(|(device, ns)| visit(Stage::TcEgress, device, ns)));
        journey.answer = Some(1);
        journey.facts.syn_ack = true;
        journey.facts.answer_left = devices.contains(&"eth0");
        journey.facts.answer_elsewhere = !journey.facts.answer_left;
        journey.facts.syn_ack_again = true;
        journey
    }

    fn filter(alone: bool) -> Redirect {
        Redirect { kind: "u32".to_owned(), preference: 49152, alone, program: None }
    }

    fn program(link: Option<u32>) -> TcProgram {
        TcProgram { name: "vpn".to_owned(), link }
    }

    fn wrong(journey: &Journey, evidence: &Evidence, confidence: Confidence) -> Diagnosis {
        let found = expect(journey, evidence, Code::ReplyWrongInterface, confidence);
        assert!(found.summary.contains("eth0") && found.summary.contains("d0"), "{}", found.summary);
        assert!(!found.summary.contains("mark"), "{}", found.summary);
        found
    }

    #[test]
    fn a_filter_that_redirects_the_answer_is_named_and_deleted_where_it_is_alone() {
        let journey = seen_at(&["eth0", "d0"]);
        let with = |redirects| Evidence { redirects, ..Evidence::default() };
        let found = wrong(&journey, &with(vec![filter(true)]), Inferred);
        assert!(found.summary.contains("the filter of tc `u32` of pref 49152"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo tc filter del dev eth0 egress pref 49152");
        for redirects in [vec![filter(false)], vec![filter(true), filter(true)]] {
            let found = wrong(&journey, &with(redirects), Inferred);
            assert!(found.remedy.iter().all(|line| !line.contains(" del ")), "{:?}", found.remedy);
        }
    }

    #[test]
    fn the_only_program_is_named_and_of_several_none_is_detached() {
        let journey = seen_at(&["eth0", "d0"]);
        let by_link = Evidence { tc_programs: vec![program(Some(7))], ..Evidence::default() };
        let found = wrong(&journey, &by_link, Inferred);
        assert_eq!(found.remedy[0], "sudo bpftool link detach id 7");
        let in_filter = Redirect { kind: "bpf".to_owned(), program: Some("vpn".to_owned()), ..filter(true) };
        let by_filter = Evidence { redirects: vec![in_filter], ..Evidence::default() };
        assert_eq!(wrong(&journey, &by_filter, Inferred).remedy[0], "sudo tc filter del dev eth0 egress pref 49152");
        let two = Evidence { tc_programs: vec![program(Some(7)), program(Some(8))], ..Evidence::default() };
        assert!(wrong(&journey, &two, Inferred).remedy[0].starts_with("sudo tc filter show"));
    }

    #[test]
    fn what_came_to_another_device_is_a_copy_where_nothing_can_have_sent_it_or_the_client_has_the_answer() {
        let journey = seen_at(&["eth0", "d0"]);
        expect(&journey, &Evidence::default(), Code::ReplyUnanswered, Proved);
        let with_filter = Evidence { redirects: vec![filter(true)], ..Evidence::default() };
        let mut confirmed = journey.clone();
        confirmed.facts.acknowledged = true;
        confirmed.facts.established = true;
        expect(&confirmed, &with_filter, Code::Healthy, Proved);
        let mut soon = journey;
        soon.facts.syn_ack_again = false;
        assert_eq!(diagnose(&soon, &with_filter).code, Code::Healthy, "whether the client got it is not known yet");
    }

    #[test]
    fn an_answer_that_never_left_by_its_device_was_sent_elsewhere_there() {
        let journey = seen_at(&["d0"]);
        let found = wrong(&journey, &Evidence::default(), Proved);
        assert_eq!(found.remedy[0], "sudo nft -a list ruleset netdev");
        let fwd = Rule { family: "netdev".into(), handle: Some(2), verdict: "stolen".into(), ..samples::rule() };
        let (table, chain) = (fwd.table.clone(), fwd.chain.clone());
        let found = wrong(&journey, &Evidence { forwarder: Some(fwd), ..Evidence::default() }, Proved);
        assert_eq!(found.remedy[0], format!("sudo nft delete rule netdev {table} {chain} handle 2"));
        // Routed to the other device, it is the routes that lead it there.
        let mut routed = journey;
        routed.stages[1].interface = Some("d0".into());
        let found = expect(&routed, &Evidence::default(), Code::ReplyWrongInterface, Proved);
        assert!(found.summary.contains("left by d0, so"), "{}", found.summary);
    }
}
