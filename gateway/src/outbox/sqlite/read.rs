//! What clients and the operator read: orders at any version, lists, timelines.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::load::{read_order, select_orders};
use super::values::json_or_default;
use crate::clock::Timestamp;
use crate::order::{OrderId, OrderStatus, OrderView};
use crate::outbox::OutboxError;
use crate::outbox::reading::{
    OrderFilter, Rebuild, StoredRow, StoredTimeline, StoredVersion, Versions, shows_patch, timeline_entries, view,
};
use crate::outbox::state::OrderState;
use crate::reply::Position;

pub(super) fn order(conn: &Connection, id: OrderId) -> Result<Option<OrderView>, OutboxError> {
    let state = conn.prepare_cached(select_orders!("WHERE id = ?1"))?.query_row([id], read_order).optional()?;
    state.map(|state| present(conn, state)).transpose()
}

/// What `GET` shows of a stored state.
fn present(conn: &Connection, state: OrderState) -> Result<OrderView, OutboxError> {
    let body: Vec<u8> = conn
        .prepare_cached("SELECT body FROM history WHERE order_id = ?1 AND sequence = ?2")?
        .query_row(params![state.id, state.body_at], |row| row.get(0))?;
    let patch: Option<Vec<u8>> = match state.patch_at.filter(|_| shows_patch(state.status)) {
        Some(sequence) => conn
            .prepare_cached("SELECT patch FROM history WHERE order_id = ?1 AND sequence = ?2")?
            .query_row(params![state.id, sequence], |row| row.get(0))?,
        None => None,
    };
    view(state, body, patch.as_deref())
}

/// Rebuilds from history what `GET` showed at each version above `version`.
pub(super) fn versions(conn: &Connection, id: OrderId, version: u64) -> Result<Option<Versions>, OutboxError> {
    let state = conn.prepare_cached(select_orders!("WHERE id = ?1"))?.query_row([id], read_order).optional()?;
    let Some(state) = state else { return Ok(None) };
    let newest = state.version.unsigned_abs();
    if version == newest {
        return Ok(Some(Versions::Next(Vec::new())));
    }
    let mut rebuild = Rebuild::new(&state, version);
    if version < newest {
        let mut statement = conn.prepare_cached(
            "SELECT version, at, status, is_final, problems, held, deadline_at, body, patch
             FROM history WHERE order_id = ?1 ORDER BY sequence",
        )?;
        let mut rows = statement.query([state.id])?;
        while let Some(row) = rows.next()? {
            rebuild.push(stored_row(row)?)?;
        }
    }
    match rebuild.whole() {
        Some(views) => Ok(Some(Versions::Next(views))),
        None => Ok(Some(Versions::Gone(present(conn, state)?))),
    }
}

fn stored_row(row: &Row<'_>) -> rusqlite::Result<StoredRow> {
    let version = match row.get::<_, Option<OrderStatus>>(2)? {
        Some(status) => Some(StoredVersion {
            number: row.get(0)?,
            at: row.get(1)?,
            status,
            is_final: row.get(3)?,
            problems: json_or_default(row, 4)?,
            held: json_or_default(row, 5)?,
            deadline_at: row.get(6)?,
        }),
        None => None,
    };
    Ok(StoredRow { body: row.get(7)?, patch: row.get(8)?, version })
}

/// Orders of a key stand in `order_keys` once they are decided; before that, in the outbox.
pub(super) fn list(conn: &Connection, filter: &OrderFilter) -> Result<Vec<OrderView>, OutboxError> {
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let before = filter.before.map_or(vec![0xff; 16], |id| id.as_bytes().to_vec());
    let status = filter.status.map(OrderStatus::as_str);
    let states: Vec<OrderState> = match &filter.order_key {
        Some(order_key) => conn
            .prepare_cached(select_orders!(
                "WHERE id IN (
                     SELECT order_id FROM order_keys
                     WHERE order_key = ?1 AND (?2 IS NULL OR route = ?2) AND order_id < ?3
                     UNION
                     SELECT e.order_id FROM outbox e CROSS JOIN decide_cursors c CROSS JOIN orders o
                     WHERE e.number > (SELECT min(number) FROM decide_cursors)
                         AND c.slot = e.slot AND e.number > c.number AND e.kind = 'order'
                         AND o.id = e.order_id AND o.order_key = ?1 AND (?2 IS NULL OR o.route = ?2) AND o.id < ?3)
                 AND (?4 IS NULL OR status = ?4)
                 ORDER BY id DESC LIMIT ?5"
            ))?
            .query_map(params![order_key, filter.route, before, status, limit], read_order)?
            .collect::<rusqlite::Result<_>>()?,
        None => conn
            .prepare_cached(select_orders!(
                "WHERE (?1 IS NULL OR route = ?1) AND id < ?2 AND (?3 IS NULL OR status = ?3) ORDER BY id DESC LIMIT ?4"
            ))?
            .query_map(params![filter.route, before, status, limit], read_order)?
            .collect::<rusqlite::Result<_>>()?,
    };
    states.into_iter().map(|state| present(conn, state)).collect()
}

/// All that happened to an order.
pub(super) fn timeline(conn: &Connection, id: OrderId) -> Result<Option<StoredTimeline>, OutboxError> {
    let head = conn
        .prepare_cached("SELECT route, traceparent FROM orders WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((route, traceparent)) = head else { return Ok(None) };
    let mut statement =
        conn.prepare_cached("SELECT at, version, entries FROM history WHERE order_id = ?1 ORDER BY sequence")?;
    let mut rows = statement.query([id])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let (at, version): (Timestamp, i64) = (row.get(0)?, row.get(1)?);
        entries.extend(timeline_entries(at, version, json_or_default(row, 2)?)?);
    }
    Ok(Some(StoredTimeline { route, traceparent, entries }))
}

/// When the oldest entry that is not decided was written.
pub(super) fn oldest_undecided(conn: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    conn.prepare_cached(
        "SELECT e.at FROM outbox e JOIN decide_cursors c USING (slot)
         WHERE e.number > c.number AND e.number > (SELECT min(number) FROM decide_cursors)
         ORDER BY e.number LIMIT 1",
    )?
    .query_row([], |row| row.get(0))
    .optional()
}

/// Deadlines that have passed at `now`.
pub(super) fn has_overdue(conn: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM orders WHERE deadline_at IS NOT NULL AND deadline_at <= ?1 LIMIT 1")?
        .exists([now])
}

/// Up to where each reply partition is read.
pub(super) fn reply_positions(conn: &Connection) -> rusqlite::Result<Vec<Position>> {
    conn.prepare_cached("SELECT topic, partition, next_offset FROM reply_positions")?
        .query_map([], |row| Ok(Position { topic: row.get(0)?, partition: row.get(1)?, next_offset: row.get(2)? }))?
        .collect()
}
