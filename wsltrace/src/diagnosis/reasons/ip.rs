//! Drop reasons of the network layer: netfilter, routing, policies of encryption, neighbours.

use super::ReasonPage;

/// The pages.
pub(super) const IP: &[ReasonPage] = &[
    ReasonPage {
        name: "NETFILTER_DROP",
        short: "a netfilter hook refused it",
        text: "A firewall rule, a chain's policy, a reject, a queue (NFQUEUE) whose program says drop or that nobody reads, a BPF program at netfilter, connection tracking or NAT dropped it. The stage of the death says at which hook and priority.",
    },
    ReasonPage {
        name: "IP_RPFILTER",
        short: "the reverse path filter refused its source",
        text: "The route back to the source does not lead through the interface that the packet came in by (1, strict), or there is no route back at all (2, loose). Of net.ipv4.conf.all.rp_filter and the interface's own value the larger number counts.",
    },
    ReasonPage {
        name: "IP_LOCALNET",
        short: "a 127.x address outside of lo",
        text: "An address of 127.0.0.0/8 came in by another interface than lo, and neither net.ipv4.conf.all.route_localnet nor the interface's own is 1. In mirrored mode Windows' localhost comes in by loopback0 like this, and WSL sets route_localnet itself; a sysctl file of the distro may undo it.",
    },
    ReasonPage {
        name: "IP_LOCAL_SOURCE",
        short: "its source is an address of this machine",
        text: "A packet came in from outside with one of this machine's own addresses as source, and neither net.ipv4.conf.all.accept_local nor the interface's own is 1. WSL's mirrored mode sets it on its interfaces.",
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
        text: "The destination is no address of this machine, and the interface it came in by does not forward (net.ipv4.ip_forward is 0). With forwarding off IPv4 ends so too where a rule of `ip rule` or a blackhole route refuses the packet, or table `local` has lost the address. IPv6 uses it for other refusals of what would be sent on as well.",
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
        text: "The device got a frame for another MAC address, as on a bridge that floods or in promiscuous mode. Normally that is a bystander's copy, and the real packet goes on elsewhere; else the sender has a wrong ARP entry.",
    },
    ReasonPage {
        name: "IP_CSUM",
        short: "the checksum of its IP header is wrong",
        text: "The IP header was damaged on the way.",
    },
    ReasonPage {
        name: "IP_INHDR",
        short: "its IP header is malformed, or its time to live is used up",
        text: "The header's version, length or options make no sense; or, in ip_forward, the packet came with a time to live of 1 and should have gone on.",
    },
    ReasonPage { name: "PKT_TOO_SMALL", short: "it is shorter than its headers say", text: "The packet was cut on the way." },
    ReasonPage {
        name: "PKT_TOO_BIG",
        short: "it is larger than the path takes",
        text: "It is larger than the MTU of the way on, and may not be cut into fragments: see `ip link` and `ip route get DESTINATION`.",
    },
    ReasonPage {
        name: "IPV6DISABLED",
        short: "IPv6 is switched off on this interface",
        text: "See `sysctl net.ipv6.conf.all.disable_ipv6` and the interface's own value.",
    },
    ReasonPage {
        name: "XFRM_POLICY",
        short: "an IPsec policy refused it",
        text: "A policy of IPsec blocks such packets, or wants them encrypted and this one was not: see `ip xfrm policy` and `cat /proc/net/xfrm_stat`. Programs of VPNs set such policies.",
    },
    ReasonPage {
        name: "BPF_CGROUP_EGRESS",
        short: "a BPF program of the cgroup refused it",
        text: "Usually a unit's IPAddressDeny= or IPAddressAllow= of systemd, or a container runtime: see `bpftool cgroup tree`.",
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
        text: "The next hop has not answered yet, and more packets wait for it than its queue holds: the oldest is dropped.",
    },
    ReasonPage {
        name: "NEIGH_DEAD",
        short: "the neighbour entry was removed",
        text: "The interface went down or the entry was deleted while the packet waited.",
    },
    ReasonPage {
        name: "UNICAST_IN_L2_MULTICAST",
        short: "it came in a frame for everybody",
        text: "The frame had a broadcast or multicast hardware address and the packet one machine's address, and drop_unicast_in_l2_multicast is 1 for the interface (`sysctl -a | grep drop_unicast`). The sender has a wrong ARP entry.",
    },
    ReasonPage {
        name: "IP_NOPROTO",
        short: "nothing here speaks its protocol",
        text: "The kernel has no handler for the protocol in the IP header.",
    },
    ReasonPage {
        name: "IPV6_BAD_EXTHDR",
        short: "an extension header of IPv6 is malformed",
        text: "A header between those of IPv6 and TCP makes no sense.",
    },
    ReasonPage {
        name: "DUP_FRAG",
        short: "a fragment that was there already",
        text: "A fragment came twice; the packet itself may still be whole.",
    },
    ReasonPage {
        name: "FRAG_REASM_TIMEOUT",
        short: "its other fragments did not come",
        text: "Some of its fragments were lost on the way: see `nstat -az IpReasmFails Ip6ReasmFails`.",
    },
    ReasonPage {
        name: "FRAG_TOO_FAR",
        short: "too many newer fragments came before it was whole",
        text: "Fragments of one sender overtake each other: see `sysctl net.ipv4.ipfrag_max_dist`.",
    },
    ReasonPage {
        name: "NEIGH_HH_FILLFAIL",
        short: "no header could be made for its frame",
        text: "The device took no hardware address for the next hop, as when it is going away.",
    },
    ReasonPage { name: "NOMEM", short: "the kernel had no memory for it", text: "The machine is out of memory." },
    ReasonPage {
        name: "NOT_SPECIFIED",
        short: "the kernel gives no reason",
        text: "The place in the kernel (`location` in the JSON, `kernel` in the text) says more: wsltrace judges by it and by what else it saw. Where nothing else proves the finding it is inferred.",
    },
];
