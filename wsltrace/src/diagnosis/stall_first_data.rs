//! Connections whose client got nothing through: the first data that it sent was seen to die here.

use super::super::remedy::iptables;
use super::{Cause, Stall};
use crate::escape::{escape, shell_word};
use crate::evidence::{Backend, Connection, Obstacle, TcProgram};
use crate::journey::{DataDrop, Journey};

/// What is said where nothing has come through since.
pub(super) fn dropped(journey: &Journey, by: DataDrop, obstacle: &Obstacle) -> Stall {
    match by {
        DataDrop::Firewall => by_firewall(journey),
        DataDrop::TcIngress | DataDrop::TcEgress => at_tc(journey, by == DataDrop::TcIngress, &obstacle.programs),
        DataDrop::TooLarge => too_large(journey, obstacle.narrow.as_ref()),
    }
}

fn on(journey: &Journey) -> String {
    journey.interface.as_deref().map(|interface| format!(" on {}", escape(interface))).unwrap_or_default()
}

fn by_firewall(journey: &Journey) -> Stall {
    let on = on(journey);
    let summary = format!(
        "connected, but a firewall here dropped the first data that the client sent{on}, and nothing has come through since: the client waits for an answer that the server does not know of; which rule is not known"
    );
    let remedy = vec![
        "# it passes what makes a connection, and drops data: look for rules with a length, a string, flags (psh), a limit"
            .to_owned(),
        "sudo nft -a list ruleset".to_owned(),
        "sudo iptables-legacy-save -c".to_owned(),
    ];
    Stall { cause: Cause::DataDropped, summary, remedy }
}

fn at_tc(journey: &Journey, ingress: bool, programs: &[TcProgram]) -> Stall {
    let on = if ingress { on(journey) } else { String::new() };
    let names: Vec<String> = programs.iter().map(|program| format!("`{}`", escape(&program.name))).collect();
    let attached = match names.as_slice() {
        [] => String::new(),
        [name] => format!(" (the BPF program {name} is attached there)"),
        names => format!(" (the BPF programs {} are attached there)", names.join(", ")),
    };
    let summary = format!(
        "connected, but a filter of traffic control (tc) or a BPF program at tc dropped the first data that the client sent{on}{attached}, and nothing has come through since: the client waits for an answer that the server does not know of"
    );
    let link = if let [TcProgram { link, .. }] = programs { *link } else { None };
    let detach = link.map(|link| {
        [
            "# if no filter of tc did it (see below), this detaches that program:".to_owned(),
            format!("sudo bpftool link detach id {link}"),
        ]
    });
    let device = journey.interface.as_deref().filter(|_| ingress).map(shell_word);
    let look = match device {
        Some(device) => [format!("sudo tc -s filter show dev {device} ingress"), format!("sudo bpftool net show dev {device}")],
        None => [
            "sudo bpftool net show".to_owned(),
            "# and for each device on its way: tc -s filter show dev DEVICE egress".to_owned(),
        ],
    };
    Stall { cause: Cause::DataDropped, summary, remedy: detach.into_iter().flatten().chain(look).collect() }
}

/// Has both ends of new connections send what fits through.
fn clamp(journey: &Journey) -> String {
    let program = iptables(Backend::IptablesNft, journey.flow.source.is_ipv6());
    format!("sudo {program} -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu")
}

/// A container's packets are larger than the device takes by which this machine sends them on.
pub(super) fn too_large_back(journey: &Journey, connection: &Connection, device: &str, mtu: u32) -> Stall {
    let Connection { retransmissions, path_mtu, .. } = connection;
    let device = escape(device);
    let error = if journey.flow.source.is_ipv6() { "packet too big" } else { "fragmentation needed" };
    let summary = format!(
        "connected, but the server's packets of full size ({path_mtu} bytes) are larger than {device} takes (its MTU is {mtu}), by which this machine sends them on: the first was sent again {retransmissions} times, so most likely the ICMP error that would tell the server's side so ({error}) does not reach it"
    );
    let remedy = vec![
        "# have both sides of new connections agree on packets that fit:".to_owned(),
        clamp(journey),
        format!(
            "# or give the container's network that MTU: docker network create -o com.docker.network.driver.mtu={mtu} NETWORK"
        ),
    ];
    Stall { cause: Cause::PathMtu, summary, remedy }
}

fn too_large(journey: &Journey, narrow: Option<&(String, u32)>) -> Stall {
    let by = narrow.map_or_else(
        || "its device".to_owned(),
        |(device, mtu)| format!("{}, which takes packets of at most {mtu} bytes (its MTU)", escape(device)),
    );
    let error = if journey.flow.source.is_ipv6() { "packet too big" } else { "fragmentation needed" };
    let summary = format!(
        "connected, but the first data that the client sent was too large to be sent on by {by}, so it was dropped here, and nothing has come through since: most likely the ICMP error that would tell the client so ({error}) does not reach it"
    );
    let remedy = vec![
        "# have both sides agree on packets that fit:".to_owned(),
        clamp(journey),
        format!(
            "# or let the ICMP errors out by which this machine tells of it ({error}), in OUTPUT and on the way to the client"
        ),
    ];
    Stall { cause: Cause::PathMtu, summary, remedy }
}

#[cfg(test)]
mod tests {
    use super::super::tests::FLOWS;
    use super::super::{Lately, stall};
    use super::*;
    use crate::journey::{Facts, Outcome, Stage};
    use crate::output::samples;

    const NOTHING: Connection = Connection { received_bytes: 0, ..FLOWS };

    fn journey(by: Option<DataDrop>) -> Journey {
        let journey = samples::journey(&[Stage::TcIngress, Stage::Established], Outcome::Answered, None, None);
        Journey { facts: Facts { data_dropped: by, ..journey.facts }, ..journey }
    }

    fn judged(by: DataDrop, obstacle: Obstacle) -> Option<Stall> {
        stall(&journey(Some(by)), &NOTHING, &Lately { obstacle, ..Lately::default() })
    }

    #[test]
    fn data_that_was_dropped_is_a_stall_until_something_comes_through() {
        for by in [DataDrop::Firewall, DataDrop::TcIngress, DataDrop::TcEgress, DataDrop::TooLarge] {
            let cause = if by == DataDrop::TooLarge { Cause::PathMtu } else { Cause::DataDropped };
            assert_eq!(judged(by, Obstacle::default()).map(|stall| stall.cause), Some(cause));
            assert_eq!(stall(&journey(Some(by)), &FLOWS, &Lately::default()), None);
        }
        assert_eq!(stall(&journey(None), &NOTHING, &Lately::default()), None, "a client that has nothing to say");
    }

    #[test]
    fn the_only_program_at_tc_is_detached_and_of_several_none() {
        let program = |link| TcProgram { name: "vpn".to_owned(), link: Some(link) };
        let with = |programs| judged(DataDrop::TcIngress, Obstacle { programs, ..Obstacle::default() }).map(|stall| stall.remedy);
        let detaches = |remedy: &Vec<String>| remedy.iter().any(|line| line == "sudo bpftool link detach id 7");
        assert!(with(vec![program(7)]).is_some_and(|remedy| detaches(&remedy)));
        assert!(with(vec![program(7), program(8)]).is_some_and(|remedy| !detaches(&remedy)));
    }

    #[test]
    fn a_containers_packets_that_are_too_large_for_the_way_back_are_told_with_the_device() {
        let sent = Connection { retransmissions: 3, unconfirmed: 4, unconfirmed_bytes: 5000, silent_ms: 1500, ..FLOWS };
        let judged = |mtu| {
            let obstacle = Obstacle { narrow_back: Some(("eth0".to_owned(), mtu)), ..Obstacle::default() };
            stall(&journey(None), &sent, &Lately { obstacle, ..Lately::default() })
        };
        let found = judged(1000);
        assert!(found.is_some_and(|found| found.cause == Cause::PathMtu && found.summary.contains("larger than eth0 takes")));
        assert_eq!(judged(1500), None, "it carries them");
    }

    #[test]
    fn what_is_too_large_is_told_with_the_device() {
        let narrow = Some(("br0".to_owned(), 600));
        let found = judged(DataDrop::TooLarge, Obstacle { narrow, ..Obstacle::default() });
        assert!(found.is_some_and(|found| found.summary.contains("br0, which takes packets of at most 600 bytes")));
    }
}
