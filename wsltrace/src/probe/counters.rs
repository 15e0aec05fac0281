//! What the kernel side counts.

use std::borrow::Borrow;

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use wsltrace_common::{Counter, NearMiss};

use super::object::ObjectError;
use super::table::SENT_AGAIN;
use super::{ProbeError, Probes, absent, tracing};
use crate::kernel::KernelFacts;

const COUNTERS: &str = "COUNTERS";

/// One counter of the kernel side, to be read wherever the probes are not at hand.
pub struct CounterReader {
    map: PerCpuArray<MapData, u64>,
    counter: Counter,
}

impl CounterReader {
    /// Its value, summed over the CPUs.
    pub fn read(&self) -> Result<u64, ProbeError> {
        sum(&self.map, self.counter)
    }
}

impl Probes {
    /// SYNs to ports that are not traced, counted since the start.
    pub fn near_misses(&self) -> Result<Vec<(NearMiss, u64)>, ProbeError> {
        let fail = |source| ProbeError::Map { map: "NEAR_MISSES", source };
        let map = self.loaded.ebpf.map("NEAR_MISSES").ok_or_else(|| absent("the map NEAR_MISSES"))?;
        let map: HashMap<_, NearMiss, u64> = HashMap::try_from(map).map_err(fail)?;
        map.iter().collect::<Result<_, _>>().map_err(fail)
    }

    /// One of the kernel side's counters, summed over the CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64, ProbeError> {
        let map = self.loaded.ebpf.map(COUNTERS).ok_or_else(|| absent("the map COUNTERS"))?;
        sum(&PerCpuArray::try_from(map).map_err(counters_failed)?, counter)
    }

    /// Puts the probe in that counts what servers send again, which only `bench` asks for. Its counter, or nothing where this kernel
    /// does not allow it, which is then among the missing probes.
    pub fn count_sent_again(&mut self, facts: &KernelFacts) -> Result<Option<CounterReader>, ProbeError> {
        let Some(wanted) = tracing::wanted_at(SENT_AGAIN, facts, &mut self.missing)? else { return Ok(None) };
        let program = match self.loaded.load_program(wanted.name, wanted.kind) {
            Err(ObjectError::Load(refused)) => Err(refused),
            loaded => Ok(loaded?),
        };
        if !self.tracing.attach(wanted, program, &mut self.missing)? {
            return Ok(None);
        }
        self.count_attached(wanted.name, 1);
        let map = MapData::from_fd(self.loaded.map(COUNTERS)?).and_then(Map::from_map_data).map_err(counters_failed)?;
        Ok(Some(CounterReader { map: PerCpuArray::try_from(map).map_err(counters_failed)?, counter: Counter::SentAgain }))
    }

    /// How many events the tracepoints were not told of: the kernel leaves out a program that interrupts itself, as when a
    /// packet is freed by an interrupt while another one's end is being looked at.
    pub fn missed_events(&self) -> Result<u64, ProbeError> {
        self.tracing.missed().map_err(ProbeError::Misses)
    }
}

fn sum(map: &PerCpuArray<impl Borrow<MapData>, u64>, counter: Counter) -> Result<u64, ProbeError> {
    Ok(map.get(&(counter as u32), 0).map_err(counters_failed)?.iter().sum())
}

fn counters_failed(source: aya::maps::MapError) -> ProbeError {
    ProbeError::Map { map: COUNTERS, source }
}
