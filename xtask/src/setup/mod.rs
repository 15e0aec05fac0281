//! `cargo xtask setup`: sees what this machine lacks, says what it is about to install, and installs it.
//!
//! What is needed stands in the tables of [`requirement`]; here is only how a table becomes commands. Doing it twice does
//! nothing the second time.

pub(crate) mod machine;
mod requirement;
pub(crate) mod toolchain;

use std::process::Command;

pub(crate) use self::requirement::Part;
use self::{
    requirement::{Bring, COMMON, Requirement},
    toolchain::Toolchain,
};
use crate::{
    command::{self, clean, is_root, say},
    error::Error,
};

/// Brings what building, linting and testing need. The rest is large, and one task alone needs each: that task brings it.
pub(crate) fn run() -> Result<(), Error> {
    let toolchain = ensure(&[Part::Build, Part::Lint, Part::Test])?;
    ensure_readers();
    say(&format!("setup: everything is here (kernel side: {})", toolchain.describe()));
    Ok(())
}

/// Brings the programs that read what is exported; their tests are skipped where they cannot be had (Ubuntu's chromium is no
/// package of its archive).
pub(crate) fn ensure_readers() {
    if let Err(error) = ensure(&[Part::Readers]) {
        say(&format!("setup: without tshark, chromium or bpftool, whose tests are skipped: {error}"));
    }
}

/// Brings what these parts of the work need, and says which toolchain builds the kernel side.
pub(crate) fn ensure(parts: &[Part]) -> Result<Toolchain, Error> {
    let toolchain = toolchain::choose(toolchain::Facts::look());
    let table: Vec<&Requirement> = toolchain.requirements().iter().chain(COMMON).collect();
    let missing = plan(&table, parts, |requirement| (requirement.sign)());
    if missing.is_empty() {
        return Ok(toolchain);
    }
    say("setup: this machine lacks");
    for requirement in &missing {
        say(&format!("  {:<22} {}", requirement.name, requirement.why));
    }
    bring(&missing)?;
    let still: Vec<&Requirement> = missing.into_iter().filter(|requirement| !(requirement.sign)()).collect();
    if still.is_empty() { Ok(toolchain) } else { Err(lacking(&still, "it was installed, yet is not to be seen", None)) }
}

/// The rows of a table that have to be brought for these parts, in the table's order: those that show no sign of being there,
/// without the ones that only serve to build something that is there already.
fn plan<'a>(table: &[&'a Requirement], parts: &[Part], seen: impl Fn(&Requirement) -> bool) -> Vec<&'a Requirement> {
    let wanted = |requirement: &Requirement| requirement.parts.iter().any(|part| parts.contains(part));
    let absent: Vec<&'a Requirement> = table.iter().copied().filter(|row| wanted(row) && !seen(row)).collect();
    let serves = |name| absent.iter().any(|other| other.name == name);
    absent.iter().copied().filter(|row| row.only_for.is_none_or(serves)).collect()
}

/// Installs the rows: packages first and together, then what is built with them.
fn bring(missing: &[&Requirement]) -> Result<(), Error> {
    let by_hand = only(missing, |bring| matches!(bring, Bring::Person(_)));
    if !by_hand.is_empty() {
        return Err(lacking(&by_hand, "this machine's packages do not have it", None));
    }
    let packaged = only(missing, |bring| matches!(bring, Bring::Apt(_)));
    if !packaged.is_empty() {
        if !machine::has("apt-get") {
            return Err(without_apt(&packaged));
        }
        let install = |command: &mut Command| {
            say(&format!("setup: running `{}`", command::line(command)));
            command::run(command)
        };
        if !is_root() {
            return Err(lacking(&packaged, "installing packages needs root", None));
        }
        apt(&packaged)
            .iter_mut()
            .try_for_each(install)
            .map_err(|error| lacking(&packaged, "it could not be installed (is the network up?)", Some(error)))?;
    }
    for requirement in only(missing, |bring| matches!(bring, Bring::Run { .. })) {
        let Some(mut command) = requirement.command() else { continue };
        say(&format!("setup: running `{}`", command::line(&command)));
        command::run(&mut command)
            .map_err(|error| lacking(&[requirement], "it could not be installed (is the network up?)", Some(error)))?;
    }
    Ok(())
}

fn only<'a>(rows: &[&'a Requirement], wanted: impl Fn(&Bring) -> bool) -> Vec<&'a Requirement> {
    rows.iter().copied().filter(|row| wanted(&row.bring)).collect()
}

/// The two commands that bring packages; another apt at work is waited for.
fn apt(rows: &[&Requirement]) -> [Command; 2] {
    let start = || {
        let mut apt = clean("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
        apt
    };
    let (mut update, mut install) = (start(), start());
    update.arg("update");
    install.args(["install", "-y", "--no-install-recommends"]).args(packages(rows));
    [update, install]
}

/// The packages of these rows, each once, in the table's order.
fn packages(rows: &[&Requirement]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for row in rows {
        if let Bring::Apt(names) = row.bring {
            packages.extend(names.iter().filter(|name| !packages.contains(*name)).collect::<Vec<_>>());
        }
    }
    packages
}

/// The error for packages where another package manager rules, whose names for them we do not know.
fn without_apt(rows: &[&Requirement]) -> Error {
    let bring = format!("install with this machine's own package manager what Debian calls: {}", packages(rows).join(" "));
    Error::Missing { missing: named(rows), reason: "there is no apt-get here".to_owned(), bring, source: None }
}

/// The error for rows that were not brought, with the commands that bring them.
fn lacking(rows: &[&Requirement], reason: &str, source: Option<Error>) -> Error {
    let packages = packages(rows);
    let mut commands = Vec::new();
    if !packages.is_empty() {
        let packages = packages.join(" ");
        commands.push(format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {packages}"));
    }
    for row in rows {
        match row.bring {
            Bring::Apt(_) => {}
            Bring::Run { .. } => commands.extend(row.command().as_ref().map(command::line)),
            Bring::Person(command) => commands.push(command.to_owned()),
        }
    }
    Error::Missing { missing: named(rows), reason: reason.to_owned(), bring: commands.join("\n"), source: source.map(Box::new) }
}

/// The names of rows, each with what it is for.
fn named(rows: &[&Requirement]) -> String {
    rows.iter().map(|row| format!("{} ({})", row.name, row.why)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Bring, COMMON, Part, Requirement, Toolchain, lacking, packages, plan, without_apt};

    fn debian() -> Vec<&'static Requirement> {
        Toolchain::Debian.requirements().iter().chain(COMMON).collect()
    }

    fn names(rows: &[&Requirement]) -> Vec<&'static str> {
        rows.iter().map(|row| row.name).collect()
    }

    #[test]
    fn a_complete_machine_is_left_alone() {
        assert!(plan(&debian(), &[Part::Build, Part::Lint, Part::Test, Part::Vm], |_| true).is_empty());
    }

    #[test]
    fn a_bare_machine_gets_every_row() {
        let table = debian();
        assert_eq!(plan(&table, &Part::ALL, |_| false).len(), table.len());
    }

    #[test]
    fn linting_asks_for_no_kernel_toolchain() {
        let missing = names(&plan(&debian(), &[Part::Lint], |_| false));
        assert!(missing.contains(&"clippy") && !missing.contains(&"rustc-web") && !missing.contains(&"nftables"), "{missing:?}");
    }

    #[test]
    fn what_only_serves_to_build_bpf_linker_is_not_brought_when_bpf_linker_is_there() {
        let missing = plan(&debian(), &[Part::Build], |row| row.name == "bpf-linker");
        assert!(missing.iter().all(|row| row.only_for.is_none()), "{:?}", names(&missing));
        let missing = plan(&debian(), &[Part::Build], |row| row.name != "bpf-linker" && row.name != "llvm-22-dev");
        assert_eq!(names(&missing), ["llvm-22-dev", "bpf-linker"]);
    }

    #[test]
    fn every_row_of_a_table_has_its_own_name_and_only_for_names_a_row() {
        for toolchain in [Toolchain::Debian, Toolchain::Rustup] {
            let table: Vec<&Requirement> = toolchain.requirements().iter().chain(COMMON).collect();
            for row in &table {
                assert_eq!(table.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
                assert!(row.only_for.is_none_or(|name| table.iter().any(|other| other.name == name)), "{}", row.name);
            }
        }
    }

    #[test]
    fn a_package_is_named_once_and_the_error_holds_the_command() {
        let row = Requirement {
            name: "tool",
            why: "to test",
            parts: &[Part::Test],
            only_for: None,
            sign: || false,
            bring: Bring::Apt(&["one", "two"]),
        };
        assert_eq!(packages(&[&row, &row]), ["one", "two"]);
        let error = lacking(&[&row], "installing packages needs root", None);
        assert_eq!(error.to_string(), "missing: tool (to test): installing packages needs root");
        assert_eq!(error.hint(), Some("sudo apt-get update && sudo apt-get install -y --no-install-recommends one two"));
        let error = without_apt(&[&row]);
        assert_eq!(error.to_string(), "missing: tool (to test): there is no apt-get here");
        assert_eq!(error.hint(), Some("install with this machine's own package manager what Debian calls: one two"));
    }
}
