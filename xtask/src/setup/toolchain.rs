//! Which compiler builds the kernel side.
//!
//! `core` has to be built for `bpfel-unknown-none`, so the compiler and the sources of its library must match. Debian
//! packages both; elsewhere it is rustup's nightly with `rust-src`.

use std::process::Command;

use super::{
    machine,
    requirement::{DEBIAN, NIGHTLY, Requirement},
};
use crate::command::{answer, clean};

/// A compiler for the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Debian's `rustc-web`, `cargo-web` and `rust-web-src`.
    Debian,
    /// rustup's nightly with `rust-src`.
    Nightly,
}

/// What the choice is made from.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, each read once")]
pub(crate) struct Facts {
    debian_compiler: bool,
    nightly_compiler: bool,
    bpf_linker: bool,
    debian: bool,
}

impl Facts {
    /// Looks at this machine.
    pub(crate) fn look() -> Self {
        Self {
            debian_compiler: debian_compiler() && debian_sources(),
            nightly_compiler: nightly_sources(),
            bpf_linker: bpf_linker(),
            debian: machine::is_debian(),
        }
    }
}

/// Takes what is complete already, else what this distribution can bring.
pub(crate) fn choose(facts: Facts) -> Toolchain {
    if facts.debian_compiler {
        Toolchain::Debian
    } else if facts.nightly_compiler && facts.bpf_linker {
        Toolchain::Nightly
    } else if facts.debian {
        Toolchain::Debian
    } else {
        Toolchain::Nightly
    }
}

impl Toolchain {
    /// What has to be there for it.
    pub(crate) fn requirements(self) -> &'static [Requirement] {
        match self {
            Self::Debian => DEBIAN,
            Self::Nightly => NIGHTLY,
        }
    }

    /// Its name for people.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Debian => "/usr/bin/rustc with Debian's sources",
            Self::Nightly => "rustup's nightly with rust-src",
        }
    }

    /// Its cargo, free of everything that our own cargo has set, with `bpf-linker` in its PATH.
    pub(crate) fn cargo(self) -> Command {
        let mut command = match self {
            Self::Debian => {
                let mut cargo = clean("/usr/bin/cargo");
                cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Nightly => {
                let mut rustup = clean("rustup");
                rustup.args(["run", "nightly", "cargo"]);
                rustup
            }
        };
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

/// Whether rustup's nightly is there with its sources.
pub(super) fn nightly_sources() -> bool {
    let sysroot = answer(clean("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]));
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
        let both = Facts { debian_compiler: true, nightly_compiler: true, bpf_linker: true, debian: true };
        assert_eq!(choose(both), Toolchain::Debian);
        assert_eq!(choose(Facts { debian_compiler: false, ..both }), Toolchain::Nightly);
    }

    #[test]
    fn a_nightly_without_linker_is_no_reason_to_leave_debians_packages() {
        let nightly = Facts { nightly_compiler: true, debian: true, ..Facts::default() };
        assert_eq!(choose(nightly), Toolchain::Debian);
    }

    #[test]
    fn a_bare_machine_takes_what_its_distribution_has() {
        assert_eq!(choose(Facts { debian: true, ..Facts::default() }), Toolchain::Debian);
        assert_eq!(choose(Facts::default()), Toolchain::Nightly);
    }
}
