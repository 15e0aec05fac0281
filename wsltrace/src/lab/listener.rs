//! Servers of every kind: where they are bound, whether they accept.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{LabError, Namespace};

/// How long a server waits for a client that does nothing.
const PATIENCE: Duration = Duration::from_secs(10);
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
}

impl Binding {
    /// An ordinary server on this address and port.
    pub fn new(address: impl Into<IpAddr>, port: u16) -> Self {
        let address = address.into();
        Self { address, port, v6only: address.is_ipv6().then_some(true), backlog: 128 }
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
}

/// A server; ends when dropped.
#[derive(Debug)]
pub struct Listening {
    socket: Arc<Socket>,
    acceptor: Option<JoinHandle<()>>,
    /// Connections that wait in its queue.
    waiting: Vec<TcpStream>,
}

impl Listening {
    /// A server that accepts, greets with a byte, and closes when the client does.
    pub fn accepting(namespace: &Namespace, binding: Binding) -> Result<Self, LabError> {
        let mut server = Self::idle(namespace, binding)?;
        let socket = Arc::clone(&server.socket);
        server.acceptor = Some(thread::spawn(move || {
            // Ends with an error when `drop` shuts the socket down.
            while let Ok((connection, _)) = socket.accept() {
                // A client that goes away early is its own affair.
                let _ = serve(connection.into());
            }
        }));
        Ok(server)
    }

    /// A server that never accepts.
    pub fn idle(namespace: &Namespace, binding: Binding) -> Result<Self, LabError> {
        let at = SocketAddr::new(binding.address, binding.port);
        let socket = namespace.run(|| listen(at, binding).map_err(LabError::io(format!("listen on {at}"))))?;
        Ok(Self { socket: Arc::new(socket), acceptor: None, waiting: Vec::new() })
    }

    /// A server that never accepts and whose accept queue is full of established connections, made over the namespace's
    /// loopback device.
    pub fn full(namespace: &Namespace, binding: Binding) -> Result<Self, LabError> {
        let mut server = Self::idle(namespace, binding)?;
        let to = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), binding.port);
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

fn listen(at: SocketAddr, binding: Binding) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if let Some(v6only) = binding.v6only {
        socket.set_only_v6(v6only)?;
    }
    socket.bind(&at.into())?;
    socket.listen(binding.backlog)?;
    Ok(socket)
}

fn serve(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"!")?;
    connection.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Connects and returns once the connection is known to stand in the queue: only an established server side acknowledges
/// data, and the send buffer is too small for all of it.
fn wait_in_queue(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_send_buffer_size(1)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let mut connection = TcpStream::from(socket);
    connection.write_all(&vec![0; MORE_THAN_A_BUFFER])?;
    Ok(connection)
}
