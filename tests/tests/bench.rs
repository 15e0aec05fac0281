//! `wsltrace bench` as its users call it: against its own server, and with what cannot be measured.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use wsltrace_tests::decide;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 4] = [
        ("a_run_is_valid_by_its_schema_and_counts_what_the_server_answered", valid),
        ("ctrl_c_prints_what_was_measured", interrupted),
        ("what_cannot_be_measured_is_told", usage),
        ("a_target_that_refuses_is_told_as_such", refused),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// The tool's own server, ended with this.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(binary: &Path) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(binary).args(["bench", "--serve", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stderr.take().ok_or("no stderr")?).read_line(&mut line)?;
        // `serving 128 bytes on 127.0.0.1:40000; Ctrl-C ends it`
        let address = line.split(" on ").nth(1).and_then(|rest| rest.split(';').next()).ok_or_else(|| line.clone())?.to_owned();
        Ok(Self { child, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed then.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn bench(binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    Ok(Command::new(binary).arg("bench").args(arguments).output()?)
}

fn check(output: &Output, holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("expected {what}; {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr)).into())
}

fn valid(binary: &Path) -> Result<(), Box<dyn Error>> {
    let server = Server::start(binary)?;
    let target = format!("own={}", server.address);
    let schema: Value = serde_json::from_str(include_str!("../../docs/schema/bench-1.json"))?;
    let validator = jsonschema::validator_for(&schema)?;
    for arguments in [&["--keep-alive", "both"][..], &["--mode", "connect"], &["--rate", "200"]] {
        let ran = bench(binary, &[&["--target", &target, "-c", "4", "-d", "500ms", "--json"], arguments].concat())?;
        let value: Value = serde_json::from_slice(&ran.stdout)?;
        validator.validate(&value).map_err(|error| error.to_string())?;
        for path in value["paths"].as_array().ok_or("no paths")? {
            let answered =
                path["attempts"].as_u64() == path["waited"]["count"].as_u64() && path["failed"] == serde_json::json!({});
            check(&ran, answered && path["attempts"].as_u64() > Some(4), "attempts that are all answered")?;
        }
        check(&ran, value["partial"] == false && ran.status.success(), "a whole run")?;
    }
    let old = tempfile::NamedTempFile::new()?;
    let run = ["--target", &target, "-c", "2", "-d", "600ms"];
    std::fs::write(&old, bench(binary, &[&run[..], &["--json"]].concat())?.stdout)?;
    let path = old.path().display().to_string();
    let ran = bench(binary, &[&run[..], &["--compare", &path]].concat())?;
    let told =
        String::from_utf8_lossy(&ran.stdout).lines().any(|line| line.starts_with("own: ") && line.contains("95 % interval"));
    check(&ran, told, "a comparison")?;
    std::fs::write(&old, "{}")?;
    let ran = bench(binary, &[&run[..], &["--compare", &path]].concat())?;
    check(&ran, ran.status.code() == Some(1) && ran.stdout.is_empty(), "that another file is refused")?;
    let ran = bench(binary, &["--target", &target, "-c", "2", "-d", "300ms", "--csv"])?;
    let text = String::from_utf8(ran.stdout.clone())?;
    let columns: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
    check(&ran, columns.len() == 2 && columns[0] == columns[1], "a heading and a row of as many columns")
}

fn interrupted(binary: &Path) -> Result<(), Box<dyn Error>> {
    let server = Server::start(binary)?;
    // Its first connection tells that it has begun.
    let gate = TcpListener::bind("127.0.0.1:0")?;
    let targets = [format!("own={}", server.address), format!("gate={}", gate.local_addr()?)];
    let mut command = Command::new(binary);
    command.args(["bench", "--target", &targets[0], "--target", &targets[1], "-c", "2", "-d", "60s", "--json"]);
    command.args(["--timeout", "200ms"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    gate.accept()?;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
    let ran = child.wait_with_output()?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    check(&ran, value["partial"] == true && value["paths"].as_array().is_some_and(|paths| paths.len() == 2), "a part of the run")
}

fn usage(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (arguments, said) in [
        (&[][..], "nothing to measure"),
        (&["--target", "x"], "is no target"),
        (&["--target", "a=127.0.0.1:0"], "is no target"),
        (&["--target", "a=127.0.0.1:80", "--target", "b=127.0.0.1:80"], "are the same"),
        (&["--target", "a=127.0.0.1:80", "--target", "a=127.0.0.2:80"], "two targets are called a"),
        (&["--target", "a=no.such.name.invalid:80"], "cannot find no.such.name.invalid"),
        (&["--target", "a=127.0.0.1:80", "-d", "0"], "a time of 0"),
        (&["--target", "a=127.0.0.1:80", "-c", "0"], "invalid value '0'"),
        (&["--target", "a=127.0.0.1:80", "--rate", "-1"], "unexpected argument"),
        (&["--serve", "127.0.0.1:80", "--target", "a=127.0.0.1:80"], "cannot be used with"),
    ] {
        let ran = bench(binary, arguments)?;
        let told = String::from_utf8_lossy(&ran.stderr).contains(said);
        check(&ran, told && ran.status.code() == Some(2) && ran.stdout.is_empty(), said)?;
    }
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 200; exec \"$0\" bench --target a=127.0.0.1:80 -c 1000 -d 1s"]).arg(binary);
    let ran = command.output()?;
    let told = String::from_utf8_lossy(&ran.stderr).contains("1000 clients need 1064 open files, and 200 are allowed");
    check(&ran, told && ran.status.code() == Some(1), "the limit of open files")
}

fn refused(binary: &Path) -> Result<(), Box<dyn Error>> {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let ran = bench(binary, &["--target", &format!("none={address}"), "-c", "2", "-d", "300ms"])?;
    let text = String::from_utf8_lossy(&ran.stdout);
    check(&ran, text.contains("none: refused") && text.contains("no attempt at none was answered"), "that nobody listens")
}
