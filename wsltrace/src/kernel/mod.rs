//! Facts about this machine's kernel: field offsets, names of drop reasons, symbols, namespaces, interfaces, and whether the
//! tool can run at all.

pub mod btf;
mod facts;
pub mod links;
pub(crate) mod netlink;
pub mod netns;

pub use facts::{Event, Events, KernelFacts, MissingField, from_btf, read};
