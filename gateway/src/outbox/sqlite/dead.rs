//! Dead letters: what the operator reads of them.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::values::json_or_default;
use crate::dead::{DeadFilter, DeadKind, DeadLetter};
use crate::reply::Place;

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
        redrives: row.get(14)?,
        plugins: row.get(8)?,
        place,
        headers: headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        payload: Bytes::from(row.get::<_, Option<Vec<u8>>>(13)?.unwrap_or_default()),
    })
}

pub(super) fn list(conn: &Connection, filter: &DeadFilter) -> rusqlite::Result<Vec<DeadLetter>> {
    let DeadFilter { kind, reason, route, since, before, after, limit } = filter;
    let (kind, limit) = (kind.map(DeadKind::as_str), i64::try_from(*limit).unwrap_or(i64::MAX));
    conn.prepare_cached(select_dead!(
        "WHERE d.id > ?1 AND (?2 IS NULL OR d.kind = ?2) AND (?3 IS NULL OR d.reason = ?3)
             AND (?4 IS NULL OR o.route = ?4) AND (?5 IS NULL OR d.since >= ?5) AND (?6 IS NULL OR d.since < ?6)
         ORDER BY d.id LIMIT ?7"
    ))?
    .query_map(params![after, kind, reason, route, since, before, limit], read)?
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
