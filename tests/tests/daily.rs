//! The comfort of daily use, through the real binary: what is said before the first packet, a command that connects, failures
//! that repeat, clients that are hidden, the exit status.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Lines};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use wsltrace::lab::{Binding, Lab, LabError, Listening, Namespace, PORT, find};
use wsltrace_tests::leftovers::pidfd;
use wsltrace_tests::syns::Syns;

const NOBODY: u32 = 65_534;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 13] = [
        ("who_listens_is_said_at_the_start", who_listens),
        ("without_a_port_what_listens_is_listed", without_a_port),
        ("a_command_connects_and_ends_the_run", a_command),
        ("a_command_that_never_connects_is_told_so", a_command_elsewhere),
        ("a_syn_for_another_hardware_address_is_told_as_such", a_command_astray),
        ("a_command_keeps_out_of_the_json_and_is_not_root", a_command_with_json),
        ("failures_of_one_cause_are_told_once", failures_fold),
        ("other_clients_are_hidden", other_clients),
        ("commands_for_another_namespace_enter_it", another_namespace),
        ("a_closed_terminal_ends_a_run_in_good_order", closed_terminal),
        ("a_run_whose_output_nobody_reads_hears_of_ctrl_c", nobody_reads),
        ("what_cannot_be_done_is_told_by_the_status_whoever_reads", statuses),
        ("nobody_without_root_is_told_that_the_lab_works", without_root),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

#[expect(clippy::print_stdout, reason = "the line that continuous integration counts")]
fn decide(name: &str, test: Test) -> Result<Completion, Failed> {
    let obstacle = find("healthy-v4").and_then(|scenario| scenario.obstacle());
    match (wsltrace_tests::binary(), obstacle) {
        (Ok(binary), None) => test(&binary).map(|()| Completion::Completed).map_err(Failed::from),
        (Err(why), _) | (_, Some(why)) => {
            println!("SKIP: {name}: {why}");
            Ok(Completion::ignored_with(why))
        }
    }
}

/// What a run left.
struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: Output) -> Result<Self, Box<dyn Error>> {
        if let Some(signal) = output.status.signal() {
            return Err(format!("killed by {}", Signal::try_from(signal)?).into());
        }
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        Ok(Self { status: output.status.code(), stdout, stderr })
    }

    fn expect(&self, holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
        if holds {
            return Ok(());
        }
        Err(format!("expected {what}; exit status {:?}\nstdout:\n{}\nstderr:\n{}", self.status, self.stdout, self.stderr).into())
    }
}

/// Traces the port in the lab's WSL, run on the client's side as a program that starts there.
fn trace(binary: &Path, lab: &Lab, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Ran, Box<dyn Error>> {
    let mut command = Command::new(binary);
    command.arg("--netns").arg(lab.wsl.path()).args(["--port", &PORT.to_string()]).args(arguments);
    command.envs(variables.iter().copied());
    let output = lab
        .client
        .run(|| command.output().map_err(|source| wsltrace::lab::LabError::Io { doing: "run the tracer".into(), source }))?;
    Ran::new(output)
}

/// A shell's word for one connection to WSL, quiet about its failure.
fn connect(port: u16) -> String {
    format!("(exec 3<>/dev/tcp/{}/{port}) 2>/dev/null", Lab::wsl_address(false))
}

fn server(lab: &Lab, address: Ipv4Addr) -> Result<Listening, Box<dyn Error>> {
    Ok(Listening::accepting(&lab.wsl, Binding::new(address, PORT))?)
}

fn who_listens(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let nobody = trace(binary, &lab, &["--duration", "50ms"], &[])?;
    nobody.expect(nobody.stderr.contains("nothing listens on port 8080 now, nor on any other port"), "that nobody listens")?;
    let _server = server(&lab, Ipv4Addr::LOCALHOST)?;
    let somebody = trace(binary, &lab, &["--duration", "50ms"], &[])?;
    let pid = format!("(pid {})", std::process::id());
    let line = somebody.stderr.lines().find(|line| line.starts_with("port 8080:")).unwrap_or_default();
    let named = line.contains(&pid) && line.contains("listens on 127.0.0.1 (localhost only)");
    somebody.expect(named, "the listener with its owner and its reach")?;
    somebody.expect(somebody.stderr.contains("now open http://127.0.0.1:8080/ on this machine"), "what to open")
}

fn without_a_port(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let _server = server(&lab, Ipv4Addr::UNSPECIFIED)?;
    let run = || Command::new(binary).output().map_err(|source| wsltrace::lab::LabError::Io { doing: "run it".into(), source });
    let ran = Ran::new(lab.wsl.run(run)?)?;
    let row = format!("(pid {})", std::process::id());
    let listed = ran.stderr.lines().any(|line| line.contains("8080") && line.contains("0.0.0.0") && line.contains(&row));
    ran.expect(ran.status == Some(2) && ran.stdout.is_empty(), "a usage error")?;
    ran.expect(listed && ran.stderr.contains("try: sudo wsltrace --port 8080"), "the listener and what to type")
}

fn a_command(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let refused = trace(binary, &lab, &["--check", "--", "bash", "-c", &connect(PORT)], &[])?;
    refused.expect(refused.status == Some(3) && refused.stdout.contains("no_listener"), "a refusal and its status")?;
    let _server = server(&lab, Ipv4Addr::UNSPECIFIED)?;
    let answered = trace(binary, &lab, &["--check", "--", "bash", "-c", &connect(PORT)], &[])?;
    answered.expect(answered.status == Some(0) && answered.stdout.contains('\u{2713}'), "an answer and its status")?;
    answered.expect(answered.stderr.contains("bash ended: it succeeded"), "how the command ended")?;
    let unknown = trace(binary, &lab, &["--", "no-such-program"], &[])?;
    unknown.expect(unknown.status == Some(2) && unknown.stderr.contains("there is no such program"), "that it is not there")
}

fn a_command_elsewhere(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let ran = trace(binary, &lab, &["--check", "--", "bash", "-c", &connect(PORT + 1)], &[])?;
    ran.expect(ran.status == Some(4), "the status for no SYN")?;
    ran.expect(ran.stdout.contains("? no SYN to port 8080 came while the command ran"), "that no SYN came")?;
    ran.expect(ran.stdout.contains("near miss port 8081 on eth0, once"), "the port that it went to")
}

/// The client has kept a hardware address that this machine no longer has.
fn a_command_astray(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let wrong = format!("ip neighbour replace {} lladdr 02:00:00:00:00:99 dev eth0 nud permanent", Lab::wsl_address(false));
    let script = format!("{wrong} && timeout 0.5 bash -c '{}'", connect(PORT));
    let ran = trace(binary, &lab, &["--check", "--", "bash", "-c", &script], &[])?;
    ran.expect(ran.status == Some(4), "the status for no SYN")?;
    ran.expect(ran.stdout.contains("? no SYN to port 8080 for this machine's hardware address came"), "that none was for it")?;
    ran.expect(ran.stdout.contains("near miss port 8080 on eth0, once, for another hardware address"), "what came")?;
    ran.expect(ran.stdout.contains("the client has a wrong entry"), "why")
}

fn a_command_with_json(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let script = "echo uid $(id -u) $(id -G) ${SUDO_UID-none}; readlink /proc/self/fd/*";
    let sudo = [("SUDO_UID", "65534"), ("SUDO_GID", "65534"), ("SUDO_USER", "nobody")];
    let ran = trace(binary, &lab, &["--json", "--", "sh", "-c", script], &sudo)?;
    let types = ran.stdout.lines().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line)?;
        Ok(value["type"].as_str().unwrap_or_default().to_owned())
    });
    let types: Vec<String> = types.collect::<Result<_, serde_json::Error>>()?;
    ran.expect(types == ["armed", "absence", "summary"], "JSON lines alone on stdout")?;
    ran.expect(ran.stderr.contains("uid 65534 65534 none"), "the person behind sudo")?;
    // Programs, maps, links and the event queue are anonymous inodes; a namespace is a `net:`. Others are whoever started us.
    let ours = ["anon_inode", "socket:", "net:["].iter().any(|kind| ran.stderr.contains(kind));
    ran.expect(!ours, "none of our descriptors in the command")
}

fn failures_fold(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let five = format!("for i in 1 2 3 4 5; do {}; done", connect(PORT));
    let ran = trace(binary, &lab, &["--", "bash", "-c", &five], &[])?;
    ran.expect(ran.stdout.matches('\u{2717}').count() == 2, "one block, with one mark at its head and one in its path")?;
    ran.expect(ran.stdout.contains("172.28.16.2:8080 no_listener \u{d7} 5 within"), "the count")?;
    let json = trace(binary, &lab, &["--json", "--", "bash", "-c", &five], &[])?;
    let journeys = json.stdout.lines().filter(|line| line.contains(r#""type":"journey""#)).count();
    json.expect(journeys == 5, "a line a journey in JSON")
}

fn other_clients(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let command = ["--", "bash", "-c", &connect(PORT)];
    let hidden = trace(binary, &lab, &[&["--check", "--source", "10.0.0.0/8", "--source", "::/0"][..], &command].concat(), &[])?;
    hidden.expect(hidden.status == Some(4), "the status for no SYN")?;
    hidden.expect(hidden.stdout.contains("? no SYN from 10.0.0.0/8 or ::/0 to port 8080"), "from where no SYN came")?;
    hidden.expect(hidden.stderr.contains("1 connection attempt of other clients is hidden"), "how many are hidden")?;
    let shown = trace(binary, &lab, &[&["--check", "--source", "172.28.16.0/20"][..], &command].concat(), &[])?;
    shown.expect(shown.status == Some(3) && shown.stdout.contains("no_listener"), "the client")
}

/// Both sides have a rule of the same name and handle: the printed command is typed where the other one would go.
fn another_namespace(binary: &Path) -> Result<(), Box<dyn Error>> {
    const RULES: &str = "table inet filter { chain input { type filter hook input priority 0; tcp dport 8080 drop; }; }";
    let lab = Lab::new(None)?;
    let run = |side: &Namespace, command: &str| {
        let sh = || Command::new("sh").args(["-c", command]).output();
        side.run(|| sh().map_err(|source| LabError::Io { doing: command.to_owned(), source })).map(Ran::new)
    };
    for side in [&lab.client, &lab.wsl] {
        let made = run(side, &format!("nft '{RULES}'"))??;
        made.expect(made.status == Some(0), "a rule")?;
    }
    let traced = trace(binary, &lab, &["--json", "--", "timeout", "1", "bash", "-c", &connect(PORT)], &[])?;
    let lines: Vec<serde_json::Value> = traced.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let remedy = lines.iter().find(|line| line["type"] == "journey").map(|journey| &journey["diagnosis"]["remedy"]);
    let command = remedy.and_then(|remedy| remedy[0].as_str()?.strip_prefix("sudo "));
    traced.expect(command.is_some_and(|command| command.contains("nft delete rule inet filter input")), "the rule")?;
    let typed = run(&lab.client, command.unwrap_or_default())??;
    typed.expect(typed.status == Some(0), "the command to succeed")?;
    for (side, is_there) in [(&lab.client, true), (&lab.wsl, false)] {
        let listed = run(side, "nft list ruleset")??;
        listed.expect(listed.stdout.contains("tcp dport 8080 drop") == is_there, "the traced side's rule to be gone")?;
    }
    Ok(())
}

/// A run whose terminal is about to be closed, with a recording and an export.
struct OnTerminal<'a> {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    lab: &'a Lab,
    folder: TempDir,
}

impl<'a> OnTerminal<'a> {
    fn start(binary: &Path, lab: &'a Lab, ignored: bool) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", if ignored { "trap '' HUP; exec \"$@\"" } else { "exec \"$@\"" }, "sh"]).arg(binary);
        // It ends by itself should an event never come.
        command.arg("--netns").arg(lab.wsl.path()).args(["--json", "--duration", "60s", "--port", &PORT.to_string()]);
        command.arg("--record").arg(folder.path().join("run.wsltrace"));
        command.arg("--export").arg(format!("html:{}", folder.path().join("page.html").display()));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        let mut run = Self { child, lines, lab, folder };
        run.wait_for("armed")?;
        Ok(run)
    }

    fn wait_for(&mut self, event: &str) -> Result<serde_json::Value, Box<dyn Error>> {
        for line in &mut self.lines {
            let value: serde_json::Value = serde_json::from_str(&line?)?;
            if value["type"] == event {
                return Ok(value);
            }
        }
        Err(format!("it ended without a line '{event}'").into())
    }

    /// One connection, until the run has told of it.
    fn refused(&mut self) -> Result<(), Box<dyn Error>> {
        let connect = || {
            let mut command = Command::new("bash");
            command.args(["-c", &connect(PORT)]);
            command.status().map_err(|source| wsltrace::lab::LabError::Io { doing: "connect".into(), source })
        };
        self.lab.client.run(connect)?;
        self.wait_for("journey").map(drop)
    }

    fn hang_up(&self) -> Result<(), Box<dyn Error>> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGHUP)?)
    }
}

impl Drop for OnTerminal<'_> {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn closed_terminal(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let mut run = OnTerminal::start(binary, &lab, false)?;
    run.refused()?;
    run.hang_up()?;
    let summary = run.wait_for("summary")?;
    assert_eq!(summary["by_code"]["no_listener"], 1, "{summary}");
    assert_eq!(run.child.wait()?.code(), Some(0));
    let page = std::fs::read_to_string(run.folder.path().join("page.html"))?;
    assert!(page.contains("</html>"), "a whole page");
    let report = Ran::new(Command::new(binary).arg("report").arg(run.folder.path().join("run.wsltrace")).output()?)?;
    report.expect(report.status == Some(0) && !report.stderr.contains("the run was killed"), "a whole recording")?;

    let mut under_nohup = OnTerminal::start(binary, &lab, true)?;
    under_nohup.hang_up()?;
    under_nohup.refused()
}

/// More journeys than pipe and queue hold; their reader has gone to sleep. The first signal asks the run to end, which it cannot before
/// its lines are read; the second ends it.
fn nobody_reads(binary: &Path) -> Result<(), Box<dyn Error>> {
    const JOURNEYS: u32 = 5000;
    const PATIENCE_MS: u16 = 500;
    /// Far longer than it takes to say so, on any machine.
    const TOLD: Duration = Duration::from_secs(30);
    let lab = Lab::new(None)?;
    let mut run = OnTerminal::start(binary, &lab, false)?;
    let target = SocketAddrV4::new(Ipv4Addr::new(172, 28, 16, 2), PORT);
    lab.client.run(|| {
        let send = || Syns::new(Ipv4Addr::new(10, 0, 0, 1), target)?.burst(JOURNEYS);
        send().map_err(|source| LabError::Io { doing: "send SYNs".into(), source })
    })?;
    let pid = Pid::from_raw(run.child.id().cast_signed());
    let exit = pidfd(run.child.id())?;
    kill(pid, Signal::SIGINT)?;
    let talk = BufReader::new(run.child.stderr.take().ok_or("no pipe")?).lines();
    let (sender, is_told) = std::sync::mpsc::channel();
    let listening = std::thread::spawn(move || {
        for line in talk.map_while(Result::ok) {
            if line.contains("Ctrl-C ends at once") && sender.send(()).is_err() {
                break;
            }
        }
    });
    is_told.recv_timeout(TOLD).map_err(|_| "it did not say that there is more to tell")?;
    let mut sent = 1;
    while run.child.try_wait()?.is_none() {
        if sent == 100 {
            return Err("it did not hear of Ctrl-C".into());
        }
        kill(pid, Signal::SIGINT)?;
        sent += 1;
        poll(&mut [PollFd::new(exit.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE_MS))?;
    }
    let status = run.child.wait()?;
    assert_eq!((status.signal(), sent > 1), (Some(libc::SIGINT), true), "{status} after {sent}");
    listening.join().map_err(|_| "the thread that reads what is said has panicked".into())
}

fn statuses(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (arguments, status, said) in [
        (&["--port", "abc"][..], 2, "is no port"),
        (&["--port", "-1"], 2, "unexpected argument '-1' found: no option takes a number below 0"),
        (&["--port", "80", "--duration", "-5"], 2, "no option takes a number below 0"),
        (&["--port", "80", "doctor"], 2, "the command doctor comes before all options"),
        (&["-p", "80", "--export", "jsonl:/tmp/x", "--export", "html:/tmp/./x"], 2, "/tmp/./x is to be written twice"),
        (&["-p", "80", "--record", "/tmp/x", "--ready-file", "/tmp/x"], 2, "/tmp/x is to be written twice"),
        (&["-p", "80", "--record", "-"], 2, "a recording is not written to stdout"),
        (&["-p", "80", "--record", "/etc/passwd"], 1, "try: another name: what is no recording is never overwritten"),
        (&["-p", "80", "--netns", "/no/such"], 2, "try: name one of /run/netns"),
        (&["report", "/no/such/file"], 1, "cannot read /no/such/file: no such file or directory"),
        (&["doctor", "-p", "80", "--netns", "no-such-name"], 2, "no network namespace named 'no-such-name'"),
        (&["-p", "80", "--netns", "/etc/passwd"], 2, "is not a network namespace"),
        (&["doctr", "-p", "80"], 2, "there is no command doctr: is doctor meant?"),
        (&["slftest"], 2, "is selftest meant?"),
        (&["port", "80"], 2, "there is no command port: is --port meant?"),
        (&["http://localhost:8080/"], 2, "try: sudo wsltrace --port 8080"),
        (&["-p", "80", "--"], 2, "there is no command after --"),
        (&["demo", "nonsense"], 2, "no scenario is called 'nonsense'"),
        (&["selftest", "nonsense"], 2, "no scenario is called 'nonsense'"),
        (&["convert", "x", "--to", "nope"], 2, "there are jsonl, pcapng"),
        (&["convert", "x", "--to", "htm"], 2, "there are jsonl, pcapng"),
        (&["completions", "tcsh"], 2, "there are bash, elvish, fish, powershell, zsh"),
        (&["completions", "bsh"], 2, "there are bash, elvish, fish, powershell, zsh"),
        (&["-p", "80", "--", "/etc/passwd"], 2, "it is not executable"),
        (&["-p", "80", "--", "/etc"], 2, "it is a directory"),
    ] {
        let mut command = Command::new(binary);
        let ran = Ran::new(command.args(arguments).stdin(Stdio::null()).output()?)?;
        ran.expect(ran.status == Some(status) && ran.stderr.contains(said), said)?;
        // The same with nobody to tell it to.
        let full = || std::fs::OpenOptions::new().write(true).open("/dev/full");
        let ran = Ran::new(command.stderr(full()?).output()?)?;
        ran.expect(ran.status == Some(status), "the same status")?;
    }
    // Whoever pipes text may ask for its width, as of ls and git; no line of this page is a command, which would stay whole.
    let widest = |columns: &str| -> Result<usize, Box<dyn Error>> {
        let ran = Command::new(binary).args(["explain", "IP_RPFILTER"]).env("COLUMNS", columns).stdin(Stdio::null()).output()?;
        Ok(String::from_utf8(ran.stdout)?.lines().map(|line| line.chars().count()).max().unwrap_or_default())
    };
    let (narrow, wide) = (widest("50")?, widest("90")?);
    if narrow > 50 || wide <= 50 || wide > 90 || widest("x")? <= 50 {
        return Err(format!("COLUMNS is not heeded: {narrow} and {wide} columns").into());
    }
    for (arguments, status) in [(&["--help"][..], 1), (&["explain"], 1), (&["doctor", "-p", "1"], 3)] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
        let ran = Ran::new(Command::new(binary).args(arguments).stdin(Stdio::null()).stdout(full).output()?)?;
        let said = "cannot write to standard output: no space left on device";
        ran.expect(ran.status == Some(status) && ran.stderr.contains(said), said)?;
    }
    Ok(())
}

fn without_root(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (arguments, hint) in
        [(&["selftest"][..], "sudo wsltrace selftest"), (&["demo", "no-listener"], "sudo wsltrace demo no-listener")]
    {
        let mut command = Command::new(binary);
        let ran = Ran::new(command.args(arguments).uid(NOBODY).gid(NOBODY).current_dir("/").output()?)?;
        ran.expect(ran.status == Some(1) && ran.stderr.contains(hint), hint)?;
    }
    Ok(())
}
