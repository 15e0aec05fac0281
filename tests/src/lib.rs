//! What the end-to-end tests and the bench share: the binary under test, traffic for it, and looking at what it does in the
//! kernel and what it leaves behind.

pub mod bpf;
pub mod examined;
pub mod guest;
pub mod leftovers;
pub mod pretended;
pub mod process;
pub mod ran;
pub mod recorded;
pub mod rulesets;
pub mod server;
pub mod syns;
pub mod terminal;
pub mod unseen;

use std::error::Error;
use std::path::{Path, PathBuf};

use libtest_mimic::{Completion, Failed};
use wsltrace::lab::find;

/// The `wsltrace` to test, or why there is none.
pub fn binary() -> Result<PathBuf, String> {
    let path = std::env::var_os("WSLTRACE_BIN").map(PathBuf::from).ok_or("WSLTRACE_BIN does not name the binary to test")?;
    if path.is_file() { Ok(path) } else { Err(format!("WSLTRACE_BIN: {} is no file", path.display())) }
}

/// Runs a test in the lab, or says in the form that continuous integration counts why it cannot run here.
#[expect(clippy::print_stdout, reason = "the line that continuous integration counts")]
pub fn decide(name: &str, test: impl FnOnce(&Path) -> Result<(), Box<dyn Error>>) -> Result<Completion, Failed> {
    // This scenario needs what all labs need, and nft.
    let obstacle = find("drop-filter-nft").and_then(|scenario| scenario.obstacle());
    match (binary(), obstacle) {
        (Ok(binary), None) => test(&binary).map(|()| Completion::Completed).map_err(Failed::from),
        (Err(why), _) | (_, Some(why)) => {
            println!("SKIP: {name}: {why}");
            Ok(Completion::ignored_with(why))
        }
    }
}
