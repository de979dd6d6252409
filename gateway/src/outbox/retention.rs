//! What retention removes, and how much of it one step looks at.

use uuid::{Timestamp as UuidTime, Uuid};

use crate::clock::Timestamp;
use crate::order::OrderId;

/// What is old enough to go.
#[derive(Debug, Clone, Copy)]
pub struct Cutoffs {
    pub orders: Timestamp,
    pub entries: Timestamp,
    pub idempotency: Timestamp,
    pub parked_replies: Timestamp,
    /// Rows one step looks at, per table.
    pub rows_max: usize,
}

/// What one step removed, and whether there is more to do at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub orders: usize,
    pub history: usize,
    pub entries: usize,
    pub records: usize,
    pub idempotency: usize,
    pub inbox: usize,
    /// Where the next step goes on among the orders; `None` begins again.
    pub orders_after: Option<OrderId>,
    pub has_more: bool,
}

/// The lowest id that an order accepted at `moment` can have.
pub(super) fn first_id_at(moment: Timestamp) -> OrderId {
    let millis = u64::try_from(moment.0).unwrap_or(0);
    let time = UuidTime::from_unix_time(millis / 1_000, u32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000, 0, 0);
    let mut bytes = *Uuid::new_v7(time).as_bytes();
    bytes[6..].fill(0);
    OrderId(Uuid::from_bytes(bytes))
}
