//! What a probe costs while nothing is followed: the programs of a running tracer, as the kernel runs them, are followed instruction
//! by instruction along the way that a packet takes at rest.
//!
//! How the way is followed: the kernel gives each program as the verifier left it (constants folded, dead code gone). From the first
//! instruction on, registers are known or unknown; the context in r1 is unknown. A load from one of the tracer's maps gives the bytes
//! that the map really holds at this moment, when no packet is under way: so the load of the counter of journeys in flight gives
//! zero. A branch on a known value is taken or not; a branch on an unknown one means that the way depends on the packet, and fails,
//! as a call of a helper or of another function does. The way must end in `exit` within a dozen instructions.
//!
//! That it is this counter which decides is shown by following the way once more with every byte of the maps set: then it must not
//! end so soon.
//!
//! Two entrances are let off, because a journey can begin there: `tc_ingress` looks at each packet's flags and port, and
//! `nf_output` at the state of the sending socket. `collect` is attached to nothing.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use aya::programs::loaded_programs;
use aya_obj::generated::bpf_insn;
use libtest_mimic::{Arguments, Trial};
use wsltrace::lab::{Lab, Tracer};
use wsltrace::probe::Detail;
use wsltrace_tests::bpf::{array_value, program, translated};
use wsltrace_tests::decide;
use wsltrace_tests::leftovers::{Object, held_by};

/// Most instructions on the way at rest.
const DOZEN: usize = 12;
/// Programs that are let off, the entrances and those that no packet runs; names as the kernel cuts them.
const ENTRANCES: [&str; 5] = ["tc_ingress", "tc_ingress_l3", "nf_output", "collect", "list_hooks"];
/// `--detail full` has 31 netfilter positions.
const NETFILTER: usize = 31;

fn main() {
    let name = "probes_sleep_in_a_dozen_instructions";
    let trial = Trial::ignorable_test(name, move || decide(name, probes_sleep));
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

fn probes_sleep(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let mut tracer = Tracer::start_json(binary, &lab.wsl, Detail::Full)?;
    tracer.await_armed()?;
    let held = held_by(tracer.pid().as_raw().cast_unsigned())?;
    let mut netfilter = 0;
    for info in loaded_programs() {
        let info = info?;
        if !held.contains(&Object::Program(info.id())) {
            continue;
        }
        let name = info.name_as_str().unwrap_or_default().to_owned();
        netfilter += usize::from(name.starts_with("nf_"));
        if ENTRANCES.contains(&name.as_str()) {
            continue;
        }
        let instructions = translated(&program(info.id())?)?;
        let at_rest = follow(&instructions, &mut |map, offset, length| read(map, offset, length));
        let steps = at_rest.map_err(|why| format!("{name}: {why}\n{}", listing(&instructions)))?;
        say(&format!("{name}: {steps} instructions at rest, {} in all", instructions.len()));
        if let Ok(steps) = follow(&instructions, &mut |_, _, _| Ok(u64::MAX)) {
            return Err(format!("{name} ends after {steps} instructions although something is under way").into());
        }
    }
    if netfilter != NETFILTER {
        return Err(format!("{netfilter} netfilter programs are loaded, expected {NETFILTER}").into());
    }
    tracer.stop()?;
    Ok(())
}

/// What is known of a register.
#[derive(Clone, Copy)]
enum Value {
    Unknown,
    Number(u64),
    /// A place in the only value of a map: the map's id, and the offset.
    Place(u32, u32),
}

/// Reads an integer of so many bytes in a map.
type Read<'a> = &'a mut dyn FnMut(u32, u32, usize) -> Result<u64, Box<dyn Error>>;

/// Follows the way from the entry to `exit`; gives the number of instructions on it.
fn follow(instructions: &[bpf_insn], read: Read<'_>) -> Result<usize, Box<dyn Error>> {
    const LOAD_IMMEDIATE: u8 = 0x18;
    const MOVE_IMMEDIATE: u8 = 0xb7;
    const MOVE: u8 = 0xbf;
    const JUMP: u8 = 0x05;
    const EXIT: u8 = 0x95;
    const CALL: u8 = 0x85;
    const PSEUDO_MAP_VALUE: u8 = 2;

    let mut registers = BTreeMap::new();
    let mut at = 0_usize;
    for step in 1..=DOZEN {
        let instruction = instructions.get(at).ok_or("the way leaves the program")?;
        let (to, from) = (instruction.dst_reg(), instruction.src_reg());
        let value = |register: u8| registers.get(&register).copied().unwrap_or(Value::Unknown);
        let immediate = i64::from(instruction.imm).cast_unsigned();
        at += 1;
        match instruction.code {
            EXIT => return Ok(step),
            CALL => return Err(format!("instruction {} is a call", at - 1).into()),
            JUMP => at = target(at, *instruction)?,
            LOAD_IMMEDIATE => {
                let high = instructions.get(at).ok_or("a load of two halves has only one")?.imm.cast_unsigned();
                at += 1;
                let low = instruction.imm.cast_unsigned();
                let loaded = if from == PSEUDO_MAP_VALUE {
                    Value::Place(low, high)
                } else {
                    Value::Number(u64::from(high) << 32 | u64::from(low))
                };
                registers.insert(to, loaded);
            }
            MOVE_IMMEDIATE => _ = registers.insert(to, Value::Number(immediate)),
            MOVE => _ = registers.insert(to, value(from)),
            code => match code & 7 {
                // LDX
                1 => {
                    let length = [4, 2, 1, 8][usize::from(code >> 3 & 3)];
                    let loaded = match value(from) {
                        Value::Place(map, offset) => {
                            let offset = offset.checked_add_signed(instruction.off.into()).ok_or("an offset below the map")?;
                            Value::Number(read(map, offset, length)?)
                        }
                        _ => Value::Unknown,
                    };
                    registers.insert(to, loaded);
                }
                // ST and STX: to the stack
                2 | 3 => {}
                // JMP and JMP32 of 32 bits
                5 | 6 => {
                    let Value::Number(value) = value(to) else {
                        return Err(format!("the branch at {} depends on the packet", at - 1).into());
                    };
                    let value = if code & 7 == 6 { value & 0xffff_ffff } else { value };
                    let is_taken = match code & 0xf8 {
                        0x10 => value == immediate,
                        0x50 => value != immediate,
                        other => return Err(format!("the branch at {} is of the kind {other:#x}", at - 1).into()),
                    };
                    if is_taken {
                        at = target(at, *instruction)?;
                    }
                }
                // ALU
                _ => _ = registers.insert(to, Value::Unknown),
            },
        }
    }
    Err(format!("no end after {DOZEN} instructions").into())
}

/// Where a jump goes: `at` is the place behind it.
fn target(at: usize, jump: bpf_insn) -> Result<usize, Box<dyn Error>> {
    Ok(at.checked_add_signed(jump.off.into()).ok_or("a jump before the program")?)
}

/// What a map holds now.
fn read(map: u32, offset: u32, length: usize) -> Result<u64, Box<dyn Error>> {
    let value = array_value(map)?;
    let bytes = value.get(offset as usize..).and_then(|rest| rest.get(..length)).ok_or("a load from behind the map's value")?;
    let mut number = [0; 8];
    number[..length].copy_from_slice(bytes);
    Ok(u64::from_le_bytes(number))
}

/// The beginning of a program, for people.
fn listing(instructions: &[bpf_insn]) -> String {
    let lines = instructions.iter().take(2 * DOZEN).enumerate();
    let lines = lines.map(|(at, i)| {
        format!("{at:>4}: code {:#04x} dst r{} src r{} off {} imm {:#x}", i.code, i.dst_reg(), i.src_reg(), i.off, i.imm)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[expect(clippy::print_stdout, reason = "what a reader of the test's output needs")]
fn say(text: &str) {
    println!("{text}");
}
