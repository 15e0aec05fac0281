//! Looking at this machine: which programs are there, and of which version.

use std::path::{Path, PathBuf};

use crate::command::{answer, clean};

/// Where rustup and `cargo install` put programs.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).map(|home| home.join("bin"))
}

/// The directories in which programs are looked for: PATH, then those that a user's or sudo's PATH often lacks.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = cargo_bin().into_iter().chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for directory in extra {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Whether a program is there.
pub(crate) fn has(program: &str) -> bool {
    find(program).is_some()
}

/// Whether a file or directory is there.
pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

/// What a program says to `--version`, in the environment of our own toolchain; `None` when it is not there or does not run
/// (rustup's stand-in for a component that is not installed, or a library that is gone).
pub(crate) fn version_text(program: &str) -> Option<String> {
    let path = find(program)?;
    let mut command = clean(path.to_str()?);
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    answer(command.arg("--version"))
}

/// Whether a program is there, runs, and is at least this version.
pub(crate) fn at_least(program: &str, wanted: [u32; 2]) -> bool {
    version_text(program).and_then(|text| version(&text)).is_some_and(|found| found >= wanted)
}

/// Major and minor of the first word that looks like a version.
fn version(text: &str) -> Option<[u32; 2]> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some([major, minor]),
            _ => None,
        }
    })
}

/// The release of Debian that this is; `None` on Ubuntu and others, and where Debian has no number yet.
pub(crate) fn debian_release() -> Option<u32> {
    release(&std::fs::read_to_string("/etc/os-release").ok()?)
}

fn release(text: &str) -> Option<u32> {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
    if value("ID=")? == "debian" { value("VERSION_ID=")?.parse().ok() } else { None }
}

/// Whether the sources of packages that this machine is set up with have a package; `None` before their lists are fetched.
pub(crate) fn apt_offers(package: &str) -> Option<bool> {
    let mut lists = std::fs::read_dir("/var/lib/apt/lists").ok()?;
    if !lists.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages"))) {
        return None;
    }
    // The names that begin so.
    let names = answer(clean("apt-cache").args(["pkgnames", package]))?;
    Some(names.lines().any(|name| name == package))
}

#[cfg(test)]
mod tests {
    use super::{release, version};

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n"), Some([1, 96]));
        assert_eq!(version("bpf-linker 0.13.0\n"), Some([0, 13]));
        assert_eq!(version("no version here"), None);
    }

    #[test]
    fn only_debian_itself_has_a_release_of_debian() {
        assert_eq!(release("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"), Some(12));
        assert_eq!(release("ID=debian\nVERSION_CODENAME=forky\n"), None);
        assert_eq!(release("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n"), None);
    }
}
