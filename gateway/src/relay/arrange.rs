//! Puts what a pass read into the order in which it is decided. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::entry::{Entry, EntryKind, EntryPlace};
use crate::order::Slot;
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

    /// Forgets the keys of a slot.
    pub(super) fn forget_slot(&mut self, slot: Slot) {
        for (route, keys) in &mut self.0 {
            keys.retain(|order_key| Slot::of(route, order_key) != slot);
        }
        self.0.retain(|_, keys| !keys.is_empty());
    }

    /// Routes that have any.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
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
    /// The last entries of slots of which not all that was read is part of it.
    pub(super) cut_at: HashMap<Slot, EntryPlace>,
}

/// Held orders first, then entries. Of a suspect slot one entry goes into a pass; and an order that is revised in a pass is
/// not asked about in the same one, since it was read as it was before.
pub(super) fn arrange(
    due: Vec<HeldOrder>,
    entries: Vec<Entry>,
    held: &HeldKeys,
    is_suspect: impl Fn(Slot) -> bool,
) -> Arranged {
    let mut work: Vec<Work> = due.into_iter().map(Work::of_held).collect();
    let (mut cut_at, mut revised) = (HashMap::new(), HashSet::new());
    for entry in entries {
        if cut_at.contains_key(&entry.slot) {
            continue;
        }
        if is_suspect(entry.slot) {
            cut_at.insert(entry.slot, entry.place);
        } else if entry.kind == EntryKind::Revise {
            revised.insert(entry.order_id);
        } else if entry.kind == EntryKind::Redrive && revised.contains(&entry.order_id) {
            let last = work.iter().rev().filter(|before| before.entry.slot == entry.slot).find_map(Work::place);
            cut_at.extend(last.map(|last| (entry.slot, last)));
            continue;
        }
        work.push(Work::of_entry(entry, held));
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
        let origin = Origin::Entry { kind: entry.kind, place: entry.place };
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

    /// Its place in the outbox, if it comes from there.
    fn place(&self) -> Option<EntryPlace> {
        match self.origin {
            Origin::Entry { place, .. } => Some(place),
            Origin::Held { .. } => None,
        }
    }

    /// Whether it must keep its place among the orders of its key; commands and outcomes need not (PROTOCOL D7, D9).
    pub(super) fn is_order(&self) -> bool {
        matches!(self.entry.kind, EntryKind::Order | EntryKind::Redrive) && matches!(self.origin, Origin::Entry { .. })
    }

    /// It moves to the held table, unjudged.
    pub(super) fn moves(self, step: Step) -> Item {
        let by = self.by();
        let (order_id, origin) = (self.entry.order_id, self.origin);
        Item { order_id, origin, step, runs: Vec::new(), plugins: String::new(), by }
    }

    /// The operator in whose name it is redriven or discarded.
    pub(super) fn by(&self) -> Option<String> {
        let is_operators = matches!(self.entry.kind, EntryKind::Redrive | EntryKind::Discard);
        let by = self.entry.payload.as_deref().filter(|_| is_operators)?;
        Some(String::from_utf8_lossy(by).into_owned())
    }
}
