//! What this Linux is, and what could not be looked at.

use super::super::{Facts, Finding, Severity, Unseen};
use crate::kernel::check::Problem;
use crate::wsl::{NetworkingMode, Source, Wsl};

/// Which WSL, in which mode.
pub(super) fn mode(facts: &Facts) -> Vec<Finding> {
    let version = facts.wsl.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    match (facts.wsl.wsl, facts.wsl.mode) {
        (Wsl::No, _) => Vec::new(),
        (Wsl::One, _) => vec![
            Finding::new(Severity::Fine, "this is WSL 1: it has Windows' own network, and its servers are Windows' servers")
                .because(format!("kernel {}", facts.linux.kernel)),
        ],
        (Wsl::Two, None) => vec![
            Finding::new(
                Severity::Unknown,
                "WSL's networking mode is not known: wslinfo gave no answer, and the interfaces do not tell",
            )
            .linux("wslinfo --networking-mode"),
        ],
        (Wsl::Two, Some((NetworkingMode::None, _))) => vec![
            Finding::new(Severity::Fails, "WSL has no network: its networking mode is none")
                .because("WSL falls back to it when the network that .wslconfig asks for cannot be made")
                .powershell("wsl --shutdown")
                .powershell("# then start it again and read its warnings"),
        ],
        (Wsl::Two, Some((mode, source))) => {
            let how = match source {
                Source::Wslinfo => "wslinfo --networking-mode says so".to_owned(),
                Source::Interfaces if mode == NetworkingMode::Nat => {
                    "guessed from the interfaces, for wslinfo gave no answer: it may as well be bridged".to_owned()
                }
                Source::Interfaces => "guessed from the interfaces, for wslinfo gave no answer".to_owned(),
            };
            vec![Finding::new(Severity::Fine, format!("this is WSL{version} in {} mode", mode.name())).because(how)]
        }
    }
}

/// Whether a connection can be traced, once there is one.
pub(super) fn tracer(facts: &Facts) -> Vec<Finding> {
    let of = |problem: &Problem| {
        Finding::new(Severity::Warns, format!("wsltrace cannot trace connections here: {}", problem.message))
            .linux(format!("# {}", problem.hint))
    };
    facts.untraceable.iter().map(of).collect()
}

/// What nobody can judge because it was not seen; to others than root in one finding.
pub(super) fn unseen(facts: &Facts) -> Vec<Finding> {
    let linux = &facts.linux;
    if linux.root {
        let of = |unseen: &Unseen| {
            Finding::new(Severity::Unknown, format!("{} could not be looked at", unseen.what)).because(unseen.why.clone())
        };
        return linux.unseen.iter().map(of).collect();
    }
    let rules = facts.unread().map(|why| format!("the firewall rules: {why}"));
    let all: Vec<String> =
        rules.into_iter().chain(linux.unseen.iter().map(|unseen| format!("{}: {}", unseen.what, unseen.why))).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let finding = Finding::new(Severity::Unknown, "without root not everything could be looked at");
    let finding = all.into_iter().fold(finding, Finding::because);
    vec![finding.linux(format!("sudo wsltrace doctor --port {}", facts.port))]
}
