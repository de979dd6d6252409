//! Cursors of slots: read under their locks, and moved, by where their rows lie.
//!
//! Each commit writes a new version of the rows it moves. While somebody holds a snapshot the old ones stay, and whoever
//! looks a row up by its slot walks over all of them. So a node remembers where the last version lies (its `ctid`) and asks
//! for the row there. Such a place is a hint: the slot is checked with it, and what is not there is looked up by its slot.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::postgres::PgRow;

use super::session::Tx;
use super::values::{Columns, slot_number, xid_number};
use crate::entry::EntryPlace;
use crate::order::Slot;
use crate::outbox::work::{DecideCursor, PublishCursor, SuspicionStep};

/// Where the rows lay when this node last saw them.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    pub(super) decide: Places,
    pub(super) publish: Places,
}

/// Where the rows of one kind of cursors lay.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<Slot, String>>);

impl Places {
    fn known(&self) -> MutexGuard<'_, HashMap<Slot, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over where rows lie: slot and place are their first two columns.
    fn note(&self, rows: &[PgRow]) -> Result<(), sqlx::Error> {
        let mut known = self.known();
        for row in rows {
            known.insert(row.slot(0)?, row.text(1)?);
        }
        Ok(())
    }

    /// The places of these slots; of one that is not known, none.
    pub(super) fn of(&self, slots: impl Iterator<Item = Slot>) -> Vec<Option<String>> {
        let known = self.known();
        slots.map(|slot| known.get(&slot).cloned()).collect()
    }

    /// Takes over where rows lie that were moved. Each was locked where it lay, so it was there.
    pub(super) fn moved(&self, rows: &[PgRow], moved: usize) -> Result<(), sqlx::Error> {
        if rows.len() != moved {
            return Err(sqlx::Error::Protocol(format!("{} of {moved} cursors lay where they were locked", rows.len())));
        }
        self.note(rows)
    }
}

// `slot + 0` has no index: what is asked for by its place is not to be looked up otherwise.

/// What a statement needs of the rows of decide cursors.
const DECIDE_BY_PLACE: &str = "SELECT slot, ctid::text, xid, number, last_record, last_place FROM decide_cursors
     WHERE ctid = ANY ($1::text[]::tid[]) AND slot + 0 = ANY ($2) FOR NO KEY UPDATE";
const DECIDE_BY_SLOT: &str = "SELECT slot, ctid::text, xid, number, last_record, last_place FROM decide_cursors
     WHERE slot = ANY ($1) ORDER BY slot FOR NO KEY UPDATE";
/// The same of publish cursors.
const PUBLISH_BY_PLACE: &str = "SELECT slot, ctid::text, number FROM publish_cursors
     WHERE ctid = ANY ($1::text[]::tid[]) AND slot + 0 = ANY ($2) FOR NO KEY UPDATE";
const PUBLISH_BY_SLOT: &str = "SELECT slot, ctid::text, number FROM publish_cursors
     WHERE slot = ANY ($1) ORDER BY slot FOR NO KEY UPDATE";

impl Cursors {
    /// The decide cursors of slots, in the order of slots. Their rows are locked: a commit whose answer was lost may still be
    /// under way (PROTOCOL D2).
    pub(super) async fn deciding(
        &self,
        tx: &mut Tx<'_>,
        slots: &[(Slot, i64)],
    ) -> Result<Vec<DecideCursor>, sqlx::Error> {
        let rows = locked(tx, &self.decide, slots, DECIDE_BY_PLACE, DECIDE_BY_SLOT).await?;
        let read = |row: &PgRow| {
            Ok(DecideCursor {
                slot: row.slot(0)?,
                at: row.place(2, 3)?,
                last_record: row.number(4)?,
                last_place: row.number(5)?,
                is_moved: false,
                suspicion: SuspicionStep::Same,
            })
        };
        let mut cursors = rows.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>()?;
        cursors.sort_unstable_by_key(|cursor| cursor.slot);
        Ok(cursors)
    }

    /// Moves decide cursors up to `to` that stand where they were last seen; returns how many.
    pub(super) async fn advance(
        &self,
        tx: &mut Tx<'_>,
        from: &[(Slot, i64, EntryPlace)],
        to: EntryPlace,
    ) -> Result<usize, sqlx::Error> {
        let slots: Vec<(Slot, i64)> = from.iter().map(|(slot, epoch, _)| (*slot, *epoch)).collect();
        let stands = self.deciding(tx, &slots).await?;
        let seen = |cursor: &DecideCursor| from.iter().any(|(slot, _, at)| *slot == cursor.slot && *at == cursor.at);
        let moving: Vec<Slot> = stands.iter().filter(|cursor| seen(cursor)).map(|cursor| cursor.slot).collect();
        let statement = tx.statement(
            "UPDATE decide_cursors c SET xid = $3, number = $4
             FROM unnest($1::smallint[], $2::text[]::tid[]) AS n (slot, lies_at)
             WHERE c.ctid = n.lies_at AND c.slot + 0 = n.slot RETURNING c.slot, c.ctid::text",
        );
        let statement = statement
            .bind(moving.iter().map(|slot| slot_number(*slot)).collect::<Vec<_>>())
            .bind(self.decide.of(moving.iter().copied()))
            .bind(xid_number(to))
            .bind(to.number);
        let rows = tx.rows(statement).await?;
        self.decide.moved(&rows, moving.len())?;
        Ok(moving.len())
    }

    /// The publish cursors of slots, in the same way.
    pub(super) async fn publishing(
        &self,
        tx: &mut Tx<'_>,
        slots: &[(Slot, i64)],
    ) -> Result<Vec<PublishCursor>, sqlx::Error> {
        let rows = locked(tx, &self.publish, slots, PUBLISH_BY_PLACE, PUBLISH_BY_SLOT).await?;
        let read = |row: &PgRow| Ok(PublishCursor { slot: row.slot(0)?, at: row.number(2)?, is_moved: false });
        let mut cursors = rows.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>()?;
        cursors.sort_unstable_by_key(|cursor| cursor.slot);
        Ok(cursors)
    }
}

/// Locks the rows of these slots, and remembers where they lie.
async fn locked(
    tx: &mut Tx<'_>,
    places: &Places,
    slots: &[(Slot, i64)],
    by_place: &'static str,
    by_slot: &'static str,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let mut missing: Vec<i16> = slots.iter().map(|(slot, _)| slot_number(*slot)).collect();
    let known: Vec<String> = places.of(slots.iter().map(|(slot, _)| *slot)).into_iter().flatten().collect();
    let mut rows = Vec::new();
    if !known.is_empty() {
        rows = tx.rows(tx.statement(by_place).bind(known).bind(missing.clone())).await?;
        for row in &rows {
            let found = slot_number(row.slot(0)?);
            missing.retain(|slot| *slot != found);
        }
    }
    if !missing.is_empty() {
        rows.extend(tx.rows(tx.statement(by_slot).bind(missing)).await?);
    }
    places.note(&rows)?;
    Ok(rows)
}
