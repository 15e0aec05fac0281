//! Whether the commands that a report prints mend the fault, and change nothing else: they are run as printed, and the client
//! tries once more.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::client::ANSWER_PATIENCE;
use super::{Attempt, Lab, LabError, Namespace, Scenario, Seen, Side};
use crate::kernel::programs::locate;

/// Programs that print what a firewall or the routing has, and their arguments; without counters, which rise by themselves.
const LISTINGS: [(&str, &[&str]); 10] = [
    ("nft", &["-a", "-s", "list", "ruleset"]),
    ("iptables-legacy-save", &[]),
    ("ip6tables-legacy-save", &[]),
    ("ip", &["-4", "route", "show", "table", "all"]),
    ("ip", &["-6", "route", "show", "table", "all"]),
    ("ip", &["-4", "rule", "show"]),
    ("ip", &["-6", "rule", "show"]),
    ("ip", &["-o", "xfrm", "policy", "list"]),
    ("tc", &["qdisc", "show"]),
    ("ip", &["neighbour", "show", "nud", "permanent"]),
];
/// What a shell answers when there is no such program.
const NOT_FOUND: i32 = 127;
/// IPv6's `ip_forward`.
const FORWARDING_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
/// Settings that the kernel itself changes with it.
const FOLLOW_FORWARDING: [&str; 2] = ["/forwarding", "/accept_redirects"];

/// Runs what the last report about the client's SYNs prints, lets the client try again, and says what is not as it must be.
pub(super) fn check(scenario: &Scenario, lab: &Lab, lines: &[Value]) -> Result<Vec<String>, LabError> {
    let Some(mended) = scenario.mended else { return Ok(Vec::new()) };
    let remedy = remedy(lines);
    if mended == Mended::Nothing {
        let opens = |line: &&&str| ["nft ", "iptables", "ip6tables"].iter().any(|tool| line.contains(tool));
        return Ok(remedy.iter().filter(opens).map(|line| format!("'{line}' would open what is closed on purpose")).collect());
    }
    let change = apply(&remedy, lab)?;
    // This one has to succeed, which may take longer than to see that nobody answers.
    let attempt = Attempt { patience: ANSWER_PATIENCE, ..scenario.attempt() };
    let again = attempt.make(lab.side(scenario.from)?)?;
    let mut problems = Vec::new();
    if again.seen != Seen::Connected {
        problems.push(format!("after '{}' the client saw '{}'", change.commands, again.seen));
    }
    problems.extend(change.beyond(mended));
    Ok(problems)
}

/// What the last report about the client's SYNs prints: against a connection that does not get on, or else against what became of the SYN.
pub(super) fn remedy(lines: &[Value]) -> Vec<&str> {
    let told = |of_type: &str| lines.iter().rfind(|line| line["type"] == of_type);
    let remedy = told("stall").map(|stall| &stall["remedy"]).or_else(|| Some(&told("journey")?["diagnosis"]["remedy"]));
    remedy.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What commands changed.
#[derive(Debug)]
pub(super) struct Change {
    /// The commands as they were run.
    pub(super) commands: String,
    /// Lines of the listings that are gone.
    gone: Vec<String>,
    /// Lines of the listings that are new.
    new: Vec<String>,
}

impl Change {
    /// What was changed more or less than the cause asks for.
    fn beyond(&self, mended: Mended) -> Option<String> {
        (self.count(&[mended]) != mended.changes()).then(|| self.told("changed more or less than the cause"))
    }

    /// What was changed more than all these causes together ask for: beside another one less may be enough.
    pub(super) fn more_than(&self, causes: &[Mended]) -> Option<String> {
        let all = causes.iter().map(|mended| mended.changes()).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        let stays = |line: &String, there: &[String]| {
            rule_of(line).is_some_and(|rule| there.iter().any(|other| rule_of(other) == Some(rule)))
        };
        let without = |these: &[String], those: &[String]| these.iter().filter(|line| !stays(line, those)).cloned().collect();
        let (gone, new) = (without(&self.gone, &self.new), without(&self.new, &self.gone));
        let (gone, new) = Self { commands: String::new(), gone, new }.count(causes);
        (gone > all.0 || new > all.1).then(|| self.told("changed more than the causes"))
    }

    /// Lines gone and lines new, but for what must follow.
    fn count(&self, causes: &[Mended]) -> (usize, usize) {
        let count = |lines: &[String]| lines.iter().filter(|line| !causes.iter().any(|mended| mended.entails(line))).count();
        (count(&self.gone), count(&self.new))
    }

    fn told(&self, what: &str) -> String {
        format!("'{}' {what}: gone {:?}, new {:?}", self.commands, self.gone, self.new)
    }
}

/// Which rule of nftables a line is, with its table: nft names the same one otherwise from time to time, as a `connlimit` of iptables.
fn rule_of(line: &str) -> Option<(&str, &str)> {
    let (table, _) = line.split_once(" { ")?;
    Some((table, line.rsplit_once(" # handle ")?.1))
}

/// Runs the commands of a report as they are printed.
pub(super) fn apply(remedy: &[&str], lab: &Lab) -> Result<Change, LabError> {
    let namespace = place_of(remedy, lab);
    let commands: Vec<String> = remedy.iter().filter_map(|line| command(line)).collect();
    let before = state_of_all(lab)?;
    for command in &commands {
        run(namespace, command)?;
    }
    let after = state_of_all(lab)?;
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| {
        these.difference(those).filter(|line| !follows_forwarding(line)).cloned().collect()
    };
    Ok(Change { commands: commands.join("; "), gone: only(&before, &after), new: only(&after, &before) })
}

/// What the printed commands must change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// They are not to change any rule: what is closed is so on purpose.
    Nothing,
    /// They take one rule or route away.
    Removed,
    /// They take so many rules away.
    RemovedAll(usize),
    /// They add so many rules.
    Added(usize),
    /// They set one value.
    Set,
    /// They set one value, and add so many rules.
    SetAndAdded(usize),
    /// They set this device up, give it an address again or have it take what it is to take: the kernel then makes routes of its own there, more or fewer by what it was
    /// built with, and some only later.
    Up(&'static str),
}

impl Mended {
    /// Lines gone and lines new.
    pub(super) fn changes(self) -> (usize, usize) {
        match self {
            Self::Removed => (1, 0),
            Self::RemovedAll(rules) => (rules, 0),
            Self::Added(rules) => (0, rules),
            Self::Set => (1, 1),
            Self::SetAndAdded(rules) => (1, 1 + rules),
            Self::Up(_) | Self::Nothing => (0, 0),
        }
    }

    /// Whether a changed line is no more than what must follow.
    fn entails(self, line: &str) -> bool {
        matches!(self, Self::Up(device) if line.contains(&format!(" dev {device} ")))
    }
}

/// The namespace where the commands belong: WSL's, unless they say another.
fn place_of<'a>(remedy: &[&str], lab: &'a Lab) -> &'a Namespace {
    let told = |namespace: &&Namespace| {
        let inode = format!(" inode {} ", namespace.inode());
        remedy.iter().any(|line| line.starts_with('#') && line.contains(&inode))
    };
    [Side::Container, Side::Backend, Side::Pod, Side::Beside]
        .into_iter()
        .filter_map(|side| lab.find(side))
        .find(told)
        .unwrap_or(&lab.wsl)
}

/// A line of the report that is a command. The lab runs as root, and `sudo` may not be there; a shell that has an `ip` or a `tc` of
/// its own, as busybox has, must take the real one.
fn command(line: &str) -> Option<String> {
    let command = line.strip_prefix("sudo ").unwrap_or(line);
    let real = command
        .split_once(' ')
        .filter(|(tool, _)| matches!(*tool, "ip" | "tc"))
        .and_then(|(tool, arguments)| Some(format!("{} {arguments}", locate(tool)?.display())));
    (!line.starts_with('#')).then(|| real.unwrap_or_else(|| command.to_owned()))
}

/// Whether a command changes nothing.
fn looks(command: &str) -> bool {
    ["| grep ", " route get ", " show"].iter().any(|words| command.contains(words))
}

fn run(namespace: &Namespace, command: &str) -> Result<(), LabError> {
    let output = namespace.run(|| {
        Command::new("sh").args(["-c", command]).output().map_err(LabError::io(format!("run '{}'", command.escape_debug())))
    })?;
    // What only looks may find nothing, or that there is no way.
    if output.status.success() || looks(command) {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().escape_debug().to_string();
    if output.status.code() == Some(NOT_FOUND) {
        return Err(LabError::Unsupported(format!("the printed command is not installed: {message}")));
    }
    Err(LabError::Tool { tool: command.to_owned(), message })
}

/// Rules, routes and settings of WSL and of what hangs behind it, a line each, with the namespace at its end.
fn state_of_all(lab: &Lab) -> Result<BTreeSet<String>, LabError> {
    let behind = [Side::Container, Side::Backend, Side::Pod, Side::Beside].into_iter().filter_map(|side| lab.find(side));
    let mut lines = BTreeSet::new();
    for namespace in std::iter::once(&lab.wsl).chain(behind) {
        lines.extend(state(namespace)?.into_iter().map(|line| format!("{line} @{}", namespace.inode())));
    }
    Ok(lines)
}

/// Rules, routes and settings of a namespace, a line each.
fn state(namespace: &Namespace) -> Result<BTreeSet<String>, LabError> {
    namespace.run(|| {
        let mut lines = BTreeSet::new();
        for (program, arguments) in LISTINGS {
            let Some(path) = locate(program) else { continue };
            let output = Command::new(&path).args(arguments).output().map_err(LabError::io(format!("run {program}")))?;
            let listed = format!("{program} {}", arguments.join(" "));
            let mut table = String::new();
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                // The same rule may stand in several tables; a chain's line of its own has its counters.
                if line.starts_with("table ") || line.starts_with('*') {
                    line.clone_into(&mut table);
                }
                if !line.starts_with(['#', ':']) {
                    // A route is that of a device whose other end comes and goes, and stays the same.
                    let line = line.trim().replace(" linkdown", "");
                    lines.insert(format!("{listed}: {table} {line}"));
                }
            }
        }
        for version in ["/proc/sys/net/ipv4", "/proc/sys/net/ipv6"] {
            match settings(Path::new(version), &mut lines) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => read.map_err(LabError::io("read the settings of the namespace"))?,
            }
        }
        Ok(lines)
    })
}

fn settings(directory: &Path, lines: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            settings(&path, lines)?;
        // Some can only be written.
        } else if let Ok(value) = fs::read_to_string(&path) {
            lines.insert(format!("{} = {}", path.display(), value.trim()));
        }
    }
    Ok(())
}

fn follows_forwarding(line: &str) -> bool {
    // A router of IPv6 answers to its networks' anycast addresses.
    line.contains(" anycast ")
        || line
            .split_once(" = ")
            .is_some_and(|(name, _)| name != FORWARDING_V6 && FOLLOW_FORWARDING.iter().any(|end| name.ends_with(end)))
}
