//! With and without the tracer, alternating: how long it takes to be armed, and what it costs a connection.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use wsltrace::lab::{Lab, PORT};
use wsltrace_tests::process::Memory;

use crate::connect::{self, OTHER_PORT};
use crate::say;

const PAIRS: usize = 9;
const CONNECTIONS: usize = 3000;

/// What was measured in one half of a pair.
struct Half {
    traced: Duration,
    other: Duration,
}

impl Half {
    fn measure(lab: &Lab) -> Result<Self, Box<dyn Error>> {
        Ok(Self { traced: connect::median(lab, PORT, CONNECTIONS)?, other: connect::median(lab, OTHER_PORT, CONNECTIONS)? })
    }
}

/// Prints start and latency, for each detail.
pub(crate) fn measure(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = connect::lab()?;
    // Caches, neighbours and page tables are warm before the first pair.
    Half::measure(&lab)?;
    ["auto", "full", "light"].into_iter().try_for_each(|detail| details(binary, &lab, detail))
}

fn details(binary: &Path, lab: &Lab, detail: &str) -> Result<(), Box<dyn Error>> {
    let (mut without, mut with, mut armed, mut memory) = (Vec::new(), Vec::new(), Vec::new(), None);
    for pair in 0..PAIRS {
        // Which comes first alternates too.
        if pair % 2 == 0 {
            without.push(Half::measure(lab)?);
        }
        let began = Instant::now();
        let tracer = connect::armed_tracer(binary, lab, detail)?;
        armed.push(began.elapsed());
        memory = Some(Memory::of(tracer.pid().as_raw())?);
        with.push(Half::measure(lab)?);
        tracer.stop()?;
        if pair % 2 == 1 {
            without.push(Half::measure(lab)?);
        }
    }
    say(&format!("\n--detail {detail}: {PAIRS} pairs with and without the tracer, {CONNECTIONS} connections a port and half"));
    say(&row("from exec to armed, ms", &armed, 1_000.0));
    if let Some(memory) = memory {
        say(&format!("  memory when armed: {memory}"));
    }
    for (name, of) in [("traced", (|half| half.traced) as fn(&Half) -> Duration), ("untraced", |half| half.other)] {
        let (without, with): (Vec<_>, Vec<_>) = (without.iter().map(of).collect(), with.iter().map(of).collect());
        say(&row(&format!("p50 of connect, {name} port, without, µs"), &without, 1e6));
        say(&row(&format!("p50 of connect, {name} port, with, µs"), &with, 1e6));
        let mut differences: Vec<f64> =
            with.iter().zip(&without).map(|(with, without)| micros(*with) - micros(*without)).collect();
        differences.sort_by(f64::total_cmp);
        let spread = differences.iter().map(|difference| format!("{difference:+.1}")).collect::<Vec<_>>().join(" ");
        say(&format!("  added, µs: median {:+.1}  ({spread})", differences[PAIRS / 2]));
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The median and all values, sorted.
fn row(name: &str, values: &[Duration], per_second: f64) -> String {
    let mut values: Vec<f64> = values.iter().map(|value| value.as_secs_f64() * per_second).collect();
    values.sort_by(f64::total_cmp);
    let all = values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(" ");
    format!("  {name}: median {:.1}  ({all})", values[values.len() / 2])
}
