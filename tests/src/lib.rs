//! What the end-to-end tests and the bench share: the binary under test, traffic for it, and looking at what it does in the
//! kernel and what it leaves behind.

pub mod bpf;
pub mod leftovers;
pub mod process;
pub mod syns;

use std::path::PathBuf;

/// The `wsltrace` to test, or why there is none.
pub fn binary() -> Result<PathBuf, String> {
    let path = std::env::var_os("WSLTRACE_BIN").map(PathBuf::from).ok_or("WSLTRACE_BIN does not name the binary to test")?;
    if path.is_file() { Ok(path) } else { Err(format!("WSLTRACE_BIN: {} is no file", path.display())) }
}
