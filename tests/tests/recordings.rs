//! Recordings and exports through the real binary, on real packets: what was seen live is seen by somebody else, without root;
//! a recording survives its tracer and a full disk.

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use wsltrace::export::Format;
use wsltrace::lab::{Lab, LabError};
use wsltrace_tests::decide;
use wsltrace_tests::ran::{check, output};
use wsltrace_tests::recorded::{EMPTY, NOBODY, connections, lab, place, publish, read, read_as_root, trace, tracer};

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 7] = [
        ("a_recording_tells_what_was_told_live", told_again),
        ("exports_are_the_same_live_and_from_a_recording", same_exports),
        ("stdout_carries_one_export", to_stdout),
        ("a_killed_tracer_leaves_a_recording_that_opens", killed),
        ("a_full_disk_ends_the_recording_and_not_the_tracing", full_disk),
        ("a_recording_goes_on_in_other_files", rotated),
        ("files_belong_to_the_person_behind_sudo_and_others_are_kept", owned),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
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
    let formats = || Format::all().iter().map(|format| format.name());
    let exports: Vec<String> = formats().map(|format| format!("{format}:{}", live(format))).collect();
    let mut arguments = vec!["--json", "--record", &path];
    arguments.extend(exports.iter().flat_map(|export| ["--export", export.as_str()]));
    let ran = trace(binary, &lab, &arguments)?;
    check(&ran, ran.status.success(), "that it ran")?;
    if fs::read(live("jsonl"))? != ran.stdout {
        return Err("the export to jsonl is not what --json wrote".into());
    }
    publish(&path)?;
    for format in formats() {
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
