//! Running QEMU: what the guest reports, line by line, and how it ends.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use crate::{
    command::{self, clean},
    error::Error,
};

/// The longest time between two lines of a guest that is alive. The slowest scenario waits for two minutes at most.
const SILENCE: Duration = Duration::from_mins(5);

/// How a guest ended.
#[derive(Debug)]
pub(crate) enum End {
    /// QEMU ended by itself: the guest powered itself off, or its kernel panicked.
    Over(ExitStatus),
    /// It said nothing for this long, and was killed.
    Silent(Duration),
    /// It was still busy after this long, and was killed.
    Overdue(Duration),
}

/// Kills QEMU when we leave, whichever way.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it is gone already, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What QEMU is to run.
pub(crate) struct Machine {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// The file that the kernel's console goes to.
    pub(crate) console: PathBuf,
    pub(crate) processors: u32,
}

/// Boots the machines at the same time and hands over every line that a guest reports, with its index. How each ended.
pub(crate) fn run_all(machines: Vec<Machine>, limit: Duration, mut read: impl FnMut(usize, &str)) -> Result<Vec<End>, Error> {
    let (send, lines) = mpsc::channel();
    let guests: Vec<_> = machines
        .into_iter()
        .enumerate()
        .map(|(index, machine)| {
            let send = send.clone();
            // The receiver lives as long as a sender does.
            thread::spawn(move || run(&machine, limit, |line| drop(send.send((index, line.to_owned())))))
        })
        .collect();
    drop(send);
    for (index, line) in lines {
        read(index, &line);
    }
    guests.into_iter().map(|guest| guest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
}

/// Boots the kernel and hands over every line that the guest reports.
fn run(machine: &Machine, limit: Duration, mut read: impl FnMut(&str)) -> Result<End, Error> {
    let mut qemu = qemu(machine);
    let error = |source| Error::Start { command: command::line(&self::qemu(machine)), source };
    let mut running = Running(qemu.spawn().map_err(error)?);
    let Some(output) = running.0.stdout.take() else { return Err(error(io::Error::other("no pipe to it"))) };
    let (send, lines) = mpsc::channel();
    // Ends with the pipe, which QEMU closes when it ends or is killed.
    thread::spawn(move || BufReader::new(output).split(b'\n').try_for_each(|line| send.send(line)));

    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        match lines.recv_timeout(left.min(SILENCE)) {
            Ok(line) => read(String::from_utf8_lossy(&line.map_err(error)?).trim_end()),
            Err(RecvTimeoutError::Disconnected) => return running.0.wait().map(End::Over).map_err(error),
            Err(RecvTimeoutError::Timeout) if left <= SILENCE => return Ok(End::Overdue(limit)),
            Err(RecvTimeoutError::Timeout) => return Ok(End::Silent(SILENCE)),
        }
    }
}

/// One processor by default: each has a thread, and QEMU 7.2 lets one run code that another is patching. Linux 7.2 dies of it at
/// every boot, of an int3, and 6.12 at one boot in some dozens. And `-cx16`, because it emulates cmpxchg16b wrongly, of which
/// guests die at random. The plain model, because the wide instructions of `max`, and its `rep movsb` for every copy, are emulated slowly:
/// it takes a sixth more time for the same scenarios. A panic ends the guest (`panic=-1` reboots, `-no-reboot` makes that the end).
fn qemu(machine: &Machine) -> Command {
    let mut qemu = clean("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64,-cx16", "-smp", &machine.processors.to_string()]);
    qemu.args(["-m", "2048", "-no-reboot", "-nodefaults", "-display", "none"]);
    qemu.args(["-append", "console=ttyS0 panic=-1 mitigations=off quiet", "-kernel"]).arg(&machine.kernel);
    qemu.arg("-initrd").arg(&machine.initramfs).arg("-serial").arg(format!("file:{}", machine.console.display()));
    qemu.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: between fork and exec this only makes one system call, which is async-signal-safe.
    unsafe { qemu.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)) };
    qemu
}

/// The last lines of the kernel's console.
pub(crate) fn tail(console: &Path) -> String {
    const LINES: usize = 30;
    let Ok(bytes) = fs::read(console) else { return String::new() };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text.lines().map(|line| line.trim_end().escape_debug().to_string()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
