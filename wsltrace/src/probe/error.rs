//! Why tracing cannot begin, or cannot go on.

use super::object::ObjectError;
use crate::kernel::netns::NetnsError;

/// Why tracing cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel side could not be loaded.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The kernel refused a program that nothing works without.
    #[error("cannot load the probe {probe}")]
    Program {
        /// The probe.
        probe: &'static str,
        /// Why.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// A probe could not be attached.
    #[error("cannot attach {probe} in the network namespace {netns}")]
    Attach {
        /// The probe and where to.
        probe: String,
        /// The namespace.
        netns: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel lacks an event that nothing works without.
    #[error("this kernel has no trace event {0} that a program can listen to")]
    Event(&'static str),
    /// A program could not be put on an event that nothing works without.
    #[error("cannot listen to the trace event {probe}")]
    Trace {
        /// The event.
        probe: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A map could not be used.
    #[error("cannot use the map {map}")]
    Map {
        /// The map.
        map: &'static str,
        /// Why.
        #[source]
        source: aya::maps::MapError,
    },
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The table of journeys could not be read.
    #[error("cannot read the table of journeys")]
    Sweep(#[source] std::io::Error),
    /// What the kernel left out is not known.
    #[error("cannot ask the kernel how many events it left out")]
    Misses(#[source] std::io::Error),
    /// What is hooked into netfilter is not known.
    #[error("cannot ask the kernel what is hooked into netfilter")]
    Hooks(#[source] std::io::Error),
    /// A program run by hand failed.
    #[error("cannot collect an overdue journey from the kernel")]
    Collect(#[source] std::io::Error),
}

/// The object lacks something of this name: it and this program were not built together.
pub(super) fn absent(what: &str) -> ObjectError {
    ObjectError::Mismatch(what.to_owned())
}
