//! Puts what a pass read into the order in which it is decided. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::entry::{Entry, EntryKind};
use crate::outbox::{HeldOrder, Item, Origin, Step, Strikes};
use crate::plugin::Judgement;

/// Route and order key: what keeps its order.
pub(super) type Key = (Arc<str>, Arc<str>);

/// The keys that have held orders, by route.
#[derive(Debug, Default)]
pub(super) struct HeldKeys(HashMap<Arc<str>, HashSet<Arc<str>>>);

impl HeldKeys {
    pub(super) fn contains(&self, route: &str, order_key: &str) -> bool {
        self.0.get(route).is_some_and(|keys| keys.contains(order_key))
    }

    pub(super) fn insert(&mut self, (route, order_key): Key) {
        self.0.entry(route).or_default().insert(order_key);
    }

    pub(super) fn remove(&mut self, route: &str, order_key: &str) {
        let Some(keys) = self.0.get_mut(route) else { return };
        keys.remove(order_key);
        if keys.is_empty() {
            self.0.remove(route);
        }
    }

    /// Routes that have any.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }
}

impl FromIterator<Key> for HeldKeys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        let mut held = Self::default();
        keys.into_iter().for_each(|key| held.insert(key));
        held
    }
}

/// One entry or held order of a pass.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) entry: Entry,
    pub(super) origin: Origin,
    /// Since when it waits for a reason of its own.
    pub(super) since: Option<Timestamp>,
    pub(super) attempts: u32,
    pub(super) strikes: Strikes,
    /// Whether others of its key were held before this pass.
    pub(super) is_behind: bool,
    /// Whether the plugins are asked.
    pub(super) is_judged: bool,
    pub(super) judgement: Option<Judgement>,
    /// Whether its judgement is left to what is judged aside.
    pub(super) is_aside: bool,
}

/// What a pass will look at.
#[derive(Debug)]
pub(super) struct Arranged {
    pub(super) work: Vec<Work>,
    /// The last entry that is part of it, where not all that was read is.
    pub(super) cut_at: Option<i64>,
}

/// Held orders first, then entries; `look` tells of an entry whether it is carried already, and whether its slot is
/// suspect: of such a slot one entry goes into a pass, and what was read behind the next one waits.
pub(super) fn arrange(
    due: Vec<HeldOrder>,
    entries: Vec<Entry>,
    held: &HeldKeys,
    look: impl Fn(&Entry) -> (bool, bool),
) -> Arranged {
    let mut work: Vec<Work> = due.into_iter().map(Work::of_held).collect();
    let (mut cut_at, mut last) = (None, None);
    let mut suspects = HashSet::new();
    for entry in entries {
        let (is_carried, is_suspect) = look(&entry);
        if !is_carried {
            if is_suspect && !suspects.insert(entry.slot) {
                cut_at = last;
                break;
            }
            last = Some(entry.number);
            work.push(Work::of_entry(entry, held));
        } else {
            last = Some(entry.number);
        }
    }
    Arranged { work, cut_at }
}

impl Work {
    fn of_held(held: HeldOrder) -> Self {
        let HeldOrder { entry, since, attempts, strikes } = held;
        // One that was only behind so far begins to wait for itself now.
        let since = (attempts > 0).then_some(since);
        let origin = Origin::Held { attempts };
        Self {
            entry,
            origin,
            since,
            attempts,
            strikes,
            is_behind: false,
            is_judged: true,
            judgement: None,
            is_aside: false,
        }
    }

    fn of_entry(entry: Entry, held: &HeldKeys) -> Self {
        let origin = Origin::Entry { kind: entry.kind, number: entry.number };
        let asks = matches!(entry.kind, EntryKind::Order | EntryKind::Redrive);
        let is_behind = asks && held.contains(&entry.route, &entry.order_key);
        let is_judged = asks && !is_behind;
        Self {
            entry,
            origin,
            since: None,
            attempts: 0,
            strikes: Strikes::default(),
            is_behind,
            is_judged,
            judgement: None,
            is_aside: false,
        }
    }

    pub(super) fn key(&self) -> Key {
        (Arc::clone(&self.entry.route), Arc::clone(&self.entry.order_key))
    }

    /// Whether it must keep its place among the orders of its key; commands and outcomes need not (PROTOCOL D7, D9).
    pub(super) fn is_order(&self) -> bool {
        matches!(self.entry.kind, EntryKind::Order | EntryKind::Redrive) && matches!(self.origin, Origin::Entry { .. })
    }

    /// It moves to the held table, unjudged.
    pub(super) fn moves(self, step: Step) -> Item {
        let (order_id, origin) = (self.entry.order_id, self.origin);
        Item { order_id, origin, step, runs: Vec::new(), plugins: String::new() }
    }
}
