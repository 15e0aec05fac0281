//! What `explain` and the handbook tell of stalls.

use super::Cause;

/// The page of stalls.
#[derive(Clone, Copy, Debug)]
pub struct StallPage {
    /// What it is asked for by.
    pub name: &'static str,
    /// A headline's few words.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What can be the cause.
    pub causes: &'static [CausePage],
    /// Commands that show it by hand; words in capitals stand for the reader's values.
    pub see: &'static [&'static str],
}

/// One cause of stalls.
#[derive(Clone, Copy, Debug)]
pub struct CausePage {
    /// Which.
    pub cause: Cause,
    /// What happens.
    pub meaning: &'static str,
    /// How it is mended.
    pub mend: &'static str,
}

/// The page.
pub const STALL: StallPage = StallPage {
    name: "stall",
    title: "connected, and then it does not get on",
    meaning: "The handshake is complete, so the journey is answered; but then the connection stands still. It is seen by looking at connections once a second in their first minute (sock_diag), not by an event of a packet, so it is always inferred.",
    causes: &[
        CausePage {
            cause: Cause::PathMtu,
            meaning: "Packets of full size are sent again and again while smaller ones arrive: some part of the way carries less than the interface says, and the ICMP errors that would tell the sender are dropped. The classic fault of a VPN on Windows.",
            mend: "Give the interface a smaller MTU (sudo ip link set dev eth0 mtu 1350); lastingly in the VPN's own settings.",
        },
        CausePage {
            cause: Cause::Unconfirmed,
            meaning: "Nothing of what the server sends is confirmed any more.",
            mend: "Look whether the client still runs, and at firewalls on the way.",
        },
        CausePage {
            cause: Cause::WindowClosed,
            meaning: "The client does not read what it is sent.",
            mend: "Look at the client. For Windows' localhost, whose relay can lock up when both sides send much at once, connect to WSL's own address.",
        },
        CausePage {
            cause: Cause::DataDropped,
            meaning: "A firewall here, or traffic control, drops data of the client (the kernel told so), and nothing more comes in. Where that data was too large for the device by which it was to be sent on, and the client is not told so, it is path_mtu. The kernel names the rule if it is nftables'; of the old iptables it is named if it is the only one that can have dropped the first data.",
            mend: "Take away the rule that matches data and not what makes a connection.",
        },
        CausePage {
            cause: Cause::SendingRefused,
            meaning: "What the server sends, data or confirmations, does not get out of this machine: a firewall rule here drops it (OUTPUT, FORWARD, POSTROUTING), or its device does.",
            mend: "Take away the rule for what leaves; look at the device: ip -s link show.",
        },
        CausePage {
            cause: Cause::NotRead,
            meaning: "What the client has sent waits, and the server does not read it.",
            mend: "Look what the server waits for: sudo strace -f -p PID.",
        },
    ],
    see: &[
        "ss -tino 'sport = :PORT'   (backoff, retrans, mss, pmtu, unacked, notsent)",
        "ping -M do -s 1472 CLIENT   (1500 bytes with its headers; make it smaller until it gets through)",
        "nstat -az TcpRetransSegs TcpExtTCPTimeouts TcpExtTCPWinProbe",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_stands_on_the_page_once() {
        let told: Vec<Cause> = STALL.causes.iter().map(|page| page.cause).collect();
        assert_eq!(told, Cause::ALL);
    }
}
