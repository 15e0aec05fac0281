//! Rules that a program keeps in lists of its own: an exception beside them would not hold, or would let in more than this client.
//! Each program has a file.

mod bans;
mod docker;
mod firewalld;
mod kubernetes;
mod ufw;

#[cfg(test)]
mod tests;

use super::remedy::Obstacle;
use super::vpn;
use crate::evidence::Owner;

/// How a program's rule is mended; `None` for a rule of another's, or one beside which an exception holds.
type Mend = fn(&Obstacle<'_>) -> Option<Vec<String>>;

/// In the order in which they are asked: the first that knows the rule has it.
const MENDS: [Mend; 6] = [bans::mend, kubernetes::mend, vpn::mend, docker::mend, ufw::mend, firewalld::mend];

/// The commands of the program that made the rule, where only that program mends it.
pub(super) fn mend(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    MENDS.iter().find_map(|mend| mend(obstacle))
}

/// The command by which the manager of a rule opens the port, most lasting last.
pub(super) fn open(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    match obstacle.rule.owner {
        Owner::Ufw => Some(ufw::open(obstacle)),
        Owner::Firewalld => Some(firewalld::open(obstacle)),
        Owner::Docker => docker::open(obstacle),
        _ => None,
    }
}

/// Whether the packets leave this machine, where they were made.
fn is_outgoing(obstacle: &Obstacle<'_>) -> bool {
    let chain = obstacle.rule.chain.as_str();
    !obstacle.forward && (chain == "OUTPUT" || ["-output", "_OUT_", "_OUTPUT"].iter().any(|part| chain.contains(part)))
}

/// The commands where the program is not here that gives its rules such names: another distro has it, or they were left behind.
pub(super) fn missing(obstacle: &Obstacle<'_>) -> Vec<String> {
    let program = obstacle.rule.owner.program().unwrap_or_default();
    let delete = if obstacle.is_its_own() { obstacle.delete() } else { None };
    let by_hand = delete.map_or_else(|| obstacle.except(), |delete| vec![delete]);
    let head =
        format!("# that is for the distro that has {program}; where none has, it left its rules behind, and by hand it is:");
    obstacle.mend().into_iter().chain([head]).chain(by_hand.into_iter().map(|line| format!("# sudo {line}"))).collect()
}
