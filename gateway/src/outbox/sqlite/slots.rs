//! Tenures and what the owner of slots reads: entries, due orders, records, suspects.
//!
//! Differs from a shared database because a SQLite file has one node: the lock on the file stands for the lease, so a
//! take-over is always of all slots and never waits. The epoch is raised and checked all the same.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, Row, params};

use super::values::json_or_default;
use super::writer::Tx;
use crate::clock::Timestamp;
use crate::entry::{Entry, EntryKind, EntryPlace};
use crate::order::{OrderId, Slot};
use crate::outbox::Lost;
use crate::outbox::owning::{HeldKey, HeldOrder, KEY_ORDERS_MAX, ReadLimits, Strikes, Suspicion, Tenure, parse_begun};
use crate::record::Record;
use crate::reply::Position;

/// Raises every epoch. The cursors are read in a later statement than that (PROTOCOL O5).
pub(super) fn take_over(tx: &mut Tx<'_>, owner: &str) -> rusqlite::Result<()> {
    tx.execute("UPDATE slots SET owner = ?1, epoch = epoch + 1", [owner])?;
    let died = tx.query_one("SELECT batch FROM begun WHERE is_open = 1", [], |row| row.get::<_, String>(0))?;
    for (slot, number) in died.iter().flat_map(|batch| parse_begun(batch)) {
        tx.execute(
            "INSERT INTO suspects (slot, at_number, deaths) VALUES (?1, ?2, 1)
             ON CONFLICT (slot) DO UPDATE
             SET deaths = CASE WHEN at_number = excluded.at_number THEN deaths + 1 ELSE 1 END,
                 at_number = excluded.at_number",
            params![slot, number],
        )?;
    }
    tx.execute("UPDATE begun SET is_open = 0", [])?;
    if died.is_some() {
        // Whoever ran alone when the process died is the culprit: its own count rises.
        tx.execute(
            "UPDATE held SET deaths = deaths + 1 WHERE order_id IN (SELECT alone FROM suspects WHERE alone IS NOT NULL)",
            [],
        )?;
        tx.execute("UPDATE suspects SET culprit = alone WHERE alone IS NOT NULL", [])?;
    }
    tx.execute("UPDATE suspects SET alone = NULL WHERE alone IS NOT NULL", [])?;
    Ok(())
}

/// Reads the tenures as they are stored.
pub(super) fn tenures(tx: &mut Tx<'_>) -> rusqlite::Result<Vec<Tenure>> {
    tx.query_all(
        "SELECT s.slot, s.epoch, d.number, d.last_record, p.number, x.deaths, x.culprit
         FROM slots s JOIN decide_cursors d USING (slot) JOIN publish_cursors p USING (slot)
         LEFT JOIN suspects x ON x.slot = s.slot AND x.at_number = d.number
         ORDER BY s.slot",
        [],
        |row| {
            let deaths: Option<u32> = row.get(5)?;
            let alone = row.get(6)?;
            Ok(Tenure {
                slot: row.get(0)?,
                epoch: row.get(1)?,
                decide_cursor: row.get(2)?,
                last_record: row.get(3)?,
                publish_cursor: row.get(4)?,
                suspicion: deaths.map(|deaths| Suspicion { deaths, alone }),
            })
        },
    )
}

/// Names the pass under way, or the one order of it that runs alone; whoever was named before has survived.
pub(super) fn begin(tx: &mut Tx<'_>, batch: &str, alone: Option<(Slot, EntryPlace, OrderId)>) -> rusqlite::Result<()> {
    tx.execute("UPDATE begun SET batch = ?1, is_open = 1 WHERE id = 1", [batch])?;
    tx.execute("UPDATE suspects SET alone = NULL WHERE alone IS NOT NULL", [])?;
    if let Some((slot, place, id)) = alone {
        tx.execute(
            "INSERT INTO suspects (slot, at_number, deaths, alone) VALUES (?1, ?2, 0, ?3)
             ON CONFLICT (slot) DO UPDATE SET alone = excluded.alone",
            params![slot, place, id],
        )?;
    }
    Ok(())
}

/// Moves the decide cursors of slots that had nothing to carry up to `to`, so that a restart need not read past it.
pub(super) fn advance_idle(
    tx: &mut Tx<'_>,
    cursors: &[(Slot, i64, EntryPlace)],
    to: EntryPlace,
) -> rusqlite::Result<Vec<Lost>> {
    let mut lost = Vec::new();
    for (slot, epoch, from) in cursors {
        let moved = tx.execute(
            "UPDATE decide_cursors SET number = ?3
             WHERE slot = ?1 AND number = ?2 AND (SELECT epoch FROM slots WHERE slot = ?1) = ?4",
            params![slot, from, to, epoch],
        )?;
        if moved == 0 {
            lost.push(Lost);
        }
    }
    Ok(lost)
}

/// Entries above `after`, over all slots, in the order of commits.
pub(super) fn entries(conn: &Connection, after: EntryPlace, limits: ReadLimits) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = conn.prepare_cached(
        "SELECT e.number, e.slot, e.kind, e.order_id, o.route, o.order_key, o.accepted_at, o.traceparent, h.body, e.payload,
                o.redrives
         FROM outbox e JOIN orders o ON o.id = e.order_id
         JOIN history h ON h.order_id = o.id AND h.sequence = o.body_at
         WHERE e.number > ?1 ORDER BY e.number LIMIT ?2",
    )?;
    let rows = statement.query_map(params![after, limits.count()], read_entry)?;
    limits.collect(rows, |entry| entry.body.len())
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        place: row.get(0)?,
        slot: row.get(1)?,
        kind: row.get(2)?,
        order_id: row.get(3)?,
        route: row.get(4)?,
        order_key: row.get(5)?,
        accepted_at: row.get(6)?,
        traceparent: row.get(7)?,
        body: Bytes::from(row.get::<_, Vec<u8>>(8)?),
        payload: row.get::<_, Option<Vec<u8>>>(9)?.map(Bytes::from),
        redrives: row.get(10)?,
    })
}

/// Orders due at `now`, of each route the longest overdue first, each with those behind it, in the order of their key.
pub(super) fn due(
    conn: &Connection,
    now: Timestamp,
    routes: &[(Arc<str>, usize)],
    bytes_max: usize,
) -> rusqlite::Result<Vec<HeldOrder>> {
    let mut heads = conn.prepare_cached(
        "SELECT slot, order_key, place FROM held WHERE route = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3",
    )?;
    let mut followers = conn.prepare_cached(
        "SELECT d.place, d.slot, ?5, d.order_id, o.route, o.order_key, o.accepted_at, o.traceparent, h.body, NULL,
                o.redrives, d.since, d.attempts, d.deaths, d.faults
         FROM held d JOIN orders o ON o.id = d.order_id JOIN history h ON h.order_id = o.id AND h.sequence = o.body_at
         WHERE d.slot = ?1 AND d.route = ?2 AND d.order_key = ?3 AND d.place >= ?4 ORDER BY d.place LIMIT ?6",
    )?;
    let mut taken: Vec<HeldOrder> = Vec::new();
    let mut bytes = 0;
    for (route, count) in routes {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        let heads = heads
            .query_map(params![route, now, count], |row| {
                Ok((row.get::<_, Slot>(0)?, row.get::<_, Arc<str>>(1)?, row.get::<_, i64>(2)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut left = count;
        for (slot, order_key, place) in heads {
            let rows = followers.query_map(
                params![slot, route, order_key, place, EntryKind::Order.as_str(), left.min(KEY_ORDERS_MAX)],
                |row| {
                    Ok(HeldOrder {
                        entry: read_entry(row)?,
                        since: row.get(11)?,
                        attempts: row.get(12)?,
                        strikes: Strikes { deaths: row.get(13)?, faults: row.get(14)? },
                    })
                },
            )?;
            for row in rows {
                let held = row?;
                bytes += held.entry.body.len();
                left -= 1;
                taken.push(held);
                if bytes >= bytes_max {
                    return Ok(taken);
                }
            }
            if left <= 0 {
                break;
            }
        }
    }
    Ok(taken)
}

/// Every key that has held orders.
pub(super) fn held_keys(conn: &Connection) -> rusqlite::Result<Vec<HeldKey>> {
    conn.prepare_cached("SELECT DISTINCT slot, route, order_key FROM held")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

/// The number of the last entry of the log, of any slot; 0 if there is none.
pub(super) fn last_entry(conn: &Connection) -> rusqlite::Result<EntryPlace> {
    conn.query_row("SELECT coalesce(max(number), 0) FROM outbox", [], |row| row.get(0))
}

/// Number of the last record in each slot's log.
pub(super) fn log_ends(conn: &Connection) -> rusqlite::Result<Vec<(Slot, i64)>> {
    conn.prepare_cached("SELECT slot, last_record FROM decide_cursors")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Records of a slot above `after`, in the order of publishing.
pub(super) fn records(conn: &Connection, slot: Slot, after: i64, limits: ReadLimits) -> rusqlite::Result<Vec<Record>> {
    let mut statement = conn.prepare_cached(
        "SELECT slot, number, order_id, is_outcome, topic, record_key, headers, value, at
         FROM records WHERE slot = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
    )?;
    let rows = statement.query_map(params![slot, after, limits.count()], read_record)?;
    limits.collect(rows, |record| record.value.len())
}

/// Records that a development broker forgot, slot by slot, in order.
pub(super) fn forgotten(conn: &Connection) -> rusqlite::Result<Vec<Record>> {
    conn.prepare_cached(
        "SELECT slot, number, r.order_id, r.is_outcome, r.topic, r.record_key, r.headers, r.value, r.at
         FROM republish JOIN records r USING (slot, number) ORDER BY slot, number",
    )?
    .query_map([], read_record)?
    .collect()
}

fn read_record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let headers: Vec<(String, String)> = json_or_default(row, 6)?;
    Ok(Record {
        slot: row.get(0)?,
        number: row.get(1)?,
        order_id: row.get(2)?,
        is_outcome: row.get(3)?,
        topic: row.get(4)?,
        key: Bytes::from(row.get::<_, Vec<u8>>(5)?),
        headers: headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        value: Bytes::from(row.get::<_, Vec<u8>>(7)?),
        timestamp: row.get(8)?,
    })
}

/// Makes orders due that wait after a fault of a plugin: another version judges them now.
pub(super) fn retry_faults(tx: &mut Tx<'_>) -> rusqlite::Result<usize> {
    tx.execute(
        "UPDATE held SET due_at = ?1 WHERE due_at > ?1 AND order_id IN
             (SELECT id FROM orders WHERE status = 'HELD' AND json_extract(held, '$.reason') = 'fault')",
        params![tx.now],
    )
}

/// Notes where reply partitions ended at a moment.
pub(super) fn note_ends(tx: &mut Tx<'_>, asked_at: Timestamp, ends: &[Position]) -> rusqlite::Result<()> {
    for end in ends {
        tx.execute(
            "INSERT INTO reply_ends (topic, partition, asked_at, end_offset) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (topic, partition, asked_at) DO UPDATE SET end_offset = excluded.end_offset",
            params![end.topic, end.partition, asked_at, end.next_offset],
        )?;
    }
    Ok(())
}
