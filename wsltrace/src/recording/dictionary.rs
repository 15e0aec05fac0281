//! Texts that repeat: defined once in a frame of their own, then referred to by number. Each table has so many places, and a new
//! text takes the oldest one's, so neither side needs more memory however long a recording is.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::journey::InterfaceName;

/// Places of a table.
pub(super) const PLACES: u16 = 1024;

/// Which table a definition belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Table {
    /// An interface of a namespace, [`Place`], JSON.
    Place = 1,
    /// A drop reason: its number and name, JSON.
    Reason = 2,
    /// A place in the kernel's code, UTF-8.
    Location = 3,
    /// What was found out, JSON.
    Evidence = 4,
    /// A diagnosis, JSON.
    Diagnosis = 5,
}

/// An interface.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(super) struct Place {
    /// Inode number of its network namespace.
    pub(super) netns: u32,
    /// Its number there; 0 where none was known.
    pub(super) index: u32,
    /// Its name, when known.
    pub(super) name: Option<InterfaceName>,
}

/// A drop reason.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(super) struct Reason {
    /// Its number in the recorded kernel.
    pub(super) number: u32,
    /// Its name without `SKB_DROP_REASON_`.
    pub(super) name: String,
}

impl Table {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Place, Self::Reason, Self::Location, Self::Evidence, Self::Diagnosis]
            .into_iter()
            .find(|table| *table as u8 == number)
    }
}

/// The writer's side of a table.
pub(super) struct Known<K> {
    numbers: HashMap<K, u16>,
    oldest: VecDeque<K>,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), oldest: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash> Known<K> {
    /// The number of something that was defined.
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<u16>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.numbers.get(key).copied()
    }

    /// A number for something new.
    pub(super) fn add(&mut self, key: K) -> u16 {
        let free = u16::try_from(self.oldest.len()).ok().filter(|count| *count < PLACES);
        let number = free.or_else(|| self.oldest.pop_front().and_then(|oldest| self.numbers.remove(&oldest))).unwrap_or(0);
        self.numbers.insert(key.clone(), number);
        self.oldest.push_back(key);
        number
    }

    /// Forgets everything: what is referred to next is defined again.
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.oldest.clear();
    }
}

/// A number beyond the table's places.
#[derive(Debug, thiserror::Error)]
#[error("a definition beyond the table")]
pub(super) struct NoSuchPlace;

/// The reader's side of a table.
pub(super) struct Defined<T> {
    values: Vec<Option<T>>,
}

impl<T> Default for Defined<T> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<T> Defined<T> {
    /// Puts a value in a place; gives the one that was there. Fails when there is no such place.
    pub(super) fn set(&mut self, number: u16, value: T) -> Result<Option<T>, NoSuchPlace> {
        let index = usize::from(number);
        while number < PLACES && self.values.len() <= index {
            self.values.push(None);
        }
        self.values.get_mut(index).map(|place| place.replace(value)).ok_or(NoSuchPlace)
    }

    /// Whether any place has this value. A writer that has forgotten its numbers gives out new ones while the old still stand here.
    pub(super) fn holds(&self, value: &T) -> bool
    where
        T: PartialEq,
    {
        self.values.iter().flatten().any(|held| held == value)
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.values.get(usize::try_from(number).ok()?)?.as_ref()
    }
}
