//! What clients and the operator read: orders at any version, lists, timelines.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::value::RawValue;

use super::OutboxError;
use super::order_row::{OrderState, select_orders};
use super::values::json_or_default;
use crate::clock::Timestamp;
use crate::order::patch::{self, PatchOp};
use crate::order::view::TimelineEntry;
use crate::order::{Held, OrderId, OrderStatus, OrderView, Problem};

/// Which orders a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    pub route: Option<String>,
    pub order_key: Option<String>,
    pub status: Option<OrderStatus>,
    pub before: Option<OrderId>,
    pub limit: usize,
}

/// The versions of an order above a given one.
#[derive(Debug, Clone)]
pub enum Versions {
    /// All of them, without a gap.
    Next(Vec<OrderView>),
    /// The given version was never reached, or its successor is gone.
    Gone(OrderView),
}

pub(super) fn order(conn: &Connection, id: OrderId) -> Result<Option<OrderView>, OutboxError> {
    let state = conn.prepare_cached(select_orders!("WHERE id = ?1"))?.query_row([id], OrderState::read).optional()?;
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
    Ok(OrderView {
        id: state.id,
        route: state.route,
        status: state.status,
        is_final: state.is_final,
        version: state.version.unsigned_abs(),
        accepted_at: state.accepted_at,
        updated_at: state.updated_at,
        body: enriched(&Bytes::from(body), patch.as_deref())?,
        problems: state.problems,
        held: state.held,
        deadline_at: state.deadline_at,
    })
}

/// What the plugins added is shown from the moment it is on Kafka; before, a retry may still change it.
fn shows_patch(status: OrderStatus) -> bool {
    !matches!(status, OrderStatus::Pending | OrderStatus::Held)
}

fn enriched(body: &Bytes, patch: Option<&[u8]>) -> Result<Bytes, OutboxError> {
    let Some(patch) = patch else { return Ok(body.clone()) };
    let operations: Vec<PatchOp> = serde_json::from_slice(patch).map_err(|_| OutboxError::Unavailable)?;
    patch::apply(body, &operations).map_err(|_| OutboxError::Unavailable)
}

/// Rebuilds from history what `GET` showed at each version above `version`.
pub(super) fn versions(conn: &Connection, id: OrderId, version: u64) -> Result<Option<Versions>, OutboxError> {
    let state = conn.prepare_cached(select_orders!("WHERE id = ?1"))?.query_row([id], OrderState::read).optional()?;
    let Some(state) = state else { return Ok(None) };
    let newest = state.version.unsigned_abs();
    if version == newest {
        return Ok(Some(Versions::Next(Vec::new())));
    }
    let rebuilt = if version < newest { rebuild(conn, &state, version)? } else { Vec::new() };
    // What is read must begin with the next version and reach the present (PROTOCOL S1).
    let is_whole = rebuilt.first().is_some_and(|first| first.version == version + 1)
        && rebuilt.last().is_some_and(|last| last.version == newest);
    if is_whole { Ok(Some(Versions::Next(rebuilt))) } else { Ok(Some(Versions::Gone(present(conn, state)?))) }
}

fn rebuild(conn: &Connection, state: &OrderState, above: u64) -> Result<Vec<OrderView>, OutboxError> {
    let mut statement = conn.prepare_cached(
        "SELECT version, at, status, is_final, problems, held, deadline_at, body, patch
         FROM history WHERE order_id = ?1 ORDER BY sequence",
    )?;
    let mut rows = statement.query([state.id])?;
    let (mut body, mut patch) = (Bytes::new(), None::<Vec<u8>>);
    let mut views = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(new_body) = row.get::<_, Option<Vec<u8>>>(7)? {
            body = new_body.into();
            patch = None;
        }
        if let Some(new_patch) = row.get::<_, Option<Vec<u8>>>(8)? {
            patch = Some(new_patch);
        }
        let Some(version) = version_of(row)? else { continue };
        if version.status == OrderStatus::Held {
            // What was decided before does not hold: the chain starts anew.
            patch = None;
        }
        if version.number > above {
            let shown = patch.as_deref().filter(|_| shows_patch(version.status));
            views.push(OrderView {
                id: state.id,
                route: state.route.clone(),
                status: version.status,
                is_final: version.is_final,
                version: version.number,
                accepted_at: state.accepted_at,
                updated_at: version.at,
                body: enriched(&body, shown)?,
                problems: version.problems,
                held: version.held,
                deadline_at: version.deadline_at,
            });
        }
    }
    Ok(views)
}

struct VersionRow {
    number: u64,
    at: Timestamp,
    status: OrderStatus,
    is_final: bool,
    problems: Vec<Problem>,
    held: Option<Held>,
    deadline_at: Option<Timestamp>,
}

/// The version a row of history stands for; rows without a status only add to the timeline.
fn version_of(row: &Row<'_>) -> rusqlite::Result<Option<VersionRow>> {
    let Some(status) = row.get::<_, Option<OrderStatus>>(2)? else { return Ok(None) };
    Ok(Some(VersionRow {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        at: row.get(1)?,
        status,
        is_final: row.get(3)?,
        problems: json_or_default(row, 4)?,
        held: json_or_default(row, 5)?,
        deadline_at: row.get(6)?,
    }))
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
            .query_map(params![order_key, filter.route, before, status, limit], OrderState::read)?
            .collect::<rusqlite::Result<_>>()?,
        None => conn
            .prepare_cached(select_orders!(
                "WHERE (?1 IS NULL OR route = ?1) AND id < ?2 AND (?3 IS NULL OR status = ?3) ORDER BY id DESC LIMIT ?4"
            ))?
            .query_map(params![filter.route, before, status, limit], OrderState::read)?
            .collect::<rusqlite::Result<_>>()?,
    };
    states.into_iter().map(|state| present(conn, state)).collect()
}

/// The trace context of an order and all that happened to it; `None` if there is no such order.
#[derive(Debug, Clone)]
pub struct StoredTimeline {
    pub route: String,
    pub traceparent: String,
    pub entries: Vec<TimelineEntry>,
}

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
        let happenings: Vec<serde_json::Map<String, serde_json::Value>> = json_or_default(row, 2)?;
        for mut happening in happenings {
            let kind = happening.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
            let details = RawValue::from_string(serde_json::Value::Object(happening).to_string());
            let details = details.map_err(|_| OutboxError::Unavailable)?;
            entries.push(TimelineEntry { at, version: version.unsigned_abs(), kind, details });
        }
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
