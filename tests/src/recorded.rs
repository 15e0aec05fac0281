//! A lab with three ports that end in three ways, the tracer of them, and readers of what it wrote.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use wsltrace::lab::{Binding, Lab, Listening, PORT};

use crate::ran::{check, output};

/// A port with a rule against it.
pub const SHUT: u16 = 8082;
/// A port without a server.
pub const EMPTY: u16 = 8081;
/// Nobody: the reader of a recording who is not root.
pub const NOBODY: u32 = 65534;

/// A lab with a server on one port, nobody on the next, and a rule against the third.
pub fn lab() -> Result<Lab, Box<dyn Error>> {
    let mut lab = Lab::new(None)?;
    let server = Listening::accepting(&lab.wsl, Binding::new(std::net::Ipv4Addr::UNSPECIFIED, PORT))?;
    lab.keep(server);
    let rules = format!(
        "add table ip filter; add chain ip filter INPUT {{ type filter hook input priority 0; }}; \
         add rule ip filter INPUT tcp dport {SHUT} counter drop comment \"block <b>web</b>\""
    );
    let listed = lab.wsl.run(|| output(Command::new("nft").arg(rules)))?;
    check(&listed, listed.status.success(), "the rule")?;
    Ok(lab)
}

/// A shell's words for one connection to each of the ports; what does not answer is given up.
pub fn connections() -> String {
    let one = |port: u16| format!("timeout 0.4 bash -c 'exec 3<>/dev/tcp/{}/{port}' 2>/dev/null", Lab::wsl_address(false));
    format!("{}; {}; {}; {}; true", one(PORT), one(EMPTY), one(EMPTY), one(SHUT))
}

/// A tracer of the three ports, to be run on the client's side.
pub fn tracer(binary: &Path, lab: &Lab) -> Command {
    let mut command = Command::new(binary);
    command.arg("--netns").arg(lab.wsl.path()).args(["--port", &format!("{PORT}-{SHUT}")]);
    command
}

/// Traces the connections with these arguments.
pub fn trace(binary: &Path, lab: &Lab, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = tracer(binary, lab);
    command.args(arguments).args(["--", "bash", "-c", &connections()]);
    Ok(lab.client.run(|| output(&mut command))?)
}

/// Runs it on recordings as somebody who is not root, and must succeed.
pub fn read(binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let ran = Command::new(binary).args(arguments).uid(NOBODY).gid(NOBODY).output()?;
    check(&ran, ran.status.success(), &format!("that {arguments:?} succeeds"))?;
    Ok(ran)
}

/// A directory for everybody, and the path of a recording in it.
pub fn place() -> Result<(TempDir, String), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let path = folder.path().join("run.wsltrace").display().to_string();
    Ok((folder, path))
}

/// Lets everybody read what only its owner may.
pub fn publish(path: &str) -> Result<(), Box<dyn Error>> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o644))?)
}

/// Runs it on recordings as the user of the tests.
pub fn read_as_root(binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let ran = Command::new(binary).args(arguments).output()?;
    check(&ran, ran.status.success(), &format!("that {arguments:?} succeeds"))?;
    Ok(ran)
}
