//! Servers of every kind: where they are bound, whether they accept.

use std::ffi::c_int;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{LabError, Namespace, option};

/// How long a server waits for a client that does nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection without data stays half-open.
const HALF_OPEN_SECONDS: c_int = 120;
/// How long to wait for a connection that does not fit any more: less than the second after which its SYN is sent again.
const ONE_MORE: Duration = Duration::from_millis(900);
/// More than the smallest send buffer holds: writing this much returns only after the other side acknowledged data.
const MORE_THAN_A_BUFFER: usize = 32 * 1024;

/// Where and how a server is bound.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// For IPv6: `Some(true)` takes no IPv4 connections, `Some(false)` takes them, `None` for IPv4.
    pub v6only: Option<bool>,
    /// How many connections may wait to be accepted.
    pub backlog: i32,
    /// The device that it takes connections from; `None`: all.
    pub device: Option<&'static str>,
    /// Whether others may share its port (`SO_REUSEPORT`); of those that do, the first gets every connection.
    pub shared: bool,
}

impl Binding {
    /// An ordinary server on this address and port.
    pub fn new(address: impl Into<IpAddr>, port: u16) -> Self {
        let address = address.into();
        Self { address, port, v6only: address.is_ipv6().then_some(true), backlog: 128, device: None, shared: false }
    }

    /// Where it is reached over its own loopback device.
    fn over_loopback(&self) -> SocketAddr {
        let address = if self.address.is_ipv6() { IpAddr::from(Ipv6Addr::LOCALHOST) } else { Ipv4Addr::LOCALHOST.into() };
        SocketAddr::new(address, self.port)
    }

    /// The same, taking IPv4 connections on its IPv6 socket.
    #[must_use]
    pub fn dual_stack(self) -> Self {
        Self { v6only: Some(false), ..self }
    }

    /// The same with another backlog.
    #[must_use]
    pub fn backlog(self, backlog: i32) -> Self {
        Self { backlog, ..self }
    }

    /// The same, bound to a device.
    #[must_use]
    pub fn device(self, device: &'static str) -> Self {
        Self { device: Some(device), ..self }
    }

    /// The same, sharing its port.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { shared: true, ..self }
    }
}

/// A server; ends when dropped.
#[derive(Debug)]
pub struct Listening {
    /// Its namespace's inode number, and where it is bound.
    place: (u32, SocketAddr),
    socket: Arc<Socket>,
    acceptor: Option<JoinHandle<()>>,
    /// Connections that wait in its queue.
    waiting: Vec<TcpStream>,
}

impl Listening {
    /// A server that accepts, greets with a byte, and closes when the client does.
    pub fn accepting(namespace: &Namespace, binding: Binding) -> Result<Self, LabError> {
        Self::doing(namespace, binding, serve)
    }

    /// A server that accepts, and does this with each connection.
    pub(super) fn doing(
        namespace: &Namespace,
        binding: Binding,
        then: fn(TcpStream) -> io::Result<()>,
    ) -> Result<Self, LabError> {
        let mut server = Self::idle(namespace, binding)?;
        server.accept_all(then);
        Ok(server)
    }

    fn accept_all(&mut self, then: fn(TcpStream) -> io::Result<()>) {
        let socket = Arc::clone(&self.socket);
        self.acceptor = Some(thread::spawn(move || {
            // Ends with an error when `drop` shuts the socket down.
            while let Ok((connection, _)) = socket.accept() {
                // By itself, so that a client that stays keeps no other waiting. One that goes away early is its own affair.
                thread::spawn(move || drop(then(connection.into())));
            }
        }));
    }

    /// The same, with a listening socket whose options were changed before anybody can connect to it.
    pub(super) fn accepting_with(
        namespace: &Namespace,
        binding: Binding,
        change: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> Result<Self, LabError> {
        let mut server = Self::idle(namespace, binding)?;
        change(&server.socket).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => LabError::Unsupported("this kernel lacks an option of listening sockets".into()),
            _ => LabError::io("set an option of the listening socket")(error),
        })?;
        server.accept_all(serve);
        Ok(server)
    }

    /// A server that accepts, but only connections that have sent data, and whose queue of half-open connections is full of
    /// such as have not, made over the namespace's loopback device.
    pub(super) fn full_of_half_open(namespace: &Namespace, binding: Binding) -> Result<Self, LabError> {
        let defer = |socket: &Socket| option::set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, HALF_OPEN_SECONDS);
        let mut server = Self::accepting_with(namespace, binding, defer)?;
        let to = binding.over_loopback();
        let fill = || {
            let mut waiting =
                (0..binding.backlog).map(|_| TcpStream::connect_timeout(&to, PATIENCE)).collect::<io::Result<Vec<_>>>()?;
            // Older kernels take as many as the backlog says, newer ones one more.
            match TcpStream::connect_timeout(&to, ONE_MORE) {
                Ok(one_more) => waiting.push(one_more),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => return Err(error),
            }
            Ok(waiting)
        };
        server.waiting = namespace.run(|| fill().map_err(LabError::io(format!("fill the SYN queue of {to}"))))?;
        Ok(server)
    }

    /// A server that never accepts.
    pub fn idle(namespace: &Namespace, binding: Binding) -> Result<Self, LabError> {
        let at = SocketAddr::new(binding.address, binding.port);
        let socket = namespace.run(|| listen(at, binding).map_err(LabError::io(format!("listen on {at}"))))?;
        Ok(Self { place: (namespace.inode(), at), socket: Arc::new(socket), acceptor: None, waiting: Vec::new() })
    }

    /// Whether it listens there and accepts by itself.
    pub(super) fn accepts_at(&self, namespace: &Namespace, binding: Binding) -> bool {
        self.acceptor.is_some() && self.place == (namespace.inode(), SocketAddr::new(binding.address, binding.port))
    }

    /// Takes every connection that waits out of the queue of a server that does not do so itself.
    pub(super) fn drain(&self) -> Result<(), LabError> {
        let accept_all = || {
            self.socket.set_nonblocking(true)?;
            loop {
                match self.socket.accept() {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        accept_all().map_err(LabError::io("drain an accept queue"))
    }

    /// Accepts one of the connections that wait, or will, on a server that does not do so itself.
    pub(super) fn accept(&self) -> Result<TcpStream, LabError> {
        let accepted = self.socket.accept().map_err(LabError::io("accept a connection"))?;
        Ok(accepted.0.into())
    }

    /// A server that never accepts and whose accept queue is full of established connections, made over the namespace's
    /// loopback device.
    pub fn full(namespace: &Namespace, binding: Binding) -> Result<Self, LabError> {
        let mut server = Self::idle(namespace, binding)?;
        let to = binding.over_loopback();
        server.waiting = namespace.run(|| {
            // The kernel takes one more than the backlog.
            let one = |_| wait_in_queue(to).map_err(LabError::io(format!("fill the accept queue of {to}")));
            (0..=binding.backlog).map(one).collect()
        })?;
        Ok(server)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Wakes the acceptor. Fails only for a socket that does not listen, which this one does.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            // A panic of the acceptor has already been printed.
            let _ = acceptor.join();
        }
    }
}

fn listen(at: SocketAddr, binding: Binding) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if let Some(v6only) = binding.v6only {
        socket.set_only_v6(v6only)?;
    }
    socket.bind_device(binding.device.map(str::as_bytes))?;
    socket.set_reuse_port(binding.shared)?;
    socket.bind(&at.into())?;
    socket.listen(binding.backlog)?;
    if binding.shared {
        // Now, because a socket that has a program already may not share a port.
        prefer_the_first(&socket)?;
    }
    Ok(socket)
}

/// Has the first of the sockets that share the port get every connection.
fn prefer_the_first(socket: &Socket) -> io::Result<()> {
    choose(socket, 0)
}

/// Has the sockets that share the port choose by a program that answers with this number, counted from 0.
pub(super) fn choose(socket: &Socket, index: u32) -> io::Result<()> {
    const RETURN: u16 = 0x06;
    let mut program = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: index }];
    let program = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    option::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// Greets with a byte, and reads until the client closes.
pub(super) fn serve(mut connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"!")?;
    connection.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Connects and returns once the connection is known to stand in the queue: only an established server side acknowledges
/// data, and the send buffer is too small for all of it.
fn wait_in_queue(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_send_buffer_size(1)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let mut connection = TcpStream::from(socket);
    connection.write_all(&vec![0; MORE_THAN_A_BUFFER])?;
    Ok(connection)
}
