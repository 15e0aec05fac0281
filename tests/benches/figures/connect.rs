//! Connections one after the other, and how long each takes to be made.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use wsltrace::lab::{Binding, Lab, LabError, Listening, PORT, Tracer};

/// A port that the tracer is not asked for.
pub(crate) const OTHER_PORT: u16 = 9090;

/// A lab with a server on each of the two ports, and no firewall.
pub(crate) fn lab() -> Result<Lab, LabError> {
    let mut lab = Lab::new(None)?;
    for port in [PORT, OTHER_PORT] {
        let server = Listening::accepting(&lab.wsl, Binding::new(Lab::wsl_address(false), port))?;
        lab.keep(server);
    }
    Ok(lab)
}

/// A tracer of the lab's first port, armed; what it writes is read and thrown away.
pub(crate) fn armed_tracer(binary: &Path, lab: &Lab, detail: &str) -> Result<Tracer, LabError> {
    let discard = |mut stdout| io::copy(&mut stdout, &mut io::sink()).map(|_| Vec::new());
    let mut tracer = Tracer::start_reading(binary, &lab.wsl, &["--detail", detail], discard)?;
    tracer.await_armed()?;
    Ok(tracer)
}

/// Connects so often from the lab's client; gives the median time that `connect` took.
pub(crate) fn median(lab: &Lab, port: u16, connections: usize) -> Result<Duration, LabError> {
    let target = SocketAddr::new(Lab::wsl_address(false), port);
    let mut times = lab.client.run(|| {
        let connect = |_| one(target).map_err(|source| LabError::Io { doing: format!("connect to {target}"), source });
        (0..connections).map(connect).collect::<Result<Vec<Duration>, LabError>>()
    })?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn one(target: SocketAddr) -> io::Result<Duration> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Closing resets, so that no port is kept waiting.
    socket.set_linger(Some(Duration::ZERO))?;
    let began = Instant::now();
    socket.connect(&target.into())?;
    let took = began.elapsed();
    // The server greets when it has accepted: its queue never fills.
    TcpStream::from(socket).read_exact(&mut [0])?;
    Ok(took)
}
