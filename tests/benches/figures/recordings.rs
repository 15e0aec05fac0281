//! A million journeys in a recording: how fast they are written, opened and converted.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use wsltrace::evidence::Evidence;
use wsltrace::export::Format;
use wsltrace::journey::{InterfaceName, Names, assemble, decode};
use wsltrace::output::{Report, Summary};
use wsltrace::recording::{Clock, Header, Moment, Recorder};
use wsltrace_common::{Death, Flags, HEADER_SIZE, Record, StageCode, StageEntry};

use crate::say;

const JOURNEYS: u64 = 1_000_000;
const NETNS: u32 = 4_026_531_840;

/// Names as a machine has them.
struct Eth0;

impl Names for Eth0 {
    fn interface(&self, _netns: u32, _ifindex: u32) -> Option<InterfaceName> {
        Some("eth0".into())
    }

    fn reason(&self, _number: u32) -> Option<String> {
        Some("NETFILTER_DROP".to_owned())
    }

    fn location(&self, _address: u64) -> Option<String> {
        Some("nft_do_chain+0x3e8".to_owned())
    }

    fn is_relay(&self, _tgid: u32, _comm: &[u8; 16]) -> bool {
        false
    }

    fn time(&self, monotonic_ns: u64) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_nanos(monotonic_ns.cast_signed())
    }
}

pub(crate) fn measure(binary: &Path) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;

    let path = folder.path().join("million.wsltrace");
    say("");
    say(&format!("recording: {JOURNEYS} journeys of 14 to 24 stages, one in ten dropped"));
    let began = Instant::now();
    write(&path)?;
    let took = began.elapsed().as_secs_f64();
    let size = path.metadata()?.len();
    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    let (rate, each) = (JOURNEYS as f64 / took, size as f64 / JOURNEYS as f64);
    say(&format!("  decoded, judged and written: {took:.2} s, {rate:.0} a second; {each:.0} bytes each"));
    run("opened and summarised (report -q)", Command::new(binary).arg("report").arg("-q").arg(&path))?;
    for format in Format::all().iter().map(|format| format.name()) {
        let mut command = Command::new(binary);
        command.args(["convert", "--to", format]).arg(&path).arg("-o").arg(folder.path().join(format!("converted.{format}")));
        run(&format!("converted to {format}"), &mut command)?;
    }
    Ok(())
}

fn run(what: &str, command: &mut Command) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let (status, most) = wait(&child)?;
    let took = began.elapsed().as_secs_f64();
    if status != 0 {
        return Err(format!("{command:?} ended with {status}").into());
    }
    say(&format!("  {what}: {took:.2} s, {:.1} MiB at most", most / 1024.0));
    Ok(())
}

/// The exit status of a child and the most memory it had, KiB.
fn wait(child: &std::process::Child) -> Result<(i32, f64), Box<dyn Error>> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to memory of ours of the right type for the length of the call.
    let pid = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
    if pid < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: zeroed, then filled by the kernel; all its fields are integers.
    let usage = unsafe { usage.assume_init() };
    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    Ok((status, usage.ru_maxrss as f64))
}

fn write(path: &Path) -> Result<(), Box<dyn Error>> {
    let header: Header = serde_json::from_value(serde_json::json!({
        "wsltrace": "bench",
        "machine": { "kernel": "bench", "architecture": "x86_64", "wsl": null, "mode": null },
        "clock": { "wall": "1970-01-01T00:00:00Z", "monotonic_ns": 0 },
        "part": 1,
        "armed": {
            "type": "armed", "schema": 1, "time": "1970-01-01T00:00:00.000000000Z", "netns": NETNS, "ports": [{ "first": 8080, "last": 8080 }],
            "detail": "full", "interfaces": [], "probes_on": [], "probes_missing": []
        },
        "start": { "listeners": [], "containers": false, "invitation": "" }
    }))?;
    let clock = Clock { wall: jiff::Timestamp::UNIX_EPOCH, monotonic_ns: 0 };
    let mut recorder = Recorder::new(BufWriter::with_capacity(256 << 10, File::create(path)?), &Header { clock, ..header })?;
    let mut summary = Summary::default();
    let mut random = fastrand::Rng::with_seed(1);
    for id in 1..=JOURNEYS {
        let record = record(id, &mut random);
        // SAFETY: a record is integers without padding, and this is as many of its bytes as are filled.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                (&raw const record).cast::<u8>(),
                HEADER_SIZE + record.stage_count as usize * size_of::<StageEntry>(),
            )
        };
        let record = decode(bytes)?;
        let report = Report::new(assemble(&record, id, &Eth0), Evidence::default());
        summary.add(&report.journey, &report.diagnosis);
        let moment = Moment { time: report.journey.time, told_ns: record.last_ns };
        recorder.journey(&record, &report, moment, &Eth0)?;
    }
    recorder.end(&wsltrace::recording::End {
        time: jiff::Timestamp::UNIX_EPOCH,
        journeys: summary.journeys(),
        duration_ns: JOURNEYS * 5_000,
        lost: wsltrace::output::contract::Lost::default(),
        continued: None,
    })?;
    recorder.get_mut().get_ref().sync_all()?;
    Ok(())
}

/// A SYN from Windows, answered or dropped in INPUT's filter.
fn record(id: u64, random: &mut fastrand::Rng) -> Record {
    use StageCode as C;
    const IN: [C; 14] = [
        C::TcIngress,
        C::Prerouting,
        C::PreroutingRaw,
        C::PreroutingConntrack,
        C::PreroutingMangle,
        C::PreroutingDnat,
        C::Routing,
        C::Input,
        C::InputMangle,
        C::InputFilter,
        C::InputSecurity,
        C::InputEnd,
        C::SocketLookup,
        C::Output,
    ];
    const OUT: [C; 11] = [
        C::OutputRaw,
        C::OutputConntrack,
        C::OutputMangle,
        C::OutputNat,
        C::OutputFilter,
        C::OutputSecurity,
        C::Postrouting,
        C::PostroutingMangle,
        C::PostroutingSnat,
        C::PostroutingEnd,
        C::TcEgress,
    ];
    let dropped = id.is_multiple_of(10);
    let address = |last: u32| [0, 0, 0xffff_u32.to_be(), (0xac1c_1000 + last).to_be()];
    let port = 1024 + (id % 60_000) as u16;
    let flow = wsltrace_common::Flow {
        source: address(1),
        destination: address(2),
        source_port: port,
        destination_port: 8080,
        family: 4,
    };
    let none = Death { time_ns: 0, location: 0, reason: 0, netns: 0, ifindex: 0, stage_count: 0 };
    let first_ns = id * 5_000;
    let mut stages = [StageEntry { time_and_code: 0, netns: 0, ifindex: 0 }; wsltrace_common::MAX_STAGES];
    let codes = IN.iter().take(if dropped { 10 } else { 14 }).chain(OUT.iter().take(if dropped { 0 } else { 11 }));
    let (mut count, mut ns) = (0, 0);
    for (entry, code) in stages.iter_mut().zip(codes) {
        let answer = if count >= 13 { StageEntry::ANSWER } else { 0 };
        *entry = StageEntry { time_and_code: ns << StageEntry::TIME_SHIFT | answer | *code as u64, netns: NETNS, ifindex: 2 };
        ns += random.u64(200..4_000);
        count += 1;
    }
    let death = Death {
        time_ns: first_ns + ns,
        location: 0xffff_ffff_8100_0000,
        reason: 9,
        netns: NETNS,
        ifindex: 2,
        stage_count: count,
    };
    let answered = Flags::SYN_ACK | Flags::ANSWER_LEFT | Flags::ACK | Flags::ESTABLISHED | Flags::CONNTRACK;
    Record {
        key: wsltrace_common::Key { address: flow.source, sequence: random.u32(..), port, slot: 1 },
        flow,
        now: flow,
        first_ns,
        last_ns: first_ns + ns,
        skb: 0,
        answer_skb: 0,
        death: if dropped { death } else { none },
        consumed: none,
        answer_death: none,
        stray: none,
        confirmation_death: none,
        counted: 0,
        flags: if dropped { Flags::CONNTRACK } else { answered },
        attempt: 1,
        netns: NETNS,
        ifindex: 2,
        syn_netns: NETNS,
        syn_ifindex: 2,
        answer_netns: NETNS,
        answer_ifindex: 2,
        tgid: 0,
        conntrack: 2,
        payload_len: 0,
        stage_count: count,
        comm: [0; 16],
        stages,
    }
}
