//! Servers that listen and do not accept, each a process of its own: what the tracer says keeps them, beside how they were made so, and
//! whether the printed command has them accept.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use wsltrace::lab::{Lab, LabError, Namespace, PORT};
use wsltrace_tests::decide;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

/// Says to a process of this program that it is a server, and of which kind.
const ROLE: &str = "WSLTRACE_TEST_SERVER";
/// So many files it may have open.
const FILES: u64 = 16;
/// How long an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(role) = std::env::var(ROLE) {
        return serve(&role);
    }
    let tests: [(&'static str, Test); 3] = [
        ("a_server_without_files_is_given_more_by_the_printed_command", without_files),
        ("a_server_that_waits_for_a_silent_client_is_told_with_it", behind_a_silent_client),
        ("a_server_that_waits_for_connections_only_has_nothing_that_keeps_it", idle),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// A server with one thread, until it is killed. It says that it listens by a line.
fn serve(role: &str) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let mut held = Vec::new();
    if role == "without files" {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, FILES, hard)?;
        loop {
            match File::open("/dev/null") {
                Ok(file) => held.push(file),
                Err(error) if error.raw_os_error() == Some(nix::libc::EMFILE) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    io::stdout().write_all(b"listens\n")?;
    loop {
        match listener.accept() {
            Ok((mut connection, _)) => {
                connection.write_all(b"!")?;
                // Until its client closes it.
                while connection.read(&mut [0; 64])? > 0 {}
            }
            Err(error) if error.raw_os_error() == Some(nix::libc::EMFILE) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A process that goes with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself, which the client notices.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn spawn(
    namespace: &Namespace,
    command: &mut Command,
) -> Result<(Process, BufReader<std::process::ChildStdout>), Box<dyn Error>> {
    let doing = format!("run {}", command.get_program().display());
    let start = || command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|source| LabError::Io { doing, source });
    let spawned = namespace.run(start)?;
    let mut process = Process(spawned);
    let stdout = process.0.stdout.take().ok_or("no stdout")?;
    Ok((process, BufReader::new(stdout)))
}

fn server(lab: &Lab, role: &str) -> Result<Process, Box<dyn Error>> {
    let (server, mut said) = spawn(&lab.wsl, Command::new(std::env::current_exe()?).env(ROLE, role))?;
    let mut line = String::new();
    said.read_line(&mut line)?;
    if line == "listens\n" { Ok(server) } else { Err(format!("the server said {line:?}").into()) }
}

fn connect(lab: &Lab) -> Result<TcpStream, Box<dyn Error>> {
    let to = SocketAddr::new(Lab::wsl_address(false), PORT);
    let tried =
        || TcpStream::connect_timeout(&to, PATIENCE).map_err(|source| LabError::Io { doing: format!("connect to {to}"), source });
    let stream = lab.client.run(tried)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Waits for the byte that the server greets with.
fn is_greeted(stream: &mut TcpStream) -> Result<bool, Box<dyn Error>> {
    match stream.read(&mut [0; 1]) {
        Ok(bytes) => Ok(bytes == 1),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the tracer says of one connection, which stays open.
fn traced(binary: &Path, lab: &Lab) -> Result<(Value, TcpStream), Box<dyn Error>> {
    let port = PORT.to_string();
    let (_tracer, said) = spawn(&lab.wsl, Command::new(binary).args(["--port", &port, "--json", "--count", "1"]))?;
    let mut client = None;
    for line in said.lines() {
        let value: Value = serde_json::from_str(&line?)?;
        if value["type"] == "armed" {
            client = Some(connect(lab)?);
        } else if value["type"] == "journey" {
            return Ok((value["diagnosis"].clone(), client.ok_or("a journey before the probes were on")?));
        }
    }
    Err("the tracer told of no connection".into())
}

fn check(holds: bool, what: &str, diagnosis: &Value) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("expected {what}; {diagnosis}").into()) }
}

fn says(diagnosis: &Value, what: &str) -> bool {
    diagnosis["summary"].as_str().is_some_and(|summary| summary.contains(what))
}

fn without_files(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let server = server(&lab, "without files")?;
    let (diagnosis, mut client) = traced(binary, &lab)?;
    check(diagnosis["code"] == "not_accepted", "that it is not accepted", &diagnosis)?;
    check(says(&diagnosis, &format!("open as it may ({FILES}, RLIMIT_NOFILE)")), "the limit", &diagnosis)?;
    let command = diagnosis["remedy"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|line| line.starts_with("sudo prlimit"));
    let command = command.and_then(|line| line.strip_prefix("sudo ")).ok_or("no prlimit")?;
    check(command.contains(&format!("--pid {} ", server.0.id())), "the server's process", &diagnosis)?;
    let ran = Command::new("sh").args(["-c", command]).status()?;
    check(ran.success() && is_greeted(&mut client)?, "that the command has it accept", &diagnosis)
}

fn behind_a_silent_client(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let _server = server(&lab, "one by one")?;
    let mut first = connect(&lab)?;
    if !is_greeted(&mut first)? {
        return Err("the first client was not served".into());
    }
    let (diagnosis, mut client) = traced(binary, &lab)?;
    check(diagnosis["code"] == "not_accepted", "that it is not accepted", &diagnosis)?;
    let who = format!("was waiting for what {} sends on another connection", first.local_addr()?);
    check(says(&diagnosis, &who), &who, &diagnosis)?;
    drop(first);
    check(is_greeted(&mut client)?, "that it is served once the other has gone", &diagnosis)
}

fn idle(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let _server = server(&lab, "one by one")?;
    let (diagnosis, mut client) = traced(binary, &lab)?;
    check(diagnosis["code"] == "healthy" && is_greeted(&mut client)?, "a healthy connection", &diagnosis)
}
