//! Building: the kernel side by the eBPF toolchain, then the user side with the object embedded. Cargo decides what is fresh.

use crate::{
    command::{self, own_cargo},
    error::Error,
    places,
    setup::{self, Part, toolchain::Toolchain},
};

/// Builds both sides, bringing the toolchain when it is missing.
pub(crate) fn run(release: bool) -> Result<(), Error> {
    let toolchain = setup::ensure(&[Part::Build])?;
    kernel_side(toolchain)?;
    user_side(release)
}

/// Builds the eBPF object, always for release: the verifier refuses much of what a debug build makes.
pub(crate) fn kernel_side(toolchain: Toolchain) -> Result<(), Error> {
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(places::kernel_side())
        .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf")
        .args(["build", "--release", "--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(places::kernel_target());
    command::run(&mut cargo)
}

/// Builds the program; `wsltrace/build.rs` finds the object where [`kernel_side`] left it.
fn user_side(release: bool) -> Result<(), Error> {
    let mut cargo = own_cargo();
    cargo.current_dir(places::root()).args(["build", "--package", "wsltrace", "--target-dir"]).arg(places::user_target());
    if release {
        cargo.arg("--release");
    }
    command::run(&mut cargo)
}
