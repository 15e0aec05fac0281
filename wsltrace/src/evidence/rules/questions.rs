//! What the kernel's nftables answers over netlink: whether anything is there, whether it changed, what a rule is beside its text.
//! Each asks in the calling thread's network namespace.

use std::io;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, GenAttribute, GenMessage, Hook, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::OWN_PREFIX;
use super::event::RuleRef;
use crate::kernel::netlink;

pub(crate) fn message(family: NetfilterProtoFamily, message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message)
}

/// Counts the ruleset's changes; `None` where the kernel has no nftables.
pub(crate) fn generation() -> io::Result<Option<u32>> {
    let question = message(NetfilterProtoFamily::Unspec, NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() }));
    let Some(answer) = unless_absent(netlink::ask(NETLINK_NETFILTER, question))? else { return Ok(None) };
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(answer)) = answer.inner else { return Ok(None) };
    Ok(answer.attributes.into_iter().find_map(|attribute| match attribute {
        GenAttribute::Id(id) => Some(id),
        _ => None,
    }))
}

/// What somebody has in nftables.
pub(crate) struct Present {
    /// Any table.
    pub(crate) tables: bool,
    /// Any chain on a device.
    pub(crate) devices: bool,
}

pub(crate) fn present() -> io::Result<Present> {
    let all = message(NetfilterProtoFamily::Unspec, NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() }));
    let tables = unless_absent(netlink::dump(NETLINK_NETFILTER, &all))?.unwrap_or_default();
    let foreign = |name: &str| !name.starts_with(OWN_PREFIX);
    let tables = tables.into_iter().any(|table: NetfilterMessage| match table.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => {
            table.attributes.iter().any(|attribute| matches!(attribute, TableAttribute::Name(name) if foreign(name)))
        }
        _ => false,
    });
    if !tables {
        return Ok(Present { tables, devices: false });
    }
    let all = message(NetfilterProtoFamily::Unspec, NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() }));
    let chains = netlink::dump(NETLINK_NETFILTER, &all)?;
    let devices = chains.into_iter().any(|chain: NetfilterMessage| match chain.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) => on_device(&chain.attributes, foreign),
        _ => false,
    });
    Ok(Present { tables, devices })
}

fn on_device(attributes: &[ChainAttribute], foreign: impl Fn(&str) -> bool) -> bool {
    let theirs = attributes.iter().any(|attribute| matches!(attribute, ChainAttribute::Table(name) if foreign(name)));
    let on_device = |hook: &Hook| matches!(hook, Hook::NetDeviceName(_) | Hook::NetDevices(_));
    theirs && attributes.iter().any(|attribute| matches!(attribute, ChainAttribute::Hook(hook) if hook.iter().any(on_device)))
}

/// A kernel without nftables refuses the question; that is an answer.
pub(super) fn unless_absent<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOENT) => Ok(None),
            _ => Err(error),
        },
    }
}

/// What the kernel itself knows of a rule beside its text.
#[derive(Default)]
pub(super) struct Details {
    /// The comment, from nft or from iptables.
    pub(super) comment: Option<String>,
    /// Whether it rejects.
    pub(super) rejects: bool,
    /// Whether it exempts from connection tracking.
    pub(super) exempts: bool,
}

/// The family of this name.
pub(super) fn family_of(name: &str) -> Option<NetfilterProtoFamily> {
    Some(match name {
        "inet" => NetfilterProtoFamily::Inet,
        "ip" => NetfilterProtoFamily::IPv4,
        "ip6" => NetfilterProtoFamily::IPv6,
        "netdev" => NetfilterProtoFamily::NetDev,
        "bridge" => NetfilterProtoFamily::Bridge,
        _ => return None,
    })
}

pub(super) fn details(rule: &RuleRef, handle: u64) -> io::Result<Details> {
    let Some(family) = family_of(rule.family) else { return Ok(Details::default()) };
    let attributes =
        vec![RuleAttribute::Table(rule.table.clone()), RuleAttribute::Chain(rule.chain.clone()), RuleAttribute::Handle(handle)];
    let question = message(family, NfTablesMessage::GetRule(RuleMessage { attributes }));
    let answer: NetfilterMessage = netlink::ask(NETLINK_NETFILTER, question)?;
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(answer)) = answer.inner else { return Ok(Details::default()) };
    let mut details = Details::default();
    for attribute in answer.attributes {
        match attribute {
            RuleAttribute::UserData(bytes) => details.comment = user_comment(&bytes),
            RuleAttribute::Expressions(list) => {
                for element in list {
                    let ListAttribute::Element(element) = element else { continue };
                    for attribute in element {
                        match attribute {
                            // An expression without settings has nothing but its name.
                            ExpressionAttribute::Name(name) if name == "notrack" => details.exempts = true,
                            ExpressionAttribute::Data(Expressions::Other { expression_type, attributes }) => {
                                details.expression(&expression_type, &attributes);
                            }
                            _ => {}
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(details)
}

impl Details {
    /// Takes in an expression; `match` and `target` are those of iptables, with its name and its own structure.
    fn expression(&mut self, kind: &str, attributes: &[netlink_packet_core::DefaultNla]) {
        use netlink_packet_core::Nla;
        const NFTA_NAME: u16 = 1;
        const NFTA_INFO: u16 = 3;
        let value = |kind: u16| {
            let nla = attributes.iter().find(|nla| nla.kind() & 0x3fff == kind)?;
            let mut bytes = vec![0; nla.value_len()];
            nla.emit_value(&mut bytes);
            Some(bytes)
        };
        let name = || value(NFTA_NAME).map(|bytes| text_of(&bytes));
        match kind {
            "reject" => self.rejects = true,
            "target" => match name().as_deref() {
                Some("REJECT") => self.rejects = true,
                Some("NOTRACK") => self.exempts = true,
                // `struct xt_ct_target_info` begins with its flags, of which the first is XT_CT_NOTRACK.
                Some("CT") => {
                    self.exempts = value(NFTA_INFO).is_some_and(|info| info.first().is_some_and(|flags| flags & 1 != 0));
                }
                _ => {}
            },
            "match" if name().as_deref() == Some("comment") => self.comment = value(NFTA_INFO).map(|bytes| text_of(&bytes)),
            _ => {}
        }
    }
}

/// Bytes up to the first zero.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// The comment in the bytes that nft keeps with a rule: records of a type, a length and a value.
pub(crate) fn user_comment(mut bytes: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text_of(value));
        }
        bytes = rest.get(usize::from(*length)..)?;
    }
    None
}
