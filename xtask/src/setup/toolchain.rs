//! Which compiler builds the kernel side.
//!
//! `core` has to be built for `bpfel-unknown-none`, so the compiler and the sources of its library must match. Debian 12 and
//! 13 package both; elsewhere rustup brings the same release. A release that is named, not nightly: what the verifier gets to
//! see stays the same from day to day, and so does the LLVM that `bpf-linker` has to understand.

use std::process::Command;

use super::{
    machine,
    requirement::{DEBIAN, RUSTUP, Requirement},
};
use crate::command::{answer, clean};

/// The release that rustup brings: the one that Debian packages.
pub(super) const RUST: &str = "1.96.0";

/// A compiler for the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Debian's `rustc-web`, `cargo-web` and `rust-web-src`.
    Debian,
    /// The release [`RUST`] of rustup with `rust-src`.
    Rustup,
}

/// What the choice is made from.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, each read once")]
pub(crate) struct Facts {
    debian_compiler: bool,
    rustup_compiler: bool,
    bpf_linker: bool,
    debian_packages: bool,
}

impl Facts {
    /// Looks at this machine.
    pub(crate) fn look() -> Self {
        Self {
            debian_compiler: debian_compiler() && debian_sources(),
            rustup_compiler: rustup_sources(),
            bpf_linker: bpf_linker(),
            debian_packages: debian_packages(),
        }
    }
}

/// Takes what is complete already, else what this distribution can bring.
pub(crate) fn choose(facts: Facts) -> Toolchain {
    if facts.debian_compiler {
        Toolchain::Debian
    } else if facts.rustup_compiler && facts.bpf_linker {
        Toolchain::Rustup
    } else if facts.debian_packages {
        Toolchain::Debian
    } else {
        Toolchain::Rustup
    }
}

impl Toolchain {
    /// What has to be there for it.
    pub(crate) fn requirements(self) -> &'static [Requirement] {
        match self {
            Self::Debian => DEBIAN,
            Self::Rustup => RUSTUP,
        }
    }

    /// Its name for people.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Debian => "/usr/bin/rustc with Debian's sources".to_owned(),
            Self::Rustup => format!("rustup's {RUST} with rust-src"),
        }
    }

    /// Its cargo, free of everything that our own cargo has set, with `bpf-linker` in its PATH.
    pub(crate) fn cargo(self) -> Command {
        let mut command = match self {
            Self::Debian => {
                let mut cargo = clean("/usr/bin/cargo");
                cargo.env("RUSTC", "/usr/bin/rustc");
                cargo
            }
            Self::Rustup => {
                let mut rustup = clean("rustup");
                rustup.args(["run", RUST, "cargo"]);
                rustup
            }
        };
        // `build-std` is for nightly only; the one thing that we need of it is the same in these releases.
        command.env("RUSTC_BOOTSTRAP", "1");
        if let Ok(path) = std::env::join_paths(machine::search_path()) {
            command.env("PATH", path);
        }
        command
    }
}

/// Whether Debian's compiler is there and new enough for the crates of the kernel side.
pub(super) fn debian_compiler() -> bool {
    machine::at_least("/usr/bin/rustc", [1, 91])
}

/// Whether the sources of Debian's compiler are there.
pub(super) fn debian_sources() -> bool {
    machine::exists("/usr/lib/rustlib/src/rust/library/core/Cargo.toml")
}

/// Whether this is a Debian that packages the compiler, as far as can be seen before the lists of packages are fetched.
fn debian_packages() -> bool {
    matches!(machine::debian_release(), Some(12 | 13)) && machine::apt_offers("rustc-web") != Some(false)
}

/// Whether rustup's release is there with its sources.
pub(super) fn rustup_sources() -> bool {
    let sysroot = answer(clean("rustup").args(["run", RUST, "rustc", "--print", "sysroot"]));
    sysroot.is_some_and(|sysroot| machine::exists(&format!("{}/lib/rustlib/src/rust/library/core/Cargo.toml", sysroot.trim())))
}

/// Whether a `bpf-linker` runs that can read what the compilers above write.
pub(super) fn bpf_linker() -> bool {
    machine::at_least("bpf-linker", [0, 13])
}

#[cfg(test)]
mod tests {
    use super::{Facts, Toolchain, choose};

    #[test]
    fn what_is_complete_is_taken() {
        let both = Facts { debian_compiler: true, rustup_compiler: true, bpf_linker: true, debian_packages: true };
        assert_eq!(choose(both), Toolchain::Debian);
        assert_eq!(choose(Facts { debian_compiler: false, ..both }), Toolchain::Rustup);
    }

    #[test]
    fn a_compiler_without_linker_is_no_reason_to_leave_debians_packages() {
        let half = Facts { rustup_compiler: true, debian_packages: true, ..Facts::default() };
        assert_eq!(choose(half), Toolchain::Debian);
    }

    #[test]
    fn a_bare_machine_takes_what_its_distribution_has() {
        assert_eq!(choose(Facts { debian_packages: true, ..Facts::default() }), Toolchain::Debian);
        assert_eq!(choose(Facts::default()), Toolchain::Rustup);
    }
}
