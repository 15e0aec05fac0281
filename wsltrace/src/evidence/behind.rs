//! Where packets go on to from a namespace: into containers behind its bridges, and to where DNAT rules send.

use std::io;

use super::rules::dnat_targets;
use crate::kernel::links::{Behind, container_namespaces, namespaces_toward};
use crate::kernel::netns::Netns;

/// The namespaces that packets are to be followed into.
pub fn namespaces_behind(netns: &Netns) -> io::Result<Behind> {
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
