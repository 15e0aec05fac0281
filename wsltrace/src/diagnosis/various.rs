//! Judges of drops outside netfilter, routing and sockets, and of what nothing else explains.

use super::{
    Confidence,
    case::{Case, Finding, TCP_RECEIVES},
    reasons::reason_page,
    stages::stage_page,
};
use crate::{
    escape::{escape, shell_word},
    evidence::{TcProgram, XdpBeyond},
    journey::{FREES_IN_ROUTING, Outcome, Stage, symbol},
};

pub(super) fn tc(case: &Case) -> Option<Finding> {
    if let Some(beyond) = case.evidence.xdp_beyond.as_ref().filter(|_| case.journey.outcome == Outcome::Unfinished) {
        return Some(behind_xdp(case, beyond));
    }
    let reasons = [
        "TC_INGRESS",
        "TC_EGRESS",
        "TC_COOKIE_ERROR",
        "TC_CHAIN_NOTFOUND",
        "TC_RECLASSIFY_LOOP",
        "QDISC_DROP",
        "QDISC_OVERLIMIT",
        "QDISC_CONGESTED",
        "XDP",
    ];
    let confidence = case.by(&reasons, &["sch_handle_ingress", "sch_handle_egress", "tcf_classify"])?;
    let what = match case.reason() {
        Some("XDP") => "an XDP program",
        Some(reason) if reason.starts_with("QDISC") => "the queueing discipline",
        _ => "a traffic control (tc) filter or a BPF program at tc",
    };
    if case.journey.is_unconfirmed() {
        let by = format!("{what}{}{}", case.on_interface(), named_at_tc(case));
        return Some(Finding::unconfirmed(&by).remedy(case.where_to_type()).remedy(mend_tc(case)));
    }
    let summary = format!("dropped by {what} in {}{}{}", case.place(), named_at_tc(case), queue_of(case));
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy(mend_tc(case)))
}

/// It went into a container, and was not seen again.
fn behind_xdp(case: &Case, XdpBeyond { netns, entrance, device }: &XdpBeyond) -> Finding {
    let left = case.journey.stages.last().and_then(|visit| visit.interface.as_deref()).unwrap_or("its device");
    let summary = format!(
        "it left by {} for network namespace {netns}, where an XDP program on {} takes packets before anything that is seen, and it was not seen again: most likely that program drops it",
        escape(left),
        escape(device)
    );
    let word = shell_word(device);
    let there = entrance.as_ref().map(|entrance| format!("{entrance} ")).unwrap_or_default();
    let look = format!("sudo {there}bpftool net show dev {word}");
    let off = format!("# if it is not wanted there: sudo {there}ip link set dev {word} xdp off");
    Finding::inferred(summary).remedy(entrance.as_ref().map(|_| [look, off]).into_iter().flatten())
}

/// What is said of one that goes from `lo` to `lo`.
const LOOPED: &str = "a route leads it to lo, where it goes round until its time to live has run out";
/// What is said of a packet that a router may not send on.
const USED_UP: &str =
    "its time to live has run out: it came with 1, or a rule here set that, and this machine would have had to send it on";
/// Queueing disciplines that the kernel itself gives devices.
const OWN_QDISCS: [&str; 6] = ["noqueue", "noop", "pfifo_fast", "fq_codel", "mq", "fq"];

/// What is known of the device whose queueing discipline dropped it.
pub(super) fn queue_of(case: &Case) -> String {
    let Some(queue) = case.evidence.queue.as_ref().filter(|_| case.reason().is_some_and(|reason| reason.starts_with("QDISC")))
    else {
        return String::new();
    };
    match (queue.up, &queue.qdisc) {
        (false, _) => "; that interface is down".to_owned(),
        (true, _) if !queue.carrier && queue.is_bridge => without_ports(case),
        (true, _) if !queue.carrier => {
            "; that interface has no carrier, as when the program that serves it, such as a VPN's, does not run".to_owned()
        }
        (true, Some(kind)) => format!("; it is `{}`", escape(kind)),
        (true, None) => String::new(),
    }
}

/// A bridge that has nobody to send to.
fn without_ports(case: &Case) -> String {
    let none = "; that interface is a bridge, and none of its ports has a carrier";
    match &case.evidence.down {
        Some(down) => format!(
            "{none}: behind it, {} of network namespace {}, which has {}, is switched off",
            escape(&down.device),
            down.netns,
            case.journey.last_destination().0
        ),
        None => format!("{none}, as when the container behind it is stopped or its interface is switched off"),
    }
}

fn mend_ports(case: &Case, bridge: &str) -> Vec<String> {
    let on = case.evidence.down.as_ref().and_then(|down| {
        let entrance = down.entrance.as_ref()?;
        let up = format!("sudo {entrance} ip link set {} up", shell_word(&down.device));
        let routes =
            "# its routes went when it was switched off: restarting the container (docker restart) brings both back".to_owned();
        Some([up, routes])
    });
    let see =
        [case.root(&format!("ip -br link show master {bridge}")), "# and whether the container runs: docker ps -a".to_owned()];
    on.into_iter().flatten().chain(see).collect()
}

/// Commands against what dropped it at tc or in the queue of its device.
pub(super) fn mend_tc(case: &Case) -> Vec<String> {
    let queued = case.reason().is_some_and(|reason| reason.starts_with("QDISC"));
    let queue = case.evidence.queue.as_ref().filter(|_| queued).zip(case.interface().map(shell_word));
    match queue {
        Some((queue, device)) if !queue.up => vec![case.root(&format!("ip link set {device} up"))],
        Some((queue, device)) if !queue.carrier && queue.is_bridge => mend_ports(case, &device),
        Some((queue, device)) if !queue.carrier => vec![
            case.root(&format!("ip -d link show dev {device}")),
            format!("# start the program that serves {device} (a VPN, a virtual machine), or take the route by {device} away"),
        ],
        Some((queue, device)) if queue.qdisc.as_ref().is_some_and(|kind| !OWN_QDISCS.contains(&kind.as_str())) => {
            vec![case.root(&format!("tc -s qdisc show dev {device}")), case.root(&format!("tc qdisc del dev {device} root"))]
        }
        _ => detach(case).into_iter().chain(show_tc(case)).collect(),
    }
}

/// The programs that could have done it: XDP programs and queueing disciplines stand elsewhere.
fn suspects<'a>(case: &Case<'a>) -> &'a [TcProgram] {
    if matches!(case.reason(), Some("TC_INGRESS" | "TC_EGRESS")) { &case.evidence.tc_programs } else { &[] }
}

/// Which programs could have done it, if there are any.
pub(super) fn named_at_tc(case: &Case) -> String {
    let names: Vec<String> = suspects(case).iter().map(|program| format!("`{}`", escape(&program.name))).collect();
    match names.as_slice() {
        [] => String::new(),
        [name] => format!("; the BPF program {name} is attached there"),
        names => format!("; the BPF programs {} are attached there", names.join(", ")),
    }
}

/// Detaches the program at tc, where there is only one and a link holds it. A filter of tc may stand there as well.
fn detach(case: &Case) -> Vec<String> {
    let [program] = suspects(case) else { return Vec::new() };
    let Some(link) = program.link else { return Vec::new() };
    let when = format!("# if no filter of tc did it (see below), this detaches `{}`:", escape(&program.name));
    vec![when, case.root(&format!("bpftool link detach id {link}"))]
}

/// Commands that show the traffic control of the device of the death; none when its name is not known.
fn show_tc(case: &Case) -> Vec<String> {
    let Some(device) = case.interface().map(shell_word) else { return Vec::new() };
    let show = ["filter", "filter", "qdisc"].into_iter().zip([" ingress", " egress", ""]);
    show.map(|(what, side)| case.root(&format!("tc -s {what} show dev {device}{side}")))
        .chain([case.root(&format!("bpftool net show dev {device}"))])
        .chain(["# then take the filter or program away with the tool that put it there".to_owned()])
        .collect()
}

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

/// Why the kernel freed it, by its reason and its function.
fn kernels_words(case: &Case) -> (Confidence, String) {
    let freed_by = case.journey.location.as_ref().map(|location| format!(" in {location}")).unwrap_or_default();
    let (confidence, why) = match (case.reason(), case.reason().and_then(reason_page)) {
        (Some(reason), Some(page)) => (Confidence::Proved, format!("{reason}, {}", page.short)),
        (Some(reason), None) => (Confidence::Proved, format!("the kernel's reason is {reason}")),
        (None, _) => (Confidence::Inferred, "the kernel gives no reason".to_owned()),
    };
    (confidence, format!("{why}{freed_by}"))
}

/// What was answered, and came to nothing as the confirmation was unfit or led nowhere.
fn led_nowhere(case: &Case) -> Finding {
    let (confidence, why) = kernels_words(case);
    let at_routing = case.journey.location.as_deref().is_some_and(|place| FREES_IN_ROUTING.contains(&symbol(place)))
        || case.reason().is_some_and(|reason| reason.starts_with("NEIGH_") || reason.starts_with("IP_"));
    let look = at_routing.then(|| super::routes::show_marks(case));
    Finding::misfit(confidence, &why).remedy(case.where_to_type()).remedy(look.into_iter().flatten())
}

/// The last row: says what is known about a drop that no other row explains.
pub(super) fn unexplained(case: &Case) -> Finding {
    if let Some(handed) = &case.evidence.handed {
        return super::handed::handed(case, handed);
    }
    if case.journey.outcome == Outcome::Unfinished {
        let place = case.journey.stages.last().map_or("an unknown place", |visit| stage_page(visit.stage).place);
        return Finding::inferred(format!("last seen in {place}; no end of it was seen in time, so why is not known"));
    }
    let (confidence, why) = kernels_words(case);
    Finding::new(confidence, format!("dropped in {}: {why}", case.place())).remedy(look(case))
}

fn look(case: &Case) -> Option<String> {
    match case.journey.died_at? {
        Stage::TcIngress | Stage::TcEgress => case.interface().map(|name| format!("ip -s -s link show dev {}", shell_word(name))),
        Stage::Routing => Some(case.root(&format!("ip route get {}", case.journey.last_destination().0))),
        Stage::SocketLookup | Stage::Listener => Some("nstat -az".to_owned()),
        _ => None,
    }
}

pub(super) fn any_drop(case: &Case) -> Option<Finding> {
    if case.journey.outcome == Outcome::Answered {
        return case.journey.is_misfit().then(|| led_nowhere(case));
    }
    Some(unexplained(case))
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::routing_tests::dropped;
    use crate::diagnosis::{Code, Confidence::Inferred, Confidence::Proved, tests::expect};
    use crate::evidence::{Down, Evidence, Queue, XdpBeyond};
    use crate::journey::{DeathPlace, Outcome, Stage};
    use crate::output::samples::{self, journey};

    #[test]
    fn an_xdp_program_in_the_container_is_told_where_nothing_came_out_of_it() {
        let journey = samples::journey(&[Stage::TcIngress, Stage::TcEgress], Outcome::Unfinished, None, None);
        let beyond =
            |entrance: Option<&str>| XdpBeyond { netns: 7, entrance: entrance.map(str::to_owned), device: "eth0".to_owned() };
        let with = |entrance| Evidence { xdp_beyond: Some(beyond(entrance)), ..Evidence::default() };
        let found = expect(&journey, &with(Some("nsenter -t 412 -n")), Code::TcDrop, Inferred);
        assert!(found.summary.contains("an XDP program on eth0"), "{}", found.summary);
        assert_eq!(found.remedy.first().map(String::as_str), Some("sudo nsenter -t 412 -n bpftool net show dev eth0"));
        // Without the way in, the command would look at another machine's eth0.
        assert!(expect(&journey, &with(None), Code::TcDrop, Inferred).remedy.is_empty());
    }

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

    #[test]
    fn a_queue_that_drops_is_told_with_its_device() {
        let mut full = journey(
            &[Stage::Output, Stage::TcEgress],
            Outcome::Dropped,
            Some(Stage::TcEgress),
            Some(("QDISC_DROP", "__dev_queue_xmit+0xdd1")),
        );
        full.death = full.death.map(|death| DeathPlace { interface: Some("eth0".into()), ..death });
        let with = |up, qdisc: Option<&str>| Evidence {
            queue: Some(Queue { up, carrier: true, qdisc: qdisc.map(str::to_owned), is_bridge: false }),
            ..Evidence::default()
        };
        let queue = Some(Queue { up: true, carrier: false, qdisc: Some("pfifo_fast".to_owned()), is_bridge: false });
        let alone = expect(&full, &Evidence { queue, ..Evidence::default() }, Code::TcDrop, Proved);
        assert!(alone.summary.contains("no carrier") && !alone.summary.contains("pfifo_fast"), "{}", alone.summary);
        let bridge = Queue { up: true, carrier: false, qdisc: Some("noqueue".to_owned()), is_bridge: true };
        let bridge = Evidence { queue: Some(bridge), ..Evidence::default() };
        let alone = expect(&full, &bridge, Code::TcDrop, Proved);
        assert!(alone.summary.contains("none of its ports has a carrier") && !alone.summary.contains("VPN"), "{}", alone.summary);
        assert_eq!(alone.remedy[0], "sudo ip -br link show master eth0");
        let down = Down { netns: 7, entrance: Some("nsenter -t 412 -n".to_owned()), device: "eth0".to_owned() };
        let off = expect(&full, &Evidence { down: Some(down), ..bridge }, Code::TcDrop, Proved);
        assert!(off.summary.contains("eth0 of network namespace 7, which has 172.28.16.2, is switched off"), "{}", off.summary);
        assert_eq!(off.remedy[0], "sudo nsenter -t 412 -n ip link set eth0 up");
        assert_eq!(expect(&full, &with(false, Some("noop")), Code::TcDrop, Proved).remedy, ["sudo ip link set eth0 up"]);
        assert_eq!(expect(&full, &with(true, Some("tbf")), Code::TcDrop, Proved).remedy[1], "sudo tc qdisc del dev eth0 root");
        assert!(
            !expect(&full, &with(true, Some("fq_codel")), Code::TcDrop, Proved).remedy.concat().contains("qdisc del"),
            "the kernel's own"
        );
    }
}
