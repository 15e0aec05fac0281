//! The tables of what this project needs from a machine: one row a requirement, saying what it is, why it is needed, how to
//! see that it is there and how to bring it.

use std::process::Command;

use super::{
    machine::{exists, find, has, version_text},
    toolchain::{RUST, bpf_linker, debian_compiler, debian_sources, rustup_sources},
};
use crate::command::{answer, clean};

/// A part of the work, so that a task brings only what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Compiling the kernel side and the user side.
    Build,
    /// Formatting and clippy.
    Lint,
    /// Running the end-to-end tests.
    Test,
    /// Programs that single tests need: readers of what is exported, and bpftool. Tests do without where they cannot be had.
    Readers,
    /// Making the Debian package.
    Package,
    /// Giving made-up recordings to the reader.
    Fuzz,
    /// Booting another kernel and running the self-test in it.
    Vm,
    /// Measuring beside other load generators.
    Loads,
}

impl Part {
    /// Every part.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] =
        [Self::Build, Self::Lint, Self::Test, Self::Readers, Self::Package, Self::Fuzz, Self::Vm, Self::Loads];
}

/// One thing that has to be there.
pub(crate) struct Requirement {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
    /// Which parts of the work need it.
    pub(crate) parts: &'static [Part],
    /// The row that it serves to build: not needed once that one is there.
    pub(crate) only_for: Option<&'static str>,
    /// Whether it is there.
    pub(crate) sign: fn() -> bool,
    /// How to bring it.
    pub(crate) bring: Bring,
}

/// How to bring something.
pub(crate) enum Bring {
    /// Packages of the distribution.
    Apt(&'static [&'static str]),
    /// A command, with the variables that it needs.
    Run {
        /// Names and values.
        variables: &'static [(&'static str, &'static str)],
        /// The program and its arguments.
        words: &'static [&'static str],
    },
    /// We cannot; this is what a person can do.
    Person(&'static str),
}

impl Requirement {
    /// The command that brings it, run by the toolchain that runs us; `None` for packages and for what only a person can do.
    pub(crate) fn command(&self) -> Option<Command> {
        let Bring::Run { variables, words } = self.bring else { return None };
        let (program, arguments) = words.split_first()?;
        let mut command = clean(program);
        command.envs(variables.iter().copied()).args(arguments);
        if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
            command.env("RUSTUP_TOOLCHAIN", toolchain);
        }
        Some(command)
    }
}

const BPF_LINKER: &str = "bpf-linker";

/// The kernel side built with Debian's packages.
pub(crate) const DEBIAN: &[Requirement] = &[
    Requirement {
        name: "rustc-web",
        why: "compiles the kernel side (1.91 or later)",
        parts: &[Part::Build],
        only_for: None,
        sign: debian_compiler,
        bring: Bring::Apt(&["rustc-web"]),
    },
    Requirement {
        name: "cargo-web",
        why: "builds the kernel side with that compiler",
        parts: &[Part::Build],
        only_for: None,
        sign: || exists("/usr/bin/cargo"),
        bring: Bring::Apt(&["cargo-web"]),
    },
    Requirement {
        name: "rust-web-src",
        why: "sources of `core`, which is built for the eBPF target",
        parts: &[Part::Build],
        only_for: None,
        sign: debian_sources,
        bring: Bring::Apt(&["rust-web-src"]),
    },
    Requirement {
        name: "llvm-22-dev",
        why: "bpf-linker is linked with the LLVM of the compiler",
        parts: &[Part::Build],
        only_for: Some(BPF_LINKER),
        sign: || exists("/usr/lib/llvm-22/bin/llvm-config") && exists("/usr/lib/llvm-22/include/llvm-c/Core.h"),
        bring: Bring::Apt(&["llvm-22-dev"]),
    },
    Requirement {
        name: "libpolly-22-dev",
        why: "a library that LLVM asks for when bpf-linker is linked",
        parts: &[Part::Build],
        only_for: Some(BPF_LINKER),
        sign: || exists("/usr/lib/llvm-22/lib/libPolly.a"),
        bring: Bring::Apt(&["libpolly-22-dev"]),
    },
    Requirement {
        name: "libzstd-dev",
        why: "a library that LLVM asks for when bpf-linker is linked",
        parts: &[Part::Build],
        only_for: Some(BPF_LINKER),
        sign: || exists("/usr/include/zstd.h"),
        bring: Bring::Apt(&["libzstd-dev"]),
    },
    Requirement {
        name: "zlib1g-dev",
        why: "a library that LLVM asks for when bpf-linker is linked",
        parts: &[Part::Build],
        only_for: Some(BPF_LINKER),
        sign: || exists("/usr/include/zlib.h"),
        bring: Bring::Apt(&["zlib1g-dev"]),
    },
    Requirement {
        name: "c++",
        why: "compiles the C++ side of bpf-linker's LLVM binding",
        parts: &[Part::Build],
        only_for: Some(BPF_LINKER),
        sign: || has("c++"),
        bring: Bring::Apt(&["g++"]),
    },
    Requirement {
        name: BPF_LINKER,
        why: "links the kernel side into one eBPF object (0.13 or later)",
        parts: &[Part::Build],
        only_for: None,
        sign: bpf_linker,
        bring: Bring::Run {
            variables: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
            words: &[
                "cargo",
                "install",
                "bpf-linker",
                "--version",
                "0.13.0",
                "--locked",
                "--force",
                "--no-default-features",
                "--features",
                "llvm-22",
            ],
        },
    },
];

/// The kernel side built with a release that rustup brings.
///
/// That release holds the library of LLVM that its compiler uses, so `bpf-linker` is linked with this one: no package of LLVM
/// is needed, of which most distributions do not have the right version, and compiler and linker always fit.
pub(crate) const RUSTUP: &[Requirement] = &[
    Requirement {
        name: "rustup",
        why: "brings the compiler of the kernel side",
        parts: &[Part::Build],
        only_for: None,
        sign: || has("rustup"),
        bring: Bring::Person("curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"),
    },
    Requirement {
        name: "rustc with rust-src",
        why: "compiles the kernel side, `core` included",
        parts: &[Part::Build],
        only_for: None,
        sign: rustup_sources,
        bring: Bring::Run {
            variables: &[],
            words: &["rustup", "toolchain", "install", RUST, "--profile", "minimal", "--component", "rust-src"],
        },
    },
    Requirement {
        name: BPF_LINKER,
        why: "links the kernel side into one eBPF object (0.13 or later)",
        parts: &[Part::Build],
        only_for: None,
        sign: bpf_linker,
        bring: Bring::Run {
            variables: &[("RUST", RUST)],
            // A shell's command, because only rustup knows where the library is.
            words: &[
                "sh",
                "-c",
                "lib=$(rustup run $RUST rustc --print sysroot)/lib && \
                 RUSTFLAGS=\"-L $lib -C link-arg=-lLLVM-22-rust-$RUST-stable -C link-arg=-Wl,-rpath,$lib\" \
                 rustup run $RUST cargo install bpf-linker --version 0.13.0 --locked --force \
                 --no-default-features --features llvm-22,no-llvm-linking",
            ],
        },
    },
];

/// What is needed whichever compiler builds the kernel side.
pub(crate) const COMMON: &[Requirement] = &[
    Requirement {
        name: "cc",
        why: "links every Rust program",
        parts: &[Part::Build, Part::Lint, Part::Test],
        only_for: None,
        sign: || has("cc") && exists("/usr/include/stdlib.h"),
        bring: Bring::Apt(&["gcc", "libc6-dev"]),
    },
    Requirement {
        name: "rustfmt",
        why: "checks the formatting",
        parts: &[Part::Lint],
        only_for: None,
        sign: || version_text("cargo-fmt").is_some(),
        bring: Bring::Run { variables: &[], words: &["rustup", "component", "add", "rustfmt"] },
    },
    Requirement {
        name: "clippy",
        why: "lints both sides",
        parts: &[Part::Lint],
        only_for: None,
        sign: || version_text("cargo-clippy").is_some(),
        bring: Bring::Run { variables: &[], words: &["rustup", "component", "add", "clippy"] },
    },
    Requirement {
        name: "nftables",
        why: "the end-to-end tests break connections with nft rules",
        parts: &[Part::Test, Part::Vm],
        only_for: None,
        sign: || has("nft"),
        bring: Bring::Apt(&["nftables"]),
    },
    Requirement {
        name: "iptables",
        why: "the end-to-end tests break connections with iptables-nft and iptables-legacy rules",
        parts: &[Part::Test, Part::Vm],
        only_for: None,
        sign: || has("iptables-nft") && has("iptables-legacy") && has("iptables-legacy-save"),
        bring: Bring::Apt(&["iptables"]),
    },
    Requirement {
        name: "iproute2",
        why: "the end-to-end tests lay their networks with ip and tc",
        parts: &[Part::Test, Part::Vm],
        only_for: None,
        sign: || has("ip") && has("tc"),
        bring: Bring::Apt(&["iproute2"]),
    },
    Requirement {
        name: "tshark",
        why: "reads the exported packets in a test",
        parts: &[Part::Readers],
        only_for: None,
        sign: || has("tshark"),
        bring: Bring::Apt(&["tshark"]),
    },
    Requirement {
        name: "chromium",
        why: "shows the exported page in a test",
        parts: &[Part::Readers],
        only_for: None,
        sign: || has("chromium"),
        bring: Bring::Apt(&["chromium"]),
    },
    Requirement {
        name: "bpftool",
        why: "detaches a program at tc in a test, as printed",
        parts: &[Part::Readers],
        only_for: None,
        sign: || has("bpftool"),
        bring: Bring::Apt(&["bpftool"]),
    },
    Requirement {
        name: "c++ for libFuzzer",
        why: "compiles the fuzzer's engine",
        parts: &[Part::Fuzz],
        only_for: None,
        sign: || has("c++"),
        bring: Bring::Apt(&["g++"]),
    },
    Requirement {
        name: "cargo-fuzz",
        why: "builds and runs the fuzz targets",
        parts: &[Part::Fuzz],
        only_for: None,
        sign: || has("cargo-fuzz"),
        bring: Bring::Run { variables: &[], words: &["cargo", "install", "cargo-fuzz", "--version", "0.13.2", "--locked"] },
    },
    Requirement {
        name: "dpkg-dev",
        why: "makes the package, and finds the libraries that it depends on",
        parts: &[Part::Package],
        only_for: None,
        sign: || has("dpkg-deb") && has("dpkg-shlibdeps") && has("strip"),
        bring: Bring::Apt(&["dpkg-dev", "binutils"]),
    },
    Requirement {
        name: "lintian",
        why: "checks the package",
        parts: &[Part::Package],
        only_for: None,
        sign: || has("lintian"),
        bring: Bring::Apt(&["lintian"]),
    },
    Requirement {
        name: "qemu-system-x86",
        why: "boots other kernels, on an emulated processor",
        parts: &[Part::Vm],
        only_for: None,
        sign: || has("qemu-system-x86_64"),
        bring: Bring::Apt(&["qemu-system-x86"]),
    },
    Requirement {
        name: "busybox-static",
        why: "the first program of the guest",
        parts: &[Part::Vm],
        only_for: None,
        sign: static_busybox,
        bring: Bring::Apt(&["busybox-static"]),
    },
    Requirement {
        name: "kmod",
        why: "loads modules in the guest, where its kernel has any",
        parts: &[Part::Vm],
        only_for: None,
        sign: || has("depmod") && has("modprobe"),
        bring: Bring::Apt(&["kmod"]),
    },
    Requirement {
        name: "wrk",
        why: "a load generator to measure beside",
        parts: &[Part::Loads],
        only_for: None,
        sign: || has("wrk"),
        bring: Bring::Apt(&["wrk"]),
    },
    Requirement {
        name: "hey",
        why: "another one",
        parts: &[Part::Loads],
        only_for: None,
        sign: || has("hey"),
        bring: Bring::Apt(&["hey"]),
    },
    Requirement {
        name: "oha",
        why: "a third one",
        parts: &[Part::Loads],
        only_for: None,
        sign: || has("oha"),
        bring: Bring::Run { variables: &[], words: &["cargo", "install", "oha", "--version", "1.16.0", "--locked"] },
    },
];

/// Whether busybox is there, and needs no libraries.
fn static_busybox() -> bool {
    find("busybox").is_some_and(|path| answer(clean("ldd").arg(path)).is_none())
}
