//! Whether this kernel runs no program on a tracepoint while process 1 is the current task, and counts no missed one either
//! (ARCHITECTURE.md): then now and then a tracer cannot know how a packet ended, and says so.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use aya_obj::generated::{bpf_cmd, bpf_insn};

use super::LabError;
use super::foreign::{EXIT, bpf, call, empty_attr, instruction, load_as, number, owned, set};

/// How often process 1 must have left a processor unseen.
const SWITCHES: u64 = 3;
/// How long it may take to do so, which it does whenever it has slept.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing tells when another process has been switched: its counters are looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether this kernel keeps tracepoints from us over process 1. The answer is looked for once.
pub(super) fn over_process_1() -> Result<bool, LabError> {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if let Some(answer) = ANSWER.get() {
        return Ok(*answer);
    }
    let answer = look().map_err(LabError::io::<io::Error>("see whether the kernel withholds tracepoints over process 1"))?;
    Ok(*ANSWER.get_or_init(|| answer))
}

/// Counts by a program on `sched_switch`, where the current task is the one that leaves, and beside it by the task's own counters.
fn look() -> io::Result<bool> {
    // Elsewhere /proc tells of another process 1 than the kernel does.
    if !is_first_namespace()? {
        return Ok(false);
    }
    let seen = map_of_one()?;
    let program = load_as((RAW_TRACEPOINT, 0), &marking(&seen))?;
    let _attached = attach(&program, c"sched_switch")?;
    let (before, end) = (switches()?, Instant::now() + PATIENCE);
    while switches()?.saturating_sub(before) < SWITCHES {
        if Instant::now() > end {
            // It has slept all the time, and nothing was to be seen.
            return Ok(false);
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(value(&seen)? == 0)
}

fn is_first_namespace() -> io::Result<bool> {
    /// `PROC_PID_INIT_INO` of the kernel.
    const FIRST: &str = "pid:[4026531836]";
    Ok(fs::read_link("/proc/self/ns/pid")?.as_os_str() == FIRST)
}

/// How often the threads of process 1 have left a processor.
fn switches() -> io::Result<u64> {
    let mut all = 0;
    for thread in fs::read_dir("/proc/1/task")? {
        // A thread may have ended meanwhile.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
        all += counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(all)
}

const RAW_TRACEPOINT: u32 = 17;

/// Sets the map's value when the current task is one of process 1.
fn marking(map: &OwnedFd) -> Vec<bpf_insn> {
    const CURRENT_PID_TGID: i32 = 14;
    const MAP_VALUE: u8 = 2;
    vec![
        call(CURRENT_PID_TGID),
        // The process is the upper half.
        instruction(0x77, 0, 0, 0, 32),
        instruction(0x55, 0, 0, 3, 1),
        instruction(0x18, 1, MAP_VALUE, 0, map.as_raw_fd()),
        instruction(0, 0, 0, 0, 0),
        instruction(0x7a, 1, 0, 0, 1),
        set(0, 0),
        EXIT,
    ]
}

/// A map with one value of eight bytes.
fn map_of_one() -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_MAP_CREATE; all of it is zero.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    (create.map_type, create.key_size, create.value_size, create.max_entries) = (ARRAY, 4, 8, 1);
    owned(bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)?)
}

fn value(map: &OwnedFd) -> io::Result<u64> {
    let (key, mut value) = (0_u32, 0_u64);
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_MAP_LOOKUP_ELEM; all of it is zero.
    let lookup = unsafe { &mut attr.__bindgen_anon_2 };
    lookup.map_fd = number(map)?;
    lookup.key = (&raw const key) as u64;
    lookup.__bindgen_anon_1.value = (&raw mut value) as u64;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(value)
}

/// The start of `bpf_attr` as `BPF_RAW_TRACEPOINT_OPEN` reads it.
#[repr(C)]
struct RawTracepoint {
    name: u64,
    program: u32,
    rest: u32,
}

fn attach(program: &OwnedFd, tracepoint: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    let open = RawTracepoint { name: tracepoint.as_ptr() as u64, program: number(program)?, rest: 0 };
    const { assert!(mem::size_of::<RawTracepoint>() <= mem::size_of::<aya_obj::generated::bpf_attr>()) };
    // SAFETY: `bpf_attr` is larger than the structure, has its alignment, and is made of integers.
    unsafe { (&raw mut attr).cast::<RawTracepoint>().write(open) };
    owned(bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
mod tests {
    use super::*;

    /// The program sees whichever process it is asked for, if the kernel lets it: this one, for example.
    #[test]
    fn what_leaves_a_processor_is_seen() {
        if crate::lab::cannot_run("what_leaves_a_processor_is_seen") {
            return;
        }
        let own = i32::try_from(std::process::id()).unwrap();
        let seen = map_of_one().unwrap();
        let mut instructions = marking(&seen);
        instructions[2] = instruction(0x55, 0, 0, 3, own);
        let program = load_as((RAW_TRACEPOINT, 0), &instructions).unwrap();
        let attached = attach(&program, c"sched_switch").unwrap();
        // Who sleeps leaves the processor.
        thread::sleep(LOOK_EVERY);
        assert_eq!(value(&seen).unwrap(), 1);
        drop(attached);
        assert!(switches().unwrap() > 0);
        over_process_1().unwrap();
    }
}
