//! What a run of each of the tracer's programs takes, beside a program that does nothing on the same hook, in the same run and
//! with the same traffic. The kernel's own statistics; reading the clock twice is in every figure.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use wsltrace::lab::{Lab, LabError, PORT};
use wsltrace_tests::bpf::{Hook, Noop};
use wsltrace_tests::leftovers::{Object, held_by};

use crate::connect::{self, OTHER_PORT};
use crate::say;

const CONNECTIONS: usize = 5000;

/// The hooks, with what a program's name begins with that is attached there.
const TRACEPOINTS: [&str; 5] = ["kfree_skb", "consume_skb", "inet_sock_set_state", "tcp_send_reset", "tcp_retransmit_synack"];
const NETFILTER: [(&str, u32); 5] =
    [("nf_prerouting", 0), ("nf_input", 1), ("nf_forward", 2), ("nf_output", 3), ("nf_postrouting", 4)];

/// Time and number of runs, by the id of the program.
type Runs = BTreeMap<u32, (u64, u64)>;

/// Prints a row for each program that ran.
pub(crate) fn measure(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = connect::lab()?;
    let tracer = connect::armed_tracer(binary, &lab, "full")?;
    let ours = held_by(tracer.pid().as_raw().cast_unsigned())?;
    let idle = idle_programs(&lab)?;
    // Ends with the descriptor, so no setting outlives us, however we end.
    let statistics = enable_stats(Stats::RunTime)?;
    let start = runs()?;
    connect::median(&lab, PORT, CONNECTIONS)?;
    let between = runs()?;
    connect::median(&lab, OTHER_PORT, CONNECTIONS)?;
    let end = runs()?;
    drop(statistics);

    say(&format!("\nprograms: mean ns a run, over {CONNECTIONS} connections to the traced port and as many to another"));
    say("  program                  traced    runs   untraced    runs   no-op traced   no-op untraced");
    for (id, name) in names()? {
        if !ours.contains(&Object::Program(id)) {
            continue;
        }
        let (asked, other) = (mean(id, &start, &between), mean(id, &between, &end));
        if asked.1 + other.1 == 0 {
            continue;
        }
        let noop = idle.iter().find(|(prefix, ..)| belongs(&name, prefix)).map(|(.., noop)| noop.id()).transpose()?;
        let noop = |from, to| noop.map_or_else(|| "-".to_owned(), |id| shown(mean(id, from, to)));
        let (noop_traced, noop_other) = (noop(&start, &between), noop(&between, &end));
        say(&format!(
            "  {name:<22} {:>8} {:>7} {:>10} {:>7} {noop_traced:>14} {noop_other:>16}",
            shown(asked),
            asked.1,
            shown(other),
            other.1
        ));
    }
    tracer.stop()?;
    Ok(())
}

/// Whether a program stands at the hook of a no-op: `nf_routing` is PREROUTING's last.
fn belongs(name: &str, hook: &str) -> bool {
    name.starts_with(hook) || name == "nf_routing" && hook == "nf_prerouting" || hook.starts_with(name) && name.len() == 15
}

fn idle_programs(lab: &Lab) -> Result<Vec<(&'static str, Noop)>, LabError> {
    let failed = |source| LabError::Io { doing: "attach a program that does nothing".into(), source };
    lab.wsl.run(|| {
        let ifindex = nix::net::if_::if_nametoindex("eth0").map_err(|errno| failed(errno.into()))?;
        let netns = File::open("/proc/thread-self/ns/net").map_err(failed)?;
        let mut hooks = vec![
            ("tc_ingress", Hook::Tcx { ifindex, ingress: true }),
            ("tc_egress", Hook::Tcx { ifindex, ingress: false }),
            ("socket_lookup", Hook::SocketLookup(netns.as_raw_fd())),
        ];
        hooks.extend(NETFILTER.map(|(name, hook)| (name, Hook::Netfilter(hook))));
        hooks.extend(TRACEPOINTS.map(|name| (name, Hook::Tracepoint(name))));
        hooks.into_iter().map(|(name, hook)| Ok((name, Noop::attach(hook).map_err(failed)?))).collect()
    })
}

fn names() -> Result<BTreeMap<u32, String>, Box<dyn Error>> {
    let mut names = BTreeMap::new();
    for program in loaded_programs() {
        let program = program?;
        names.insert(program.id(), program.name_as_str().unwrap_or_default().to_owned());
    }
    Ok(names)
}

fn runs() -> Result<Runs, Box<dyn Error>> {
    let mut runs = Runs::new();
    for program in loaded_programs() {
        let program = program?;
        runs.insert(program.id(), (u64::try_from(program.run_time().as_nanos())?, program.run_count()));
    }
    Ok(runs)
}

/// Mean time of a run in ns, and how many there were.
fn mean(id: u32, from: &Runs, to: &Runs) -> (f64, u64) {
    let of = |runs: &Runs| runs.get(&id).copied().unwrap_or_default();
    let ((time_from, count_from), (time_to, count_to)) = (of(from), of(to));
    let count = count_to - count_from;
    #[expect(clippy::cast_precision_loss, reason = "a mean to a tenth of a nanosecond")]
    let mean = if count == 0 { 0.0 } else { (time_to - time_from) as f64 / count as f64 };
    (mean, count)
}

fn shown((mean, count): (f64, u64)) -> String {
    if count == 0 { "-".to_owned() } else { format!("{mean:.0}") }
}
