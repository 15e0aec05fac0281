//! What the running kernel was built with.

use std::io::Read as _;

use flate2::read::GzDecoder;
use nix::sys::utsname::uname;

/// The options that this kernel was built without, of those named (such as `NFT_FIB_IPV6`). Empty where its configuration cannot be
/// read (`/proc/config.gz`, `/boot/config-VERSION`): then nothing is known. An option that is a module counts as built, whether the
/// module is there or not.
pub fn built_without<'a>(options: &[&'a str]) -> Vec<&'a str> {
    if options.is_empty() {
        return Vec::new();
    }
    configuration().map(|configuration| unset(&configuration, options)).unwrap_or_default()
}

fn configuration() -> Option<String> {
    let mut text = String::new();
    if let Ok(packed) = std::fs::read("/proc/config.gz")
        && GzDecoder::new(packed.as_slice()).read_to_string(&mut text).is_ok()
    {
        return Some(text);
    }
    let release = uname().ok()?.release().to_str()?.to_owned();
    std::fs::read_to_string(format!("/boot/config-{release}")).ok()
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
    use super::unset;

    #[test]
    fn only_y_and_m_are_there_and_names_are_whole() {
        let configuration =
            "CONFIG_NFT_FIB=m\nCONFIG_NFT_FIB_IPV4=y\n# CONFIG_NFT_FIB_IPV6 is not set\nCONFIG_NFT_FWD_NETDEV_X=y\n";
        let options = ["NFT_FIB", "NFT_FIB_IPV4", "NFT_FIB_IPV6", "NFT_FWD_NETDEV"];
        assert_eq!(unset(configuration, &options), ["NFT_FIB_IPV6", "NFT_FWD_NETDEV"]);
    }
}
