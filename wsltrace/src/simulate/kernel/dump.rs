//! What the kernel answers when it is asked for all tables, chains, rules, sets and elements of a network namespace.

use std::collections::HashSet;
use std::io;

use netlink_packet_core::Emitable;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetDescription, SetElementAttribute, SetElementFlags, SetElementList, SetElementMessage, SetMessage,
    TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::expression::{Data, Expression, comment_of, data_of, expressions, value_of};
use super::set::{Element, Set};
use crate::evidence::rules::{family_name, message, text_of, user_comment};
use crate::kernel::netlink;
use crate::simulate::ruleset::{Base, Hook, Place};

/// `NF_DROP`, as a chain's policy.
const NF_DROP: u32 = 0;

/// The objects of a namespace.
#[derive(Debug, Default)]
pub(in crate::simulate) struct Dump {
    /// Tables that are switched off, by family and name.
    pub(super) dormant: HashSet<(String, String)>,
    pub(super) chains: Vec<DumpedChain>,
    pub(super) rules: Vec<DumpedRule>,
    pub(super) sets: Vec<Set>,
}

#[derive(Debug)]
pub(super) struct DumpedChain {
    pub(super) place: Place,
    pub(super) handle: u64,
    pub(super) base: Option<Base>,
}

#[derive(Debug)]
pub(super) struct DumpedRule {
    pub(super) place: Place,
    pub(super) handle: u64,
    pub(super) comment: Option<String>,
    pub(super) expressions: Vec<Expression>,
}

impl Dump {
    /// Family, table and name of every chain.
    pub(in crate::simulate) fn names(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.chains.iter().map(|chain| {
            let Place { family, table, chain, .. } = &chain.place;
            (family.as_str(), table.as_str(), chain.as_str())
        })
    }
}

/// Asks in the calling thread's network namespace. What is changed meanwhile may be there by half: the generation tells.
pub(in crate::simulate) fn dump() -> io::Result<Dump> {
    let mut dump = Dump::default();
    for (family, answer) in ask(NetfilterProtoFamily::Unspec, NfTablesMessage::GetTable(TableMessage { attributes: vec![] }))? {
        let NfTablesMessage::NewTable(TableMessage { attributes }) = answer else { continue };
        let dormant =
            |attribute: &TableAttribute| matches!(attribute, TableAttribute::Flags(flags) if flags.contains(TableFlags::Dormant));
        let name =
            |attribute: &TableAttribute| if let TableAttribute::Name(name) = attribute { Some(name.clone()) } else { None };
        if attributes.iter().any(dormant) {
            dump.dormant.extend(attributes.iter().find_map(name).map(|name| (family_name(family).to_owned(), name)));
        }
    }
    for (family, answer) in ask(NetfilterProtoFamily::Unspec, NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }))? {
        let NfTablesMessage::NewChain(ChainMessage { attributes }) = answer else { continue };
        dump.chains.push(chain(family, attributes));
    }
    for (family, answer) in ask(NetfilterProtoFamily::Unspec, NfTablesMessage::GetRule(RuleMessage { attributes: vec![] }))? {
        let NfTablesMessage::NewRule(RuleMessage { attributes }) = answer else { continue };
        dump.rules.push(rule(family, attributes));
    }
    for (family, answer) in ask(NetfilterProtoFamily::Unspec, NfTablesMessage::GetSet(SetMessage { attributes: vec![] }))? {
        let NfTablesMessage::NewSet(SetMessage { attributes }) = answer else { continue };
        let mut set = set(family, attributes);
        let attributes = vec![SetElementList::Table(set.table.clone()), SetElementList::Set(set.name.clone())];
        for (_, answer) in ask(family, NfTablesMessage::GetSetElement(SetElementMessage { attributes }))? {
            let NfTablesMessage::NewSetElement(SetElementMessage { attributes }) = answer else { continue };
            set.elements.extend(elements(attributes));
        }
        dump.sets.push(set);
    }
    Ok(dump)
}

fn ask(family: NetfilterProtoFamily, question: NfTablesMessage) -> io::Result<Vec<(NetfilterProtoFamily, NfTablesMessage)>> {
    let answers: Vec<NetfilterMessage> = netlink::dump(NETLINK_NETFILTER, &message(family, question))?;
    let of = |answer: NetfilterMessage| match answer.inner {
        NetfilterMessageInner::NfTables(inner) => Some((answer.header.family, inner)),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(of).collect())
}

fn at(family: NetfilterProtoFamily) -> Place {
    Place { legacy: false, family: family_name(family).to_owned(), table: String::new(), chain: String::new() }
}

fn chain(family: NetfilterProtoFamily, attributes: Vec<ChainAttribute>) -> DumpedChain {
    let mut chain = DumpedChain { place: at(family), handle: 0, base: None };
    let (mut hook, mut drops, mut nat) = (None, false, false);
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(table) => chain.place.table = table,
            ChainAttribute::Name(name) => chain.place.chain = name,
            ChainAttribute::Handle(handle) => chain.handle = handle,
            ChainAttribute::Hook(hooked) => hook = Some(hooked),
            ChainAttribute::Policy(policy) => drops = policy == NF_DROP,
            ChainAttribute::Type(kind) => nat = kind == "nat",
            _ => {}
        }
    }
    chain.base = hook.and_then(|hooked| base(family, &hooked, nat, drops));
    chain
}

fn base(family: NetfilterProtoFamily, hooked: &[HookAttribute], nat: bool, drops: bool) -> Option<Base> {
    let (mut hook, mut priority, mut devices) = (None, 0, Vec::new());
    for attribute in hooked {
        match attribute {
            HookAttribute::Number(number) => hook = hook_of(family, *number),
            HookAttribute::Priority(number) => priority = i64::from(number.cast_signed()),
            HookAttribute::NetDeviceName(name) => devices.push(name.clone()),
            HookAttribute::NetDevices(names) => devices.extend(names.iter().map(|name| text_of(&value_of(name)))),
            _ => {}
        }
    }
    let hook = hook?;
    devices.sort();
    devices.dedup();
    // The kernel tells the first of several twice.
    let devices = (matches!(hook, Hook::Ingress | Hook::Egress) && !devices.is_empty()).then_some(devices);
    Some(Base { hook, priority, nat, drops, devices })
}

fn hook_of(family: NetfilterProtoFamily, number: HookNumber) -> Option<Hook> {
    Some(match (family, u32::from(number)) {
        (NetfilterProtoFamily::NetDev, 0) | (_, 5) => Hook::Ingress,
        (NetfilterProtoFamily::NetDev, 1) => Hook::Egress,
        (NetfilterProtoFamily::ARP, 1) | (_, 3) => Hook::Output,
        (NetfilterProtoFamily::ARP, 0) | (_, 1) => Hook::Input,
        (_, 0) => Hook::Prerouting,
        (_, 2) => Hook::Forward,
        (_, 4) => Hook::Postrouting,
        _ => return None,
    })
}

fn rule(family: NetfilterProtoFamily, attributes: Vec<RuleAttribute>) -> DumpedRule {
    let mut rule = DumpedRule { place: at(family), handle: 0, comment: None, expressions: Vec::new() };
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(table) => rule.place.table = table,
            RuleAttribute::Chain(name) => rule.place.chain = name,
            RuleAttribute::Handle(handle) => rule.handle = handle,
            RuleAttribute::UserData(bytes) => rule.comment = user_comment(&bytes),
            RuleAttribute::Expressions(list) => rule.expressions = expressions(list),
            _ => {}
        }
    }
    rule.comment = rule.comment.or_else(|| rule.expressions.iter().find_map(comment_of));
    rule
}

fn set(family: NetfilterProtoFamily, attributes: Vec<SetAttribute>) -> Set {
    let mut set = Set { family: family_name(family).to_owned(), ..Set::default() };
    for attribute in attributes {
        match attribute {
            SetAttribute::Table(table) => set.table = table,
            SetAttribute::Name(name) => set.name = name,
            SetAttribute::Flags(flags) => set.flags = flags,
            SetAttribute::KeyLen(len) => set.key_len = len as usize,
            SetAttribute::DataLen(len) => set.data_len = len as usize,
            SetAttribute::Description(described) => {
                let size = |one: &SetDescription| if let SetDescription::Size(size) = one { Some(*size) } else { None };
                set.size = described.iter().find_map(size);
            }
            _ => {}
        }
    }
    set
}

fn elements(attributes: Vec<SetElementList>) -> Vec<Element> {
    let lists = attributes.into_iter().filter_map(|attribute| match attribute {
        SetElementList::Elements(list) => Some(list),
        _ => None,
    });
    let all = lists.flatten().filter_map(|element| match element {
        ListAttribute::Element(attributes) => Some(attributes),
        _ => None,
    });
    all.map(element).collect()
}

fn element(attributes: Vec<SetElementAttribute>) -> Element {
    let bytes = |data: Option<Data>| if let Some(Data::Bytes(bytes)) = data { Some(bytes) } else { None };
    let mut element = Element::default();
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(data) => element.key = bytes(data_of(&emitted(&data))),
            SetElementAttribute::KeyEnd(nested) => {
                element.end = bytes(data_of(&emitted(&nested.as_slice())));
            }
            SetElementAttribute::Data(data) => element.data = data_of(&emitted(&data)),
            SetElementAttribute::Flags(flags) => {
                element.is_end = flags.contains(SetElementFlags::IntervalEnd);
                element.is_for_the_rest = flags.contains(SetElementFlags::CatchAll);
            }
            _ => {}
        }
    }
    element
}

fn emitted(data: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; data.buffer_len()];
    data.emit(&mut bytes);
    bytes
}
