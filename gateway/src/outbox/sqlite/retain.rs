//! Removes what is finished and old, a few rows at a time, so that intake never waits for long.
//!
//! Each step is one job of the writer among others: it looks at a bounded number of rows from the old end of a table
//! and removes those that may go.

use rusqlite::params;
use uuid::Uuid;

use super::writer::Tx;
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::order::{OrderId, OrderStatus};
use crate::outbox::retention::{Cutoffs, Removed, first_id_at};

pub(super) fn step(tx: &mut Tx<'_>, cutoffs: &Cutoffs, orders_after: Option<OrderId>) -> rusqlite::Result<Removed> {
    let rows = i64::try_from(cutoffs.rows_max).unwrap_or(i64::MAX);
    let mut removed = Removed {
        entries: tx.execute(
            "DELETE FROM outbox WHERE number IN (
                 SELECT e.number FROM (SELECT number, slot, at FROM outbox ORDER BY number LIMIT ?2) e
                 JOIN decide_cursors c USING (slot) WHERE e.number <= c.number AND e.at < ?1)",
            params![cutoffs.entries, rows],
        )?,
        idempotency: tx.execute(
            "DELETE FROM idempotency WHERE number IN (
                 SELECT number FROM (SELECT number, created_at FROM idempotency ORDER BY number LIMIT ?2)
                 WHERE created_at < ?1)",
            params![cutoffs.idempotency, rows],
        )?,
        inbox: tx.execute(
            "DELETE FROM inbox WHERE (order_id, dedup) IN (
                 SELECT order_id, dedup FROM inbox WHERE fate = 'parked' AND taken_at < ?1 ORDER BY taken_at LIMIT ?2)",
            params![cutoffs.parked_replies, rows],
        )?,
        ..Removed::default()
    };
    removed.records = records(tx, cutoffs, rows)?;
    orders(tx, cutoffs, rows, orders_after, &mut removed)?;
    if removed.entries + removed.records > 0 {
        crash::at(Point::RetainWritten);
    }
    removed.has_more = [removed.entries, removed.idempotency, removed.inbox, removed.records]
        .iter()
        .any(|count| *count >= cutoffs.rows_max)
        || removed.orders_after.is_some();
    Ok(removed)
}

/// Records that are on Kafka and not awaiting replies: a development broker may have to get those again.
fn records(tx: &mut Tx<'_>, cutoffs: &Cutoffs, rows: i64) -> rusqlite::Result<usize> {
    tx.execute(
        "DELETE FROM records WHERE (slot, number) IN (
             SELECT r.slot, r.number FROM publish_cursors c
             JOIN records r ON r.slot = c.slot
                 AND r.number <= c.number
                 AND r.number <= (SELECT min(number) FROM records f WHERE f.slot = c.slot) + ?2
             LEFT JOIN orders o ON o.id = r.order_id
             WHERE r.at < ?1 AND NOT coalesce(o.status = 'PUBLISHED' AND o.is_final = 0, 0) LIMIT ?2)",
        params![cutoffs.entries, rows],
    )
}

/// Final orders with all that belongs to them, once their outcome is decided. Ids rise with time, so the old ones stand
/// first.
fn orders(
    tx: &mut Tx<'_>,
    cutoffs: &Cutoffs,
    rows: i64,
    after: Option<OrderId>,
    removed: &mut Removed,
) -> rusqlite::Result<()> {
    let from = after.unwrap_or(OrderId(Uuid::nil()));
    let to = first_id_at(cutoffs.orders);
    let looked_at = tx.query_all(
        "SELECT id, is_final AND updated_at < ?3, status, updated_at FROM orders WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?4",
        params![from, to, cutoffs.orders, rows],
        |row| {
            Ok((
                row.get::<_, OrderId>(0)?,
                row.get::<_, bool>(1)?,
                row.get::<_, OrderStatus>(2)?,
                row.get::<_, Timestamp>(3)?,
            ))
        },
    )?;
    // An order changed last before the oldest undecided entry has none itself.
    let undecided = if looked_at.iter().any(|(_, is_old, ..)| *is_old) { oldest_undecided(tx)? } else { None };
    for (id, is_old, status, updated_at) in &looked_at {
        if *is_old && undecided.is_none_or(|undecided| *updated_at < undecided) {
            tx.notes.count(Some(*status), None);
            tx.execute(
                "DELETE FROM order_keys
                 WHERE (order_key, route, order_id) = (SELECT order_key, route, id FROM orders WHERE id = ?1)",
                [id],
            )?;
            removed.orders += tx.execute("DELETE FROM orders WHERE id = ?1", [id])?;
            removed.history += tx.execute("DELETE FROM history WHERE order_id = ?1", [id])?;
            removed.inbox += tx.execute("DELETE FROM inbox WHERE order_id = ?1", [id])?;
        }
    }
    let is_full = looked_at.len() == usize::try_from(rows).unwrap_or(usize::MAX);
    removed.orders_after = looked_at.last().filter(|_| is_full).map(|(id, ..)| *id);
    Ok(())
}

fn oldest_undecided(tx: &Tx<'_>) -> rusqlite::Result<Option<Timestamp>> {
    tx.query_one(
        "SELECT e.at FROM outbox e JOIN decide_cursors c USING (slot)
         WHERE e.number > c.number AND e.number > (SELECT min(number) FROM decide_cursors)
         ORDER BY e.number LIMIT 1",
        [],
        |row| row.get(0),
    )
}
