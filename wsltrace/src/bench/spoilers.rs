//! What spoils a measurement: read before and after it, and told with what helps.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::evidence::counters::{self, Counters};
use crate::kernel::netns::Netns;

/// A busier machine measures itself.
const BUSY_PERCENT: u64 = 95;
/// More time taken by the host than this shows in what is measured.
const STEAL_PERCENT: u64 = 3;

/// Fewer ticks of all processors together are no share of a time.
const FEW_TICKS: u64 = 20;

/// A reading of the machine.
#[derive(Debug)]
pub struct Reading {
    counters: Counters,
    /// All processors together.
    cpu: Cpu,
    /// Each, by its number.
    each: BTreeMap<u32, Cpu>,
}

/// Time of processors, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cpu {
    idle: u64,
    steal: u64,
    all: u64,
}

impl Reading {
    /// Reads.
    pub fn take() -> io::Result<Self> {
        let netns = Netns::current().map_err(io::Error::other)?;
        Ok(Self::of(counters::read(&netns)?, &fs::read_to_string("/proc/stat")?))
    }

    /// `stat` is what /proc/stat says.
    fn of(counters: Counters, stat: &str) -> Self {
        let number = |line: &str| line.strip_prefix("cpu")?.split(' ').next()?.parse().ok();
        let each = stat.lines().filter_map(|line| Some((number(line)?, Cpu::parse(line)))).collect();
        Self { counters, cpu: Cpu::parse(stat), each }
    }

    fn count(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// What happened since, each in a sentence with what helps; `no_port` attempts found no free port.
    pub fn spoilt_since(before: &Self, now: &Self, no_port: u64) -> Vec<String> {
        let mut told = Vec::new();
        let rise = |name: &str| now.count(name).saturating_sub(before.count(name));
        let overflows = rise("ListenOverflows");
        if overflows > 0 {
            told.push(format!(
                "a listening socket of this Linux had no room for {overflows} connections (ListenOverflows): a client waits a second or more then. Give the server a longer backlog, and: sudo sysctl -w net.core.somaxconn=65535"
            ));
        }
        if no_port > 0 {
            told.push(format!(
                "{no_port} attempts found no free port on the client's side: use --keep-alive on, a lower --rate, or: sudo sysctl -w net.ipv4.ip_local_port_range='1024 65535'"
            ));
        }
        let spent = before.cpu.until(now.cpu);
        let busy = spent.busy();
        let full = now.each.iter().filter_map(|(number, cpu)| Some((number, before.each.get(number)?.until(*cpu).busy())));
        let fullest = full.max_by_key(|(_, busy)| *busy).filter(|(_, busy)| *busy >= BUSY_PERCENT);
        if busy >= BUSY_PERCENT {
            told.push(format!(
                "the processors were {busy} % busy: the client and the server may have waited for each other. Fewer clients (-c), a --rate, or a server on another machine measure the path rather than the processors"
            ));
        }
        if let Some((number, one)) = fullest.filter(|_| busy < BUSY_PERCENT) {
            told.push(format!(
                "processor {number} was {one} % busy, and others were not: a server with one thread was at its end, or both ends ran on that processor and waited for each other. Let them run apart (taskset), or use fewer clients (-c) or a --rate"
            ));
        }
        let stolen = spent.percent(spent.steal);
        if stolen >= STEAL_PERCENT {
            told.push(format!("the host took {stolen} % of the processors' time (steal): measure again when it is quieter"));
        }
        told
    }
}

impl Cpu {
    /// A part of the time in percent; of a run that is over at once the clock tells nothing.
    fn percent(self, part: u64) -> u64 {
        if self.all < FEW_TICKS { 0 } else { part.saturating_mul(100).checked_div(self.all).unwrap_or(0) }
    }

    fn busy(self) -> u64 {
        self.percent(self.all.saturating_sub(self.idle))
    }

    /// The first line of these of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let fields: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0);
        Self { idle: field(3) + field(4), steal: field(7), all: fields.iter().sum() }
    }

    fn until(self, later: Self) -> Self {
        Self {
            idle: later.idle.saturating_sub(self.idle),
            steal: later.steal.saturating_sub(self.steal),
            all: later.all.saturating_sub(self.all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(overflows: u64, cpu: &str) -> Reading {
        Reading::of([("ListenOverflows".to_owned(), overflows)].into(), cpu)
    }

    #[test]
    fn each_spoiler_is_told_with_what_helps() {
        let before = reading(5, "cpu 100 0 100 800 0 0 0 0 0 0\n");
        let quiet = reading(5, "cpu 110 0 110 980 0 0 0 0 0 0\n");
        assert!(Reading::spoilt_since(&before, &quiet, 0).is_empty());
        let short = reading(5, "cpu 109 0 109 800 0 0 0 0 0 0\n");
        assert!(Reading::spoilt_since(&before, &short, 0).is_empty());
        let spoilt = reading(9, "cpu 190 0 190 800 0 0 0 20 0 0\n");
        let told = Reading::spoilt_since(&before, &spoilt, 3);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].contains("no room for 4 connections") && told[1].contains("3 attempts"), "{told:?}");
        assert!(told[2].contains("100 % busy") && told[3].contains("10 %"), "{told:?}");
        // One of two, which the mean hides.
        let of_two = |first: u64, second: u64| {
            let line = |name: &str, busy: u64, idle: u64| format!("{name} {busy} 0 0 {idle} 0 0 0 0 0 0\n");
            let all = line("cpu", first + second, 2_000 - first - second);
            reading(5, &(all + &line("cpu0", first, 1_000 - first) + &line("cpu1", second, 1_000 - second) + "intr 7 0\n"))
        };
        let told = Reading::spoilt_since(&reading(5, "cpu 0\ncpu0 0\ncpu1 0\n"), &of_two(100, 970), 0);
        assert!(matches!(&told[..], [one] if one.starts_with("processor 1 was 97 % busy")), "{told:?}");
        assert!(Reading::spoilt_since(&reading(5, "cpu 0\ncpu0 0\ncpu1 0\n"), &of_two(600, 700), 0).is_empty());
    }
}
