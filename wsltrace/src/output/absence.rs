//! What it means that no SYN came, by WSL's networking mode.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::source::Source;

/// Why it is told now that no SYN came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Why {
    /// This time was long enough.
    Time(Duration),
    /// A command that was to make the connection has ended, after this time.
    Command(Duration),
}

impl Why {
    /// For how long no SYN came.
    pub fn duration(self) -> Duration {
        match self {
            Self::Time(duration) | Self::Command(duration) => duration,
        }
    }
}

/// What was waited for in vain.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Waited {
    /// Why it is told now.
    pub why: Why,
    /// Only SYNs from here were wanted; from anywhere when empty.
    pub from: Vec<Source>,
    /// How many came from elsewhere and are hidden.
    pub hidden: u64,
}

/// What to look at when no SYN for `port` reached Linux; `mode` is what `wslinfo --networking-mode` prints, `found` what an
/// examination of the port found wrong, the worst first.
pub fn absence_message(waited: &Waited, mode: Option<&str>, port: u16, found: &[String]) -> String {
    let seen = "no interface of this machine has seen the SYN, so nothing in Linux stopped it";
    if waited.hidden > 0 {
        let syns = if waited.hidden == 1 { "1 SYN came" } else { &format!("{} SYNs came", waited.hidden) };
        return format!(
            "{syns} from other addresses, which --source hides: look whether the client has the address that you think"
        );
    }
    if let Why::Command(_) = waited.why {
        return format!(
            "{seen}. Look at the command: does it name port {port} and an address of this machine? A proxy (http_proxy) may stand between"
        );
    }
    let listener = format!("ask PowerShell who has the port there: Get-NetTCPConnection -State Listen -LocalPort {port}");
    let look = match mode {
        Some("nat" | "bridged") => format!(
            "Windows' localhost comes through WSL's relay (wslrelay.exe), which opens 127.0.0.1 for an IPv4 listener and [::1] for an IPv6 or dual-stack one, about a second after the server started: try the other of the two, and {listener}. Other machines need a portproxy entry on Windows (netsh interface portproxy show all) that points to this machine's current address"
        ),
        Some("mirrored") => format!(
            "in mirrored mode Windows' localhost comes by loopback0 and other machines by eth0, where the Hyper-V firewall blocks unless a rule allows the port; IPv6 localhost is not carried: use 127.0.0.1, and {listener}"
        ),
        Some("consomme" | "virtioproxy") => {
            format!("Windows itself listens for the servers of this machine (wsldevicehost); {listener}")
        }
        Some("none") => "this machine has no network: networkingMode is none".to_owned(),
        _ => format!(
            "check that the client uses this machine's address and this port; on Windows {listener}, then look at Windows' firewall and at portproxy entries (netsh interface portproxy show all)"
        ),
    };
    let found = match found.first() {
        Some(worst) => format!(" What is wrong here may be the cause: {worst}."),
        None => String::new(),
    };
    format!("{seen}.{found} Look at the client's side: {look}. `sudo wsltrace doctor --port {port}` examines all of this")
}
