//! Facts about this machine's kernel: field offsets, names of drop reasons, symbols, namespaces, interfaces, and whether the
//! tool can run at all.

pub mod addresses;
pub mod btf;
pub mod check;
pub(crate) mod command;
pub mod config;
pub mod containers;
mod facts;
pub mod filters;
pub mod links;
pub mod names;
pub mod neighbours;
pub(crate) mod netlink;
pub mod netns;
pub mod person;
pub(crate) mod processes;
pub mod programs;
pub mod symbols;
pub mod vlans;

pub use facts::{Event, Events, KernelFacts, MissingField, from_btf, read};

/// Says that a test could not run, in the one form that is counted.
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a skipped test says so where the test runner looks")]
pub(crate) fn skip(test: &str, reason: &str) {
    println!("SKIP: {test}: {reason}");
}
