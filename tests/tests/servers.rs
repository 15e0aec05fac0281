//! What `wsltrace doctor` says of servers that listen and cannot be reached, or do not serve: beside what a client sees of each.

use std::error::Error;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use wsltrace::lab::{Binding, Lab, LabError, Listening, Namespace, Side};
use wsltrace_tests::decide;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

const PORT: u16 = 8080;
/// The server's port in the container.
const INNER: u16 = 80;
/// The port of a proxy.
const PROXY: u16 = 9090;
/// An address that WSL has only for a while.
const SHORT_LIVED: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
/// A client that has no answer by then gets none.
const NO_ANSWER: Duration = Duration::from_secs(1);

fn main() {
    let tests: [(&'static str, Test); 5] = [
        ("a_server_whose_address_is_gone_fails", gone),
        ("a_server_that_is_bound_to_a_device_is_reached_by_that_alone", bound),
        ("a_stopped_server_accepts_and_does_not_answer", stopped),
        ("a_server_on_a_container_s_loopback_is_found_behind_its_published_port", inside),
        ("a_rule_that_hands_connections_to_a_proxy_is_told_with_its_port", proxy),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// What was examined: the exit status and the JSON.
struct Examined {
    output: Output,
    value: Value,
}

impl Examined {
    fn of(binary: &Path, lab: &Lab) -> Result<Self, Box<dyn Error>> {
        let namespace = lab.wsl.path().display().to_string();
        let output = Command::new(binary).args(["doctor", "--port", "8080", "--json", "--netns", &namespace]).output()?;
        let value = serde_json::from_slice(&output.stdout)?;
        Ok(Self { output, value })
    }

    /// The answer and the reason of a way.
    fn way(&self, way: &str) -> (String, String) {
        let row = self.value["ways"].as_array().into_iter().flatten().find(|row| row["way"] == way);
        let text = |field: &str| row.and_then(|row| row[field].as_str()).unwrap_or_default().to_owned();
        (text("answer"), text("why"))
    }

    /// A finding of a check with this severity says so.
    fn says(&self, check: &str, severity: &str, what: &str) -> bool {
        let mut findings = self.value["findings"].as_array().into_iter().flatten();
        findings.any(|finding| {
            (&finding["check"], &finding["severity"]) == (&check.into(), &severity.into())
                && finding["summary"].as_str().is_some_and(|summary| summary.contains(what))
        })
    }

    fn check(&self, holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
        if holds {
            return Ok(());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Output { status, stdout, stderr } = &self.output;
        Err(format!("expected {what}; {status}\n{}\n{}", text(stdout), text(stderr)).into())
    }

    fn status(&self) -> Option<i32> {
        self.output.status.code()
    }
}

/// What a client sees from a namespace: no connection, a connection without an answer, or an answer.
#[derive(Debug, PartialEq, Eq)]
enum Client {
    Refused,
    Unanswered,
    Answered,
}

fn client(namespace: &Namespace, address: impl Into<IpAddr>) -> Result<Client, Box<dyn Error>> {
    let end = SocketAddr::new(address.into(), PORT);
    let tried = || -> std::io::Result<Client> {
        let mut stream = match TcpStream::connect(end) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(Client::Refused),
            connected => connected?,
        };
        stream.set_read_timeout(Some(NO_ANSWER))?;
        std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: it\r\n\r\n")?;
        match stream.read(&mut [0; 64]) {
            Ok(0) => Ok(Client::Refused),
            Ok(_) => Ok(Client::Answered),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(Client::Unanswered),
            Err(error) => Err(error),
        }
    };
    Ok(namespace.run(|| tried().map_err(|source| LabError::Io { doing: format!("connect to {end}"), source }))?)
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(program);
    command.args(arguments);
    let ran = namespace.run(|| command.output().map_err(|source| LabError::Io { doing: format!("run {program}"), source }))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() { Ok(()) } else { Err(format!("{program} {arguments:?}: {said}").into()) }
}

fn gone(binary: &Path) -> Result<(), Box<dyn Error>> {
    let mut lab = Lab::new(None)?;
    let own = format!("{SHORT_LIVED}/32");
    run(&lab.wsl, "ip", &["address", "add", &own, "dev", "eth0"])?;
    let server = Listening::accepting(&lab.wsl, Binding::new(SHORT_LIVED, PORT))?;
    lab.keep(server);
    let before = Examined::of(binary, &lab)?;
    before.check(client(&lab.wsl, SHORT_LIVED)? == Client::Answered, "an answer while the address is there")?;
    before.check(before.status() == Some(0), "no failure while the address is there")?;
    run(&lab.wsl, "ip", &["address", "delete", &own, "dev", "eth0"])?;
    let after = Examined::of(binary, &lab)?;
    let refused = client(&lab.client, Lab::wsl_address(false))? == Client::Refused;
    after.check(refused && client(&lab.wsl, Ipv4Addr::LOCALHOST)? == Client::Refused, "refusals")?;
    let told = after.says("listener_address", "fails", "listens only on 10.9.9.9:8080, which is no address of this machine");
    after.check(told && after.status() == Some(1), "that the address is gone")
}

fn bound(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (device, outside, inside) in [("eth0", true, false), ("lo", false, true)] {
        let mut lab = Lab::new(None)?;
        let server = Listening::accepting(&lab.wsl, Binding::new(Ipv4Addr::UNSPECIFIED, PORT).device(device))?;
        lab.keep(server);
        let examined = Examined::of(binary, &lab)?;
        for (way, from, to, reached) in [
            ("lan_to_address", &lab.client, Lab::wsl_address(false), outside),
            ("inside4", &lab.wsl, Ipv4Addr::LOCALHOST.into(), inside),
        ] {
            let seen = client(from, to)?;
            let expected = if reached { (Client::Answered, "works") } else { (Client::Refused, "fails") };
            examined.check((seen, examined.way(way).0.as_str()) == expected, &format!("{way} as the client sees it"))?;
        }
        let told = examined.says("listener_address", "warns", &format!("only connections that come by {device}"));
        examined.check(told && examined.status() == Some(0), "that the socket is bound to a device")?;
    }
    Ok(())
}

/// A server that was stopped; it goes with its handle.
struct Stopped(Child);

impl Stopped {
    fn start(binary: &Path, namespace: &Namespace, port: u16) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(binary);
        command.args(["bench", "--serve", &format!("0.0.0.0:{port}")]).stderr(Stdio::piped());
        let spawn = || command.spawn().map_err(|source| LabError::Io { doing: "start the server".into(), source });
        let mut server = Self(namespace.run(spawn)?);
        // Its first line says that it listens.
        let mut pipe = server.0.stderr.take().ok_or("no stderr")?;
        if pipe.read(&mut [0; 256])? == 0 {
            return Err("the server has ended".into());
        }
        server.0.stderr = Some(pipe);
        Ok(server)
    }

    fn stop(&self) -> Result<(), Box<dyn Error>> {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        kill(pid, Signal::SIGSTOP)?;
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(()),
            other => Err(format!("the server did not stop: {other:?}").into()),
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself, which the client notices.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn stopped(binary: &Path) -> Result<(), Box<dyn Error>> {
    stopped_at(binary, PORT)?;
    // The same where a rule leads there what clients ask for.
    stopped_at(binary, INNER)
}

fn stopped_at(binary: &Path, port: u16) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    if port != PORT {
        let chain = "type nat hook prerouting priority dstnat";
        let rules = format!("table ip nat {{ chain prerouting {{ {chain}; tcp dport {PORT} redirect to :{port}; }}; }}");
        run(&lab.wsl, "nft", &[&rules])?;
    }
    let server = Stopped::start(binary, &lab.wsl, port)?;
    let before = Examined::of(binary, &lab)?;
    before.check(client(&lab.client, Lab::wsl_address(false))? == Client::Answered, "an answer before")?;
    before.check(before.status() == Some(0) && before.way("lan_to_address").0 == "works", "that it works before")?;
    server.stop()?;
    let after = Examined::of(binary, &lab)?;
    after.check(client(&lab.client, Lab::wsl_address(false))? == Client::Unanswered, "a connection without an answer")?;
    let (answer, why) = after.way("lan_to_address");
    after.check(answer == "fails" && why.contains("connections are made, and nobody answers"), "that nobody answers")?;
    let told = after.says("accept_queue", "fails", "it is stopped, as Ctrl-Z does it");
    let typed = String::from_utf8_lossy(&after.output.stdout).contains(&format!("kill -CONT {}", server.0.id()));
    after.check(told && typed && after.status() == Some(1), "who is stopped, and what to type")
}

fn inside(binary: &Path) -> Result<(), Box<dyn Error>> {
    let rules = format!(
        "table ip nat {{ chain prerouting {{ type nat hook prerouting priority dstnat; tcp dport {PORT} dnat to {}:{INNER}; }}; }}",
        Lab::container_address()
    );
    for (address, seen, answer) in
        [(Ipv4Addr::LOCALHOST, Client::Refused, "fails"), (Ipv4Addr::UNSPECIFIED, Client::Answered, "works")]
    {
        let mut lab = Lab::new(Some(Side::Container))?;
        lab.wsl.set_sysctl("net.ipv4.ip_forward", "1")?;
        run(&lab.wsl, "nft", &[&rules])?;
        let server = Listening::accepting(lab.side(Side::Container)?, Binding::new(address, INNER))?;
        lab.keep(server);
        let examined = Examined::of(binary, &lab)?;
        examined.check(client(&lab.client, Lab::wsl_address(false))? == seen, "what the client sees")?;
        let (said, why) = examined.way("lan_to_address");
        examined.check(said == answer, "the same of the way")?;
        let only = "where the container's server listens only on 127.0.0.1";
        let told = examined.says("listener", "fails", only) && why.contains(only);
        let status = Some(i32::from(answer == "fails"));
        examined.check(told == (answer == "fails") && examined.status() == status, "who listens where")?;
    }
    Ok(())
}

/// Whether a proxy's socket gets a connection that asks for the server's port; who it asked for is the accepted socket's own address.
fn proxy(binary: &Path) -> Result<(), Box<dyn Error>> {
    let rule = format!(
        "table ip t {{ chain c {{ type filter hook prerouting priority mangle; tcp dport {PORT} tproxy to :{PROXY} accept; }}; }}"
    );
    let io = |what: &'static str| move |source| LabError::Io { doing: what.into(), source };
    for is_there in [true, false] {
        let lab = Lab::new(None)?;
        let made = lab.wsl.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(io("make a socket"))?;
            socket.set_ip_transparent_v4(true).map_err(io("make a socket transparent"))?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PROXY)).into()).map_err(io("bind"))?;
            if is_there {
                socket.listen(16).map_err(io("listen"))?;
            }
            Ok(socket)
        })?;
        run(&lab.wsl, "nft", &[&rule])?;
        let examined = Examined::of(binary, &lab)?;
        let end = SocketAddr::new(Lab::wsl_address(false), PORT);
        let connected = lab.client.run(|| Ok(TcpStream::connect(end)))?;
        if is_there {
            let _client = connected?;
            let (taken, _) = made.accept()?;
            examined.check(taken.local_addr()?.as_socket() == Some(end), "that the proxy has the connection")?;
        } else {
            let refused = connected.err().map(|error| error.kind());
            examined.check(refused == Some(std::io::ErrorKind::ConnectionRefused), "a refusal without a proxy")?;
        }
        let (answer, why) = examined.way("lan_to_address");
        // Without a proxy nft's statement lets the packet go on, to where nothing listens.
        let handed = why.starts_with(&format!("handed to the proxy's port {PROXY} by "));
        let told = handed == is_there && why.contains("nothing listens") != is_there;
        let right = answer == if is_there { "works" } else { "fails" };
        examined.check(right && told, "where the connection is handed to")?;
        let severity = if is_there { "fine" } else { "fails" };
        let found = examined.says("listener", severity, &format!("hands connections to a proxy on port {PROXY}"));
        examined.check(found && (examined.status() == Some(1)) != is_there, "the rule")?;
    }
    Ok(())
}
