//! The judge of what was handed to the program behind a tun device, as those of VPNs.

use super::case::{Case, Finding};
use crate::escape::{escape, shell_word};
use crate::evidence::Handed;

/// What is known of the program that has the packet, or has no room for it.
pub(super) fn handed(case: &Case, handed: &Handed) -> Finding {
    if case.reason() == Some("FULL_RING") { not_read(case, handed) } else { handed_to_program(case, handed) }
}

/// It left by a tun device, and nothing came back.
fn handed_to_program(case: &Case, Handed { device, holder }: &Handed) -> Finding {
    let to = case.journey.last_destination().0;
    let device = escape(device);
    let who = match holder {
        Some((pid, command)) => format!("the program that holds {device} ({}, pid {pid})", escape(command)),
        None => format!("the program that holds {device}"),
    };
    let summary =
        format!("handed to {who}, which sent no answer: this Linux let it out, and what a VPN does with it is not seen here");
    let state = "# look at the state of that VPN: whether its other end is there, and takes what is for this address".to_owned();
    let way = format!("# if it is not to go by {device}, give it another route:");
    let get = case.root(&format!("ip route get {to}"));
    Finding::inferred(summary).remedy([state]).remedy(case.where_to_type()).remedy([way, get])
}

/// The queue of a tun device is full.
fn not_read(case: &Case, Handed { device, holder }: &Handed) -> Finding {
    let device = escape(device);
    let who = match holder {
        Some((pid, command)) => format!("{} (pid {pid}), which holds it,", escape(command)),
        None => "the program that holds it".to_owned(),
    };
    let summary = format!(
        "dropped on its way out by {device}: the queue there is full (FULL_RING), so most likely {who} does not read from it"
    );
    let look = holder
        .as_ref()
        .map(|(pid, _)| format!("# look what that program waits for (sudo strace -p {pid}), or restart it; then:"));
    let way = case.root(&format!("ip -s link show dev {}", shell_word(&device)));
    Finding::inferred(summary).remedy(case.where_to_type()).remedy(look).remedy([way])
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, tests::expect};
    use crate::evidence::{Evidence, Handed};
    use crate::journey::{Outcome, Stage};
    use crate::output::samples;

    #[test]
    fn a_program_that_does_not_read_its_tun_is_told() {
        let place = Some(("FULL_RING", "tun_net_xmit+0x1"));
        let journey = samples::journey(&[Stage::Output, Stage::TcEgress], Outcome::Dropped, Some(Stage::TcEgress), place);
        let handed = Handed { device: "tun0".to_owned(), holder: Some((412, "openvpn".to_owned())) };
        let found = expect(&journey, &Evidence { handed: Some(handed), ..Evidence::default() }, Code::UnexplainedDrop, Inferred);
        assert!(found.summary.contains("openvpn (pid 412), which holds it, does not read from it"), "{}", found.summary);
    }

    #[test]
    fn the_program_behind_a_tun_is_told_where_it_is_known() {
        let journey = samples::journey(&[Stage::Output, Stage::TcEgress], Outcome::Unfinished, None, None);
        let handed = |holder| Evidence { handed: Some(Handed { device: "tun0".to_owned(), holder }), ..Evidence::default() };
        let found = expect(&journey, &handed(Some((412, "openvpn".to_owned()))), Code::UnexplainedDrop, Inferred);
        assert!(found.summary.starts_with("handed to the program that holds tun0 (openvpn, pid 412), which sent no answer"));
        assert_eq!(found.remedy.last().map(String::as_str), Some("sudo ip route get 172.28.16.2"));
        let unknown = expect(&journey, &handed(None), Code::UnexplainedDrop, Inferred);
        assert!(unknown.summary.starts_with("handed to the program that holds tun0, which"), "{}", unknown.summary);
    }
}
