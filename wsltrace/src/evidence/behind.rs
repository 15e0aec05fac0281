//! Where packets go on to from a namespace: into containers behind its bridges or on its own interfaces (macvlan, ipvlan), to where DNAT
//! rules send, and from there into the containers of containers (kind, k3d, Docker in Docker).

use std::io;

use super::rules::dnat_targets;
use crate::kernel::containers::{Behind, container_namespaces, namespaces_toward, namespaces_upon};
use crate::kernel::netns::Netns;

/// How many namespaces are looked behind, the nearest first: a cluster on one machine has some dozens.
const LOOKED_BEHIND: usize = 64;

/// The namespaces that packets are to be followed into.
pub fn namespaces_behind(netns: &Netns) -> io::Result<Behind> {
    let mut behind = namespaces_next_to(netns)?;
    // Every namespace is asked for these, so only what stands on the traced one's interfaces is looked for.
    behind.joined.extend(namespaces_upon(netns)?);
    let mut looked = 0;
    while let Some(joined) = behind.joined.get(looked).filter(|_| looked < LOOKED_BEHIND) {
        looked += 1;
        match namespaces_next_to(&joined.netns) {
            Ok(further) => {
                let is_new = |new: &Netns| new != netns && behind.joined.iter().all(|known| known.netns != *new);
                let new: Vec<_> = further.joined.into_iter().filter(|further| is_new(&further.netns)).collect();
                behind.joined.extend(new);
                behind.hidden.extend(further.hidden);
            }
            // It may have ended just now.
            Err(error) => log::debug!("cannot look behind network namespace {}: {error}", joined.netns.label()),
        }
    }
    Ok(behind)
}

/// Those behind its own bridges and to which its own rules lead.
pub fn namespaces_next_to(netns: &Netns) -> io::Result<Behind> {
    let mut behind = container_namespaces(netns)?;
    match dnat_targets(netns) {
        Ok(targets) if targets.is_empty() => {}
        Ok(targets) => {
            let toward = namespaces_toward(netns, &targets)?;
            behind.joined.extend(toward.joined);
            behind.hidden.extend(toward.hidden);
        }
        Err(error) => log::warn!("cannot tell where DNAT leads to: {error}"),
    }
    Ok(behind)
}
