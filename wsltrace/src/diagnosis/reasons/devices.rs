//! Drop reasons of devices, bridges, tunnels and traffic control.

use super::ReasonPage;

/// The pages.
pub(super) const DEVICES: &[ReasonPage] = &[
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
        text: "The discipline's queue is full, it drops on purpose (netem), or the device is down (noop): see `tc -s qdisc show dev DEVICE` and `ip link`.",
    },
    ReasonPage { name: "XDP", short: "an XDP program dropped it", text: "See `bpftool net` and `ip link`." },
    ReasonPage {
        name: "CPU_BACKLOG",
        short: "the CPU's input queue is full",
        text: "Packets come faster than the processor takes them: see `sysctl net.core.netdev_max_backlog` and the second column of /proc/net/softnet_stat.",
    },
    ReasonPage {
        name: "FULL_RING",
        short: "the device's ring is full",
        text: "The program or machine behind a tun, tap or virtio device does not take packets as fast as they come.",
    },
    ReasonPage { name: "DEV_READY", short: "the device is not ready", text: "It is down or has no carrier." },
    ReasonPage {
        name: "UNHANDLED_PROTO",
        short: "no protocol handler takes it",
        text: "The kernel has no receiver for this kind of packet.",
    },
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
        name: "TC_COOKIE_ERROR",
        short: "traffic control met an inner error",
        text: "A chain of tc could not be followed further.",
    },
    ReasonPage {
        name: "TC_CHAIN_NOTFOUND",
        short: "a tc filter leads to a chain that is not there",
        text: "An action says `goto chain` and that chain has no filters: see `tc filter show dev DEVICE ingress`.",
    },
    ReasonPage {
        name: "TC_RECLASSIFY_LOOP",
        short: "tc filters lead in a circle",
        text: "Filters send the packet back to the beginning again and again: see `tc filter show dev DEVICE ingress`.",
    },
    ReasonPage {
        name: "QDISC_OVERLIMIT",
        short: "the queueing discipline's queue is full",
        text: "More packets wait than its limit: see `tc -s qdisc show dev DEVICE`.",
    },
    ReasonPage {
        name: "QDISC_CONGESTED",
        short: "the queueing discipline sees congestion",
        text: "A discipline such as fq_codel drops early to keep its queue short: see `tc -s qdisc show dev DEVICE`.",
    },
    ReasonPage {
        name: "CAKE_FLOOD",
        short: "the discipline cake takes its flow for a flood",
        text: "The sender does not slow down: see `tc -s qdisc show dev DEVICE`.",
    },
    ReasonPage {
        name: "FQ_BAND_LIMIT",
        short: "a band of the discipline fq is full",
        text: "See `tc -s qdisc show dev DEVICE`.",
    },
    ReasonPage {
        name: "FQ_HORIZON_LIMIT",
        short: "it was to be sent too far in the future",
        text: "A program or filter set its time of sending beyond what the discipline fq takes: see `tc -s qdisc show dev DEVICE`.",
    },
    ReasonPage {
        name: "FQ_FLOW_LIMIT",
        short: "its flow has too many packets in the discipline fq",
        text: "See `tc -s qdisc show dev DEVICE`.",
    },
    ReasonPage {
        name: "DUALPI2_STEP_DROP",
        short: "the discipline dualpi2 sees congestion",
        text: "See `tc -s qdisc show dev DEVICE`.",
    },
    ReasonPage {
        name: "BRIDGE_INGRESS_STP_STATE",
        short: "its port of the bridge does not forward yet",
        text: "The port of the bridge is blocked, or listens and learns still (spanning tree): see `bridge link show`. With spanning tree on that lasts for twice the bridge's forward_delay after the port comes up.",
    },
    ReasonPage {
        name: "SKB_CSUM",
        short: "its checksum could not be made",
        text: "The checksum that a device was to fill in could not be computed: the packet was cut, or a device's offload is broken.",
    },
    ReasonPage {
        name: "SKB_GSO_SEG",
        short: "it could not be cut into segments",
        text: "A large packet was to be cut before a device, and its headers do not fit: a broken offload (`ethtool -k DEVICE`).",
    },
    ReasonPage {
        name: "SKB_UCOPY_FAULT",
        short: "the program's memory could not be read",
        text: "A program gave the device a packet in memory that is gone.",
    },
    ReasonPage {
        name: "DEV_HDR",
        short: "the device's own header is wrong",
        text: "A tun, tap or virtio device gave it a header that makes no sense.",
    },
    ReasonPage {
        name: "HDR_TRUNC",
        short: "its headers are cut off",
        text: "It is shorter than the headers that the device reads.",
    },
    ReasonPage {
        name: "TAP_FILTER",
        short: "the tap device's filter refused it",
        text: "The program that holds the tap device attached a filter.",
    },
    ReasonPage {
        name: "TAP_TXFILTER",
        short: "the tap device's address filter refused it",
        text: "The program behind the tap device does not want frames for this hardware address.",
    },
    ReasonPage {
        name: "VXLAN_INVALID_HDR",
        short: "its VXLAN header is wrong",
        text: "What carries it between machines is malformed.",
    },
    ReasonPage {
        name: "VXLAN_VNI_NOT_FOUND",
        short: "no VXLAN device has its network number",
        text: "Both ends of the overlay network disagree about its number: see `ip -d link show type vxlan`.",
    },
    ReasonPage {
        name: "MAC_INVALID_SOURCE",
        short: "its source hardware address is none",
        text: "The frame's source is a multicast or zero address.",
    },
    ReasonPage {
        name: "VXLAN_ENTRY_EXISTS",
        short: "the overlay knows its sender elsewhere",
        text: "A fixed entry of the VXLAN device says that this hardware address is behind another machine: see `bridge fdb show`.",
    },
    ReasonPage {
        name: "NO_TX_TARGET",
        short: "nobody is there to give it to",
        text: "A bridge has no port that may take it, or an overlay no entry for its destination: see `bridge -d link show` and `bridge fdb show`.",
    },
    ReasonPage {
        name: "IP_TUNNEL_ECN",
        short: "the marks of tunnel and packet contradict each other",
        text: "What carries it was marked for congestion and it cannot be (RFC 6040).",
    },
    ReasonPage {
        name: "TUNNEL_TXINFO",
        short: "the tunnel is not told where to",
        text: "It was sent by a tunnel device without the metadata that names the other end.",
    },
    ReasonPage {
        name: "LOCAL_MAC",
        short: "its source is the device's own hardware address",
        text: "Two devices have one hardware address, or the frame came round in a loop.",
    },
    ReasonPage {
        name: "PFMEMALLOC",
        short: "it came when memory had run out",
        text: "The machine is short of memory and keeps the rest for what frees some.",
    },
];
