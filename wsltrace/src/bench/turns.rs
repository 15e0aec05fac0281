//! Turns at a fixed rate: which attempt is due when, and which client makes it.
//!
//! Every thread has a clock that goes off for its share of the attempts, and gives all that are due by then: to its own thread's clients
//! where one is free, since another thread would have to be woken first; else to another thread's; else to whoever is free next. So no
//! attempt waits while any client is free, and none for a thread that is late.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

/// The turns of a run, for all of its threads.
pub(super) struct Turns {
    rate: f64,
    start: Instant,
    end: Instant,
    /// Held for some additions only.
    given: Mutex<Given>,
    /// By thread, what its waiting clients are woken by.
    wakes: Vec<Semaphore>,
}

/// How far the turns are given.
#[derive(Debug, PartialEq, Eq)]
struct Given {
    /// Attempts that were found due.
    due: u64,
    /// Of them, those that a client was woken for and has not taken yet.
    promised: u64,
    /// And those that were taken.
    taken: u64,
    /// By thread, clients that wait and were not woken.
    free: Vec<u64>,
    /// The time is up.
    over: bool,
}

/// What a client that is free is to do.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Make the attempt of this number.
    Due(u64),
    /// Wait until it is woken.
    Wait,
    /// Nothing any more.
    Over,
}

impl Given {
    fn new(threads: usize) -> Self {
        Self { due: 0, promised: 0, taken: 0, free: vec![0; threads], over: false }
    }

    /// So many are due by now; promises them to clients that wait, this thread's first. Gives how many of each thread are to be woken.
    fn give(&mut self, due: u64, thread: usize) -> Vec<(usize, u64)> {
        self.due = self.due.max(due);
        let others = (0..self.free.len()).filter(|other| *other != thread);
        let mut woken = Vec::new();
        for thread in std::iter::once(thread).chain(others) {
            let left = self.due - self.promised - self.taken;
            let Some(free) = self.free.get_mut(thread) else { continue };
            let some = left.min(*free);
            *free -= some;
            self.promised += some;
            if some > 0 {
                woken.push((thread, some));
            }
        }
        woken
    }

    /// No more will be due; whoever still waits is to be woken and told so.
    fn end(&mut self) -> Vec<(usize, u64)> {
        self.over = true;
        self.free.iter_mut().map(std::mem::take).enumerate().filter(|(_, some)| *some > 0).collect()
    }

    /// A client of the thread is free.
    fn take(&mut self, thread: usize) -> Turn {
        if self.due > self.promised + self.taken {
            return Turn::Due(self.next());
        }
        match self.free.get_mut(thread).filter(|_| !self.over) {
            Some(free) => *free += 1,
            None => return Turn::Over,
        }
        Turn::Wait
    }

    /// A client was woken: for an attempt, or since there is none.
    fn woken(&mut self) -> Option<u64> {
        self.promised = self.promised.checked_sub(1)?;
        Some(self.next())
    }

    fn next(&mut self) -> u64 {
        self.taken += 1;
        self.taken - 1
    }
}

impl Turns {
    /// For so many threads, from `start` to `end`.
    pub(super) fn new(rate: f64, threads: usize, start: Instant, end: Instant) -> Self {
        let wakes = (0..threads).map(|_| Semaphore::new(0)).collect();
        Self { rate, start, end, given: Mutex::new(Given::new(threads)), wakes }
    }

    /// Waits for a turn of a client of this thread; when its attempt was due, or nothing once the time is up.
    pub(super) async fn next(&self, thread: usize) -> Option<Instant> {
        let turn = self.given(|given| given.take(thread));
        let number = match turn {
            Turn::Due(number) => number,
            Turn::Wait => {
                self.wakes.get(thread)?.acquire().await.ok()?.forget();
                self.given(Given::woken)?
            }
            Turn::Over => return None,
        };
        Some(self.intended(number))
    }

    /// How many attempts were due before a time and were taken by nobody.
    pub(super) fn not_taken(&self, before: Instant) -> u64 {
        self.due_before(before.min(self.end)).saturating_sub(self.given(|given| given.taken))
    }

    /// A thread's clock: goes on until the time is up.
    pub(super) async fn clock(&self, thread: usize) -> io::Result<()> {
        let result = self.tick(thread).await;
        // A clock that goes off late has not given the last ones.
        self.wake(self.given(|given| given.give(self.due_before(self.end), thread)));
        self.wake(self.given(Given::end));
        result
    }

    async fn tick(&self, thread: usize) -> io::Result<()> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: the timer is owned by what is made here, and its descriptor stays open and the same until that is dropped.
        let timer = unsafe { AsyncFd::register_with_interest(Watched(timer), Interest::READABLE) }?;
        loop {
            let now = Instant::now();
            if now >= self.end {
                return Ok(());
            }
            // What is due right now is so before the next nanosecond.
            let due = self.due_before(now + Duration::from_nanos(1));
            self.wake(self.given(|given| given.give(due, thread)));
            let wait = self.intended(self.own_after(due, thread)).min(self.end).saturating_duration_since(Instant::now());
            if wait.is_zero() {
                tokio::task::yield_now().await;
                continue;
            }
            // The runtime's own timers count in milliseconds, which would be most of what is measured.
            timer.get_ref().0.set(Expiration::OneShot(TimeSpec::from_duration(wait)), TimerSetTimeFlags::empty())?;
            let mut ready = timer.readable().await?;
            ready.clear_ready();
            match timer.get_ref().0.wait() {
                Ok(()) | Err(nix::errno::Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wake(&self, clients: Vec<(usize, u64)>) {
        for (thread, some) in clients {
            if let Some(wakes) = self.wakes.get(thread) {
                // There are far fewer clients than the most permits.
                wakes.add_permits(usize::try_from(some).unwrap_or(Semaphore::MAX_PERMITS));
            }
        }
    }

    /// The first number not before this one for which the thread's clock goes off.
    fn own_after(&self, number: u64, thread: usize) -> u64 {
        let threads = self.wakes.len() as u64;
        number + (thread as u64 + threads - number % threads) % threads
    }

    /// How many are due before a time.
    fn due_before(&self, time: Instant) -> u64 {
        let after = time.saturating_duration_since(self.start);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of attempts, never negative")]
        let mut due = ((after.as_secs_f64() * self.rate) as u64).saturating_sub(1);
        // By the same arithmetic as the times themselves, which is rounded.
        while self.intended(due) < time {
            due += 1;
        }
        due
    }

    /// When the attempt of this number is due.
    fn intended(&self, number: u64) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let after = number as f64 / self.rate;
        self.start + Duration::from_secs_f64(after)
    }

    fn given<T>(&self, change: impl FnOnce(&mut Given) -> T) -> T {
        change(&mut self.given.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A descriptor that the runtime can wait for.
struct Watched(TimerFd);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_goes_to_whoever_is_free_and_to_the_own_thread_first() {
        let mut given = Given::new(2);
        assert_eq!([given.take(0), given.take(1), given.take(1)], [Turn::Wait, Turn::Wait, Turn::Wait]);
        // Two turns, one client of the clock's own thread.
        assert_eq!(given.give(2, 0), [(0, 1), (1, 1)]);
        assert_eq!([given.woken(), given.woken()], [Some(0), Some(1)]);
        // The last one that waits has the third; the fourth is left to who comes next, on either thread.
        assert_eq!(given.give(4, 0), [(1, 1)]);
        assert_eq!(given.take(0), Turn::Due(2));
        assert_eq!(given.woken(), Some(3));
        // What another clock has given already is not given again.
        assert_eq!(given.give(3, 1), []);
        assert_eq!(given.take(1), Turn::Wait);
        assert_eq!(given.end(), [(1, 1)]);
        assert_eq!((given.woken(), given.take(0)), (None, Turn::Over));
        assert_eq!(given, Given { due: 4, promised: 0, taken: 4, free: vec![0, 0], over: true });
    }

    #[test]
    fn each_number_has_one_clock_and_those_of_the_time_are_counted() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs_f64(seconds);
        let turns = Turns::new(10.0, 3, start, at(2.0));
        assert_eq!([0, 1, 2, 3, 4].map(|number| turns.own_after(number, 1)), [1, 1, 4, 4, 4]);
        // Due at 0, 0.1, ... 0.9: ten in a second, eleven in what lasts longer.
        assert_eq!([0.0, 0.05, 0.1, 1.0, 1.01].map(|time| turns.due_before(at(time))), [0, 1, 1, 10, 11]);
        assert_eq!([0.5, 5.0].map(|time| turns.not_taken(at(time))), [5, 20]);
        // 2.1 times 30 is more than 63 as computers multiply.
        assert_eq!(Turns::new(30.0, 1, start, at(2.1)).not_taken(at(2.1)), 63);
    }
}
