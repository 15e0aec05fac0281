//! One expression of a rule as the kernel tells it: a name, and settings by their numbers, which are those of
//! `linux/netfilter/nf_tables.h`.

use netlink_packet_core::{Nla, NlasIterator};
use netlink_packet_netfilter::nftables::{ExpressionAttribute, Expressions, ListAttribute};

use crate::evidence::rules::text_of;
use crate::simulate::ruleset::Verdict;

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
/// Name and structure of a match or target of iptables.
const NFTA_XT_NAME: u16 = 1;
const NFTA_XT_INFO: u16 = 3;
/// The bits of an attribute's kind that are no number.
const NUMBER: u16 = 0x3fff;

/// An expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expression {
    pub(super) name: String,
    /// Numbers are in network byte order.
    settings: Vec<(u16, Vec<u8>)>,
}

/// A value, or what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Bytes(Vec<u8>),
    Verdict(Verdict),
}

impl Expression {
    pub(super) fn bytes(&self, setting: u16) -> Option<&[u8]> {
        self.settings.iter().find(|(kind, _)| *kind == setting).map(|(_, bytes)| bytes.as_slice())
    }

    pub(super) fn number(&self, setting: u16) -> Option<u32> {
        self.bytes(setting)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn text(&self, setting: u16) -> Option<String> {
        self.bytes(setting).map(text_of)
    }

    pub(super) fn data(&self, setting: u16) -> Option<Data> {
        data_of(self.bytes(setting)?)
    }

    /// A value of bytes.
    pub(super) fn value(&self, setting: u16) -> Option<Vec<u8>> {
        match self.data(setting)? {
            Data::Bytes(bytes) => Some(bytes),
            Data::Verdict(_) => None,
        }
    }

    /// The names of the expressions inside of a list of them, or of one.
    pub(super) fn inner_names(&self, one: u16, list: u16) -> Vec<String> {
        const NFTA_EXPR_NAME: u16 = 1;
        let name = |bytes: &[u8]| nested(bytes, NFTA_EXPR_NAME).map(|name| text_of(&name));
        let all = self.bytes(list).map(|bytes| NlasIterator::new(bytes).flatten().filter_map(|nla| name(nla.value())).collect());
        let one = || self.bytes(one).and_then(name).into_iter().collect();
        all.unwrap_or_else(one)
    }
}

/// The expressions of a rule, in order.
pub(super) fn expressions(list: Vec<ListAttribute<ExpressionAttribute>>) -> Vec<Expression> {
    let all = list.into_iter().filter_map(|element| match element {
        ListAttribute::Element(attributes) => Some(attributes),
        _ => None,
    });
    all.map(|attributes| {
        let mut expression = Expression::default();
        for attribute in attributes {
            match attribute {
                ExpressionAttribute::Name(name) => expression.name = name,
                ExpressionAttribute::Data(data) => expression.settings = settings(&data),
                _ => {}
            }
        }
        expression
    })
    .collect()
}

fn settings(data: &Expressions) -> Vec<(u16, Vec<u8>)> {
    match data {
        Expressions::Bitwise(list) => emitted(list),
        Expressions::Cmp(list) => emitted(list),
        Expressions::Immediate(list) => emitted(list),
        Expressions::Lookup(list) => emitted(list),
        Expressions::Meta(list) => emitted(list),
        Expressions::Payload(list) => emitted(list),
        Expressions::Unknown(list) | Expressions::Other { attributes: list, .. } => emitted(list),
        _ => Vec::new(),
    }
}

fn emitted(list: &[impl Nla]) -> Vec<(u16, Vec<u8>)> {
    list.iter().map(|nla| (nla.kind() & NUMBER, value_of(nla))).collect()
}

/// The bytes of an attribute.
pub(super) fn value_of(nla: &impl Nla) -> Vec<u8> {
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    bytes
}

/// The value of an attribute among others.
fn nested(bytes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(bytes).flatten().find(|nla| nla.kind() & NUMBER == kind).map(|nla| nla.value().to_vec())
}

/// Reads `nft_data_attributes`.
pub(super) fn data_of(bytes: &[u8]) -> Option<Data> {
    if let Some(value) = nested(bytes, NFTA_DATA_VALUE) {
        return Some(Data::Bytes(value));
    }
    let verdict = nested(bytes, NFTA_DATA_VERDICT)?;
    let code = i32::from_be_bytes(nested(&verdict, NFTA_VERDICT_CODE)?.try_into().ok()?);
    let chain = || nested(&verdict, NFTA_VERDICT_CHAIN).map(|name| text_of(&name));
    Some(Data::Verdict(match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        3 => Verdict::Queue,
        -1 => Verdict::Continue,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => return None,
    }))
}

/// The comment that iptables keeps as a match.
pub(super) fn comment_of(expression: &Expression) -> Option<String> {
    is_comment(expression).then(|| expression.bytes(NFTA_XT_INFO).map(text_of))?
}

pub(super) fn is_comment(expression: &Expression) -> bool {
    expression.name == "match" && expression.text(NFTA_XT_NAME).as_deref() == Some("comment")
}
