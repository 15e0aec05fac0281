//! What is wrong in WSL's configuration files, and which of their settings bear on the port.

use super::windows::{carried_by_relay, mode, relay_listens};
use crate::doctor::{Facts, Finding, Severity};
use crate::windows::Told;
use crate::wsl::config::{ConfigFile, ConfigProblem, Hint, lint};
use crate::wsl::{NetworkingMode, Wsl};

/// The problems of `/etc/wsl.conf` and `.wslconfig`, and a `.wslconfig` under a wrong name.
pub(super) fn config(facts: &Facts) -> Vec<Finding> {
    if facts.wsl.wsl != Wsl::Two {
        return Vec::new();
    }
    let windows = facts.windows.facts();
    let wslconfig = windows.and_then(|windows| windows.wslconfig.known()).and_then(|text| text.as_deref());
    let files = [(ConfigFile::WslConfig, wslconfig), (ConfigFile::WslConf, facts.wsl.conf.as_deref())];
    let problems = files.into_iter().flat_map(|(which, text)| lint(which, text.unwrap_or_default(), facts.port));
    let mut findings: Vec<Finding> = problems.map(|problem| finding(facts, &problem)).collect();
    if windows.is_some_and(|windows| windows.wslconfig_txt == Told::Known(true) && windows.wslconfig == Told::Known(None)) {
        findings.push(
            Finding::new(Severity::Warns, "WSL's settings were saved as .wslconfig.txt, which WSL does not read")
                .because("%UserProfile% has a file .wslconfig.txt and no file .wslconfig")
                .powershell("Rename-Item -LiteralPath \"$env:USERPROFILE\\.wslconfig.txt\" -NewName .wslconfig")
                .powershell("wsl --shutdown"),
        );
    }
    findings
}

fn finding(facts: &Facts, problem: &ConfigProblem) -> Finding {
    let finding = Finding::new(severity(facts, problem), problem.what.clone()).because(format!(
        "{}, line {}",
        problem.file.name(),
        problem.line
    ));
    let belongs = problem.belongs.name();
    if finding.severity == Severity::Fine {
        return finding;
    }
    let finding = match problem.corrected.as_slice() {
        [] => return finding,
        [line] if problem.belongs == problem.file => {
            let text = format!("# {belongs}, line {}, should be: {line}", problem.line);
            written(finding, problem.belongs, text)
        }
        [section, lines @ ..] if problem.belongs == problem.file => {
            let text = format!("# {belongs}, line {}, belongs under {section}: {}", problem.line, lines.join("; "));
            written(finding, problem.belongs, text)
        }
        lines => written(finding, problem.belongs, format!("# {belongs} should have: {}", lines.join(" "))),
    };
    finding.powershell("wsl --shutdown")
}

/// Adds what to write, and what opens the file.
fn written(finding: Finding, file: ConfigFile, text: String) -> Finding {
    match file {
        ConfigFile::WslConf => finding.linux(text).linux("sudoedit /etc/wsl.conf"),
        ConfigFile::WslConfig => finding.powershell(text).powershell("notepad \"$env:USERPROFILE\\.wslconfig\""),
    }
}

/// A setting fails connections only where the mode is one that it applies to, and only when it is in force, which the file cannot
/// tell: it may have been written after WSL's start.
fn severity(facts: &Facts, problem: &ConfigProblem) -> Severity {
    use NetworkingMode::{Bridged, Consomme, Mirrored, Nat};
    let key = problem.key.as_deref().unwrap_or_default();
    let mode = mode(facts);
    match problem.hint {
        Hint::Information => Severity::Fine,
        Hint::Suspicious => Severity::Warns,
        Hint::WillFail => match (key, mode) {
            ("wsl2.localhostforwarding", Some(Mirrored | Consomme | NetworkingMode::None))
            | ("experimental.ignoredports", Some(Nat | Bridged | NetworkingMode::None)) => Severity::Fine,
            ("wsl2.localhostforwarding", Some(Nat | Bridged))
                if carried_by_relay(facts).any() && relay_listens(facts) == Some(false) =>
            {
                Severity::Fails
            }
            (_, Some(NetworkingMode::None)) if !facts.linux.listeners.is_empty() => Severity::Fails,
            _ => Severity::Warns,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::windows::samples::{listening, nat, relay_on, with_wslconfig};
    use super::*;
    use crate::windows::Windows;
    use crate::wsl::Source;

    #[test]
    fn each_problem_is_told_with_its_line_and_its_correction() {
        let facts = with_wslconfig(nat(), "[wsl2]\nnetworkMode=mirrored\n");
        let findings = config(&facts);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].severity, Severity::Warns);
        assert_eq!(findings[0].evidence, [".wslconfig, line 2"]);
        assert_eq!(findings[0].remedy[0].text, "# .wslconfig, line 2, should be: networkingMode=mirrored");
        assert_eq!(findings[0].remedy.last().map(|line| line.text.as_str()), Some("wsl --shutdown"));
    }

    #[test]
    fn a_networking_mode_in_wsl_conf_is_sent_to_the_other_file() {
        let mut facts = nat();
        facts.wsl.conf = Some("[network]\nnetworkingMode=mirrored\n".to_owned());
        let findings = config(&facts);
        assert_eq!(findings[0].evidence, ["/etc/wsl.conf, line 2"]);
        assert_eq!(findings[0].remedy[0].text, "# .wslconfig should have: [wsl2] networkingMode=mirrored");
    }

    #[test]
    fn a_relay_that_is_off_fails_only_where_it_is_needed_and_seen_to_be_off() {
        let off = |facts| config(&with_wslconfig(facts, "[wsl2]\nlocalhostForwarding=false\n"))[0].severity;
        assert_eq!(off(listening(nat(), &["0.0.0.0"])), Severity::Fails);
        assert_eq!(off(relay_on(listening(nat(), &["0.0.0.0"]), &["127.0.0.1"])), Severity::Warns);
        assert_eq!(off(nat()), Severity::Warns);
        let mut mirrored = listening(nat(), &["0.0.0.0"]);
        mirrored.wsl.mode = Some((NetworkingMode::Mirrored, Source::Wslinfo));
        assert_eq!(off(mirrored), Severity::Fine);
    }

    #[test]
    fn ignored_ports_matter_in_mirrored_mode() {
        let text = "[experimental]\nignoredPorts=8080\n";
        assert_eq!(config(&with_wslconfig(nat(), text))[0].severity, Severity::Fine);
        let mut mirrored = with_wslconfig(nat(), text);
        mirrored.wsl.mode = Some((NetworkingMode::Mirrored, Source::Wslinfo));
        assert_eq!(config(&mirrored)[0].severity, Severity::Warns);
    }

    #[test]
    fn a_file_with_a_wrong_name_is_told() {
        let mut facts = nat();
        if let Windows::Facts(windows) = &mut facts.windows {
            windows.wslconfig_txt = Told::Known(true);
        }
        assert_eq!(config(&facts).len(), 1);
        assert!(config(&Facts::default()).is_empty());
    }
}
