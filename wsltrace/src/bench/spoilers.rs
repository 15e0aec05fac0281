//! What spoils a measurement: read before and after it, and told with what helps.

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
    cpu: Cpu,
}

/// Time of all processors, in ticks.
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
        Ok(Self { counters: counters::read(&netns)?, cpu: Cpu::parse(&fs::read_to_string("/proc/stat")?) })
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
        // Of a run that is over at once the clock tells nothing.
        let percent =
            |part: u64| if spent.all < FEW_TICKS { 0 } else { part.saturating_mul(100).checked_div(spent.all).unwrap_or(0) };
        let busy = percent(spent.all.saturating_sub(spent.idle));
        if busy >= BUSY_PERCENT {
            told.push(format!(
                "the processors were {busy} % busy: the client and the server may have waited for each other. Fewer clients (-c), a --rate, or a server on another machine measure the path rather than the processors"
            ));
        }
        let stolen = percent(spent.steal);
        if stolen >= STEAL_PERCENT {
            told.push(format!("the host took {stolen} % of the processors' time (steal): measure again when it is quieter"));
        }
        told
    }
}

impl Cpu {
    /// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
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
        Reading { counters: [("ListenOverflows".to_owned(), overflows)].into(), cpu: Cpu::parse(cpu) }
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
    }
}
