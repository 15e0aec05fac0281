//! What the probes must know of the running kernel: where its fields are, which events it has and what they carry, and how
//! it names its drop reasons. A field that is missing costs one ability, named here, and never the start.

use std::collections::HashMap;

use wsltrace_common::{ABSENT, Offsets};

use super::btf::{Btf, BtfError, Kind, Shape};

/// A field or an event that this kernel does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingField {
    /// Its name in the kernel.
    pub name: &'static str,
    /// What cannot be told without it.
    pub costs: &'static str,
}

/// The arguments of a trace event: how many there are, and the positions of those that matter, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The number of its type in the kernel's BTF.
    pub id: u32,
    /// How many arguments it has.
    pub arguments: u32,
    /// The `struct sk_buff *`.
    pub skb: Option<u32>,
    /// The code address, a `void *`.
    pub location: Option<u32>,
    /// The `enum skb_drop_reason`.
    pub reason: Option<u32>,
}

/// The trace events that the probes can use; `None` for one that this kernel does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub struct Events {
    pub kfree_skb: Option<Event>,
    pub consume_skb: Option<Event>,
    pub inet_sock_set_state: Option<Event>,
    pub tcp_send_reset: Option<Event>,
    pub tcp_retransmit_synack: Option<Event>,
    pub tcp_retransmit_skb: Option<Event>,
}

impl Events {
    /// The event of this name.
    pub fn named(&self, name: &str) -> Option<Event> {
        // The table's places are functions that want to change it.
        let mut events = *self;
        EVENTS.iter().find(|event| event.name == name).and_then(|event| *(event.place)(&mut events))
    }
}

/// What the kernel's BTF tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFacts {
    /// Where its fields are.
    pub offsets: Offsets,
    /// Fields and events that it does not have, with what each costs.
    pub missing: Vec<MissingField>,
    /// Names of its drop reasons by number (high 16 bits: subsystem), without `SKB_DROP_REASON_`.
    pub drop_reasons: HashMap<u32, String>,
    /// Its trace events.
    pub events: Events,
    /// `security_sock_graft`, which every `accept` calls: the number of its type, if it is described, so that a program could be put
    /// on it.
    pub accept: Option<u32>,
}

/// One field to find.
struct Field {
    place: fn(&mut Offsets) -> &mut u32,
    name: &'static str,
    structure: &'static str,
    path: &'static str,
    costs: &'static str,
}

const PACKETS: &str = "packets cannot be read at all";
const DROPS: &str = "deaths cannot be placed";
const DEVICE: &str = "deaths show no interface and no namespace of their own";
const BRIDGED: &str =
    "what one container sends another over a bridge, and what goes to one of a macvlan network, is not followed";
const HOOKS: &str = "the netfilter stages show no interface or namespace";
const SOCKETS: &str = "the events of sockets cannot be matched to their SYN";
const REQUESTS: &str = "the SYN-ACKs sent again cannot be matched to their SYN";
const RESETS: &str = "the kernel's own resets cannot be told from a firewall's";
const AT_ONCE: &str = "a server that resets or closes its connections at once goes unnoticed";
const SENT_AGAIN: &str = "`bench` does not count what a server here sends again";
const TASKS: &str = "the program behind a local connection is not named";
const POSITIONS: &str = "every position of netfilter is watched, also where nothing is hooked in: that costs traffic more";
const STATE: &str = "conntrack's state is not shown";

macro_rules! field {
    ($place:ident, $structure:literal, $path:literal, $costs:ident) => {
        Field {
            place: |offsets| &mut offsets.$place,
            name: concat!($structure, ".", $path),
            structure: $structure,
            path: $path,
            costs: $costs,
        }
    };
}

const FIELDS: [Field; 42] = [
    field!(sk_buff_head, "sk_buff", "head", PACKETS),
    field!(sk_buff_network_header, "sk_buff", "network_header", PACKETS),
    field!(sk_buff_mac_header, "sk_buff", "mac_header", PACKETS),
    field!(sk_buff_protocol, "sk_buff", "protocol", PACKETS),
    field!(sk_buff_len, "sk_buff", "len", PACKETS),
    field!(sk_buff_data_len, "sk_buff", "data_len", PACKETS),
    field!(sk_buff_dev, "sk_buff", "dev", DEVICE),
    field!(sk_buff_nfct, "sk_buff", "_nfct", STATE),
    field!(net_device_ifindex, "net_device", "ifindex", DEVICE),
    field!(net_device_net, "net_device", "nd_net.net", DEVICE),
    field!(net_device_priv_flags, "net_device", "priv_flags", BRIDGED),
    field!(net_inum, "net", "ns.inum", HOOKS),
    field!(nf_hook_state_in, "nf_hook_state", "in", HOOKS),
    field!(nf_hook_state_out, "nf_hook_state", "out", HOOKS),
    field!(nf_hook_state_net, "nf_hook_state", "net", HOOKS),
    field!(nf_hook_state_sk, "nf_hook_state", "sk", HOOKS),
    field!(sock_state, "sock", "__sk_common.skc_state", SOCKETS),
    field!(sock_family, "sock", "__sk_common.skc_family", SOCKETS),
    field!(sock_daddr, "sock", "__sk_common.skc_daddr", SOCKETS),
    field!(sock_v6_daddr, "sock", "__sk_common.skc_v6_daddr", SOCKETS),
    field!(sock_dport, "sock", "__sk_common.skc_dport", SOCKETS),
    field!(sock_num, "sock", "__sk_common.skc_num", SENT_AGAIN),
    field!(sock_net, "sock", "__sk_common.skc_net.net", SOCKETS),
    field!(sock_err, "sock", "sk_err", AT_ONCE),
    field!(tcp_sock_rcv_nxt, "tcp_sock", "rcv_nxt", SOCKETS),
    field!(tcp_sock_bytes_received, "tcp_sock", "bytes_received", SOCKETS),
    field!(tcp_sock_bytes_sent, "tcp_sock", "bytes_sent", AT_ONCE),
    field!(tcp_sock_write_seq, "tcp_sock", "write_seq", AT_ONCE),
    field!(tcp_sock_snd_nxt, "tcp_sock", "snd_nxt", AT_ONCE),
    field!(inet_request_sock_rmt_addr, "inet_request_sock", "req.__req_common.skc_daddr", REQUESTS),
    field!(inet_request_sock_v6_rmt_addr, "inet_request_sock", "req.__req_common.skc_v6_daddr", REQUESTS),
    field!(inet_request_sock_rmt_port, "inet_request_sock", "req.__req_common.skc_dport", REQUESTS),
    field!(inet_request_sock_family, "inet_request_sock", "req.__req_common.skc_family", REQUESTS),
    field!(tcp_request_sock_rcv_isn, "tcp_request_sock", "rcv_isn", REQUESTS),
    field!(task_comm, "task_struct", "comm", TASKS),
    field!(task_tgid, "task_struct", "tgid", TASKS),
    field!(task_nsproxy, "task_struct", "nsproxy", POSITIONS),
    field!(nsproxy_net_ns, "nsproxy", "net_ns", POSITIONS),
    field!(net_nf_hooks_ipv4, "net", "nf.hooks_ipv4", POSITIONS),
    field!(net_nf_hooks_ipv6, "net", "nf.hooks_ipv6", POSITIONS),
    field!(nf_hook_entries_hooks, "nf_hook_entries", "hooks", POSITIONS),
    field!(nf_hook_ops_priority, "nf_hook_ops", "priority", POSITIONS),
];

const ABSENT_EVERYWHERE: Offsets = Offsets {
    sk_buff_head: ABSENT,
    sk_buff_network_header: ABSENT,
    sk_buff_mac_header: ABSENT,
    sk_buff_protocol: ABSENT,
    sk_buff_len: ABSENT,
    sk_buff_data_len: ABSENT,
    sk_buff_dev: ABSENT,
    sk_buff_nfct: ABSENT,
    net_device_ifindex: ABSENT,
    net_device_net: ABSENT,
    net_device_priv_flags: ABSENT,
    net_inum: ABSENT,
    nf_hook_state_in: ABSENT,
    nf_hook_state_out: ABSENT,
    nf_hook_state_net: ABSENT,
    nf_hook_state_sk: ABSENT,
    sock_state: ABSENT,
    sock_family: ABSENT,
    sock_daddr: ABSENT,
    sock_v6_daddr: ABSENT,
    sock_dport: ABSENT,
    sock_num: ABSENT,
    sock_net: ABSENT,
    sock_err: ABSENT,
    tcp_sock_rcv_nxt: ABSENT,
    tcp_sock_bytes_received: ABSENT,
    tcp_sock_bytes_sent: ABSENT,
    tcp_sock_write_seq: ABSENT,
    tcp_sock_snd_nxt: ABSENT,
    inet_request_sock_rmt_addr: ABSENT,
    inet_request_sock_v6_rmt_addr: ABSENT,
    inet_request_sock_rmt_port: ABSENT,
    inet_request_sock_family: ABSENT,
    tcp_request_sock_rcv_isn: ABSENT,
    task_comm: ABSENT,
    task_tgid: ABSENT,
    task_nsproxy: ABSENT,
    nsproxy_net_ns: ABSENT,
    net_nf_hooks_ipv4: ABSENT,
    net_nf_hooks_ipv6: ABSENT,
    nf_hook_entries_hooks: ABSENT,
    nf_hook_ops_priority: ABSENT,
    tcp_sock_is_mptcp: ABSENT,
    consume_skb_location_argument: ABSENT,
    reason_otherhost: ABSENT,
};

const REASONS: &str = "skb_drop_reason";
/// Reasons of subsystems that are built in; their numbers carry the subsystem in the high half.
const SUBSYSTEM_REASONS: [&str; 2] = ["mac80211_drop_reason", "ovs_drop_reason"];
const PREFIX: &str = "SKB_DROP_REASON_";
/// Enumerators that are not reasons.
const NOT_REASONS: [&str; 2] = ["SKB_DROP_REASON_MAX", "SKB_DROP_REASON_SUBSYS_MASK"];
const ACCEPT: &str = "security_sock_graft";

/// One event to find.
struct WantedEvent {
    typedef: &'static str,
    name: &'static str,
    costs: &'static str,
    place: fn(&mut Events) -> &mut Option<Event>,
}

macro_rules! event {
    ($name:ident, $costs:expr) => {
        WantedEvent {
            typedef: concat!("btf_trace_", stringify!($name)),
            name: stringify!($name),
            costs: $costs,
            place: |events| &mut events.$name,
        }
    };
}

const EVENTS: [WantedEvent; 6] = [
    event!(kfree_skb, DROPS),
    event!(consume_skb, "a SYN that its listener swallows is not seen to end"),
    event!(inet_sock_set_state, "established connections are not seen"),
    event!(tcp_send_reset, RESETS),
    event!(tcp_retransmit_synack, "SYN-ACKs sent again are not seen"),
    event!(tcp_retransmit_skb, SENT_AGAIN),
];

fn wanted() -> Vec<(Kind, &'static str)> {
    let mut wanted: Vec<(Kind, &'static str)> = Vec::new();
    for field in &FIELDS {
        if !wanted.contains(&(Kind::Struct, field.structure)) {
            wanted.push((Kind::Struct, field.structure));
        }
    }
    wanted.extend(EVENTS.iter().map(|event| (Kind::Typedef, event.typedef)));
    wanted.extend(SUBSYSTEM_REASONS.iter().map(|name| (Kind::Enum, *name)));
    wanted.push((Kind::Enum, REASONS));
    wanted.push((Kind::Func, ACCEPT));
    wanted
}

/// Reads the running kernel's BTF; an error means that there is none or that it cannot be understood.
pub fn read() -> Result<KernelFacts, BtfError> {
    Ok(gather(&Btf::of_kernel(&wanted())?))
}

/// The same from the bytes of a BTF file.
pub fn from_btf(bytes: Vec<u8>) -> Result<KernelFacts, BtfError> {
    Ok(gather(&Btf::parse(bytes, &wanted())?))
}

fn gather(btf: &Btf) -> KernelFacts {
    let mut offsets = ABSENT_EVERYWHERE;
    let mut missing = Vec::new();
    for field in &FIELDS {
        match btf.find(Kind::Struct, field.structure).and_then(|id| btf.offset_of(id, field.path)) {
            Some(offset) => *(field.place)(&mut offsets) = offset,
            None => missing.push(MissingField { name: field.name, costs: field.costs }),
        }
    }
    let mut events = Events::default();
    for WantedEvent { typedef, name, costs, place } in EVENTS {
        let event = btf.find(Kind::Typedef, typedef).and_then(|id| Some(event(id, &btf.event_arguments(id)?)));
        if event.is_none() {
            missing.push(MissingField { name, costs });
        }
        *place(&mut events) = event;
    }
    // Without them a kernel is merely older or smaller: what they cost is said by what uses them.
    if let Some(offset) = btf.find(Kind::Struct, "tcp_sock").and_then(|id| btf.offset_of(id, "is_mptcp")) {
        offsets.tcp_sock_is_mptcp = offset;
    }
    if let Some(location) = events.consume_skb.and_then(|event| event.location) {
        offsets.consume_skb_location_argument = location;
    }
    if events.kfree_skb.is_some_and(|event| event.reason.is_none()) {
        missing.push(MissingField { name: "kfree_skb's reason", costs: "drops are told by their place alone" });
    }
    if events.tcp_send_reset.is_some_and(|event| event.skb.is_none()) {
        missing.push(MissingField { name: "tcp_send_reset's skb", costs: RESETS });
    }
    let drop_reasons = drop_reasons(btf);
    if let Some((number, _)) = drop_reasons.iter().find(|(_, name)| *name == "OTHERHOST") {
        offsets.reason_otherhost = *number;
    }
    KernelFacts { offsets, missing, drop_reasons, events, accept: btf.find(Kind::Func, ACCEPT) }
}

fn event(id: u32, shapes: &[Shape<'_>]) -> Event {
    let position = |wanted: Shape<'_>| shapes.iter().position(|shape| *shape == wanted).and_then(|at| u32::try_from(at).ok());
    Event {
        id,
        arguments: u32::try_from(shapes.len()).unwrap_or(u32::MAX),
        skb: position(Shape::PointerTo("sk_buff")),
        location: position(Shape::VoidPointer),
        reason: position(Shape::Enum(REASONS)),
    }
}

fn drop_reasons(btf: &Btf) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for enumeration in SUBSYSTEM_REASONS.iter().chain([&REASONS]) {
        let Some(id) = btf.find(Kind::Enum, enumeration) else { continue };
        for (name, number) in btf.enumerators(id) {
            if !NOT_REASONS.contains(&name) {
                names.insert(number, name.strip_prefix(PREFIX).unwrap_or(name).to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::btf::tests::Blob;

    #[test]
    fn an_empty_kernel_misses_everything_and_is_no_error() {
        let facts = from_btf(Blob::default().finish()).unwrap();
        assert_eq!(facts.offsets, ABSENT_EVERYWHERE);
        assert_eq!(facts.missing.len(), FIELDS.len() + EVENTS.len());
        assert!(facts.drop_reasons.is_empty());
        assert_eq!(facts.accept, None);
    }

    #[test]
    fn arguments_are_found_by_their_types() {
        let mut blob = Blob::default();
        let sk_buff = blob.structure("sk_buff", &[]);
        let reason = blob.enumeration(
            REASONS,
            &[
                ("SKB_NOT_DROPPED_YET", 0),
                ("SKB_DROP_REASON_NO_SOCKET", 3),
                ("SKB_DROP_REASON_OTHERHOST", 8),
                ("SKB_DROP_REASON_MAX", 9),
                ("SKB_DROP_REASON_SUBSYS_MASK", 0xffff_0000),
            ],
        );
        let (skb_pointer, void_pointer) = (blob.pointer(sk_buff), blob.pointer(0));
        blob.event("btf_trace_kfree_skb", &[void_pointer, skb_pointer, void_pointer, reason]);
        blob.event("btf_trace_consume_skb", &[void_pointer, skb_pointer]);
        blob.function(ACCEPT);
        let facts = from_btf(blob.finish()).unwrap();
        assert_eq!(facts.events.kfree_skb, Some(Event { id: 7, arguments: 3, skb: Some(0), location: Some(1), reason: Some(2) }));
        assert_eq!(facts.events.consume_skb, Some(Event { id: 10, arguments: 1, skb: Some(0), location: None, reason: None }));
        assert_eq!(facts.offsets.consume_skb_location_argument, ABSENT);
        assert_eq!(facts.offsets.reason_otherhost, 8);
        assert_eq!(facts.drop_reasons.len(), 3);
        assert_eq!(facts.drop_reasons[&3], "NO_SOCKET");
        assert_eq!(facts.drop_reasons[&0], "SKB_NOT_DROPPED_YET");
        assert!(facts.accept.is_some());
    }

    #[test]
    fn the_running_kernel_has_what_the_probes_need() {
        let facts = match read() {
            Ok(facts) => facts,
            Err(BtfError::Read { source, .. }) => {
                crate::kernel::skip("the_running_kernel_has_what_the_probes_need", &format!("no readable BTF: {source}"));
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert_ne!(facts.offsets.sk_buff_head, ABSENT);
        assert_ne!(facts.offsets.sock_family, ABSENT);
        assert!(facts.events.kfree_skb.is_some());
    }
}
