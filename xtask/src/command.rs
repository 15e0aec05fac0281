//! Running other programs: with which environment, and what is made of their exit status.

use std::{ffi::OsString, io::Write, process::Command};

use crate::error::Error;

/// Variables that cargo and rustup set for us and that would lead another cargo astray: it would take our compiler, our flags
/// or our libraries for its own.
const LEAKING: &[&str] = &[
    "CARGO",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "RUST_RECURSION_COUNT",
];

/// Prefixes of variables that describe our own package and build.
const LEAKING_PREFIXES: &[&str] =
    &["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CFG_", "CARGO_PROFILE_", "CARGO_UNSTABLE_"];

/// Prints one line for the person at the terminal (standard error; a terminal that has gone away is no reason to stop).
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether this process has root's rights.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The cargo that runs this task, so that the user side is built by the toolchain that the person chose.
pub(crate) fn own_cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// A command in an environment free of what cargo and rustup set for this process.
pub(crate) fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a variable belongs to the cargo that started us rather than to the person.
fn leaks(name: &str) -> bool {
    LEAKING.contains(&name) || LEAKING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Runs a command with our terminal; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|source| Error::Start { command: line(command), source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { command: line(command), status }) }
}

/// Standard output of a command that succeeds quietly, `None` when it cannot be run or fails.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it, with the variables set for it.
pub(crate) fn line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        value.map(|value| format!("{}={}", name.to_string_lossy(), quoted(&value.to_string_lossy())))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| quoted(&word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    if word.contains([' ', '"', '$', '&', ';']) { format!("'{word}'") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{clean, leaks, line};

    #[test]
    fn a_command_line_can_be_typed_again() {
        let mut command = clean("cargo");
        command.env("RUSTFLAGS", "-C debuginfo=2").args(["build", "-Z", "build-std=core"]);
        assert_eq!(line(&command), "RUSTFLAGS='-C debuginfo=2' cargo build -Z build-std=core");
    }

    #[test]
    fn the_persons_own_settings_stay_and_cargos_go() {
        for stays in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_NET_OFFLINE", "HTTPS_PROXY"] {
            assert!(!leaks(stays), "{stays}");
        }
        for goes in ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"]
        {
            assert!(leaks(goes), "{goes}");
        }
    }
}
