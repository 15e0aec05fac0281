//! What it means that no SYN came, by WSL's networking mode.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contract::NearMiss;
use crate::escape::escape;
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
    /// Only SYNs by these interfaces were wanted; by any when empty.
    pub interfaces: Vec<String>,
    /// How many came from elsewhere and are hidden.
    pub hidden: u64,
    /// SYNs to the traced ports that came for another hardware address than the interface has.
    #[serde(default)]
    pub astray: Option<NearMiss>,
    /// `IPsec` protects in transport mode what comes in, so that it is not seen.
    #[serde(default)]
    pub protected: bool,
}

/// What to look at when no SYN for `port` reached Linux; `mode` is what `wslinfo --networking-mode` prints, `found` what an
/// examination of the port found wrong, the worst first.
pub fn absence_message(waited: &Waited, mode: Option<&str>, port: u16, found: &[String]) -> String {
    let seen = if waited.protected {
        "no readable SYN for this port has come in or gone out here; what IPsec protects in transport mode, as a policy here has it (ip xfrm policy), is not seen, so it may have come all the same, and rules and servers here may have refused it"
            .to_owned()
    } else if waited.interfaces.is_empty() {
        "no SYN for this port has come in or gone out here, so no firewall rule for TCP and no server here has refused it"
            .to_owned()
    } else {
        let names: Vec<String> = waited.interfaces.iter().map(|name| escape(name)).collect();
        format!(
            "no SYN for this port has come in or gone out by {}; one that came by another interface is not shown (leave out --interface)",
            names.join(", ")
        )
    };
    if waited.hidden > 0 {
        let syns = if waited.hidden == 1 { "1 SYN came" } else { &format!("{} SYNs came", waited.hidden) };
        return format!(
            "{syns} from other addresses, which --source hides: look whether the client has the address that you think"
        );
    }
    if let Some(miss) = &waited.astray {
        return format!(
            "what came for this port by {} has another hardware address as its destination, so the kernel takes none of it: it is for another machine, or the client has a wrong entry for this one, as after this one got another hardware address. Delete it where the client is (Windows: arp -d ADDRESS; Linux: ip neighbour flush to ADDRESS)",
            escape(&miss.interface)
        );
    }
    let found = match found.first() {
        Some(worst) => format!(" What is wrong here may be the cause: {worst}."),
        None => String::new(),
    };
    if let Why::Command(_) = waited.why {
        return format!(
            "{seen}.{found} Look at the command: does it name port {port} and an address of this machine? A proxy (http_proxy) may stand between; or it has no route that it may use (ip route get ADDRESS)"
        );
    }
    let look = causes(mode, port);
    let look = match look.as_slice() {
        [only] => only.clone(),
        causes => (1..).zip(causes).map(|(number, cause)| format!("({number}) {cause}")).collect::<Vec<_>>().join("; "),
    };
    format!("{seen}.{found} Look at the client's side: {look}. `sudo wsltrace doctor --port {port}` examines all of this")
}

/// What on Windows' side remains as the cause in a networking mode, the most frequent first.
fn causes(mode: Option<&str>, port: u16) -> Vec<String> {
    let listener = format!("ask PowerShell: Get-NetTCPConnection -State Listen -LocalPort {port}");
    let excluded = "netsh int ipv4 show excludedportrange protocol=tcp";
    match mode {
        Some("nat" | "bridged") => vec![
            "Windows' localhost comes through WSL's relay (wslrelay.exe), which opens 127.0.0.1 for an IPv4 listener and [::1] for an IPv6 or dual-stack one, about a second after the server started: try the other of the two".to_owned(),
            format!("another program, or a portproxy entry, has the port on Windows; {listener}"),
            format!("Windows keeps the port for itself: {excluded}"),
            "the relay is off (localhostForwarding=false in .wslconfig), or no longer works, as after sleep: wsl --shutdown in PowerShell starts it anew".to_owned(),
            "other machines reach this one only by a portproxy entry (netsh interface portproxy show all) that points to its current address, with the service iphlpsvc running and Windows' firewall letting the port in".to_owned(),
        ],
        Some("mirrored") => vec![
            "other machines come by eth0, where the Hyper-V firewall blocks unless a rule allows the port (New-NetFirewallHyperVRule)".to_owned(),
            format!("another program has the port on Windows; {listener}"),
            "Windows' localhost comes by loopback0 and is 127.0.0.1 only: IPv6 localhost is not carried, and Windows' own addresses only with hostAddressLoopback=true in .wslconfig".to_owned(),
            "the port stands in ignoredPorts in .wslconfig".to_owned(),
        ],
        Some("consomme" | "virtioproxy") => vec![
            format!("Windows itself listens for the servers of this machine (wsldevicehost), unless another program has the port; {listener}"),
            "Windows' localhost is 127.0.0.1 only: IPv6 localhost is not carried".to_owned(),
            "for other machines, Windows' firewall does not let the port in".to_owned(),
        ],
        Some("none") => vec!["this machine has no network: networkingMode is none".to_owned()],
        _ => vec![format!(
            "check that the client uses this machine's address and this port; on Windows {listener}, then look at Windows' firewall and at portproxy entries (netsh interface portproxy show all)"
        ), "a client in the same network must find this machine first: on it, `ip neighbour show` or `arp -a` tells (no answer: an interface here is down, the address is not here, rp_filter or arp_ignore has it stay silent, or a rule or an XDP program drops what asks for it)".to_owned()],
    }
}

/// What SYNs to other ports and segments with wrong checksums say about the SYN that did not come; nothing where there were none.
pub fn near_miss_hint(near_misses: &[NearMiss], wrong_checksums: u64) -> Option<String> {
    let mirrored = near_misses.iter().find(|miss| miss.interface == "loopback0");
    let checksums = match wrong_checksums {
        0 => None,
        1 => Some("1 TCP segment with a wrong checksum came meanwhile, which the kernel drops".to_owned()),
        count => Some(format!("{count} TCP segments with a wrong checksum came meanwhile, which the kernel drops")),
    };
    Some(match (mirrored, checksums) {
        (Some(miss), checksums) => format!(
            ". A SYN to port {} came by loopback0: if nobody asked for that port, Windows has changed it on the way, as some of its updates do{}; update Windows, or set networkingMode=nat",
            miss.port,
            checksums.map(|checksums| format!(" ({checksums})")).unwrap_or_default()
        ),
        (None, Some(checksums)) => {
            format!(
                ". {checksums}: the SYN may have been changed on its way, or the checksum offload of a virtual device is broken"
            )
        }
        (None, None) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(mode: Option<&str>) -> String {
        let waited = Waited {
            interfaces: Vec::new(),
            why: Why::Time(Duration::from_secs(10)),
            from: Vec::new(),
            hidden: 0,
            astray: None,
            protected: false,
        };
        absence_message(&waited, mode, 8080, &[])
    }

    #[test]
    fn what_ipsec_protects_is_not_said_to_have_stayed_away() {
        let mut waited = crate::output::samples::waited();
        assert!(absence_message(&waited, None, 8080, &[]).contains("so no firewall rule"));
        waited.protected = true;
        let message = absence_message(&waited, None, 8080, &[]);
        assert!(message.contains("it may have come all the same") && !message.contains("so no firewall rule"), "{message}");
    }

    #[test]
    fn what_other_interfaces_saw_is_not_denied() {
        let interfaces = vec!["lo".to_owned()];
        let waited = Waited {
            why: Why::Time(Duration::from_secs(10)),
            from: Vec::new(),
            interfaces,
            hidden: 0,
            astray: None,
            protected: false,
        };
        let told = absence_message(&waited, None, 8080, &[]);
        assert!(told.contains("by lo; one that came by another") && !told.contains("has refused it"), "{told}");
    }

    #[test]
    fn each_mode_has_its_causes_in_order() {
        let orders: [(&str, &[&str]); 5] = [
            (
                "nat",
                &[
                    "wslrelay.exe",
                    "-LocalPort 8080",
                    "excludedportrange",
                    "localhostForwarding",
                    "wsl --shutdown",
                    "portproxy show",
                    "iphlpsvc",
                ],
            ),
            ("bridged", &["wslrelay.exe", "excludedportrange"]),
            ("mirrored", &["New-NetFirewallHyperVRule", "-LocalPort 8080", "loopback0", "hostAddressLoopback", "ignoredPorts"]),
            ("consomme", &["wsldevicehost", "-LocalPort 8080", "127.0.0.1 only", "Windows' firewall"]),
            ("none", &["networkingMode is none"]),
        ];
        for (mode, words) in orders {
            let message = told(Some(mode));
            let places: Vec<_> = words.iter().map(|word| message.find(word)).collect();
            assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{mode}: {places:?} in {message}");
        }
        assert_eq!(told(Some("virtioproxy")), told(Some("consomme")));
        assert!(!told(Some("mirrored")).contains("wslrelay") && !told(Some("nat")).contains("HyperV"));
        assert!(told(None).contains("portproxy"), "what is not known to be otherwise");
    }

    #[test]
    fn what_came_for_another_hardware_address_is_not_denied() {
        let miss = NearMiss { port: 8080, interface: "eth0".to_owned(), count: 3 };
        let why = Why::Time(Duration::from_secs(10));
        let waited = Waited { why, from: Vec::new(), interfaces: Vec::new(), hidden: 0, astray: Some(miss), protected: false };
        let told = absence_message(&waited, Some("nat"), 8080, &[]);
        assert!(told.contains("by eth0 has another hardware address") && !told.contains("no SYN"), "{told}");
    }

    #[test]
    fn a_changed_port_and_wrong_checksums_are_told() {
        let miss = |interface: &str| NearMiss { port: 23440, interface: interface.to_owned(), count: 1 };
        assert_eq!(near_miss_hint(&[], 0), None);
        assert_eq!(near_miss_hint(&[miss("eth0")], 0), None, "somebody asks for another port");
        let changed = near_miss_hint(&[miss("eth0"), miss("loopback0")], 0).unwrap_or_default();
        assert!(changed.contains("23440") && changed.contains("update Windows") && !changed.contains("checksum"), "{changed}");
        let both = near_miss_hint(&[miss("loopback0")], 2).unwrap_or_default();
        assert!(both.contains("23440") && both.contains("2 TCP segments with a wrong checksum"), "{both}");
        let spoilt = near_miss_hint(&[], 1).unwrap_or_default();
        assert!(spoilt.contains("1 TCP segment with a wrong checksum") && !spoilt.contains("loopback0"), "{spoilt}");
    }
}
