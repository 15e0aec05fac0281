//! What the running kernel was built with.

use std::io::Read as _;

use flate2::read::GzDecoder;
use nix::sys::utsname::uname;

/// The options that this kernel was built without, of those named (such as `NFT_FIB_IPV6`). Its configuration tells
/// (`/proc/config.gz`, `/boot/config-VERSION`), or else, of options that are modules, the lists of its modules. Empty where nothing of
/// that can be read: then nothing is known. An option that is a module counts as built, whether the module is there or not.
pub fn built_without<'a>(options: &[&'a str]) -> Vec<&'a str> {
    if options.is_empty() {
        return Vec::new();
    }
    let Some(release) = uname().ok().and_then(|uname| Some(uname.release().to_str()?.to_owned())) else { return Vec::new() };
    if let Some(configuration) = configuration(&release) {
        return unset(&configuration, options);
    }
    modules(&release).map(|modules| no_module(&modules, options)).unwrap_or_default()
}

fn configuration(release: &str) -> Option<String> {
    let mut text = String::new();
    if let Ok(packed) = std::fs::read("/proc/config.gz")
        && GzDecoder::new(packed.as_slice()).read_to_string(&mut text).is_ok()
    {
        return Some(text);
    }
    std::fs::read_to_string(format!("/boot/config-{release}")).ok()
}

/// The paths of the kernel's modules, of those that are part of it too, a line each.
fn modules(release: &str) -> Option<String> {
    let list = |name| std::fs::read_to_string(format!("/lib/modules/{release}/{name}")).ok();
    Some(list("modules.builtin")? + &list("modules.dep")?)
}

/// The options whose module is in no list.
fn no_module<'a>(modules: &str, options: &[&'a str]) -> Vec<&'a str> {
    let paths = || modules.lines().filter_map(|line| line.split(':').next());
    let is_there = |option: &str| {
        // A part of nf_tables' own module.
        if option == "NF_TABLES_BRIDGE" {
            return true;
        }
        // The rest are called like their options.
        let module = match option {
            "VLAN_8021Q" => "8021q".to_owned(),
            "NET_VRF" => "vrf".to_owned(),
            other => other.to_ascii_lowercase(),
        };
        paths().filter_map(|path| path.rsplit('/').next()?.split(".ko").next()).any(|name| name.replace('-', "_") == module)
    };
    options.iter().copied().filter(|option| !is_there(option)).collect()
}

/// The options that no line of a configuration sets. One whose choices depend on another that is not set has no line at all.
fn unset<'a>(configuration: &str, options: &[&'a str]) -> Vec<&'a str> {
    let set = |option: &str| {
        let values =
            configuration.lines().filter_map(|line| line.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('='));
        values.into_iter().any(|value| value == "y" || value == "m")
    };
    options.iter().copied().filter(|option| !set(option)).collect()
}

#[cfg(test)]
mod tests {
    use super::{no_module, unset};

    #[test]
    fn only_y_and_m_are_there_and_names_are_whole() {
        let configuration =
            "CONFIG_NFT_FIB=m\nCONFIG_NFT_FIB_IPV4=y\n# CONFIG_NFT_FIB_IPV6 is not set\nCONFIG_NFT_FWD_NETDEV_X=y\n";
        let options = ["NFT_FIB", "NFT_FIB_IPV4", "NFT_FIB_IPV6", "NFT_FWD_NETDEV"];
        assert_eq!(unset(configuration, &options), ["NFT_FIB_IPV6", "NFT_FWD_NETDEV"]);
    }
    #[test]
    fn modules_are_known_by_the_names_of_their_files() {
        let modules =
            "kernel/net/8021q/8021q.ko\nkernel/drivers/net/tun.ko.xz: kernel/net/ipv6/ipv6.ko\nkernel/net/nft_fib_ipv6.ko:\n";
        let options = ["VLAN_8021Q", "TUN", "NFT_FIB_IPV6", "NFT_REJECT_NETDEV", "IPV6"];
        assert_eq!(no_module(modules, &options), ["NFT_REJECT_NETDEV", "IPV6"]);
    }
}
