//! The drop reasons that a SYN, its answer or what confirms it can die of, in plain words. They mean what
//! `include/net/dropreason-core.h` says of them in Linux 6.18; reasons of other protocols (UDP, ICMP, CAN, Unix sockets) have no
//! page.

mod devices;
mod ip;
mod tcp;

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

/// Every page, by subject.
pub fn reason_pages() -> impl Iterator<Item = &'static ReasonPage> {
    [tcp::TCP, ip::IP, devices::DEVICES].into_iter().flatten()
}

/// The page of a reason, with or without its `SKB_DROP_REASON_` prefix, in any case of letters.
pub fn reason_page(name: &str) -> Option<&'static ReasonPage> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("SKB_DROP_REASON_").unwrap_or(&upper);
    reason_pages().find(|page| page.name == name)
}
