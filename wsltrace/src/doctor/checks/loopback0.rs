//! What the modes mirrored and consomme need for Windows' localhost, which comes by `loopback0`. Distros and their firewalls set it back
//! now and then.
//!
//! Both ends of such a connection have the address 127.0.0.1, and the routing rules lead what is for it out by `loopback0`. While they
//! are there the kernel finds the way back to the source where it came from, and neither the reverse path filter nor a missing
//! `accept_local` stops anything; without the rules both do (tried on 6.18).

use super::super::{Facts, Finding, Linux, Severity};
use crate::wsl::NetworkingMode;

/// Whether the interface, its settings and its routes are there.
pub(super) fn loopback0(facts: &Facts) -> Vec<Finding> {
    if !matches!(facts.mode(), Some(NetworkingMode::Mirrored | NetworkingMode::Consomme)) {
        return Vec::new();
    }
    let linux = &facts.linux;
    let mut found = Vec::new();
    match linux.interface("loopback0") {
        None => {
            return vec![
                Finding::new(
                    Severity::Fails,
                    "the interface loopback0 is missing, by which Windows' localhost comes in this mode",
                )
                .powershell("wsl --shutdown"),
            ];
        }
        Some(interface) if !interface.up => found.push(
            Finding::new(
                Severity::Fails,
                "the interface loopback0 is switched off, by which Windows' localhost comes in this mode",
            )
            .linux("sudo ip link set loopback0 up"),
        ),
        Some(_) => {}
    }
    found.extend(settings(linux));
    if linux.loopback_rules == Some(false) {
        found.push(
            Finding::new(
                Severity::Fails,
                "answers to Windows' localhost stay in this Linux: the routing rules of mirrored mode are gone",
            )
            .because("ip rule has no rule that leads to table 127")
            .powershell("wsl --shutdown"),
        );
    }
    if found.is_empty() {
        found.push(Finding::new(Severity::Fine, "loopback0, its settings and its routes are as this mode needs them"));
    }
    found
}

fn settings(linux: &Linux) -> Vec<Finding> {
    const LOST: &str = "packets from Windows' localhost are dropped";
    let setting = |place: &str, key: &str| linux.number(&format!("net.ipv4.conf.{place}.{key}"));
    let is_off = |key| setting("all", key) == Some(0) && setting("loopback0", key) == Some(0);
    let ruled = linux.loopback_rules != Some(false);
    let mut found = Vec::new();
    // The kernel takes the larger of the two; for the others either is enough.
    let filters: Vec<&str> = ["all", "loopback0"].into_iter().filter(|place| setting(place, "rp_filter") == Some(1)).collect();
    if !filters.is_empty() {
        let all = |sign: &str| filters.iter().map(|place| format!("net.ipv4.conf.{place}.rp_filter{sign}")).collect::<Vec<_>>();
        let summary = if ruled {
            "the reverse path filter (rp_filter) is on, which WSL switches off in this mode".to_owned()
        } else {
            format!("{LOST} by the reverse path filter (rp_filter)")
        };
        let finding = Finding::new(severity(ruled), summary).because(all(" = 1").join(", "));
        found.push(excused(finding, ruled).linux(format!("sudo sysctl -w {}", all("=0").join(" "))));
    }
    let set = |finding: Finding, key: &str| {
        finding
            .because(format!("net.ipv4.conf.loopback0.{key} = 0"))
            .linux(format!("sudo sysctl -w net.ipv4.conf.loopback0.{key}=1"))
    };
    if is_off("accept_local") {
        let summary = if ruled {
            "packets from an address of this Linux itself are not let in (accept_local), which WSL allows in this mode".to_owned()
        } else {
            format!("{LOST}: this Linux takes none with an address of its own (accept_local)")
        };
        found.push(excused(set(Finding::new(severity(ruled), summary), "accept_local"), ruled));
    }
    if is_off("route_localnet") {
        let summary = format!("{LOST}: 127.0.0.1 is not let in from outside (route_localnet)");
        found.push(set(Finding::new(Severity::Fails, summary), "route_localnet"));
    }
    found
}

fn severity(ruled: bool) -> Severity {
    if ruled { Severity::Warns } else { Severity::Fails }
}

/// Says what saves a setting that is not as it should be.
fn excused(finding: Finding, ruled: bool) -> Finding {
    if !ruled {
        return finding;
    }
    finding.because("Windows' localhost passes all the same, as long as the routing rules of this mode are there")
}

/// Why nothing that comes by `loopback0` is answered, when that is so.
pub(in crate::doctor) fn stopped_at_loopback0(facts: &Facts) -> Option<String> {
    loopback0(facts).into_iter().find(|finding| finding.severity == Severity::Fails).map(|finding| finding.summary)
}
