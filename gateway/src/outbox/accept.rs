//! The transaction behind a `202`: order, first history entry, outbox entry and idempotency row.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::params;

use super::order_row::OrderState;
use super::wake::Changed;
use super::writer::Tx;
use crate::entry::{Entry, EntryKind};
use crate::order::timeline::{Happening, to_json};
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

pub(super) fn accept(tx: &mut Tx<'_>, order: &NewOrder) -> rusqlite::Result<Kept> {
    if let Some(hash) = &order.idempotency
        && let Some(kept) = bind_key(tx, order.id, hash)?
    {
        return Ok(kept);
    }
    let (accepted, number) = (tx.next_sequence(), tx.next_sequence());
    tx.execute(
        "INSERT INTO orders (id, route, order_key, slot, status, accepted_at, updated_at, traceparent, body_at)
         VALUES (?1, ?2, ?3, ?4, 'PENDING', ?5, ?5, ?6, ?7)",
        params![order.id, order.route, order.order_key, order.slot, tx.now, order.traceparent, accepted],
    )?;
    tx.execute(
        "INSERT INTO history (order_id, sequence, version, at, status, entries, body) VALUES (?1, ?2, 1, ?3, 'PENDING', ?4, ?5)",
        params![order.id, accepted, tx.now, r#"[{"kind":"accepted"}]"#, order.body.as_ref()],
    )?;
    append(tx, number, order.slot, EntryKind::Order, order.id, None)?;
    let entry = Entry {
        number,
        slot: order.slot,
        kind: EntryKind::Order,
        order_id: order.id,
        route: Arc::clone(&order.route),
        order_key: Arc::clone(&order.order_key),
        accepted_at: tx.now,
        traceparent: Arc::clone(&order.traceparent),
        body: order.body.clone(),
        payload: None,
        redrives: 0,
    };
    tx.note_entry(number, Some(entry));
    tx.note_change(Changed { order_id: order.id, sequence: accepted });
    tx.note_status(None, Some(OrderStatus::Pending));
    Ok(Kept::New(order.id))
}

/// Binds the key to the order, or says what it is bound to.
fn bind_key(tx: &mut Tx<'_>, id: OrderId, hash: &KeyHash) -> rusqlite::Result<Option<Kept>> {
    let bound = tx.execute(
        "INSERT INTO idempotency (key_hash, fingerprint, order_id, created_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (key_hash) DO NOTHING",
        params![hash.key, hash.fingerprint, id, tx.now],
    )?;
    if bound == 1 {
        return Ok(None);
    }
    tx.query_one("SELECT fingerprint, order_id FROM idempotency WHERE key_hash = ?1", [hash.key], |row| {
        let fingerprint: [u8; 32] = row.get(0)?;
        Ok(if fingerprint == hash.fingerprint { Kept::Replay(row.get(1)?) } else { Kept::KeyReused })
    })
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

/// Promises a command: it is decided by the slot's owner, after the order's own entry.
pub(super) fn command(tx: &mut Tx<'_>, command: &NewCommand) -> rusqlite::Result<Kept> {
    let found = OrderState::find(tx, command.order_id)?;
    let Some(order) = found.filter(|order| order.route == command.route) else { return Ok(Kept::Unknown) };
    if command.order_key.as_ref().is_some_and(|order_key| *order_key != order.order_key) {
        return Ok(Kept::OrderKeyChanged);
    }
    if let Some(hash) = &command.idempotency
        && let Some(kept) = bind_key(tx, command.order_id, hash)?
    {
        return Ok(kept);
    }
    let forbidden = match command.kind {
        EntryKind::Revise => order.has_record || !matches!(order.status, OrderStatus::Pending | OrderStatus::Held),
        _ => order.is_final,
    };
    if forbidden {
        // Nothing was promised, so the key stays free.
        if let Some(hash) = &command.idempotency {
            tx.execute("DELETE FROM idempotency WHERE key_hash = ?1", [hash.key])?;
        }
        return Ok(Kept::TooLate);
    }
    let number = tx.next_sequence();
    append(tx, number, order.slot, command.kind, command.order_id, command.payload.as_deref())?;
    tx.note_entry(number, None);
    Ok(Kept::New(command.order_id))
}

/// Appends a row to the outbox.
pub(super) fn append(
    tx: &mut Tx<'_>,
    number: i64,
    slot: Slot,
    kind: EntryKind,
    id: OrderId,
    payload: Option<&[u8]>,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO outbox (number, slot, kind, order_id, at, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![number, slot, kind.as_str(), id, tx.now, payload],
    )?;
    Ok(())
}

/// Adds to an order's timeline what changes nothing a client sees.
pub(super) fn note(tx: &mut Tx<'_>, order: &OrderState, happenings: &[Happening]) -> rusqlite::Result<()> {
    let sequence = tx.next_sequence();
    tx.execute(
        "INSERT INTO history (order_id, sequence, version, at, entries) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![order.id, sequence, order.version, tx.now, to_json(happenings)],
    )?;
    Ok(())
}
