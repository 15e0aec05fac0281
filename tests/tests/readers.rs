//! Other programs read what is exported: Wireshark the packets, a browser the page.

use std::error::Error;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use wsltrace_tests::ran::check;
use wsltrace_tests::recorded::{SHUT, lab, place, read_as_root, trace};

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, &'static str, Test); 2] =
        [("wireshark_reads_the_packets", "tshark", wireshark), ("a_browser_shows_the_page", "chromium", browser)];
    let trials = tests.map(|(name, program, test)| Trial::ignorable_test(name, move || decide(name, program, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

#[expect(clippy::print_stdout, reason = "the line that continuous integration counts")]
fn decide(name: &str, program: &str, test: Test) -> Result<Completion, Failed> {
    if Command::new(program).arg("--version").output().is_err() {
        println!("SKIP: {name}: {program} is not installed");
        return Ok(Completion::ignored_with(format!("{program} is not installed")));
    }
    wsltrace_tests::decide(name, test)
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
