//! The namespaces of containers that packets are followed into: found, kept up as their interfaces come and go, and let go of when
//! their containers have ended. A namespace lives as long as anybody has it open: kept on, a dead container's would stay, and its veth on
//! the bridge.

use super::session::Session;
use crate::causes::{reason, with_causes};
use crate::command::Failure;
use crate::command::reporter::Job;
use crate::evidence::{Scope, namespaces_behind};
use crate::kernel::links::{ARPHRD_LOOPBACK, Link, list_links};
use crate::kernel::netns::Netns;
use crate::probe::{ProbeError, Role};

/// A namespace that packets are followed into.
pub(super) struct Followed {
    netns: Netns,
    /// Its interfaces, as they were last seen.
    links: Vec<Link>,
}

impl Session {
    /// Attaches in the namespaces of containers that are not followed yet, and to interfaces in the others that have come up since.
    pub(super) fn follow_containers(&mut self) -> Result<(), Failure> {
        let behind = namespaces_behind(&self.netns)?;
        for joined in behind.joined {
            let netns = joined.netns;
            if netns == self.netns || self.followed.iter().any(|followed| followed.netns == netns) {
                continue;
            }
            self.send(Job::Watch(netns.clone()));
            if let Err(error) = self.probes.attach_namespace(&netns, Role::Followed) {
                warn_not_followed(&netns, &error);
                self.probes.detach_namespace(netns.inum())?;
                self.send(Job::Forget(netns.inum()));
                continue;
            }
            self.followed.push(Followed { netns, links: Vec::new() });
        }
        for interface in behind.hidden {
            log::debug!("the namespace behind {interface} is not visible here: packets are not followed into it");
        }
        let mut followed = std::mem::take(&mut self.followed);
        for followed in &mut followed {
            self.keep_up(followed);
        }
        self.followed = followed;
        Ok(())
    }

    /// Attaches to interfaces that have come up; not to `lo`, by which nothing goes that came in from elsewhere. Each costs about 20 ms
    /// before `armed`: the kernel waits, for all others as well, until nobody runs the old list of programs (`tcx_entry_sync`, 6.18).
    fn keep_up(&mut self, followed: &mut Followed) {
        let netns = &followed.netns;
        let links = match list_links(netns) {
            Ok(links) if links == followed.links => return,
            Ok(links) => links,
            Err(error) => {
                return log::warn!("cannot list the interfaces of the network namespace {}: {}", netns.label(), reason(&error));
            }
        };
        self.send(Job::Links(netns.inum(), links.clone()));
        self.probes.keep_interfaces(netns, &links);
        let up: Vec<Link> = links.iter().filter(|link| link.up && link.arphrd != ARPHRD_LOOPBACK).cloned().collect();
        if let Err(error) = self.probes.attach_interfaces(netns, &up) {
            warn_not_followed(netns, &error);
        }
        if self.named_ports.is_some() {
            let devices = up.into_iter().map(|link| link.name).collect();
            self.send(Job::Firewalls(netns.inum(), Scope { ports: None, devices }));
        }
        followed.links = links;
    }

    /// Lets go of the namespaces that nobody else is in any longer.
    pub(super) fn let_go_of_the_dead(&mut self) -> Result<(), Failure> {
        let (alive, dead): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.followed).into_iter().partition(|followed| followed.netns.is_shown());
        self.followed = alive;
        for followed in dead {
            let inum = followed.netns.inum();
            self.probes.detach_namespace(inum)?;
            self.send(Job::Forget(inum));
        }
        Ok(())
    }
}

fn warn_not_followed(netns: &Netns, error: &ProbeError) {
    log::warn!("packets are not followed everywhere in the network namespace {}: {}", netns.label(), with_causes(error));
}
