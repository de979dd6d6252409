//! The partitions of the two logs: ranges of transactions, made ahead, dropped whole.
//!
//! A range is closed once no transaction can write into it any more. A new one is as wide as a sixteenth of what the
//! present ones span, so that their number stays about the same however fast transactions are used up; transactions of
//! other databases of the server count too. A writer that finds no partition makes some and tries again.
//!
//! A new partition is a table that is attached, not one that is created as a part: the latter would wait for everybody who
//! reads a log, such as a dump, and every writer would wait behind it.

use sqlx::Row;

use super::session::{ADVISORY_LOCK, Kind, Sessions, Tx};

/// Ranges that begin above the present transaction.
const AHEAD: i64 = 4;
/// The span of all ranges is divided into about so many.
const RANGES: i64 = 16;
/// How long a lock on a log is waited for, in milliseconds: everybody else waits behind it meanwhile.
const LOCK_TIMEOUT_MS: u32 = 20;

/// Makes partitions for the transactions to come; returns how many.
pub(super) async fn make_ahead(sessions: &Sessions, width_min: i64) -> Result<usize, sqlx::Error> {
    let rows = sessions
        .rows(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, coalesce(min(from_xid), 0),
                    coalesce(max(to_xid), 0), count(*) FILTER (WHERE from_xid > pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
             FROM log_ranges",
            |statement| statement,
        )
        .await?;
    let ahead: i64 = rows.first().map_or(Ok(0), |row| row.try_get(3))?;
    if ahead >= AHEAD {
        return Ok(0);
    }
    let mut tx = sessions.begin(Kind::Write).await?;
    tx.run(format!("SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")).await?;
    let made = extend(&mut tx, width_min).await?;
    tx.commit("").await?;
    Ok(made)
}

/// Makes the ranges that are missing ahead of the present transaction.
pub(super) async fn extend(tx: &mut Tx<'_>, width_min: i64) -> Result<usize, sqlx::Error> {
    let statement = tx.statement(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                coalesce(min(from_xid), 0), coalesce(max(to_xid), 0),
                count(*) FILTER (WHERE from_xid > pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
         FROM log_ranges",
    );
    let Some(row) = tx.row(statement).await? else { return Ok(0) };
    let (oldest, present, first, last, ahead): (i64, i64, i64, i64, i64) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    let width = ((last - first) / RANGES).max(width_min);
    // A writer under way may be as old as `oldest`. Where everything was dropped, or the last range is behind, a gap
    // stays that nobody can write into any more.
    let mut from = if last == 0 { oldest } else { last.max(oldest) };
    let mut made = 0;
    let mut ahead = ahead;
    while ahead < AHEAD {
        let to = from + width;
        tx.run(format!(
            "CREATE TABLE outbox_{from} (LIKE outbox INCLUDING ALL);
             CREATE TABLE records_{from} (LIKE records INCLUDING ALL);
             ALTER TABLE outbox ATTACH PARTITION outbox_{from} FOR VALUES FROM ({from}) TO ({to});
             ALTER TABLE records ATTACH PARTITION records_{from} FOR VALUES FROM ({from}) TO ({to});
             INSERT INTO log_ranges (from_xid, to_xid) VALUES ({from}, {to})"
        ))
        .await?;
        made += 1;
        if from > present {
            ahead += 1;
        }
        from = to;
    }
    Ok(made)
}

/// A range of the logs that no transaction writes into any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) at: i64,
}

/// Notes which ranges are closed, as of `now`, and returns all that are, oldest first.
pub(super) async fn close(tx: &mut Tx<'_>, now: i64) -> Result<Vec<Closed>, sqlx::Error> {
    let note = tx.statement(
        "UPDATE log_ranges SET closed_at = $1
         WHERE closed_at IS NULL AND to_xid <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint",
    );
    tx.execute(note.bind(now)).await?;
    let closed = tx
        .statement("SELECT from_xid, to_xid, closed_at FROM log_ranges WHERE closed_at IS NOT NULL ORDER BY from_xid");
    let rows = tx.rows(closed).await?;
    rows.iter().map(|row| Ok(Closed { from: row.try_get(0)?, to: row.try_get(1)?, at: row.try_get(2)? })).collect()
}

/// Drops the partition of a log.
pub(super) async fn drop_one(tx: &mut Tx<'_>, log: &'static str, from: i64) -> Result<(), sqlx::Error> {
    // The lock is on the whole log for the moment of the drop: where it is not to be had at once, another time.
    tx.run(format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; DROP TABLE IF EXISTS {log}_{from}")).await
}
