//! The interval log of `HdrHistogram`, version 2: a line for each round of each path, tagged with the path, nanoseconds. Attempts count
//! from their intended start; with `.service` behind the path's name, from their real one. With `.traced` before that, the tracer was on,
//! as in a run that was ended before its first round without it.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use jiff::Timestamp;

use super::rounds::Path;

/// The largest value of a line is shown in milliseconds, as the tools that draw such logs expect.
const DIVISOR: f64 = 1e6;

/// The whole log; `start` is when the first round began.
pub fn log(paths: &[Path], many_modes: bool, start: Timestamp) -> io::Result<Vec<u8>> {
    let since_epoch = Duration::try_from(start.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    let (mut lines, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&format!("[wsltrace {}: nanoseconds an attempt]", env!("CARGO_PKG_VERSION")))
        .with_start_time(SystemTime::UNIX_EPOCH + since_epoch)
        .with_base_time(SystemTime::UNIX_EPOCH + since_epoch)
        .with_max_value_divisor(DIVISOR);
    let mut writer = builder.begin_log_with(&mut lines, &mut serializer)?;
    let mut rounds: Vec<_> = paths.iter().flat_map(|path| path.shown().iter().map(move |round| (path, round))).collect();
    rounds.sort_by_key(|(_, round)| round.began);
    for (path, round) in rounds {
        let name = tag(&path.name(many_modes)) + if path.is_with_tracer() { ".traced" } else { "" };
        for (name, histogram) in [(name.clone(), &round.waited), (format!("{name}.service"), &round.service)] {
            let written = writer.write_histogram(histogram, round.began, round.lasted, Tag::new(&name));
            written.map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
    }
    Ok(lines)
}

/// A name without what separates the fields of a line.
fn tag(name: &str) -> String {
    name.replace([',', ' ', '\r', '\n'], "_").replace("__", "_")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::attempt::Mode;
    use super::super::tally::Tally;
    use super::super::target::Resolved;
    use super::*;

    #[test]
    fn the_log_is_read_by_the_library() {
        let round = |began: u64, ns: u64| {
            let (began, lasted) = (Duration::from_secs(began), Duration::from_secs(1));
            let mut tally = Tally { began, lasted, ..Tally::default() };
            tally.answered(Duration::from_nanos(ns), Duration::from_nanos(ns / 2), false);
            tally
        };
        let address = "127.0.0.1:80".parse().unwrap();
        let target = Resolved { name: "a, b".to_owned(), host: String::new(), address };
        let paths = [Path { rounds: vec![round(3, 2_000), round(1, 1_000)], ..Path::new(target, Mode::Http) }];
        let own = |name: &str, second| (name.to_owned(), second);
        assert_eq!(lines(&paths), [own("a_b", 1), own("a_b.service", 1), own("a_b", 3), own("a_b.service", 3)]);
        let [path] = paths;
        let paths = [Path { traced: path.rounds[1..].to_vec(), rounds: Vec::new(), ..path }];
        assert_eq!(lines(&paths), [own("a_b.traced", 1), own("a_b.traced.service", 1)]);
    }

    fn lines(paths: &[Path]) -> Vec<(String, u64)> {
        let log = log(paths, false, Timestamp::UNIX_EPOCH).unwrap();
        let read = IntervalLogIterator::new(&log).filter_map(|entry| match entry.unwrap() {
            LogEntry::Interval(line) => Some((line.tag().unwrap().as_str().to_owned(), line.start_timestamp().as_secs())),
            _ => None,
        });
        read.collect()
    }
}
