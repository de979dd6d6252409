//! What clients and the operator read: orders at any version, lists, timelines, dead letters.

use bytes::Bytes;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::failure::answer;
use super::load::{ORDER_COLUMNS, read_order, select_orders};
use super::session::{Kind, Sessions};
use super::values::{Columns, limit_number};
use crate::clock::Timestamp;
use crate::dead::{DeadFilter, DeadKind, DeadLetter};
use crate::order::{OrderId, OrderStatus, OrderView};
use crate::outbox::OutboxError;
use crate::outbox::reading::{self, OrderFilter, StoredTimeline, shows_patch, timeline_entries};
use crate::outbox::state::OrderState;
use crate::reply::Place;

/// A `SELECT` of an order's row with its body and the plugins' patch, with what follows it.
macro_rules! select_views {
    ($rest:literal) => {
        concat!(
            select_orders!(", b.body, p.patch FROM orders o "),
            "JOIN history b ON b.order_id = o.id AND b.sequence = o.body_at ",
            "LEFT JOIN history p ON p.order_id = o.id AND p.sequence = o.patch_at ",
            $rest
        )
    };
}

/// An order at its present version.
pub(super) async fn order(sessions: &Sessions, id: OrderId) -> Result<Option<OrderView>, OutboxError> {
    let sql = select_views!("WHERE o.id = $1");
    let rows = sessions.rows(sql, |statement| statement.bind(id.0)).await.map_err(|error| answer(&error))?;
    rows.first().map(view).transpose()
}

fn view(row: &PgRow) -> Result<OrderView, OutboxError> {
    let (state, body, patch) = stored(row).map_err(|error| answer(&error))?;
    let patch = patch.filter(|_| shows_patch(state.status));
    reading::view(state, body, patch.as_deref())
}

/// An order's row, its body and its patch.
type Stored = (OrderState, Vec<u8>, Option<Vec<u8>>);

fn stored(row: &PgRow) -> Result<Stored, sqlx::Error> {
    Ok((read_order(row)?, row.try_get(ORDER_COLUMNS)?, row.try_get(ORDER_COLUMNS + 1)?))
}

/// Orders, newest first.
pub(super) async fn list(sessions: &Sessions, filter: &OrderFilter) -> Result<Vec<OrderView>, OutboxError> {
    let before = filter.before.map_or(Uuid::max(), |id| id.0);
    let status = filter.status.map(OrderStatus::as_str);
    let sql = if filter.order_key.is_some() {
        select_views!(
            "WHERE o.order_key = $5 AND ($1::text IS NULL OR o.route = $1) AND o.id < $2
                 AND ($3::text IS NULL OR o.status = $3)
             ORDER BY o.id DESC LIMIT $4"
        )
    } else {
        select_views!(
            "WHERE ($1::text IS NULL OR o.route = $1) AND o.id < $2 AND ($3::text IS NULL OR o.status = $3)
                 AND $5::bytea IS NULL
             ORDER BY o.id DESC LIMIT $4"
        )
    };
    let rows = sessions.rows(sql, |statement| {
        let order_key = filter.order_key.as_ref().map(|order_key| order_key.clone().into_bytes());
        statement.bind(filter.route.clone()).bind(before).bind(status).bind(limit_number(filter.limit)).bind(order_key)
    });
    rows.await.map_err(|error| answer(&error))?.iter().map(view).collect()
}

/// The trace context of an order and all that happened to it.
pub(super) async fn timeline(sessions: &Sessions, id: OrderId) -> Result<Option<StoredTimeline>, OutboxError> {
    let rows = sessions.rows(
        "SELECT o.route, o.traceparent, h.at, h.version, h.entries
         FROM orders o JOIN history h ON h.order_id = o.id WHERE o.id = $1 ORDER BY h.sequence",
        |statement| statement.bind(id.0),
    );
    let rows = rows.await.map_err(|error| answer(&error))?;
    let Some(first) = rows.first() else { return Ok(None) };
    let head = || Ok((first.text(0)?, first.text(1)?));
    let (route, traceparent) = head().map_err(|error: sqlx::Error| answer(&error))?;
    let mut entries = Vec::new();
    for row in &rows {
        let stored = || Ok((row.time(2)?, row.number(3)?, row.json(4)?));
        let (at, version, happenings) = stored().map_err(|error: sqlx::Error| answer(&error))?;
        entries.extend(timeline_entries(at, version, happenings)?);
    }
    Ok(Some(StoredTimeline { route, traceparent, entries }))
}

/// When the oldest entry that is not decided was written. It reads on from the cursor furthest behind, in the order of the
/// log, however many entries wait.
pub(super) async fn oldest_undecided(sessions: &Sessions) -> Result<Option<Timestamp>, sqlx::Error> {
    let sql = "SELECT e.at FROM outbox e JOIN decide_cursors c USING (slot)
         WHERE e.xid >= (SELECT min(xid) FROM decide_cursors) AND (e.xid, e.number) > (c.xid, c.number)
         ORDER BY e.xid, e.number LIMIT 1";
    let rows = sessions.rows_within(Kind::ReadInOrder, sql, |statement| statement).await?;
    rows.first().map(|row| row.time(0)).transpose()
}

/// A `SELECT` of dead letters, with what follows it.
macro_rules! select_dead {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.kind, d.order_id, o.route, d.reason, d.detail, d.since, d.attempts, d.plugins, d.topic, ",
            "d.partition, d.record_offset, d.headers, coalesce(d.payload, h.body), coalesce(o.redrives, 0) ",
            "FROM dead d LEFT JOIN orders o ON o.id = d.order_id ",
            "LEFT JOIN history h ON h.order_id = o.id AND h.sequence = o.body_at ",
            $rest
        )
    };
}

fn letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    let headers: Vec<(String, String)> = row.json(12)?;
    let place = match row.text_or_none(9)? {
        Some(topic) => Some(Place { topic, partition: row.partition(10)?, offset: row.number(11)? }),
        None => None,
    };
    Ok(DeadLetter {
        id: row.number(0)?,
        kind: row.dead_kind(1)?,
        order_id: row.id_or_none(2)?,
        route: row.text_or_none(3)?,
        reason: row.text(4)?,
        detail: row.text(5)?,
        since: row.time(6)?,
        attempts: row.count(7)?,
        redrives: row.count(14)?,
        plugins: row.text(8)?,
        place,
        headers: headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        payload: row.bytes_or_none(13)?.unwrap_or_default(),
    })
}

/// Dead letters, oldest first.
pub(super) async fn dead(sessions: &Sessions, filter: &DeadFilter) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let sql = select_dead!(
        "WHERE d.id > $1 AND ($2::text IS NULL OR d.kind = $2) AND ($3::text IS NULL OR d.reason = $3)
             AND ($4::text IS NULL OR o.route = $4) AND ($5::bigint IS NULL OR d.since >= $5)
             AND ($6::bigint IS NULL OR d.since < $6)
         ORDER BY d.id LIMIT $7"
    );
    let rows = sessions.rows(sql, |statement| {
        statement
            .bind(filter.after)
            .bind(filter.kind.map(DeadKind::as_str))
            .bind(filter.reason.clone())
            .bind(filter.route.clone())
            .bind(filter.since.map(|since| since.0))
            .bind(filter.before.map(|before| before.0))
            .bind(limit_number(filter.limit))
    });
    rows.await?.iter().map(letter).collect()
}

/// One dead letter.
pub(super) async fn dead_letter(sessions: &Sessions, id: i64) -> Result<Option<DeadLetter>, sqlx::Error> {
    let rows = sessions.rows(select_dead!("WHERE d.id = $1"), |statement| statement.bind(id)).await?;
    rows.first().map(letter).transpose()
}

/// Dead letters by kind.
pub(super) async fn dead_counts(sessions: &Sessions) -> Result<Vec<(DeadKind, u64)>, sqlx::Error> {
    let rows = sessions.rows("SELECT kind, count(*) FROM dead GROUP BY kind", |statement| statement).await?;
    rows.iter().map(|row| Ok((row.dead_kind(0)?, row.number(1)?.unsigned_abs()))).collect()
}
