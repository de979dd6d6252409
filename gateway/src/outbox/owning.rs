//! What the owner of slots is told: its tenures, orders that are due, and how much a read may bring.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::entry::{Entry, EntryPlace};
use crate::order::{OrderId, Slot};

/// The right to carry a slot, and where its cursors stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    pub slot: Slot,
    pub epoch: i64,
    pub decide_cursor: EntryPlace,
    /// Number of the last record in the slot's log.
    pub last_record: i64,
    pub publish_cursor: i64,
    /// Set where the process died while this slot's pass was under way.
    pub suspicion: Option<Suspicion>,
}

/// A slot whose entries may kill the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    pub deaths: u32,
    /// The order that ran alone when the process died.
    pub alone: Option<OrderId>,
}

/// An order that is due to be looked at again, or stands behind one that is.
#[derive(Debug, Clone)]
pub struct HeldOrder {
    pub entry: Entry,
    /// Since when it waits for a reason of its own; for one that was behind, since it was held at all.
    pub since: Timestamp,
    pub attempts: u32,
    pub strikes: Strikes,
}

/// What an order did while it was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strikes {
    /// How often the process died while this order ran alone in it.
    pub deaths: u32,
    /// How often plugins failed on it.
    pub faults: u32,
}

/// A key that has held orders: slot, route, order key.
pub type HeldKey = (Slot, Arc<str>, Arc<str>);

/// Held orders of one key that one read brings. Those behind one that has to wait on are judged in vain, and a long
/// queue of one key must leave room for the others.
pub(super) const KEY_ORDERS_MAX: i64 = 64;

/// How much one read may bring.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub count: usize,
    pub bytes: usize,
}

impl ReadLimits {
    /// The rows, as a `LIMIT`.
    pub(super) fn count(self) -> i64 {
        i64::try_from(self.count).unwrap_or(i64::MAX)
    }

    /// Collects rows until the bytes are used up; the row that uses them up is still taken.
    pub(super) fn collect<T, E>(
        self,
        rows: impl Iterator<Item = Result<T, E>>,
        bytes_of: impl Fn(&T) -> usize,
    ) -> Result<Vec<T>, E> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let row = row?;
            bytes += bytes_of(&row);
            taken.push(row);
            if bytes >= self.bytes {
                break;
            }
        }
        Ok(taken)
    }
}

/// The passes that a text of [`Outbox::begin`](super::Outbox::begin) names: slot and decide cursor.
pub(super) fn parse_begun(text: &str) -> impl Iterator<Item = (Slot, EntryPlace)> {
    text.split(',').filter_map(|pass| {
        let (slot, place) = pass.split_once(':')?;
        Some((Slot(slot.parse().ok()?), place.parse().ok()?))
    })
}
