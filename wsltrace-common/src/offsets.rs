//! Where the probes find the kernel's fields. rustc emits no CO-RE relocations, so user space reads the offsets from the
//! kernel's own BTF and passes them as a read-only global, which the verifier folds to constants.

/// An offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets of fields in structures of the running kernel; [`ABSENT`] where there is no such field.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is named after the structure and the member that it locates")]
pub struct Offsets {
    pub sk_buff_head: u32,
    pub sk_buff_network_header: u32,
    pub sk_buff_mac_header: u32,
    pub sk_buff_protocol: u32,
    pub sk_buff_len: u32,
    pub sk_buff_data_len: u32,
    pub sk_buff_dev: u32,
    pub sk_buff_nfct: u32,
    pub net_device_ifindex: u32,
    pub net_device_net: u32,
    pub net_device_priv_flags: u32,
    pub net_inum: u32,
    pub nf_hook_state_in: u32,
    pub nf_hook_state_out: u32,
    pub nf_hook_state_net: u32,
    pub nf_hook_state_sk: u32,
    pub sock_state: u32,
    pub sock_family: u32,
    pub sock_daddr: u32,
    pub sock_v6_daddr: u32,
    pub sock_dport: u32,
    pub sock_num: u32,
    pub sock_net: u32,
    pub sock_err: u32,
    pub tcp_sock_rcv_nxt: u32,
    pub tcp_sock_bytes_received: u32,
    pub tcp_sock_bytes_sent: u32,
    pub tcp_sock_write_seq: u32,
    pub tcp_sock_snd_nxt: u32,
    pub inet_request_sock_rmt_addr: u32,
    pub inet_request_sock_v6_rmt_addr: u32,
    pub inet_request_sock_rmt_port: u32,
    pub inet_request_sock_family: u32,
    pub tcp_request_sock_rcv_isn: u32,
    pub task_comm: u32,
    pub task_tgid: u32,
    pub task_nsproxy: u32,
    pub nsproxy_net_ns: u32,
    pub net_nf_hooks_ipv4: u32,
    pub net_nf_hooks_ipv6: u32,
    pub nf_hook_entries_hooks: u32,
    pub nf_hook_ops_priority: u32,
    /// `tcp_sock.is_mptcp`, or [`ABSENT`] in a kernel without MPTCP.
    pub tcp_sock_is_mptcp: u32,
    /// Position of the location argument of `consume_skb`, or [`ABSENT`] where it has only the skb (before 6.3).
    pub consume_skb_location_argument: u32,
    /// The number of `SKB_DROP_REASON_OTHERHOST`, or [`ABSENT`].
    pub reason_otherhost: u32,
}

// SAFETY: only u32 fields: no padding, and every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}
