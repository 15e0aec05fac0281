//! One attempt: a connection, or a request over one, and what came of it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, ready};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

/// How an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The connection was refused.
    Refused,
    /// It took longer than the time limit.
    TimedOut,
    /// The connection was reset.
    Reset,
    /// It was accepted, and closed before a byte came: so does WSL's relay when nobody listens behind it.
    Closed,
    /// The answer ended too early, or was no answer.
    Short,
    /// No way leads there: no route, or nobody answers for the address.
    Unreachable,
    /// This machine has no free port for the client's side.
    NoPort,
    /// Something else.
    Other,
}

impl Failure {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 8] =
        [Self::Refused, Self::TimedOut, Self::Reset, Self::Closed, Self::Short, Self::Unreachable, Self::NoPort, Self::Other];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::Reset => "reset",
            Self::Closed => "accepted, then closed",
            Self::Short => "answer cut short",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no free port",
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => Self::Reset,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::AddrNotAvailable => Self::NoPort,
            _ => Self::Other,
        }
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Connects, and closes at once.
    Connect,
    /// Requests `/` over a connection of its own each time.
    Http,
    /// Requests `/` over connections that are kept; the time to make one is not the request's.
    HttpKeepAlive,
}

/// TCP segments of a connection of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// Sent again.
    pub again: u64,
    /// Sent in all.
    pub sent: u64,
}

/// A client's connection.
pub struct Connection {
    stream: TcpStream,
}

/// Longest head of an answer.
const LONGEST_HEAD: usize = 16 << 10;
/// Bytes to read at once.
pub const BUFFER: usize = 16 << 10;

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::of(&error);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        // What is written is a whole request each time.
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self { stream })
    }

    /// Sends a request and reads the whole answer; says whether the connection may be used again. `buffer` is read into, and holds
    /// nothing from one reading to the next: all clients of a thread can share one, which stays in the processor's cache.
    pub async fn request(&mut self, request: &[u8], buffer: &Mutex<Vec<u8>>) -> Result<bool, Failure> {
        let failed = |error: io::Error| Failure::of(&error);
        self.stream.write_all(request).await.map_err(failed)?;
        let mut answer = Answer::default();
        loop {
            let read = poll_fn(|context| {
                let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                let mut room = ReadBuf::new(&mut buffer);
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut room)).map_err(failed)?;
                Poll::Ready(answer.goes_on(room.filled()))
            });
            if let Some(keeps) = read.await? {
                return Ok(keeps);
            }
        }
    }

    /// Ends the connection at once, by a reset: the client's port is free again, and its next connection finds one.
    pub fn abort(self) -> Segments {
        let segments = self.segments();
        // Without it the port is only taken for longer.
        drop(self.stream.set_zero_linger());
        segments
    }

    /// The segments of this side so far; none where the kernel does not tell.
    pub fn segments(&self) -> Segments {
        tcp_info(&self.stream).unwrap_or_default()
    }
}

/// What has come of an answer so far.
#[derive(Default)]
struct Answer {
    /// The beginning of a head that is not whole.
    begun: Vec<u8>,
    /// What is known once the head is there.
    rest: Option<Rest>,
}

/// The body of an answer.
struct Rest {
    left: Left,
    keeps: bool,
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
    /// Takes what came next, nothing where the other side has ended; once the answer is whole it says whether the connection may be
    /// used again.
    fn goes_on(&mut self, bytes: &[u8]) -> Result<Option<bool>, Failure> {
        match (&mut self.rest, bytes.is_empty()) {
            (Some(Rest { left: Left::ToTheEnd, .. }), true) => Ok(Some(false)),
            (Some(_), true) => Err(Failure::Short),
            (None, true) => Err(if self.begun.is_empty() { Failure::Closed } else { Failure::Short }),
            (Some(rest), false) => {
                let whole = match &mut rest.left {
                    Left::Bytes(left) => {
                        *left = left.saturating_sub(bytes.len());
                        *left == 0
                    }
                    Left::Chunks(chunks) => chunks.take(bytes)?,
                    Left::ToTheEnd => false,
                };
                Ok(whole.then_some(rest.keeps))
            }
            (None, false) => self.begins(bytes),
        }
    }

    fn begins(&mut self, bytes: &[u8]) -> Result<Option<bool>, Failure> {
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
        let body = so_far.get(head.length..).unwrap_or_default().to_vec();
        match head.body {
            // Behind it comes the answer itself.
            Body::Interim => {
                self.begun.clear();
                if body.is_empty() { Ok(None) } else { self.begins(&body) }
            }
            Body::Chunks => {
                let mut chunks = Chunks::default();
                if chunks.take(&body)? {
                    return Ok(Some(head.keeps));
                }
                self.rest = Some(Rest { left: Left::Chunks(chunks), keeps: head.keeps });
                Ok(None)
            }
            Body::Bytes(length) if body.len() >= length => Ok(Some(head.keeps)),
            Body::Bytes(length) => {
                self.rest = Some(Rest { left: Left::Bytes(length.saturating_sub(body.len())), keeps: head.keeps });
                Ok(None)
            }
            Body::ToTheEnd => {
                self.rest = Some(Rest { left: Left::ToTheEnd, keeps: false });
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
    /// The connection may be used again.
    keeps: bool,
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
                keeps = !field.value.eq_ignore_ascii_case(b"close");
            }
        }
        match answer.code {
            Some(100..=199) => body = Body::Interim,
            Some(204 | 304) => body = Body::Bytes(0),
            _ => {}
        }
        Ok(Some(Self { length, body, keeps }))
    }
}

/// What `TCP_INFO` says of this side's segments.
fn tcp_info(stream: &TcpStream) -> Option<Segments> {
    // Places in `struct tcp_info`, which only ever grows at its end (linux/tcp.h).
    const TOTAL_RETRANS: usize = 100;
    const SEGS_OUT: usize = 136;
    let mut bytes = [0_u8; 256];
    let mut length = libc::socklen_t::try_from(bytes.len()).ok()?;
    // SAFETY: both pointers are to our own values, of which the kernel writes as many bytes as `length` says.
    let result = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, bytes.as_mut_ptr().cast(), &raw mut length)
    };
    let known = bytes.get(..usize::try_from(length).ok()?)?;
    let number = |at: usize| Some(u64::from(u32::from_ne_bytes(*known.get(at..)?.first_chunk()?)));
    if result < 0 { None } else { Some(Segments { again: number(TOTAL_RETRANS)?, sent: number(SEGS_OUT)? }) }
}

/// A request of HTTP/1.1.
pub fn request(host: &str, keep_alive: bool) -> Vec<u8> {
    let close = if keep_alive { "" } else { "Connection: close\r\n" };
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wsltrace\r\nAccept: */*\r\n{close}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of an answer that comes in pieces of so many bytes, and then no more.
    fn read(answer: &str, piece: usize) -> Result<Option<bool>, Failure> {
        let mut reading = Answer::default();
        for bytes in answer.as_bytes().chunks(piece) {
            if let Some(keeps) = reading.goes_on(bytes)? {
                return Ok(Some(keeps));
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
                assert!(matches!(read(whole, piece), Ok(Some(true))), "{whole} by {piece}");
            }
            assert!(matches!(read(&chunks[..chunks.len() - 1], piece), Ok(None)));
            assert!(matches!(read("HTTP/1.1 200 OK\r\n\r\nto the end", piece), Ok(None)));
        }
        assert!(read(&chunks.replace("A;x=y", "what"), 1000).is_err());
    }
}
