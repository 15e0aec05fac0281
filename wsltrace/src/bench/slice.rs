//! How long a client's thread keeps its processor.
//!
//! A thread of the load and one of the server often want the same processor. Whoever has it keeps it for about 3 ms by default, and an answer that
//! came meanwhile is only looked at afterwards: then the clients' own wait is most of the slowest attempts. Threads that ask for shorter
//! slices get their turn sooner and give it back sooner, and no more of the processor's time.
//!
//! With many clients a thread always has an answer to read, and never waits of its own accord: the server's thread then runs when the kernel's
//! clock ticks, every 4 ms, whatever the slices. So the processor is offered to others after each round of answers: the slowest hundredth of
//! the attempts over 100 kept connections took 1.0 ms instead of 4.3, with as many requests a second (two processors, Linux 6.18, 250 ticks a
//! second).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds. Shorter ones cost more changes of threads than they save.
const SLICE: u64 = 1_000_000;

/// Asks for short slices for the calling thread; kernels before 6.12 do not give them. Nothing is lost where it is refused but precision.
pub(super) fn shorten() {
    if let Err(refused) = ask() {
        log::debug!("the kernel gives no shorter slices: {refused}");
    }
}

fn ask() -> io::Result<()> {
    // SAFETY: it is made of integers, for which zeroes are a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is as long as the call is told and lives through it; 0 is the calling thread, and there are no flags.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    // For other policies it means something else.
    if i64::from(attributes.sched_policy) != i64::from(libc::SCHED_OTHER) {
        return Ok(());
    }
    attributes.sched_runtime = SLICE;
    // SAFETY: as above; the structure says how long it is.
    let written = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if written == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// More answers than this are not read in a row: with a thousand clients a round takes as long as a tick.
const LONGEST_ROUND: u64 = 100;

/// The rounds of a thread: an answer for each of its clients, or [`LONGEST_ROUND`].
pub(super) struct Rounds {
    length: u64,
    answered: AtomicU64,
}

impl Rounds {
    /// For a thread of so many clients.
    pub(super) fn new(clients: u32) -> Self {
        Self { length: u64::from(clients).min(LONGEST_ROUND), answered: AtomicU64::new(0) }
    }

    /// An answer was read; offers the processor to others at the end of a round. A thread with one client waits for each answer anyway.
    pub(super) fn answered(&self) {
        if self.length > 1 && self.answered.fetch_add(1, Ordering::Relaxed) % self.length == self.length - 1 {
            std::thread::yield_now();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "some dozens of bytes")]
const SIZE: u32 = size_of::<libc::sched_attr>() as u32;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    /// Niceness, which a user may have chosen, and policy.
    fn of_this_thread() -> (i32, i32) {
        // SAFETY: both read numbers of the calling thread.
        unsafe { (libc::getpriority(libc::PRIO_PROCESS, 0), libc::sched_getscheduler(0)) }
    }

    #[test]
    fn a_thread_that_asks_for_short_slices_is_as_nice_as_before() {
        std::thread::spawn(|| {
            // SAFETY: it changes the calling thread, which ends here.
            assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 7) }, 0);
            super::ask().unwrap();
            assert_eq!(of_this_thread(), (7, libc::SCHED_OTHER));
        })
        .join()
        .unwrap();
    }
}
