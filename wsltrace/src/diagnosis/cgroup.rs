//! What is said of the BPF programs of a socket's control group, where one of them may have refused the packet.

use std::net::IpAddr;

use crate::escape::{escape, shell_word};
use crate::evidence::Cgroup;

/// Such as "the BPF program `sd_fw_ingress` of the server's control group `/sys/fs/cgroup/system.slice/web.service`".
pub(super) fn name(cgroup: &Cgroup, whose: &str) -> String {
    let names: Vec<String> = cgroup.programs.iter().map(|name| escape(name)).collect();
    let what = if names.len() == 1 { "the BPF program" } else { "one of the BPF programs" };
    format!("{what} {} of the {whose}'s control group {}", names.join(", "), escape(&cgroup.directory))
}

/// Looks at them, and lets the other side in where systemd has attached them.
pub(super) fn mend(cgroup: &Cgroup, other: IpAddr) -> Vec<String> {
    let look = format!("sudo bpftool cgroup show {} effective", shell_word(&cgroup.directory));
    let Some(unit) = unit(cgroup) else { return vec![look] };
    let unit = shell_word(unit);
    vec![
        format!("systemctl show -p IPAddressAllow -p IPAddressDeny {unit}"),
        format!("sudo systemctl set-property --runtime {unit} IPAddressAllow={other}"),
        format!("# that holds until the next start; for good, add the line IPAddressAllow= by: sudo systemctl edit {unit}"),
    ]
}

/// The unit of the system whose control group it is, when systemd has attached the programs; users' own units have another
/// manager, which may not do so.
fn unit(cgroup: &Cgroup) -> Option<&str> {
    let by_systemd = cgroup.programs.iter().any(|name| name.starts_with("sd_fw_"));
    let is_unit = |part: &&str| matches!(part.rsplit_once('.'), Some((_, "service" | "scope")));
    let unit = cgroup.directory.rsplit('/').find(is_unit)?;
    (by_systemd && !cgroup.directory.contains("/user@")).then_some(unit)
}
