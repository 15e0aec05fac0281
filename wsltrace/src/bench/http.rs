//! HTTP/1.1 as far as a load needs it: the request, and where its answer ends.

use std::mem::MaybeUninit;

use super::attempt::Failure;

/// Longest head of an answer, and longest line in a body of chunks, bytes.
const LONGEST_HEAD: usize = 16 << 10;

/// A request of HTTP/1.1.
pub(super) fn request(host: &str, keep_alive: bool) -> Vec<u8> {
    let close = if keep_alive { "" } else { "Connection: close\r\n" };
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wsltrace\r\nAccept: */*\r\n{close}\r\n").into_bytes()
}

/// Whether a connection stays for another request, by the field `Connection`; by the version where that says nothing (RFC 9112, 9.3).
pub(super) fn stays(connection: &[u8], by_version: bool) -> bool {
    let says = |option: &[u8]| connection.split(|byte| *byte == b',').any(|said| said.trim_ascii().eq_ignore_ascii_case(option));
    !says(b"close") && (by_version || says(b"keep-alive"))
}

/// An answer that is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// The connection may be used again.
    pub keeps: bool,
    /// Its status tells of an error, the client's or the server's (RFC 9110, 15.5 and 15.6).
    pub is_error: bool,
}

/// What has come of an answer so far.
#[derive(Default)]
pub(super) struct Answer {
    /// The beginning of a head that is not whole.
    begun: Vec<u8>,
    /// What is known once the head is there.
    rest: Option<Rest>,
}

/// The body of an answer.
struct Rest {
    left: Left,
    /// What it is once nothing is left.
    whole: Answered,
}

/// What is still to come of a body.
enum Left {
    /// So many bytes.
    Bytes(usize),
    /// Chunks.
    Chunks(Chunks),
    /// All up to the end of the connection.
    ToTheEnd,
}

/// How far the chunks of a body (RFC 9112, 7.1) were read.
#[derive(Default)]
struct Chunks {
    /// Bytes of a chunk with its line end that are still to come.
    data: usize,
    /// The line that tells the next chunk's size, or a field behind the last chunk, as far as it is there.
    line: Vec<u8>,
    /// The last chunk was read.
    last: bool,
}

impl Chunks {
    /// Takes what came next; says whether the body is whole.
    fn take(&mut self, mut bytes: &[u8]) -> Result<bool, Failure> {
        const LINE_END: usize = 2;
        loop {
            let skipped = self.data.min(bytes.len());
            self.data -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, behind)) = bytes.split_first() else { return Ok(false) };
            bytes = behind;
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > LONGEST_HEAD {
                    return Err(Failure::Short);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if self.last {
                if line.is_empty() {
                    return Ok(true);
                }
                continue;
            }
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(size).map_err(|_| Failure::Short)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| Failure::Short)?;
            if size == 0 {
                self.last = true;
            } else {
                self.data = size.saturating_add(LINE_END);
            }
        }
    }
}

impl Answer {
    /// Takes what came next, nothing where the other side has ended; says what the answer is once it is whole.
    pub(super) fn goes_on(&mut self, bytes: &[u8]) -> Result<Option<Answered>, Failure> {
        match (&mut self.rest, bytes.is_empty()) {
            (Some(Rest { left: Left::ToTheEnd, whole }), true) => Ok(Some(*whole)),
            (Some(_), true) => Err(Failure::Short),
            (None, true) => Err(if self.begun.is_empty() { Failure::Closed } else { Failure::Short }),
            (Some(rest), false) => {
                let is_whole = match &mut rest.left {
                    Left::Bytes(left) => {
                        *left = left.saturating_sub(bytes.len());
                        *left == 0
                    }
                    Left::Chunks(chunks) => chunks.take(bytes)?,
                    Left::ToTheEnd => false,
                };
                Ok(is_whole.then_some(rest.whole))
            }
            (None, false) => self.begins(bytes),
        }
    }

    fn begins(&mut self, bytes: &[u8]) -> Result<Option<Answered>, Failure> {
        let is_first = self.begun.is_empty();
        if !is_first {
            self.begun.extend(bytes);
        }
        let so_far = if is_first { bytes } else { &self.begun };
        let Some(head) = Head::parse(so_far).map_err(|Malformed| Failure::Short)? else {
            if is_first {
                self.begun.extend(bytes);
            }
            return if self.begun.len() < LONGEST_HEAD { Ok(None) } else { Err(Failure::Short) };
        };
        let body = so_far.get(head.length..).unwrap_or_default();
        match head.body {
            // Behind it comes the answer itself.
            Body::Interim => {
                let behind = body.to_vec();
                self.begun.clear();
                if behind.is_empty() { Ok(None) } else { self.begins(&behind) }
            }
            Body::Chunks => {
                let mut chunks = Chunks::default();
                if chunks.take(body)? {
                    return Ok(Some(head.whole));
                }
                self.rest = Some(Rest { left: Left::Chunks(chunks), whole: head.whole });
                Ok(None)
            }
            Body::Bytes(length) if body.len() >= length => Ok(Some(head.whole)),
            Body::Bytes(length) => {
                self.rest = Some(Rest { left: Left::Bytes(length.saturating_sub(body.len())), whole: head.whole });
                Ok(None)
            }
            Body::ToTheEnd => {
                self.rest = Some(Rest { left: Left::ToTheEnd, whole: Answered { keeps: false, ..head.whole } });
                Ok(None)
            }
        }
    }
}

/// The beginning of an answer.
struct Head {
    /// Its bytes.
    length: usize,
    body: Body,
    /// What the answer is once its body is there.
    whole: Answered,
}

/// How the end of a body is known.
enum Body {
    /// It has so many bytes.
    Bytes(usize),
    /// It comes in chunks, the last of which is empty.
    Chunks,
    /// By the end of the connection.
    ToTheEnd,
    /// There is none, and this is not yet the answer (1xx).
    Interim,
}

/// No answer of HTTP/1.
struct Malformed;

impl Head {
    /// Reads a head that is whole; `None` when it is not.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        const FIELDS: usize = 64;
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        let mut answer = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, bytes, &mut fields);
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed),
        };
        let mut keeps = answer.version == Some(1);
        let mut body = Body::ToTheEnd;
        for field in answer.headers.iter() {
            if field.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(field.value).map_err(|_| Malformed)?;
                let length = text.trim().parse().map_err(|_| Malformed)?;
                // Chunks come before a length.
                if !matches!(body, Body::Chunks) {
                    body = Body::Bytes(length);
                }
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                let last = field.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
                if last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    body = Body::Chunks;
                }
            } else if field.name.eq_ignore_ascii_case("connection") {
                keeps = stays(field.value, keeps);
            }
        }
        match answer.code {
            // Another protocol begins behind it.
            Some(101) => (body, keeps) = (Body::Bytes(0), false),
            Some(100..=199) => body = Body::Interim,
            Some(204 | 304) => body = Body::Bytes(0),
            _ => {}
        }
        let is_error = answer.code.is_some_and(|code| code >= 400);
        Ok(Some(Self { length, body, whole: Answered { keeps, is_error } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of an answer that comes in pieces of so many bytes, and then no more.
    fn read(answer: &str, piece: usize) -> Result<Option<Answered>, Failure> {
        let mut reading = Answer::default();
        for bytes in answer.as_bytes().chunks(piece) {
            if let Some(whole) = reading.goes_on(bytes)? {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }

    #[test]
    fn the_end_of_every_kind_of_answer_is_known() {
        let chunks =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nMore: 1\r\n\r\n";
        let continued = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let none = "HTTP/1.1 204 No Content\r\n\r\n";
        for piece in [1, 2, 7, 1000] {
            for whole in [chunks, continued, none] {
                assert_eq!(read(whole, piece), Ok(Some(Answered { keeps: true, is_error: false })), "{whole} by {piece}");
            }
            assert!(matches!(read(&chunks[..chunks.len() - 1], piece), Ok(None)));
            assert!(matches!(read("HTTP/1.1 200 OK\r\n\r\nto the end", piece), Ok(None)));
        }
        assert!(read(&chunks.replace("A;x=y", "what"), 1000).is_err());
        let stays = |head: &str| {
            let answered = read(&format!("{head}\r\nContent-Length: 0\r\n\r\n"), 1000);
            answered.is_ok_and(|answered| answered.is_some_and(|answered| answered.keeps))
        };
        assert!(stays("HTTP/1.1 200 OK\r\nConnection: Keep-Alive") && stays("HTTP/1.0 200 OK\r\nConnection: keep-alive"));
        assert!(!stays("HTTP/1.1 200 OK\r\nConnection: x, Close") && !stays("HTTP/1.0 200 OK\r\nConnection: x"));
        let error = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(read(error, 1000), Ok(Some(Answered { keeps: false, is_error: true })));
    }
}
