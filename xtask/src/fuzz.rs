//! `cargo xtask fuzz`: made-up recordings for the reader and for everything that tells what it read. Not a part of the tests: building
//! everything for it takes minutes. What it does with an input, a unit test does with recordings changed at random
//! (`recording/changed.rs`).

use std::fs;

use crate::{
    command::{self, own_cargo},
    error::Error,
    places,
    setup::{self, Part},
};

/// Builds the target and gives it so many inputs, beginning with the samples of the documentation; what it finds stays in fuzz/artifacts.
pub(crate) fn run(runs: u32) -> Result<(), Error> {
    setup::ensure(&[Part::Fuzz])?;
    let fuzz = places::root().join("fuzz");
    let corpus = fuzz.join("corpus/recording");
    fs::create_dir_all(&corpus).map_err(|source| Error::File { action: "make", path: corpus.clone(), source })?;
    let mut cargo = own_cargo();
    // cargo-fuzz asks for nightly only for the flags that instrument the code.
    cargo.current_dir(places::root()).env("RUSTC_BOOTSTRAP", "1");
    cargo
        .args(["fuzz", "run", "--release", "--sanitizer", "none", "recording"])
        .arg(&corpus)
        .arg(places::root().join("docs/samples"));
    cargo.args(["--", "-max_len=20000", "-timeout=20", "-rss_limit_mb=1024", "-verbosity=0", "-print_final_stats=1"]);
    cargo.arg(format!("-runs={runs}"));
    command::run(&mut cargo)
}
