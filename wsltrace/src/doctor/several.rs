//! A SYN whose end depends on what is not known, as where chance leads it to one of several servers: every end is followed on, and
//! where all come to the same, that is said.

use std::net::SocketAddr;

use super::Facts;
use super::firewall::stopped;
use crate::simulate::{End, Goes, Part, Prediction};
use crate::wsl::{Entry, Gate, takers};

/// How many different outcomes are told of.
const TOLD: usize = 3;

impl Facts {
    /// What becomes of a SYN that may end in several ways, and of what follows it.
    pub(super) fn of_several(&self, entry: &Entry, prediction: &Prediction) -> Gate {
        let (unknown, stops) = (stopped(prediction, ""), prediction.stops());
        // All ends that there are, of which none passes.
        if let (Some(Gate::Shut(_)), [_, ..]) = (&unknown, stops.as_slice()) {
            return unknown.unwrap_or(Gate::Open);
        }
        let Some(ends) = prediction.ends() else { return unknown.unwrap_or(Gate::Open) };
        let gates: Vec<Gate> = ends.into_iter().map(|end| self.of_end(entry, end)).collect();
        if gates.iter().all(|gate| *gate == Gate::Open) {
            return Gate::Open;
        }
        let fates: Vec<Fate> = gates.into_iter().map(|gate| self.fate(entry, gate)).collect();
        let depends = || format!("the firewall decides, and it depends on {}", prediction.maybe().join(", "));
        let failing = told(fates.iter().filter(|fate| fate.works == Some(false)));
        match fates.iter().map(|fate| fate.works).reduce(|one, other| one.filter(|_| one == other)).flatten() {
            Some(true) => Gate::Led { works: true, why: told(fates.iter()) },
            Some(false) => Gate::Shut(failing),
            None if failing.is_empty() => Gate::Unknown(depends()),
            None => Gate::Unknown(format!("{}: a connection may be {failing}", depends())),
        }
    }

    fn fate(&self, entry: &Entry, gate: Gate) -> Fate {
        match gate {
            Gate::Shut(why) => Fate { works: Some(false), why },
            Gate::Unknown(why) => Fate { works: None, why },
            Gate::Led { works, why } => Fate { works: works.then_some(true), why },
            Gate::Open => {
                let takers = takers(&self.linux.listeners, entry.destination, Some(&entry.interface));
                let serves = |listener: &&crate::evidence::Listener| {
                    listener.queue <= listener.backlog && self.unserved(listener).is_none()
                };
                match takers.first() {
                    None => Fate { works: Some(false), why: format!("refused: nothing here takes them on port {}", self.port) },
                    Some(taker) => Fate {
                        works: takers.iter().all(serves).then_some(true),
                        why: format!("taken by the socket on {}", taker.address),
                    },
                }
            }
        }
    }

    /// What is done where one of the servers serves nobody that rules lead connections to.
    pub(super) fn mends_of_several(&self, entry: &Entry, prediction: &Prediction) -> Vec<String> {
        let of = |end: &End| {
            let End::Passes { address: Some(to), port: Some(port), goes, .. } = end else { return Vec::new() };
            let to = SocketAddr::new(*to, *port);
            match goes {
                Goes::Local if (to.ip(), to.port()) != (entry.destination, self.port) => {
                    let served = self.taker_at(to, &entry.interface).is_some();
                    if served {
                        Vec::new()
                    } else {
                        vec![format!("# at {to} {}; what listens here: ss -ltnp", self.nobody_at(to))]
                    }
                }
                Goes::Forward | Goes::Out if self.nobody_inside(to).is_some() => {
                    vec![format!("# of {to}: {}", self.mend_inside(to).trim_start_matches("# "))]
                }
                Goes::Forward | Goes::Out => self.trouble(entry, to).map(|trouble| trouble.mend).unwrap_or_default(),
                Goes::Local | Goes::Proxy => Vec::new(),
            }
        };
        prediction.ends().into_iter().flatten().flat_map(of).collect()
    }

    /// What becomes of connections that end in one of several ways; `None` for those of which one way is known.
    pub(super) fn several(&self, entry: &Entry) -> Option<Gate> {
        let prediction = self.predicted(entry, Part::Syn)?;
        let is_open =
            matches!(&prediction.end, End::Maybe { .. }) && prediction.ends().is_some() && prediction.stops().is_empty();
        is_open.then(|| self.of_several(entry, &prediction))
    }
}

/// What becomes of a connection that ends in one of several ways.
struct Fate {
    /// Whether it works, where that is known.
    works: Option<bool>,
    why: String,
}

/// The different outcomes in words.
fn told<'a>(fates: impl Iterator<Item = &'a Fate>) -> String {
    let mut all: Vec<&str> = fates.map(|fate| fate.why.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    let more = if all.len() > TOLD { ", or elsewhere" } else { "" };
    format!("{}{more}", all.into_iter().take(TOLD).collect::<Vec<_>>().join(", or "))
}
