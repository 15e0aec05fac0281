//! The way from the thread that reads to the thread that tells. Whoever sends never waits: a thread that waits for somebody who does not
//! read our output would not hear Ctrl-C either. Instead it asks whether there is room, and leaves records where they are when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvError, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::sync::Notify;

struct Waiting {
    count: AtomicUsize,
    bound: usize,
    room: Notify,
}

/// The sender's end.
pub(super) struct Sender<T> {
    queue: mpsc::Sender<T>,
    waiting: Arc<Waiting>,
}

/// The receiver's end.
pub(super) struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    waiting: Arc<Waiting>,
}

/// A queue that has room while fewer than `bound` wait in it.
pub(super) fn queue<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(Waiting { count: AtomicUsize::new(0), bound, room: Notify::new() });
    (Sender { queue: sender, waiting: waiting.clone() }, Receiver { queue: receiver, waiting })
}

impl<T> Sender<T> {
    /// Sends, whether there is room or not; false when nobody receives any longer.
    pub(super) fn send(&self, item: T) -> bool {
        self.waiting.count.fetch_add(1, Ordering::Relaxed);
        self.queue.send(item).is_ok()
    }

    /// Whether there is room.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.count.load(Ordering::Relaxed) < self.waiting.bound
    }

    /// Waits until half of the queue is free, after it was seen full.
    pub(super) async fn room(&self) {
        self.waiting.room.notified().await;
    }
}

impl<T> Receiver<T> {
    pub(super) fn recv(&self) -> Result<T, RecvError> {
        self.queue.recv().map(|item| self.taken(item))
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        self.queue.try_recv().map(|item| self.taken(item))
    }

    pub(super) fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.queue.recv_timeout(limit).map(|item| self.taken(item))
    }

    fn taken(&self, item: T) -> T {
        // What passes the middle on its way down is told; nobody may be waiting, then the next who asks hears of it at once.
        if self.waiting.count.fetch_sub(1, Ordering::Relaxed) == self.waiting.bound.div_ceil(2) {
            self.waiting.room.notify_one();
        }
        item
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn sending_never_waits_and_room_is_told_of_at_half() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, receiver) = queue(4);
        for number in 0..6 {
            assert_eq!(sender.has_room(), number < 4);
            assert!(sender.send(number));
        }
        let room = sender.room();
        let mut room = std::pin::pin!(room);
        let is_told = |room: std::pin::Pin<&mut _>| {
            runtime.block_on(async { futures::poll!(room as std::pin::Pin<&mut dyn Future<Output = ()>>).is_ready() })
        };
        for number in 0..4 {
            assert!(!is_told(room.as_mut()), "after {number} of 6");
            assert_eq!(receiver.try_recv(), Ok(number));
        }
        assert!(!is_told(room.as_mut()));
        assert_eq!(receiver.recv(), Ok(4));
        assert!(is_told(room.as_mut()));
        assert!(sender.has_room());
    }

    #[test]
    fn each_end_hears_when_the_other_is_gone() {
        let (sender, receiver) = queue(1);
        assert!(sender.send(1));
        drop(sender);
        assert_eq!((receiver.recv(), receiver.recv()), (Ok(1), Err(RecvError)));
        let (sender, receiver) = queue(1);
        drop(receiver);
        assert!(!sender.send(1));
    }
}
