//! The way of a packet as a table: a line for each stage or hook with the time spent there, headed by the interface, the place
//! of death marked.
#![expect(clippy::format_push_string, reason = "a failing write! to a String cannot happen and would have to be handled")]

use anstyle::Style;

use super::words::{BAD, FAINT, Page, STRONG, duration};
use crate::{
    diagnosis::stage_page,
    escape::escape,
    journey::{Journey, Outcome, Stage, StageVisit},
};

/// Columns of a stage's name.
const NAME: usize = 18;
/// Columns of a time.
const TIME: usize = 8;

/// The path as plain text, a line a hook.
pub(crate) fn plain(journey: &Journey) -> String {
    path(Page { width: 80, color: false }, journey, false)
}

/// Writes the path; `every_stage` shows one line a stage instead of one a hook.
pub(super) fn path(page: Page, journey: &Journey, every_stage: bool) -> String {
    let mut text = String::new();
    let death = journey.death_index();
    let mut place = None;
    let mut index = 0;
    while let Some(visit) = journey.stages.get(index) {
        let here = (visit.interface.as_deref(), visit.netns);
        if place != Some(here) {
            text.push_str(&heading(page, journey, visit));
            place = Some(here);
        }
        if journey.answer == Some(index) && index > 0 {
            text.push_str(&format!("    {}\n", page.paint(FAINT, "its answer:")));
        }
        if death == Some(index) {
            text.push_str(&died(page, visit.stage, Some(visit.ns), journey.outcome));
            index += 1;
            continue;
        }
        let group = if every_stage { 1 } else { group_length(journey, index, death) };
        let until = journey.stages.get(index + group).map(|next| next.ns.saturating_sub(visit.ns));
        let members: Vec<_> = journey.stages.iter().skip(index).take(group).map(|visit| visit.stage).collect();
        text.push_str(&line(page, visit.stage, &members, until));
        index += group;
    }
    if let (None, Some(stage)) = (death, journey.died_at) {
        text.push_str(&died(page, stage, None, journey.outcome));
    }
    text
}

/// How many stages from `start` on belong to one hook and place and to one packet, up to the death.
fn group_length(journey: &Journey, start: usize, death: Option<usize>) -> usize {
    let Some(first) = journey.stages.get(start) else { return 1 };
    let Some(hook) = stage_page(first.stage).hook else { return 1 };
    let same = |(index, visit): &(usize, &StageVisit)| {
        Some(*index) != death
            && death.is_none_or(|death| start > death || *index < death)
            && journey.answer.is_none_or(|answer| start >= answer || *index < answer)
            && stage_page(visit.stage).hook == Some(hook)
            && visit.interface == first.interface
            && visit.netns == first.netns
    };
    journey.stages.iter().enumerate().skip(start).take_while(same).count().max(1)
}

fn heading(page: Page, journey: &Journey, visit: &StageVisit) -> String {
    let name = visit.interface.as_deref().map_or_else(|| "no interface yet".to_owned(), escape);
    let netns = if visit.netns == journey.netns { String::new() } else { format!(" in network namespace {}", visit.netns) };
    format!("  {}{}\n", page.paint(STRONG, &name), page.paint(FAINT, &netns))
}

fn line(page: Page, stage: Stage, members: &[Stage], spent: Option<u64>) -> String {
    let name = if members.len() > 1 { hook_name(stage) } else { stage.name() };
    let time = spent.map_or_else(|| "\u{b7}".to_owned(), duration);
    let start = format!("    {name:<NAME$} {time:>TIME$}");
    let short: Vec<_> =
        if members.len() > 1 { members.iter().skip(1).map(|stage| short_name(*stage)).collect() } else { Vec::new() };
    if short.is_empty() {
        return format!("{start}\n");
    }
    beside(page, &start, &short.join(", "), FAINT)
}

fn died(page: Page, stage: Stage, ns: Option<u64>, outcome: Outcome) -> String {
    let what = match outcome {
        Outcome::Refused => "refused here",
        Outcome::Rejected => "rejected here",
        Outcome::Ignored => "ignored here",
        Outcome::Challenged => "challenged here",
        Outcome::Answered | Outcome::Forwarded | Outcome::Unfinished => "ended here",
        Outcome::AnswerDropped => "the answer died here",
        Outcome::Dropped => "died here",
    };
    let when = ns.filter(|ns| *ns > 0).map(|ns| format!(", {} after it came in", duration(ns))).unwrap_or_default();
    let start = format!("  {} {:<NAME$}", page.paint(BAD, "\u{2717}"), stage.name());
    let start = start.replace(stage.name(), &page.paint(BAD, stage.name()));
    let text = format!("{what}{when}");
    let used = 4 + NAME + 1;
    if used + text.chars().count() > page.width {
        return format!("{}\n      {}\n", start.trim_end(), page.wrap(&text, 6, 6, BAD));
    }
    format!("{start} {}\n", page.paint(BAD, &text))
}

/// Text to the right of a line, or below it where the page is narrow.
fn beside(page: Page, start: &str, text: &str, style: Style) -> String {
    let used = 4 + NAME + 1 + TIME + 2;
    if page.width < used + 24 && used + text.chars().count() > page.width {
        return format!("{start}\n      {}\n", page.wrap(text, 6, 6, style));
    }
    format!("{start}  {}\n", page.wrap(text, used, used, style))
}

fn hook_name(stage: Stage) -> &'static str {
    match stage_page(stage).hook {
        Some("PREROUTING") => "prerouting",
        Some("INPUT") => "input",
        Some("FORWARD") => "forward",
        Some("OUTPUT") => "output",
        Some("POSTROUTING") => "postrouting",
        _ => stage.name(),
    }
}

fn short_name(stage: Stage) -> &'static str {
    stage.name().split_once('_').map_or(stage.name(), |(_, short)| short)
}

#[cfg(test)]
mod tests {
    use super::plain;
    use crate::journey::{Outcome, Stage as S, Stage};
    use crate::output::samples;

    const THERE: [Stage; 8] =
        [S::Output, S::OutputFilter, S::Postrouting, S::TcEgress, S::TcIngress, S::Prerouting, S::Input, S::InputFilter];

    /// A connection of this machine with itself that INPUT rejects: the ICMP error passes the same hooks.
    #[test]
    fn an_answer_that_passes_the_same_hooks_stands_behind_the_death() {
        let stages = [&THERE[..], &THERE].concat();
        let mut journey =
            samples::journey(&stages, Outcome::Rejected, Some(S::InputFilter), Some(("NETFILTER_DROP", "nf_hook_slow")));
        journey.answer = Some(THERE.len());
        assert_eq!(journey.death_index(), Some(THERE.len() - 1));
        let text = plain(&journey);
        let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().find(|word| *word != "\u{2717}")).collect();
        let answer = ["its", "output", "postrouting", "tc_egress", "tc_ingress", "prerouting", "input"];
        let syn = ["eth0", "output", "postrouting", "tc_egress", "tc_ingress", "prerouting", "input", "input_filter"];
        assert_eq!(names, [&syn[..], &answer].concat(), "{text}");

        // The same stages, but it was the answer that died.
        journey.outcome = Outcome::AnswerDropped;
        assert_eq!(journey.death_index(), Some(stages.len() - 1));
        assert!(plain(&journey).trim_end().lines().last().is_some_and(|line| line.contains("the answer died here")));
    }

    #[test]
    fn a_hook_that_the_syn_ended_in_and_its_answer_begins_in_is_told_apart() {
        let stages = [S::TcIngress, S::Prerouting, S::Output, S::OutputFilter, S::Output, S::OutputFilter, S::TcEgress];
        let mut journey = samples::journey(&stages, Outcome::Answered, None, None);
        journey.answer = Some(4);
        let text = plain(&journey);
        let outputs = text.lines().filter(|line| line.trim_start().starts_with("output")).count();
        assert_eq!((outputs, text.matches("its answer:").count()), (2, 1), "{text}");
    }
}
