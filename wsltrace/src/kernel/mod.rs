//! Facts about this machine's kernel: field offsets, names of drop reasons, symbols, and whether the tool can run at all.

pub mod btf;
mod facts;

pub use facts::{Event, Events, KernelFacts, MissingField, from_btf, read};
