//! What is known of Windows around this Linux: whether it is WSL at all, and how its network hangs on Windows'.

pub mod config;
mod invitation;
mod way;
mod ways;

pub use invitation::{Place, invitation};
pub use way::{Answer, Carrier, Entry, Gate, Held, Outside, Proxied, Row, Setting, Way};
pub use ways::{is_relayed, taker, takers, ways};

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::command::output_within;
use crate::kernel::links::{ARPHRD_LOOPBACK, Link};

/// Longest time that `wslinfo` may take; it asks Windows.
const WSLINFO_LIMIT: Duration = Duration::from_secs(2);
/// Hardware address that consomme gives to eth0.
const CONSOMME_ADDRESS: [u8; 6] = [0, 0, 0, 0, 1, 0];
/// Hyper-V's prefix of hardware addresses.
const HYPER_V_PREFIX: [u8; 3] = [0x00, 0x15, 0x5d];

/// Which WSL this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wsl {
    /// None.
    No,
    /// WSL 1: no Linux kernel.
    One,
    /// WSL 2.
    Two,
}

impl Wsl {
    /// Tells from the kernel's release, and for kernels of the user's own from what WSL leaves in the file system.
    pub fn detect(release: &str) -> Self {
        match Self::of_release(release) {
            Self::No if Path::new("/run/WSL").exists() || Path::new("/proc/sys/fs/binfmt_misc/WSLInterop").exists() => Self::Two,
            wsl => wsl,
        }
    }

    /// Tells from the kernel's release alone.
    fn of_release(release: &str) -> Self {
        if release.starts_with("4.4.0-") && release.ends_with("-Microsoft") {
            Self::One
        } else if release.to_ascii_lowercase().contains("microsoft") {
            Self::Two
        } else {
            Self::No
        }
    }
}

/// How WSL's network hangs on Windows'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkingMode {
    /// A network of its own behind Windows; `localhost` by a relay.
    Nat,
    /// Windows' interfaces are seen in Linux; `localhost` on `loopback0`.
    Mirrored,
    /// A program on Windows carries the connections; called `virtioproxy` up to WSL 2.8.
    Consomme,
    /// On Windows' outer network.
    Bridged,
    /// No network.
    None,
}

impl NetworkingMode {
    /// The mode of a name, in whatever case, as WSL and its configuration have it; `None` for any other word.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "nat" => Self::Nat,
            "mirrored" => Self::Mirrored,
            "consomme" | "virtioproxy" => Self::Consomme,
            "bridged" => Self::Bridged,
            "none" => Self::None,
            _ => return None,
        })
    }

    /// The name that `wslinfo --networking-mode` prints today.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Mirrored => "mirrored",
            Self::Consomme => "consomme",
            Self::Bridged => "bridged",
            Self::None => "none",
        }
    }
}

/// Where the knowledge of the mode comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// WSL itself said so.
    Wslinfo,
    /// It was guessed from the interfaces: `Nat` may as well be `Bridged` then.
    Interfaces,
}

/// The networking mode of the WSL that this is; `None` when it is none, or nothing tells. Takes up to 2 s: `wslinfo` asks Windows.
pub fn networking_mode(wsl: Wsl, links: &[Link]) -> Option<(NetworkingMode, Source)> {
    if wsl != Wsl::Two {
        return None;
    }
    match output_within(WSLINFO_LIMIT, Command::new("wslinfo").arg("--networking-mode")) {
        Ok(answer) => {
            if let Some(mode) = parse_wslinfo(&answer) {
                return Some((mode, Source::Wslinfo));
            }
            log::debug!("wslinfo --networking-mode gave {answer:?}");
        }
        Err(error) => log::debug!("wslinfo --networking-mode: {error}"),
    }
    guess(links).map(|mode| (mode, Source::Interfaces))
}

/// WSL's version, such as `2.6.1`; `None` when it is no WSL 2, or nothing tells. Takes up to 2 s: `wslinfo` asks Windows.
pub fn version(wsl: Wsl) -> Option<String> {
    if wsl != Wsl::Two {
        return None;
    }
    let answer = output_within(WSLINFO_LIMIT, Command::new("wslinfo").arg("--wsl-version"));
    let answer = answer.inspect_err(|error| log::debug!("wslinfo --wsl-version: {error}")).ok()?;
    answer.lines().next().map(|line| line.trim().to_owned()).filter(|version| !version.is_empty())
}

fn parse_wslinfo(answer: &str) -> Option<NetworkingMode> {
    NetworkingMode::parse(answer.trim())
}

/// Guesses from the interfaces of WSL's own namespace.
fn guess(links: &[Link]) -> Option<NetworkingMode> {
    let physical: Vec<&Link> =
        links.iter().filter(|link| link.arphrd != ARPHRD_LOOPBACK && link.kind.is_none() && link.name != "loopback0").collect();
    if physical.iter().any(|link| link.address == CONSOMME_ADDRESS) {
        Some(NetworkingMode::Consomme)
    } else if links.iter().any(|link| link.name == "loopback0") {
        Some(NetworkingMode::Mirrored)
    } else if physical.iter().any(|link| link.address.starts_with(&HYPER_V_PREFIX)) {
        Some(NetworkingMode::Nat)
    } else {
        // An empty list says nothing: a namespace always has `lo`.
        (physical.is_empty() && !links.is_empty()).then_some(NetworkingMode::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, address: &[u8]) -> Link {
        let arphrd = if name == "lo" { ARPHRD_LOOPBACK } else { 1 };
        Link { name: name.to_owned(), address: address.to_vec(), arphrd, ..Link::default() }
    }

    #[test]
    fn releases_tell_which_wsl() {
        assert_eq!(Wsl::of_release("6.6.87.2-microsoft-standard-WSL2"), Wsl::Two);
        assert_eq!(Wsl::of_release("4.4.0-19041-Microsoft"), Wsl::One);
        assert_eq!(Wsl::of_release("6.18.44-fc-v595"), Wsl::No);
    }

    #[test]
    fn answers_of_wslinfo_are_read() {
        assert_eq!(parse_wslinfo("nat\n"), Some(NetworkingMode::Nat));
        assert_eq!(parse_wslinfo("mirrored"), Some(NetworkingMode::Mirrored));
        assert_eq!(parse_wslinfo("virtioproxy\n"), Some(NetworkingMode::Consomme));
        assert_eq!(parse_wslinfo("consomme\n"), Some(NetworkingMode::Consomme));
        assert_eq!(parse_wslinfo("none\n"), Some(NetworkingMode::None));
        assert_eq!(parse_wslinfo("wsl1\n"), None);
        assert_eq!(parse_wslinfo(""), None);
    }

    #[test]
    fn interfaces_tell_the_mode() {
        let lo = || link("lo", &[0; 6]);
        let hyper_v = |name| link(name, &[0x00, 0x15, 0x5d, 1, 2, 3]);
        assert_eq!(guess(&[lo(), hyper_v("eth0")]), Some(NetworkingMode::Nat));
        assert_eq!(guess(&[lo(), hyper_v("loopback0"), hyper_v("eth0")]), Some(NetworkingMode::Mirrored));
        assert_eq!(guess(&[lo(), hyper_v("loopback0"), link("eth0", &CONSOMME_ADDRESS)]), Some(NetworkingMode::Consomme));
        assert_eq!(guess(&[lo()]), Some(NetworkingMode::None));
        assert_eq!(guess(&[]), None);
        assert_eq!(guess(&[lo(), link("eth0", &[2, 0, 0, 0, 0, 1])]), None);
        let docker = Link { kind: Some("bridge".to_owned()), ..link("docker0", &[2; 6]) };
        assert_eq!(guess(&[lo(), docker]), Some(NetworkingMode::None));
    }

    #[test]
    fn elsewhere_than_wsl_there_is_no_mode() {
        assert_eq!(networking_mode(Wsl::No, &[link("loopback0", &[0; 6])]), None);
    }
}
