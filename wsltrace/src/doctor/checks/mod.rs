//! The checks, in the order in which equally bad findings are told. A check is a function in one of the files here and a row of
//! [`CHECKS`].

mod config;
#[cfg(test)]
mod container_tests;
mod firewall;
mod listener;
mod loopback0;
mod names;
mod neighbours;
mod one_address;
mod proxy;
#[cfg(test)]
mod proxy_tests;
mod published;
mod routing;
#[cfg(test)]
mod server_tests;
mod setting;
mod several;
#[cfg(test)]
mod tests;
mod tunnel;
#[cfg(test)]
mod uncertain_tests;
mod ways;
mod windows;

pub(super) use loopback0::stopped_at_loopback0;
pub(super) use ways::untold;
pub(super) use windows::outside;

use super::{Facts, Finding};

/// One check.
pub struct Check {
    /// Its name in the report.
    pub name: &'static str,
    /// What it finds; nothing where it has nothing to say.
    pub judge: fn(&Facts) -> Vec<Finding>,
}

/// All of them.
pub const CHECKS: &[Check] = &[
    Check { name: "mode", judge: setting::mode },
    Check { name: "listener", judge: listener::listening },
    Check { name: "bind", judge: listener::bind },
    Check { name: "listener_address", judge: listener::address },
    Check { name: "listener_owner", judge: listener::unseen_owner },
    Check { name: "accept_queue", judge: listener::accept_queue },
    Check { name: "firewall", judge: firewall::firewall },
    Check { name: "neighbours", judge: neighbours::neighbours },
    Check { name: "forwarding", judge: firewall::forwarding },
    Check { name: "container", judge: firewall::containers },
    Check { name: "firewall_managers", judge: firewall::managers },
    Check { name: "two_firewalls", judge: firewall::two_worlds },
    Check { name: "firewall_unread", judge: firewall::unread },
    Check { name: "docker", judge: listener::docker },
    Check { name: "published", judge: published::localhost },
    Check { name: "network", judge: routing::network },
    Check { name: "own_routing", judge: routing::own },
    Check { name: "loopback0", judge: loopback0::loopback0 },
    Check { name: "relay", judge: windows::relay },
    Check { name: "excluded_range", judge: windows::excluded_range },
    Check { name: "portproxy", judge: windows::portproxy },
    Check { name: "mode_fell_back", judge: windows::mode_fell_back },
    Check { name: "config", judge: config::config },
    Check { name: "address_match", judge: windows::address_match },
    Check { name: "windows_firewall", judge: windows::windows_firewall },
    Check { name: "windows_unavailable", judge: windows::windows_unavailable },
    Check { name: "xdp", judge: routing::xdp },
    Check { name: "programs", judge: routing::programs },
    Check { name: "tunnel", judge: tunnel::refused },
    Check { name: "conntrack", judge: routing::conntrack },
    Check { name: "localhost", judge: names::localhost },
    Check { name: "dns", judge: names::dns },
    Check { name: "tracer", judge: setting::tracer },
    Check { name: "unseen", judge: setting::unseen },
];
