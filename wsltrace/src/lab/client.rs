//! A client that connects once, and says what it saw with its own eyes: its errno.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockFilter, Socket, Type};

use super::raw::connect_by_hand;
use super::{LabError, Namespace};

/// How long a client waits for an answer that must come.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How long a client waits for an answer that must not come: less than the second after which a SYN is sent again.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

/// The size of a page that fits into no packet, bytes.
pub(super) const PAGE: usize = 8192;

/// What a client sends that uploads: more than rules with a quota let through, and than buffers hold; bytes.
pub(super) const UPLOAD: usize = 16 << 20;

/// What the client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The connection was made and the server greeted, unless the client does not wait for that.
    Connected,
    /// The connection was made, but nobody greeted in time.
    Unserved,
    /// The connection was made, and reset before a byte came.
    Reset,
    /// No answer in time.
    NoAnswer,
    /// `connect` failed with this error.
    Failed(Errno),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Unserved => f.write_str("connected, and not served"),
            Self::Reset => f.write_str("connected, then reset"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::Failed(errno) => write!(f, "{} ({errno:?})", errno.desc()),
        }
    }
}

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Connects and waits for the server's greeting.
    Listens,
    /// Connects, and waits for the greeting and a page of [`PAGE`] bytes behind it.
    Reads,
    /// Connects, sends a byte, and waits for the greeting.
    Speaks,
    /// Connects, sends [`UPLOAD`] bytes, and waits for the greeting.
    Uploads,
    /// Connects, and neither sends nor waits for anything.
    Silent,
    /// Connects, and waits for the server to close.
    Hears,
    /// Connects, and closes at once.
    Leaves,
    /// Sends a byte in its SYN (TCP Fast Open), and waits for the greeting.
    FastOpen,
    /// Connects by a socket whose own filter lets nothing in.
    Deaf,
    /// Sends one SYN by hand, with a wrong checksum.
    WrongChecksum,
    /// Sends one SYN by hand, and confirms no answer, until the answer was sent again.
    NeverConfirms,
}

/// One connection attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Where to.
    pub target: SocketAddr,
    /// The port that it connects from; 0: any.
    pub from_port: u16,
    /// How the client behaves.
    pub manner: Manner,
    /// How long to wait for an answer.
    pub patience: Duration,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub struct ClientResult {
    /// What the client saw.
    pub seen: Seen,
    /// The client's address and port.
    pub local: SocketAddr,
    /// How many SYNs the kernel sent: one, and more only on a machine so slow that the client gave up too late.
    pub syns: u64,
    /// The connection of a client that only connects: it must not end before the tracer.
    pub open: Option<Arc<Socket>>,
}

impl Attempt {
    /// Connects from `namespace` and waits for the answer, for its absence, or for the server's greeting.
    pub fn make(&self, namespace: &Namespace) -> Result<ClientResult, LabError> {
        let before = namespace.counter("TcpExt", "TCPSynRetrans")?;
        let (seen, local, open) = namespace.run(|| self.connect())?;
        let again = namespace.counter("TcpExt", "TCPSynRetrans")? - before;
        Ok(ClientResult { seen, local, syns: 1 + again, open })
    }

    fn connect(&self) -> Result<(Seen, SocketAddr, Option<Arc<Socket>>), LabError> {
        let failed = |doing: &str| LabError::io(format!("{doing} {}", self.target));
        let by_hand = match self.manner {
            Manner::WrongChecksum => Some((1, 0)),
            Manner::NeverConfirms => Some((0, 2)),
            _ => None,
        };
        if let Some((spoil, answers)) = by_hand {
            let local = connect_by_hand(self.target, spoil, answers, ANSWER_PATIENCE).map_err(failed("connect by hand to"))?;
            return Ok((Seen::NoAnswer, local, None));
        }
        let socket = self.socket().map_err(failed("make a socket for"))?;
        if self.manner == Manner::Deaf {
            // Of every packet keep 0 bytes.
            socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).map_err(failed("attach a filter to the socket for"))?;
        }
        let begun = match self.manner {
            Manner::FastOpen => socket.send_to_with_flags(b"?", &self.target.into(), libc::MSG_FASTOPEN).map(drop),
            _ => socket.connect(&self.target.into()),
        };
        match begun {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(failed("begin to connect to")(error)),
        }
        let local = socket.local_addr().map_err(failed("tell the own end of the connection to"))?;
        let local = local.as_socket().ok_or_else(|| failed("connect to")(io::Error::other("its address is no IP address")))?;
        if !wait(&socket, PollFlags::POLLOUT, self.patience).map_err(failed("wait for"))? {
            return Ok((Seen::NoAnswer, local, None));
        }
        let mut reset = false;
        if let Some(error) = socket.take_error().map_err(failed("tell how it went with"))? {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            // Who refuses a connection does so with another error: this one was made, and reset before we looked. What was sent before
            // that can still be read, and the end comes after it.
            if errno != Errno::ECONNRESET {
                return Ok((Seen::Failed(errno), local, None));
            }
            reset = true;
        }
        if self.manner == Manner::Leaves {
            return Ok((Seen::Connected, local, None));
        }
        if self.manner == Manner::Silent {
            return Ok((Seen::Connected, local, Some(Arc::new(socket))));
        }
        if self.manner == Manner::Hears {
            let heard = wait(&socket, PollFlags::POLLIN, self.patience).map_err(failed("wait for the end of"))?;
            return Ok((if heard { Seen::Connected } else { Seen::Unserved }, local, Some(Arc::new(socket))));
        }
        if self.manner == Manner::Speaks {
            socket.send(b"?").map_err(failed("speak to"))?;
        }
        if self.manner == Manner::Uploads && !upload(&socket, self.patience).map_err(failed("upload to"))? {
            return Ok((Seen::Unserved, local, Some(Arc::new(socket))));
        }
        socket
            .set_nonblocking(false)
            .and_then(|()| socket.set_read_timeout(Some(self.patience)))
            .map_err(failed("wait for the greeting of"))?;
        let mut wanted = vec![0; if self.manner == Manner::Reads { 1 + PAGE } else { 1 }];
        match (&socket).read_exact(&mut wanted) {
            Ok(()) => Ok((Seen::Connected, local, None)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((Seen::Unserved, local, Some(Arc::new(socket)))),
            Err(error) if reset || error.kind() == io::ErrorKind::ConnectionReset => Ok((Seen::Reset, local, None)),
            Err(error) => Err(failed("read the greeting of")(error)),
        }
    }

    fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.target), Type::STREAM, None)?;
        if self.from_port != 0 {
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(unspecified(self.target), self.from_port).into())?;
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Sends all of an upload; false when the time is over before.
fn upload(socket: &Socket, patience: Duration) -> io::Result<bool> {
    let (data, end) = (vec![0; UPLOAD], Instant::now() + patience);
    let mut sent = 0;
    while let Some(rest) = data.get(sent..).filter(|rest| !rest.is_empty()) {
        if !wait(socket, PollFlags::POLLOUT, end.saturating_duration_since(Instant::now()))? {
            return Ok(false);
        }
        sent += socket.send(rest)?;
    }
    Ok(true)
}

/// The address that stands for all in the family of another.
fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Sends a datagram there and back, so that both sides know each other's link-layer address and no SYN has to wait for it.
pub(super) fn warm_up(from: &Namespace, at: IpAddr, to: &Namespace, target: IpAddr) -> Result<(), LabError> {
    let doing = || format!("exchange datagrams between {} and {}", from.name(), to.name());
    let bind = |namespace: &Namespace, address| {
        namespace.run(|| UdpSocket::bind(SocketAddr::new(address, 0)).map_err(LabError::io(format!("bind to {address}"))))
    };
    let (near, far) = (bind(from, at)?, bind(to, target)?);
    let exchange = |sender: &UdpSocket, receiver: &UdpSocket| {
        sender.send_to(b"?", receiver.local_addr()?)?;
        receiver.set_read_timeout(Some(ANSWER_PATIENCE))?;
        // A signal that another test's child ends with says nothing of the datagram.
        loop {
            match receiver.recv_from(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received,
            }
        }
    };
    exchange(&near, &far).and_then(|_| exchange(&far, &near)).map_err(LabError::io(doing()))?;
    Ok(())
}

/// Waits for events on a descriptor; false when the time is over.
fn wait(socket: &Socket, events: PollFlags, patience: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(patience).map_err(io::Error::other)?;
    let mut descriptors = [PollFd::new(socket.as_fd(), events)];
    Ok(poll(&mut descriptors, timeout)? > 0)
}
