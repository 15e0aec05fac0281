//! Ending journeys that no packet ends: whoever reads the ring buffer looks through the table of journeys from time to time.

use wsltrace_common::Record;

use crate::journey::overdue::{has_begun, is_overdue};
use crate::kernel::names::now_ns;
use crate::probe::{ProbeError, Swept};

/// Which journeys are to end now.
pub(crate) type IsOver<'a> = &'a dyn Fn(&Record) -> bool;

/// Ends journeys that are overdue, or all of them. `step` looks at some more of the table and, as the ring buffer may be too small for all
/// of them at once, reads what came of it. Gives how many were there.
pub(crate) fn sweep(all: bool, mut step: impl FnMut(IsOver<'_>) -> Result<Swept, ProbeError>) -> Result<usize, ProbeError> {
    let now = now_ns();
    let is_over = |record: &Record| has_begun(record) && (all || is_overdue(record, now));
    let mut found = 0;
    loop {
        let swept = step(&is_over)?;
        found += swept.found;
        if !swept.more {
            return Ok(found);
        }
    }
}

/// Ends every journey. A record leaves the table only when the ring buffer has it, so the last ones are there once the table is found
/// empty; `step` reads after each look, whatever came of it.
pub(crate) fn sweep_until_empty(mut step: impl FnMut(IsOver<'_>) -> Result<Swept, ProbeError>) -> Result<(), ProbeError> {
    while sweep(true, &mut step)? > 0 {}
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_looked_through_until_it_is_found_empty() {
        // In two parts, then what the ring buffer had no room for, then nothing.
        let mut looks = [(3, true), (2, false), (1, false), (0, false)].into_iter();
        sweep_until_empty(|_| {
            let (found, more) = looks.next().unwrap();
            Ok(Swept { found, more })
        })
        .unwrap();
        assert_eq!(looks.next(), None);
    }

    #[test]
    fn a_place_that_was_only_taken_is_left_alone_and_so_is_a_young_journey_unless_all_are_to_end() {
        // SAFETY: a record is made of integers, for which zeroes are a value.
        let taken: Record = unsafe { std::mem::zeroed() };
        let young = Record { last_ns: now_ns(), ..taken };
        for (all, ends) in [(false, [false, false]), (true, [false, true])] {
            let found = sweep(all, |is_over| {
                assert_eq!([is_over(&taken), is_over(&young)], ends);
                Ok(Swept { found: 2, more: false })
            });
            assert_eq!(found.unwrap(), 2);
        }
    }
}
