//! `wsltrace --version`, and with `-v` what a bug report needs.

use std::io;
use std::process::Command;
use std::time::Duration;

use super::Failure;
use crate::escape::escape;
use crate::kernel::command::output_within;
use crate::kernel::links::{Link, list_links};
use crate::kernel::netns::Netns;
use crate::kernel::{self, check};
use crate::output::wrapped;
use crate::probe::{Detail, Loader, Probes, Role, Sizes};
use crate::wsl::{self, Source, Wsl};

/// Longest time that another program may take to tell its version; `wslinfo` asks Windows.
const LIMIT: Duration = Duration::from_secs(2);

/// Prints the version; in full, with everything around that decides what the tracer can do.
pub fn run(full: bool) -> Result<(), Failure> {
    let mut text = format!("wsltrace {}\n", env!("CARGO_PKG_VERSION"));
    if full {
        for (name, value) in facts()? {
            text.push_str(&line(name, &value));
        }
    }
    super::print(wrapped(&text, &io::stdout(), 12))
}

/// A fact with its name; more lines of it stand below each other.
fn line(name: &str, value: &str) -> String {
    let mut label = name;
    let mut text = String::new();
    for part in value.lines() {
        text.extend([&format!("{label:<10}"), escape(part).as_str(), "\n"]);
        label = "";
    }
    text
}

fn facts() -> Result<Vec<(&'static str, String)>, Failure> {
    let machine = check::Machine::read()?;
    let mut facts = vec![("kernel", format!("{} {}", machine.release, std::env::consts::ARCH)), ("distro", distro())];
    match machine.wsl {
        Wsl::No => facts.push(("WSL", "no".to_owned())),
        Wsl::One => facts.push(("WSL", "1".to_owned())),
        Wsl::Two => {
            let version = wsl::version(machine.wsl);
            facts.push(("WSL", format!("2, {}", version.unwrap_or_else(|| "version not known (no wslinfo)".to_owned()))));
            let links = Netns::current().ok().and_then(|netns| list_links(&netns).ok()).unwrap_or_default();
            facts.push(("mode", mode(machine.wsl, &links)));
        }
    }
    for (name, program) in [("nft", "nft"), ("iptables", "iptables")] {
        facts.push((name, answer(program, "--version").unwrap_or_else(|| "not there".to_owned())));
    }
    let problems = check::problems(&machine, "wsltrace --version -v");
    let probes = if problems.is_empty() {
        probes().unwrap_or_else(|failure| format!("none: {}", failure.message))
    } else {
        let told = problems.iter().map(|problem| format!("not known: {} (try: {})", problem.message, problem.hint));
        told.collect::<Vec<_>>().join("\n")
    };
    facts.push(("probes", probes));
    Ok(facts)
}

fn mode(wsl: Wsl, links: &[Link]) -> String {
    match wsl::networking_mode(wsl, links) {
        Some((mode, Source::Wslinfo)) => mode.name().to_owned(),
        Some((mode, Source::Interfaces)) => format!("{}, guessed from the interfaces", mode.name()),
        None => "not known".to_owned(),
    }
}

/// Puts every probe in for a moment, as tracing would, and says which are on and which are missing.
fn probes() -> Result<String, Failure> {
    let netns = Netns::current()?;
    let facts = kernel::read()?;
    let no_ports = crate::cli::bitmap(&[]);
    let mut probes =
        Probes::load(Loader::begin(), &facts, &no_ports, Detail::Full, Sizes { journeys: None, ring_bytes: None }, 0)?;
    probes.attach_namespace(&netns, Role::Traced)?;
    let up: Vec<Link> = list_links(&netns)?.into_iter().filter(|link| link.up).collect();
    probes.attach_interfaces(&netns, &up)?;
    let mut said: Vec<String> = probes.on().into_iter().map(|(name, count)| format!("{count:>3} {name}")).collect();
    let missing = probes.missing().iter();
    said.extend(missing.map(|missing| format!("  - {}: {} ({})", missing.probe, missing.cost, missing.reason)));
    Ok(said.join("\n"))
}

fn distro() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "not known".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The first line that a program prints, if it is there and answers.
fn answer(program: &str, option: &str) -> Option<String> {
    let text = output_within(LIMIT, Command::new(program).arg(option)).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_several_lines_stand_below_each_other_and_are_escaped() {
        assert_eq!(line("probes", "62 netfilter\n 2 tc\x1b"), "probes    62 netfilter\n           2 tc\\x1b\n");
    }
}
