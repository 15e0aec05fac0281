//! WSL asks for one networking mode and takes another where Windows cannot give it: one line says so, at WSL's start.

use super::mode;
use crate::doctor::{Facts, Finding, Severity};
use crate::wsl::config::Config;
use crate::wsl::{NetworkingMode, Source};

/// The mode that `.wslconfig` asks for is not the one that WSL runs in.
pub(in crate::doctor::checks) fn mode_fell_back(facts: &Facts) -> Vec<Finding> {
    let text = facts.windows.facts().and_then(|windows| windows.wslconfig.known()).and_then(|text| text.as_deref());
    let (Some(running), Some(text)) = (mode(facts), text) else { return Vec::new() };
    let config = Config::parse(text);
    let Some(asked) = config.networking_mode().and_then(NetworkingMode::parse) else { return Vec::new() };
    let guessed = facts.wsl.mode.is_some_and(|(_, source)| source == Source::Interfaces);
    // The interfaces look the same in these two.
    let alike = guessed && [asked, running].iter().all(|mode| matches!(mode, NetworkingMode::Nat | NetworkingMode::Bridged));
    if asked == running || alike {
        return Vec::new();
    }
    let says = if guessed { "the interfaces look like the mode" } else { "wslinfo --networking-mode says" };
    let mut finding = Finding::new(
        Severity::Warns,
        format!(".wslconfig asks for the networking mode {}, but WSL runs in the mode {}", asked.name(), running.name()),
    )
    .because(format!("{says} {}", running.name()))
    .because("either WSL fell back because Windows could not give it the mode, or .wslconfig was changed after WSL's start");
    if asked == NetworkingMode::Mirrored {
        finding = finding.because("the mode mirrored needs Windows 11 22H2 or later");
        if let Some(version) = facts.windows.facts().and_then(|windows| windows.version.known()) {
            finding = finding.because(format!("this Windows has the build {}; 22H2 is 22621", version.build));
        }
    }
    vec![finding.powershell("wsl --shutdown").powershell("# then start WSL again and read the line that begins with wsl:")]
}

#[cfg(test)]
mod tests {
    use super::super::samples::{in_mode, nat, with_wslconfig};
    use super::*;

    #[test]
    fn another_mode_than_the_one_asked_for_is_told() {
        let facts = with_wslconfig(nat(), "[wsl2]\nnetworkingMode=Mirrored\n");
        let findings = mode_fell_back(&facts);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].summary, ".wslconfig asks for the networking mode mirrored, but WSL runs in the mode nat");
        assert_eq!(findings[0].evidence.last().map(String::as_str), Some("this Windows has the build 22631; 22H2 is 22621"));
        assert_eq!(findings[0].severity, Severity::Warns);
    }

    #[test]
    fn the_mode_that_was_asked_for_is_not() {
        assert!(mode_fell_back(&with_wslconfig(nat(), "[wsl2]\nnetworkingMode=NAT\n")).is_empty());
        assert!(mode_fell_back(&with_wslconfig(nat(), "[wsl2]\nnetworkingMode=quux\n")).is_empty());
        assert!(mode_fell_back(&with_wslconfig(nat(), "[wsl2]\n")).is_empty());
        assert!(mode_fell_back(&nat()).is_empty());
        let old_name = in_mode(NetworkingMode::Consomme, with_wslconfig(nat(), "[wsl2]\nnetworkingMode=virtioproxy\n"));
        assert!(mode_fell_back(&old_name).is_empty());
        let mut guessed = with_wslconfig(nat(), "[wsl2]\nnetworkingMode=bridged\n");
        assert_eq!(mode_fell_back(&guessed).len(), 1);
        guessed.wsl.mode = Some((NetworkingMode::Nat, Source::Interfaces));
        assert!(mode_fell_back(&guessed).is_empty());
    }
}
