//! How many files the probes take: programs, maps and links are descriptors each, and a limit of open files is to be known too low before
//! it is met halfway.

use super::table::{ACCEPT, POSITIONS, SENT_AGAIN, TRACEPOINTS};

/// Programs beside those of positions and tracepoints: four of tc, the socket lookup, `collect` and `list_hooks`.
const OTHER_PROGRAMS: usize = 7;
/// Maps, each held by aya and by us, and the types that belong to them.
const MAPS_AND_TYPES: usize = 40;

/// The most files that are open while probes are loaded, and after, in so many namespaces with so many interfaces in all. Fewer where
/// nothing else is hooked in.
pub fn most_descriptors(namespaces: usize, interfaces: usize) -> usize {
    let tracing = TRACEPOINTS.len() + [SENT_AGAIN.name, ACCEPT].len();
    let programs = POSITIONS.len() + tracing + OTHER_PROGRAMS;
    // A position has a link for each family, an interface one for each direction, and a namespace one for the lookup and a handle.
    let links = tracing + namespaces * (2 * POSITIONS.len() + 2) + 2 * interfaces;
    MAPS_AND_TYPES + programs + links
}
