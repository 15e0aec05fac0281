//! Drop reasons of TCP and its sockets.

use super::ReasonPage;

/// The pages.
pub(super) const TCP: &[ReasonPage] = &[
    ReasonPage {
        name: "NO_SOCKET",
        short: "no socket takes this packet",
        text: "Nothing listens for this address, port and family, or the port's listener is bound to another address or device. For a SYN the kernel answers with a reset: the client sees \"connection refused\".",
    },
    ReasonPage {
        name: "TCP_CSUM",
        short: "its TCP checksum is wrong",
        text: "The checksum does not fit. On virtual devices a broken checksum offload is the usual cause: `ethtool -K DEVICE tx off rx off`.",
    },
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
    ReasonPage {
        name: "TCP_MD5FAILURE",
        short: "its MD5 signature is wrong",
        text: "The keys of client and server differ, or something on the way (NAT) changed the addresses, which are signed too.",
    },
    ReasonPage {
        name: "TCP_AONOTFOUND",
        short: "the listener wants a TCP-AO signature",
        text: "The socket has a TCP-AO key for this client (RFC 5925) and the SYN is not signed.",
    },
    ReasonPage {
        name: "TCP_AOFAILURE",
        short: "its TCP-AO signature is wrong",
        text: "The keys of client and server differ, or something on the way (NAT) changed what is signed.",
    },
    ReasonPage {
        name: "TCP_MINTTL",
        short: "its TTL is too small",
        text: "The server's socket asks for a time to live of at least so much (IP_MINTTL, for IPv6 IPV6_MINHOPCOUNT), as BGP daemons do, and the client is too many hops away.",
    },
    ReasonPage {
        name: "SOCKET_FILTER",
        short: "a filter on the socket refused it",
        text: "A program attached a classic or eBPF filter to its socket (SO_ATTACH_FILTER), or a BPF program of the socket's control group decides so: systemd attaches one for IPAddressDeny=.",
    },
    ReasonPage {
        name: "SOCKET_BACKLOG",
        short: "the socket's backlog is full",
        text: "More packets came than the socket holds while a program works on it.",
    },
    ReasonPage {
        name: "SECURITY_HOOK",
        short: "a security module refused it",
        text: "SELinux, Smack, AppArmor or a BPF LSM program: `cat /sys/kernel/security/lsm` says which are on, the audit log what they refused.",
    },
    ReasonPage { name: "PROTO_MEM", short: "TCP has used up its memory", text: "See `sysctl net.ipv4.tcp_mem`." },
    ReasonPage {
        name: "TCP_OVERWINDOW",
        short: "its sequence number lies beyond the window",
        text: "It meets an older connection of the same addresses and ports that expects other numbers: a client that uses its port again, of which a half-open or established connection is still here.",
    },
    ReasonPage {
        name: "TCP_INVALID_SEQUENCE",
        short: "its sequence number is not one that is expected",
        text: "It meets a connection of the same addresses and ports that expects other numbers.",
    },
    ReasonPage {
        name: "TCP_INVALID_END_SEQUENCE",
        short: "it ends beyond what the connection takes",
        text: "It meets a connection of the same addresses and ports that expects other numbers.",
    },
    ReasonPage {
        name: "TCP_INVALID_ACK_SEQUENCE",
        short: "it confirms what was not sent",
        text: "Its acknowledgement does not fit the connection that it meets: it answers another SYN or SYN-ACK, or something on the way changed the numbers.",
    },
    ReasonPage {
        name: "TCP_OLD_ACK",
        short: "it confirms what was confirmed already",
        text: "A late packet of the same connection.",
    },
    ReasonPage {
        name: "TCP_TOO_OLD_ACK",
        short: "it confirms what was confirmed long ago",
        text: "A late packet of the same connection, or one of an earlier connection.",
    },
    ReasonPage {
        name: "TCP_ACK_UNSENT_DATA",
        short: "it confirms what was not sent yet",
        text: "The client speaks of another connection than the one that stands here.",
    },
    ReasonPage {
        name: "TCP_OLD_DATA",
        short: "its data is here already",
        text: "It was sent again because its confirmation was lost or late.",
    },
    ReasonPage {
        name: "TCP_ZEROWINDOW",
        short: "the application takes no more data",
        text: "The receive buffer is full: the program does not read.",
    },
    ReasonPage {
        name: "TCP_RFC7323_PAWS_ACK",
        short: "its acknowledgement is older than the connection's",
        text: "Protection against old packets of an earlier connection (PAWS).",
    },
    ReasonPage {
        name: "TCP_RESET",
        short: "a reset that does not fit",
        text: "The reset is meant for another connection, or its sequence number is wrong.",
    },
    ReasonPage { name: "TCP_CLOSE", short: "the socket is closed", text: "The connection that it belongs to has ended here." },
    ReasonPage {
        name: "TCP_ABORT_ON_DATA",
        short: "data for a program that has closed the connection",
        text: "The server closed without reading what still came; the kernel answers with a reset.",
    },
    ReasonPage {
        name: "TCP_FASTOPEN",
        short: "it belongs to a Fast Open connection that is not confirmed yet",
        text: "The request that a Fast Open SYN made does not take this packet.",
    },
    ReasonPage {
        name: "TCP_OFO_DROP",
        short: "no room for data ahead of its turn",
        text: "Data before it is missing, and the receive buffer holds no more.",
    },
    ReasonPage {
        name: "TCP_OFO_QUEUE_PRUNE",
        short: "data ahead of its turn was thrown away",
        text: "Memory for the connection ran short; the client sends it again.",
    },
    ReasonPage {
        name: "TCP_AUTH_HDR",
        short: "its TCP signature is malformed",
        text: "The option is cut off, or there are two of them, such as MD5 and TCP-AO.",
    },
    ReasonPage {
        name: "TCP_AOUNEXPECTED",
        short: "it carries a TCP-AO signature that nobody expects",
        text: "The socket has no TCP-AO key for this client.",
    },
    ReasonPage {
        name: "TCP_AOKEYNOTFOUND",
        short: "its TCP-AO key is not known",
        text: "The socket has TCP-AO keys, but none with the number that the client used.",
    },
    ReasonPage {
        name: "SOCKET_RCVBUFF",
        short: "the socket's receive buffer is full",
        text: "The program does not read as fast as packets come.",
    },
    ReasonPage { name: "SOCKET_CLOSE", short: "the socket was closed", text: "What still waited in its queue went with it." },
    ReasonPage {
        name: "PSP_INPUT",
        short: "its encryption by PSP does not fit the socket",
        text: "The socket wants packets of another key or generation, or in the clear.",
    },
    ReasonPage {
        name: "PSP_OUTPUT",
        short: "it would leave without the encryption by PSP that its socket wants",
        text: "The device that it leaves by cannot encrypt it.",
    },
];
