//! The framing: a preamble, then frames of kind, length, checksum and payload. Nothing here knows what a payload means.

use std::io::{self, Read, Write};

use bytes::{Buf, BufMut, BytesMut};

/// The first bytes of a recording. The first is no text, and the line ends show a transfer that changed them.
pub const MAGIC: [u8; 8] = *b"\x93WSLTR\r\n";
/// Magic and version.
pub(super) const PREAMBLE: usize = 10;
/// Kind, length and checksum.
pub(super) const HEAD: usize = 9;
/// No frame is longer: the longest, the header of a machine with thousands of interfaces, stays far below.
pub(super) const LONGEST: usize = 4 << 20;
/// How much of a payload is read at once: an untrusted length never makes a larger buffer than what is really there.
const PIECE: u64 = 64 << 10;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// [`super::Header`], JSON. Always the first.
    Header = 1,
    /// A text that later frames refer to.
    Define = 2,
    /// A journey.
    Journey = 3,
    /// [`super::Missed`], JSON.
    Missed = 4,
    /// Something told to people, UTF-8.
    Talk = 5,
    /// [`super::End`], JSON. Always the last.
    End = 6,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Header, Self::Define, Self::Journey, Self::Missed, Self::Talk, Self::End];

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Why the rest of a recording cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends within a frame, or before its last.
    #[error("cut off at byte {at}")]
    CutOff {
        /// Where the file ends.
        at: u64,
    },
    /// A frame that cannot be right.
    #[error("damaged at byte {at}: {what}")]
    Damaged {
        /// Where the frame begins.
        at: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// Adds a frame to `out`; `payload` writes what is in it.
pub(super) fn put(out: &mut BytesMut, kind: Kind, payload: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_bytes(0, HEAD);
    payload(out);
    let length = out.len() - start - HEAD;
    let sum = checksum(kind as u8, out.get(start + HEAD..).unwrap_or_default());
    let mut head = out.get_mut(start..).unwrap_or_default();
    head.put_u8(kind as u8);
    // Payloads are made here, far below LONGEST; a reader would refuse a longer one.
    head.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    head.put_u32_le(sum);
}

/// Writes the preamble.
pub(super) fn put_preamble(out: &mut impl Write, format: u16) -> io::Result<()> {
    out.write_all(&MAGIC)?;
    out.write_all(&format.to_le_bytes())
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}

/// A kind, which may be unknown, and a payload.
pub(super) type Frame<'a> = (u8, &'a [u8]);

/// Reads frames one after the other.
pub(super) struct Frames<R> {
    from: R,
    at: u64,
    payload: Vec<u8>,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(from: R, at: u64) -> Self {
        Self { from, at, payload: Vec::new() }
    }

    /// Where the next frame begins.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next frame's kind (a number that may be unknown) and payload; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Result<Option<Frame<'_>>, Damage>> {
        let mut head = [0; HEAD];
        let got = read_up_to(&mut self.from, &mut head)?;
        if got == 0 {
            return Ok(Ok(None));
        }
        let at = self.at;
        if got < HEAD {
            return Ok(Err(Damage::CutOff { at: at + got as u64 }));
        }
        let mut fields = &head[..];
        let (kind, length, sum) = (fields.get_u8(), fields.get_u32_le(), fields.get_u32_le());
        if length as usize > LONGEST {
            return Ok(Err(Damage::Damaged { at, what: format!("a frame of {length} bytes") }));
        }
        self.payload.clear();
        let mut left = u64::from(length);
        while left > 0 {
            let got = (&mut self.from).take(left.min(PIECE)).read_to_end(&mut self.payload)? as u64;
            if got == 0 {
                return Ok(Err(Damage::CutOff { at: at + HEAD as u64 + self.payload.len() as u64 }));
            }
            left -= got;
        }
        // A fuzzer does not guess checksums; what it finds behind them is what a malicious file can hold.
        if checksum(kind, &self.payload) != sum && !cfg!(fuzzing) {
            return Ok(Err(Damage::Damaged { at, what: "its checksum is wrong".to_owned() }));
        }
        self.at += HEAD as u64 + u64::from(length);
        Ok(Ok(Some((kind, &self.payload))))
    }
}

/// Fills `buffer` as far as there are bytes.
pub(super) fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
