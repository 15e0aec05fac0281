//! What the figures are from.

use std::error::Error;
use std::fs;

use crate::say;

/// Prints processor, memory and kernel, and what else keeps the machine busy.
pub(crate) fn print() -> Result<(), Box<dyn Error>> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    let cpus = read("/proc/cpuinfo")?;
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("unknown", |(_, name)| name);
    let memory = read("/proc/meminfo")?;
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease")?;
    say(&format!("machine: {} × {model}, {} GiB", std::thread::available_parallelism()?, memory >> 20));
    say(&format!("kernel: {}", kernel.trim()));
    say(&format!("load average before: {}", read("/proc/loadavg")?.trim()));
    Ok(())
}
