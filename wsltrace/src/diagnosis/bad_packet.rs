//! Judges of packets that are unfit themselves: malformed, sent to many, or out of hops.

use super::{
    Confidence,
    case::{Case, Finding, TCP_RECEIVES},
};
use crate::{
    escape::shell_word,
    journey::{Outcome, Stage},
};

/// What is said of one that goes from `lo` to `lo`.
const LOOPED: &str = "a route leads it to lo, where it goes round until its time to live has run out";

/// What is said of a packet that a router may not send on.
const USED_UP: &str =
    "its time to live has run out: it came with 1, or a rule here set that, and this machine would have had to send it on";

/// TCP takes no frame that was sent to many, and none whose TCP header claims to be longer than the packet. It frees both at one place,
/// without a reason.
fn not_for_tcp(case: &Case) -> Option<Finding> {
    let at_once = case.taken_without_lookup() && case.symbol().is_some_and(|symbol| TCP_RECEIVES.contains(&symbol));
    if !at_once || case.evidence.older_connection == Some(true) {
        return None;
    }
    let or_met = if case.evidence.older_connection.is_none() { ", or it met an older connection of the same ports" } else { "" };
    let summary = format!(
        "dropped by TCP before it looked for a server: most likely its frame was sent to a broadcast or multicast hardware address (MAC), of which TCP takes nothing, or its TCP header claims to be longer than the packet{or_met}; the kernel does not tell which"
    );
    Some(compare_hardware(case, Finding::inferred(summary)))
}

/// The kernel says that a frame for many had a packet for this machine alone in it.
fn frame_to_many(case: &Case) -> Finding {
    let summary = format!(
        "dropped in {}: its frame was sent to a broadcast or multicast hardware address (MAC), and of such this machine takes nothing that is for one address (drop_unicast_in_l2_multicast is 1)",
        case.place()
    );
    compare_hardware(case, Finding::proved(summary))
}

/// What to compare where a frame went to a hardware address that is not this machine's own.
fn compare_hardware(case: &Case, finding: Finding) -> Finding {
    let destination = case.journey.flow.destination;
    let device = case.interface().map(shell_word).map(|device| case.root(&format!("ip -br link show dev {device}")));
    let compare = device.is_some().then(|| {
        format!("# on the client's machine (arp -a, or ip neighbour): the hardware address that it has for {destination} must be the one that this prints:")
    });
    finding.remedy(case.where_to_type().filter(|_| device.is_some())).remedy(compare).remedy(device)
}

/// Routing frees what has unfit addresses, and what asks in its IP header for a way that is not allowed, at one place and without a
/// reason. Of the addresses [`super::routing::martian`] has told.
fn refused_options(case: &Case) -> Option<Finding> {
    let at_route = case.died_at(&[Stage::Routing]) && matches!(case.symbol(), Some("ip_rcv_finish_core" | "ip_rcv_finish"));
    if !at_route || case.is_v6() {
        return None;
    }
    let summary = format!(
        "dropped in {}, without a reason of the kernel: its addresses are fit, so most likely its IP header asks for what this machine refuses, such as source routing (accept_source_route is 0)",
        case.place()
    );
    let advice = "# let the client leave out the IP options (the option IP_OPTIONS of its socket)".to_owned();
    Some(Finding::inferred(summary).remedy([advice]))
}

/// IPv6's routing headers ask for a way, too; the kernel takes them before TCP, and without a reason.
fn refused_routing_header(case: &Case) -> Option<Finding> {
    (case.symbol() == Some("ipv6_rthdr_rcv")).then(|| {
        Finding::inferred(
            "dropped before TCP saw it, without a reason of the kernel: most likely its IPv6 routing header asks for a way that this machine refuses (accept_source_route and seg6_enabled are 0)",
        )
    })
}

pub(super) fn bad_packet(case: &Case) -> Option<Finding> {
    if case.journey.outcome == Outcome::Answered && !case.journey.is_misfit() {
        return None;
    }
    if case.reason().is_none() {
        return not_for_tcp(case).or_else(|| refused_options(case)).or_else(|| refused_routing_header(case));
    }
    let fault = match case.reason()? {
        "UNICAST_IN_L2_MULTICAST" => return Some(frame_to_many(case)),
        "TCP_CSUM" | "SKB_CSUM" => "its TCP checksum is wrong",
        "IP_CSUM" => "the checksum of its IP header is wrong",
        "IP_INHDR" if is_used_up(case) && case.interface() == Some("lo") => LOOPED,
        "IP_INHDR" if is_used_up(case) => USED_UP,
        "IP_INHDR" => "its IP header is malformed",
        "PKT_TOO_SMALL" | "HDR_TRUNC" => "it is shorter than its headers say",
        "UNHANDLED_PROTO" if case.symbol() == Some("ip6_tlvopt_unknown") => {
            "an option in an IPv6 extension header of it asks for what this machine does not do"
        }
        "IPV6_BAD_EXTHDR" => "an IPv6 extension header of it is malformed",
        "DEV_HDR" => "its link layer header is malformed",
        "TCP_FLAGS" => "its TCP flags make no sense together",
        _ => return None,
    };
    let short_lived = fault == USED_UP;
    let lives = short_lived.then(|| longer_life(case, "on the client's machine"));
    let looped = (fault == LOOPED).then(|| case.root(&format!("ip route get {}", case.journey.last_destination().0)));
    let offload = case.interface().map(|name| case.root(&format!("ethtool -K {} tx off rx off", shell_word(name))));
    // The checksum of an IP header is never left to a device.
    let offload = offload.filter(|_| matches!(case.reason(), Some("TCP_CSUM" | "SKB_CSUM")));
    let finding = if case.journey.is_misfit() {
        Finding::misfit(Confidence::Proved, &format!("{fault} ({}{})", case.reason()?, case.on_interface()))
    } else {
        Finding::proved(format!("dropped in {}: {fault}", case.place()))
    };
    Some(
        finding
            .remedy(case.where_to_type().filter(|_| offload.is_some() || lives.is_some()))
            .remedy(lives.into_iter().flatten())
            .remedy(looped)
            .remedy(offload),
    )
}

/// Whether a packet was not sent on because of its time to live.
fn is_used_up(case: &Case) -> bool {
    case.reason() == Some("IP_INHDR") && matches!(case.symbol(), Some("ip_forward" | "ip6_forward"))
}

/// What gives packets a longer time to live; rules can set it as well.
fn longer_life(case: &Case, whose: &str) -> [String; 2] {
    let setting = if case.is_v6() { "net.ipv6.conf.all.hop_limit" } else { "net.ipv4.ip_default_ttl" };
    [
        format!("# {whose}; 64 is usual: sysctl {setting}"),
        format!("# or a rule here sets it: {}", case.root("nft list ruleset | grep -iE 'ttl|hoplimit'")),
    ]
}

/// An answer that came to this machine on its last hop, and would have had to go on.
pub(super) fn short_lived_answer(case: &Case) -> Option<Finding> {
    let used_up = is_used_up(case);
    let summary = format!("the listener answered, but its SYN-ACK was dropped in {}: {USED_UP}", case.place());
    used_up.then(|| Finding::proved(summary).remedy(longer_life(case, "where the server is, such as in its container")))
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, Confidence::Proved, routing_tests::dropped, tests::expect};
    use crate::evidence::Evidence;
    use crate::journey::{DeathPlace, Outcome, Stage};
    use crate::output::samples::{self};

    #[test]
    fn a_frame_for_many_is_told_by_the_kernels_reason() {
        let place = Some(("UNICAST_IN_L2_MULTICAST", "ip_rcv_finish_core+0x25b"));
        let journey = samples::journey(&[Stage::TcIngress, Stage::Routing], Outcome::Dropped, Some(Stage::Routing), place);
        let found = expect(&journey, &Evidence::default(), Code::BadPacket, Proved);
        assert!(found.summary.contains("sent to a broadcast or multicast hardware address"), "{}", found.summary);
    }

    #[test]
    fn an_extension_header_that_is_not_taken_is_told() {
        let told = |reason: &'static str, freed_by: &'static str, code, confidence| {
            let stages = [Stage::TcIngress, Stage::Input, Stage::SocketLookup];
            let journey = samples::journey(&stages, Outcome::Dropped, Some(Stage::SocketLookup), Some((reason, freed_by)));
            expect(&journey, &Evidence::default(), code, confidence).summary
        };
        assert!(told("UNHANDLED_PROTO", "ip6_tlvopt_unknown+0x79", Code::BadPacket, Proved).contains("IPv6 extension header"));
        assert!(told("NOT_SPECIFIED", "ipv6_rthdr_rcv+0xa08", Code::BadPacket, Inferred).contains("IPv6 routing header"));
        told("UNHANDLED_PROTO", "ip6_protocol_deliver_rcu+0x1", Code::UnexplainedDrop, Proved);
    }

    #[test]
    fn what_goes_round_on_lo_is_led_there_by_a_route() {
        let mut looped = dropped("IP_INHDR", "ip_forward+0x2c0");
        looped.death = looped.death.map(|death| DeathPlace { interface: Some("lo".into()), ..death });
        let found = expect(&looped, &Evidence::default(), Code::BadPacket, Proved);
        assert!(found.summary.contains("a route leads it to lo"), "{}", found.summary);
        assert_eq!(found.remedy, [format!("sudo ip route get {}", looped.flow.destination)]);
    }

    #[test]
    fn a_time_to_live_that_ran_out_is_no_malformed_header() {
        assert!(
            expect(&dropped("IP_INHDR", "ip_forward+0x2c0"), &Evidence::default(), Code::BadPacket, Proved)
                .summary
                .contains("time to live")
        );
        assert!(
            expect(&dropped("IP_INHDR", "ip_rcv_core+0x1"), &Evidence::default(), Code::BadPacket, Proved)
                .summary
                .contains("malformed")
        );
    }
}
