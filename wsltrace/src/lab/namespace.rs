//! One anonymous network namespace, and doing things inside it.
//!
//! It is held by a child process that reads a pipe from us: when we end, by whatever signal, the pipe closes, the child
//! ends, and the namespace with it. A process rather than a thread, so that it can be found as /proc/PID/ns/net.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::sched::{CloneFlags, setns, unshare};

use super::LabError;

/// How long a counter may take to rise as far as it must.
const COUNTER_PATIENCE: Duration = Duration::from_secs(20);
/// How often it is read meanwhile.
const COUNTER_PACE: Duration = Duration::from_millis(50);

/// An anonymous network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: &'static str,
    /// The nftables table that [`Namespace::nft`] fills.
    pub(super) table: &'static str,
    holder: Child,
    file: File,
    inode: u32,
}

impl Namespace {
    /// Makes a namespace; `name` is for messages only. Fails without `CAP_SYS_ADMIN`.
    pub fn new(name: &'static str) -> Result<Self, LabError> {
        let mut command = Command::new("cat");
        // In a group of its own: Ctrl-C at the terminal is for us, who still have to take the namespace down.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        // SAFETY: between fork and exec this only makes one system call, which is async-signal-safe.
        unsafe { command.pre_exec(|| unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)) };
        let holder = command.spawn().map_err(LabError::io(format!("make the network namespace {name} (run as root)")))?;
        let path = format!("/proc/{}/ns/net", holder.id());
        let open = || Ok::<_, io::Error>((File::open(&path)?, fs::metadata(&path)?.ino()));
        let (file, inode) = open().map_err(LabError::io(format!("open {path}")))?;
        let inode = u32::try_from(inode).map_err(|e| LabError::Failed(format!("namespace inode {inode}: {e}")))?;
        let namespace = Self { name, table: "lab", holder, file, inode };
        namespace.reset_sysctls()?;
        Ok(namespace)
    }

    /// What it is called in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where other processes can open it, as long as it lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// Its inode number, by which the kernel and the tracer know it.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets and children made there belong to it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
        let enter_and_work = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(LabError::io(format!("enter namespace {}", self.name)))?;
            work()
        };
        thread::scope(|scope| match scope.spawn(enter_and_work).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Writes a network sysctl, named with slashes or dots: `net.ipv4.ip_forward`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| fs::write(&path, value).map_err(LabError::io(format!("write {value} to {path}"))))
    }

    /// A counter of /proc/net/snmp or /proc/net/netstat, such as `TcpExt`, `ListenOverflows`, or of `xfrm_stat` beside them (`Xfrm`).
    pub fn counter(&self, group: &str, name: &str) -> Result<u64, LabError> {
        self.run(|| {
            let read = |file: &str| {
                // Not /proc/net: that is the namespace of the process's first thread.
                let path = format!("/proc/thread-self/net/{file}");
                fs::read_to_string(&path).map_err(LabError::io(format!("read {path}")))
            };
            let found = if group == "Xfrm" {
                read("xfrm_stat")?.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            } else {
                find_counter(&(read("snmp")? + &read("netstat")?), group, name)
            };
            found.ok_or_else(|| LabError::Unsupported(format!("this kernel has no counter {group}.{name}")))
        })
    }

    /// Waits until a counter of the kernel has come so far. The kernel tells nobody when one rises, so it is read again and again.
    pub(super) fn await_counter(&self, group: &str, name: &str, wanted: u64) -> Result<(), LabError> {
        let end = Instant::now() + COUNTER_PATIENCE;
        while self.counter(group, name)? < wanted {
            if Instant::now() >= end {
                return Err(LabError::Failed(format!(
                    "{group}.{name} has not come to {wanted} in {} s",
                    COUNTER_PATIENCE.as_secs()
                )));
            }
            thread::sleep(COUNTER_PACE);
        }
        Ok(())
    }

    /// A new namespace inherits some of the host's settings: the lab must not depend on them.
    fn reset_sysctls(&self) -> Result<(), LabError> {
        let mut settings = vec![("net.ipv4.ip_forward", "0"), ("net.ipv4.tcp_syncookies", "1")];
        for (all, default, value) in [
            ("net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv4.conf.all.route_localnet", "net.ipv4.conf.default.route_localnet", "0"),
            ("net.ipv4.conf.all.accept_local", "net.ipv4.conf.default.accept_local", "0"),
        ] {
            settings.extend([(all, value), (default, value)]);
        }
        if ipv6_available() {
            settings.extend([
                ("net.ipv6.conf.all.disable_ipv6", "0"),
                ("net.ipv6.conf.default.disable_ipv6", "0"),
                ("net.ipv6.conf.default.accept_dad", "0"),
                ("net.ipv6.conf.default.accept_ra", "0"),
            ]);
        }
        if fs::exists("/proc/sys/net/bridge/bridge-nf-call-iptables").map_err(LabError::io("look for br_netfilter"))? {
            settings.extend([("net.bridge.bridge-nf-call-iptables", "0"), ("net.bridge.bridge-nf-call-ip6tables", "0")]);
        }
        settings.into_iter().try_for_each(|(name, value)| self.set_sysctl(name, value))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Both fail only when the holder is gone already, which is what they are for.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Whether this kernel has IPv6.
pub(super) fn ipv6_available() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").is_dir()
}

/// Finds a value in the two-line format of /proc/net/snmp: a line of names, then a line of values.
fn find_counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let rows: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(": ")).filter(|row| row.0 == group).collect();
    let [(_, names), (_, values)] = rows.as_slice() else { return None };
    let position = names.split_whitespace().position(|n| n == name)?;
    values.split_whitespace().nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::find_counter;

    #[test]
    fn counters_are_found_by_group_and_name() {
        let text = "Ip: Forwarding InAddrErrors\nIp: 1 7\nTcpExt: A ListenOverflows\nTcpExt: 5 9\n";
        assert_eq!(find_counter(text, "Ip", "InAddrErrors"), Some(7));
        assert_eq!(find_counter(text, "TcpExt", "ListenOverflows"), Some(9));
        assert_eq!(find_counter(text, "TcpExt", "Missing"), None);
        assert_eq!(find_counter(text, "Tcp", "A"), None);
    }
}
