//! The programs that remedies are typed with: the packages that bring those which this machine lacks, and what has them work on the
//! network namespace that is looked at rather than on the one that they are typed in.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;

use super::netns::Netns;

/// A distribution's package manager: the program that tells it apart, and the words that install with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manager {
    program: &'static str,
    installs: &'static str,
    /// Its column in [`PACKAGES`].
    column: usize,
}

const MANAGERS: [Manager; 5] = [
    Manager { program: "apt-get", installs: "apt-get install", column: 0 },
    Manager { program: "dnf", installs: "dnf install", column: 1 },
    Manager { program: "pacman", installs: "pacman -S", column: 2 },
    Manager { program: "zypper", installs: "zypper install", column: 3 },
    Manager { program: "apk", installs: "apk add", column: 4 },
];

/// A program, and its package in Debian and Ubuntu, Fedora, Arch, openSUSE and Alpine.
const PACKAGES: [(&str, [&str; 5]); 12] = [
    ("bpftool", ["bpftool"; 5]),
    ("conntrack", ["conntrack", "conntrack-tools", "conntrack-tools", "conntrack-tools", "conntrack-tools"]),
    ("ethtool", ["ethtool"; 5]),
    ("ip", ["iproute2", "iproute", "iproute2", "iproute2", "iproute2"]),
    ("ip6tables-legacy", ["iptables", "iptables-legacy", "iptables", "iptables", "iptables-legacy"]),
    ("ip6tables-nft", ["iptables", "iptables-nft", "iptables", "iptables", "iptables"]),
    ("iptables-legacy", ["iptables", "iptables-legacy", "iptables", "iptables", "iptables-legacy"]),
    ("iptables-nft", ["iptables", "iptables-nft", "iptables", "iptables", "iptables"]),
    ("nft", ["nftables"; 5]),
    ("nstat", ["iproute2", "iproute", "iproute2", "iproute2", "iproute2"]),
    ("ss", ["iproute2", "iproute", "iproute2", "iproute2", "iproute2"]),
    ("tc", ["iproute2", "iproute-tc", "iproute2", "iproute2", "iproute2-tc"]),
];

/// Programs that work on the network namespace that they are run in.
const NAMESPACED: [&str; 18] = [
    "arptables",
    "bridge",
    "conntrack",
    "ebtables",
    "ethtool",
    "ip",
    "ip6tables",
    "ip6tables-legacy",
    "ip6tables-nft",
    "iptables",
    "iptables-legacy",
    "iptables-nft",
    "nft",
    "nstat",
    "ss",
    "sysctl",
    "tc",
    "tcpdump",
];

/// How remedies are typed on this machine.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    manager: Option<Manager>,
    lacking: BTreeSet<&'static str>,
    entrance: Option<String>,
}

impl Programs {
    /// Looks at what is installed.
    pub fn look() -> Self {
        let there = |program: &&str| locate(program).is_some();
        Self {
            manager: MANAGERS.into_iter().find(|manager| there(&manager.program)),
            lacking: PACKAGES.iter().map(|(program, _)| *program).filter(|program| !there(program)).collect(),
            entrance: None,
        }
    }

    /// For remedies that are meant for this namespace: typed in another, they would change that one's rules.
    #[must_use]
    pub fn within(self, netns: &Netns) -> Self {
        let is_own = Netns::current().is_ok_and(|own| own == *netns);
        Self { entrance: (!is_own).then(|| netns.entrance_as_named()), ..self }
    }

    /// The lines as they are to be typed here: what they need and this machine lacks is installed first.
    pub fn typed(&self, lines: Vec<String>) -> Vec<String> {
        let lines = lines.into_iter().map(|line| self.entered(line)).collect::<Vec<_>>();
        self.before(lines.iter().map(String::as_str)).into_iter().chain(lines).collect()
    }

    /// A line as it is to be typed here.
    pub fn entered(&self, line: String) -> String {
        match &self.entrance {
            Some(entrance)
                if program(&line).is_some_and(|program| NAMESPACED.contains(&program)) && !line.contains("nsenter ") =>
            {
                format!("sudo {entrance} {}", line.strip_prefix("sudo ").unwrap_or(&line))
            }
            _ => line,
        }
    }

    /// The line that is to be typed before these: it installs what they need and this machine lacks. `None` where nothing is lacking.
    pub fn before<'a>(&self, lines: impl Iterator<Item = &'a str>) -> Option<String> {
        let needed: BTreeSet<&str> = lines.filter_map(program).filter(|program| self.lacking.contains(program)).collect();
        if needed.is_empty() {
            return None;
        }
        let Some(manager) = self.manager else {
            let needed: Vec<&str> = needed.into_iter().collect();
            return Some(format!("# not installed here: {}", needed.join(", ")));
        };
        let of = |needed: &str| PACKAGES.iter().find(|(program, _)| *program == needed)?.1.get(manager.column).copied();
        let packages: BTreeSet<&str> = needed.into_iter().filter_map(of).collect();
        let packages: Vec<&str> = packages.into_iter().collect();
        Some(format!("sudo {} {}", manager.installs, packages.join(" ")))
    }
}

/// The program that a line for a shell runs, behind `sudo` and what enters a namespace ([`super::netns::Netns::entrance`]); `None` for
/// a comment.
fn program(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| *word == "sudo");
    match words.next()? {
        comment if comment.starts_with('#') => None,
        "nsenter" => words.find(|word| *word == "-n" || word.starts_with("--net=")).and_then(|_| words.next()),
        program => Some(program),
    }
}

/// Where a program is: in PATH, or where administrators' programs are when PATH leaves those out.
pub(crate) fn locate(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::{MANAGERS, Programs, program};

    #[test]
    fn what_a_line_runs_is_known() {
        assert_eq!(program("sudo nft delete rule ip t c handle 3"), Some("nft"));
        assert_eq!(program("sudo nsenter -t 12 -n iptables-nft -S"), Some("iptables-nft"));
        assert_eq!(program("sudo nsenter --net=/run/netns/web nft list ruleset"), Some("nft"));
        assert_eq!(program("ss -ltnp"), Some("ss"));
        assert_eq!(program("# sudo nft list ruleset"), None);
        assert_eq!(program(""), None);
    }

    #[test]
    fn what_is_meant_for_another_namespace_enters_it() {
        let programs = Programs { entrance: Some("nsenter -t 7 -n".to_owned()), ..Programs::default() };
        let lines = [
            "sudo nft delete rule ip filter INPUT handle 2",
            "ss -ltnp 'sport = :80'",
            "sudo nsenter -t 12 -n ip link",
            "sudo systemctl restart nginx",
            "# sudo nft list ruleset",
        ];
        let typed = programs.typed(lines.map(str::to_owned).to_vec());
        assert_eq!(typed[0], "sudo nsenter -t 7 -n nft delete rule ip filter INPUT handle 2");
        assert_eq!(typed[1], "sudo nsenter -t 7 -n ss -ltnp 'sport = :80'");
        assert_eq!(typed[2..], lines[2..]);
        assert_eq!(Programs::default().typed(lines.map(str::to_owned).to_vec()), lines);
    }

    #[test]
    fn only_what_is_lacking_and_needed_is_installed() {
        let lacking = |manager| Programs { manager, lacking: ["nft", "tc", "ss"].into(), entrance: None };
        let [debian, fedora, ..] = MANAGERS.map(|manager| lacking(Some(manager)));
        let before = |programs: &Programs, lines: &[&str]| programs.before(lines.iter().copied());
        let lines = ["sudo nft list ruleset", "sudo nft delete table ip t", "sudo tc qdisc del dev eth0 root", "sudo ip link"];
        assert_eq!(before(&debian, &lines).as_deref(), Some("sudo apt-get install iproute2 nftables"));
        assert_eq!(before(&fedora, &lines).as_deref(), Some("sudo dnf install iproute-tc nftables"));
        assert_eq!(before(&lacking(None), &lines).as_deref(), Some("# not installed here: nft, tc"));
        assert_eq!(before(&debian, &["sudo ip link", "# nft list ruleset"]), None);
    }
}
