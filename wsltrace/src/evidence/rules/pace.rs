//! How many traced packets are enough. The kernel keeps the rate itself where it has nftables' `limit`; on a kernel without that
//! (it is often a module, which may not be there) our table is taken away when it has led to too many messages, and put back
//! later.

/// How many messages there may be between two ticks: a hundred packets through a score of rules.
const MESSAGES: usize = 2_000;
/// How many ticks the table then stays away.
const REST: u32 = 10;

/// Whether the table may be there.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The kernel cannot keep the rate.
    by_hand: bool,
    heard: usize,
    rests: u32,
}

impl Pace {
    /// The kernel has no `limit`: from now on messages are counted.
    pub(super) fn keep_by_hand(&mut self) {
        self.by_hand = true;
    }

    /// Whether the kernel keeps the rate.
    pub(super) fn is_kept_by_kernel(&self) -> bool {
        !self.by_hand
    }

    /// Whether the table has to stay away for now.
    pub(super) fn is_resting(&self) -> bool {
        self.rests > 0
    }

    /// So many messages came; true when the table has to go.
    pub(super) fn hear(&mut self, messages: usize) -> bool {
        self.heard += messages;
        if self.by_hand && self.rests == 0 && self.heard > MESSAGES {
            self.rests = REST;
            return true;
        }
        false
    }

    /// A second went by; true when the table may come back.
    pub(super) fn tick(&mut self) -> bool {
        self.heard = 0;
        let rested = self.rests == 1;
        self.rests = self.rests.saturating_sub(1);
        rested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_not_interfered_with() {
        let mut pace = Pace::default();
        assert!(!pace.hear(MESSAGES * 100) && !pace.is_resting() && !pace.tick());
    }

    #[test]
    fn too_many_messages_in_a_second_send_the_table_away_for_a_while() {
        let mut pace = Pace::default();
        pace.keep_by_hand();
        assert!(!pace.hear(MESSAGES));
        assert!(!pace.tick());
        assert!(!pace.hear(MESSAGES) && pace.hear(1), "in this second");
        assert!(!pace.hear(MESSAGES), "what was under way is no news");
        for second in 1..REST {
            assert!(!pace.tick() && pace.is_resting(), "{second}");
        }
        assert!(pace.tick() && !pace.is_resting());
        assert!(!pace.hear(1));
    }
}
