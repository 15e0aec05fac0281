//! The person behind sudo.

/// The user and group that sudo was called by; `None` when we are not root or root itself has called.
pub fn behind_sudo() -> Option<(u32, u32)> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let (uid, gid) = (number("SUDO_UID")?, number("SUDO_GID")?);
    (uid != 0 && nix::unistd::geteuid().is_root()).then_some((uid, gid))
}
