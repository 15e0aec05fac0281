//! What spoils a measurement: read before and after it, and told with what helps.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::evidence::counters;
use crate::kernel::containers::Joined;
use crate::kernel::netns::Netns;

/// A busier machine measures itself.
const BUSY_PERCENT: u64 = 95;
/// More time taken by the host than this shows in what is measured.
const STEAL_PERCENT: u64 = 3;

/// Fewer ticks of all processors together are no share of a time.
const FEW_TICKS: u64 = 20;

/// A network namespace whose counters tell.
#[derive(Debug)]
pub struct Place {
    netns: Netns,
    /// What it is called.
    name: String,
    /// The words before a command that run it there.
    entrance: Option<String>,
}

impl Place {
    /// This Linux.
    pub fn here(netns: Netns) -> Self {
        Self { netns, name: "this Linux".to_owned(), entrance: None }
    }

    /// A container.
    pub fn container(joined: Joined) -> Self {
        let entrance = joined.netns.entrance();
        Self { netns: joined.netns, name: format!("the container behind {}", joined.through), entrance }
    }

    /// A namespace of the lab, which nobody enters.
    pub fn of_lab(netns: Netns, name: &str) -> Self {
        Self { netns, name: format!("the lab's {name}"), entrance: None }
    }

    fn overflows(&self) -> io::Result<u64> {
        Ok(counters::read(&self.netns)?.get("ListenOverflows").copied().unwrap_or(0))
    }

    /// That listening sockets here had no room so many times.
    fn overflowed(&self, times: u64) -> Option<String> {
        let Self { name, entrance, .. } = self;
        let entrance = entrance.as_ref().map(|entrance| format!("{entrance} ")).unwrap_or_default();
        (times > 0).then(|| {
            format!(
                "a listening socket of {name} had no room for {times} connections (ListenOverflows): a client waits a second or more then. Give the server a longer backlog, then: sudo {entrance}sysctl -w net.core.somaxconn=65535, and restart the server, which has its queue from when it began to listen"
            )
        })
    }
}

/// A reading of the machine.
#[derive(Debug)]
pub struct Reading {
    places: Vec<Place>,
    /// By place, how many connections listening sockets had no room for.
    overflows: Vec<u64>,
    processors: Processors,
}

/// Time of the processors.
#[derive(Debug, Default)]
struct Processors {
    /// Of all together.
    all: Cpu,
    /// Of each, by its number.
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
    /// Reads the processors' time and the counters of these places.
    pub fn take(places: Vec<Place>) -> io::Result<Self> {
        let overflows = places.iter().map(Place::overflows).collect::<io::Result<_>>()?;
        Ok(Self { places, overflows, processors: Processors::read()? })
    }

    /// The queues that were too short since it was taken, or since this was asked last.
    pub fn overflowed(&mut self) -> io::Result<Vec<String>> {
        let mut told = Vec::new();
        for (place, before) in self.places.iter().zip(&mut self.overflows) {
            let now = place.overflows()?;
            told.extend(place.overflowed(now.saturating_sub(std::mem::replace(before, now))));
        }
        Ok(told)
    }

    /// What happened since, each in a sentence with what helps; `no_port` attempts found no free port.
    pub fn spoilt_until_now(mut self, no_port: u64) -> io::Result<Vec<String>> {
        let mut told = self.overflowed()?;
        if no_port > 0 {
            told.push(format!(
                "{no_port} attempts found no free port on the client's side: use --keep-alive on, a lower --rate, or: sudo sysctl -w net.ipv4.ip_local_port_range='1024 65535'"
            ));
        }
        told.extend(self.processors.spoilt_until(&Processors::read()?));
        Ok(told)
    }
}

impl Processors {
    fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/stat")?))
    }

    fn parse(stat: &str) -> Self {
        let number = |line: &str| line.strip_prefix("cpu")?.split(' ').next()?.parse().ok();
        let each = stat.lines().filter_map(|line| Some((number(line)?, Cpu::parse(line)))).collect();
        Self { all: Cpu::parse(stat), each }
    }

    fn spoilt_until(&self, now: &Self) -> Vec<String> {
        let mut told = Vec::new();
        let spent = self.all.until(now.all);
        let busy = spent.busy();
        let full = now.each.iter().filter_map(|(number, cpu)| Some((number, self.each.get(number)?.until(*cpu).busy())));
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
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn since(before: &str, now: &str) -> Vec<String> {
        Processors::parse(before).spoilt_until(&Processors::parse(now))
    }

    #[test]
    fn each_spoiler_is_told_with_what_helps() {
        let before = "cpu 100 0 100 800 0 0 0 0 0 0\n";
        assert!(since(before, "cpu 110 0 110 980 0 0 0 0 0 0\n").is_empty());
        // Too short to tell.
        assert!(since(before, "cpu 109 0 109 800 0 0 0 0 0 0\n").is_empty());
        let told = since(before, "cpu 190 0 190 800 0 0 0 20 0 0\n");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("100 % busy") && told[1].contains("10 %"), "{told:?}");
        // One of two, which the mean hides.
        let of_two = |first: u64, second: u64| {
            let line = |name: &str, busy: u64, idle: u64| format!("{name} {busy} 0 0 {idle} 0 0 0 0 0 0\n");
            let all = line("cpu", first + second, 2_000 - first - second);
            all + &line("cpu0", first, 1_000 - first) + &line("cpu1", second, 1_000 - second) + "intr 7 0\n"
        };
        let told = since("cpu 0\ncpu0 0\ncpu1 0\n", &of_two(100, 970));
        assert!(matches!(&told[..], [one] if one.starts_with("processor 1 was 97 % busy")), "{told:?}");
        assert!(since("cpu 0\ncpu0 0\ncpu1 0\n", &of_two(600, 700)).is_empty());
    }

    #[test]
    fn a_queue_that_was_full_is_told_with_where_it_is() {
        let here = Place::here(Netns::current().unwrap());
        assert_eq!(here.overflowed(0), None);
        let told = here.overflowed(4).unwrap();
        assert!(told.contains("of this Linux had no room for 4 connections") && told.contains("sudo sysctl -w"), "{told}");
        let container =
            Place { name: "the container behind veth1".to_owned(), entrance: Some("nsenter -t 7 -n".to_owned()), ..here };
        let told = container.overflowed(1).unwrap();
        assert!(told.contains("of the container behind veth1 had") && told.contains("sudo nsenter -t 7 -n sysctl -w"), "{told}");
        let reading = Reading::take(vec![container]).unwrap();
        let told = reading.spoilt_until_now(3).unwrap();
        assert!(told[0].contains("3 attempts found no free port"), "{told:?}");
    }
}
