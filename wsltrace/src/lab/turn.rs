//! Labs of one process are played at the same time, but for those that change the process itself.

use std::sync::{Condvar, Mutex, PoisonError};

static PLAYED: Mutex<Played> = Mutex::new(Played { together: 0, alone: false });
static ENDED: Condvar = Condvar::new();

/// The labs that stand now.
struct Played {
    together: usize,
    alone: bool,
}

/// A lab's right to stand; ends when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    alone: bool,
}

impl Turn {
    /// Beside others that are together; waits for the end of one that is alone.
    pub(super) fn together() -> Self {
        Self::once(false, |played| !played.alone, |played| played.together += 1)
    }

    /// Waits for the end of all others, and lets none begin.
    pub(super) fn alone() -> Self {
        Self::once(true, |played| !played.alone && played.together == 0, |played| played.alone = true)
    }

    fn once(alone: bool, may: impl Fn(&Played) -> bool, begin: impl FnOnce(&mut Played)) -> Self {
        // Counts stay true through a panic: they are changed in one step.
        let played = PLAYED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut played = ENDED.wait_while(played, |played| !may(played)).unwrap_or_else(PoisonError::into_inner);
        begin(&mut played);
        Self { alone }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut played = PLAYED.lock().unwrap_or_else(PoisonError::into_inner);
        if self.alone {
            played.alone = false;
        } else {
            played.together -= 1;
        }
        ENDED.notify_all();
    }
}
