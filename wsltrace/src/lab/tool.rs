//! Running the real firewall tools inside a namespace.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{LabError, Namespace};
use crate::kernel::programs::locate;

/// What a tool says when the kernel, not the rule, is at fault: then the scenario cannot be played here.
const MISSING_IN_KERNEL: [&str; 7] = [
    "Table does not exist",
    "Operation not supported",
    "Protocol not supported",
    "missing kernel module",
    "Unknown device type",
    "qdisc kind is unknown",
    // An expression of nftables without its module.
    "Could not process rule: No such file or directory",
];

impl Namespace {
    /// Adds an nftables chain with one rule, or none; `kind` is its type, hook, priority and policy. The table is called
    /// `lab` unless somebody has changed that, the chain like its hook.
    pub(super) fn nft(&self, family: &str, kind: &str, rule: &str) -> Result<(), LabError> {
        let chain = kind.split_whitespace().skip_while(|word| *word != "hook").nth(1).unwrap_or("chain");
        self.nft_script(&format!("table {family} {} {{\n chain {chain} {{\n {kind};\n {rule}\n }}\n}}\n", self.table))
    }

    /// Loads a file of nftables.
    pub(super) fn nft_script(&self, script: &str) -> Result<(), LabError> {
        self.tool("nft", &["-f", "-"], script)
    }

    /// Runs one of the iptables programs with arguments separated by blanks.
    pub(super) fn iptables(&self, program: &'static str, arguments: &str) -> Result<(), LabError> {
        let arguments: Vec<&str> = ["-w"].into_iter().chain(arguments.split_whitespace()).collect();
        self.tool(program, &arguments, "")
    }

    /// Runs commands of `ip`, one a line.
    pub fn ip(&self, commands: &str) -> Result<(), LabError> {
        self.ip_of(false, commands)
    }

    /// The same for one family.
    pub(super) fn ip_of(&self, v6: bool, commands: &str) -> Result<(), LabError> {
        self.tool("ip", if v6 { &["-6", "-batch", "-"] } else { &["-batch", "-"] }, commands)
    }

    /// Runs a command of `tc`.
    pub(super) fn tc(&self, command: &str) -> Result<(), LabError> {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        self.tool("tc", &arguments, "")
    }

    /// Runs a tool with these arguments and this input.
    pub(super) fn tool(&self, tool: &str, arguments: &[&str], input: &str) -> Result<(), LabError> {
        let program = locate(tool).ok_or_else(|| LabError::Unsupported(format!("{tool} is not installed")))?;
        let output = self.run(|| feed(&program, arguments, input).map_err(LabError::io(format!("run {}", program.display()))))?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().escape_debug().to_string();
        if MISSING_IN_KERNEL.iter().any(|sign| message.contains(sign)) {
            return Err(LabError::Unsupported(format!("this kernel cannot do what {tool} asks: {message}")));
        }
        Err(LabError::Tool { tool: format!("{tool} {}", arguments.join(" ")), message })
    }
}

fn feed(program: &Path, arguments: &[&str], input: &str) -> std::io::Result<std::process::Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    child.wait_with_output()
}
