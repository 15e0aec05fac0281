//! Where things are in the checkout, and where builds leave them.

use std::path::{Path, PathBuf};

/// The checkout.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The kernel side: a workspace of its own.
pub(crate) fn kernel_side() -> PathBuf {
    root().join("wsltrace-ebpf")
}

/// Where the kernel side is built; `wsltrace/build.rs` looks for the object here.
pub(crate) fn kernel_target() -> PathBuf {
    root().join("target/ebpf")
}

/// Where the user side is built.
pub(crate) fn user_target() -> PathBuf {
    root().join("target")
}

/// The program, once built.
pub(crate) fn program(release: bool) -> PathBuf {
    user_target().join(if release { "release" } else { "debug" }).join("wsltrace")
}

/// Where packages are made.
pub(crate) fn dist() -> PathBuf {
    root().join("target/dist")
}

/// What virtual machines are made of and what they leave.
pub(crate) fn virtual_machines() -> PathBuf {
    root().join("target/vm")
}

/// The skips that CI accepts.
pub(crate) fn expected_skips() -> PathBuf {
    root().join("tests/expected-skips.txt")
}
