//! The device `loopback0` with the policy routing of WSL's mirrored mode: connections to 127.0.0.1 leave by it to Windows and
//! come in by it from Windows, both ends 127.0.0.1. The client plays Windows, whose side needs the same rules in this lab.

use super::sides::join;
use super::{Lab, LabError, Namespace};

/// The device's hardware addresses in WSL and on Windows' side, where WSL has a static neighbour.
const WSL: &str = "00:15:5d:00:00:02";
const WINDOWS: &str = "00:11:22:33:44:55";

/// Adds `loopback0` to a lab.
pub fn mirror(lab: &Lab) -> Result<(), LabError> {
    join(&lab.client, "loopback0", &lab.wsl, "loopback0")?;
    route(&lab.wsl, WSL, WINDOWS, "")?;
    // Its own `lo` is down, so that 127.0.0.1 has to be an address of the device.
    route(&lab.client, WINDOWS, WSL, "address add 127.0.0.1/32 dev loopback0")
}

fn route(side: &Namespace, own: &str, other: &str, address: &str) -> Result<(), LabError> {
    side.set_sysctl("net.ipv4.conf.all.rp_filter", "0")?;
    side.set_sysctl("net.ipv4.conf.loopback0.rp_filter", "0")?;
    side.set_sysctl("net.ipv4.conf.loopback0.accept_local", "1")?;
    side.set_sysctl("net.ipv4.conf.loopback0.route_localnet", "1")?;
    // The order matters: the rule for the local table goes when those that replace it are there.
    side.ip(&format!(
        "link set loopback0 address {own}
        {address}
        neighbour replace 169.254.73.249 lladdr {other} dev loopback0 nud permanent
        route add 127.0.0.1 via 169.254.73.249 dev loopback0 onlink src 127.0.0.1 table 127
        rule add pref 0 iif loopback0 ipproto tcp lookup local
        rule add pref 0 iif loopback0 ipproto udp lookup local
        rule add pref 0 iif eth0 ipproto tcp lookup local
        rule add pref 0 iif eth0 ipproto udp lookup local
        rule add pref 1 ipproto tcp lookup 127
        rule add pref 1 ipproto udp lookup 127
        rule add pref 1 ipproto tcp lookup 128
        rule add pref 1 ipproto udp lookup 128
        rule add pref 2 lookup local
        rule del pref 0 from all lookup local
        "
    ))
}
