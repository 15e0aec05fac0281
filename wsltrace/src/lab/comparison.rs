//! The ways into WSL, rebuilt without Windows, and measured: what each of them is made of costs what it costs here. What stands for
//! Windows is the client's namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::scenario::publish;
use super::sides::{CLIENT_V4, CONTAINER, WSL_V4};
use super::{Lab, LabError, Namespace, PORT, Side};
use crate::bench::attempt::Mode;
use crate::bench::doubts::no_port;
use crate::bench::load::Stop;
use crate::bench::rounds::{Measurement, Plan};
use crate::bench::serve::Server;
use crate::bench::spoilers::{Place, Reading};
use crate::bench::target::Resolved;
use crate::bench::trace::{TraceError, Tracing};
use crate::kernel::netns::{Netns, NetnsError};

/// The server's port in the container.
const INNER: u16 = 80;
/// The server's port in WSL; the port of the lab itself is the container's, published.
const DIRECT: u16 = 8000;
/// Ports of what stands between.
const PORTPROXY: u16 = 8001;
const RELAY: u16 = 8002;
const DOCKER_PROXY: u16 = 8003;
/// Bytes of an answer.
const PAYLOAD: usize = 128;
const CLIENTS: u32 = 10;
const LIMIT: Duration = Duration::from_secs(5);

/// What the paths are made of, in the order of the table.
pub const WAYS: [(&str, &str); 5] = [
    ("direct", "the client to WSL's address, over eth0"),
    ("portproxy", "a user-mode proxy on the client's side, which connects to WSL's address, as iphlpsvc does"),
    (
        "relay",
        "a proxy on the client's side, a socket pair for the hv_socket, and a thread that connects over lo, as WSL's localhost relay does",
    ),
    ("dnat", "a rule of the firewall that leads into a container"),
    ("docker-proxy", "a user-mode proxy in WSL, which connects to the container"),
];

/// Measures each way for so long, or until it is to stop, and takes everything down again; gives also what spoilt it. `tell` hears what is
/// measured now, with the part of the time that is over. `seed` draws the order.
pub fn compare(
    duration: Duration,
    seed: u64,
    stop: &Stop,
    tell: impl FnMut(&str, f64) + Send,
) -> Result<(Plan, Measurement, Vec<String>), LabError> {
    let lab = Lab::new(Some(Side::Container))?;
    // Windows' own addresses are reached over its own loopback.
    lab.client.up("lo")?;
    publish(&lab, CONTAINER)?;
    let client = inside(&lab.client)?;
    let wsl = inside(&lab.wsl)?;
    let container = inside(lab.side(Side::Container)?)?;
    let here = Builder::new_current_thread().enable_all().build().map_err(LabError::io("make a runtime"))?;
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    here.block_on(async {
        ready(wsl.spawn(async move { serve(any(DIRECT)) })).await?;
        ready(container.spawn(async move { serve(any(INNER)) })).await?;
        ready(client.spawn(proxy(any(PORTPROXY), SocketAddr::new(WSL_V4.into(), DIRECT)))).await?;
        ready(wsl.spawn(proxy(any(DOCKER_PROXY), SocketAddr::new(CONTAINER.into(), INNER)))).await?;
        let (carry, carried) = mpsc::unbounded_channel();
        wsl.spawn(relay_to(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DIRECT), carried));
        ready(client.spawn(relay_from(any(RELAY), carry))).await
    })?;
    let target = |name: &str, address: IpAddr, port| {
        let address = SocketAddr::new(address, port);
        Resolved { name: name.to_owned(), host: address.to_string(), address }
    };
    let ends = [(WSL_V4, DIRECT), (CLIENT_V4, PORTPROXY), (CLIENT_V4, RELAY), (WSL_V4, PORT), (WSL_V4, DOCKER_PROXY)];
    let targets = WAYS.iter().zip(ends).map(|((name, _), (address, port))| target(name, address.into(), port)).collect();
    let plan =
        Plan { targets, modes: vec![Mode::Http], clients: CLIENTS, duration, rounds: None, rate: None, limit: LIMIT, seed };
    let traced = Netns::at(&lab.wsl.path()).map_err(TraceError::from);
    let tracing =
        traced.and_then(|wsl| Tracing::prepare(wsl, &[DIRECT, PORT, DOCKER_PROXY, INNER])).map_err(|error| error.to_string());
    let before = reading(&lab)?;
    // The clients' threads are born in the client's namespace; this thread stays where it is.
    let measured =
        lab.client.run(|| plan.measure(tracing.as_ref().map_err(String::clone), stop, tell).map_err(LabError::io("measure")))?;
    let spoilt = before.spoilt_until_now(no_port(&measured.paths)).map_err(LabError::io("read the kernel's counters"))?;
    Ok((plan, measured, spoilt))
}

/// The machine, and the counters of all sides.
fn reading(lab: &Lab) -> Result<Reading, LabError> {
    let sides = [(&lab.client, "client"), (&lab.wsl, "WSL"), (lab.side(Side::Container)?, "container")];
    let places = sides.into_iter().map(|(side, name)| Ok(Place::of_lab(Netns::at(&side.path())?, name)));
    let places = places.collect::<Result<_, NetnsError>>().map_err(|error| LabError::Failed(error.to_string()))?;
    Reading::take(places).map_err(LabError::io("read the kernel's counters"))
}

/// A runtime whose threads are in a namespace: a thread is born where its maker is.
fn inside(namespace: &Namespace) -> Result<Runtime, LabError> {
    let build = || Builder::new_multi_thread().worker_threads(1).enable_all().build();
    namespace.run(|| build().map_err(LabError::io(format!("make a runtime in {}", namespace.name()))))
}

/// Waits until a service listens; it goes on by itself.
async fn ready(task: JoinHandle<io::Result<()>>) -> Result<(), LabError> {
    let begun = task.await.map_err(|error| LabError::Failed(error.to_string()))?;
    begun.map_err(LabError::io("begin to serve"))
}

fn serve(address: SocketAddr) -> io::Result<()> {
    let server = Server::bind(address, PAYLOAD)?;
    tokio::spawn(server.run());
    Ok(())
}

/// A user-mode TCP proxy.
async fn proxy(listen: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            tokio::spawn(async move { joined(from, TcpStream::connect(to).await).await });
        }
    });
    Ok(())
}

/// The relay's half on Windows: it hands each connection over as one end of a socket pair.
async fn relay_from(listen: SocketAddr, carry: mpsc::UnboundedSender<StdUnixStream>) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            let pair = StdUnixStream::pair().and_then(|(near, far)| {
                near.set_nonblocking(true)?;
                far.set_nonblocking(true)?;
                Ok((UnixStream::from_std(near)?, far))
            });
            match pair {
                // The other half goes with the lab.
                Ok((_, far)) if carry.is_closed() => return drop(far),
                Ok((near, far)) => {
                    drop(carry.send(far));
                    drop(tokio::spawn(joined(from, Ok(near))));
                }
                Err(error) => log::warn!("the lab's relay: {error}"),
            }
        }
    });
    Ok(())
}

/// The relay's half in WSL: it connects anew for each.
async fn relay_to(to: SocketAddr, mut carried: mpsc::UnboundedReceiver<StdUnixStream>) {
    while let Some(from) = carried.recv().await {
        match UnixStream::from_std(from) {
            Ok(from) => drop(tokio::spawn(async move { joined(from, TcpStream::connect(to).await).await })),
            Err(error) => log::warn!("the lab's relay: {error}"),
        }
    }
}

/// Carries bytes both ways until both sides have ended. A side that fails ends the other, which is what its client sees.
async fn joined<A, B>(mut from: A, to: io::Result<B>)
where
    A: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    B: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let carried = match to {
        Ok(mut to) => tokio::io::copy_bidirectional(&mut from, &mut to).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = carried {
        log::debug!("a connection of the lab's proxies ended: {error}");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::lab::cannot_run;

    #[test]
    fn every_way_is_answered() {
        if cannot_run("every_way_is_answered") {
            return;
        }
        let (_keep, stop) = watch::channel(false);
        let (plan, measured, _) = compare(Duration::from_millis(500), 1, &stop, |_, _| {}).unwrap();
        assert_eq!((plan.targets.len(), measured.paths.len()), (WAYS.len(), WAYS.len()));
        for path in measured.paths {
            let total = path.total();
            assert!(!total.waited.is_empty() && total.failures() == 0, "{}: {:?}", path.target.name, total.failed);
        }
    }
}
