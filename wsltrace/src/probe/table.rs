//! The probes, as a table: one row each. What else a new one takes is told in ARCHITECTURE.md, under "A newcomer's test".

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are netfilter's")]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

impl Hook {
    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// A position in a netfilter hook where a program of ours runs.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The program in the eBPF object.
    pub program: &'static str,
    /// Its hook.
    pub hook: Hook,
    /// Its priority.
    pub priority: i32,
    /// Whether it is taken always; `--detail light` has only these.
    pub light: bool,
}

const fn at(program: &'static str, hook: Hook, priority: i32) -> Position {
    Position { program, hook, priority, light: false }
}

const fn also_light(program: &'static str, hook: Hook, priority: i32) -> Position {
    Position { program, hook, priority, light: true }
}

/// The kernel refuses `i32::MIN` and `i32::MAX`; conntrack's confirmation sits at `i32::MAX`.
pub(super) const FIRST: i32 = i32::MIN + 1;
pub(super) const LAST: i32 = i32::MAX - 1;

/// Positions lie halfway between the standard priorities (conntrack's defragmentation -400, raw -300, conntrack -200,
/// mangle -150, dstnat -100, filter 0, security 50, srcnat 100), so that the one passed last names the chain.
pub const POSITIONS: [Position; 31] = [
    also_light("nf_prerouting", Hook::Prerouting, FIRST),
    at("nf_prerouting_raw", Hook::Prerouting, -350),
    at("nf_prerouting_conntrack", Hook::Prerouting, -250),
    at("nf_prerouting_mangle", Hook::Prerouting, -175),
    at("nf_prerouting_dnat", Hook::Prerouting, -125),
    at("nf_prerouting_rest", Hook::Prerouting, -50),
    also_light("nf_routing", Hook::Prerouting, LAST),
    also_light("nf_input", Hook::Input, FIRST),
    at("nf_input_mangle", Hook::Input, -200),
    at("nf_input_filter", Hook::Input, -75),
    at("nf_input_security", Hook::Input, 25),
    at("nf_input_rest", Hook::Input, 75),
    also_light("nf_input_end", Hook::Input, LAST),
    also_light("nf_forward", Hook::Forward, FIRST),
    at("nf_forward_mangle", Hook::Forward, -200),
    at("nf_forward_filter", Hook::Forward, -75),
    at("nf_forward_security", Hook::Forward, 25),
    at("nf_forward_rest", Hook::Forward, 75),
    also_light("nf_output", Hook::Output, FIRST),
    at("nf_output_raw", Hook::Output, -350),
    at("nf_output_conntrack", Hook::Output, -250),
    at("nf_output_mangle", Hook::Output, -175),
    at("nf_output_nat", Hook::Output, -125),
    at("nf_output_filter", Hook::Output, -50),
    at("nf_output_security", Hook::Output, 25),
    at("nf_output_rest", Hook::Output, 75),
    also_light("nf_postrouting", Hook::Postrouting, FIRST),
    at("nf_postrouting_mangle", Hook::Postrouting, -200),
    at("nf_postrouting_snat", Hook::Postrouting, -25),
    at("nf_postrouting_rest", Hook::Postrouting, 200),
    at("nf_postrouting_end", Hook::Postrouting, LAST),
];

/// A tracepoint with BTF that a program of ours listens to.
#[derive(Clone, Copy, Debug)]
pub struct Tracepoint {
    /// The tracepoint, and the program of the same name.
    pub name: &'static str,
    /// What is lost without it; `None`: nothing works without it.
    pub costs: Option<&'static str>,
}

/// The tracepoints.
pub const TRACEPOINTS: [Tracepoint; 5] = [
    Tracepoint { name: "kfree_skb", costs: None },
    Tracepoint { name: "consume_skb", costs: None },
    Tracepoint { name: "inet_sock_set_state", costs: Some("whether an answered connection became established is not known") },
    Tracepoint {
        name: "tcp_send_reset",
        costs: Some(
            "a reset made by the kernel is told from a firewall's by the drop reason only, and a server that resets its connections \
             at once goes unnoticed",
        ),
    },
    Tracepoint { name: "tcp_retransmit_synack", costs: Some("a SYN-ACK that has to be sent again goes unnoticed") },
];

/// What `bench` adds: it counts the segments that the servers' side sends again.
pub(super) const SENT_AGAIN: Tracepoint =
    Tracepoint { name: "tcp_retransmit_skb", costs: Some("what a server here sends again is not counted") };

/// What is lost where `tcp_send_reset` is silent about packets without a socket.
pub(super) const SOCKETLESS_RESET_COSTS: &str = "a reset made by the kernel is told from a firewall's by the drop reason only";

/// The function that every `accept` calls with the connection that it returns, and the program of the same name.
pub const ACCEPT: &str = "security_sock_graft";
/// What is lost without it.
pub(super) const ACCEPT_COSTS: &str =
    "the stage accepted is not shown, and an application that does not accept is found by a look at its sockets a second later";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_a_hook_rise() {
        for pair in POSITIONS.windows(2) {
            let [before, after] = pair else { unreachable!("windows of two") };
            assert!(before.hook as u32 != after.hook as u32 || before.priority < after.priority, "{before:?} {after:?}");
        }
    }

    #[test]
    fn light_has_seven_positions() {
        assert_eq!(POSITIONS.iter().filter(|position| position.light).count(), 7);
    }
}
