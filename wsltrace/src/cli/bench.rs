//! What can be typed behind `wsltrace bench`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{
    parse_clients, parse_duration, parse_listen, parse_payload, parse_port, parse_rate, parse_rounds, parse_seed,
};
use crate::bench::target::Target as BenchTarget;

/// What clients of a benchmark do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BenchMode {
    /// Connect and close
    Connect,
    /// Request / by HTTP/1.1
    #[default]
    Http,
}

/// Whether connections are used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KeepAlive {
    /// Used for many requests
    On,
    /// A new one for each request
    #[default]
    Off,
    /// Both, as paths of their own
    Both,
}

/// What says something of clients, and nothing to a server.
const CLIENTS_ONLY: [&str; 14] = [
    "targets",
    "clients",
    "duration",
    "rounds",
    "rate",
    "mode",
    "keep_alive",
    "timeout",
    "seed",
    "no_trace",
    "json",
    "csv",
    "hlog",
    "force",
];

/// What to measure.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct BenchArgs {
    /// A way to the server, such as direct=172.28.20.5:8080; the first is the baseline
    #[arg(long = "target", value_name = "[NAME=]HOST:PORT")]
    pub targets: Vec<BenchTarget>,
    /// How many clients at once
    #[arg(short, long, value_name = "NUMBER", default_value = "1000", value_parser = parse_clients)]
    pub clients: u32,
    /// How long to measure each path
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, default_value = "60s")]
    pub duration: Duration,
    /// Into how many rounds that time is divided [default: 8, or fewer for a short time]
    #[arg(long, value_name = "NUMBER", value_parser = parse_rounds)]
    pub rounds: Option<u32>,
    /// Attempts a second, begun whether or not earlier ones have ended; times then count from when an attempt was due
    #[arg(long, value_name = "NUMBER", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// What the clients do
    #[arg(long, value_enum, default_value_t)]
    pub mode: BenchMode,
    /// Whether a connection is used for more than one request
    #[arg(long, value_enum, default_value_t)]
    pub keep_alive: KeepAlive,
    /// How long an attempt may take
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub timeout: Duration,
    /// Draw the order of the paths by this number, as an earlier run did
    #[arg(long, value_name = "NUMBER", value_parser = parse_seed)]
    pub seed: Option<u64>,
    /// Do not trace the handshakes beside it, which takes as long again
    #[arg(long)]
    pub no_trace: bool,
    /// Run the clients on Windows, where portproxy and the localhost relay are met (not tried on a real Windows yet)
    #[arg(long, conflicts_with_all = ["serve", "rate", "hlog"])]
    pub from_windows: bool,
    /// With --from-windows and no target: the server's port; the ways to it that are known are measured
    #[arg(long, value_name = "PORT", requires = "from_windows", value_parser = parse_port, conflicts_with = "targets")]
    pub port: Option<u16>,
    /// With --from-windows: print the PowerShell script instead of running it
    #[arg(long, requires = "from_windows")]
    pub print_script: bool,
    /// With --from-windows: read what that script answered from a file instead of running it
    #[arg(long, value_name = "FILE", requires = "from_windows", conflicts_with_all = ["print_script", "targets", "port"])]
    pub answer: Option<PathBuf>,
    /// Be the server instead: answer on this address, such as 0.0.0.0:8080
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_listen, conflicts_with_all = CLIENTS_ONLY)]
    pub serve: Option<SocketAddr>,
    /// With --serve: bytes of the answers
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = parse_payload, conflicts_with_all = ["targets", "from_windows"])]
    pub payload: usize,
    /// One JSON object
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Say what changed since an earlier run, from what its --json printed
    #[arg(long, value_name = "OLD.json", conflicts_with_all = ["json", "csv", "serve"])]
    pub compare: Option<PathBuf>,
    /// Write the times of every round too, for the tools of `HdrHistogram`
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Write a page too, with histograms and where the handshakes' time went
    #[arg(long, value_name = "FILE", conflicts_with = "serve")]
    pub html: Option<PathBuf>,
    /// Overwrite files that --hlog and --html name
    #[arg(long)]
    pub force: bool,
    /// The table as CSV
    #[arg(long)]
    pub csv: bool,
}
