//! docs/diagnoses.md, made from the tables that `explain` reads and from the lab's scenarios.

use std::fmt::Write as _;

use crate::diagnosis::{ROWS, Row, STALL};
use crate::lab;

const HEAD: &str = "# Diagnoses

What wsltrace can find, in the order in which it looks: the first that fits is told. `wsltrace explain CODE` prints a page.
Each comes as `proved` (an event of this very packet names it) or `inferred` (what was seen goes with it best). The scenarios
of the lab show each: `sudo wsltrace demo NAME` breaks a private network in this way and traces it.

<!-- Made from the program's tables: UPDATE=1 cargo test -p wsltrace the_handbook_in_docs -->
";

/// The whole page, in Markdown.
pub(super) fn diagnoses() -> String {
    let mut text = HEAD.to_owned();
    let scenarios = lab::all();
    for row in ROWS {
        let shown: Vec<&str> = scenarios.iter().filter(|one| one.expect.codes.contains(&row.code)).map(|one| one.name).collect();
        // Writing to a string cannot fail.
        let _ = section(&mut text, row, &shown);
    }
    let shown: Vec<&str> = scenarios.iter().filter(|one| one.stall.is_some()).map(|one| one.name).collect();
    let _ = stalls(&mut text, &shown);
    text
}

/// What is not the end of a SYN.
fn stalls(text: &mut String, scenarios: &[&str]) -> std::fmt::Result {
    writeln!(text, "\n## `{}`: {}\n\n{}\n", STALL.name, STALL.title, STALL.meaning)?;
    writeln!(text, "- outcome: of a connection, not of a SYN; a line of its own ([json.md](json.md))")?;
    writeln!(text, "- scenarios: {}\n\n| cause | | to mend |\n|---|---|---|", scenarios.join(", "))?;
    for cause in STALL.causes {
        writeln!(text, "| `{}` | {} | {} |", cause.cause.name(), cause.meaning, cause.mend)?;
    }
    writeln!(text, "\nTo see it by hand:\n\n```sh\n{}\n```", STALL.see.join("\n"))
}

fn section(text: &mut String, row: &Row, scenarios: &[&str]) -> std::fmt::Result {
    let outcomes: Vec<_> = row.outcomes.iter().map(|outcome| format!("`{}`", outcome.name())).collect();
    writeln!(text, "\n## `{}`: {}\n\n{}\n", row.code.name(), row.title, row.meaning)?;
    writeln!(text, "- outcome: {}", outcomes.join(", "))?;
    writeln!(text, "- to mend: {}", row.mend)?;
    if !scenarios.is_empty() {
        writeln!(text, "- scenarios: {}", scenarios.join(", "))?;
    }
    if !row.see.is_empty() {
        writeln!(text, "\nTo see it by hand:\n\n```sh\n{}\n```", row.see.join("\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/diagnoses.md");

    #[test]
    fn the_handbook_in_docs_is_the_one_of_the_tables() {
        let now = super::diagnoses();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(FILE, &now).unwrap();
        }
        let kept = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(kept == now, "docs/diagnoses.md is out of date: UPDATE=1 cargo test -p wsltrace the_handbook_in_docs");
    }

    #[test]
    fn the_pages_written_by_hand_name_every_finding_and_stage() {
        let named = |page: &str, name: &str| page.contains(&format!("`{name}`"));
        let (readme, stages) = (include_str!("../../../README.md"), include_str!("../../../docs/stages.md"));
        for code in crate::diagnosis::Code::ALL {
            assert!(named(readme, code.name()), "README.md lacks {code}");
        }
        for stage in crate::journey::Stage::ALL {
            assert!(named(stages, stage.name()), "docs/stages.md lacks {stage}");
        }
    }

    /// Every name in backticks in the page of causes is one of the program's: in the column of findings and checks, and in that of scenarios.
    #[test]
    fn the_page_of_causes_names_what_exists() {
        let page = include_str!("../../../docs/causes.md");
        let scenarios: Vec<&str> = crate::lab::all().iter().map(|one| one.name).collect();
        let codes = crate::diagnosis::Code::ALL.iter().map(|code| code.name());
        let causes = crate::diagnosis::Cause::ALL.iter().map(|cause| cause.name());
        let found: Vec<&str> = codes
            .chain(causes)
            .chain([crate::diagnosis::STALL.name])
            .chain(crate::doctor::CHECKS.iter().map(|check| check.name))
            .collect();
        let mut rows = 0;
        for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| cause ")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, _, _, _, says, plays, _] = cells[..] else { panic!("columns of {row}") };
            let names = |cell: &'static str| cell.split('`').skip(1).step_by(2);
            for name in names(says) {
                assert!(found.contains(&name), "no finding or check is called {name}");
            }
            for name in names(plays) {
                assert!(scenarios.contains(&name), "no scenario is called {name}");
            }
            rows += 1;
        }
        assert!(rows > 20, "{rows} rows");
        let rest = page.split("What else the lab breaks").nth(1).unwrap();
        for name in rest.split('`').skip(1).step_by(2).filter(|name| name.contains('-')) {
            assert!(scenarios.contains(&name), "no scenario is called {name}");
        }
    }

    #[test]
    fn every_diagnosis_says_how_to_see_and_mend_it() {
        for row in crate::diagnosis::ROWS {
            assert!(!row.mend.is_empty() && row.meaning.len() > 60, "{}", row.code.name());
            let healthy = row.code == crate::diagnosis::Code::Healthy;
            assert_eq!(row.see.is_empty(), healthy, "{}", row.code.name());
        }
    }
}
