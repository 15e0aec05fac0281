//! The drop reasons that a SYN or its answer can die of, in plain words.

/// A drop reason's page.
#[derive(Clone, Copy, Debug)]
pub struct ReasonPage {
    /// The kernel's name without `SKB_DROP_REASON_`.
    pub name: &'static str,
    /// In half a sentence.
    pub short: &'static str,
    /// What lies behind it and what to look at.
    pub text: &'static str,
}

/// Every page.
pub const REASONS: &[ReasonPage] = &[
    ReasonPage {
        name: "NO_SOCKET",
        short: "no socket takes this packet",
        text: "Nothing listens for this address, port and family, or the port's listener is bound to another address or device. For a SYN the kernel answers with a reset: the client sees \"connection refused\".",
    },
    ReasonPage {
        name: "NETFILTER_DROP",
        short: "a netfilter hook refused it",
        text: "A firewall rule, a chain policy, a reject, a BPF netfilter program or connection tracking dropped it. The stage of the death says at which hook and priority.",
    },
    ReasonPage {
        name: "IP_RPFILTER",
        short: "the reverse path filter refused its source",
        text: "The route back to the source does not lead through the interface that the packet came in by, and rp_filter is on. The stricter of net.ipv4.conf.all.rp_filter and the interface's own value counts.",
    },
    ReasonPage {
        name: "IP_LOCALNET",
        short: "a 127.x address outside of lo",
        text: "An address of 127.0.0.0/8 came in by another interface than lo and route_localnet is off. In mirrored mode Windows' localhost comes in by loopback0 like this, and WSL sets route_localnet itself; a sysctl file of the distro may undo it.",
    },
    ReasonPage {
        name: "IP_LOCAL_SOURCE",
        short: "its source is an address of this machine",
        text: "A packet came in from outside with one of this machine's own addresses as source and accept_local is off. WSL's mirrored mode sets it on its interfaces.",
    },
    ReasonPage {
        name: "IP_INVALID_SOURCE",
        short: "its source cannot be a source",
        text: "The source is a multicast, broadcast or zero address.",
    },
    ReasonPage {
        name: "IP_INVALID_DEST",
        short: "its destination is not valid here",
        text: "The destination is not valid on this interface, such as 0.0.0.0.",
    },
    ReasonPage {
        name: "IP_INADDRERRORS",
        short: "it is not for this machine",
        text: "The destination belongs to nobody here and the interface does not forward (net.ipv4.ip_forward is 0).",
    },
    ReasonPage {
        name: "IP_INNOROUTES",
        short: "no route leads to its destination",
        text: "The packet was to be forwarded and the routing table has no way.",
    },
    ReasonPage { name: "IP_OUTNOROUTES", short: "no route out", text: "A packet made here has no route to its destination." },
    ReasonPage {
        name: "OTHERHOST",
        short: "it was addressed to another machine's hardware address",
        text: "The device got a frame for another MAC address, as on a flooding bridge or in promiscuous mode; this is normally a bystander's copy.",
    },
    ReasonPage {
        name: "TCP_CSUM",
        short: "its TCP checksum is wrong",
        text: "The checksum does not fit. On virtual devices a broken checksum offload is the usual cause: `ethtool -K DEVICE tx off rx off`.",
    },
    ReasonPage {
        name: "IP_CSUM",
        short: "the checksum of its IP header is wrong",
        text: "The IP header was damaged on the way.",
    },
    ReasonPage {
        name: "IP_INHDR",
        short: "its IP header is malformed, or its time to live is used up",
        text: "The header's version, length or options make no sense; or, in ip_forward, the packet came with a time to live of 1 and should \
               have gone on.",
    },
    ReasonPage { name: "PKT_TOO_SMALL", short: "it is shorter than its headers say", text: "The packet was cut on the way." },
    ReasonPage {
        name: "TCP_FLAGS",
        short: "its TCP flags make no sense together",
        text: "Such as SYN with FIN; a scanner rather than a client.",
    },
    ReasonPage {
        name: "TCP_LISTEN_OVERFLOW",
        short: "the listener's accept queue is full",
        text: "The server does not accept as fast as clients connect. Most SYNs that meet a full queue end without this reason: they are consumed silently.",
    },
    ReasonPage {
        name: "TCP_INVALID_SYN",
        short: "a SYN on a connection that already stands",
        text: "The client reuses a port whose old connection this machine still knows; it answers with a challenge ACK.",
    },
    ReasonPage {
        name: "TCP_RFC7323_PAWS",
        short: "its timestamp is older than the connection's",
        text: "Protection against old packets of an earlier connection (PAWS).",
    },
    ReasonPage {
        name: "TCP_RFC7323_TSECR",
        short: "the timestamp that it sends back was never sent",
        text: "What confirms a SYN-ACK repeats its timestamp; something between the two changed it, or the SYN-ACK was another one's.",
    },
    ReasonPage {
        name: "TCP_RFC7323_TW_PAWS",
        short: "its timestamp is older than that of a connection in TIME_WAIT",
        text: "Protection against old packets of an earlier connection (PAWS).",
    },
    ReasonPage {
        name: "TCP_OLD_SEQUENCE",
        short: "its sequence number belongs to the past",
        text: "A late packet of an earlier connection, or a retransmission that is no longer needed.",
    },
    ReasonPage {
        name: "TCP_MD5NOTFOUND",
        short: "the listener wants an MD5 signature",
        text: "The socket has a TCP MD5 key for this client (RFC 2385) and the SYN is not signed.",
    },
    ReasonPage {
        name: "TCP_MD5UNEXPECTED",
        short: "it carries an MD5 signature that nobody expects",
        text: "The socket has no TCP MD5 key for this client.",
    },
    ReasonPage { name: "TCP_MD5FAILURE", short: "its MD5 signature is wrong", text: "The keys of client and server differ." },
    ReasonPage {
        name: "TCP_AONOTFOUND",
        short: "the listener wants a TCP-AO signature",
        text: "The socket has a TCP-AO key for this client (RFC 5925) and the SYN is not signed.",
    },
    ReasonPage { name: "TCP_AOFAILURE", short: "its TCP-AO signature is wrong", text: "The keys of client and server differ." },
    ReasonPage {
        name: "TCP_MINTTL",
        short: "its TTL is too small",
        text: "The listener set IP_MINTTL: the client is too many hops away.",
    },
    ReasonPage {
        name: "SOCKET_FILTER",
        short: "a filter on the socket refused it",
        text: "A program attached a classic or eBPF filter to its socket (SO_ATTACH_FILTER), or a BPF program of the socket's control group decides so: systemd attaches one for IPAddressDeny=.",
    },
    ReasonPage {
        name: "SOCKET_BACKLOG",
        short: "the socket's backlog is full",
        text: "More packets came than a busy socket can hold.",
    },
    ReasonPage { name: "SECURITY_HOOK", short: "a security module refused it", text: "SELinux, AppArmor or a BPF LSM program." },
    ReasonPage {
        name: "XFRM_POLICY",
        short: "an IPsec policy refused it",
        text: "The packet has no transformation that the policy asks for: see `ip xfrm policy`.",
    },
    ReasonPage {
        name: "BPF_CGROUP_EGRESS",
        short: "a BPF program of the cgroup refused it",
        text: "A container runtime or systemd attached it (IPAddressDeny=).",
    },
    ReasonPage {
        name: "IPV6DISABLED",
        short: "IPv6 is switched off on this interface",
        text: "See `sysctl net.ipv6.conf.all.disable_ipv6` and the interface's own value.",
    },
    ReasonPage {
        name: "NEIGH_FAILED",
        short: "the next hop does not answer ARP or ND",
        text: "The machine or container behind that address is not there; after DNAT it is often a stopped container.",
    },
    ReasonPage {
        name: "NEIGH_CREATEFAIL",
        short: "no neighbour entry could be made",
        text: "The neighbour table is full: see `sysctl net.ipv4.neigh.default.gc_thresh3`.",
    },
    ReasonPage {
        name: "NEIGH_QUEUEFULL",
        short: "too many packets wait for ARP or ND",
        text: "The next hop does not answer and its queue is full.",
    },
    ReasonPage {
        name: "NEIGH_DEAD",
        short: "the neighbour entry was removed",
        text: "The interface went down or the entry was deleted while the packet waited.",
    },
    ReasonPage {
        name: "TC_INGRESS",
        short: "traffic control dropped it on the way in",
        text: "A tc filter or a BPF program at tc ingress: see `tc filter show dev DEVICE ingress` and `bpftool net`.",
    },
    ReasonPage {
        name: "TC_EGRESS",
        short: "traffic control dropped it on the way out",
        text: "A tc filter or a BPF program at tc egress: see `tc filter show dev DEVICE egress` and `bpftool net`.",
    },
    ReasonPage {
        name: "QDISC_DROP",
        short: "the queueing discipline dropped it",
        text: "The device's queue is full or its discipline drops on purpose (netem): see `tc -s qdisc`.",
    },
    ReasonPage { name: "XDP", short: "an XDP program dropped it", text: "See `bpftool net` and `ip link`." },
    ReasonPage {
        name: "CPU_BACKLOG",
        short: "the CPU's input queue is full",
        text: "Packets come faster than the CPU takes them: see `sysctl net.core.netdev_max_backlog`.",
    },
    ReasonPage {
        name: "FULL_RING",
        short: "the device's ring is full",
        text: "The receiver of a tap or virtio device does not keep up.",
    },
    ReasonPage { name: "DEV_READY", short: "the device is not ready", text: "It is down or has no carrier." },
    ReasonPage {
        name: "UNHANDLED_PROTO",
        short: "no protocol handler takes it",
        text: "The kernel has no receiver for this kind of packet.",
    },
    ReasonPage { name: "PKT_TOO_BIG", short: "it is larger than the path takes", text: "See the MTU: `ip link`." },
    ReasonPage { name: "PROTO_MEM", short: "TCP has used up its memory", text: "See `sysctl net.ipv4.tcp_mem`." },
    ReasonPage { name: "NOMEM", short: "the kernel had no memory for it", text: "The machine is out of memory." },
    ReasonPage {
        name: "RECURSION_LIMIT",
        short: "it went round in a loop",
        text: "Devices or tunnels send packets to each other.",
    },
    ReasonPage {
        name: "QUEUE_PURGE",
        short: "a queue was emptied",
        text: "Its socket or device was closed while the packet waited.",
    },
    ReasonPage {
        name: "NOT_SPECIFIED",
        short: "the kernel gives no reason",
        text: "The place in the kernel (`location`) says more: wsltrace judges by it and marks the finding as inferred.",
    },
];

/// The page of a reason, with or without its `SKB_DROP_REASON_` prefix, in any case of letters.
pub fn reason_page(name: &str) -> Option<&'static ReasonPage> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("SKB_DROP_REASON_").unwrap_or(&upper);
    REASONS.iter().find(|page| page.name == name)
}
