//! Puts the eBPF object where the binary embeds it from.
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("wsltrace-ebpf.o");
    let object = PathBuf::from("../target/ebpf/bpfel-unknown-none/release/wsltrace-ebpf");
    println!("cargo::rerun-if-changed={}", object.display());
    if object.exists() {
        fs::copy(object, out).unwrap();
    } else {
        fs::write(out, []).unwrap();
    }
}
