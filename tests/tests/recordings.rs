//! Recordings and exports through the real binary, on real packets: what was seen live is seen by somebody else, without root;
//! other programs read the formats; a recording survives its tracer and a full disk.

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use wsltrace::lab::{Binding, Lab, LabError, Listening, PORT};

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

/// A port with a rule against it.
const SHUT: u16 = 8082;
/// A port without a server.
const EMPTY: u16 = 8081;
/// Nobody: the reader of a recording who is not root.
const NOBODY: u32 = 65534;
const FORMATS: [(&str, &str); 5] =
    [("jsonl", "jsonl"), ("pcapng", "pcapng"), ("perfetto", "json"), ("hlog", "hlog"), ("html", "html")];

fn main() {
    let tests: [(&'static str, Option<&'static str>, Test); 9] = [
        ("a_recording_tells_what_was_told_live", None, told_again),
        ("exports_are_the_same_live_and_from_a_recording", None, same_exports),
        ("stdout_carries_one_export", None, to_stdout),
        ("a_killed_tracer_leaves_a_recording_that_opens", None, killed),
        ("a_full_disk_ends_the_recording_and_not_the_tracing", None, full_disk),
        ("a_recording_goes_on_in_other_files", None, rotated),
        ("files_belong_to_the_person_behind_sudo_and_others_are_kept", None, owned),
        ("wireshark_reads_the_packets", Some("tshark"), wireshark),
        ("a_browser_shows_the_page", Some("chromium"), browser),
    ];
    let trials = tests.map(|(name, program, test)| Trial::ignorable_test(name, move || decide(name, program, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

#[expect(clippy::print_stdout, reason = "the line that continuous integration counts")]
fn decide(name: &str, program: Option<&str>, test: Test) -> Result<Completion, Failed> {
    if let Some(program) = program.filter(|program| Command::new(program).arg("--version").output().is_err()) {
        println!("SKIP: {name}: {program} is not installed");
        return Ok(Completion::ignored_with(format!("{program} is not installed")));
    }
    wsltrace_tests::decide(name, test)
}

/// A lab with a server on one port, nobody on the next, and a rule against the third.
fn lab() -> Result<Lab, Box<dyn Error>> {
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

fn output(command: &mut Command) -> Result<Output, LabError> {
    command.output().map_err(|source| LabError::Io { doing: format!("run {command:?}"), source })
}

fn check(output: &Output, holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Err(format!("expected {what}; {}\nstdout:\n{out}\nstderr:\n{err}", output.status).into())
}

/// A shell's words for one connection to each of the ports; what does not answer is given up.
fn connections() -> String {
    let one = |port: u16| format!("timeout 0.4 bash -c 'exec 3<>/dev/tcp/{}/{port}' 2>/dev/null", Lab::wsl_address(false));
    format!("{}; {}; {}; {}; true", one(PORT), one(EMPTY), one(EMPTY), one(SHUT))
}

/// A tracer of the three ports, to be run on the client's side.
fn tracer(binary: &Path, lab: &Lab) -> Command {
    let mut command = Command::new(binary);
    command.arg("--netns").arg(lab.wsl.path()).args(["--port", &format!("{PORT}-{SHUT}")]);
    command
}

/// Traces the connections with these arguments.
fn trace(binary: &Path, lab: &Lab, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = tracer(binary, lab);
    command.args(arguments).args(["--", "bash", "-c", &connections()]);
    Ok(lab.client.run(|| output(&mut command))?)
}

/// Runs it on recordings as somebody who is not root, and must succeed.
fn read(binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let ran = Command::new(binary).args(arguments).uid(NOBODY).gid(NOBODY).output()?;
    check(&ran, ran.status.success(), &format!("that {arguments:?} succeeds"))?;
    Ok(ran)
}

/// A directory for everybody, and the path of a recording in it.
fn place() -> Result<(TempDir, String), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let path = folder.path().join("run.wsltrace").display().to_string();
    Ok((folder, path))
}

/// Lets everybody read what only its owner may.
fn publish(path: &str) -> Result<(), Box<dyn Error>> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o644))?)
}

fn told_again(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let (_folder, path) = place()?;
    let live = trace(binary, &lab, &["--record", &path])?;
    check(&live, live.status.success(), "that it ran")?;
    publish(&path)?;
    let report = read(binary, &["report", &path])?;
    check(&report, report.stdout == live.stdout, &format!("what was told live:\n{}", String::from_utf8_lossy(&live.stdout)))?;
    for said in ["recorded", "watching ports 8080-8082", "bash ended"] {
        check(&report, String::from_utf8_lossy(&report.stderr).contains(said), said)?;
    }
    let counted = |arguments: &[&str]| -> Result<u64, Box<dyn Error>> {
        let ran = read(binary, &[&["report", "--json", &path], arguments].concat())?;
        let lines: Vec<Value> = String::from_utf8(ran.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let journeys = lines.iter().filter(|line| line["type"] == "journey").count() as u64;
        let summary = lines.last().map(|line| line["journeys"].as_u64());
        if summary != Some(Some(journeys)) {
            return Err(format!("{arguments:?}: {journeys} lines and a summary of {summary:?}").into());
        }
        Ok(journeys)
    };
    for (arguments, expected) in [
        (&["--outcome", "refused"][..], 2),
        (&["--outcome", "refused,answered"], 3),
        (&["--code", "firewall_drop"], 1),
        (&["--stage", "input_filter"], 1),
        (&["--source", "10.0.0.0/8"], 0),
        (&["--since", "2000-01-01T00:00:00Z"], 4),
        (&["--since", "2999-01-01"], 0),
        (&["--slowest", "2"], 2),
    ] {
        let found = counted(arguments)?;
        if found != expected {
            return Err(format!("{arguments:?}: {found} journeys, expected {expected}").into());
        }
    }
    Ok(())
}

fn same_exports(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let (folder, path) = place()?;
    let live = |format: &str| folder.path().join(format!("live.{format}")).display().to_string();
    let exports = FORMATS.map(|(format, _)| format!("{format}:{}", live(format)));
    let mut arguments = vec!["--json", "--record", &path];
    arguments.extend(exports.iter().flat_map(|export| ["--export", export.as_str()]));
    let ran = trace(binary, &lab, &arguments)?;
    check(&ran, ran.status.success(), "that it ran")?;
    if fs::read(live("jsonl"))? != ran.stdout {
        return Err("the export to jsonl is not what --json wrote".into());
    }
    publish(&path)?;
    for (format, _) in FORMATS {
        let converted = folder.path().join(format!("converted.{format}")).display().to_string();
        read(binary, &["convert", &path, "--to", format, "-o", &converted])?;
        if fs::read(&converted)? != fs::read(live(format))? {
            return Err(format!("{format} is not the same live and from the recording").into());
        }
    }
    let perfetto: Value = serde_json::from_slice(&fs::read(live("perfetto"))?)?;
    perfetto_is_sound(&perfetto)?;
    let diff = read(binary, &["diff", &path, &path])?;
    check(&diff, String::from_utf8_lossy(&diff.stdout).contains("failures in both"), "a comparison")
}

/// Slices of one track lie beside or within each other, every arrow has both ends, and the deaths are there.
fn perfetto_is_sound(trace: &Value) -> Result<(), Box<dyn Error>> {
    let events = trace["traceEvents"].as_array().ok_or("no events")?;
    let of = |kind: &str| events.iter().filter(|event| event["ph"] == kind).collect::<Vec<_>>();
    let mut slices: Vec<(u64, f64, f64)> = Vec::new();
    for slice in of("X") {
        let number = |key: &str| slice[key].as_f64().ok_or(format!("{key} of {slice}"));
        slices.push((slice["tid"].as_u64().ok_or("tid")?, number("ts")?, number("ts")? + number("dur")?));
    }
    for (index, (track, start, end)) in slices.iter().enumerate() {
        for (other, from, to) in slices.iter().skip(index + 1) {
            let apart = *to <= start + 1e-3 || *end <= from + 1e-3;
            let within = from + 1e-3 >= *start && *to <= end + 1e-3;
            if track == other && !apart && !within {
                return Err(format!("slices cross: {start}-{end} and {from}-{to}").into());
            }
        }
    }
    let ids = |kind: &str| of(kind).iter().map(|event| event["id"].as_u64()).collect::<Vec<_>>();
    if ids("s") != ids("f") || ids("s").is_empty() {
        return Err("arrows without both ends".into());
    }
    let deaths: Vec<_> = of("i").iter().filter_map(|event| event["name"].as_str()).collect();
    if deaths.len() != 3 || !deaths.contains(&"dropped at input_filter") {
        return Err(format!("deaths: {deaths:?}").into());
    }
    Ok(())
}

/// `--export FORMAT:-`: stdout holds the export alone, what is told goes to stderr.
fn to_stdout(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let ran = trace(binary, &lab, &["--export", "pcapng:-"])?;
    check(&ran, ran.status.success() && ran.stdout.starts_with(b"\x0a\x0d\x0d\x0a"), "packets on stdout")?;
    let told = String::from_utf8_lossy(&ran.stderr);
    check(&ran, told.contains("firewall_drop") || told.contains("dropped"), "the verdict on stderr")?;
    let two = trace(binary, &lab, &["--json", "--export", "jsonl:-"])?;
    check(&two, two.status.code() == Some(2) && two.stdout.is_empty(), "that stdout is taken once")
}

fn killed(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let (_folder, path) = place()?;
    let mut command = tracer(binary, &lab);
    // The command waits for ever, so the tracer is still there when it is killed.
    let endless = format!("{}; exec sleep infinity", connections());
    command.args(["--record", &path, "--json", "--", "bash", "-c", &endless]).stdout(Stdio::piped()).stderr(Stdio::null());
    let spawn = || command.spawn().map_err(|source| LabError::Io { doing: "start the tracer".into(), source });
    let mut running = lab.client.run(spawn)?;
    let stdout = running.stdout.take().ok_or("no stdout")?;
    let mut seen = 0;
    for line in BufReader::new(stdout).lines() {
        seen += usize::from(line?.contains(r#""type":"journey""#));
        if seen == 4 {
            break;
        }
    }
    // What was told is written when the reporter has nothing else to do.
    let is_written = || -> Result<bool, Box<dyn Error>> { Ok(fs::metadata(&path)?.len() > 0) };
    let mut journeys = 0;
    for _ in 0..1000 {
        journeys = if is_written()? { journeys_in(binary, &path)? } else { 0 };
        if journeys == 4 {
            break;
        }
        std::thread::yield_now();
    }
    let pid = Pid::from_raw(running.id().cast_signed());
    kill(pid, Signal::SIGKILL)?;
    running.wait()?;
    if journeys != 4 || journeys_in(binary, &path)? != 4 {
        return Err(format!("{journeys} of 4 journeys are in the recording").into());
    }
    let report = read_as_root(binary, &["report", "-q", &path])?;
    let cut = format!("is cut off at byte {}: 4 journeys before that were read", fs::metadata(&path)?.len());
    check(&report, String::from_utf8_lossy(&report.stderr).replace("\n  ", " ").contains(&cut), "what is missing")
}

fn read_as_root(binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let ran = Command::new(binary).args(arguments).output()?;
    check(&ran, ran.status.success(), &format!("that {arguments:?} succeeds"))?;
    Ok(ran)
}

fn journeys_in(binary: &Path, path: &str) -> Result<usize, Box<dyn Error>> {
    let ran = read_as_root(binary, &["report", "--json", path])?;
    Ok(String::from_utf8(ran.stdout)?.lines().filter(|line| line.contains(r#""type":"journey""#)).count())
}

/// A shell's words for so many refused connections.
fn refused(count: u32) -> String {
    format!("for i in $(seq {count}); do (exec 3<>/dev/tcp/{}/{EMPTY}) 2>/dev/null; done; true", Lab::wsl_address(false))
}

fn full_disk(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let folder = tempfile::tempdir()?;
    // A disk of its own, that goes with the shell.
    let script = r#"
        mount -t tmpfs -o size=64k tmpfs "$1" || exit 90
        "$2" --netns "$3" --port 8080-8082 --json --record "$1/run.wsltrace" -- bash -c "$4" > "$5/live"
        echo "status $?" >&2
        "$2" report --json "$1/run.wsltrace" > "$5/report"
    "#;
    let (disk, out) = (folder.path().join("disk"), folder.path().join("out"));
    fs::create_dir(&disk)?;
    fs::create_dir(&out)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&disk).arg(binary).arg(lab.wsl.path());
    command.arg(refused(600)).arg(&out);
    let ran = lab.client.run(|| output(&mut command))?;
    let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
    check(&ran, ran.status.success() && stderr.contains("status 1"), "that a recording with a gap is an error in the end")?;
    check(&ran, stderr.contains("the recording ends here") && stderr.contains("no space left on device"), "why it ended")?;
    let count = |name: &str| -> Result<usize, Box<dyn Error>> {
        Ok(fs::read_to_string(out.join(name))?.lines().filter(|line| line.contains(r#""type":"journey""#)).count())
    };
    let (live, recorded) = (count("live")?, count("report")?);
    if live != 600 || recorded == 0 || recorded >= 600 {
        return Err(format!("{live} journeys were told and {recorded} are in the recording").into());
    }
    Ok(())
}

fn rotated(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let (folder, path) = place()?;
    let mut command = tracer(binary, &lab);
    command.args(["--json", "--record", &path, "--rotate", "64K", "--", "bash", "-c", &refused(900)]);
    let ran = lab.client.run(|| output(&mut command))?;
    check(&ran, ran.status.success(), "that it ran")?;
    let mut files = vec![path.clone()];
    let next = |part: usize| folder.path().join(format!("run.{part}.wsltrace"));
    files.extend((2..).map(next).take_while(|path| path.exists()).map(|path| path.display().to_string()));
    if files.len() < 3 {
        return Err(format!("only {} files", files.len()).into());
    }
    let mut arguments = vec!["report", "--json"];
    arguments.extend(files.iter().map(String::as_str));
    let report = read_as_root(binary, &arguments)?;
    let journeys = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        text.lines().filter(|line| line.contains(r#""type":"journey""#)).map(str::to_owned).collect()
    };
    check(&report, journeys(&report.stdout) == journeys(&ran.stdout), "every journey, in order, over all files")?;
    check(&report, journeys(&report.stdout).len() == 900, "900 journeys")?;

    let (folder, path) = place()?;
    let mut command = tracer(binary, &lab);
    command.args(["--json", "--record", &path, "--rotate", "64K,2", "--", "bash", "-c", &refused(900)]);
    let ran = lab.client.run(|| output(&mut command))?;
    check(&ran, ran.status.success(), "that it ran")?;
    let kept = fs::read_dir(folder.path())?.count();
    if kept != 2 {
        return Err(format!("{kept} files were kept, not 2").into());
    }
    Ok(())
}

fn owned(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let (folder, path) = place()?;
    let page = folder.path().join("page.html").display().to_string();
    let mut command = tracer(binary, &lab);
    command.args(["--duration", "50ms", "--record", &path, "--export", &format!("html:{page}")]);
    command.env("SUDO_UID", NOBODY.to_string()).env("SUDO_GID", NOBODY.to_string());
    let ran = lab.client.run(|| output(&mut command))?;
    check(&ran, ran.status.success(), "that it ran")?;
    for path in [&path, &page] {
        let meta = fs::metadata(path)?;
        if (meta.uid(), meta.gid(), meta.mode() & 0o7777) != (NOBODY, NOBODY, 0o600) {
            return Err(format!("{path}: owner {}:{}, mode {:o}", meta.uid(), meta.gid(), meta.mode()).into());
        }
    }
    kept(binary, &lab, &path, &page)?;
    let precious = folder.path().join("server.log");
    fs::File::create(&precious)?.write_all(b"precious\n")?;
    let refused = |path: &Path| -> Result<Output, Box<dyn Error>> {
        let mut command = tracer(binary, &lab);
        command.args(["--duration", "50ms", "--record"]).arg(path);
        Ok(lab.client.run(|| output(&mut command))?)
    };
    let ran = refused(&precious)?;
    let said = String::from_utf8_lossy(&ran.stderr).contains("it exists and is no recording");
    check(&ran, ran.status.code() == Some(1) && said, "that a file of another kind is kept")?;
    if fs::read(&precious)? != b"precious\n" {
        return Err("a file of the user was changed".into());
    }
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&precious, &link)?;
    let ran = refused(&link)?;
    check(&ran, ran.status.code() == Some(1), "that no link is followed")?;
    let ran = refused(Path::new("/nonexistent/x.wsltrace"))?;
    check(&ran, ran.status.code() == Some(1) && ran.stdout.is_empty(), "that a folder is missing")
}

/// A recording, an export and a converted file that are there stay as they are, until it is said that they may go.
fn kept(binary: &Path, lab: &Lab, path: &str, page: &str) -> Result<(), Box<dyn Error>> {
    let before = (fs::read(path)?, fs::read(page)?);
    let export = format!("html:{page}");
    let run = |arguments: &[&str]| -> Result<Output, Box<dyn Error>> {
        let mut command = tracer(binary, lab);
        command.args(["--duration", "50ms"]).args(arguments);
        Ok(lab.client.run(|| output(&mut command))?)
    };
    for arguments in
        [&["--record", path][..], &["--export", &export], &["--force", "--json", "--record", path, "--export", "jsonl:-"]]
    {
        let ran = run(arguments)?;
        check(&ran, ran.status.code() == Some(2), &format!("that {arguments:?} is refused"))?;
    }
    let converted = read_as_root(binary, &["convert", path, "--to", "html", "-o", page]);
    if converted.is_ok() || before != (fs::read(path)?, fs::read(page)?) {
        return Err("a file of the user was changed".into());
    }
    read_as_root(binary, &["convert", path, "--to", "jsonl", "-o", page, "--force"])?;
    let ran = run(&["--force", "--record", path, "--export", &export])?;
    check(&ran, ran.status.success(), "that it ran")?;
    let after = (fs::read(path)?, fs::read(page)?);
    if before.0 == after.0 || !String::from_utf8_lossy(&after.1).contains("<html") {
        return Err("--force did not overwrite".into());
    }
    Ok(())
}

fn wireshark(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let (folder, _) = place()?;
    let packets = folder.path().join("syns.pcapng").display().to_string();
    let ran = trace(binary, &lab, &["--json", "--export", &format!("pcapng:{packets}")])?;
    check(&ran, ran.status.success(), "that it ran")?;
    let tshark = |arguments: &[&str]| -> Result<Vec<Vec<String>>, Box<dyn Error>> {
        let ran = Command::new("tshark").args(["-r", &packets, "-T", "fields"]).args(arguments).output()?;
        check(&ran, ran.status.success(), "that tshark reads it")?;
        let text = String::from_utf8(ran.stdout)?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    };
    let fields = ["-e", "frame.interface_name", "-e", "tcp.flags", "-e", "tcp.dstport", "-e", "frame.time_epoch"];
    let dropped = tshark(&[&["-Y", r#"frame.comment contains "dropped""#][..], &fields].concat())?;
    if dropped.is_empty() || dropped.iter().any(|packet| packet[0] != "eth0" || packet[2] != SHUT.to_string()) {
        return Err(format!("dropped: {dropped:?}").into());
    }
    let all = tshark(&fields)?;
    let with = |flags: &str| all.iter().filter(|packet| packet[1] == flags).count();
    // SYNs: one answered, two refused, one or more dropped. A SYN-ACK, and two resets.
    if with("0x0002") < 4 || with("0x0012") != 1 || with("0x0014") != 2 {
        return Err(format!("packets: {all:?}").into());
    }
    let lines: Vec<Value> = String::from_utf8(ran.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    // They are told in the order of their ends, and the packets stand in the order of their times.
    let journeys = lines.iter().filter(|line| line["type"] == "journey");
    let first = journeys.min_by_key(|line| line["time"].as_str().map(str::to_owned)).ok_or("no journey")?;
    let nanoseconds = first["time"].as_str().and_then(|time| time.get(20..29)).ok_or("no time")?;
    if !all[0][3].ends_with(nanoseconds) {
        return Err(format!("the first packet is of {}, the journey of {}", all[0][3], first["time"]).into());
    }
    let bad = tshark(&["-Y", "ip.checksum.status == Bad || tcp.checksum.status == Bad || _ws.malformed", "-e", "frame.number"])?;
    if bad.is_empty() { Ok(()) } else { Err(format!("malformed packets: {bad:?}").into()) }
}

fn browser(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab()?;
    let (folder, path) = place()?;
    let page = folder.path().join("page.html").display().to_string();
    let ran = trace(binary, &lab, &["--record", &path])?;
    check(&ran, ran.status.success(), "that it ran")?;
    read_as_root(binary, &["convert", &path, "--to", "html", "-o", &page])?;
    let picture = folder.path().join("page.png");
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1000,2000"]);
    chromium.env("HOME", folder.path()).arg(format!("--screenshot={}", picture.display())).arg(format!("file://{page}"));
    let shot = chromium.output()?;
    let mut head = [0; 8];
    fs::File::open(&picture)?.read_exact(&mut head)?;
    check(&shot, head == *b"\x89PNG\r\n\x1a\n" && fs::metadata(&picture)?.len() > 20_000, "a picture")?;
    check(&shot, !String::from_utf8_lossy(&shot.stderr).contains("CONSOLE"), "an empty console")?;
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]).env("HOME", folder.path());
    let dom = chromium.arg(format!("file://{page}")).output()?;
    let text = String::from_utf8_lossy(&dom.stdout);
    for part in [
        "4 connection attempts",
        "<desc id=\"path-description\">",
        "1 firewall_drop",
        "2 no_listener",
        "nft delete rule ip filter INPUT handle",
        // The script has run: headings became buttons, and everything is shown.
        "<button type=\"button\">outcome</button>",
        "4 of 4",
        // A comment of a rule is foreign text.
        "block &lt;b&gt;web&lt;/b&gt;",
    ] {
        check(&dom, text.contains(part), part)?;
    }
    check(&dom, !text.contains("http://") && !text.contains("https://"), "nothing from the network")?;
    sorted_and_filtered(folder.path(), &fs::read_to_string(&page)?)
}

/// What a reader does with the table, done by a script behind the page's own.
fn sorted_and_filtered(folder: &Path, page: &str) -> Result<(), Box<dyn Error>> {
    const CLICKS: &str = r#"<script>
        const ids = () => [...document.querySelectorAll("tbody[data-id]")].filter((row) => !row.hidden).map((row) => row.dataset.id);
        const heading = document.querySelector('th[data-key="id"] button');
        heading.click();
        const up = ids();
        heading.click();
        const down = ids();
        const find = document.getElementById("find");
        find.value = "block <b>WEB";
        find.dispatchEvent(new Event("input"));
        document.title = [up, down, ids(), document.getElementById("shown").textContent].join(" | ");
    </script>"#;
    let clicked = folder.join("clicked.html");
    fs::write(&clicked, page.replacen("</body>", &format!("{CLICKS}</body>"), 1))?;
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]).env("HOME", folder);
    let dom = chromium.arg(format!("file://{}", clicked.display())).output()?;
    let text = String::from_utf8_lossy(&dom.stdout);
    let sorted = text.contains("<title>1,2,3,4 | 4,3,2,1 | ");
    check(&dom, sorted && text.contains(" | 1 of 4</title>"), "a table that is sorted and filtered")
}
