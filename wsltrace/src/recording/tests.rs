//! What is written comes back; what was cut off, changed or made up is noticed, and nothing of it is taken for true.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use jiff::{SignedDuration, Timestamp};
use wsltrace_common::{Death, Flow, Key, MAX_STAGES, Record, StageEntry};

use super::frame::{self, HEAD, Kind, PREAMBLE};
use super::packed;
use super::*;
use crate::evidence::Evidence;
use crate::journey::{InterfaceName, Names, assemble};
use crate::output::{Report, samples};

const WALL: &str = "2026-11-22T21:14:03.123456789Z";
const BASE_NS: u64 = 5_000_000_000;

/// Names that depend on nothing but the number.
struct Numbered;

impl Names for Numbered {
    fn interface(&self, netns: u32, ifindex: u32) -> Option<InterfaceName> {
        Some(format!("if{ifindex}-{}", netns % 1000).as_str().into())
    }

    fn reason(&self, number: u32) -> Option<String> {
        (!number.is_multiple_of(7)).then(|| format!("REASON_{number}"))
    }

    fn location(&self, address: u64) -> Option<String> {
        (!address.is_multiple_of(5)).then(|| format!("function_{}+0x1", address % 97))
    }

    fn is_relay(&self, tgid: u32, _comm: &[u8; 16]) -> bool {
        tgid % 3 == 1
    }

    fn time(&self, monotonic_ns: u64) -> Timestamp {
        let wall: Timestamp = WALL.parse().unwrap();
        wall + SignedDuration::from_nanos(monotonic_ns.wrapping_sub(BASE_NS).cast_signed())
    }
}

fn header() -> Header {
    Header {
        wsltrace: "0.1.0".to_owned(),
        machine: Machine {
            kernel: "6.6.87.2-microsoft-standard-WSL2".to_owned(),
            architecture: "x86_64".to_owned(),
            wsl: Some("2.6.1".to_owned()),
            mode: Some("nat".to_owned()),
        },
        clock: Clock { wall: WALL.parse().unwrap(), monotonic_ns: BASE_NS },
        part: 1,
        armed: samples::armed(),
        start: samples::start(),
    }
}

fn end(journeys: u64) -> End {
    End {
        time: WALL.parse().unwrap(),
        journeys,
        duration_ns: 7,
        lost: Lost { table_full: 3, ..Lost::default() },
        continued: None,
    }
}

fn record(random: &mut fastrand::Rng) -> Record {
    let v6 = random.bool();
    let address = |random: &mut fastrand::Rng| {
        if v6 { [random.u32(..), random.u32(..), 0, random.u32(..)] } else { [0, 0, 0xffff_u32.to_be(), random.u32(..)] }
    };
    let flow = |random: &mut fastrand::Rng| Flow {
        source: address(random),
        destination: address(random),
        source_port: random.u16(..),
        destination_port: random.u16(..),
        family: if v6 { 6 } else { 4 },
    };
    let first_ns = BASE_NS + random.u64(..1 << 40);
    let count = random.usize(1..=30);
    let death = |random: &mut fastrand::Rng| Death {
        time_ns: if random.bool() { first_ns + random.u64(..1 << 30) } else { 0 },
        location: random.u64(..),
        reason: random.u32(..200),
        netns: random.u32(..4),
        ifindex: random.u32(..4),
        stage_count: random.u32(..30),
    };
    let original = flow(random);
    let mut stages = [StageEntry { time_and_code: 0, netns: 0, ifindex: 0 }; MAX_STAGES];
    let mut ns = 0;
    for entry in stages.iter_mut().take(count) {
        let answer = if random.u8(..4) == 0 { StageEntry::ANSWER } else { 0 };
        *entry = StageEntry {
            time_and_code: ns << StageEntry::TIME_SHIFT | answer | u64::from(random.u8(..45)),
            netns: random.u32(..4),
            ifindex: random.u32(..4),
        };
        ns += random.u64(..1 << 20);
    }
    Record {
        key: Key { address: original.source, sequence: random.u32(..), port: original.source_port, slot: random.u16(..) },
        flow: original,
        now: if random.bool() { original } else { flow(random) },
        first_ns,
        last_ns: first_ns + random.u64(..1 << 32),
        skb: random.u64(..),
        answer_skb: random.u64(..),
        death: death(random),
        consumed: death(random),
        answer_death: death(random),
        stray: death(random),
        confirmation_death: death(random),
        counted: 0,
        flags: random.u32(..1 << 28),
        attempt: random.u32(..9),
        netns: random.u32(..4),
        ifindex: random.u32(..4),
        syn_netns: random.u32(..4),
        syn_ifindex: random.u32(..4),
        answer_netns: 0,
        answer_ifindex: 0,
        tgid: random.u32(..100),
        conntrack: random.u32(..8),
        payload_len: random.u32(..1500),
        stage_count: u32::try_from(count).unwrap(),
        comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
        stages,
    }
}

/// So many journeys, and a recording of them.
fn recorded(seed: u64, count: u64) -> (Vec<Report>, Vec<u8>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let told = samples::reports();
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes, &header()).unwrap();
    let mut reports = Vec::new();
    for id in 1..=count {
        // As after news of interfaces: numbers are given out again, in another order.
        if id.is_multiple_of(20) {
            recorder.forget_places();
        }
        let record = record(&mut random);
        let (evidence, diagnosis) = (random.choice(&told).unwrap(), random.choice(&told).unwrap());
        let (evidence, diagnosis) = (evidence.evidence.clone(), diagnosis.diagnosis.clone());
        let report = Report::told(assemble(&record, id, &Numbered), evidence, diagnosis);
        let moment = Moment { time: report.journey.time, told_ns: record.last_ns };
        recorder.journey(&record, &report, moment, &Numbered).unwrap();
        reports.push(report);
    }
    recorder.talk("a warning").unwrap();
    recorder.missed(&Missed { absence: samples::absence(), waited: samples::waited() }).unwrap();
    recorder.end(&end(count)).unwrap();
    (reports, bytes)
}

/// Reads to the end: the journeys, and how it ended.
fn read(bytes: &[u8]) -> Result<(Vec<Report>, Ending), ReadError> {
    let mut reader = Reader::new(bytes)?;
    let mut reports = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        if let Entry::Journey { report, .. } = entry {
            reports.push(report);
        }
    }
    Ok((reports, reader.ending().unwrap().clone()))
}

#[test]
fn journeys_come_back_as_they_were_told() {
    let (reports, bytes) = recorded(1, 400);
    let (back, ending) = read(&bytes).unwrap();
    assert_eq!(back.len(), reports.len());
    for (back, report) in back.iter().zip(&reports) {
        assert_eq!(back, report);
    }
    assert_eq!(ending, Ending::Whole(end(400)));
}

#[test]
fn the_other_entries_come_back_in_order() {
    let (_, bytes) = recorded(2, 1);
    let mut reader = Reader::new(&*bytes).unwrap();
    assert_eq!((reader.header().part, reader.header().machine.clone()), (1, header().machine));
    assert!(matches!(reader.next_entry().unwrap(), Some(Entry::Journey { .. })));
    assert!(matches!(reader.next_entry().unwrap(), Some(Entry::Talk(said)) if said == "a warning"));
    let Some(Entry::Missed(missed)) = reader.next_entry().unwrap() else { panic!("no absence") };
    assert_eq!((missed.absence, missed.waited.why), (samples::absence(), samples::waited().why));
    assert!(reader.next_entry().unwrap().is_none());
    assert_eq!(reader.at(), bytes.len() as u64);
}

#[test]
fn a_recording_cut_off_anywhere_opens_up_to_its_last_whole_frame() {
    let (reports, bytes) = recorded(3, 5);
    let mut most = 0;
    for length in 0..bytes.len() {
        match read(&bytes[..length]) {
            Ok((back, ending)) => {
                assert_eq!(back, reports[..back.len()]);
                assert!(back.len() >= most, "{length}");
                most = back.len();
                assert_eq!(ending, Ending::Short(Damage::CutOff { at: length as u64 }));
            }
            Err(ReadError::Foreign) => assert!(length < PREAMBLE),
            Err(ReadError::NoHeader(Damage::CutOff { at })) => assert_eq!(at, length as u64),
            Err(other) => panic!("{length}: {other}"),
        }
    }
    assert_eq!(most, 5);
}

#[test]
fn a_changed_byte_is_noticed_and_nothing_behind_it_is_told() {
    let (reports, bytes) = recorded(4, 3);
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            if let Ok((back, ending)) = read(&changed) {
                assert_eq!(back, reports[..back.len()], "{at}");
                assert!(matches!(ending, Ending::Short(_)), "{at} {ending:?}");
            }
        }
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (_, mut bytes) = recorded(5, 1);
    bytes[8..10].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let error = read(&bytes).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "it has format {}, made by wsltrace 0.1.0; this is wsltrace {} and reads formats up to {FORMAT}",
            FORMAT + 1,
            env!("CARGO_PKG_VERSION")
        )
    );
}

/// A recording whose last frame has this kind and payload.
fn with_frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Recorder::new(&mut bytes, &header()).unwrap();
    let mut frames = BytesMut::new();
    frame::put(&mut frames, kind, |out| out.put_slice(payload));
    bytes.extend_from_slice(&frames);
    bytes
}

#[test]
fn lengths_are_not_believed() {
    let whole = with_frame(Kind::Talk, b"x");
    let at = whole.len() - HEAD - 1;
    let claim = |length: u32| {
        let mut bytes = whole.clone();
        bytes[at + 1..at + 5].copy_from_slice(&length.to_le_bytes());
        read(&bytes).unwrap().1
    };
    assert!(matches!(claim(u32::MAX), Ending::Short(Damage::Damaged { .. })));
    assert_eq!(claim(1 << 20), Ending::Short(Damage::CutOff { at: whole.len() as u64 }));
}

#[test]
fn what_refers_to_nothing_is_damage() {
    for payload in [&b""[..], &[0; 400], &[1; 400], &[0xff; 400]] {
        let (back, ending) = read(&with_frame(Kind::Journey, payload)).unwrap();
        assert!(back.is_empty() && matches!(ending, Ending::Short(Damage::Damaged { .. })), "{ending:?}");
    }
    for payload in [&b""[..], b"\x01", b"\x01\x00\x00", b"\x01\xff\xff{}", b"\x04\x00\x00{\"rule\":3}", b"\x05\x00\x04{}"] {
        assert!(matches!(read(&with_frame(Kind::Define, payload)).unwrap().1, Ending::Short(Damage::Damaged { .. })));
    }
}

/// Payloads that went through the checksum, as a malicious file's would.
#[test]
fn made_up_payloads_do_no_harm() {
    let mut random = fastrand::Rng::with_seed(6);
    let (_, bytes) = recorded(7, 2);
    for _ in 0..20_000 {
        let kind = Kind::from_number(random.u8(2..=6)).unwrap();
        let payload: Vec<u8> = if random.bool() {
            let length = random.usize(..300);
            std::iter::repeat_with(|| random.u8(..)).take(length).collect()
        } else {
            let start = random.usize(..bytes.len());
            let mut some = bytes[start..(start + random.usize(..400)).min(bytes.len())].to_vec();
            if let Some(byte) = random.choice(some.iter_mut()) {
                *byte = 0xff;
            }
            some
        };
        drop(read(&with_frame(kind, &payload)).unwrap());
    }
}

#[test]
fn more_texts_than_places_are_still_told_right() {
    let mut random = fastrand::Rng::with_seed(8);
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes, &header()).unwrap();
    let mut summaries = Vec::new();
    for id in 1..=5_000 {
        let record = record(&mut random);
        let mut report = Report::new(assemble(&record, id, &Numbered), Evidence::default());
        // Some come again after others have taken their place.
        Arc::make_mut(&mut report.diagnosis).summary = format!("finding {}", id % 3_000);
        summaries.push(report.diagnosis.summary.clone());
        recorder.journey(&record, &report, Moment { time: report.journey.time, told_ns: 0 }, &Numbered).unwrap();
    }
    let (back, _) = read(&bytes).unwrap();
    let told: Vec<_> = back.into_iter().map(|report| report.diagnosis.summary.clone()).collect();
    assert_eq!(told, summaries);
}

#[test]
fn no_address_of_the_kernel_is_in_a_recording() {
    let mut random = fastrand::Rng::with_seed(9);
    let record = record(&mut random);
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes, &header()).unwrap();
    let report = Report::new(assemble(&record, 1, &Numbered), Evidence::default());
    recorder.journey(&record, &report, Moment { time: report.journey.time, told_ns: 0 }, &Numbered).unwrap();
    for address in [record.skb, record.answer_skb, record.death.location, record.consumed.location] {
        let mut varint = BytesMut::new();
        packed::put(&mut varint, address);
        let is_in = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!is_in(&address.to_le_bytes()) && !is_in(&address.to_be_bytes()) && !is_in(&varint));
    }
}

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/recording-1.json");
/// Made when format 1 was new; later readers must open it as well.
const SAMPLE: &[u8] = include_bytes!("../../../docs/samples/lo.wsltrace");

#[test]
fn the_schema_of_recordings_in_docs_is_the_one_of_the_types() {
    let now = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(SCHEMA, &now).unwrap();
    }
    let kept = std::fs::read_to_string(SCHEMA).unwrap_or_default();
    assert!(kept == now, "docs/schema/recording-1.json is out of date: UPDATE=1 cargo test -p wsltrace the_schema_of_recordings");
}

#[test]
fn the_sample_of_the_first_format_opens() {
    let (reports, ending) = read(SAMPLE).unwrap();
    let Ending::Whole(end) = ending else { panic!("{ending:?}") };
    assert_eq!((reports.len(), end.journeys), (17, 17));
    let count = |name| reports.iter().filter(|report| report.diagnosis.code.name() == name).count();
    assert_eq!((count("healthy"), count("no_listener"), count("firewall_drop")), (12, 3, 2));
    let dropped = reports.iter().find(|report| report.diagnosis.code.name() == "firewall_drop").unwrap();
    assert_eq!(dropped.evidence.rule.as_ref().unwrap().comment.as_deref(), Some("block web"));
    assert_eq!(dropped.journey.died_at.map(crate::journey::Stage::name), Some("input_filter"));
}
