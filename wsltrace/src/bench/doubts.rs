//! What is to be doubted of single paths, each in a sentence with what helps: failures, answers that are errors, attempts that are in no
//! figure.

use std::net::SocketAddr;

use super::attempt::Failure;
use super::rounds::{Path, Plan};
use crate::units::duration;

/// How many attempts found no free port on the client's side.
pub fn no_port(paths: &[Path]) -> u64 {
    paths.iter().filter_map(|path| path.total().failed.get(&Failure::NoPort).copied()).sum()
}

/// What is wrong with single paths.
pub fn told_of_paths(plan: &Plan, paths: &[Path], interrupted: bool) -> Vec<String> {
    let many = plan.modes.len() > 1;
    let mut told = Vec::new();
    for path in paths {
        let (total, name) = (path.total(), path.name(many));
        if total.attempts() == 0 && total.not_begun == 0 && !interrupted {
            told.push(format!("no attempt at {name} ended within the time: measure for longer (-d)"));
        }
        if total.waited.is_empty() && total.attempts() > 0 {
            let within = if path.given_up {
                format!(" within {} s, so it was given up after the warm-up", plan.limit.as_secs_f64())
            } else {
                String::new()
            };
            let address = path.target.address;
            told.push(format!("no attempt at {name} ({address}) was answered{within}: {}", advice(address)));
        }
        let (failures, attempts) = (total.failures(), total.attempts());
        if failures > 0 && !total.waited.is_empty() {
            told.push(format!(
                "{failures} of {attempts} attempts at {name} failed: the times are those of the answered ones alone, and say nothing of the others"
            ));
        }
        let (errors, answers) = (total.errors, total.waited.len());
        if errors > 0 {
            told.push(format!(
                "{errors} of {answers} answers of {name} have the status of an error (400 or above): a page of an error may be quicker to make than the page. Does the server answer GET / ?"
            ));
        }
        if total.gave_up_the_longest() {
            told.push(format!(
                "{} attempts at {name} were under way when the run was ended, the longest for {}: longer than any that was answered, and not in the times",
                total.given_up,
                duration(u64::try_from(total.given_up_after.as_nanos()).unwrap_or(u64::MAX))
            ));
        }
        let missed = total.not_begun;
        if missed > 0 {
            told.push(format!(
                "{missed} attempts at {name} were due and no client was free for them: the times leave out the longest waits; more clients (-c) or a lower --rate"
            ));
        }
    }
    told
}

/// Where to look for what does not answer.
fn advice(address: SocketAddr) -> String {
    // Only an address of this machine can be bound to.
    if std::net::UdpSocket::bind((address.ip(), 0)).is_ok() {
        return format!("is the server there? wsltrace doctor --port {} tells", address.port());
    }
    format!(
        "{} is no address of this Linux: is the server there, and does a firewall on the way let port {} through?",
        address.ip(),
        address.port()
    )
}
