//! The keys that WSL knows. From Microsoft's documentation, and from WSL's source for those that are not documented
//! (`src/windows/common/WslCoreConfig.h`, `src/linux/init/WslDistributionConfig.cpp`); a key of which only rumours are known is
//! listed too, because calling a good key unknown is worse than missing a bad one.

use super::ConfigFile::{self, WslConf, WslConfig};

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true`, `false`, `1` or `0`.
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A path on Windows.
    Path,
    /// Anything else, which is not examined.
    Other,
}

/// A section with its keys.
pub(super) struct Section {
    pub(super) file: ConfigFile,
    pub(super) name: &'static str,
    pub(super) keys: &'static [(&'static str, Kind)],
}

/// The networking modes; `virtioproxy` is consomme's older name, and taken still.
pub(super) const MODES: &[&str] = &["nat", "mirrored", "consomme", "virtioproxy", "bridged", "none"];

use Kind::{Bool, Other, Path, Word};

/// All sections.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        file: WslConf,
        name: "automount",
        keys: &[
            ("enabled", Bool),
            ("mountFsTab", Bool),
            ("root", Other),
            ("options", Other),
            ("ldconfig", Bool),
            ("cgroups", Word(&["v1", "v2"])),
        ],
    },
    Section {
        file: WslConf,
        name: "network",
        keys: &[("generateHosts", Bool), ("generateResolvConf", Bool), ("hostname", Other)],
    },
    Section { file: WslConf, name: "interop", keys: &[("enabled", Bool), ("appendWindowsPath", Bool)] },
    Section { file: WslConf, name: "user", keys: &[("default", Other)] },
    Section {
        file: WslConf,
        name: "boot",
        keys: &[("systemd", Bool), ("command", Other), ("protectBinfmt", Bool), ("initTimeout", Other)],
    },
    Section { file: WslConf, name: "gpu", keys: &[("enabled", Bool), ("appendLibPath", Bool)] },
    Section { file: WslConf, name: "time", keys: &[("useWindowsTimezone", Bool)] },
    Section { file: WslConf, name: "general", keys: &[("guiApplications", Bool)] },
    Section { file: WslConf, name: "filesystem", keys: &[("umask", Other)] },
    Section {
        file: WslConf,
        name: "fileServer",
        keys: &[("enabled", Bool), ("logFile", Other), ("logLevel", Other), ("logTruncate", Bool)],
    },
    Section {
        file: WslConfig,
        name: "wsl2",
        keys: &[
            ("kernel", Path),
            ("kernelModules", Path),
            ("kernelCommandLine", Other),
            ("kernelBootTimeout", Other),
            ("kernelDebugPort", Other),
            ("loadKernelModules", Other),
            ("loadDefaultKernelModules", Bool),
            ("memory", Other),
            ("processors", Other),
            ("swap", Other),
            ("swapFile", Path),
            ("pageReporting", Bool),
            ("localhostForwarding", Bool),
            ("networkingMode", Word(MODES)),
            ("firewall", Bool),
            ("dnsTunneling", Bool),
            ("dnsProxy", Bool),
            ("autoProxy", Bool),
            ("ipv6", Bool),
            ("dhcp", Bool),
            ("dhcpTimeout", Other),
            ("vmSwitch", Other),
            ("macAddress", Other),
            ("safeMode", Bool),
            ("guiApplications", Bool),
            ("gpuSupport", Bool),
            ("debugConsole", Bool),
            ("debugConsoleLogFile", Path),
            ("earlyBootLogging", Bool),
            ("maxCrashDumpCount", Other),
            ("crashDumpFolder", Path),
            ("nestedVirtualization", Bool),
            ("hardwarePerformanceCounters", Bool),
            ("vmIdleTimeout", Other),
            ("defaultVhdSize", Other),
            ("systemDistro", Path),
            ("telemetry", Bool),
            ("distributionStartTimeout", Other),
            ("mountDeviceTimeout", Other),
            ("hostFileSystemAccess", Bool),
            ("virtio", Bool),
            ("virtio9p", Bool),
            ("virtiofs", Bool),
            ("isolateDistroCgroup", Bool),
        ],
    },
    Section {
        file: WslConfig,
        name: "experimental",
        keys: &[
            ("autoMemoryReclaim", Word(&["disabled", "gradual", "dropCache"])),
            ("sparseVhd", Bool),
            ("bestEffortDnsParsing", Bool),
            ("dnsTunnelingIpAddress", Other),
            ("initialAutoProxyTimeout", Other),
            ("ignoredPorts", Other),
            ("hostAddressLoopback", Bool),
            ("useWindowsDnsCache", Bool),
            ("setVersionDebug", Bool),
            ("swiotlb", Other),
            ("virtioFsAggregateShares", Bool),
            // These four stood here first, and WSL still takes them.
            ("networkingMode", Word(MODES)),
            ("firewall", Bool),
            ("dnsTunneling", Bool),
            ("autoProxy", Bool),
        ],
    },
    Section { file: WslConfig, name: "general", keys: &[("distributionInstallPath", Path), ("instanceIdleTimeout", Other)] },
];

/// The section of a file, whatever the case of its letters.
pub(super) fn section(file: ConfigFile, name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.file == file && section.name.eq_ignore_ascii_case(name))
}

impl Section {
    /// What a key of this section takes; `None` when there is no such key.
    pub(super) fn kind(&self, key: &str) -> Option<Kind> {
        self.keys.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, kind)| *kind)
    }
}

/// Where else a key belongs, in this file first: `(file, section, the key as it is spelled)`.
pub(super) fn homes(file: ConfigFile, key: &str) -> Vec<(ConfigFile, &'static str, &'static str)> {
    let mut homes: Vec<_> = SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(move |(name, _)| (section.file, section.name, *name)))
        .filter(|(_, _, name)| name.eq_ignore_ascii_case(key))
        .collect();
    homes.sort_by_key(|(home, ..)| *home != file);
    homes
}

/// The one among the words that is nearest to what was written, when it is near enough to be meant.
pub(super) fn nearest(written: &str, words: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let written = written.to_ascii_lowercase();
    let near = |word: &&'static str| distance(&written, &word.to_ascii_lowercase());
    let word = words.min_by_key(near)?;
    // A third of the letters may be wrong or missing, so `networkMode` is `networkingMode`, but `swap` is no `ipv6`.
    (near(&word) <= (written.len().max(word.len()) / 3).max(1)).then_some(word)
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    // No key is that long, and the work grows with the square.
    if from.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut before = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (above, other) in row.iter().skip(1).zip(to.chars()) {
            left = (before + usize::from(letter != other)).min(*above + 1).min(left + 1);
            before = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        let words = || ["networkingMode", "nestedVirtualization", "ipv6", "swap"].into_iter();
        assert_eq!(nearest("networkMode", words()), Some("networkingMode"));
        assert_eq!(nearest("NETWORKINGMODE", words()), Some("networkingMode"));
        assert_eq!(nearest("swapp", words()), Some("swap"));
        assert_eq!(nearest("colour", words()), None);
        assert_eq!(nearest(&"n".repeat(1000), words()), None);
    }

    #[test]
    fn no_key_stands_twice_in_a_section() {
        for section in SECTIONS {
            for (name, _) in section.keys {
                assert_eq!(section.keys.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count(), 1, "{name}");
            }
        }
    }
}
