//! What an operation must have read before it runs, and how it runs.
//!
//! The load step takes the locks in one order (PROTOCOL O2, R1): idempotency keys by key, lease rows by slot, cursors by
//! slot, orders by id; and reads everything else in later statements than those.

use std::sync::Arc;

use super::accept::KeyHash;
use super::work::Work;
use crate::clock::Timestamp;
use crate::crash::Point;
use crate::order::{OrderId, Slot};
use crate::reply::Position;

/// A transaction's purpose: what it needs, what it does with that, and what it answers.
///
/// Runs again from the start where its transaction failed, so it keeps nothing.
pub(super) trait Operation {
    type Output;

    /// Where a test may end the process: everything is written, nothing is committed.
    const WRITTEN: Option<Point> = None;

    /// What must be read first.
    fn needs(&self) -> Needs<'_>;

    /// What must be read besides, now that the orders are known.
    fn more(&self, _work: &Work<'_>) -> More<'_> {
        More::default()
    }

    /// Changes the working set. Neither waits nor fails.
    fn run<'a>(&'a self, work: &mut Work<'a>) -> Self::Output;

    /// Completes the answer by what the store step found: of each touched key, whether it has held orders.
    fn complete(&self, _output: &mut Self::Output, _are_held: &[bool]) {}
}

/// What a transaction must have read.
#[derive(Debug, Default)]
pub(super) struct Needs<'a> {
    /// Idempotency keys to be bound, each once, by key. A key that is free is bound by the load step
    /// ([`KeyState::Fresh`](super::work::KeyState)); of one that is not, what it is bound to is read.
    pub(super) keys: Vec<NewKey>,
    /// Slots with the epoch under which the caller decides them, by slot: their decide cursors. A slot of another epoch,
    /// or whose lease has ended, is left out of the working set.
    pub(super) deciding: Vec<(Slot, i64)>,
    /// The same for publishing.
    pub(super) publishing: Vec<(Slot, i64)>,
    /// The same for what needs no cursor.
    pub(super) owning: Vec<(Slot, i64)>,
    /// Orders, each once, by id.
    pub(super) orders: Vec<OrderId>,
    /// Whether the orders' rows are locked: the operation changes them or takes replies to them (PROTOCOL R1).
    pub(super) locks_orders: bool,
    /// Orders whose held rows are asked for; each gets a [`HeldPlace`](super::work::HeldPlace), row or not.
    pub(super) held: Vec<OrderId>,
    /// Orders whose dead letters are asked for; each gets a [`DeadPlace`](super::work::DeadPlace), row or not.
    pub(super) dead: Vec<OrderId>,
    /// Replies by order and dedup text: which of them are in an inbox.
    pub(super) replies: Vec<(OrderId, &'a str)>,
    /// Records by slot and number: which of them are to be sent again.
    pub(super) republish: Vec<(Slot, i64)>,
    /// A dead letter by its number; its order joins the orders.
    pub(super) letter: Option<i64>,
    /// Overdue orders; they join the orders.
    pub(super) due: Option<Due<'a>>,
    /// Records on Kafka that are not answered, newest first, up to so many bytes; their orders join the orders.
    pub(super) unanswered: Option<usize>,
}

impl Needs<'_> {
    /// Whether no order is read, so that no lock on one is waited for.
    pub(super) fn no_order(&self) -> bool {
        self.orders.is_empty() && self.letter.is_none() && self.due.is_none() && self.unanswered.is_none()
    }
}

/// An idempotency key and the order it is to be bound to.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewKey {
    pub(super) hash: KeyHash,
    pub(super) order_id: OrderId,
}

/// Which orders of the slots in [`Needs::owning`] are overdue: of each route those whose deadline lies at or before a
/// moment. First of all it is seen whether the reply partitions are read up to these ends.
#[derive(Debug)]
pub(super) struct Due<'a> {
    pub(super) ends: &'a [Position],
    pub(super) routes: Vec<(Arc<str>, Timestamp)>,
    /// Over all routes.
    pub(super) limit: usize,
}

/// What must be read once the orders are known.
#[derive(Debug, Default)]
pub(super) struct More<'a> {
    /// Orders whose inboxes are judged, each once: the rows that are early, parked, counted or noted.
    pub(super) inboxes: Vec<OrderId>,
    /// Reply partitions, each once, by topic and number: their ends as far as any were asked for.
    pub(super) ends: Vec<(&'a str, i32)>,
}
