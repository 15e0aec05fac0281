//! What the fuzzer tries for long, tried for a moment by every run of the tests: recordings whose frames were changed and given the
//! right checksum again, as a malicious file's would have, opened and told by every output and every export.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use bytes::{BufMut as _, BytesMut};

use super::frame::{self, Frames, Kind, PREAMBLE};

#[path = "../../../fuzz/fuzz_targets/tell.rs"]
mod tell;

const SAMPLE: &[u8] = include_bytes!("../../../docs/samples/lo.wsltrace");
const ROUNDS: u32 = 300;

#[test]
fn changed_recordings_are_told_without_harm() {
    let frames = frames(SAMPLE);
    let whole = tell::everything(SAMPLE);
    assert!(whole > 10, "{whole}");
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let told: usize = (0..ROUNDS).map(|_| tell::everything(&changed(&frames, &mut random))).sum();
    // A change that is only ever taken for damage would try nothing.
    assert!(told > whole * ROUNDS as usize / 8, "{told} of {whole} times {ROUNDS}");
}

fn frames(recording: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut frames = Frames::new(&recording[PREAMBLE..], PREAMBLE as u64);
    let mut all = Vec::new();
    while let Some((kind, payload)) = frames.next().unwrap().unwrap() {
        all.push((Kind::from_number(kind).unwrap(), payload.to_vec()));
    }
    all
}

/// The recording with one to three of its frames changed, left out, or told twice.
fn changed(frames: &[(Kind, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut frames = frames.to_vec();
    for _ in 0..random.u8(1..=3) {
        let at = random.usize(..frames.len());
        match random.u8(..10) {
            0 => drop(frames.remove(at)),
            1 => {
                let twice = frames[random.usize(..frames.len())].clone();
                frames.insert(at, twice);
            }
            _ => (0..random.u8(1..=4)).for_each(|_| change(&mut frames[at].1, random)),
        }
    }
    let mut bytes = Vec::new();
    frame::put_preamble(&mut bytes, super::FORMAT).unwrap();
    let mut out = BytesMut::new();
    for (kind, payload) in frames {
        frame::put(&mut out, kind, |out| out.put_slice(&payload));
    }
    bytes.extend_from_slice(&out);
    bytes
}

fn change(payload: &mut Vec<u8>, random: &mut fastrand::Rng) {
    const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'-', b'9', b'e', 0x1b, b'\n'];
    if payload.is_empty() {
        return;
    }
    let at = random.usize(..payload.len());
    let until = (at + random.usize(1..=16)).min(payload.len());
    match random.u8(..5) {
        0 => payload[at] ^= 1 << random.u8(..8),
        1 => payload[at] = TELLING[random.usize(..TELLING.len())],
        2 => drop(payload.drain(at..until)),
        3 => {
            let piece = payload[at..until].to_vec();
            let to = random.usize(..payload.len());
            payload.splice(to..to, piece);
        }
        _ => payload.insert(at, TELLING[random.usize(..TELLING.len())]),
    }
}
