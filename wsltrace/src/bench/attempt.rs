//! One attempt: a connection, or a request over one, and what came of it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, ready};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::http::{Answer, Answered};

/// How an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The connection was refused.
    Refused,
    /// It took longer than the time limit.
    TimedOut,
    /// The connection was reset. A server or a relay that closes with the request unread does so, too.
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

    /// Whether it comes from this machine, without a packet that was waited for.
    pub fn is_at_once(self) -> bool {
        matches!(self, Self::Unreachable | Self::NoPort | Self::Other)
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Self::Reset,
            // The other side had closed before it answered what then came with a reset.
            io::ErrorKind::BrokenPipe => Self::Closed,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::AddrNotAvailable => Self::NoPort,
            _ => {
                log::debug!("an attempt failed: {error}");
                Self::Other
            }
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

/// A client's connection, or its attempt at one.
pub struct Connection {
    stream: TcpStream,
}

/// Bytes to read at once.
pub const BUFFER: usize = 16 << 10;

impl Connection {
    /// Sends the SYN. The socket is there from then on, so that it can be asked for its segments also where nothing comes of it.
    pub fn begin(address: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::of(&error);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(failed(error)),
            _ => {}
        }
        Ok(Self { stream: TcpStream::from_std(socket.into()).map_err(failed)? })
    }

    /// Waits for the answer to the SYN.
    pub async fn made(&self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::of(&error);
        self.stream.writable().await.map_err(failed)?;
        match self.stream.take_error().map_err(failed)? {
            Some(error) => Err(failed(error)),
            // What is written is a whole request each time.
            None => self.stream.set_nodelay(true).map_err(failed),
        }
    }

    /// Whether a connection that is kept is of no use for a request any more: the server has ended it since, or sent what nobody asked for.
    /// Asks the kernel only where there was news of the socket.
    pub fn is_spent(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the whole answer; says what it was. `buffer` is read into, and holds
    /// nothing from one reading to the next: all clients of a thread can share one, which stays in the processor's cache.
    pub async fn request(&mut self, request: &[u8], buffer: &Mutex<Vec<u8>>) -> Result<Answered, Failure> {
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
            if let Some(answered) = read.await? {
                return Ok(answered);
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
