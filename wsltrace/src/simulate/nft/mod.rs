//! What `nft -j list ruleset` prints.

mod expression;
mod statement;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use self::expression::elements;
use super::ruleset::{Base, Chain, Chains, Hook, Line, Place, Verdict};
use super::value::{Elements, Item, Operand};
use crate::evidence::rules::{Listing, OWN_PREFIX};

#[derive(Deserialize)]
struct Printed {
    nftables: Objects,
}

#[derive(Deserialize)]
struct PrintedChain {
    family: String,
    table: String,
    name: String,
    handle: u64,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    prio: Option<i64>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct PrintedRule {
    family: String,
    table: String,
    chain: String,
    handle: u64,
    comment: Option<String>,
    #[serde(default)]
    expr: Vec<Value>,
}

/// A set or map as it is printed; its elements are read once the fields that they are for are known.
struct Named {
    elements: Vec<Value>,
    size: Option<u64>,
    changes: bool,
}

/// Where names of sets are looked up.
struct Sets {
    named: HashMap<(String, String, String), Named>,
    /// Sets by name and the fields that they are for, read once.
    read: RefCell<HashMap<String, Arc<Elements>>>,
}

impl Sets {
    fn get(&self, place: &Place, name: &str) -> Option<&Named> {
        self.named.get(&(place.family.clone(), place.table.clone(), name.to_owned()))
    }

    fn elements(&self, place: &Place, name: &str, fields: &[Operand]) -> Option<Arc<Elements>> {
        let key = format!("{} {} {name} {fields:?}", place.family, place.table);
        if let Some(known) = self.read.borrow().get(&key) {
            return Some(known.clone());
        }
        let set = self.get(place, name)?;
        let list = elements(&set.elements, fields);
        let read = Arc::new(Elements { list, changes: set.changes });
        self.read.borrow_mut().insert(key, read.clone());
        Some(read)
    }
}

/// What a rule's expressions are read with.
struct Reader<'a> {
    sets: &'a Sets,
    place: &'a Place,
    /// The rule as iptables prints it, where it does.
    saved: Option<&'a Line>,
}

/// What iptables says of the rules of a chain; `None` where it was not asked.
pub(super) type Saved<'a> = dyn Fn(&Place) -> Option<Vec<Line>> + 'a;

/// What nft prints.
pub(super) type Objects = Vec<Map<String, Value>>;

/// Reads an answer of nft.
pub(super) fn objects(json: &str) -> serde_json::Result<Objects> {
    serde_json::from_str::<Printed>(json).map(|printed| printed.nftables)
}

/// The names of the sets or maps of a table.
pub(super) fn names(objects: &Objects, kind: &str, family: &str, table: &str) -> Vec<String> {
    let of_kind = objects.iter().filter_map(|object| object.get(kind));
    let of_table = of_kind.filter(|set| text(set, "family") == family && text(set, "table") == table);
    of_table.map(|set| text(set, "name")).collect()
}

/// Reads the chains. `listing` is the text of the same ruleset, which alone has the devices and the flags of tables.
pub(super) fn parse(objects: Objects, listing: &Listing, saved: &Saved<'_>, chains: &mut Chains) -> serde_json::Result<()> {
    let (mut found, mut rules, mut sets) = (Vec::new(), Vec::new(), HashMap::new());
    for mut object in objects {
        if let Some(chain) = object.remove("chain") {
            found.push(serde_json::from_value::<PrintedChain>(chain)?);
        } else if let Some(rule) = object.remove("rule") {
            rules.push(serde_json::from_value::<PrintedRule>(rule)?);
        } else if let Some(set) = object.remove("set").or_else(|| object.remove("map")) {
            let key = (text(&set, "family"), text(&set, "table"), text(&set, "name"));
            let elements = set.get("elem").and_then(Value::as_array).cloned().unwrap_or_default();
            sets.insert(key, Named { elements, size: set.get("size").and_then(Value::as_u64), changes: false });
        }
    }
    for rule in &rules {
        for name in rule.expr.iter().filter_map(changed_set) {
            if let Some(set) = sets.get_mut(&(rule.family.clone(), rule.table.clone(), name.to_owned())) {
                set.changes = true;
            }
        }
    }
    let sets = Sets { named: sets, read: RefCell::default() };
    let mut of_chains: HashMap<Place, Vec<PrintedRule>> = HashMap::new();
    for rule in rules {
        let place = Place { legacy: false, family: rule.family.clone(), table: rule.table.clone(), chain: rule.chain.clone() };
        of_chains.entry(place).or_default().push(rule);
    }
    for chain in found {
        let place = Place { legacy: false, family: chain.family.clone(), table: chain.table.clone(), chain: chain.name.clone() };
        if chain.table.starts_with(OWN_PREFIX) || listing.is_dormant(&chain.family, &chain.table) {
            continue;
        }
        let base = base(&chain, listing);
        let rules = of_chains.remove(&place).unwrap_or_default();
        chains.bridges |= chain.family == "bridge" && (!rules.is_empty() || base.as_ref().is_some_and(|base| base.drops));
        // Another number of rules is another chain, or half of it.
        let lines = saved(&place).filter(|lines| lines.len() == rules.len());
        let rules = rules.into_iter().enumerate().map(|(at, rule)| {
            let saved = lines.as_ref().and_then(|lines| lines.get(at));
            let reader = Reader { sets: &sets, place: &place, saved };
            Line {
                handle: Some(rule.handle),
                number: None,
                text: None,
                comment: rule.comment.clone().or_else(|| saved.and_then(|line| line.comment.clone())),
                statements: reader.statements(&rule.expr),
            }
        });
        let rules = rules.collect();
        chains.add(Chain { place, handle: chain.handle, base, rules });
    }
    Ok(())
}

fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The set that a statement changes.
fn changed_set(statement: &Value) -> Option<&str> {
    ["set", "map"].into_iter().find_map(|kind| statement.get(kind)?.get(kind)?.as_str()?.strip_prefix('@'))
}

fn base(chain: &PrintedChain, listing: &Listing) -> Option<Base> {
    let hook = Hook::named(chain.hook.as_deref()?)?;
    let devices = || {
        let base = listing.chain(&chain.family, &chain.table, &chain.name)?.base.as_ref()?;
        Some(base.devices.clone()).filter(|devices| !devices.is_empty())
    };
    Some(Base {
        hook,
        priority: chain.prio.unwrap_or_default(),
        nat: chain.kind.as_deref() == Some("nat"),
        drops: chain.policy.as_deref() == Some("drop"),
        devices: if matches!(hook, Hook::Ingress | Hook::Egress) { devices() } else { None },
    })
}

/// A verdict, if the statement is one.
fn verdict(name: &str, value: &Value) -> Option<Verdict> {
    let target = || value.get("target").and_then(Value::as_str).map(str::to_owned);
    Some(match name {
        "accept" => Verdict::Accept,
        "drop" => Verdict::Drop,
        "continue" => Verdict::Continue,
        "return" => Verdict::Return,
        "jump" => Verdict::Jump(target()?),
        "goto" => Verdict::Goto(target()?),
        _ => return None,
    })
}

/// The name and value of an object with one entry.
fn only(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object()?;
    let (name, value) = object.iter().next()?;
    (object.len() == 1).then_some((name.as_str(), value))
}

/// Entries of a map: keys, and what is printed beside them.
fn entries<'a>(list: &'a [Value], fields: &[Operand]) -> Vec<(Vec<Item>, &'a Value)> {
    let pairs = list.iter().filter_map(|entry| match entry.as_array()?.as_slice() {
        [key, data] => Some((key, data)),
        _ => None,
    });
    pairs.map(|(key, data)| (expression::element(key, fields), data)).collect()
}
