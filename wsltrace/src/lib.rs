//! wsltrace: says where a connection attempt into WSL2 dies, who did it, and what to type. The binary is a thin shell around
//! this library; the end-to-end tests use its lab.

pub mod diagnosis;
pub mod evidence;
pub mod journey;
pub mod lab;
