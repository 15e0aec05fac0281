//! How long a client waits. Its one timer is moved only when it goes off: a timer set for each attempt would be part of what is
//! measured.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// The limit of a client's attempts, and the time when the present one has taken too long.
pub(super) struct Patience {
    limit: Duration,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// With so much time for each attempt.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, deadline: Instant::now() + limit, timer: None }
    }

    /// An attempt has begun.
    pub(super) fn begin(&mut self, now: Instant) {
        self.deadline = now + self.limit;
    }

    /// Does a part of the attempt; `None` when its time is up before.
    pub(super) async fn over<F: Future>(&mut self, part: F) -> Option<F::Output> {
        let mut part = pin!(part);
        poll_fn(|context| {
            if let Poll::Ready(done) = part.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            let deadline = self.deadline;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
            while timer.as_mut().poll(context).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(deadline.into());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_attempt_has_its_own_time() {
        let limit = Duration::from_millis(20);
        let mut patience = Patience::new(limit);
        for _ in 0..2 {
            let began = Instant::now();
            patience.begin(began);
            assert_eq!(patience.over(std::future::pending::<()>()).await, None);
            assert!(began.elapsed() >= limit);
            // What ends in time is told, whatever the timer was left at.
            patience.begin(Instant::now());
            assert_eq!(patience.over(std::future::ready(5)).await, Some(5));
        }
    }
}
