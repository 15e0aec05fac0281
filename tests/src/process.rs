//! What a running process takes: memory and time.

use std::fmt;

use procfs::ProcResult;
use procfs::process::Process;

/// Resident memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now, KiB.
    pub resident_kib: u64,
    /// The most it ever was, KiB.
    pub peak_kib: u64,
}

impl Memory {
    /// Of a process that lives.
    pub fn of(pid: i32) -> ProcResult<Self> {
        let status = Process::new(pid)?.status()?;
        Ok(Self { resident_kib: status.vmrss.unwrap_or(0), peak_kib: status.vmhwm.unwrap_or(0) })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| {
            let tenths = kib * 10 / 1024;
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        };
        write!(f, "{} resident, {} at most", mib(self.resident_kib), mib(self.peak_kib))
    }
}

/// CPU time of a process, by thread.
#[derive(Clone, Debug, Default)]
pub struct Usage(Vec<Thread>);

#[derive(Clone, Debug)]
struct Thread {
    id: i32,
    name: String,
    user_ms: u64,
    system_ms: u64,
}

impl Usage {
    /// Of a process that lives, since its start. Threads that have ended are not in it.
    pub fn of(pid: i32) -> ProcResult<Self> {
        let ticks = procfs::ticks_per_second();
        let ms = |time: u64| time * 1000 / ticks;
        let mut threads = Vec::new();
        for task in Process::new(pid)?.tasks()? {
            let stat = task?.stat()?;
            threads.push(Thread { id: stat.pid, name: stat.comm, user_ms: ms(stat.utime), system_ms: ms(stat.stime) });
        }
        Ok(Self(threads))
    }

    /// What was used since an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |id| earlier.0.iter().find(|thread| thread.id == id).map_or((0, 0), |t| (t.user_ms, t.system_ms));
        let threads = self.0.iter().map(|thread| {
            let (user, system) = before(thread.id);
            Thread { user_ms: thread.user_ms - user, system_ms: thread.system_ms - system, ..thread.clone() }
        });
        Self(threads.collect())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, thread) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {} ms user {} ms system", thread.name, thread.user_ms, thread.system_ms)?;
        }
        Ok(())
    }
}
