//! Judges of packets and answers that waited for a neighbour's hardware address in vain.

use std::net::IpAddr;

use super::{
    Confidence,
    case::{Case, Finding},
    firewall,
    remedy::{allow_neighbours, iptables},
};
use crate::escape::{escape, shell_word};
use crate::evidence::{Backend, SharedWire, Unheard};
use crate::journey::{FREES_UNRESOLVED, Journey, Origin, Outcome, Stage};

pub(super) fn neighbour(case: &Case) -> Option<Finding> {
    if case.journey.outcome == Outcome::Forwarded {
        return super::misaddressed::sent_on(case).or_else(|| super::hardware::sent_to_nobody(case));
    }
    if let Some(finding) = super::shut_port::found(case) {
        return Some(finding);
    }
    // It would not have to be asked for.
    if super::routes::is_sought_outside(case) {
        return None;
    }
    let reasons = ["NEIGH_FAILED", "NEIGH_CREATEFAIL", "NEIGH_QUEUEFULL", "NEIGH_DEAD"];
    let waiting = case.journey.outcome == Outcome::Unfinished;
    let at_neighbour = case.journey.stages.iter().rfind(|visit| visit.stage == Stage::Neighbour);
    let removed = case.reason() == Some("QUEUE_PURGE") && case.symbol().is_some_and(|symbol| FREES_UNRESOLVED.contains(&symbol));
    let confidence = if waiting {
        at_neighbour.map(|_| Confidence::Inferred)
    } else if removed {
        Some(Confidence::Proved)
    } else {
        case.by(&reasons, &FREES_UNRESOLVED)
    }?;
    let of_answer = case.journey.outcome == Outcome::AnswerDropped || waiting && case.journey.facts.syn_ack;
    let whom = if of_answer { case.journey.answer_destination() } else { case.journey.last_destination().0 };
    let device = if waiting { at_neighbour.and_then(|visit| visit.interface.as_deref()) } else { case.interface() };
    let device = device.map(|name| format!(" on {name}")).unwrap_or_default();
    let sought = Sought { whom, of_answer, waiting, removed, device };
    let summary = sought.in_vain(case);
    if let Some((elsewhere, mend)) = super::whereabouts::elsewhere(case).filter(|_| !of_answer) {
        let look = case.root(&format!("ip route get {whom}"));
        return Some(Finding::inferred(format!("{summary}; {elsewhere}")).remedy(mend).remedy([look]));
    }
    let neighbour = case.evidence.gateway.unwrap_or(whom);
    if let Some(by) = &case.evidence.unheard {
        return Some(unheard(case, neighbour, by));
    }
    if let Some(there) = &case.evidence.deaf {
        return Some(super::deaf::deaf(case, neighbour, there));
    }
    if let Some(wire) = case.evidence.shared_wire.as_ref().filter(|_| !of_answer) {
        return Some(kept_apart(case, whom, wire));
    }
    if let Some(resident) = case.evidence.resident.as_ref().filter(|_| !removed) {
        return Some(super::resident::has_another(case, confidence, resident));
    }
    if !of_answer && case.journey.last_source().is_loopback() && !whom.is_loopback() {
        return Some(from_loopback(case, whom, &sought.device));
    }
    let finding = Finding::new(confidence, summary).remedy(case.where_to_type());
    Some(finding.remedy(sought.look(case, neighbour)).remedy(sought.start(case)))
}

/// Whose hardware address was asked for.
struct Sought {
    /// Where the packet was to go: a gateway may lead there.
    whom: IpAddr,
    /// Whether the packet was an answer.
    of_answer: bool,
    /// It still waits.
    waiting: bool,
    /// The kernel forgot the neighbour meanwhile.
    removed: bool,
    /// The interface, with a preposition; nothing where it is not known.
    device: String,
}

impl Sought {
    /// What came of the packet.
    fn in_vain(&self, case: &Case) -> String {
        let Self { whom, of_answer, waiting, removed, ref device } = *self;
        let gateway = case.evidence.gateway;
        let asked = gateway.map_or_else(|| whom.to_string(), |gateway| format!("{gateway}, the gateway to {whom},"));
        let asks = if gateway.unwrap_or(whom).is_ipv4() { "ARP" } else { "neighbour discovery" };
        // Where the container is seen to be, it has not stopped.
        let stopped = if case.evidence.whereabouts.is_some() { "" } else { ", as when a container is stopped" };
        if waiting {
            let what = if of_answer { "the answer" } else { "it" };
            let when = if gateway.is_none() { stopped } else { "" };
            format!("unfinished: {what} still waits for {asked} to answer {asks}{device}{when}")
        } else if removed {
            let what = if of_answer { "the answer" } else { "it" };
            format!(
                "dropped: {what} waited for {asked} to answer {asks}{device}, and meanwhile the kernel forgot that neighbour, as when its network or container is taken down"
            )
        } else if let Some(gateway) = gateway {
            let what = if of_answer { "the answer was dropped on the way" } else { "dropped on the way" };
            format!("{what} to {whom}: the gateway to it, {gateway}, does not answer {asks}{device}")
        } else if of_answer && whom != case.journey.flow.source {
            format!(
                "the answer was dropped: it went to {whom}, which a rule here (SNAT) has put in the place of {}, and nobody answers {asks} for {whom}{device}",
                case.journey.flow.source
            )
        } else if of_answer {
            format!(
                "the answer to {whom} was dropped: it was sought as a neighbour, without a gateway, and does not answer {asks}{device}"
            )
        } else if turns_back(case) {
            format!(
                "dropped: it is for {whom}, which this machine does not have (any longer), and which does not answer {asks}{device} either, where it came from"
            )
        } else {
            format!("dropped on the way to {whom}: it does not answer {asks}{device}{stopped}")
        }
    }

    /// Commands that show who is asked.
    fn look(&self, case: &Case, neighbour: IpAddr) -> [String; 2] {
        let whom = self.whom;
        let own = case.journey.last_destination().0;
        let from = if self.of_answer && case.evidence.has_address(own) { format!(" from {own}") } else { String::new() };
        [case.root(&format!("ip route get {whom}{from}")), case.root(&format!("ip neighbour show {neighbour}"))]
    }

    /// What has it answer.
    fn start(&self, case: &Case) -> Option<String> {
        let (whom, of_answer) = (self.whom, self.of_answer);
        match case.evidence.gateway {
            Some(gateway) => {
                Some(format!("# then see why the gateway {gateway} is not there, or let the route lead to one that is"))
            }
            None if turns_back(case) => {
                Some("# then let the client ask for an address that this machine has: ip -br address show".to_owned())
            }
            None => {
                (!of_answer).then(|| format!("# then start what had {whom}: `docker ps -a` lists containers that have stopped"))
            }
        }
    }
}

/// A neighbour that may well answer, and a rule here that keeps the question or the answer from getting through.
fn unheard(case: &Case, neighbour: IpAddr, Unheard { rule, certain }: &Unheard) -> Finding {
    let what =
        if case.journey.outcome == Outcome::AnswerDropped || case.journey.facts.syn_ack { "the answer" } else { "the packet" };
    let search = if neighbour.is_ipv4() { "ARP" } else { "neighbour discovery" };
    // The same looks at what is not known, and nothing else there can have done it.
    let though = if *certain { ":" } else { " though it is there: most likely" };
    let summary = format!(
        "{what} waited for the hardware address of {neighbour} in vain{though} {} here drops this machine's question for it, or what comes back ({search})",
        firewall::name(rule)
    );
    let allow = allow_neighbours(rule, neighbour.is_ipv6());
    Finding::inferred(summary).remedy(case.where_to_type()).remedy([case.root(&allow)])
}

/// A packet from 127.x that a rule leads out: the question for the neighbour comes from there as well, and nobody else's kernel heeds either.
fn from_loopback(case: &Case, whom: IpAddr, device: &str) -> Finding {
    let translated = case.journey.translated.as_ref();
    let rule = translated.and_then(|translated| translated.rule.as_ref());
    let by = rule.map_or_else(|| "a DNAT rule".to_owned(), firewall::name);
    let source = case.journey.last_source();
    let dropped = format!(
        "dropped on the way to {whom}: {by} leads it there with the source {source}, which no other machine or container answers, so nobody told its hardware address{device}"
    );
    if let Some(finding) = super::routing::mark_overwritten(case, &dropped) {
        return finding;
    }
    if let Some(leave) = super::routing::let_pass_by_entrance(case) {
        return Finding::inferred(dropped).remedy(case.where_to_type()).remedy([leave]);
    }
    let summary = format!("{dropped}; most likely a rule is missing that gives it this machine's address (masquerade)");
    let backend = rule.map_or(Backend::IptablesNft, |rule| rule.backend);
    let port = case.journey.last_destination().1;
    let masquerade = format!(
        "{} -t nat -A POSTROUTING -s {source} -d {whom} -p tcp --dport {port} -j MASQUERADE",
        iptables(backend, whom.is_ipv6())
    );
    Finding::inferred(summary).remedy(case.where_to_type()).remedy([case.root(&masquerade)])
}

/// Whether a client's SYN is for a machine that would be found where the SYN came from, and nothing here has led it there: mostly the
/// client asks for an address that was this machine's, as WSL's is another after each start.
fn turns_back(case: &Case) -> bool {
    let came_by = case.journey.interface.as_deref();
    let Journey { translated, origin, outcome, death, .. } = case.journey;
    let died_at = death.as_ref().and_then(|death| death.interface.as_deref());
    translated.is_none()
        && *origin == Origin::Remote
        && *outcome == Outcome::Dropped
        && came_by.is_some()
        && died_at == came_by
        && case.elsewhere_netns().is_none()
}

/// The container is here and has the address; what this machine sends by the interface below it does not come to it.
fn kept_apart(case: &Case, whom: IpAddr, SharedWire { device, kind }: &SharedWire) -> Finding {
    let search = if whom.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let summary = format!(
        "a container of this machine has {whom}, by a {kind} on {}, and this machine itself cannot reach it by that interface: the kernel keeps an interface and what stands on it apart, so nobody answered {search}",
        escape(device)
    );
    let lower = shell_word(device);
    let route = if whom.is_ipv4() { "ip route" } else { "ip -6 route" };
    let own = [
        format!("# give this machine a {kind} of its own beside the container's, and the way to it:"),
        case.root(&format!(
            "ip link add {kind}0 link {lower} type {kind}{}",
            if kind == "macvlan" { " mode bridge" } else { "" }
        )),
        case.root(&format!("ip link set {kind}0 up")),
        case.root(&format!("{route} add {whom} dev {kind}0")),
        "# or publish the port by a container network of the kind bridge (docker run -p)".to_owned(),
    ];
    Finding::inferred(summary).remedy(case.where_to_type()).remedy(own)
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, tests::dropped, tests::expect};
    use crate::evidence::{Evidence, Rule, SharedWire};
    use crate::journey::{Origin, Stage, Translated};
    use crate::output::samples::{self, ip};

    #[test]
    fn a_container_on_the_same_wire_is_no_stopped_one() {
        let waited = dropped(&[Stage::Output, Stage::Neighbour], "NEIGH_FAILED", "arp_error_report+0x1");
        let wire = SharedWire { device: "eth0".to_owned(), kind: "macvlan".to_owned() };
        let found = expect(&waited, &Evidence { shared_wire: Some(wire), ..Evidence::default() }, Code::NoNeighbour, Inferred);
        assert!(found.summary.contains("by a macvlan on eth0"), "{}", found.summary);
        assert!(found.remedy.contains(&"sudo ip link add macvlan0 link eth0 type macvlan mode bridge".to_owned()));
        assert!(!found.remedy.iter().any(|line| line.contains("docker ps")));
    }

    /// A program here asks for 127.0.0.1, and a rule leads that into a container.
    #[test]
    fn a_source_that_no_container_answers_is_no_stopped_one() {
        let mut waited = dropped(&[Stage::Output, Stage::Neighbour], "NEIGH_FAILED", "arp_error_report+0x1");
        waited.origin = Origin::Local;
        waited.translated = Some(Translated {
            source: ip("127.0.0.1"),
            source_port: 50000,
            destination: ip("172.17.0.2"),
            destination_port: 80,
            rule: Some(samples::rule()),
        });
        let found = expect(&waited, &Evidence::default(), Code::NoNeighbour, Inferred);
        assert!(found.summary.contains("with the source 127.0.0.1, which no other machine or container answers"));
        assert_eq!(
            found.remedy.last().map(String::as_str),
            Some("sudo iptables-nft -t nat -A POSTROUTING -s 127.0.0.1 -d 172.17.0.2 -p tcp --dport 80 -j MASQUERADE")
        );
        let marker = Rule { chain: "WSLOUTPUT".to_owned(), ..samples::rule() };
        let overwritten = Evidence { marked_by_wsl: Some(marker), ..Evidence::default() };
        let found = expect(&waited, &overwritten, Code::NoNeighbour, Inferred);
        assert!(found.summary.contains("was overwritten by") && found.remedy[0].contains("meta mark != 0 return"));
        // From outside, as in mirrored mode, no other source can be given to it.
        waited.origin = Origin::Remote;
        let found = expect(&waited, &Evidence::default(), Code::NoNeighbour, Inferred);
        assert!(found.remedy[0].contains("accept") || found.remedy[0].contains("ACCEPT"), "{:?}", found.remedy);
        waited.translated = waited.translated.map(|translated| Translated { source: ip("172.28.16.1"), ..translated });
        assert!(crate::diagnosis::diagnose(&waited, &Evidence::default()).summary.contains("does not answer ARP"));
    }
}
