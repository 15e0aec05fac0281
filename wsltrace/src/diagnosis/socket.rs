//! Judges of what the listeners did: none there, bound elsewhere, or too picky.

use std::net::IpAddr;

use super::{
    Confidence,
    case::{Case, Finding, endpoint},
    listener::{Mismatch, first, mismatch, nearest, owner_of, who},
    rebind,
};
use crate::escape::{escape, shell_word};
use crate::journey::{Origin, Outcome};

pub(super) fn bound_elsewhere(case: &Case) -> Option<Finding> {
    if !case.journey.met_no_socket() || case.was_answered_beyond() {
        return None;
    }
    let listener = nearest(case, Mismatch::Address)?;
    let (address, port) = case.journey.last_destination();
    let all = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    let bound = endpoint(listener.address, listener.port);
    let gone = !case.evidence.addresses.is_empty() && !case.evidence.has_address(listener.address.to_canonical());
    let gone_now = if gone { ", which is no address of this machine (any longer)" } else { "" };
    let summary =
        format!("refused: {} listens on {bound} only{gone_now}, and the client asked for {}", who(listener), asked(case));
    // An address of IPv4 in the words of IPv6 is none for an IPv4 socket of socat.
    let bound = endpoint(listener.address.to_canonical(), listener.port);
    let bridge = format!(
        "# until then, if socat is installed:\nsocat TCP{}-LISTEN:{port},bind={},fork,reuseaddr TCP{}:{bound}",
        family(address),
        bracketed(address),
        family(listener.address.to_canonical()),
    );
    let bridge = bridge.lines().map(str::to_owned).collect::<Vec<_>>();
    // A socat in another namespace would listen in the wrong one; a loopback destination cannot be another address of ours.
    // Of a link-local one socat wants the interface as well.
    let scoped = [address, listener.address].into_iter().any(|one| matches!(one, IpAddr::V6(one) if one.is_unicast_link_local()));
    let here = case.elsewhere_netns().is_none() && !address.is_loopback() && !gone && !scoped;
    let bridge = if here { bridge } else { Vec::new() };
    Some(certain(case, summary).remedy(rebind::advice(case, listener, all)).remedy(bridge))
}

/// How socat calls the family of an address: the wrong one cannot be bound to, nor connected to.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "4" } else { "6" }
}

pub(super) fn other_family(case: &Case) -> Option<Finding> {
    if !case.journey.met_no_socket() || case.was_answered_beyond() {
        return None;
    }
    let listener = nearest(case, Mismatch::Family)?;
    let wants_v4 = case.journey.last_destination().0.is_ipv4();
    let (has, wants, start) = if wants_v4 {
        ("IPv6 only", "IPv4", "0.0.0.0 or with its IPv6-only option off")
    } else {
        ("IPv4 only", "IPv6", ":: (all IPv6 addresses)")
    };
    let summary = format!(
        "refused: {} listens on {} for {has}, and the client came by {wants}",
        who(listener),
        endpoint(listener.address, listener.port)
    );
    let advice = if rebind::listens_for_others(listener) {
        rebind::advice(case, listener, if wants_v4 { "0.0.0.0" } else { "::" })
    } else {
        vec![format!("# stop {} and start it again on {start}", who(listener))]
    };
    let only = case.sysctl("net.ipv6.bindv6only").filter(|value| *value == "1" && wants_v4);
    let sysctl = only.map(|_| case.root("sysctl -w net.ipv6.bindv6only=0"));
    Some(certain(case, summary).remedy(sysctl).remedy(advice))
}

pub(super) fn policy(case: &Case) -> Option<Finding> {
    if case.was_answered_beyond() {
        return None;
    }
    if case.journey.met_no_socket() {
        return refused_by_device(case)
            .or_else(|| refused_by_vrf(case))
            .or_else(|| refused_by_program(case))
            .or_else(|| refused_by_choice(case));
    }
    if case.reason().is_none() {
        return refused_by_ipsec(case).or_else(|| super::ipsec::refused_without_reason(case));
    }
    let refusal = match case.reason()? {
        "SOCKET_FILTER" => return Some(refused_by_filter(case)),
        "TCP_MD5NOTFOUND" => "the listener wants an MD5 signature and the SYN has none",
        "TCP_MD5UNEXPECTED" | "TCP_MD5FAILURE" => "its MD5 signature does not fit the listener's keys",
        "TCP_AONOTFOUND" => "the listener wants a TCP-AO signature and the SYN has none",
        "TCP_AUTH_HDR" | "TCP_AOUNEXPECTED" | "TCP_AOKEYNOTFOUND" | "TCP_AOFAILURE" => {
            "its TCP-AO signature does not fit the listener's keys"
        }
        "TCP_MINTTL" => "its TTL is below the least that the listener takes (IP_MINTTL)",
        "SECURITY_HOOK" => "a security module (SELinux, AppArmor) refused it",
        "XFRM_POLICY" => return Some(super::ipsec::refused(case)),
        "BPF_CGROUP_EGRESS" => return refused_to_client(case),
        _ => return None,
    };
    let port = case.journey.last_destination().1;
    let look = format!("ss -ltnpe 'sport = :{port}'");
    let finding = if case.journey.is_unconfirmed() {
        Finding::unconfirmed(match case.reason()? {
            "SECURITY_HOOK" => "a security module (SELinux, AppArmor)",
            "TCP_MINTTL" => "the server's socket, which wants a higher TTL (IP_MINTTL)",
            _ => "the server's socket, which wants a signature (TCP-MD5)",
        })
    } else {
        Finding::proved(format!("dropped in {}: {refusal}", case.place()))
    };
    Some(finding.remedy(case.where_to_type()).remedy([case.root(&look)]))
}

/// The kernel says the same of a filter on the socket itself and of a program of its control group.
fn refused_by_filter(case: &Case) -> Finding {
    let look = format!("ss -ltnpe 'sport = :{}'", case.journey.last_destination().1);
    if case.journey.is_unconfirmed() {
        let finding = Finding::unconfirmed("a filter on the server's socket, or a BPF program of its control group");
        return finding.remedy(case.where_to_type()).remedy([case.root(&look)]);
    }
    let place = case.place();
    if let Some(cgroup) = &case.evidence.cgroup {
        let by = super::cgroup::name(cgroup, "server");
        let summary = format!(
            "dropped in {place}: most likely {by} refused it; a filter on the listening socket itself would look the same"
        );
        return Finding::inferred(summary).remedy(super::cgroup::mend(cgroup, case.journey.last_source()));
    }
    let summary =
        format!("dropped in {place}: a filter on the listening socket, or a BPF program of its control group, refused it");
    Finding::proved(summary).remedy(case.where_to_type()).remedy([case.root(&look)])
}

/// A client in this machine, which may not send there.
fn refused_to_client(case: &Case) -> Option<Finding> {
    if case.journey.outcome != Outcome::Dropped || case.journey.origin == Origin::Remote {
        return None;
    }
    let other = case.journey.last_destination().0;
    let (by, mend) = if let Some(cgroup) = &case.evidence.cgroup {
        (super::cgroup::name(cgroup, "client"), super::cgroup::mend(cgroup, other))
    } else {
        let by = "a BPF program of the client's control group (systemd's IPAddressDeny= is one)".to_owned();
        (by, vec!["sudo bpftool cgroup tree".to_owned()])
    };
    let summary = format!("dropped on its way out by {by}: the client, which runs here, may not send to {other}");
    Some(Finding::proved(summary).remedy(mend))
}

/// A listener that could make no answer though there is a route for it, where `IPsec` has refused packets of this machine.
fn refused_by_ipsec(case: &Case) -> Option<Finding> {
    let refused = case.evidence.ipsec_refused;
    let silent = super::queue::swallowed(case) && case.evidence.route_back == Some(true);
    let overflowed = case.evidence.silence.is_none_or(|silence| silence.overflows > 0 || silence.syn_queue_full > 0);
    if !silent || overflowed || refused == 0 {
        return None;
    }
    let client = case.journey.last_source();
    let which = case.evidence.ipsec_policy.as_ref().map(|policy| format!(": {}", super::ipsec::name(policy))).unwrap_or_default();
    let summary = format!(
        "ignored: its listener could make no answer, most likely because an IPsec policy refuses packets to {client} ({refused} were refused here so far){which}"
    );
    let look = case.root("cat /proc/net/xfrm_stat");
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([look]).remedy(super::ipsec::mend(case)))
}

fn refused_by_device(case: &Case) -> Option<Finding> {
    let listener = nearest(case, Mismatch::Device)?;
    let device = escape(listener.device.as_deref().unwrap_or_default());
    let came_by = case.interface().unwrap_or("another interface");
    let summary = format!("refused: {} takes connections from {device} only, and this one came by {came_by}", who(listener));
    let advice = format!("# start {} without binding it to the device {device} (SO_BINDTODEVICE)", who(listener));
    Some(certain(case, summary).remedy([advice]))
}

/// A listener that fits got nothing, and somebody's program decides who gets connections.
fn refused_by_program(case: &Case) -> Option<Finding> {
    let listener = first(case, Mismatch::Nothing)?;
    let [first, more @ ..] = case.evidence.lookup_programs.as_slice() else { return None };
    let names = more.iter().fold(escape(first), |names, name| format!("{names}, {}", escape(name)));
    let summary = format!(
        "refused, though {} listens: a BPF program at the socket lookup (sk_lookup: {names}) most likely gave the connection to nobody",
        who(listener)
    );
    Some(
        Finding::inferred(summary)
            .remedy(case.where_to_type())
            .remedy([case.root("bpftool net show"), case.root("bpftool link show")]),
    )
}

/// A listener of no VRF gets nothing that comes by one, unless a setting says so.
fn refused_by_vrf(case: &Case) -> Option<Finding> {
    const SETTING: &str = "net.ipv4.tcp_l3mdev_accept";
    let vrf = case.evidence.vrf.as_ref().filter(|_| case.sysctl(SETTING) == Some("0"))?;
    let listener = first(case, Mismatch::Nothing).filter(|listener| listener.device.is_none())?;
    let summary = format!(
        "refused: {} listens in no VRF, and this connection came by the VRF {}, from which such servers take nothing ({SETTING} is 0)",
        who(listener),
        escape(vrf)
    );
    let within = format!("# or start {} within the VRF: ip vrf exec {} COMMAND", who(listener), shell_word(vrf));
    let allow = case.root(&format!("sysctl -w {SETTING}=1"));
    Some(certain(case, summary).remedy(case.where_to_type()).remedy([allow, within]))
}

/// A listener that fits got nothing, and somebody's program chooses among servers that share a port.
fn refused_by_choice(case: &Case) -> Option<Finding> {
    let listener = first(case, Mismatch::Nothing)?;
    let [first, more @ ..] = case.evidence.choosing_programs.as_slice() else { return None };
    let names = more.iter().fold(escape(first), |names, name| format!("{names}, {}", escape(name)));
    let summary = format!(
        "refused, though {} listens: most likely the BPF program that chooses among servers which share a port (SO_REUSEPORT: {names}) gave the connection to none, or else the server has only just been started",
        who(listener)
    );
    let restart = format!("# the program is {}'s own: restart that, or see its configuration", who(listener));
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([case.root("bpftool prog show"), restart]))
}

pub(super) fn other_netns(case: &Case) -> Option<Finding> {
    if !case.journey.met_no_socket() || case.was_answered_beyond() {
        return None;
    }
    // A packet that was led on came to the very container that it was meant for; that another one has a server on the same port, as
    // most have on 80, is chance.
    let led_on = asked(case) != case.destination() || case.elsewhere_netns().is_some() || super::published::is_for_tcp(case);
    let listener = case.evidence.elsewhere.first().filter(|_| !led_on && case.evidence.sockets.is_some())?;
    let port = listener.port;
    let summary = format!(
        "refused: nothing takes port {port} in this network namespace, but {} listens on it in network namespace {} (a container?)",
        who(listener),
        listener.netns
    );
    let look = match listener.pid {
        Some(pid) => format!("sudo nsenter -t {pid} -n ip -br address"),
        None => "lsns -t net".to_owned(),
    };
    let reach = match case.evidence.elsewhere_at {
        Some(own) => {
            format!("# it has an address of its own on this wire (macvlan or ipvlan): let the client ask {}", endpoint(own, port))
        }
        None => {
            format!(
                "# publish the port when the container is started: docker run -p {port}:{port} (podman takes the same option)"
            )
        }
    };
    Some(certain(case, summary).remedy([look, reach]))
}

pub(super) fn none(case: &Case) -> Option<Finding> {
    if !case.journey.met_no_socket() {
        return None;
    }
    let port = case.journey.last_destination().1;
    let look = case.root(&format!("ss -ltnp 'sport = :{port}'"));
    let asked = asked(case);
    if case.was_answered_beyond() {
        return Some(refused_beyond(&asked));
    }
    let Some(sockets) = &case.evidence.sockets else {
        let summary = format!(
            "refused: no listener takes connections to {asked}; the sockets could not be listed, so one may listen on another address"
        );
        return Some(Finding::inferred(summary).remedy([look]));
    };
    if let Some(listener) = first(case, Mismatch::Nothing) {
        let summary = format!(
            "refused: no listener took connections to {asked} at that moment; {} does now, so most likely it was started later",
            who(listener)
        );
        return Some(Finding::inferred(summary).remedy([look]));
    }
    debug_assert!(sockets.listeners.iter().all(|listener| mismatch(listener, case) != Mismatch::Nothing));
    let nearest: Vec<String> = case.evidence.nearest.iter().map(|near| format!("{} ({})", near.port, owner_of(near))).collect();
    let nearest = match nearest.as_slice() {
        [] => String::new(),
        [one] => format!("; the only port that does is {one}"),
        several => format!("; the nearest ports that do are {}", several.join(", ")),
    };
    let led_elsewhere = asked != case.destination();
    let translated = case.journey.translated.as_ref().filter(|_| led_elsewhere);
    let translator = translated.and_then(|translated| translated.rule.as_ref());
    let by = translator.map(|rule| format!(" by {}", super::firewall::name(rule))).unwrap_or_default();
    let past = case.evidence.led_on_to.map(|to| past_a_rule(case, to));
    let (past, instead) = past.or_else(|| super::transparent::past_a_proxy(case)).unwrap_or_default();
    let (twin, apart) = twin(case).unwrap_or_default();
    if let Some((published, mend)) = super::published::without_listener(case) {
        let summary = format!("refused: nothing listens on port {port} (asked for {asked}){published}");
        return Some(certain(case, summary).remedy(mend));
    }
    if let Some(mend) = untracked(case) {
        let summary = format!("refused: nothing listens on port {port} (asked for {asked}{by}){past}{nearest}");
        return Some(certain(case, summary).remedy(mend));
    }
    let (otherwise, mend) = super::unlistened::told(case).unwrap_or_else(|| {
        let start = "# start the server, or find the port that it really listens on:".to_owned();
        (String::new(), vec![start, case.root("ss -ltnp")])
    });
    let summary = format!("refused: nothing listens on port {port} (asked for {asked}{by}){past}{otherwise}{nearest}{twin}");
    Some(certain(case, summary).remedy(case.where_to_type()).remedy(apart).remedy(instead).remedy(mend))
}

/// What to say of two containers with one address: to which of them this machine sends, its list of neighbours decides.
fn twin(case: &Case) -> Option<(String, Vec<String>)> {
    let (netns, here) = (case.evidence.twin?, case.elsewhere_netns()?);
    let address = case.journey.last_destination().0;
    let listens = case.evidence.elsewhere.iter().find(|listener| listener.netns == netns);
    let server = listens.map(|listener| format!(", where {} listens on that port", who(listener))).unwrap_or_default();
    let told = format!("; network namespace {netns} has {address} as well{server}, and this packet went to {here}");
    let apart = format!(
        "# give one of the two containers another address; then have this machine ask anew: sudo ip neighbour flush to {address}"
    );
    Some((told, vec![apart]))
}

/// What helps where a rule leads the port on, and another keeps NAT from what comes for it (notrack).
fn untracked(case: &Case) -> Option<Vec<String>> {
    let exempter = case.evidence.exempted_by.as_ref().filter(|_| case.evidence.led_on_to.is_some())?;
    let commands = super::around(exempter, case.journey.flow.destination_port, case.is_v6());
    let head = "# no rule of NAT takes what connection tracking leaves out: take that out of the way".to_owned();
    Some([head].into_iter().chain(commands.into_iter().map(|command| case.root(&command))).collect())
}

/// What to say of a rule that leads the port on and did not take this connection, and what to do instead.
fn past_a_rule(case: &Case, to: IpAddr) -> (String, Option<String>) {
    if let Some(by) = case.evidence.led_on_by.filter(|by| *by != case.journey.flow.destination) {
        let past = format!("; a rule leads this port on to {to}, but only for those who ask {by}");
        let ask = format!("# let the client ask for {by}, or have the rule take every address (docker run -p PORT:INNER); or:");
        return (past, Some(ask));
    }
    let past = format!("; a rule leads this port on to {to}, but did not take this connection");
    if to.is_ipv6() != case.is_v6() {
        let family = |v6| if v6 { "IPv6" } else { "IPv4" };
        let past = format!("{past}: it is for {}, and the client came by {}", family(to.is_ipv6()), family(case.is_v6()));
        return (
            past,
            Some(format!("# have the rule's like for {}, or let the client come by the other; or:", family(case.is_v6()))),
        );
    }
    if let Some(except) = case.evidence.led_on_except.as_deref().filter(|except| case.journey.entrance() == Some(*except)) {
        let past = format!("{past}: it leaves alone what comes in by {except}");
        return (past, Some(format!("# let the client, which is behind {except}, ask {to} itself; or:")));
    }
    if case.journey.origin == Origin::Remote {
        return (past, None);
    }
    let why =
        "connections that this machine itself makes, as Windows' localhost does through WSL's relay, meet no rule of PREROUTING";
    (format!("{past}: {why}"), Some(format!("# let the client ask {to} itself, or put the same rule into nat OUTPUT; or:")))
}

/// The reset of another machine. It was seen, but not who made it.
fn refused_beyond(asked: &str) -> Finding {
    let summary = format!(
        "refused: the packet left this machine, and a reset came back: {asked} itself refuses it, or a firewall on the way; that machine is not seen from here"
    );
    let look =
        "# on that machine: look whether the server runs and listens on this address (`ss -ltn` on Linux), and at its firewall";
    Finding::inferred(summary).remedy([look.to_owned()])
}

/// A finding that both this packet's reset and the list of sockets bear out.
fn certain(case: &Case, summary: String) -> Finding {
    let refused = case.reason() == Some("NO_SOCKET") || case.journey.facts.kernel_reset;
    Finding::new(if refused { Confidence::Proved } else { Confidence::Inferred }, summary)
}

/// What the client asked for, and what that became on the way.
fn asked(case: &Case) -> String {
    let (address, port) = case.journey.last_destination();
    let last = endpoint(address, port);
    if last == case.destination() { last } else { format!("{}, translated to {last}", case.destination()) }
}

fn bracketed(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}
