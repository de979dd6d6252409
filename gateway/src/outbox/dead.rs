//! Dead letters: what the operator reads of them, and the entries that redrive or discard them.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::accept::append;
use super::order_row::OrderState;
use super::values::json_or_default;
use super::writer::Tx;
use crate::dead::{DeadKind, DeadLetter};
use crate::entry::EntryKind;
use crate::order::OrderId;
use crate::reply::Place;

/// What a redrive or discard came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadResult {
    Accepted,
    NotDead,
    Unknown,
    NotRedrivable,
}

macro_rules! select_dead {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.kind, d.order_id, o.route, d.reason, d.detail, d.since, d.attempts, d.plugins, d.topic, ",
            "d.partition, d.record_offset, d.headers, coalesce(d.payload, h.body) ",
            "FROM dead d LEFT JOIN orders o ON o.id = d.order_id ",
            "LEFT JOIN history h ON h.order_id = o.id AND h.sequence = o.body_at ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let headers: Vec<(String, String)> = json_or_default(row, 12)?;
    let place = match row.get::<_, Option<String>>(9)? {
        Some(topic) => Some(Place { topic, partition: row.get(10)?, offset: row.get(11)? }),
        None => None,
    };
    Ok(DeadLetter {
        id: row.get(0)?,
        kind: row.get(1)?,
        order_id: row.get(2)?,
        route: row.get(3)?,
        reason: row.get(4)?,
        detail: row.get(5)?,
        since: row.get(6)?,
        attempts: row.get(7)?,
        plugins: row.get(8)?,
        place,
        headers: headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        payload: Bytes::from(row.get::<_, Option<Vec<u8>>>(13)?.unwrap_or_default()),
    })
}

pub(super) fn list(
    conn: &Connection,
    kind: Option<DeadKind>,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    conn.prepare_cached(select_dead!("WHERE d.id > ?1 AND (?2 IS NULL OR d.kind = ?2) ORDER BY d.id LIMIT ?3"))?
        .query_map(params![after, kind.map(DeadKind::as_str), i64::try_from(limit).unwrap_or(i64::MAX)], read)?
        .collect()
}

pub(super) fn one(conn: &Connection, id: i64) -> rusqlite::Result<Option<DeadLetter>> {
    conn.prepare_cached(select_dead!("WHERE d.id = ?1"))?.query_row([id], read).optional()
}

pub(super) fn counts(conn: &Connection) -> rusqlite::Result<Vec<(DeadKind, u64)>> {
    conn.prepare_cached("SELECT kind, count(*) FROM dead GROUP BY kind")?
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
        .collect()
}

/// Promises to put a dead order back, at the end of its key. The slot's owner decides whether it is still dead.
pub(super) fn redrive(tx: &mut Tx<'_>, id: i64) -> rusqlite::Result<DeadResult> {
    match order_of(tx, id)? {
        None => gone(tx, id),
        Some(None) => Ok(DeadResult::NotRedrivable),
        Some(Some(order_id)) => command(tx, order_id, EntryKind::Redrive),
    }
}

/// Gives a dead letter up: at once for a reply, by an entry for an order.
pub(super) fn discard(tx: &mut Tx<'_>, id: i64) -> rusqlite::Result<DeadResult> {
    match order_of(tx, id)? {
        None => gone(tx, id),
        Some(None) => {
            tx.execute("DELETE FROM dead WHERE id = ?1", [id])?;
            Ok(DeadResult::Accepted)
        }
        Some(Some(order_id)) => command(tx, order_id, EntryKind::Discard),
    }
}

fn order_of(tx: &mut Tx<'_>, id: i64) -> rusqlite::Result<Option<Option<OrderId>>> {
    tx.query_one("SELECT order_id FROM dead WHERE id = ?1", [id], |row| row.get(0))
}

/// Numbers are never used twice, so one below the last was dead once.
fn gone(tx: &mut Tx<'_>, id: i64) -> rusqlite::Result<DeadResult> {
    let last = tx.query_one("SELECT seq FROM sqlite_sequence WHERE name = 'dead'", [], |row| row.get::<_, i64>(0))?;
    Ok(if (1..=last.unwrap_or(0)).contains(&id) { DeadResult::NotDead } else { DeadResult::Unknown })
}

fn command(tx: &mut Tx<'_>, order_id: OrderId, kind: EntryKind) -> rusqlite::Result<DeadResult> {
    let Some(order) = OrderState::find(tx, order_id)? else { return Ok(DeadResult::Unknown) };
    let number = tx.next_sequence();
    append(tx, number, order.slot, kind, order_id, None)?;
    tx.note_entry(number, None);
    Ok(DeadResult::Accepted)
}
