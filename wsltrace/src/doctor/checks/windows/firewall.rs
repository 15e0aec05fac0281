//! Which firewall of Windows stands between other machines and the server. None of them stands between Windows itself and the server:
//! `localhost` is not filtered.

use super::mode;
use super::portproxy::from_other_machines;
use crate::doctor::{Facts, Finding, Severity};
use crate::windows::{Action, FirewallProfile, HypervFirewall, Told, WSL_VM_CREATOR, WindowsFacts};
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
        // In the mode nat other machines reach the server by a portproxy only.
        Some(NetworkingMode::Nat) if from_other_machines(facts) => host(windows, facts.port).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// In the mode mirrored Hyper-V's firewall decides.
fn hyperv(windows: &WindowsFacts, port: u16) -> Option<Finding> {
    let firewall = windows.hyperv_firewall.known()?.as_ref()?;
    let localhost = "connections from Windows itself are not concerned";
    if firewall.enabled == Some(false) || firewall.inbound == Action::Allow && !blocked(windows, port) {
        let how = if firewall.enabled == Some(false) { "it is off" } else { "its default for incoming connections is Allow" };
        let summary = format!("Hyper-V's firewall lets other machines connect to port {port}");
        return Some(Finding::new(Severity::Fine, summary).because(how));
    }
    if firewall.enabled.is_none() || firewall.inbound == Action::NotConfigured && !blocked(windows, port) {
        return None;
    }
    let Told::Known(rules) = &windows.hyperv_rules else {
        let summary =
            format!("Hyper-V's firewall blocks other machines by default, and its rules for port {port} could not be read");
        return Some(Finding::new(Severity::Unknown, summary).because(localhost));
    };
    let rule = |action: Action| rules.iter().find(|rule| rule.action == action && rule.covers(port));
    if let Some(block) = rule(Action::Block) {
        let summary = format!("A rule of Hyper-V's firewall keeps other machines from port {port}");
        return Some(
            Finding::new(Severity::Warns, summary)
                .because(format!("the rule {}", block.name))
                .because(localhost)
                .admin(format!("Get-NetFirewallHyperVRule -VMCreatorId '{WSL_VM_CREATOR}'")),
        );
    }
    if let Some(allow) = rule(Action::Allow) {
        let summary = format!("Hyper-V's firewall lets other machines connect to port {port}");
        return Some(Finding::new(Severity::Fine, summary).because(format!("the rule {}", allow.name)));
    }
    Some(no_rule(firewall, port).because(localhost))
}

fn blocked(windows: &WindowsFacts, port: u16) -> bool {
    windows.hyperv_rules.known().is_some_and(|rules| rules.iter().any(|rule| rule.action == Action::Block && rule.covers(port)))
}

fn no_rule(firewall: &HypervFirewall, port: u16) -> Finding {
    let summary =
        format!("Hyper-V's firewall keeps other machines from port {port}: it blocks by default, and has no rule for the port");
    let finding = Finding::new(Severity::Warns, summary).because("DefaultInboundAction is Block in the ActiveStore");
    let finding = if firewall.merges_host_rules == Some(false) {
        finding
    } else {
        finding.because("port rules of Windows' own firewall count here too; those were not read, because that takes long")
    };
    finding.admin(format!(
        "New-NetFirewallHyperVRule -Name wsl{port} -DisplayName wsl{port} -Direction Inbound -VMCreatorId '{WSL_VM_CREATOR}' -Protocol TCP -LocalPorts {port}"
    ))
}

/// Where a program of Windows takes the connections, Windows' own firewall decides; its rules were not read.
fn host(windows: &WindowsFacts, port: u16) -> Option<Finding> {
    let profiles = windows.firewall_profiles.known()?;
    // What is not configured is Windows' default, which blocks.
    let blocks = |profile: &&FirewallProfile| profile.enabled != Some(false) && profile.inbound != Action::Allow;
    let names: Vec<&str> = profiles.iter().filter(blocks).map(|profile| profile.name.as_str()).collect();
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
    use crate::windows::HypervRule;

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
