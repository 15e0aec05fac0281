//! The pages of `wsltrace explain CODE|STAGE|REASON`, made from the tables of diagnoses, stages and drop reasons.
#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a failing write! to a String cannot happen and would have to be handled"
)]

use anstyle::Style;

use super::{
    options::TextOptions,
    words::{COMMAND, FAINT, Page, STRONG, sentence},
};
use crate::{
    diagnosis::{Cause, ROWS, ReasonPage, Row, STALL, StagePage, StallPage, reason_page, reason_pages, stage_page},
    journey::{Outcome, Stage},
};

/// No page has this name.
#[derive(Debug, thiserror::Error)]
#[error("no diagnosis, stage or drop reason is called '{word}'{}", near_words(.near))]
pub struct UnknownWord {
    /// What was asked for.
    pub word: String,
    /// Names that are near it.
    pub near: Vec<String>,
}

fn near_words(near: &[String]) -> String {
    if near.is_empty() {
        "; 'wsltrace explain' without a word lists them".to_owned()
    } else {
        format!("; near it are: {}", near.join(", "))
    }
}

/// The pages that go by this name (a name can be both a diagnosis and a stage), or what is near it.
pub fn explain(word: &str, options: TextOptions) -> Result<String, UnknownWord> {
    let page = options.page();
    let name = word.trim().to_ascii_lowercase().replace('-', "_");
    let codes = ROWS.iter().filter(|row| row.code.name() == name).map(|row| code(page, row));
    let stages = Stage::ALL.into_iter().filter(|stage| stage.name() == name).map(|found| stage(page, stage_page(found)));
    let reasons = reason_page(&name).into_iter().map(|found| reason(page, found));
    let of_stalls = name == STALL.name || Cause::ALL.into_iter().any(|cause| cause.name() == name);
    let stalls = of_stalls.then(|| stalled(page, STALL));
    let pages: Vec<_> = codes.chain(stalls).chain(stages).chain(reasons).collect();
    if pages.is_empty() {
        return Err(UnknownWord { word: crate::escape::escape(word), near: near(&name) });
    }
    Ok(pages.join("\n"))
}

/// Every word that has a page, in three lists.
pub fn index(options: TextOptions) -> String {
    let page = options.page();
    let lists = [
        ("diagnoses", ROWS.iter().map(|row| row.code.name()).chain([STALL.name]).collect::<Vec<_>>()),
        ("stages", Stage::ALL.into_iter().map(Stage::name).collect()),
        ("drop reasons", reason_pages().map(|page| page.name).collect()),
    ];
    lists
        .iter()
        .map(|(title, names)| format!("{}\n  {}\n", page.paint(STRONG, title), page.wrap(&names.join(" "), 2, 2, Style::new())))
        .collect()
}

fn code(page: Page, row: &Row) -> String {
    let outcomes: Vec<_> = row.outcomes.iter().map(|outcome: &Outcome| outcome.name()).collect();
    let mut text = title(page, row.code.name(), row.title);
    text.push_str(&paragraph(page, row.meaning));
    text.push_str(&page.labelled("outcome", &outcomes.join(", ")));
    text.push_str(&page.labelled("to mend", row.mend));
    text.push_str(&see(page, row.see));
    text
}

fn stalled(page: Page, stall: StallPage) -> String {
    let mut text = title(page, stall.name, stall.title);
    text.push_str(&paragraph(page, stall.meaning));
    for cause in stall.causes {
        text.push_str(&format!("  {}\n", page.paint(STRONG, cause.cause.name())));
        text.push_str(&format!("    {}\n", page.wrap(cause.meaning, 4, 4, Style::new())));
        text.push_str(&page.labelled("  to mend", cause.mend));
    }
    text.push_str(&see(page, stall.see));
    text
}

fn see(page: Page, commands: &[&str]) -> String {
    let mut text = String::new();
    if !commands.is_empty() {
        text.push_str(&format!("\n  {}\n", page.paint(FAINT, "see it by hand:")));
    }
    for command in commands {
        text.push_str(&format!("    {}\n", page.paint(COMMAND, command)));
    }
    text
}

fn stage(page: Page, stage: StagePage) -> String {
    let mut text = title(page, stage.stage.name(), &format!("stage: {}", stage.place));
    text.push_str(&paragraph(page, stage.what));
    text.push_str(&page.labelled("acting", stage.who));
    text.push_str(&page.labelled(if stage.hook.is_some() { "priority" } else { "position" }, stage.position));
    text
}

fn reason(page: Page, reason: &ReasonPage) -> String {
    let mut text = title(page, reason.name, &format!("drop reason: {}", reason.short));
    text.push_str(&paragraph(page, reason.text));
    text
}

fn title(page: Page, name: &str, text: &str) -> String {
    format!("{}\n  {}\n\n", page.paint(STRONG, name), page.wrap(&sentence(text), 2, 2, Style::new()))
}

fn paragraph(page: Page, text: &str) -> String {
    format!("  {}\n\n", page.wrap(text, 2, 2, Style::new()))
}

/// Names that contain the word or are few changes away, the nearest first.
fn near(word: &str) -> Vec<String> {
    let names = ROWS.iter().map(|row| row.code.name()).chain(Stage::ALL.into_iter().map(Stage::name));
    let all = names.chain(reason_pages().map(|page| page.name)).chain([STALL.name]);
    let mut found: Vec<(usize, &str)> = all
        .filter_map(|name| {
            let lower = name.to_ascii_lowercase();
            let far = distance(word, &lower);
            let inside =
                word.len() >= 3 && (lower.contains(word) || lower.split('_').any(|part| part.len() > 3 && word.contains(part)));
            (inside || far <= 2 + word.len() / 5).then_some((far, name))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(6).map(|(_, name)| name.to_owned()).collect()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, (y, pair)) in b.iter().zip(row.windows(2)).enumerate() {
            let &[diagonal, above] = pair else { continue };
            let left = next.get(j).copied().unwrap_or(usize::MAX - 1);
            next.push((above + 1).min(left + 1).min(diagonal + usize::from(x != *y)));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{diagnosis::Code, output::Verbosity};

    const OPTIONS: TextOptions = TextOptions {
        color: false,
        width: 80,
        talk_width: 80,
        terminal: false,
        verbosity: Verbosity::Normal,
        shown: crate::output::Shown::Attempts,
        live: false,
    };

    #[test]
    fn every_code_stage_and_reason_has_a_page() {
        let codes = Code::ALL.iter().map(|code| code.name());
        let stages = Stage::ALL.into_iter().map(Stage::name);
        for word in codes.chain(stages).chain(reason_pages().map(|page| page.name)).chain([STALL.name]) {
            let text = explain(word, OPTIONS).unwrap();
            assert!(text.to_lowercase().contains(&word.to_lowercase()), "{word}");
        }
    }

    #[test]
    fn unknown_words_name_what_is_near() {
        assert!(explain("firewal_drop", OPTIONS).unwrap_err().near.contains(&"firewall_drop".to_owned()));
        assert!(explain("rpfilter", OPTIONS).unwrap_err().near.contains(&"IP_RPFILTER".to_owned()));
        assert!(explain("zzzzzzzz", OPTIONS).unwrap_err().near.is_empty());
        assert!(explain("skb_drop_reason_no_socket", OPTIONS).is_ok());
        for cause in Cause::ALL {
            assert_eq!(explain(cause.name(), OPTIONS).unwrap(), explain(STALL.name, OPTIONS).unwrap());
        }
    }
}
