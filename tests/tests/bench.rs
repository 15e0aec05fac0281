//! `wsltrace bench` as its users call it: against its own server, and with what cannot be measured.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use wsltrace::lab::{Lab, LabError, WAYS};
use wsltrace_tests::decide;
use wsltrace_tests::leftovers::{await_gone, children, held_by};
use wsltrace_tests::ran::{bench_in, check};
use wsltrace_tests::server::Server;
use wsltrace_tests::terminal::await_shown;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 10] = [
        ("a_run_is_valid_by_its_schema_and_counts_what_the_server_answered", valid),
        ("a_run_that_is_ended_prints_what_was_measured", interrupted),
        ("a_run_that_hangs_and_is_ended_tells_that_its_times_leave_that_out", hanging),
        ("a_demonstration_that_is_ended_prints_what_was_measured_and_leaves_nothing", demonstration),
        ("what_cannot_be_measured_is_told", usage),
        ("as_many_open_files_as_it_says_it_needs_are_enough", descriptors),
        ("a_target_that_refuses_is_told_as_such", refused),
        ("a_target_without_a_way_there_is_told_as_such", unreachable),
        ("the_page_is_written_and_holds_what_the_table_holds", page),
        ("windows_answer_is_read_and_its_absence_is_told", windows),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// A run that leaves the machine's own network without probes.
fn bench(binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let traces: &[&str] = if arguments.contains(&"--serve") { &[] } else { &["--no-trace"] };
    Ok(Command::new(binary).arg("bench").args(traces).args(arguments).output()?)
}

fn valid(binary: &Path) -> Result<(), Box<dyn Error>> {
    let server = Server::start(binary, None)?;
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
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().try_for_each(|signal| ended_by(binary, signal))
}

fn ended_by(binary: &Path, signal: Signal) -> Result<(), Box<dyn Error>> {
    let server = Server::start(binary, None)?;
    // Its first connection tells that it has begun.
    let gate = TcpListener::bind("127.0.0.1:0")?;
    let targets = [format!("own={}", server.address), format!("gate={}", gate.local_addr()?)];
    let mut command = Command::new(binary);
    command.args(["bench", "--no-trace", "--target", &targets[0], "--target", &targets[1], "-c", "2", "-d", "60s", "--json"]);
    // Nobody answers at the gate: the attempts under way there are given up.
    command.args(["--timeout", "1h"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    gate.accept()?;
    kill(Pid::from_raw(child.id().cast_signed()), signal)?;
    let ran = child.wait_with_output()?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    check(&ran, value["partial"] == true && value["paths"].as_array().is_some_and(|paths| paths.len() == 2), "a part of the run")
}

/// A server that answers nothing: in the warm-up already its only client waits.
fn hanging(binary: &Path) -> Result<(), Box<dyn Error>> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let mut command = Command::new(binary);
    command.args(["bench", "--no-trace", "--target", &format!("silent={}", silent.local_addr()?), "-c", "1", "--timeout", "1h"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut held, _) = silent.accept()?;
    // Its request has been sent, so that the attempt is under way.
    held.read_exact(&mut [0])?;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
    let ran = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&ran.stdout).replace("\n  ", " ");
    check(&ran, text.contains("1 attempts at silent were under way when the run was ended"), "what hangs")
}

/// Ctrl-C at a terminal: every process in the foreground gets it.
fn demonstration(binary: &Path) -> Result<(), Box<dyn Error>> {
    let terminal = nix::pty::openpty(None, None)?;
    let mut command = Command::new(binary);
    command.args(["demo", "bench"]).stdout(Stdio::piped()).stderr(terminal.slave).process_group(0);
    let child = command.spawn()?;
    // It holds the terminal's other end, without which there would be no end to read.
    drop(command);
    let mut screen = BufReader::new(File::from(terminal.master));
    // What it measures is shown when it begins with it: each way once to warm up, and the first of them has been measured in the first
    // round when the second begins.
    for _ in 0..WAYS.len() + 2 {
        await_shown(&mut screen, b"measuring ")?;
    }
    let (held, helpers) = (held_by(child.id())?, children(child.id())?);
    kill(Pid::from_raw(-child.id().cast_signed()), Signal::SIGINT)?;
    // Nobody reads the screen any more.
    drop(screen);
    let ran = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&ran.stdout);
    check(&ran, ran.status.success() && text.contains("partial: ended before its time"), "a part of the run")?;
    let attempts = |way: &str| {
        let row = text.lines().filter_map(|line| line.strip_prefix(way)?.split_whitespace().next()?.parse::<u64>().ok());
        row.sum::<u64>()
    };
    check(&ran, WAYS.iter().any(|(way, _)| attempts(way) > 0), "attempts of the way that was measured")?;
    for helper in &helpers {
        check(&ran, helper.ends()?, "that what holds the namespaces ends with it")?;
    }
    let left = await_gone(&held)?;
    check(&ran, !helpers.is_empty() && left.is_empty(), &format!("that nothing is left; left are {left:?}"))
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
        (&["--target", "a=127.0.0.1:80", "-c", "0"], "name a number of clients from 1"),
        (&["--target", "http://127.0.0.1:80/"], "leave out http://"),
        (&["--target", "a=127.0.0.1:80", "--mode", "connect", "--keep-alive", "on"], "nothing to keep"),
        (&["--target", "a=127.0.0.1:80", "--payload", "5"], "cannot be used with"),
        (&["--serve", "8080"], "0.0.0.0:8080"),
        (&["--target", "a=127.0.0.1:80", "--rate", "-1"], "unexpected argument"),
        (&["--serve", "127.0.0.1:80", "--target", "a=127.0.0.1:80"], "cannot be used with"),
        (&["--serve", "127.0.0.1:80", "-c", "5"], "cannot be used with"),
        (&["--serve", "127.0.0.1:80", "--csv"], "cannot be used with"),
    ] {
        let ran = bench(binary, arguments)?;
        let told = String::from_utf8_lossy(&ran.stderr).contains(said);
        check(&ran, told && ran.status.code() == Some(2) && ran.stdout.is_empty(), said)?;
    }
    let server = Server::start(binary, None)?;
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 200; exec \"$0\" bench --no-trace --target \"$1\" -c 300 -d 300ms --json --keep-alive on"]);
    let ran = command.arg(binary).arg(&server.address).output()?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let path = &value["paths"][0];
    check(&ran, path["failed"] == serde_json::json!({}) && path["attempts"].as_u64() >= Some(300), "a limit that is raised")
}

/// What it asks for is enough to the file, with the tracer and without; less is told, and what to type.
fn descriptors(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let server = Server::start(binary, Some(&lab.wsl))?;
    let within = |limit: u64, more: &str| -> Result<Output, Box<dyn Error>> {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {limit}; exec \"$0\" bench --target \"$1\" -c 100 -d 300ms --rounds 1 --json {more}");
        command.args(["-c", &script]).arg(binary).arg(&server.address);
        // SAFETY: between fork and exec this only makes one system call.
        unsafe { command.pre_exec(may_not_raise_limits) };
        Ok(lab.wsl.run(|| command.output().map_err(|source| LabError::Io { doing: "run the benchmark".into(), source }))?)
    };
    let asked = |text: &str| -> Result<u64, Box<dyn Error>> {
        let number = text.split(" --nofile=").nth(1).and_then(|rest| rest.split(|next: char| !next.is_ascii_digit()).next());
        Ok(number.ok_or_else(|| format!("nothing to type in {text}"))?.parse()?)
    };
    let is_whole = |value: &Value| {
        let path = &value["paths"][0];
        path["failed"] == serde_json::json!({}) && path["attempts"].as_u64() >= Some(100)
    };
    let ran = within(90, "--no-trace")?;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    check(&ran, ran.status.code() == Some(1) && said.contains("100 clients need "), "the limit of open files")?;
    let clients = asked(&said)?;
    let ran = within(clients, "--no-trace")?;
    check(&ran, is_whole(&serde_json::from_slice(&ran.stdout)?), "that they are enough for the clients")?;
    // The handles of what is to be traced are a few more.
    let ran = within(clients + 8, "")?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let why = value["tracer"]["off"].as_str().unwrap_or_default();
    check(&ran, is_whole(&value) && value["paths"][0]["traced"].is_null(), "a measurement without the tracer")?;
    let all = asked(why)?;
    let ran = within(all, "")?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let traced = value["paths"][0]["traced"]["attempts"].as_u64();
    check(
        &ran,
        is_whole(&value) && value["tracer"]["off"].is_null() && traced >= Some(100),
        "that they are enough for the tracer",
    )
}

/// Also root is held to the limits of its resources from the next exec on.
fn may_not_raise_limits() -> std::io::Result<()> {
    const CAP_SYS_RESOURCE: libc::c_ulong = 24;
    // SAFETY: it takes numbers only, and changes what this process may do.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn refused(binary: &Path) -> Result<(), Box<dyn Error>> {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let ran = bench(binary, &["--target", &format!("none={address}"), "-c", "2", "-d", "300ms"])?;
    let text = String::from_utf8_lossy(&ran.stdout);
    check(&ran, text.contains("none: refused") && text.contains("no attempt at none (127.0.0.1:"), "that nobody listens")
}

/// The client's namespace has a way to its own network only, in which one address belongs to nobody.
fn unreachable(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let run = ["--no-trace", "-c", "2", "-d", "300ms", "--json", "--timeout", "100ms", "--target"];
    for (target, failure) in [("far=203.0.113.1:80", "unreachable"), ("near=172.28.16.99:80", "timed_out")] {
        let ran = bench_in(&lab.client, binary, &[&run[..], &[target]].concat())?;
        let value: Value = serde_json::from_slice(&ran.stdout)?;
        let failed = value["paths"][0]["failed"].as_object().ok_or("no failures")?;
        let only = failed.len() == 1 && failed.get(failure).and_then(Value::as_u64) > Some(0);
        check(&ran, only && value["paths"][0]["waited"]["count"] == 0 && ran.status.success(), failure)?;
        let warned = value["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<String>();
        // A silent target has the warm-up only: each of its clients waited once.
        let is_silent = failure == "timed_out";
        let given_up = warned.contains("so it was given up after the warm-up") && value["paths"][0]["attempts"] == 2;
        check(&ran, is_silent == given_up && warned.contains("is no address of this Linux"), "who is given up")?;
    }
    Ok(())
}

fn page(binary: &Path) -> Result<(), Box<dyn Error>> {
    let server = Server::start(binary, None)?;
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().display().to_string();
    let target = format!("<own>={}", server.address);
    let ran = bench(binary, &["--target", &target, "-c", "2", "-d", "600ms", "--html", &path, "--json"])?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let page = std::fs::read_to_string(&path)?;
    let attempts = value["paths"][0]["attempts"].as_u64().ok_or("no attempts")?;
    let holds = page.contains(&format!("<td>{attempts}</td>")) && page.contains("<svg") && page.contains("--no-trace was given");
    check(&ran, holds && !page.contains("<own>"), "a page with the path's attempts, its name escaped")?;
    let ran = bench(binary, &["--target", &target, "-d", "60s", "--html", &path])?;
    let said = String::from_utf8_lossy(&ran.stderr).contains("it exists");
    check(&ran, ran.status.code() == Some(2) && said && std::fs::read_to_string(&path)? == page, "that the page is kept")?;
    let ran = bench(binary, &["--target", &target, "-d", "60s", "--html", "/no/such/folder/page.html"])?;
    check(
        &ran,
        ran.status.code() == Some(1) && ran.stdout.is_empty(),
        "that the file cannot be written, before anything is measured",
    )
}

/// There is no Windows here: the script is printed, an answer is read from a file, and what cannot be had is told.
fn windows(binary: &Path) -> Result<(), Box<dyn Error>> {
    let recorded = include_str!("../../wsltrace/src/bench/windows/answers/recorded.json");
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, recorded)?;
    let path = file.path().display().to_string();
    let ran = bench(binary, &["--from-windows", "--answer", &path])?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    check(
        &ran,
        text.contains("resent n/a: Windows is not asked") && text.contains("the load ran on Windows"),
        "an answer's table",
    )?;
    std::fs::write(&file, "{\"error\":\"not in this language mode\"}")?;
    let ran = bench(binary, &["--from-windows", "--answer", &path])?;
    let told = String::from_utf8_lossy(&ran.stderr).contains("PowerShell says: not in this language mode");
    check(&ran, told && ran.status.code() == Some(1), "what Windows says")?;
    let target = ["--from-windows", "--target", "relay=127.0.0.1:8080"];
    let ran = bench(binary, &[&target[..], &["--print-script"]].concat())?;
    let script = String::from_utf8_lossy(&ran.stdout).into_owned();
    check(&ran, script.contains("\"name\":\"relay\"") && script.contains("QueryPerformanceCounter"), "a script")?;
    for (arguments, said, status) in [
        (&target[..], "Windows did not measure: this is not WSL 2", 1),
        (&["--from-windows"], "name the server's port", 2),
        (&["--from-windows", "--target", "a=localhost:80"], "is no address", 2),
        (&["--from-windows", "--target", "a=127.0.0.1:80", "--rate", "5"], "cannot be used with", 2),
        (&["--print-script", "--target", "a=127.0.0.1:80"], "--from-windows", 2),
    ] {
        let ran = bench(binary, arguments)?;
        let told = String::from_utf8_lossy(&ran.stderr).contains(said);
        check(&ran, told && ran.status.code() == Some(status) && ran.stdout.is_empty(), said)?;
    }
    Ok(())
}
