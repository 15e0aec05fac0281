//! wsltrace: says where a connection attempt into WSL2 dies, who did it, and what to type. The binary is a thin shell around
//! this library; the end-to-end tests use its lab.

// What the fuzzer and a unit test share names this crate from outside.
#[cfg(test)]
extern crate self as wsltrace;

pub mod bench;
pub mod cli;
pub mod command;
pub mod diagnosis;
pub mod doctor;
pub mod escape;
pub mod evidence;
pub mod export;
pub mod journey;
pub mod kernel;
pub mod lab;
pub mod output;
pub mod probe;
pub mod recording;
pub mod simulate;
pub mod source;
pub mod windows;
pub mod wsl;

mod causes;
mod logger;
mod sweep;
mod units;
pub use logger::log_to_stderr;
