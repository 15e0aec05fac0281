//! Which firewall of Windows stands between other machines and the server. None of them stands between Windows itself and the server:
//! `localhost` is not filtered.

use super::entry::from_outside;
use super::mode;
use crate::doctor::{Facts, Finding, Severity};
use crate::windows::{Action, FirewallProfile, HypervRule, Told, WSL_VM_CREATOR, WindowsFacts};
use crate::wsl::NetworkingMode;

/// What is known of other machines' way to the server.
pub(in crate::doctor::checks) fn windows_firewall(facts: &Facts) -> Vec<Finding> {
    let Some(windows) = facts.windows.facts() else { return Vec::new() };
    let served = &facts.linux.listeners;
    if !served.is_empty()
        && served.iter().all(|listener| listener.address.is_loopback())
        && mode(facts) != Some(NetworkingMode::Nat)
    {
        // Other machines do not reach such a server, whatever a firewall does.
        return Vec::new();
    }
    match mode(facts) {
        Some(NetworkingMode::Mirrored) => hyperv(windows, facts.port).into_iter().collect(),
        Some(NetworkingMode::Consomme) => host(windows, facts.port).into_iter().collect(),
        // To an address of Windows itself other machines connect, in these modes, only by a portproxy.
        Some(NetworkingMode::Nat | NetworkingMode::Bridged)
            if from_outside(facts, windows).is_some_and(|entries| !entries.is_empty()) =>
        {
            host(windows, facts.port).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// What Hyper-V's firewall does with other machines' connections to a port.
pub(super) enum Inbound<'a> {
    /// It does not filter, or is not there.
    Off,
    /// It lets in what no rule is for.
    ByDefault,
    /// This rule lets it in.
    Allowed(&'a HypervRule),
    /// This rule keeps it out.
    Blocked(&'a HypervRule),
    /// It keeps out what no rule is for, and has none for the port.
    NoRule {
        /// Rules of Windows' own firewall, which were not read, may let it in.
        merges: bool,
    },
    /// Its rules decide, and could not be read.
    RulesUnread,
    /// It is not known.
    NotKnown,
}

/// What is known of that.
pub(super) fn inbound(windows: &WindowsFacts, port: u16) -> Inbound<'_> {
    let Some(firewall) = windows.hyperv_firewall.known() else { return Inbound::NotKnown };
    let Some(firewall) = firewall else { return Inbound::Off };
    match firewall.enabled {
        None => return Inbound::NotKnown,
        Some(false) => return Inbound::Off,
        Some(true) => {}
    }
    let Told::Known(rules) = &windows.hyperv_rules else { return Inbound::RulesUnread };
    let rule = |action: Action| rules.iter().find(|rule| rule.action == action && rule.covers(port));
    match (rule(Action::Block), rule(Action::Allow), firewall.inbound) {
        (Some(block), ..) => Inbound::Blocked(block),
        (None, Some(allow), _) => Inbound::Allowed(allow),
        (None, None, Action::Allow) => Inbound::ByDefault,
        (None, None, Action::Block) => Inbound::NoRule { merges: firewall.merges_host_rules != Some(false) },
        (None, None, Action::NotConfigured) => Inbound::NotKnown,
    }
}

/// In the mode mirrored Hyper-V's firewall decides.
fn hyperv(windows: &WindowsFacts, port: u16) -> Option<Finding> {
    let localhost = "connections from Windows itself are not concerned";
    let lets = |how: String| {
        let summary = format!("Hyper-V's firewall lets other machines connect to port {port}");
        Some(Finding::new(Severity::Fine, summary).because(how))
    };
    match inbound(windows, port) {
        // Windows 10 has none, which needs no words.
        Inbound::Off if windows.hyperv_firewall.known()?.is_none() => None,
        Inbound::Off => lets("it is off".to_owned()),
        Inbound::ByDefault => lets("its default for incoming connections is Allow".to_owned()),
        Inbound::Allowed(rule) => lets(format!("the rule {}", rule.name)),
        Inbound::Blocked(rule) => {
            let summary = format!("A rule of Hyper-V's firewall keeps other machines from port {port}");
            Some(
                Finding::new(Severity::Warns, summary)
                    .because(format!("the rule {}", rule.name))
                    .because(localhost)
                    .admin(format!("Get-NetFirewallHyperVRule -VMCreatorId '{WSL_VM_CREATOR}'")),
            )
        }
        Inbound::NoRule { merges } => Some(no_rule(merges, port).because(localhost)),
        Inbound::RulesUnread => {
            let summary = format!("whether Hyper-V's firewall lets other machines connect to port {port} is not known");
            Some(Finding::new(Severity::Unknown, summary).because("its rules could not be read").because(localhost))
        }
        Inbound::NotKnown => None,
    }
}

fn no_rule(merges: bool, port: u16) -> Finding {
    let unless = if merges { ", unless a rule of Windows' own firewall lets them in" } else { "" };
    let summary = format!(
        "Hyper-V's firewall keeps other machines from port {port}: it blocks by default, and has no rule for the port{unless}"
    );
    let finding = Finding::new(Severity::Warns, summary).because("DefaultInboundAction is Block in the ActiveStore");
    let finding = if merges {
        finding.because("port rules of Windows' own firewall count here too; those were not read, because that takes long")
    } else {
        finding
    };
    finding.admin(format!(
        "New-NetFirewallHyperVRule -Name wsl{port} -DisplayName wsl{port} -Direction Inbound -VMCreatorId '{WSL_VM_CREATOR}' -Protocol TCP -LocalPorts {port}"
    ))
}

/// The profiles of Windows' firewall that keep out what no rule is for; what is not configured is Windows' default, which does so.
fn blocking(profiles: &[FirewallProfile]) -> Vec<&str> {
    let blocks = |profile: &&FirewallProfile| profile.enabled != Some(false) && profile.inbound != Action::Allow;
    profiles.iter().filter(blocks).map(|profile| profile.name.as_str()).collect()
}

/// Whether Windows' own firewall is known to let other machines in at any port without a rule for that.
pub(super) fn host_lets(windows: &WindowsFacts) -> bool {
    windows.firewall_profiles.known().is_some_and(|profiles| blocking(profiles).is_empty())
}

/// Where a program of Windows takes the connections, Windows' own firewall decides; its rules were not read.
fn host(windows: &WindowsFacts, port: u16) -> Option<Finding> {
    let profiles = windows.firewall_profiles.known()?;
    let names = blocking(profiles);
    if names.is_empty() {
        let summary = format!("Windows' firewall lets other machines connect to port {port}");
        return Some(Finding::new(Severity::Fine, summary).because("no profile of it blocks incoming connections by default"));
    }
    let summary =
        format!("Other machines reach port {port} only if a rule of Windows' firewall lets them, which was not looked at");
    Some(
        Finding::new(Severity::Unknown, summary)
            .because(format!("incoming connections are blocked by default in the profiles {}", names.join(", ")))
            .because("connections from Windows itself are not concerned")
            .powershell(format!(
                "Get-NetFirewallPortFilter -Protocol TCP | Where-Object LocalPort -eq {port} | Get-NetFirewallRule"
            ))
            .admin(format!(
                "New-NetFirewallRule -DisplayName wsl{port} -Direction Inbound -Action Allow -Protocol TCP -LocalPort {port}"
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::super::samples::{changed, in_mode, listening, nat, windows};
    use super::*;
    use crate::windows::HypervFirewall;

    fn mirrored() -> Facts {
        in_mode(NetworkingMode::Mirrored, listening(nat(), &["0.0.0.0"]))
    }

    fn told(facts: &Facts) -> (Severity, String) {
        let findings = windows_firewall(facts);
        assert_eq!(findings.len(), 1);
        (findings[0].severity, findings[0].summary.clone())
    }

    #[test]
    fn a_port_without_a_rule_is_blocked_for_other_machines() {
        let findings = windows_firewall(&mirrored());
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warns));
        assert_eq!(
            findings[0].remedy[0].text,
            "New-NetFirewallHyperVRule -Name wsl8080 -DisplayName wsl8080 -Direction Inbound -VMCreatorId \
             '{40E0AC32-46A5-438A-A0B2-2B479E8F2E90}' -Protocol TCP -LocalPorts 8080"
        );
        assert!(findings[0].evidence.contains(&"connections from Windows itself are not concerned".to_owned()));
    }

    #[test]
    fn rules_and_settings_that_let_in_are_fine() {
        let rule = Facts { windows: windows(include_str!("../../../windows/transcripts/mirrored.json")), ..mirrored() };
        assert_eq!(told(&rule), (Severity::Fine, "Hyper-V's firewall lets other machines connect to port 8080".to_owned()));
        let set = |enabled, inbound| {
            let firewall = HypervFirewall { enabled, inbound, merges_host_rules: None };
            changed(mirrored(), |windows| windows.hyperv_firewall = Told::Known(Some(firewall)))
        };
        assert_eq!(told(&set(Some(true), Action::Allow)).0, Severity::Fine);
        assert_eq!(told(&set(Some(false), Action::Block)).0, Severity::Fine);
        assert!(windows_firewall(&set(None, Action::Block)).is_empty());
        assert!(windows_firewall(&set(Some(true), Action::NotConfigured)).is_empty());
    }

    #[test]
    fn a_rule_that_blocks_is_told() {
        let rule = HypervRule { name: "no".to_owned(), action: Action::Block, protocol: "TCP".to_owned(), local_ports: vec![] };
        let facts = changed(mirrored(), |windows| windows.hyperv_rules = Told::Known(vec![rule]));
        assert!(told(&facts).1.contains("A rule of Hyper-V's firewall keeps"));
        let unknown = changed(mirrored(), |windows| windows.hyperv_rules = Told::Unknown("no".to_owned()));
        assert_eq!(told(&unknown).0, Severity::Unknown);
    }

    #[test]
    fn windows_own_firewall_is_told_of_where_a_program_of_windows_listens() {
        let consomme = in_mode(NetworkingMode::Consomme, listening(nat(), &["0.0.0.0"]));
        assert_eq!(told(&consomme).0, Severity::Unknown);
        let open = changed(consomme, |windows| windows.firewall_profiles = Told::Known(vec![]));
        assert_eq!(told(&open).0, Severity::Fine);
        assert!(windows_firewall(&listening(nat(), &["0.0.0.0"])).is_empty());
        let forwarded = Facts { windows: windows(include_str!("../../../windows/transcripts/portproxy.json")), ..nat() };
        assert_eq!(told(&forwarded).0, Severity::Unknown);
    }

    #[test]
    fn windows_10_has_no_such_firewall() {
        let old = Facts { windows: windows(include_str!("../../../windows/transcripts/windows10.json")), ..mirrored() };
        assert!(windows_firewall(&old).is_empty());
    }

    #[test]
    fn a_server_on_localhost_is_out_of_reach_anyway() {
        assert!(windows_firewall(&listening(mirrored(), &["127.0.0.1"])).is_empty());
        assert_eq!(windows_firewall(&listening(mirrored(), &[])).len(), 1);
    }
}
