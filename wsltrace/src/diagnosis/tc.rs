//! Judges of drops by traffic control: filters, BPF programs and queueing disciplines of a device, and XDP.

use super::case::{Case, Finding};
use crate::{
    escape::{escape, shell_word},
    evidence::{TcProgram, XdpBeyond, is_freed_by_vlan},
    journey::Outcome,
};

pub(super) fn tc(case: &Case) -> Option<Finding> {
    if let Some(beyond) = case.evidence.xdp_beyond.as_ref().filter(|_| case.journey.outcome == Outcome::Unfinished) {
        return Some(behind_xdp(case, beyond));
    }
    if case.journey.outcome == Outcome::Dropped && is_freed_by_vlan(case.journey) {
        return Some(for_vlan_switched_off(case));
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

/// It came in with the tag of a VLAN whose interface is switched off.
fn for_vlan_switched_off(case: &Case) -> Finding {
    let on = case.interface().unwrap_or("its interface");
    let (which, mend) = match &case.evidence.down_here {
        Some(off) => (format!(", {},", escape(off)), vec![case.root(&format!("ip link set {} up", shell_word(off)))]),
        None => (String::new(), vec![case.root("ip -d link show type vlan"), "# and switch on the one that is DOWN".to_owned()]),
    };
    let summary = format!("dropped on {on}: the interface of its VLAN{which} is switched off");
    Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend)
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

#[cfg(test)]
mod tests {
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
    fn a_vlan_whose_interface_is_switched_off_is_told_with_its_name() {
        let freed = Some(("NOT_SPECIFIED", "vlan_do_receive+0x1b9"));
        let journey = samples::journey(&[Stage::TcIngress], Outcome::Dropped, Some(Stage::TcIngress), freed);
        let named = Evidence { down_here: Some("eth0.10".to_owned()), ..Evidence::default() };
        let found = expect(&journey, &named, Code::TcDrop, Inferred);
        assert_eq!(found.summary, "dropped on eth0: the interface of its VLAN, eth0.10, is switched off");
        assert_eq!(found.remedy, ["sudo ip link set eth0.10 up"]);
        assert!(!expect(&journey, &Evidence::default(), Code::TcDrop, Inferred).remedy.concat().contains("up"));
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
