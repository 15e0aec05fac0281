//! What is said while the end of a run takes long: a flood of SYNs leaves much to tell, and somebody may not read it.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::output::tell;

/// So long an end may take without a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Does what may take long. When it does, it is said that Ctrl-C ends it, also to those who have not ended the run so.
pub(super) fn with_patience<T>(what: impl FnOnce() -> T) -> T {
    after(PATIENCE, what, || tell("more is still to be told; Ctrl-C ends at once, without it"))
}

/// Does the one, and the other meanwhile if that takes longer than this.
fn after<T>(limit: Duration, what: impl FnOnce() -> T, meanwhile: impl FnOnce() + Send) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watch = move || {
            // The sender says nothing: it is gone when all is done, also by a panic.
            if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                meanwhile();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("patience".to_owned()).spawn_scoped(scope, watch) {
            log::debug!("an end that takes long will not be told of: {error}");
        }
        let came = what();
        drop(done);
        came
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_long_is_told_of() {
        let (told, is_told) = mpsc::channel();
        let long = after(Duration::ZERO, || is_told.recv().is_ok(), move || assert!(told.send(()).is_ok()));
        assert!(long, "it goes on while that is told");
        assert_eq!(after(Duration::MAX, || 7, || unreachable!("nothing takes so long")), 7);
    }
}
