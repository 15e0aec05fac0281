//! The common shape of what the three kinds of firewall say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::value::{Elements, Field, Item, Operand};
use crate::journey::Family;

/// Which tool's chain of which table; a table of the old iptables may have the name of one in nftables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) legacy: bool,
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
}

/// Where on a packet's way a base chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Egress,
}

impl Hook {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "ingress" => Self::Ingress,
            "prerouting" => Self::Prerouting,
            "input" => Self::Input,
            "forward" => Self::Forward,
            "output" => Self::Output,
            "postrouting" => Self::Postrouting,
            "egress" => Self::Egress,
            _ => return None,
        })
    }
}

/// How a base chain hangs on its hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) hook: Hook,
    pub(super) priority: i64,
    pub(super) nat: bool,
    pub(super) drops: bool,
    /// The devices of a chain at ingress or egress; `None` when they could not be read.
    pub(super) devices: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) place: Place,
    /// In one table later chains have higher handles.
    pub(super) handle: u64,
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Line>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) handle: Option<u64>,
    pub(super) number: Option<u32>,
    pub(super) comment: Option<String>,
    /// As iptables prints it, where it does.
    pub(super) text: Option<String>,
    pub(super) statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Reject,
    Queue,
    Continue,
    Return,
    Jump(String),
    Goto(String),
}

/// How the two sides of a match are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Any of these bits is set.
    AnyBit,
    /// None of these bits is set.
    NoBit,
}

/// What gives a mark or a new destination its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source<T> {
    Constant(T),
    /// What a field has.
    Field(Operand),
    /// An entry of a map; where there is none the rule ends.
    Map(Vec<Operand>, Vec<(Vec<Item>, Option<T>)>),
    Unknown(&'static str),
}

/// Where DNAT sends: `None` keeps what the packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Target {
    pub(super) address: Option<Known<std::net::IpAddr>>,
    pub(super) port: Option<Known<u16>>,
}

/// A value, or that there is one which is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known<T> {
    Yes(T),
    No,
}

impl<T> Known<T> {
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Yes(value) => Some(value),
            Self::No => None,
        }
    }
}

/// A rule that hands the packet to a proxy's socket, where a transparent one is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tproxy {
    /// The entry of the list of what is not known.
    pub(super) name: &'static str,
    /// The socket's port; `None` is the packet's own.
    pub(super) port: Option<Known<u16>>,
    /// The target of iptables: it ends the packet's way through the table, and drops what no socket is there for.
    pub(super) is_final: bool,
}

/// Which mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Packet,
    Connection,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Match {
        left: Vec<Operand>,
        relation: Relation,
        right: Arc<Elements>,
    },
    /// Several conditions of which one is enough, or, negated, of which none may hold.
    AnyOf {
        negated: bool,
        conditions: Vec<Statement>,
    },
    Verdicts {
        key: Vec<Operand>,
        map: Vec<(Vec<Item>, Verdict)>,
        changes: bool,
    },
    Verdict(Verdict),
    SetMark {
        mark: Mark,
        keep: u32,
        flip: Source<u32>,
    },
    Dnat(Source<Target>),
    Redirect(Option<Known<u16>>),
    Snat,
    Tproxy(Tproxy),
    NoTrack,
    /// A template of connection tracking: what its state is before conntrack is not known.
    Template,
    /// Holds or not.
    Perhaps(&'static str),
    /// Does anything that a rule can do.
    Anything(&'static str),
}

impl Statement {
    /// Whether it makes the kernel track connections.
    fn tracks(&self) -> bool {
        const FIELDS: [Field; 8] = [
            Field::State,
            Field::XtState,
            Field::Status,
            Field::Direction,
            Field::ConnectionMark,
            Field::AskedPort,
            Field::AskedAddress { ipv4: true },
            Field::AskedAddress { ipv4: false },
        ];
        match self {
            Self::Match { left: operands, .. } | Self::Verdicts { key: operands, .. } => {
                operands.iter().any(|operand| FIELDS.contains(&operand.field))
            }
            Self::SetMark { mark, flip, .. } => {
                *mark == Mark::Connection || matches!(flip, Source::Field(operand) if FIELDS.contains(&operand.field))
            }
            Self::Dnat(_) | Self::Redirect(_) | Self::Snat | Self::Template => true,
            _ => false,
        }
    }
}

/// Part of a ruleset that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// What it is, such as `iptables-legacy`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// The chains of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Chains {
    list: Vec<Arc<Chain>>,
    places: HashMap<Place, usize>,
    /// Families for which a rule asks for connection tracking.
    tracked: HashSet<&'static str>,
    /// Whether there is a chain of the family `bridge` with rules or a policy.
    pub(super) bridges: bool,
}

impl Chains {
    pub(super) fn add(&mut self, chain: Chain) {
        if chain.rules.iter().flat_map(|line| &line.statements).any(Statement::tracks) {
            self.tracked
                .extend(["ip", "ip6"].into_iter().filter(|family| ["inet", *family].contains(&chain.place.family.as_str())));
        }
        self.places.insert(chain.place.clone(), self.list.len());
        self.list.push(Arc::new(chain));
    }

    /// Whether connections of a family are certainly tracked.
    pub(super) fn tracks(&self, family: Family) -> bool {
        self.tracked.contains(if family == Family::Ipv4 { "ip" } else { "ip6" })
    }

    /// Whether a rule exempts packets of a family from connection tracking.
    pub(super) fn exempts(&self, family: Family) -> bool {
        let exempts =
            |statement: &Statement| matches!(statement, Statement::NoTrack | Statement::Template | Statement::Anything(_));
        let other = if family == Family::Ipv4 { "ip6" } else { "ip" };
        let chains = self.list.iter().filter(|chain| chain.place.family != other);
        chains.flat_map(|chain| &chain.rules).any(|line| line.statements.iter().any(exempts))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.list.iter()
    }

    /// Those of them that this is true of.
    pub(super) fn keeping(&self, keep: impl Fn(&Chain) -> bool) -> Self {
        let mut kept = Self { bridges: self.bridges, ..Self::default() };
        self.list.iter().filter(|chain| keep(chain)).for_each(|chain| kept.add(Chain::clone(chain)));
        kept
    }

    /// The same with another in the place of the chain that this is about; `None` where there is no such chain.
    pub(super) fn with(&self, place: &Place, change: impl FnOnce(&mut Chain) -> Option<()>) -> Option<Self> {
        let mut changed = self.clone();
        let chain = self.places.get(place).and_then(|at| changed.list.get_mut(*at))?;
        change(Arc::make_mut(chain))?;
        Some(changed)
    }

    /// The same with those changed that this is true of.
    pub(super) fn changed(&self, is_one: impl Fn(&Chain) -> bool, change: impl Fn(&mut Chain)) -> Self {
        let mut changed = self.clone();
        changed.list.iter_mut().filter(|chain| is_one(chain)).for_each(|chain| change(Arc::make_mut(chain)));
        changed
    }

    /// The chain of this name in the table of another.
    pub(super) fn beside(&self, place: &Place, name: &str) -> Option<&Arc<Chain>> {
        let place = Place { chain: name.to_owned(), ..place.clone() };
        self.places.get(&place).and_then(|at| self.list.get(*at))
    }
}
