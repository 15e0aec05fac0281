//! Whether the tool can run here: everything that is wrong, at once, each with what to type. A pure function over facts, and
//! the gathering of them.

use std::fs;
use std::io;
use std::path::Path;

use crate::wsl::Wsl;

/// The oldest kernel that can be traced, by what it brought.
const OLDEST: (u32, u32) = (6, 6);

/// The capabilities that are needed, by their numbers in the kernel, with what for.
const CAPABILITIES: [(u32, &str, &str); 4] = [
    (39, "CAP_BPF", "to load the probes"),
    (38, "CAP_PERFMON", "to attach them to kernel events"),
    (12, "CAP_NET_ADMIN", "to attach them to interfaces and netfilter"),
    (21, "CAP_SYS_ADMIN", "to enter network namespaces"),
];

/// What decides whether the tool can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The effective user is root.
    pub root: bool,
    /// Effective capabilities, one bit each.
    pub capabilities: u64,
    /// The kernel describes its types.
    pub btf: bool,
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// Which WSL, if any.
    pub wsl: Wsl,
    /// The distro's name under WSL.
    pub distro: Option<String>,
}

/// Something that keeps the tool from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, one line.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Machine {
    /// Gathers the facts.
    pub fn read() -> io::Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let status = fs::read_to_string("/proc/self/status")?;
        Ok(Self {
            root: nix::unistd::geteuid().is_root(),
            capabilities: effective_capabilities(&status)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status: no CapEff line"))?,
            btf: Path::new(super::btf::VMLINUX).exists(),
            wsl: Wsl::detect(&release),
            distro: std::env::var("WSL_DISTRO_NAME").ok(),
            release,
        })
    }
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

/// Major and minor number of a kernel's release, such as `6.6.87.2-microsoft-standard-WSL2`.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Everything that keeps the tool from running, most fundamental first; nothing when it can. `command` is what the user typed.
pub fn problems(machine: &Machine, command: &str) -> Vec<Problem> {
    if machine.wsl == Wsl::One {
        let distro = machine.distro.as_deref().unwrap_or("<distro>").escape_debug().to_string();
        return vec![Problem {
            message: "this is WSL 1, which has no Linux kernel to trace".to_owned(),
            hint: format!("in PowerShell: wsl --set-version {distro} 2"),
        }];
    }
    let mut problems = Vec::new();
    let newer = match machine.wsl {
        Wsl::No => "boot a newer kernel",
        Wsl::One | Wsl::Two => "in PowerShell: wsl --update; then: wsl --shutdown",
    };
    let release = machine.release.escape_debug();
    match version(&machine.release) {
        Some(version) if version < OLDEST => problems.push(Problem {
            message: format!("kernel {release} is too old: probes on interfaces (TCX) need 6.6"),
            hint: newer.to_owned(),
        }),
        Some(_) => {}
        None => problems.push(Problem {
            message: format!("cannot tell the version of kernel {release}"),
            hint: "look at /proc/sys/kernel/osrelease: it should begin with a version such as 6.6".to_owned(),
        }),
    }
    if !machine.btf {
        problems.push(Problem {
            message: format!("the kernel does not describe its types: {} is missing", super::btf::VMLINUX),
            hint: match machine.wsl {
                Wsl::No => "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, or mount /sys".to_owned(),
                Wsl::One | Wsl::Two => {
                    "take `kernel=` out of .wslconfig or build that kernel with CONFIG_DEBUG_INFO_BTF=y; else: wsl --update"
                        .to_owned()
                }
            },
        });
    }
    let missing = CAPABILITIES.iter().filter(|(number, _, _)| machine.capabilities >> number & 1 == 0);
    if machine.root {
        problems.extend(missing.map(|(_, name, purpose)| Problem {
            message: format!("{name} is missing, which is needed {purpose}"),
            hint: "run outside of the container, or give it: --privileged".to_owned(),
        }));
    } else {
        let names: Vec<&str> = missing.map(|(_, name, _)| *name).collect();
        if !names.is_empty() {
            problems.push(Problem {
                message: format!("not root: {} needed", list(&names)),
                hint: format!("sudo {}", command.escape_debug()),
            });
        }
    }
    problems
}

fn list(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Machine {
        Machine {
            root: true,
            capabilities: u64::MAX,
            btf: true,
            release: "6.6.87.2-microsoft-standard-WSL2".to_owned(),
            wsl: Wsl::Two,
            distro: Some("Ubuntu".to_owned()),
        }
    }

    fn lines(machine: &Machine) -> Vec<String> {
        problems(machine, "wsltrace --port 8080").into_iter().map(|p| format!("{} [{}]", p.message, p.hint)).collect()
    }

    #[test]
    fn a_good_machine_has_no_problems() {
        assert!(lines(&good()).is_empty());
    }

    #[test]
    fn everything_is_told_at_once() {
        let machine = Machine {
            root: false,
            capabilities: 0,
            btf: false,
            release: "5.15.153.1-microsoft-standard-WSL2".to_owned(),
            ..good()
        };
        assert_eq!(
            lines(&machine),
            [
                "kernel 5.15.153.1-microsoft-standard-WSL2 is too old: probes on interfaces (TCX) need 6.6 [in PowerShell: wsl --update; then: wsl --shutdown]",
                "the kernel does not describe its types: /sys/kernel/btf/vmlinux is missing [take `kernel=` out of .wslconfig or build that kernel with CONFIG_DEBUG_INFO_BTF=y; else: wsl --update]",
                "not root: CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN are needed [sudo wsltrace --port 8080]",
            ]
        );
    }

    #[test]
    fn wsl_1_hides_everything_else() {
        let machine = Machine {
            wsl: Wsl::One,
            root: false,
            capabilities: 0,
            btf: false,
            release: "4.4.0-19041-Microsoft".to_owned(),
            ..good()
        };
        assert_eq!(
            lines(&machine),
            ["this is WSL 1, which has no Linux kernel to trace [in PowerShell: wsl --set-version Ubuntu 2]"]
        );
    }

    #[test]
    fn root_in_a_container_is_told_what_it_lacks() {
        let machine = Machine { capabilities: !(1 << 39), ..good() };
        assert_eq!(
            lines(&machine),
            ["CAP_BPF is missing, which is needed to load the probes [run outside of the container, or give it: --privileged]"]
        );
        assert!(lines(&Machine { root: false, ..good() }).is_empty());
    }

    #[test]
    fn versions_and_capabilities_are_read() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("6.4-rc1"), Some((6, 4)));
        assert_eq!(version("custom"), None);
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective_capabilities("CapEff:\tzz\n"), None);
    }
}
