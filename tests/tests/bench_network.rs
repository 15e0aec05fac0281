//! `wsltrace bench` in networks of the lab, against the kernel's own counters there: handshakes, segments sent again, full queues.

use std::error::Error;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use wsltrace::lab::{Lab, LabError, Namespace, PORT, Side};
use wsltrace_tests::decide;
use wsltrace_tests::ran::{bench_in, check};
use wsltrace_tests::server::Server;

const NOBODY: u32 = 65_534;
/// The lab's container, and its server's port behind the published one.
const CONTAINER: [u8; 4] = [172, 17, 0, 2];
const INNER: u16 = 80;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 6] = [
        ("a_syn_that_is_sent_again_counts_though_no_connection_is_made", unanswered),
        ("every_handshake_is_traced_and_its_parts_are_the_whole", traced),
        ("a_queue_that_overflows_in_a_container_is_told", overflowing),
        ("the_server_tells_that_its_queue_was_too_short_while_it_serves", crowded),
        ("what_a_server_sends_again_is_counted_by_its_path", sent_again),
        ("what_a_published_container_sends_again_is_counted_where_its_own_port_is_traced", published),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// A rule for what comes in.
fn load_rule(namespace: &Namespace, rule: &str) -> Result<(), Box<dyn Error>> {
    load(namespace, &format!("table ip lossy {{\n chain input {{\n type filter hook input priority filter\n {rule}\n }}\n}}\n"))
}

fn load(namespace: &Namespace, ruleset: &str) -> Result<(), Box<dyn Error>> {
    let mut nft = Command::new("nft");
    nft.arg(ruleset);
    let loaded = namespace.run(|| nft.output().map_err(|source| LabError::Io { doing: "run nft".into(), source }))?;
    check(&loaded, loaded.status.success(), "that the rules are loaded")
}

/// A SYN is sent again after a second, and after two more.
fn unanswered(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    load_rule(&lab.wsl, &format!("tcp dport {PORT} drop"))?;
    let target = format!("own=172.28.16.2:{PORT}");
    let run = ["--no-trace", "-c", "2", "-d", "300ms", "--json", "--timeout", "1500ms", "--target", &target];
    let before = lab.client.counter("TcpExt", "TCPSynRetrans")?;
    let ran = bench_in(&lab.client, binary, &run)?;
    let again = lab.client.counter("TcpExt", "TCPSynRetrans")? - before;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let path = &value["paths"][0];
    check(&ran, again > 0 && path["segments_sent_again"] == again, "the SYNs that were sent again")?;
    let (tried, failed) = (path["connections"].as_u64(), path["failed"]["timed_out"].as_u64());
    check(&ran, tried == failed && path["connections_sent_again"] == again, "of how many connections")
}

/// Each attempt of the client's is a handshake of its own, so there must be as many; and a path's kernel counts them too.
fn traced(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let server = Server::start(binary, Some(&lab.wsl))?;
    let target = format!("own={}", server.address);
    let run = ["--target", &target, "-c", "2", "-d", "500ms", "--rounds", "2", "--keep-alive", "off"];
    let ran = bench_in(&lab.wsl, binary, &[&run[..], &["--json"]].concat())?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let path = &value["paths"][0];
    let (traced, leg) = (&path["traced"], &path["traced"]["legs"][0]);
    let handshakes = leg["handshake"]["count"].as_u64();
    let complete = handshakes == traced["attempts"].as_u64() && handshakes > Some(4) && value["tracer"]["lost"] == 0;
    check(&ran, complete && traced["legs"].as_array().map(Vec::len) == Some(1), "as many handshakes as attempts")?;
    let opens = lab.wsl.counter("Tcp", "PassiveOpens")?;
    let counted = handshakes.zip(path["connections"].as_u64()).map(|(traced, plain)| traced + plain);
    check(&ran, counted.is_some_and(|counted| counted <= opens), "no more handshakes than the kernel made connections")?;
    check(&ran, leg["origin"] == "local" && leg["destination"] == server.address.as_str(), "the leg over lo")?;
    let parts = leg["parts"].as_array().ok_or("no parts")?;
    let sum: f64 = parts.iter().filter_map(|part| part["ns"].as_f64()).sum();
    let slowest = leg["handshake"]["max"].as_f64().ok_or("no time")?;
    check(&ran, parts.len() > 4 && sum > 0.0 && sum <= slowest, "parts that are no more than the whole")?;
    let text = bench_in(&lab.wsl, binary, &run)?;
    let told = String::from_utf8_lossy(&text.stdout).into_owned();
    let has = |what: &str| told.contains(what);
    check(&text, has("Where the handshakes' time went") && has("socket lookup") && has("What the tracer cost"), "a picture")?;
    // Somebody without root is told what is missing, and measures all the same.
    let mut command = Command::new(binary);
    command.arg("bench").args(run).uid(NOBODY).gid(NOBODY);
    let ran = lab.wsl.run(|| command.output().map_err(|source| LabError::Io { doing: "run as nobody".into(), source }))?;
    let said = String::from_utf8_lossy(&ran.stdout).contains("is not shown: tracing needs root");
    check(&ran, said && ran.status.success(), "that tracing needs root")
}

/// A listener that nobody accepts from, and whose queue holds no more than one connection beside the one that it is made for.
fn overflowing(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(Some(Side::Container))?;
    let container = lab.side(Side::Container)?;
    let address = SocketAddr::from((CONTAINER, PORT));
    let listener = container.run(|| {
        let failed = |source| LabError::Io { doing: "listen".into(), source };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(failed)?;
        socket.bind(&address.into()).and_then(|()| socket.listen(0)).map_err(failed)?;
        Ok(socket)
    })?;
    let run =
        ["--target", &format!("inner={address}"), "-c", "8", "-d", "300ms", "--rounds", "1", "--timeout", "300ms", "--json"];
    let ran = bench_in(&lab.wsl, binary, &run)?;
    drop(listener);
    let truth = container.counter("TcpExt", "ListenOverflows")?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let warned = value["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let told = warned.filter(|said| said.contains("(ListenOverflows)") && said.contains("the container behind")).count();
    check(&ran, truth > 0 && told == 1, &format!("where {truth} connections found no room"))?;
    let own = lab.wsl.counter("TcpExt", "ListenOverflows")?;
    check(&ran, own == 0, "that WSL's own sockets had room")
}

/// It is stopped for a while, as a busy machine would.
fn crowded(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let least = |path: &str| fs::write(path, "1").map_err(|source| LabError::Io { doing: format!("write to {path}"), source });
    lab.wsl.run(|| least("/proc/sys/net/core/somaxconn"))?;
    let mut server = Server::start(binary, Some(&lab.wsl))?;
    let address: SocketAddr = server.address.parse()?;
    server.signal(Signal::SIGSTOP)?;
    let clients = lab.wsl.run(|| {
        let begin = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
            match socket.connect(&address.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
                _ => Ok(socket),
            }
        };
        (0..8).map(|_| begin()).collect::<io::Result<Vec<_>>>().map_err(|source| LabError::Io { doing: "connect".into(), source })
    })?;
    let truth = lab.wsl.counter("TcpExt", "ListenOverflows")?;
    server.signal(Signal::SIGCONT)?;
    let said = server.says()?;
    drop(clients);
    if truth > 0 && said.contains("a listening socket of this Linux had no room for ") {
        return Ok(());
    }
    Err(format!("{truth} connections found no room, and the server said: {said}").into())
}

fn sent_again(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let (clean, lossy) = (Server::start(binary, Some(&lab.wsl))?, Server::start(binary, Some(&lab.wsl))?);
    let port = lossy.address.rsplit(':').next().ok_or("no port")?;
    // Of what has a body, now and then one is lost.
    let rule = format!("tcp sport {port} meta length > 100 limit rate 10/second drop");
    load_rule(&lab.wsl, &rule)?;
    let before = lab.wsl.counter("Tcp", "RetransSegs")?;
    let targets = [format!("clean={}", clean.address), format!("lossy={}", lossy.address)];
    let run = ["--target", &targets[0], "--target", &targets[1], "-c", "4", "-d", "1s", "--rounds", "2", "--json"];
    let ran = bench_in(&lab.wsl, binary, &run)?;
    let truth = lab.wsl.counter("Tcp", "RetransSegs")? - before;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let counted = |path: usize| value["paths"][path]["traced"]["server_sent_again"].as_u64();
    check(&ran, counted(0) == Some(0), "that the server of the path without losses sends nothing again")?;
    // The kernel's own counter holds the halves without the tracer as well.
    check(&ran, counted(1) > Some(0) && counted(1) <= Some(truth), &format!("some of the {truth} segments sent again"))
}

/// The event tells the port that the server has, which is another one than the published.
fn published(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(Some(Side::Container))?;
    let container = lab.side(Side::Container)?;
    let inner = SocketAddr::from((CONTAINER, INNER));
    let _server = Server::start_at(binary, Some(container), &inner.to_string())?;
    load_rule(&lab.wsl, &format!("tcp sport {{ {INNER}, {PORT} }} meta length > 100 limit rate 10/second drop"))?;
    let publish = format!(
        "table ip publish {{\n chain output {{\n type nat hook output priority -100\n ip daddr 172.28.16.2 tcp dport {PORT} dnat to {inner}\n }}\n}}\n"
    );
    load(&lab.wsl, &publish)?;
    let before = container.counter("Tcp", "RetransSegs")?;
    let targets = [format!("published=172.28.16.2:{PORT}"), format!("inner={inner}")];
    let run =
        ["-c", "4", "-d", "1s", "--timeout", "1s", "--rounds", "2", "--json", "--target", &targets[0], "--target", &targets[1]];
    let ran = bench_in(&lab.wsl, binary, &run)?;
    let truth = container.counter("Tcp", "RetransSegs")? - before;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let counted = |path: usize| value["paths"][path]["traced"]["server_sent_again"].as_u64();
    let (published, inner) = (counted(0).unwrap_or(0), counted(1).unwrap_or(0));
    check(&ran, published > 0 && inner > 0 && published + inner <= truth, &format!("some of the {truth} segments sent again"))?;
    let ran = bench_in(&lab.wsl, binary, &run[..11])?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let why = value["paths"][0]["traced"]["server_sent_again_unknown"].as_str().unwrap_or_default();
    check(&ran, why.contains("another port"), "that its port is not traced")
}
