//! The doctor and the tracer in a pretended WSL 2, from end to end, in every networking mode. What Windows does is taken from its
//! documentation and from WSL's sources; what Linux does is what clients in the lab see.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use wsltrace::lab::{Binding, Lab, LabError, Listening, Namespace, mirror};
use wsltrace_tests::decide;
use wsltrace_tests::pretended::Pretended;
use wsltrace_tests::terminal::await_shown;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Test = fn(&Path) -> Outcome;

const PORT: u16 = 8080;
/// Recorded answers of Windows.
const NAT: &str = include_str!("../../wsltrace/src/windows/transcripts/nat.json");
const MIRRORED: &str = include_str!("../../wsltrace/src/windows/transcripts/mirrored.json");
const PORTPROXY: &str = include_str!("../../wsltrace/src/windows/transcripts/portproxy.json");
const ERRORS: &str = include_str!("../../wsltrace/src/windows/transcripts/errors.json");
const EMPTY: &str = include_str!("../../wsltrace/src/windows/transcripts/empty.json");
const GARBAGE: &[u8] = include_bytes!("../../wsltrace/src/windows/transcripts/garbage.txt");
/// Words of widely repeated advice that is wrong, one a line.
const WRONG: &str = include_str!("../../wsltrace/src/doctor/checks/wrong_advice.txt");
/// What the same Windows says in other languages, and in other shapes.
const LIKE_NAT: [(&str, &str); 6] = [
    ("Chinese", include_str!("../../wsltrace/src/windows/transcripts/nat-zh.json")),
    ("Japanese", include_str!("../../wsltrace/src/windows/transcripts/nat-ja.json")),
    ("German", include_str!("../../wsltrace/src/windows/transcripts/nat-de.json")),
    ("Spanish", include_str!("../../wsltrace/src/windows/transcripts/nat-es.json")),
    ("lists unwrapped", include_str!("../../wsltrace/src/windows/transcripts/unwrapped.json")),
    ("words before it", include_str!("../../wsltrace/src/windows/transcripts/bom.json")),
];
/// The server's addresses, in the order of the answers that [`every_mode`] expects.
const SERVERS: [&[&str]; 6] = [&["0.0.0.0"], &["127.0.0.1"], &["::"], &["::1"], &["::!"], &[]];

fn main() {
    let tests: [(&'static str, Test); 9] = [
        ("every_mode_with_every_kind_of_server", every_mode),
        ("a_windows_that_gives_no_answer_makes_nothing_certain", no_answer),
        ("while_windows_works_the_terminal_says_so", progress),
        ("the_language_of_windows_does_not_matter", languages),
        ("a_server_of_another_distro_has_no_owner", another_distro),
        ("mistakes_in_the_files_of_wsl_are_told", files),
        ("what_mirrored_mode_lacks_is_in_the_table_too", lacking),
        ("a_port_that_windows_has_cannot_be_listened_on", refused),
        ("the_tracer_names_the_mode", tracer),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// A lab with servers on these addresses; `!` behind one takes IPv6 only.
fn lab(mirrored: bool, addresses: &[&str]) -> Outcome<Lab> {
    let mut lab = Lab::new(None)?;
    if mirrored {
        mirror(&lab)?;
    }
    for address in addresses {
        let binding = match address.strip_suffix('!') {
            Some(address) => Binding::new(address.parse::<IpAddr>()?, PORT),
            None if address.contains(':') => Binding::new(address.parse::<IpAddr>()?, PORT).dual_stack(),
            None => Binding::new(address.parse::<IpAddr>()?, PORT),
        };
        let server = Listening::accepting(&lab.wsl, binding)?;
        lab.keep(server);
    }
    Ok(lab)
}

/// What the doctor says in the lab's middle.
fn doctor(binary: &Path, lab: &Lab, wsl: &Pretended, arguments: &[&str], alone: bool) -> Outcome<Output> {
    let all = [&["doctor", "--port", "8080"], arguments].concat();
    let mut command = wsl.command(binary, &all, alone);
    Ok(lab.wsl.run(|| command.output().map_err(|source| LabError::Io { doing: "run the doctor".to_owned(), source }))?)
}

fn examined(binary: &Path, lab: &Lab, wsl: &Pretended, alone: bool) -> Outcome<Value> {
    let ran = doctor(binary, lab, wsl, &["--json"], alone)?;
    serde_json::from_slice(&ran.stdout).map_err(|error| format!("{error}: {}", text(&ran)).into())
}

fn text(ran: &Output) -> String {
    format!("{}\n{}\n{}", ran.status, String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

/// The answer of a row, `W`, `F` or `?`; `-` where there is none.
fn answer(examined: &Value, way: &str) -> char {
    let rows = examined["ways"].as_array().map(Vec::as_slice).unwrap_or_default();
    match rows.iter().find(|row| row["way"] == way).and_then(|row| row["answer"].as_str()) {
        Some("works") => 'W',
        Some("fails") => 'F',
        Some("unknown") => '?',
        _ => '-',
    }
}

/// Windows' localhost, 127.0.0.1 and `::1`, WSL's address, the LAN to Windows', to this Linux', over IPv6.
fn answers(examined: &Value) -> String {
    let ways = ["windows_localhost", "windows_loopback4", "windows_loopback6", "windows_to_address", "lan_to_windows"];
    ways.iter().chain(&["lan_to_address", "lan6"]).map(|way| answer(examined, way)).collect()
}

/// The severities of a check's findings.
fn told<'a>(examined: &'a Value, check: &str) -> Vec<&'a str> {
    let findings = examined["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_check = findings.iter().filter(|finding| finding["check"] == check);
    of_check.filter_map(|finding| finding["severity"].as_str()).collect()
}

fn expect<T: PartialEq + std::fmt::Debug>(seen: T, wanted: T, what: &str, examined: &Value) -> Outcome {
    let both = (seen, wanted);
    if both.0 == both.1 { Ok(()) } else { Err(format!("{what}: {:?}, not {:?}\n{examined:#}", both.0, both.1).into()) }
}

/// Whether a connection is made.
fn connects(from: &Namespace, to: impl Into<IpAddr>) -> Outcome<bool> {
    let to = SocketAddr::new(to.into(), PORT);
    Ok(from.run(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok()))?)
}

/// Windows' answer with the relay where WSL's sources put it for these servers.
fn with_relay(servers: &[&str]) -> Outcome<Vec<u8>> {
    let mut windows: Value = serde_json::from_str(NAT)?;
    let opens = |family: char, loopback: &str| {
        let own = servers.iter().any(|address| address.contains(family));
        own.then(|| json!({"address": loopback, "port": PORT, "pid": 9120, "process": "wslrelay", "services": []}))
    };
    let listeners: Vec<Value> = [opens('.', "127.0.0.1"), opens(':', "::1")].into_iter().flatten().collect();
    windows["listeners"] = json!({ "ok": listeners });
    windows["excluded_v4"] = windows["excluded_v6"].clone();
    Ok(serde_json::to_vec(&windows)?)
}

fn every_mode(binary: &Path) -> Outcome {
    let schema: Value = serde_json::from_str(include_str!("../../docs/schema/doctor-1.json"))?;
    let validator = jsonschema::validator_for(&schema)?;
    for (mode, expected) in [
        ("nat", ["WWFWF--", "WWFFF--", "WFWWF--", "WFWFF--", "WFWFF--", "FFFFF--"]),
        ("mirrored", ["WWFFW-F", "WWFFF-F", "WWFFW-W", "FFFFF-F", "FFFFF-W", "FFFFF-F"]),
        ("consomme", ["WWFW?-F", "WWFFF-F", "WW?W?-?", "?F?FF-F", "?F?FF-?", "FFFFF-F"]),
        ("virtioproxy", ["WWFW?-F", "WWFFF-F", "WW?W?-?", "?F?FF-F", "?F?FF-?", "FFFFF-F"]),
        ("bridged", ["WWFWFWF", "WWFFFFF", "WFWWFWW", "WFWFFFF", "WFWFFFW", "FFFFFFF"]),
        ("none", ["FFFFF--", "FFFFF--", "FFFFF--", "FFFFF--", "FFFFF--", "FFFFF--"]),
    ] {
        let around = !matches!(mode, "nat" | "bridged" | "none");
        for (servers, wanted) in SERVERS.iter().zip(expected) {
            let lab = lab(around, servers)?;
            let windows = if around { MIRRORED.as_bytes().to_vec() } else { with_relay(servers)? };
            let wsl = Pretended::new(mode, &windows)?;
            let value = examined(binary, &lab, &wsl, false)?;
            let what = format!("{mode} with a server on {servers:?}");
            validator.validate(&value).map_err(|error| format!("{what}: {error}"))?;
            expect(answers(&value).as_str(), wanted, &what, &value)?;
            let name = if mode == "virtioproxy" { "consomme" } else { mode };
            expect((&value["wsl"], &value["mode"]), (&json!(2), &json!(name)), &what, &value)?;
            let asked = wsl.asked()?;
            let one = asked.len() == 1 && asked[0].starts_with("/mnt/c /run/WSL/1_interop ");
            expect(one && asked[0].contains("-EncodedCommand"), true, "PowerShell is started once", &json!(asked))?;
            // What Linux has a part in is tried.
            if !around {
                // Otherwise it goes out to Windows, which in the lab does not send it back.
                let inside = connects(&lab.wsl, Ipv4Addr::LOCALHOST)?;
                expect(answer(&value, "inside4") == 'W', inside, &format!("{what}: 127.0.0.1 in Linux"), &value)?;
            }
            let inside = connects(&lab.wsl, Ipv6Addr::LOCALHOST)?;
            expect(answer(&value, "inside6") == 'W', inside, &format!("{what}: ::1 in Linux"), &value)?;
            if around {
                let windows = connects(&lab.client, Ipv4Addr::LOCALHOST)?;
                expect(answer(&value, "windows_loopback4") == 'W', windows, &format!("{what}: by loopback0"), &value)?;
            } else if mode != "none" {
                let windows = connects(&lab.client, Lab::wsl_address(false))?;
                expect(answer(&value, "windows_to_address") == 'W', windows, &format!("{what}: by eth0"), &value)?;
            }
            for arguments in [&["-v"][..], &["--fix"], &["--redact"]] {
                let ran = doctor(binary, &lab, &wsl, arguments, false)?;
                let said = String::from_utf8_lossy(&ran.stdout);
                let status = i32::from(value["worst"] == "fails");
                expect(ran.status.code(), Some(status), &format!("{what}: {arguments:?}"), &value)?;
                for wrong in WRONG.lines() {
                    expect(said.contains(wrong), false, &format!("{what} says {wrong}: {said}"), &value)?;
                }
            }
        }
    }
    Ok(())
}

fn no_answer(binary: &Path) -> Outcome {
    let lab = lab(false, &["0.0.0.0"])?;
    for (windows, check) in [(ERRORS.as_bytes(), "questions"), (GARBAGE, "garbage"), (b"", "nothing")] {
        let value = examined(binary, &lab, &Pretended::new("nat", windows)?, false)?;
        expect(answers(&value).as_str(), "??FW?--", check, &value)?;
        expect(told(&value, "windows_unavailable"), vec!["unknown"], check, &value)?;
        let ran = doctor(binary, &lab, &Pretended::new("nat", windows)?, &[], false)?;
        expect(ran.status.code(), Some(3), &format!("{check}: half could not be examined"), &value)?;
    }
    let wsl = Pretended::new("nat", NAT.as_bytes())?.without_interop()?;
    let value = examined(binary, &lab, &wsl, false)?;
    // Where the handlers cannot be shown the program is started all the same.
    if Path::new("/proc/sys/fs/binfmt_misc").is_dir() {
        expect(wsl.asked()?.len(), 0, "interop is off", &value)?;
        expect(answers(&value).as_str(), "??FW?--", "interop is off", &value)?;
    }
    let value = examined(binary, &lab, &Pretended::new("nat", EMPTY.as_bytes())?, false)?;
    expect(answers(&value).as_str(), "FFFWF--", "nobody listens on Windows", &value)?;
    expect(told(&value, "relay"), vec!["fails"], "nobody listens on Windows", &value)
}

fn progress(binary: &Path) -> Outcome {
    const LINE: &str = "asking Windows (PowerShell), which takes some seconds";
    const WIPED: &[u8] = b"\x1b[2K";
    let lab = lab(false, &["0.0.0.0"])?;
    let wsl = Pretended::new("nat", NAT.as_bytes())?.that_works()?;
    let terminal = nix::pty::openpty(None, None)?;
    let mut command = wsl.command(binary, &["doctor", "--port", "8080", "--json"], false);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(terminal.slave);
    let child = lab.wsl.run(|| command.spawn().map_err(LabError::io("start the doctor")))?;
    // It holds the terminal's other end, without which there would be no end to read.
    drop(command);
    let mut screen = BufReader::new(File::from(terminal.master));
    await_shown(&mut screen, LINE.as_bytes())?;
    wsl.answer()?;
    let mut rest = Vec::new();
    match screen.read_to_end(&mut rest) {
        // A terminal that nobody has open any more ends so.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
        read => drop(read?),
    }
    let ran = child.wait_with_output()?;
    let value = serde_json::from_slice(&ran.stdout)?;
    expect(answers(&value).as_str(), "WWFWF--", "what Windows answered", &value)?;
    // The line is wiped out, so that the table stands alone.
    let shown = String::from_utf8_lossy(&rest).into_owned();
    let after = shown.rsplit(LINE).next().unwrap_or_default();
    let is_wiped = rest.windows(WIPED.len()).any(|part| part == WIPED) && !after.contains("asking");
    expect(is_wiped, true, &format!("{shown:?}"), &value)?;
    // A file or another program gets no such line.
    let ran = doctor(binary, &lab, &Pretended::new("nat", NAT.as_bytes())?, &["--json"], false)?;
    expect(String::from_utf8_lossy(&ran.stderr).into_owned(), String::new(), "without a terminal", &value)
}

fn languages(binary: &Path) -> Outcome {
    let lab = lab(false, &["0.0.0.0"])?;
    let of = |windows: &str| examined(binary, &lab, &Pretended::new("nat", windows.as_bytes())?, false);
    let english = of(NAT)?;
    for (language, windows) in LIKE_NAT {
        let value = of(windows)?;
        expect(&value["ways"], &english["ways"], language, &value)?;
        expect(&value["findings"], &english["findings"], language, &value)?;
    }
    Ok(())
}

fn another_distro(binary: &Path) -> Outcome {
    let lab = lab(false, &["0.0.0.0"])?;
    let value = examined(binary, &lab, &Pretended::new("nat", &with_relay(&["0.0.0.0"])?)?, true)?;
    expect(told(&value, "listener_owner"), vec!["warns"], "a socket without an owner", &value)?;
    expect(answers(&value).as_str(), "WWFWF--", "it is reached all the same", &value)
}

fn files(binary: &Path) -> Outcome {
    let lab = lab(false, &["0.0.0.0"])?;
    let wsl = Pretended::new("nat", PORTPROXY.as_bytes())?.with_conf("[network]\nnetworkingMode=mirrored\n")?;
    let value = examined(binary, &lab, &wsl, false)?;
    expect(told(&value, "config"), vec!["warns"], "the mode in the wrong file", &value)?;
    // Its entry leads to a former address of WSL.
    expect(told(&value, "portproxy").first().copied(), Some("fails"), "a stale entry", &value)?;
    let ran = doctor(binary, &lab, &wsl, &[], false)?;
    expect(ran.status.code(), Some(1), &text(&ran), &value)
}

fn lacking(binary: &Path) -> Outcome {
    let lab = lab(true, &["0.0.0.0"])?;
    for (setting, bad, good, severity, passes) in [
        ("net.ipv4.conf.loopback0.rp_filter", "1", "0", "warns", true),
        ("net.ipv4.conf.loopback0.accept_local", "0", "1", "warns", true),
        ("net.ipv4.conf.loopback0.route_localnet", "0", "1", "fails", false),
    ] {
        lab.wsl.set_sysctl(setting, bad)?;
        let value = examined(binary, &lab, &Pretended::new("mirrored", MIRRORED.as_bytes())?, false)?;
        expect(told(&value, "loopback0"), vec![severity], setting, &value)?;
        let windows = connects(&lab.client, Ipv4Addr::LOCALHOST)?;
        expect((answer(&value, "windows_loopback4") == 'W', windows), (passes, passes), setting, &value)?;
        lab.wsl.set_sysctl(setting, good)?;
    }
    let mirrored = || examined(binary, &lab, &Pretended::new("mirrored", MIRRORED.as_bytes())?, false);
    let value = mirrored()?;
    expect(told(&value, "loopback0"), vec!["fine"], "as it was", &value)?;
    // Without its rules the kernel minds both.
    lab.wsl.ip("rule add pref 0 lookup local\nrule del pref 1 ipproto tcp lookup 127")?;
    for setting in ["net.ipv4.conf.loopback0.rp_filter=1", "net.ipv4.conf.loopback0.accept_local=0"] {
        let (name, value) = setting.split_once('=').ok_or("no value")?;
        lab.wsl.set_sysctl(name, value)?;
    }
    let value = mirrored()?;
    expect(told(&value, "loopback0"), vec!["fails"; 3], "without rules", &value)?;
    let windows = connects(&lab.client, Ipv4Addr::LOCALHOST)?;
    expect((answer(&value, "windows_loopback4"), windows), ('F', false), "without rules", &value)?;
    // What Linux sends to itself stays here then.
    let inside = connects(&lab.wsl, Ipv4Addr::LOCALHOST)?;
    expect((answer(&value, "inside4"), inside), ('W', true), "127.0.0.1 in Linux, without rules", &value)
}

/// Windows says "address in use" to `bind` where it has the port; so does the kernel of a socket that is only bound.
fn refused(binary: &Path) -> Outcome {
    let lab = lab(true, &[])?;
    let wsl = Pretended::new("mirrored", MIRRORED.as_bytes())?;
    let value = examined(binary, &lab, &wsl, false)?;
    expect(told(&value, "bind"), vec![], "a free port", &value)?;
    let bound = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
        Ok::<_, std::io::Error>(socket)
    };
    let held = lab.wsl.run(|| bound().map_err(LabError::io("bind")))?;
    let value = examined(binary, &lab, &wsl, false)?;
    expect(told(&value, "bind"), vec!["fails"], "a port that is taken", &value)?;
    drop(held);
    Ok(())
}

fn tracer(binary: &Path) -> Outcome {
    let lab = lab(false, &["::"])?;
    let wsl = Pretended::new("nat", NAT.as_bytes())?;
    let mut command = wsl.command(binary, &["--port", "8080", "--duration", "3s", "--absence", "1s"], false);
    let ran = lab.wsl.run(|| command.output().map_err(LabError::io("run the tracer")))?;
    let said = text(&ran).split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["not 127.0.0.1", "wslrelay", "one IPv6 socket", "doctor --port 8080"] {
        if !said.contains(words) {
            return Err(format!("{words} is not said:\n{said}").into());
        }
    }
    expect(wsl.asked()?.len(), 0, "the tracer asks no PowerShell", &Value::Null)
}
