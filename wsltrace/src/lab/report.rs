//! `wsltrace demo` and `wsltrace selftest`: playing scenarios for a human.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use super::run::{broken_lab, connect};

use super::{Ending, LabError, PORT, Scenario, ScenarioReport, Side, Tracer, all, find, run};
use crate::output::wrapped;

/// The scenario that is shown when none is named: the commonest fault inside Linux.
const SHOWCASE: &str = "drop-filter-iptables-nft";

/// Lists the scenarios by subject.
pub fn list(out: &mut dyn Write) -> io::Result<()> {
    let scenarios = all();
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or_default();
    for group in scenarios.chunk_by(|a, b| a.group == b.group) {
        writeln!(out, "{}", group[0].group)?;
        for scenario in group {
            writeln!(out, "{}", for_people(&format!("  {:<width$} {}", scenario.name, scenario.title)))?;
        }
    }
    Ok(())
}

/// A line as standard output is to show it.
fn for_people(line: &str) -> String {
    wrapped(line, &io::stdout(), 0)
}

/// Plays one scenario with the tracer's normal text output; without a name the showcase. The tracer `binary` writes to this
/// process's own standard output, `out` must be that too.
pub fn demo(name: Option<&str>, binary: &Path, out: &mut dyn Write) -> Result<(), LabError> {
    let wanted = name.unwrap_or(SHOWCASE);
    let scenario = find(wanted).ok_or_else(|| LabError::Unknown(wanted.to_owned()))?;
    if let Some(why) = scenario.impossible().or_else(|| scenario.obstacle()) {
        return Err(LabError::Unsupported(format!("cannot play {}: {why}", scenario.name)));
    }
    play(&scenario, binary, out)?;
    if name.is_none() {
        let more = format!("wsltrace demo --list lists {} more, wsltrace demo NAME shows one", all().len() - 1);
        writeln!(out, "\n{}", for_people(&more)).and_then(|()| out.flush()).map_err(LabError::Output)?;
    }
    Ok(())
}

fn play(scenario: &Scenario, binary: &Path, out: &mut dyn Write) -> Result<(), LabError> {
    let from = if scenario.from == Side::Wsl { "a program inside" } else { "a client outside" };
    let target = SocketAddr::new(scenario.target, PORT);
    let head = format!("In a private network: {}.", scenario.title);
    let told = writeln!(out, "{}", for_people(&head))
        .and_then(|()| {
            writeln!(out, "{}\n", for_people(&format!("Now {from} connects to {target}, and this is what wsltrace says:")))
        })
        .and_then(|()| out.flush());
    told.map_err(LabError::Output)?;

    let lab = broken_lab(scenario)?;
    let mut tracer = Tracer::start_text(binary, &lab.wsl, scenario.detail)?;
    tracer.await_armed()?;
    let (client, problems) = connect(scenario, &lab)?;
    let said = tracer.stop()?;
    if !said.status.success() {
        return Err(LabError::Failed(format!("the tracer ended with {}", said.status)));
    }
    let told = writeln!(out, "\n{}", for_people(&format!("All that {from} itself saw: {}.", client.seen)));
    told.and_then(|()| out.flush()).map_err(LabError::Output)?;
    if problems.is_empty() { Ok(()) } else { Err(LabError::Failed(problems.join("; "))) }
}

/// One of several equal parts of a list, for machines that share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which part, from 1.
    number: usize,
    /// How many parts there are.
    of: usize,
}

impl Part {
    /// Everything.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// Takes them in turn, so that groups of slow ones are shared as well.
    fn take<T>(self, list: Vec<T>) -> Vec<T> {
        list.into_iter().skip(self.number - 1).step_by(self.of).collect()
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err("not a part such as 1/2".to_owned()),
        }
    }
}

/// Plays the named scenarios, or all, or a part of them, and prints a table, or with `json` one object a line and a summary. Returns
/// whether none failed. An unknown name is an error before anything is played.
pub fn selftest(names: &[String], part: Part, json: bool, binary: &Path, out: &mut dyn Write) -> Result<bool, LabError> {
    let one = |name: &String| find(name).ok_or_else(|| LabError::Unknown(name.clone()));
    let scenarios = if names.is_empty() { all() } else { names.iter().map(one).collect::<Result<_, _>>()? };
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::Unsupported("no scenario can be played: network namespaces need root".to_owned()));
    }
    let mut counts = [0_usize; 4];
    for scenario in &part.take(scenarios) {
        let report = run(scenario, binary);
        counts[match report.ending {
            Ending::Passed => 0,
            Ending::Failed(_) => 1,
            Ending::Skipped(_) => 2,
            Ending::Impossible(_) => 3,
        }] += 1;
        write_report(&report, json, out).and_then(|()| out.flush()).map_err(LabError::Output)?;
    }
    write_counts(counts, json, out).and_then(|()| out.flush()).map_err(LabError::Output)?;
    Ok(counts[1] == 0)
}

fn write_report(report: &ScenarioReport, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(report)?);
    }
    if report.in_vain > 0 {
        let times = if report.in_vain == 1 { "once" } else { "twice" };
        writeln!(out, "{:<30} played {times} in vain: the kernel withheld events, and the tracer said so", report.name)?;
    }
    match &report.ending {
        Ending::Passed => writeln!(out, "{:<30} ok", report.name),
        Ending::Skipped(why) => writeln!(out, "{:<30} skipped  {why}", report.name),
        Ending::Impossible(why) => writeln!(out, "{:<30} not here  {why}", report.name),
        Ending::Failed(problems) => {
            writeln!(out, "{:<30} failed", report.name)?;
            problems.iter().try_for_each(|problem| writeln!(out, "{:<30}   {problem}", ""))
        }
    }
}

fn write_counts([passed, failed, skipped, impossible]: [usize; 4], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(
            out,
            "{}",
            serde_json::json!({"passed": passed, "failed": failed, "skipped": skipped, "impossible": impossible})
        );
    }
    write!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    if impossible > 0 {
        write!(out, "; {impossible} {} that this kernel cannot have", if impossible == 1 { "fault" } else { "faults" })?;
    }
    writeln!(out)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_showcase_exists_and_every_scenario_is_listed_under_one_heading() {
        assert!(find(SHOWCASE).is_some());
        let listed = text(|out| list(out).unwrap());
        assert_eq!(listed.lines().filter(|l| l.starts_with("  ")).count(), all().len());
        let groups: std::collections::HashSet<_> = all().iter().map(|s| s.group).collect();
        assert_eq!(listed.lines().filter(|l| !l.starts_with(' ')).count(), groups.len());
    }

    #[test]
    fn reports_are_lines_of_text_or_json() {
        let report = ScenarioReport { name: "x", client: None, in_vain: 0, ending: Ending::Failed(vec!["a".into(), "b".into()]) };
        assert_eq!(text(|out| write_report(&report, false, out).unwrap()).lines().count(), 3);
        let json: serde_json::Value = serde_json::from_str(&text(|out| write_report(&report, true, out).unwrap())).unwrap();
        assert_eq!(json, serde_json::json!({"name": "x", "client": null, "result": "failed", "why": ["a", "b"]}));
        assert_eq!(text(|out| write_counts([3, 0, 1, 0], false, out).unwrap()), "3 passed, 0 failed, 1 skipped\n");
        let said = text(|out| write_counts([3, 0, 1, 2], false, out).unwrap());
        assert_eq!(said, "3 passed, 0 failed, 1 skipped; 2 faults that this kernel cannot have\n");
        let said = text(|out| write_counts([3, 0, 1, 1], false, out).unwrap());
        assert!(said.ends_with("; 1 fault that this kernel cannot have\n"), "{said}");
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_where_to_look() {
        let error = demo(Some("nonsense\u{7}"), Path::new("/bin/false"), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "no scenario is called 'nonsense\\u{7}'");
        assert!(selftest(&["nonsense".into()], Part::WHOLE, false, Path::new("/bin/false"), &mut Vec::new()).is_err());
    }

    #[test]
    fn parts_are_everything_once() {
        let part = |text: &str| text.parse::<Part>();
        let list: Vec<u8> = (0..7).collect();
        assert_eq!(Part::WHOLE.take(list.clone()), list);
        let parts: Vec<Vec<u8>> = ["1/3", "2/3", "3/3"].map(|text| part(text).unwrap().take(list.clone())).into();
        assert_eq!(parts, [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
        for wrong in ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b"] {
            assert!(part(wrong).is_err(), "{wrong}");
        }
    }
}
