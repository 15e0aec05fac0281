//! Reading the journeys that have not ended, where the kernel side keeps them: in cells, and in a table when a cell was taken.

use aya::Ebpf;
use aya::maps::{Array, Map, MapError};
use wsltrace_common::{Key, Record, TakenCells};

use super::error::{ProbeError, absent};
use super::sys::Buckets;

const CELLS: &str = "CELLS";
const TAKEN_CELLS: &str = "TAKEN_CELLS";
const TABLE: &str = "JOURNEYS";

/// A reading, part by part: the cells, then some of the table's buckets at a time, then anew.
pub(super) struct Standing {
    table: Buckets<Key, Record>,
    in_table: bool,
}

impl Standing {
    /// A reading that has not begun.
    pub(super) fn new() -> Self {
        Self { table: Buckets::new(), in_table: false }
    }

    /// Shows the journeys of the next part. Gives how many places are taken there, which can be more, as one is taken before its record is
    /// written; and whether there are more parts.
    pub(super) fn read(&mut self, ebpf: &Ebpf, mut see: impl FnMut(&Key, &Record)) -> Result<(usize, bool), ProbeError> {
        if !self.in_table {
            self.in_table = true;
            return Ok((read_cells(ebpf, see)?, true));
        }
        let Some(Map::HashMap(map)) = ebpf.map(TABLE) else { return Err(absent("the map JOURNEYS").into()) };
        let (entries, more) = self.table.read(map.fd()).map_err(ProbeError::Sweep)?;
        let mut found = 0;
        for (key, record) in entries {
            found += 1;
            see(key, record);
        }
        self.in_table = more;
        Ok((found, more))
    }
}

fn read_cells(ebpf: &Ebpf, mut see: impl FnMut(&Key, &Record)) -> Result<usize, ProbeError> {
    let taken = array::<TakenCells>(ebpf, TAKEN_CELLS)?.get(&0, 0).map_err(failed(TAKEN_CELLS))?;
    let cells = array::<Record>(ebpf, CELLS)?;
    let mut found = 0;
    for number in taken_numbers(&taken) {
        let record = cells.get(&number, 0).map_err(failed(CELLS))?;
        found += 1;
        // Its key is written last when it is taken, and goes first when it is given back.
        if record.key.slot != 0 {
            see(&record.key, &record);
        }
    }
    Ok(found)
}

fn array<'a, T: aya::Pod>(ebpf: &'a Ebpf, name: &'static str) -> Result<Array<&'a aya::maps::MapData, T>, ProbeError> {
    let map = ebpf.map(name).ok_or_else(|| absent(name))?;
    Array::try_from(map).map_err(failed(name))
}

fn failed(map: &'static str) -> impl Fn(MapError) -> ProbeError {
    move |source| ProbeError::Map { map, source }
}

/// The numbers of the bits that are set.
fn taken_numbers(taken: &TakenCells) -> impl Iterator<Item = u32> + '_ {
    let words = (0..).step_by(64).zip(taken);
    words.flat_map(|(first, word)| (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| first + bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_is_a_cell() {
        let mut taken = [0; wsltrace_common::CELLS as usize / 64];
        (taken[0], taken[1], taken[15]) = (1 | 1 << 63, 1 << 2, 1 << 63);
        assert_eq!(taken_numbers(&taken).collect::<Vec<_>>(), [0, 63, 66, 1023]);
    }
}
