//! Puts the kernel side's object where the program embeds it: `$OUT_DIR/wsltrace-ebpf.o`.
//!
//! The object is the file that `WSLTRACE_EBPF_OBJECT` names, else the one that `cargo xtask build` leaves under `target/ebpf`.
//! Without either the embedded file is empty: plain `cargo check`, `clippy` and `doc` need no eBPF toolchain, and the program
//! says when it starts that it was built without its kernel side.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

const VARIABLE: &str = "WSLTRACE_EBPF_OBJECT";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let destination = directory("OUT_DIR")?.join("wsltrace-ebpf.o");
    if let Some(named) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        return embed(Path::new(&named), &destination);
    }
    let built = directory("CARGO_MANIFEST_DIR")?.join("../target/ebpf");
    let object = built.join("bpfel-unknown-none/release/wsltrace-ebpf");
    if object.exists() {
        return embed(&object, &destination);
    }
    // Cargo takes a missing file for a changed one and would build anew every time, so the directory in which the object will
    // appear is watched instead.
    fs::create_dir_all(&built)?;
    println!("cargo::rerun-if-changed={}", built.display());
    fs::write(destination, [])
}

fn embed(object: &Path, destination: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(object).map_err(|error| {
        io::Error::new(error.kind(), format!("could not read the kernel side {} (see {VARIABLE}): {error}", object.display()))
    })?;
    fs::write(destination, bytes)
}

fn directory(variable: &str) -> io::Result<PathBuf> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("cargo did not set {variable}")))
}
