//! Wakes those who wait for a commit: the relay for entries, clients for versions of their orders.
//!
//! A wake-up only wakes: whoever is woken reads the database. Entries may come along as a hand-over, which the relay
//! uses where it directly follows the last entry carried, and drops where it does not.

use std::collections::hash_map::{Entry as MapEntry, HashMap};
use std::collections::{VecDeque, hash_map::RandomState};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::work::NewEntry;
use crate::crash::{self, Point};
use crate::entry::Entry;
use crate::order::OrderId;

/// Shards of the map of listeners, so that streams do not queue for one lock.
const SHARDS: usize = 64;
/// How many changes the operator's page can catch up with.
const RECENT_MAX: usize = 1_024;
/// How many bytes of bodies wait for the relay; beyond it reads the table.
const HANDED_OVER_BYTES_MAX: usize = 32 << 20;

/// A version that was just committed.
#[derive(Debug, Clone, Copy)]
pub struct Changed {
    pub order_id: OrderId,
    /// The place of the row in history.
    pub sequence: i64,
}

/// An entry that was just committed, and the number of the one before it in the log.
#[derive(Debug)]
struct HandOver {
    number: i64,
    previous: i64,
    entry: Option<Entry>,
}

/// All wake-ups of one node.
#[derive(Debug)]
pub(super) struct Wakes {
    entries: Notify,
    handed_over: Mutex<Queue>,
    shards: Vec<Mutex<HashMap<OrderId, Arc<Signal>>>>,
    hasher: RandomState,
    listening: AtomicUsize,
    everything: Signal,
    recent: Mutex<Recent>,
}

/// The last changes, and up to where they are forgotten.
#[derive(Debug, Default)]
struct Recent {
    changes: VecDeque<Changed>,
    forgotten: i64,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<HandOver>,
    bytes: usize,
    /// Number of the last entry of the log.
    last: i64,
}

#[derive(Debug, Default)]
struct Signal {
    changes: AtomicU64,
    notify: Notify,
}

impl Signal {
    fn raise(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.notify.notify_waiters();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wakes {
    /// Nothing of what came up to `sequence` is remembered; the log reaches up to `last_entry`.
    pub(super) fn new(sequence: i64, last_entry: i64) -> Self {
        Self {
            entries: Notify::new(),
            handed_over: Mutex::new(Queue { last: last_entry, ..Queue::default() }),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            listening: AtomicUsize::new(0),
            everything: Signal::default(),
            recent: Mutex::new(Recent { changes: VecDeque::new(), forgotten: sequence }),
        }
    }

    /// Tells of a commit. Commits are told of in their order.
    pub(super) fn committed(&self, entries: Vec<NewEntry>, changed: &[Changed]) {
        let mut has_entries = !entries.is_empty();
        if has_entries {
            self.push(entries);
            if crash::fails(Point::WakeLost) {
                has_entries = false;
                let mut queue = locked(&self.handed_over);
                *queue = Queue { last: queue.last, ..Queue::default() };
            }
        }
        self.told(changed, has_entries);
    }

    /// Tells of commits without handing entries over; in whatever order they come.
    pub(super) fn told(&self, changed: &[Changed], has_entries: bool) {
        if has_entries {
            self.entries.notify_one();
        }
        if changed.is_empty() {
            return;
        }
        {
            let mut recent = locked(&self.recent);
            recent.changes.extend(changed);
            let surplus = recent.changes.len().saturating_sub(RECENT_MAX);
            let last = recent.changes.drain(..surplus).next_back().map(|change| change.sequence);
            recent.forgotten = last.unwrap_or(recent.forgotten);
        }
        self.everything.raise();
        if self.listening.load(Ordering::Acquire) > 0 {
            for change in changed {
                // Raised under the lock: a clone would hide the last listener's leaving from its drop.
                if let Some(signal) = locked(self.shard(change.order_id)).get(&change.order_id) {
                    signal.raise();
                }
            }
        }
    }

    /// Whether anybody listens to changes.
    pub(super) fn is_heard(&self) -> bool {
        self.listening.load(Ordering::Acquire) > 0
    }

    fn push(&self, entries: Vec<NewEntry>) {
        let mut queue = locked(&self.handed_over);
        for NewEntry { number, entry } in entries {
            queue.bytes += entry.as_ref().map_or(0, |entry| entry.body.len());
            let previous = std::mem::replace(&mut queue.last, number);
            queue.entries.push_back(HandOver { number, previous, entry });
        }
        if queue.bytes > HANDED_OVER_BYTES_MAX {
            *queue = Queue { last: queue.last, ..Queue::default() };
        }
    }

    /// Takes entries that directly follow `after`, as long as bodies came along and the limits hold.
    pub(super) fn take(&self, after: i64, count_max: usize, bytes_max: usize) -> Vec<Entry> {
        let mut queue = locked(&self.handed_over);
        while queue.entries.front().is_some_and(|item| item.number <= after) {
            queue.pop();
        }
        let (mut taken, mut last, mut bytes) = (Vec::new(), after, 0);
        while taken.len() < count_max && bytes < bytes_max {
            let follows = queue.entries.front().is_some_and(|item| item.previous == last && item.entry.is_some());
            if !follows {
                break;
            }
            let Some(HandOver { number, entry: Some(entry), .. }) = queue.pop() else { break };
            last = number;
            bytes += entry.body.len();
            taken.push(entry);
        }
        taken
    }

    /// Waits for entries. Make the future before looking, so that none is missed.
    pub(super) fn entries(&self) -> &Notify {
        &self.entries
    }

    /// The changes after `sequence` that are still remembered, at most `limit`, oldest first; `None` if some are
    /// forgotten.
    pub(super) fn recent(&self, sequence: i64, limit: usize) -> Option<Vec<Changed>> {
        let recent = locked(&self.recent);
        // By where it stands, not by its value: what several nodes commit at the same time is not numbered in order.
        let behind = match recent.changes.iter().rposition(|change| change.sequence == sequence) {
            Some(place) => place + 1,
            None if sequence == recent.forgotten => 0,
            None => return None,
        };
        Some(recent.changes.iter().skip(behind).take(limit).copied().collect())
    }

    /// Sequence of the newest change, or that of the database at the start.
    pub(super) fn newest(&self) -> i64 {
        let recent = locked(&self.recent);
        recent.changes.back().map_or(recent.forgotten, |change| change.sequence)
    }

    fn shard(&self, id: OrderId) -> &Mutex<HashMap<OrderId, Arc<Signal>>> {
        let hash = usize::try_from(self.hasher.hash_one(id) & 0xffff).unwrap_or(0);
        &self.shards[hash % SHARDS]
    }
}

impl Queue {
    fn pop(&mut self) -> Option<HandOver> {
        let item = self.entries.pop_front()?;
        self.bytes -= item.entry.as_ref().map_or(0, |entry| entry.body.len());
        Some(item)
    }
}

/// Hears of the changes of one order, or of all.
#[derive(Debug)]
pub struct ChangeListener {
    wakes: Arc<Wakes>,
    /// Absent: listens to everything.
    one: Option<(OrderId, Arc<Signal>)>,
    seen: u64,
}

impl ChangeListener {
    pub(super) fn to_one(wakes: &Arc<Wakes>, id: OrderId) -> Self {
        wakes.listening.fetch_add(1, Ordering::AcqRel);
        let signal = Arc::clone(locked(wakes.shard(id)).entry(id).or_default());
        let seen = signal.changes.load(Ordering::Acquire);
        Self { wakes: Arc::clone(wakes), one: Some((id, signal)), seen }
    }

    pub(super) fn to_all(wakes: &Arc<Wakes>) -> Self {
        wakes.listening.fetch_add(1, Ordering::AcqRel);
        let seen = wakes.everything.changes.load(Ordering::Acquire);
        Self { wakes: Arc::clone(wakes), one: None, seen }
    }

    /// Returns once something was committed since the listener was made or last returned. Cancel-safe.
    pub async fn changed(&mut self) {
        let signal = self.one.as_ref().map_or(&self.wakes.everything, |(_, signal)| signal.as_ref());
        loop {
            let notified = signal.notify.notified();
            let changes = signal.changes.load(Ordering::Acquire);
            if changes != self.seen {
                self.seen = changes;
                return;
            }
            notified.await;
        }
    }
}

impl Drop for ChangeListener {
    fn drop(&mut self) {
        self.wakes.listening.fetch_sub(1, Ordering::AcqRel);
        let Some((id, signal)) = self.one.take() else { return };
        let mut shard = locked(self.wakes.shard(id));
        // Ours and the map's: nobody else listens.
        if Arc::strong_count(&signal) == 2
            && let MapEntry::Occupied(last) = shard.entry(id)
        {
            last.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: OrderId, sequence: i64) -> Changed {
        Changed { order_id: id, sequence }
    }

    #[tokio::test]
    async fn a_change_between_listening_and_waiting_is_not_missed() {
        let (wakes, id) = (Arc::new(Wakes::new(0, 0)), OrderId::generate());
        let mut listener = ChangeListener::to_one(&wakes, id);
        wakes.committed(Vec::new(), &[change(id, 1)]);
        listener.changed().await;
    }

    #[tokio::test]
    async fn the_last_listener_clears_its_place() {
        let (wakes, id) = (Arc::new(Wakes::new(0, 0)), OrderId::generate());
        let (one, two) = (ChangeListener::to_one(&wakes, id), ChangeListener::to_one(&wakes, id));
        drop(one);
        assert_eq!(locked(wakes.shard(id)).len(), 1);
        drop(two);
        assert_eq!(locked(wakes.shard(id)).len(), 0);
    }

    #[test]
    fn a_gap_ends_the_hand_over() {
        let wakes = Wakes::new(0, 3);
        wakes.committed(vec![NewEntry { number: 5, entry: None }], &[]);
        assert!(wakes.take(2, 10, 1 << 20).is_empty());
        assert!(wakes.take(3, 10, 1 << 20).is_empty(), "no body came along");
    }
}
