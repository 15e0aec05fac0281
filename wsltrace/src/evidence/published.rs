//! The containers for which Docker publishes a port, as the daemon itself tells. It is asked only where a packet for such a port came to
//! nobody: then the rules that lead into the container are not there, as after a flush.

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Listener};
use crate::journey::Journey;
use crate::kernel::processes;

/// Its process.
const DAEMON: &str = "dockerd";
/// How long the daemon may take for its whole answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// No answer about running containers is longer.
const MAX_ANSWER: usize = 16 << 20;
/// The containers that run. HTTP/1.0 has the daemon close the connection, and send nothing in chunks.
const QUESTION: &[u8] = b"GET /containers/json HTTP/1.0\r\nHost: docker\r\n\r\n";

/// A port that Docker publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The container's name.
    pub container: String,
    /// The port inside of it.
    pub inner: u16,
    /// Whether it is published for TCP, and not for UDP alone.
    pub tcp: bool,
}

/// What the daemon tells of a running container. Of what it tells the rest is not of use here.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Clone, Debug, Deserialize)]
struct Port {
    #[serde(rename = "IP", default)]
    ip: Option<IpAddr>,
    #[serde(rename = "PrivatePort")]
    private: u16,
    /// None where the port is not published.
    #[serde(rename = "PublicPort", default)]
    public: Option<u16>,
    #[serde(rename = "Type")]
    protocol: String,
}

impl Watched {
    /// Adds the container for which Docker publishes the port that a packet came to nobody on.
    pub(super) fn add_published(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let held = evidence.sockets.iter().flat_map(|sockets| &sockets.listeners).any(is_held_by_docker);
        let nobody = journey.met_no_socket() || journey.came_to_nothing() && held;
        if !nobody || journey.translated.is_some() || journey.last_netns() != journey.netns {
            return;
        }
        let inum = self.netns.inum();
        let containers = self.published.get(|| published(inum)).or_told(inum, "ask Docker for its containers");
        let flow = &journey.flow;
        evidence.published = containers.and_then(|all| of_port(all, flow.destination, flow.destination_port));
    }
}

/// Whether a listener is the socket by which Docker keeps a published port from others, where no proxy of its own serves it
/// (`userland-proxy: false`; seen with Docker 20.10). It accepts nothing.
pub fn is_held_by_docker(listener: &Listener) -> bool {
    listener.command.as_deref() == Some(DAEMON)
}

/// The running containers of the Docker daemon of a network namespace; none where none is seen there.
fn published(netns: u32) -> io::Result<Vec<Container>> {
    let mut daemon = None;
    let looked = processes::each(PATIENCE, |process| {
        let Some((pid, _)) = processes::named(&process).filter(|(_, name)| name == DAEMON) else {
            return ControlFlow::Continue(());
        };
        if !processes::is_in(&process, netns) {
            return ControlFlow::Continue(());
        }
        daemon = Some(pid);
        ControlFlow::Break(())
    });
    match daemon {
        Some(pid) => containers(&ask(UnixStream::connect(format!("/proc/{pid}/root/run/docker.sock"))?)?),
        None if looked => Ok(Vec::new()),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn ask(mut daemon: UnixStream) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    daemon.set_write_timeout(Some(PATIENCE))?;
    daemon.write_all(QUESTION)?;
    let (mut answer, mut part) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        // A daemon that sends a little now and then must not keep us either.
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        daemon.set_read_timeout(Some(left))?;
        match daemon.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(_) if answer.len() > MAX_ANSWER => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(bytes) => answer.extend_from_slice(part.get(..bytes).unwrap_or_default()),
            // With a time limit a read ends so even where no signal is handled: when the process is stopped or frozen and goes on
            // (signal(7), "Interruption of system calls and library functions by stop signals").
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The containers in the daemon's answer.
fn containers(answer: &[u8]) -> io::Result<Vec<Container>> {
    const END_OF_HEAD: &[u8] = b"\r\n\r\n";
    let strange = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let head = answer.windows(END_OF_HEAD.len()).position(|four| four == END_OF_HEAD);
    let (head, body) = head.and_then(|at| answer.split_at_checked(at)).ok_or_else(|| strange("no answer of HTTP".to_owned()))?;
    let status = String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned();
    if status.split(' ').nth(1) != Some("200") {
        return Err(strange(format!("its answer was {status:?}")));
    }
    serde_json::from_slice(body).map_err(io::Error::from)
}

/// The container for which a port of an address is published, rather for TCP than for UDP.
fn of_port(containers: &[Container], address: IpAddr, port: u16) -> Option<Published> {
    let takes = |published: &&Port| {
        let by = published.ip.is_none_or(|ip| ip == address || ip.is_unspecified() && ip.is_ipv4() == address.is_ipv4());
        published.public == Some(port) && by
    };
    let mut all = containers.iter().flat_map(|container| container.ports.iter().filter(takes).map(move |port| (container, port)));
    let (container, published) = all.clone().find(|(_, port)| port.protocol == "tcp").or_else(|| all.next())?;
    let name = container.names.first().map(|name| name.trim_start_matches('/').to_owned());
    Some(Published { container: name?, inner: published.private, tcp: published.protocol == "tcp" })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::{ErrorKind, Write as _};
    use std::os::unix::net::UnixStream;

    use super::{Published, ask, containers, of_port};

    /// As Docker 20.10 answers, shortened.
    const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\r\n\
        [{\"Id\":\"2a4b\",\"Names\":[\"/web\"],\"Image\":\"bb\",\"Ports\":[\
        {\"IP\":\"0.0.0.0\",\"PrivatePort\":80,\"PublicPort\":8080,\"Type\":\"tcp\"},\
        {\"IP\":\"::\",\"PrivatePort\":80,\"PublicPort\":8080,\"Type\":\"tcp\"},\
        {\"IP\":\"0.0.0.0\",\"PrivatePort\":90,\"PublicPort\":9090,\"Type\":\"udp\"},\
        {\"IP\":\"127.0.0.1\",\"PrivatePort\":70,\"PublicPort\":7070,\"Type\":\"tcp\"},\
        {\"PrivatePort\":443,\"Type\":\"tcp\"}],\"State\":\"running\"},{\"Names\":[\"/none\"],\"Ports\":[]}]\n";

    #[test]
    fn a_daemon_is_asked_for_no_more_than_its_answer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(ANSWER).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(ask(ours).unwrap(), ANSWER);
        let (ours, _silent) = UnixStream::pair().unwrap();
        assert!(matches!(ask(ours).unwrap_err().kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        let (ours, mut endless) = UnixStream::pair().unwrap();
        let writing = std::thread::spawn(move || while endless.write_all(&[b'x'; 4096]).is_ok() {});
        let error = ask(ours).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::FileTooLarge | ErrorKind::TimedOut), "{error}");
        writing.join().unwrap();
    }

    #[test]
    fn a_published_port_is_found_with_its_container() {
        let all = containers(ANSWER).unwrap();
        let of = |address: &str, port| of_port(&all, address.parse().unwrap(), port);
        let web = |inner, tcp| Some(Published { container: "web".to_owned(), inner, tcp });
        assert_eq!(of("172.28.16.2", 8080), web(80, true));
        assert_eq!(of("fd00::2", 8080), web(80, true));
        assert_eq!(of("172.28.16.2", 9090), web(90, false));
        assert_eq!(of("127.0.0.1", 7070), web(70, true));
        for (address, port) in [("172.28.16.2", 7070), ("fd00::2", 9090), ("172.28.16.2", 443), ("172.28.16.2", 80)] {
            assert_eq!(of(address, port), None, "{address} {port}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        for answer in [&b""[..], b"HTTP/1.0 500 Internal Server Error\r\n\r\n[]", b"HTTP/1.0 200 OK\r\n\r\n{", b"[]"] {
            assert!(containers(answer).is_err(), "{}", String::from_utf8_lossy(answer));
        }
    }
}
