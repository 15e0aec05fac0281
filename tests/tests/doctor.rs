//! `wsltrace doctor` as its users call it, in networks that are made for it.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::lab::{Attempt, Lab, LabError, Manner, PORT, Seen, Side};
use wsltrace_tests::decide;
use wsltrace_tests::examined::{doctor, examined, lab, mend};
use wsltrace_tests::ran::check;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

/// Somebody who is not root.
const NOBODY: u32 = 65534;

fn main() {
    let tests: [(&'static str, Test); 6] = [
        ("an_examination_is_valid_by_its_schema", valid),
        ("the_exit_status_says_whether_something_will_fail", status),
        ("somebody_who_is_not_root_learns_what_was_not_seen", without_root),
        ("the_rules_of_nftables_are_read_without_nft", without_nft),
        ("the_script_is_one_and_nothing_is_changed", script),
        ("what_is_typed_wrongly_is_told", usage),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

fn valid(binary: &Path) -> Result<(), Box<dyn Error>> {
    let schema: Value = serde_json::from_str(include_str!("../../docs/schema/doctor-1.json"))?;
    let validator = jsonschema::validator_for(&schema)?;
    let lab = lab(Ipv4Addr::UNSPECIFIED)?;
    for arguments in [&["--json"][..], &["--json", "--redact"]] {
        let ran = examined(binary, &lab, arguments)?;
        let value: Value = serde_json::from_slice(&ran.stdout)?;
        validator.validate(&value).map_err(|error| error.to_string())?;
        check(&ran, value["linux"]["listeners"][0]["pid"] == std::process::id(), "the server's process")?;
        let own = String::from_utf8_lossy(&ran.stdout).contains(&Lab::wsl_address(false).to_string());
        check(&ran, own != arguments.contains(&"--redact"), "addresses unless they are hidden")?;
    }
    Ok(())
}

fn status(binary: &Path) -> Result<(), Box<dyn Error>> {
    let ran = examined(binary, &lab(Ipv4Addr::UNSPECIFIED)?, &[])?;
    check(&ran, ran.status.code() == Some(0), "that nothing is wrong")?;
    let ran = examined(binary, &Lab::new(None)?, &[])?;
    let told = String::from_utf8_lossy(&ran.stdout).contains("Nothing listens on port 8080");
    check(&ran, ran.status.code() == Some(1) && told, "that nobody listens")?;
    let ran = examined(binary, &lab(Ipv6Addr::LOCALHOST)?, &[])?;
    let told = String::from_utf8_lossy(&ran.stdout).contains("Only [::1] leads to the server");
    check(&ran, ran.status.code() == Some(0) && told, "that only [::1] leads to it")
}
fn without_root(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab(Ipv4Addr::UNSPECIFIED)?;
    let mut command = Command::new(binary);
    command.args(["doctor", "--port", "8080", "--json"]).uid(NOBODY).gid(NOBODY);
    let ran = lab
        .side(Side::Wsl)?
        .run(|| command.output().map_err(|source| wsltrace::lab::LabError::Io { doing: "run the doctor".to_owned(), source }))?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let listeners = &value["linux"]["listeners"];
    check(&ran, listeners[0]["address"] == "0.0.0.0" && listeners[0]["pid"].is_null(), "a listener without its process")?;
    let findings = value["findings"].as_array().ok_or("no findings")?;
    let unseen = findings.iter().filter(|finding| finding["severity"] == "unknown");
    let advised = unseen.filter(|finding| finding["remedy"][0]["text"] == "sudo wsltrace doctor --port 8080").count();
    check(&ran, advised > 0, "what root would have seen")?;
    // Nobody but root may read firewall rules.
    check(&ran, ran.status.code() == Some(3), "that nothing could be decided")
}

/// With no program in reach but iptables' own lister, or none at all.
fn without_nft(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab(Ipv4Addr::UNSPECIFIED)?;
    let tools = tempfile::tempdir()?;
    let attempt = Attempt {
        target: (Lab::wsl_address(false), PORT).into(),
        from_port: 0,
        manner: Manner::Listens,
        patience: std::time::Duration::from_millis(200),
    };
    let connected = || -> Result<bool, Box<dyn Error>> { Ok(attempt.make(&lab.client)?.seen == Seen::Connected) };
    let examine = || -> Result<Value, Box<dyn Error>> {
        let netns = lab.wsl.path().display().to_string();
        let mut command = Command::new(binary);
        command.args(["doctor", "--port", "8080", "--json", "--netns", &netns]).env("PATH", tools.path());
        Ok(serde_json::from_slice(&command.output()?.stdout)?)
    };
    let row = |value: &Value| value["ways"].as_array().and_then(|rows| rows.first()).map(|row| row["answer"].clone());
    let shell = |line: &str| -> Result<bool, Box<dyn Error>> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        Ok(lab.wsl.run(|| command.status().map_err(LabError::io("run a shell")))?.success())
    };
    let table = "table inet t { chain c { type filter hook input priority 0; iifname eth0 tcp dport { 80, 8080 } drop; }; }";
    if !shell(&format!("nft '{table}'"))? {
        return Err("nft makes no table".into());
    }
    let value = examine()?;
    if (row(&value), connected()?) != (Some("fails".into()), false) {
        return Err(format!("a rule of nft: {value:#}").into());
    }
    if !shell("nft delete table inet t && iptables-nft -A INPUT -p tcp -m tcp --dport 8080 -j DROP")? {
        return Err("iptables-nft makes no rule".into());
    }
    for save in ["iptables-nft-save", "ip6tables-nft-save"] {
        let found = ["/usr/sbin", "/sbin", "/usr/bin"].iter().map(|place| Path::new(place).join(save)).find(|path| path.exists());
        std::os::unix::fs::symlink(found.ok_or("no iptables-nft-save")?, tools.path().join(save))?;
    }
    let value = examine()?;
    if (row(&value), connected()?) != (Some("fails".into()), false) {
        return Err(format!("a rule of iptables: {value:#}").into());
    }
    if !mend(&lab, &value)? || !connected()? {
        return Err(format!("the commands do not mend it: {value:#}").into());
    }
    if row(&examine()?) != Some("works".into()) {
        return Err("what was mended still fails".into());
    }
    Ok(())
}

fn script(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab(Ipv4Addr::LOCALHOST)?;
    let ran = examined(binary, &lab, &["--fix"])?;
    check(&ran, ran.stdout.starts_with(b"#!/bin/sh\n"), "a script")?;
    let path = tempfile::NamedTempFile::new()?;
    std::fs::write(&path, &ran.stdout)?;
    let syntax = Command::new("sh").arg("-n").arg(path.path()).output()?;
    check(&syntax, syntax.status.success(), "a script that a shell reads")
}

fn usage(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (arguments, said) in [
        (&[][..], "the port of the server is missing"),
        (&["--port", "0"], "port 0 is no port"),
        (&["--port", "80-90"], "name one port"),
        (&["--port", "80", "--netns", "nosuch"], "no network namespace named 'nosuch'"),
        (&["--port", "80", "--json", "--fix"], "cannot be used with"),
    ] {
        let ran = doctor(binary, arguments)?;
        let told = String::from_utf8_lossy(&ran.stderr).contains(said);
        check(&ran, told && ran.status.code() == Some(2) && ran.stdout.is_empty(), said)?;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let ran = doctor(binary, &[])?;
    let told = String::from_utf8_lossy(&ran.stderr);
    let row = format!("  {:<6} 127.0.0.1 ", server.local_addr()?.port());
    check(&ran, told.contains(&row) && told.contains("try: sudo wsltrace doctor --port "), "what listens, and what to type")
}
