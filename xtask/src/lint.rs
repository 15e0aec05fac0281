//! `cargo xtask lint`: formatting and clippy, warnings denied, on both sides.
//!
//! The kernel side is linted for the host's target: nothing is linked, so the stable toolchain's clippy suffices and the eBPF
//! toolchain (which has no clippy of its own) is not needed.

use crate::{
    command::{self, own_cargo},
    error::Error,
    places,
    setup::{self, Part},
};

/// Runs all four checks, in the order in which they are quickest to answer.
pub(crate) fn run() -> Result<(), Error> {
    setup::ensure(&[Part::Lint])?;
    for directory in [places::root().to_owned(), places::kernel_side()] {
        command::run(own_cargo().current_dir(directory).args(["fmt", "--all", "--", "--check"]))?;
    }
    let mut user = own_cargo();
    user.current_dir(places::root()).args(["clippy", "--workspace", "--all-targets", "--target-dir"]).arg(places::user_target());
    command::run(user.args(["--", "-D", "warnings"]))?;
    let mut kernel = own_cargo();
    kernel.current_dir(places::kernel_side()).args(["clippy", "--target-dir"]).arg(places::kernel_target().join("lint"));
    command::run(kernel.args(["--", "-D", "warnings"]))
}
