//! The transaction behind a `202`: order, first history entry, outbox entry and idempotency row.

use std::sync::Arc;

use bytes::Bytes;

use super::needs::{Needs, NewKey, Operation};
use super::wake::Changed;
use super::work::{KeyState, NewEntry, NewOrderRow, Work};
use crate::crash::Point;
use crate::entry::{Entry, EntryKind, EntryPlace};
use crate::order::{OrderId, OrderStatus, Slot};

/// An order to be kept.
#[derive(Debug, Clone)]
pub struct NewOrder {
    pub id: OrderId,
    pub route: Arc<str>,
    pub order_key: Arc<str>,
    pub slot: Slot,
    /// W3C trace context, ours or the caller's continued.
    pub traceparent: Arc<str>,
    pub body: Bytes,
    pub idempotency: Option<KeyHash>,
}

/// An idempotency key with its scope, and the body it came with, as SHA-256.
#[derive(Debug, Clone, Copy)]
pub struct KeyHash {
    pub key: [u8; 32],
    pub fingerprint: [u8; 32],
}

/// What became of a [`NewOrder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is on disk.
    New(OrderId),
    /// The same request was kept before, as this order.
    Replay(OrderId),
    /// The key stands for another body.
    KeyReused,
    /// A command came for an order in a state that forbids it.
    TooLate,
    /// A command came for an order that the route does not have.
    Unknown,
    /// A revision would change the order key.
    OrderKeyChanged,
}

/// A client's command on its order.
#[derive(Debug, Clone)]
pub struct NewCommand {
    pub kind: EntryKind,
    pub order_id: OrderId,
    pub route: Arc<str>,
    /// The new body of a revision, and the order key it has.
    pub payload: Option<Bytes>,
    pub order_key: Option<Arc<str>>,
    pub idempotency: Option<KeyHash>,
}

/// A request of a client that is kept by an entry of its own.
#[derive(Debug)]
pub(super) enum Intake {
    Order(NewOrder),
    Command(NewCommand),
}

/// Keeps one request.
#[derive(Debug)]
pub(super) struct KeepOne(pub(super) Intake);

/// Keeps many requests, each with a result of its own, in their order.
#[derive(Debug)]
pub(super) struct KeepAll(pub(super) Vec<Intake>);

impl Operation for KeepOne {
    type Output = Kept;
    const WRITTEN: Option<Point> = Some(Point::AcceptWritten);

    fn needs(&self) -> Needs<'_> {
        needs_of(std::slice::from_ref(&self.0))
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> Kept {
        self.0.keep(work)
    }
}

impl Operation for KeepAll {
    type Output = Vec<Kept>;
    const WRITTEN: Option<Point> = Some(Point::AcceptWritten);

    fn needs(&self) -> Needs<'_> {
        needs_of(&self.0)
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> Vec<Kept> {
        self.0.iter().map(|intake| intake.keep(work)).collect()
    }
}

/// Keys in their order, of twins the first; the orders that commands are about.
fn needs_of(intakes: &[Intake]) -> Needs<'_> {
    let mut needs = Needs::default();
    for intake in intakes {
        if let Some(hash) = intake.idempotency() {
            needs.keys.push(NewKey { hash: *hash, order_id: intake.order_id() });
        }
        if let Intake::Command(command) = intake {
            needs.orders.push(command.order_id);
        }
    }
    needs.keys.sort_by_key(|new| new.hash.key);
    needs.keys.dedup_by_key(|new| new.hash.key);
    needs.orders.sort_unstable();
    needs.orders.dedup();
    needs
}

impl Intake {
    /// What it adds to a batch.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Order(order) => order.body.len(),
            Self::Command(command) => command.payload.as_ref().map_or(0, Bytes::len),
        }
    }

    fn idempotency(&self) -> Option<&KeyHash> {
        match self {
            Self::Order(order) => order.idempotency.as_ref(),
            Self::Command(command) => command.idempotency.as_ref(),
        }
    }

    fn order_id(&self) -> OrderId {
        match self {
            Self::Order(order) => order.id,
            Self::Command(command) => command.order_id,
        }
    }

    fn keep<'a>(&'a self, work: &mut Work<'a>) -> Kept {
        match self {
            Self::Order(order) => accept(work, order),
            Self::Command(command) => promise(work, command),
        }
    }
}

/// Keeps an order.
fn accept<'a>(work: &mut Work<'a>, order: &'a NewOrder) -> Kept {
    if let Some(hash) = &order.idempotency {
        if let Some(kept) = bound_before(work, hash) {
            return kept;
        }
        claim(work, hash, order.id);
    }
    let out = &mut work.out;
    let (sequence, number) = (out.next_sequence(), out.next_sequence());
    out.writes.new_orders.push(NewOrderRow { order, sequence, number });
    let entry = Entry {
        place: EntryPlace::of(number),
        slot: order.slot,
        kind: EntryKind::Order,
        order_id: order.id,
        route: Arc::clone(&order.route),
        order_key: Arc::clone(&order.order_key),
        accepted_at: out.now,
        traceparent: Arc::clone(&order.traceparent),
        body: order.body.clone(),
        payload: None,
        redrives: 0,
    };
    out.notes.entries.push(NewEntry { number, entry: Some(entry) });
    out.notes.changed.push(Changed { order_id: order.id, sequence });
    out.notes.count(None, Some(OrderStatus::Pending));
    Kept::New(order.id)
}

/// Promises a command: it is decided by the slot's owner, after the order's own entry.
fn promise(work: &mut Work<'_>, command: &NewCommand) -> Kept {
    let Some(order) = work.orders.get(command.order_id).filter(|order| order.route == command.route) else {
        return Kept::Unknown;
    };
    if command.order_key.as_ref().is_some_and(|order_key| *order_key != order.order_key) {
        return Kept::OrderKeyChanged;
    }
    let slot = order.slot;
    let is_forbidden = match command.kind {
        EntryKind::Revise => order.has_record || !matches!(order.status, OrderStatus::Pending | OrderStatus::Held),
        _ => order.is_final,
    };
    if let Some(hash) = &command.idempotency {
        if let Some(kept) = bound_before(work, hash) {
            return kept;
        }
        // Where nothing is promised the key stays free.
        if !is_forbidden {
            claim(work, hash, command.order_id);
        }
    }
    if is_forbidden {
        return Kept::TooLate;
    }
    work.out.append(slot, command.kind, command.order_id, command.payload.clone());
    Kept::New(command.order_id)
}

/// What the key is bound to, if it was bound before.
fn bound_before(work: &mut Work<'_>, hash: &KeyHash) -> Option<Kept> {
    let bound = work.key(hash)?;
    match bound.state {
        KeyState::Fresh => None,
        KeyState::Bound | KeyState::Rebound if bound.hash.fingerprint == hash.fingerprint => {
            Some(Kept::Replay(bound.order_id))
        }
        KeyState::Bound | KeyState::Rebound => Some(Kept::KeyReused),
    }
}

/// Takes a key that this transaction inserted. It was inserted for the first request that has it, of which another may
/// have come to nothing.
fn claim(work: &mut Work<'_>, hash: &KeyHash, id: OrderId) {
    let Some(bound) = work.key(hash) else { return };
    let is_as_inserted = bound.order_id == id && bound.hash.fingerprint == hash.fingerprint;
    bound.state = if is_as_inserted { KeyState::Bound } else { KeyState::Rebound };
    (bound.order_id, bound.hash.fingerprint) = (id, hash.fingerprint);
}

#[cfg(test)]
mod tests {
    use super::super::work::{BoundKey, Notes};
    use super::*;
    use crate::clock::Timestamp;
    use crate::order::Slot;

    const KEY: [u8; 32] = [1; 32];

    fn order(fingerprint: u8) -> NewOrder {
        NewOrder {
            id: OrderId::generate(),
            route: "/orders".into(),
            order_key: "k".into(),
            slot: Slot::of("/orders", "k"),
            traceparent: "".into(),
            body: Bytes::from_static(b"{}"),
            idempotency: Some(KeyHash { key: KEY, fingerprint: [fingerprint; 32] }),
        }
    }

    /// A command on an order that does not exist.
    fn vain(fingerprint: u8) -> NewCommand {
        let NewOrder { id: order_id, route, idempotency, .. } = order(fingerprint);
        NewCommand { kind: EntryKind::Cancel, order_id, route, payload: None, order_key: None, idempotency }
    }

    /// Keeps a batch on a database that has nothing; returns what became of it and of its key.
    fn keep(batch: Vec<Intake>) -> (Vec<Kept>, BoundKey) {
        let batch = KeepAll(batch);
        let mut work = Work::new(Timestamp(1), 0, Notes::default());
        let fresh = |new: &NewKey| BoundKey { hash: new.hash, order_id: new.order_id, state: KeyState::Fresh };
        work.keys = batch.needs().keys.iter().map(fresh).collect();
        assert_eq!(work.keys.len(), 1, "twins share their key");
        let kept = batch.run(&mut work);
        (kept, work.keys[0])
    }

    #[test]
    fn the_first_of_twins_has_the_key_that_was_bound_for_it() {
        let (first, second) = (order(1), order(1));
        let id = first.id;
        let (kept, key) = keep(vec![Intake::Order(first), Intake::Order(second), Intake::Order(order(2))]);
        assert_eq!(kept, [Kept::New(id), Kept::Replay(id), Kept::KeyReused]);
        assert_eq!((key.state, key.order_id), (KeyState::Bound, id));
    }

    #[test]
    fn a_key_bound_for_a_request_that_came_to_nothing_is_of_the_next_one_that_has_it() {
        let (kept_order, twin) = (order(2), order(2));
        let id = kept_order.id;
        let batch =
            vec![Intake::Command(vain(1)), Intake::Order(kept_order), Intake::Order(twin), Intake::Order(order(1))];
        let (kept, key) = keep(batch);
        assert_eq!(kept, [Kept::Unknown, Kept::New(id), Kept::Replay(id), Kept::KeyReused]);
        assert_eq!((key.state, key.order_id, key.hash.fingerprint), (KeyState::Rebound, id, [2; 32]));
    }

    #[test]
    fn a_key_that_nobody_gets_stays_unclaimed() {
        let (kept, key) = keep(vec![Intake::Command(vain(1)), Intake::Command(vain(1))]);
        assert_eq!((kept.as_slice(), key.state), ([Kept::Unknown; 2].as_slice(), KeyState::Fresh));
    }
}
