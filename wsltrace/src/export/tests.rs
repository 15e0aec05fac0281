//! Every format over hand-made journeys, read back by the library of that format; names that attack their reader.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::ValueEnum as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;

use super::{Format, Target};
use crate::output::contract::Lost;
use crate::output::{Report, Summary, samples};
use crate::recording::{Clock, End, Header, Machine, Missed};

/// What breaks out of a terminal, a page, a script or a string.
const HOSTILE: &str = "\x1b]0;x\x07<script>alert(1)</script>\"'&\u{202e}\n{{ 7 }}";

/// A writer that can be looked into.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reports() -> Vec<Report> {
    let mut reports = samples::reports();
    for report in &mut reports {
        report.journey.answer = report.journey.stages.iter().position(|visit| visit.stage == crate::journey::Stage::SynAck);
        let evidence = Arc::make_mut(&mut report.evidence);
        if let Some(rule) = &mut evidence.rule {
            rule.text = Some(format!("tcp dport 8080 comment {HOSTILE}"));
        }
        let diagnosis = Arc::make_mut(&mut report.diagnosis);
        diagnosis.summary.push_str(HOSTILE);
        diagnosis.remedy.push(format!("echo {HOSTILE}"));
        for visit in &mut report.journey.stages {
            visit.interface = Some("\x1b<b>\"eth0".into());
        }
    }
    reports
}

fn written(format: Format, reports: &[Report]) -> Vec<u8> {
    let header = Header {
        wsltrace: HOSTILE.to_owned(),
        machine: Machine {
            kernel: HOSTILE.to_owned(),
            architecture: HOSTILE.to_owned(),
            wsl: None,
            mode: Some(HOSTILE.to_owned()),
        },
        clock: Clock { wall: samples::time(), monotonic_ns: 7 },
        part: 1,
        armed: samples::armed(),
        start: samples::start(),
    };
    let out = Shared::default();
    let mut export = format.writer(Box::new(out.clone()));
    let mut summary = Summary::default();
    export.begin(&header).unwrap();
    for report in reports {
        summary.add(&report.journey, &report.diagnosis);
        export.journey(report).unwrap();
    }
    export.missed(&Missed { absence: samples::absence(), waited: samples::waited() }).unwrap();
    let line = summary.line(samples::time(), 34, Lost::default());
    let end = End { time: samples::time(), journeys: 1, duration_ns: 34, lost: Lost::default(), continued: None };
    export.end(Some(&end), &line).unwrap();
    out.0.lock().unwrap().clone()
}

#[test]
fn names_do_not_break_out() {
    for format in Format::value_variants() {
        let bytes = written(*format, &reports());
        // pcapng's own numbers may be any bytes.
        let has = |control: &[u8]| bytes.windows(control.len()).any(|window| window == control);
        assert!(!has(b"\x1b]0") && !has(b"x\x07") && !has(b"\x1b<b>"), "{}: control characters", format.name());
    }
    let page = String::from_utf8(written(Format::Html, &reports())).unwrap();
    assert!(page.contains("&#60;script&#62;alert(1)") || page.contains("&lt;script&gt;alert(1)"));
    assert!(!page.contains("<script>alert") && !page.contains("<b>\"eth0") && !page.contains('\u{202e}'));
    assert_eq!(page.matches("<script>").count(), 1);
}

#[test]
fn jsonl_and_perfetto_are_json() {
    let text = String::from_utf8(written(Format::Jsonl, &reports())).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!((types[0], types[types.len() - 2], types[types.len() - 1]), ("armed", "absence", "summary"));
    let trace: Value = serde_json::from_slice(&written(Format::Perfetto, &reports())).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let deaths = reports().iter().filter(|report| report.journey.died_at.is_some()).count();
    // A death at a stage that was never entered has no place on the timeline.
    let marks = events.iter().filter(|event| event["ph"] == "i").count();
    assert!(marks > 0 && marks <= deaths, "{marks} of {deaths}");
    let stages: usize = reports().iter().map(|report| report.journey.stages.len()).sum();
    assert_eq!(events.iter().filter(|event| event["cat"] == "stage").count(), stages);
}

#[test]
fn every_journey_has_a_packet_with_its_verdict() {
    let bytes = written(Format::Pcapng, &reports());
    let mut reader = PcapNgReader::new(&*bytes).unwrap();
    let mut comments = Vec::new();
    let mut last = std::time::Duration::ZERO;
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap().into_owned() {
            assert!(packet.timestamp >= last, "packets are in the order of their times");
            last = packet.timestamp;
            etherparse::SlicedPacket::from_ip(&packet.data).unwrap();
            let comment = format!("{:?}", packet.options);
            comments.push(comment);
        }
    }
    for report in reports() {
        let journey = &report.journey;
        let said = format!("journey {}, attempt", journey.id);
        let packet = comments.iter().find(|comment| comment.contains(&said)).unwrap();
        assert!(packet.contains(journey.outcome.name()) && packet.contains(report.diagnosis.code.name()), "{packet}");
    }
}

#[test]
fn the_interval_log_holds_every_time() {
    let bytes = written(Format::Hlog, &reports());
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut start = 0.0;
    for entry in IntervalLogIterator::new(&bytes) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        assert!(interval.start_timestamp().as_secs_f64() >= start);
        start = interval.start_timestamp().as_secs_f64();
        let packed = base64(interval.encoded_histogram());
        let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &*packed).unwrap();
        *counts.entry(interval.tag().unwrap().to_string()).or_default() += histogram.len();
    }
    let mut summary = Summary::default();
    for report in reports() {
        summary.add(&report.journey, &report.diagnosis);
    }
    for (stage, spent) in summary.spent() {
        assert_eq!(counts.remove(stage.name()), Some(spent.len()), "{stage}");
    }
    let answered = reports().iter().filter(|report| report.journey.outcome.name() == "answered").count() as u64;
    assert_eq!(counts.remove("answered"), Some(answered));
    assert!(counts.is_empty(), "{counts:?}");
}

/// Decodes standard base64: enough for a test.
fn base64(text: &str) -> Vec<u8> {
    let value =
        |byte: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|one| *one == byte);
    let digits: Vec<usize> = text.bytes().filter_map(value).collect();
    let group = |four: &[usize]| {
        let number = four.iter().fold(0, |number, digit| number << 6 | digit) << (6 * (4 - four.len()));
        number.to_be_bytes()[5..5 + four.len() - 1].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

#[test]
fn targets_are_a_format_and_a_file() {
    let target: Target = "pcapng:/tmp/a:b.pcapng".parse().unwrap();
    assert_eq!((target.format, target.path.to_str()), (Format::Pcapng, Some("/tmp/a:b.pcapng")));
    assert!("pcapng".parse::<Target>().unwrap_err().contains("name a format and a file"));
    assert!("html:".parse::<Target>().unwrap_err().contains("name a format and a file"));
    assert!("svg:x".parse::<Target>().unwrap_err().contains("there is no format `svg`"));
}
