//! The program to which a tun or tap device hands what is sent by it, as those of VPNs: what it does with a packet no kernel tells.

use std::fs;
use std::ops::ControlFlow;
use std::time::Duration;

use procfs::process::FDTarget;
use serde::{Deserialize, Serialize};

use super::Evidence;
use super::told::OrTold as _;
use super::watched::Watched;
use crate::journey::{Journey, Outcome, Stage};
use crate::kernel::links::list_links;
use crate::kernel::processes;

/// Longest time that the search may take; without it the device is told without its program.
const LIMIT: Duration = Duration::from_secs(1);
/// What the devices are opened by.
const TUN: &str = "/dev/net/tun";

/// A tun or tap device by which a packet left, and who has it open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handed {
    /// The device.
    pub device: String,
    /// The process, and its name as the kernel has it; `None` where none is seen, or more than one has such a device open.
    pub holder: Option<(u32, String)>,
}

impl Watched {
    /// The program to which a packet was handed that was not seen again.
    pub(super) fn add_handed(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let is_full = journey.outcome == Outcome::Dropped && journey.reason.as_deref() == Some("FULL_RING");
        let is_of_syn = is_full || journey.outcome == Outcome::Unfinished && journey.answer.is_none();
        let last = journey.stages.last().filter(|visit| visit.stage == Stage::TcEgress && visit.netns == self.netns.inum());
        let Some(device) = last.and_then(|visit| visit.interface).filter(|_| is_of_syn) else {
            return;
        };
        let inum = self.netns.inum();
        let netns = &self.netns;
        let look = || {
            let links = list_links(netns)?;
            let is_tun = links.iter().any(|link| link.name == *device && link.kind.as_deref() == Some("tun"));
            Ok(is_tun.then(|| Handed { device: device.to_string(), holder: only_holder(&device, inum) }))
        };
        let found = self.handed.entry(device).or_default().get(look).or_told(inum, "look at the devices").cloned();
        evidence.handed = found.flatten();
    }
}

/// The one process that has a device of this name open. Of several the one in its namespace: other namespaces may have one of the same name.
fn only_holder(device: &str, netns: u32) -> Option<(u32, String)> {
    let mut holders = Vec::new();
    let all = processes::each(LIMIT, |process| {
        let is_of = |fd: procfs::process::FDInfo| {
            matches!(&fd.target, FDTarget::Path(path) if path.as_os_str() == TUN)
                && fs::read_to_string(format!("/proc/{}/fdinfo/{}", process.pid, fd.fd)).is_ok_and(|info| holds(&info, device))
        };
        if process.fd().into_iter().flatten().flatten().any(is_of)
            && let Some(named) = processes::named(&process)
        {
            holders.push((processes::is_in(&process, netns), named));
        }
        ControlFlow::Continue(())
    });
    if !all {
        log::warn!("not all processes could be looked at within {} ms: {device} is told without its program", LIMIT.as_millis());
        return None;
    }
    the_one(holders)
}

/// The only one, or the only one that is here.
fn the_one(mut holders: Vec<(bool, (u32, String))>) -> Option<(u32, String)> {
    if holders.len() > 1 {
        holders.retain(|(is_here, _)| *is_here);
    }
    holders.pop().filter(|_| holders.is_empty()).map(|(_, holder)| holder)
}

/// Whether what the kernel tells of an open file (`fdinfo`) is that it holds this device.
fn holds(info: &str, device: &str) -> bool {
    info.lines().any(|line| line.strip_prefix("iff:\t").is_some_and(|name| name.trim_end() == device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_an_open_file_is_read() {
        let info = "pos:\t0\nflags:\t0104002\nmnt_id:\t27\nino:\t84\niff:\ttun0\n";
        assert!(holds(info, "tun0") && !holds(info, "tun") && !holds("iff:\ttun01\n", "tun0") && !holds("", "tun0"));
    }

    #[test]
    fn of_several_holders_only_one_that_is_here_is_told() {
        let holder = |is_here, pid| (is_here, (pid, "openvpn".to_owned()));
        let found = |holders: &[(bool, (u32, String))]| the_one(holders.to_vec()).map(|(pid, _)| pid);
        assert_eq!(found(&[holder(false, 7)]), Some(7));
        assert_eq!(found(&[holder(false, 7), holder(true, 8)]), Some(8));
        assert_eq!(found(&[holder(true, 7), holder(true, 8)]), None);
        assert_eq!(found(&[holder(false, 7), holder(false, 8)]), None);
        assert_eq!(found(&[]), None);
    }
}
