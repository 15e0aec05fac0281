//! A table of our own that sets the trace bit on SYNs and on their answers: the kernel then tells which rule each of them met.
//! It answers nothing, changes no packet, and belongs to a socket, so that the kernel removes it when the socket closes.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, Immediate, InetHookNumber, Meta, MetaKey,
    NfTablesMessage, Operator, Payload, Register, RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage, Verdict,
    VerdictAttribute,
};

use super::event::Ports;

/// Names of our tables begin with this; the process's number follows, so that two tracers do not meet.
pub(crate) const PREFIX: &str = "wsltrace-";
/// How many packets of a kind are traced in a second, and at once: each makes a message a rule that it meets.
const PER_SECOND: u32 = 100;
/// Before every chain that somebody may have; the hook's very first position is the journey's own.
const PRIORITY: i32 = i32::MIN + 100;
const NF_ACCEPT: u32 = 1;
const IPPROTO_TCP: u8 = 6;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What is to be traced in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marking {
    /// The table's name.
    pub(crate) table: String,
    /// Destination ports of SYNs; source ports of answers.
    pub(crate) ports: Vec<(u16, u16)>,
    /// Source ports of answers beside those: where DNAT leads to.
    pub(crate) answers: Vec<(u16, u16)>,
    /// Interfaces whose netdev chains are traced too.
    pub(crate) devices: Vec<String>,
    /// Whether what this machine sends meets any chain: if not, there is nothing to trace before it comes in somewhere.
    pub(crate) outgoing: bool,
    /// Whether the kernel keeps the rate; its `limit` may be a module that is not there.
    pub(crate) limited: bool,
}

/// Which packets a rule marks.
#[derive(Clone, Copy)]
enum Which {
    Syn,
    SynAck,
    Reset,
}

impl Marking {
    /// The messages that make the table, for one transaction.
    pub(crate) fn messages(&self) -> Vec<NfTablesMessage> {
        let mut messages = vec![self.table()];
        self.add_chains(&mut messages, "prerouting", InetHookNumber::PreRouting, None);
        if self.outgoing {
            self.add_chains(&mut messages, "output", InetHookNumber::LocalOut, None);
        }
        for (index, device) in self.devices.iter().enumerate() {
            self.add_chains(&mut messages, &format!("ingress-{index}"), InetHookNumber::Ingress, Some(device));
        }
        messages
    }

    /// The messages that make a table which marks all packets with these source and destination ports, some in a second.
    pub(crate) fn of_connections(table: String, connections: &[Ports]) -> Vec<NfTablesMessage> {
        let marking = Self { table, ports: Vec::new(), answers: Vec::new(), devices: Vec::new(), outgoing: true, limited: true };
        let mut messages = vec![marking.table()];
        for (name, hook) in [("prerouting", InetHookNumber::PreRouting), ("output", InetHookNumber::LocalOut)] {
            messages.push(marking.base_chain(name, hook, None));
            for (source, destination) in connections {
                let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
                let mut expressions = vec![load_meta(MetaKey::L4Proto), compare(Operator::Equal, &[IPPROTO_TCP])];
                expressions.extend([load_transport(0, 4), compare(Operator::Equal, &ports), limit()]);
                expressions.extend(set_trace_bit());
                messages.push(marking.rule(name, expressions));
            }
        }
        messages
    }

    fn table(&self) -> NfTablesMessage {
        let attributes = vec![TableAttribute::Name(self.table.clone()), TableAttribute::Flags(TableFlags::Owner)];
        NfTablesMessage::NewTable(TableMessage { attributes })
    }

    fn base_chain(&self, name: &str, hook: InetHookNumber, device: Option<&String>) -> NfTablesMessage {
        let mut place = vec![Hook::Number(hook.into()), Hook::Priority(PRIORITY.cast_unsigned())];
        place.extend(device.cloned().map(Hook::NetDeviceName));
        let base = [ChainAttribute::Hook(place), ChainAttribute::Policy(NF_ACCEPT), ChainAttribute::Type("filter".to_owned())];
        self.chain(name, base.into())
    }

    /// A base chain, which all packets pay for, that leads the few which begin or refuse a connection to a chain with the rules.
    fn add_chains(&self, messages: &mut Vec<NfTablesMessage>, name: &str, hook: InetHookNumber, device: Option<&String>) {
        let marks = format!("{name}-marks");
        messages.push(self.chain(&marks, Vec::new()));
        messages.extend(self.rules(&marks, device.is_none()));
        messages.push(self.base_chain(name, hook, device));
        let mut expressions = compare_flags(SYN | RST, Operator::NotEqual, 0);
        expressions.extend([load_meta(MetaKey::L4Proto), compare(Operator::Equal, &[IPPROTO_TCP]), jump(marks)]);
        messages.push(self.rule(name, expressions));
    }

    fn chain(&self, name: &str, more: Vec<ChainAttribute>) -> NfTablesMessage {
        let mut attributes = vec![ChainAttribute::Table(self.table.clone()), ChainAttribute::Name(name.to_owned())];
        attributes.extend(more);
        NfTablesMessage::NewChain(ChainMessage { attributes })
    }

    fn rule(&self, chain: &str, expressions: Vec<Expressions>) -> NfTablesMessage {
        NfTablesMessage::NewRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(self.table.clone()),
                RuleAttribute::Chain(chain.to_owned()),
                RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
            ],
        })
    }

    fn rules(&self, chain: &str, answers: bool) -> Vec<NfTablesMessage> {
        let syns = self.ports.iter().map(|range| (Which::Syn, *range));
        let from = self.ports.iter().chain(&self.answers).filter(|_| answers);
        let answers = from.flat_map(|range| [(Which::SynAck, *range), (Which::Reset, *range)]);
        syns.chain(answers).map(|(which, range)| self.mark(chain, which, range)).collect()
    }

    fn mark(&self, chain: &str, which: Which, range: (u16, u16)) -> NfTablesMessage {
        let (wanted, flags, port_at) = match which {
            Which::Syn => (SYN | ACK | RST, SYN, 2),
            Which::SynAck => (SYN | ACK | RST, SYN | ACK, 0),
            Which::Reset => (RST, RST, 0),
        };
        let mut expressions = compare_flags(wanted, Operator::Equal, flags);
        if range != (0, u16::MAX) {
            expressions.push(load_transport(port_at, 2));
            if range.0 == range.1 {
                expressions.push(compare(Operator::Equal, &range.0.to_be_bytes()));
            } else {
                expressions.push(compare(Operator::GreatherThanEqual, &range.0.to_be_bytes()));
                expressions.push(compare(Operator::LessThanEqual, &range.1.to_be_bytes()));
            }
        }
        if self.limited {
            expressions.push(limit());
        }
        expressions.extend(set_trace_bit());
        self.rule(chain, expressions)
    }
}

fn set_trace_bit() -> [Expressions; 2] {
    let one = vec![Immediate::DestinationRegister(Register::Reg1), Immediate::Data(DataAttribute::Value(vec![1]))];
    let bit = vec![Meta::Key(MetaKey::NftraceBit), Meta::SourceRegister(Register::Reg1)];
    [Expressions::Immediate(one), Expressions::Meta(bit)]
}

fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

fn load_transport(offset: u32, length: u32) -> Expressions {
    const TRANSPORT_HEADER: u32 = 2;
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(TRANSPORT_HEADER),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

/// Compares some of the flags of a TCP header. Four aligned bytes at a time, so that the kernel evaluates it without a call.
fn compare_flags(which: u8, operator: Operator, flags: u8) -> Vec<Expressions> {
    let mask = Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(vec![0, which, 0, 0])),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ]);
    vec![load_transport(12, 4), mask, compare(operator, &[0, flags, 0, 0])]
}

fn jump(chain: String) -> Expressions {
    let verdict = vec![VerdictAttribute::Code(Verdict::Jump), VerdictAttribute::Chain(chain)];
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ])
}

fn compare(operator: Operator, value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
}

/// The crate has no `limit`; its attributes by their numbers, in network byte order.
fn limit() -> Expressions {
    const NFTA_LIMIT_RATE: u16 = 1;
    const NFTA_LIMIT_UNIT: u16 = 2;
    const NFTA_LIMIT_BURST: u16 = 3;
    const NFTA_LIMIT_TYPE: u16 = 4;
    let packets = 0u32;
    Expressions::Other {
        expression_type: "limit".to_owned(),
        attributes: vec![
            DefaultNla::new(NFTA_LIMIT_RATE, u64::from(PER_SECOND).to_be_bytes().to_vec()),
            DefaultNla::new(NFTA_LIMIT_UNIT, 1u64.to_be_bytes().to_vec()),
            DefaultNla::new(NFTA_LIMIT_BURST, PER_SECOND.to_be_bytes().to_vec()),
            DefaultNla::new(NFTA_LIMIT_TYPE, packets.to_be_bytes().to_vec()),
        ],
    }
}
