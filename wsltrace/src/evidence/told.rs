//! Evidence that cannot be read is left out, and the log says so.

use std::io;

/// An answer that may have failed, and that the rest of the evidence does without.
pub(super) trait OrTold<T> {
    /// The answer; where it failed, nothing, and a warning that one cannot `what` ("read the routes") in the namespace of this inode
    /// number.
    fn or_told(self, netns: u32, what: &str) -> Option<T>;
}

impl<T> OrTold<T> for io::Result<T> {
    fn or_told(self, netns: u32, what: &str) -> Option<T> {
        self.map_err(|error| log::warn!("cannot {what} in network namespace {netns}: {error}")).ok()
    }
}
