//! The server that belongs to the load: accepts as fast as the kernel queues, answers `/` over connections that are kept, and does
//! nothing else, so that nobody measures an application by mistake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longest request.
const LONGEST: usize = 16 << 10;
/// As long as the kernel allows: it takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = i32::MAX;

/// How long the server waits where files or memory are used up.
const SCARCE: Duration = Duration::from_millis(10);

/// What is answered.
struct Answers {
    keep: Answer,
    close: Answer,
}

/// An answer with its body.
struct Answer {
    bytes: Vec<u8>,
    /// The length of what comes before the body.
    head: usize,
}

impl Answer {
    /// The bytes that answer this request; to HEAD there is no body.
    fn to(&self, request: &Request) -> &[u8] {
        let length = if request.wants_body { self.bytes.len() } else { self.head };
        self.bytes.get(..length).unwrap_or_default()
    }
}

/// A whole request without a body.
struct Request {
    /// Its bytes.
    length: usize,
    /// Its connection is kept.
    keeps: bool,
    /// It is none that asks for the head alone.
    wants_body: bool,
}

/// A server that has its address.
pub struct Server {
    listener: TcpListener,
    answers: Arc<Answers>,
}

impl Server {
    /// Takes an address; every answer has a body of so many bytes.
    pub fn bind(address: SocketAddr, payload: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // One socket for both families, as most servers have.
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let body = "x".repeat(payload);
        let answer = |connection: &str| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {payload}\r\nContent-Type: text/plain\r\n{connection}\r\n");
            Answer { head: head.len(), bytes: (head + &body).into_bytes() }
        };
        Ok(Self {
            listener: TcpListener::from_std(socket.into())?,
            answers: Arc::new(Answers { keep: answer(""), close: answer("Connection: close\r\n") }),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped. Gives an error only when no connection can be accepted any more.
    pub async fn run(self) -> io::Result<()> {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answers = self.answers.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, &answers).await {
                            log::debug!("a connection ended: {error}");
                        }
                    });
                }
                Err(error) => match after(&error) {
                    Some(pause) => {
                        log::debug!("a connection was not accepted: {error}");
                        tokio::time::sleep(pause).await;
                    }
                    None => return Err(error),
                },
            }
        }
    }
}

/// How long to wait after an error of accept(2) before the next; `None` when there will be none.
fn after(error: &io::Error) -> Option<Duration> {
    match Errno::from_raw(error.raw_os_error()?) {
        // Until other connections have ended.
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => Some(SCARCE),
        // The client gave up while it waited, or its connection had an error that accept(2) passes on.
        Errno::ECONNABORTED
        | Errno::EPERM
        | Errno::EPROTO
        | Errno::ENOPROTOOPT
        | Errno::ENETDOWN
        | Errno::ENETUNREACH
        | Errno::EHOSTDOWN
        | Errno::EHOSTUNREACH
        | Errno::ENONET
        | Errno::EOPNOTSUPP => Some(Duration::ZERO),
        _ => None,
    }
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; LONGEST];
    let mut used = 0;
    loop {
        while let Some(request) = head(buffer.get(..used).unwrap_or_default())? {
            let answer = if request.keeps { &answers.keep } else { &answers.close };
            stream.write_all(answer.to(&request)).await?;
            if !request.keeps {
                return stream.shutdown().await;
            }
            buffer.copy_within(request.length..used, 0);
            used -= request.length;
        }
        let room = buffer.get_mut(used..).unwrap_or_default();
        if room.is_empty() {
            return Err(io::Error::other("a request that is too long"));
        }
        match stream.read(room).await? {
            0 => return Ok(()),
            got => used += got,
        }
    }
}

/// The request that these bytes begin with, once it is whole.
fn head(bytes: &[u8]) -> io::Result<Option<Request>> {
    const FIELDS: usize = 64;
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let connection = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("connection"));
    let keeps = super::http::stays(connection.map_or(b"", |field| field.value), request.version == Some(1));
    Ok(Some(Request { length, keeps, wants_body: request.method != Some("HEAD") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_does_not_end_the_server() {
        let of = |number| after(&io::Error::from_raw_os_error(number));
        assert_eq!([libc::EMFILE, libc::ENFILE, libc::ENOMEM].map(of), [Some(SCARCE); 3]);
        assert_eq!([libc::ECONNABORTED, libc::EHOSTUNREACH].map(of), [Some(Duration::ZERO); 2]);
        assert_eq!(of(libc::EBADF), None);
    }
}
