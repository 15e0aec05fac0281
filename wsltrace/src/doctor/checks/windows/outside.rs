//! What Windows' answers say of the table of ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::portproxy::leads_in_from_outside;
use super::relay::{Holder, holder};
use super::{is_portproxy, process};
use crate::doctor::Facts;
use crate::windows::{Action, WindowsFacts};
use crate::wsl::config::Config;
use crate::wsl::{Held, Outside};

/// What is known of Windows, as far as it decides which ways lead to the server.
pub(in crate::doctor) fn outside(facts: &Facts) -> Outside {
    let Some(windows) = facts.windows.facts() else { return Outside::default() };
    let config = windows.wslconfig.known().map(|text| Config::parse(text.as_deref().unwrap_or_default()));
    let flag = |section, key, otherwise| config.as_ref().map(|config| config.flag(section, key).unwrap_or(otherwise));
    Outside {
        forwarding: flag("wsl2", "localhostForwarding", true),
        at4: held(windows, Ipv4Addr::LOCALHOST.into()),
        at6: held(windows, Ipv6Addr::LOCALHOST.into()),
        address_loopback: flag("experimental", "hostAddressLoopback", false),
        portproxy: windows.portproxy.known().map(|_| leads_in_from_outside(facts)),
        hyper_v: hyper_v(windows, facts.port),
    }
}

fn held(windows: &WindowsFacts, loopback: IpAddr) -> Held {
    let Some(listeners) = windows.listeners.known() else { return Held::NotKnown };
    match holder(listeners, loopback) {
        Holder::Relay => Held::Relay,
        Holder::Nobody => Held::Nobody,
        Holder::Other(listener) if is_portproxy(listener) => Held::Portproxy,
        Holder::Other(listener) => Held::Program(process(listener)),
    }
}

/// Whether Hyper-V's firewall lets other machines in at a port; `None` too where rules decide that were not read.
fn hyper_v(windows: &WindowsFacts, port: u16) -> Option<bool> {
    let Some(firewall) = windows.hyperv_firewall.known()? else { return Some(true) };
    if firewall.enabled? {
        let rules = windows.hyperv_rules.known()?;
        let rule = |action: Action| rules.iter().any(|rule| rule.action == action && rule.covers(port));
        match firewall.inbound {
            _ if rule(Action::Block) => Some(false),
            _ if rule(Action::Allow) => Some(true),
            Action::Allow => Some(true),
            Action::Block if firewall.merges_host_rules == Some(false) => Some(false),
            Action::Block | Action::NotConfigured => None,
        }
    } else {
        Some(true)
    }
}
