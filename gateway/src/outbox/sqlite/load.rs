//! The load step: what an operation needs, read row by row on the writer's thread.
//!
//! Nothing is locked, since nobody else writes.

use std::borrow::Cow;

use rusqlite::{Row, params};

use super::values::json_or_default;
use super::writer::Tx;
use crate::order::{OrderId, Slot};
use crate::outbox::accept::KeyHash;
use crate::outbox::needs::{Due, More, Needs, NewKey};
use crate::outbox::owning::Strikes;
use crate::outbox::publish::{Unanswered, fitting};
use crate::outbox::state::{OrderChange, OrderState};
use crate::outbox::work::{
    BoundKey, DeadPlace, DecideCursor, HeldPlace, HeldRow, InboxChange, InboxRow, KeyState, Letter, NextDead,
    PartitionEnd, PublishCursor, SuspicionStep, Work,
};

/// A `SELECT` of the columns that [`read_order`] expects, with what follows it.
macro_rules! select_orders {
    ($rest:literal) => {
        concat!(
            "SELECT id, route, order_key, slot, status, is_final, version, accepted_at, updated_at, ",
            "has_record, redrives, body_at, patch_at, problems, held, deadline_at, first_record, last_record FROM orders ",
            $rest
        )
    };
}
pub(super) use select_orders;

pub(super) fn read_order(row: &Row<'_>) -> rusqlite::Result<OrderState> {
    Ok(OrderState {
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
        redrives: row.get(10)?,
        body_at: row.get(11)?,
        patch_at: row.get(12)?,
        problems: json_or_default(row, 13)?,
        held: json_or_default(row, 14)?,
        deadline_at: row.get(15)?,
        records: row.get::<_, Option<i64>>(16)?.zip(row.get(17)?),
        change: OrderChange::None,
    })
}

/// Reads what an operation needs first.
pub(super) fn load<'a>(tx: &Tx<'_>, mut needs: Needs<'a>, work: &mut Work<'a>) -> rusqlite::Result<()> {
    for new in &needs.keys {
        let bound = bind(tx, new, work)?;
        work.keys.push(bound);
    }
    for (slot, epoch) in &needs.deciding {
        work.deciding.extend(deciding(tx, *slot, *epoch)?);
    }
    for (slot, epoch) in &needs.publishing {
        work.publishing.extend(publishing(tx, *slot, *epoch)?);
    }
    for (slot, epoch) in &needs.owning {
        let found =
            tx.query_one("SELECT 1 FROM slots WHERE slot = ?1 AND epoch = ?2", params![slot, epoch], |_| Ok(()))?;
        work.owned.extend(found.map(|()| *slot));
    }
    for key in &needs.republish {
        let found = tx.query_one("SELECT 1 FROM republish WHERE slot = ?1 AND number = ?2", *key, |_| Ok(()))?;
        if found.is_some() {
            work.republish.insert(*key);
        }
    }
    if let Some(number) = needs.letter {
        work.letter = letter(tx, number)?;
        if let Letter::Of(id) = work.letter {
            needs.orders.push(id);
        }
    }
    if let Some(due) = &needs.due {
        work.due = overdue(tx, due)?;
        needs.orders.extend(work.due.iter().flatten());
        needs.orders.sort_unstable();
    }
    if let Some(bytes_max) = needs.unanswered {
        work.unanswered = unanswered(tx, bytes_max)?;
        needs.orders.extend(work.unanswered.iter().map(|(.., id)| *id));
        needs.orders.sort_unstable();
        needs.orders.dedup();
    }
    for id in &needs.orders {
        if let Some(order) = tx.query_one(select_orders!("WHERE id = ?1"), [id], read_order)? {
            work.orders.push(order);
        }
    }
    for id in needs.held {
        let row = tx.query_one(
            "SELECT place, since, attempts, due_at, deaths, faults FROM held WHERE order_id = ?1",
            [id],
            |row| {
                Ok(HeldRow {
                    place: row.get(0)?,
                    since: row.get(1)?,
                    attempts: row.get(2)?,
                    due_at: row.get(3)?,
                    strikes: Strikes { deaths: row.get(4)?, faults: row.get(5)? },
                })
            },
        )?;
        work.held.insert(id, HeldPlace { is_stored: row.is_some(), row, is_changed: false });
    }
    for id in needs.dead {
        let found = tx.query_one("SELECT 1 FROM dead WHERE order_id = ?1", [id], |_| Ok(()))?;
        let next = if found.is_some() { NextDead::Stored } else { NextDead::None };
        work.dead.insert(id, DeadPlace { is_stored: found.is_some(), next });
    }
    for (id, dedup) in needs.replies {
        let found =
            tx.query_one("SELECT 1 FROM inbox WHERE order_id = ?1 AND dedup = ?2", params![id, dedup], |_| Ok(()))?;
        if found.is_some() {
            work.known.insert((id, dedup));
        }
    }
    Ok(())
}

/// Reads what an operation needs once the orders are known.
pub(super) fn load_more<'a>(tx: &Tx<'_>, more: More<'a>, work: &mut Work<'_>) -> rusqlite::Result<()> {
    for id in more.inboxes {
        let rows = tx.query_all(
            "SELECT dedup, kind, source, record_at, taken_at, fate, problems FROM inbox
             WHERE order_id = ?1 AND fate IN ('early', 'parked', 'counted', 'noted')
             ORDER BY taken_at, record_at",
            [id],
            |row| {
                Ok(InboxRow {
                    dedup: Cow::Owned(row.get(0)?),
                    kind: Cow::Owned(row.get(1)?),
                    source: row.get::<_, Option<String>>(2)?.map(Cow::Owned),
                    sent_at: row.get(3)?,
                    taken_at: row.get(4)?,
                    fate: row.get(5)?,
                    problems: Cow::Owned(json_or_default(row, 6)?),
                    change: InboxChange::Same,
                })
            },
        )?;
        if !rows.is_empty() {
            work.inboxes.insert(id, rows);
        }
    }
    for (topic, partition) in more.ends {
        work.ends.extend(tx.query_all(
            "SELECT asked_at, end_offset FROM reply_ends WHERE topic = ?1 AND partition = ?2",
            params![topic, partition],
            |row| {
                let (asked_at, end_offset) = (row.get(0)?, row.get(1)?);
                Ok(PartitionEnd { topic: topic.to_owned(), partition, asked_at, end_offset })
            },
        )?);
    }
    Ok(())
}

/// Binds a free key, or reads what it is bound to.
fn bind(tx: &Tx<'_>, new: &NewKey, work: &Work<'_>) -> rusqlite::Result<BoundKey> {
    let NewKey { hash, order_id } = *new;
    let inserted = tx.execute(
        "INSERT INTO idempotency (key_hash, fingerprint, order_id, created_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (key_hash) DO NOTHING",
        params![hash.key, hash.fingerprint, order_id, work.out.now],
    )?;
    if inserted == 1 {
        return Ok(BoundKey { hash, order_id, state: KeyState::Fresh });
    }
    let bound =
        tx.query_one("SELECT fingerprint, order_id FROM idempotency WHERE key_hash = ?1", [hash.key], |row| {
            let hash = KeyHash { key: hash.key, fingerprint: row.get(0)? };
            Ok(BoundKey { hash, order_id: row.get(1)?, state: KeyState::Bound })
        })?;
    bound.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn deciding(tx: &Tx<'_>, slot: Slot, epoch: i64) -> rusqlite::Result<Option<DecideCursor>> {
    tx.query_one(
        "SELECT number, last_record, last_place FROM slots JOIN decide_cursors USING (slot)
         WHERE slot = ?1 AND epoch = ?2",
        params![slot, epoch],
        |row| {
            Ok(DecideCursor {
                slot,
                at: row.get(0)?,
                last_record: row.get(1)?,
                last_place: row.get(2)?,
                is_moved: false,
                suspicion: SuspicionStep::Same,
            })
        },
    )
}

fn publishing(tx: &Tx<'_>, slot: Slot, epoch: i64) -> rusqlite::Result<Option<PublishCursor>> {
    tx.query_one(
        "SELECT number FROM slots JOIN publish_cursors USING (slot) WHERE slot = ?1 AND epoch = ?2",
        params![slot, epoch],
        |row| Ok(PublishCursor { slot, at: row.get(0)?, is_moved: false }),
    )
}

fn letter(tx: &Tx<'_>, number: i64) -> rusqlite::Result<Letter> {
    let order_id = tx.query_one("SELECT order_id FROM dead WHERE id = ?1", [number], |row| row.get(0))?;
    match order_id {
        Some(Some(id)) => Ok(Letter::Of(id)),
        Some(None) => Ok(Letter::Reply),
        // Numbers are never used twice, so one below the last was dead once.
        None => {
            let last = "SELECT seq FROM sqlite_sequence WHERE name = 'dead'";
            let last = tx.query_one(last, [], |row| row.get::<_, i64>(0))?;
            Ok(if (1..=last.unwrap_or(0)).contains(&number) { Letter::Gone } else { Letter::Unknown })
        }
    }
}

fn overdue(tx: &Tx<'_>, due: &Due<'_>) -> rusqlite::Result<Option<Vec<OrderId>>> {
    for end in due.ends {
        let next_offset = tx.query_one(
            "SELECT next_offset FROM reply_positions WHERE topic = ?1 AND partition = ?2",
            params![end.topic, end.partition],
            |row| row.get::<_, i64>(0),
        )?;
        if next_offset.unwrap_or(0) < end.next_offset {
            return Ok(None);
        }
    }
    let mut overdue = Vec::new();
    for (route, moment) in &due.routes {
        let left = i64::try_from(due.limit.saturating_sub(overdue.len())).unwrap_or(i64::MAX);
        overdue.extend(tx.query_all(
            "SELECT id FROM orders WHERE deadline_at IS NOT NULL AND deadline_at <= ?1 AND route = ?2
             ORDER BY deadline_at LIMIT ?3",
            params![moment, route, left],
            |row| row.get::<_, OrderId>(0),
        )?);
    }
    Ok(Some(overdue))
}

fn unanswered(tx: &Tx<'_>, bytes_max: usize) -> rusqlite::Result<Vec<(Slot, i64, OrderId)>> {
    let unanswered = tx.query_all(
        "SELECT r.slot, r.number, r.order_id, length(r.value) + length(r.headers), o.first_record IS NOT NULL
         FROM orders o JOIN records r ON r.order_id = o.id AND r.slot = o.slot AND r.is_outcome = 0
         JOIN publish_cursors c ON c.slot = r.slot
         WHERE (o.status = 'PUBLISHED' AND o.is_final = 0 OR o.status = 'PENDING' AND o.first_record IS NOT NULL)
             AND r.number <= c.number AND (o.first_record IS NULL OR r.number BETWEEN o.first_record AND o.last_record)
         ORDER BY r.at DESC, r.slot, r.number DESC",
        [],
        |row| {
            Ok(Unanswered {
                slot: row.get(0)?,
                number: row.get(1)?,
                order_id: row.get(2)?,
                bytes: row.get(3)?,
                is_of_several: row.get(4)?,
            })
        },
    )?;
    Ok(fitting(&unanswered, bytes_max))
}
