//! One order's row: read under the writer's lock, changed only together with its row of history.
//!
//! Every change of what `GET` shows goes through [`OrderState::store`], which raises the version by one (PROTOCOL R6).

use std::sync::Arc;

use rusqlite::{Row, params};

use super::values::{json, json_or_default};
use super::wake::Changed;
use super::writer::Tx;
use crate::clock::Timestamp;
use crate::order::timeline::{Happening, to_json};
use crate::order::{Held, OrderId, OrderStatus, Problem, Slot};

/// A `SELECT` of the columns that [`OrderState::read`] expects, with what follows it.
macro_rules! select_orders {
    ($rest:literal) => {
        concat!(
            "SELECT id, route, order_key, slot, status, is_final, version, accepted_at, updated_at, ",
            "has_record, body_at, patch_at, problems, held, deadline_at FROM orders ",
            $rest
        )
    };
}
pub(super) use select_orders;

/// The present state of an order.
#[derive(Debug, Clone)]
pub(super) struct OrderState {
    pub(super) id: OrderId,
    pub(super) route: Arc<str>,
    pub(super) order_key: Arc<str>,
    pub(super) slot: Slot,
    pub(super) status: OrderStatus,
    pub(super) is_final: bool,
    pub(super) version: i64,
    pub(super) accepted_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) has_record: bool,
    pub(super) body_at: i64,
    pub(super) patch_at: Option<i64>,
    pub(super) problems: Vec<Problem>,
    pub(super) held: Option<Held>,
    pub(super) deadline_at: Option<Timestamp>,
}

impl OrderState {
    /// Reads an order inside a transaction; nobody else changes it until the commit (PROTOCOL R1).
    pub(super) fn find(tx: &mut Tx<'_>, id: OrderId) -> rusqlite::Result<Option<Self>> {
        tx.query_one(select_orders!("WHERE id = ?1"), [id], Self::read)
    }

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            route: row.get(1)?,
            order_key: row.get(2)?,
            slot: row.get(3)?,
            status: row.get(4)?,
            is_final: row.get(5)?,
            version: row.get(6)?,
            accepted_at: row.get(7)?,
            updated_at: row.get(8)?,
            has_record: row.get(9)?,
            body_at: row.get(10)?,
            patch_at: row.get(11)?,
            problems: json_or_default(row, 12)?,
            held: json_or_default(row, 13)?,
            deadline_at: row.get(14)?,
        })
    }

    /// Gives the order its next status and clears what belonged to the last one.
    pub(super) fn enter(&mut self, tx: &mut Tx<'_>, status: OrderStatus, is_final: bool) {
        tx.note_status(Some(self.status), Some(status));
        self.status = status;
        self.is_final = is_final;
        self.held = None;
        self.deadline_at = None;
    }

    /// Stores the state as the next version, with what happened.
    pub(super) fn store(&mut self, tx: &mut Tx<'_>, happenings: &[Happening]) -> rusqlite::Result<()> {
        self.store_with(tx, happenings, None, None)
    }

    /// As [`OrderState::store`], with a new body or the plugins' patch.
    pub(super) fn store_with(
        &mut self,
        tx: &mut Tx<'_>,
        happenings: &[Happening],
        body: Option<&[u8]>,
        patch: Option<&str>,
    ) -> rusqlite::Result<()> {
        let sequence = tx.next_sequence();
        self.version += 1;
        self.updated_at = tx.now;
        if body.is_some() {
            self.body_at = sequence;
        }
        if patch.is_some() {
            self.patch_at = Some(sequence);
        }
        let problems = (!self.problems.is_empty()).then(|| json(&self.problems));
        let held = self.held.as_ref().map(json);
        tx.execute(
            "INSERT INTO history
             (order_id, sequence, version, at, status, is_final, problems, held, deadline_at, entries, body, patch)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                self.id,
                sequence,
                self.version,
                tx.now,
                self.status,
                self.is_final,
                problems,
                held,
                self.deadline_at,
                to_json(happenings),
                body,
                patch.map(str::as_bytes),
            ],
        )?;
        tx.execute(
            "UPDATE orders
             SET status = ?2, is_final = ?3, version = ?4, updated_at = ?5, has_record = ?6, body_at = ?7,
                 patch_at = ?8, problems = ?9, held = ?10, deadline_at = ?11
             WHERE id = ?1",
            params![
                self.id,
                self.status,
                self.is_final,
                self.version,
                self.updated_at,
                self.has_record,
                self.body_at,
                self.patch_at,
                problems,
                held,
                self.deadline_at,
            ],
        )?;
        tx.note_change(Changed { order_id: self.id, sequence });
        Ok(())
    }

    /// Notes that a pending order has a record in the log; what a client sees stays as it is. Returns whether it was
    /// pending and had none. Reads no more than that needs, since this is what becomes of most orders.
    pub(super) fn note_record(
        tx: &mut Tx<'_>,
        id: OrderId,
        happenings: &[Happening],
        patch: Option<&str>,
    ) -> rusqlite::Result<bool> {
        // Not as one UPDATE with RETURNING: SQLite would make a table for its result each time.
        let version = tx.query_one(
            "SELECT version FROM orders WHERE id = ?1 AND status = 'PENDING' AND has_record = 0",
            [id],
            |row| row.get::<_, i64>(0),
        )?;
        let Some(version) = version else { return Ok(false) };
        let sequence = tx.next_sequence();
        tx.execute(
            "UPDATE orders SET has_record = 1, patch_at = ?2 WHERE id = ?1",
            params![id, patch.map(|_| sequence)],
        )?;
        tx.execute(
            "INSERT INTO history (order_id, sequence, version, at, entries, patch) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![id, sequence, version, tx.now, to_json(happenings), patch.map(str::as_bytes)],
        )?;
        Ok(true)
    }
}
