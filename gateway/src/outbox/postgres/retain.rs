//! Removes what is finished and old: rows of the tables that are changed, a bounded number at a time; of the logs whole
//! partitions.

use sqlx::Row;
use tracing::{debug, info};
use uuid::Uuid;

use super::failure::code;
use super::partitions::{self, Closed};
use super::read::oldest_undecided;
use super::session::{Kind, Sessions, Tx};
use super::values::{Columns, limit_number};
use super::words::{counted, counts_row};
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::order::OrderId;
use crate::outbox::retention::{Cutoffs, Removed, first_id_at};
use crate::outbox::work::Notes;

/// Partitions that one step drops, of each log.
const DROPS_MAX: usize = 4;

/// One step. What it took off the counts is in the notes.
pub(super) async fn step(
    sessions: &Sessions,
    width_min: i64,
    now: Timestamp,
    cutoffs: &Cutoffs,
    orders_after: Option<OrderId>,
) -> Result<(Removed, Notes), sqlx::Error> {
    let (mut removed, mut notes) = (Removed::default(), Notes::default());
    partitions::make_ahead(sessions, width_min).await?;
    logs(sessions, now, cutoffs, &mut removed).await?;
    let rows = limit_number(cutoffs.rows_max);
    // Before the transaction, so perhaps one that is decided meanwhile: then less is removed in this step.
    let undecided = oldest_undecided(sessions).await?;
    let mut tx = sessions.begin(Kind::Write).await?;
    let statement = tx.statement(
        "DELETE FROM idempotency WHERE key_hash IN (
             SELECT key_hash FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
    );
    removed.idempotency = count(tx.execute(statement.bind(cutoffs.idempotency.0).bind(rows)).await?);
    let statement = tx.statement(
        "DELETE FROM inbox WHERE (order_id, dedup) IN (
             SELECT order_id, dedup FROM inbox WHERE fate = 'parked' AND taken_at < $1 ORDER BY taken_at LIMIT $2)",
    );
    removed.inbox = count(tx.execute(statement.bind(cutoffs.parked_replies.0).bind(rows)).await?);
    orders(&mut tx, cutoffs, undecided, orders_after, &mut removed, &mut notes).await?;
    let row = counts_row(fastrand::i64(0..i64::MAX));
    tx.commit(&counted(notes.counts, row).unwrap_or_default()).await?;
    removed.has_more = [removed.idempotency, removed.inbox].iter().any(|count| *count >= cutoffs.rows_max)
        || removed.orders_after.is_some();
    Ok((removed, notes))
}

fn count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

/// Final orders with all that belongs to them, once their outcome is decided. Ids rise with time, so the old ones stand
/// first.
async fn orders(
    tx: &mut Tx<'_>,
    cutoffs: &Cutoffs,
    undecided: Option<Timestamp>,
    after: Option<OrderId>,
    removed: &mut Removed,
    notes: &mut Notes,
) -> Result<(), sqlx::Error> {
    let statement = tx.statement(
        "SELECT id, is_final AND updated_at < $3 FROM orders WHERE id > $1 AND id < $2 ORDER BY id LIMIT $4",
    );
    let statement = statement
        .bind(after.map_or(Uuid::nil(), |id| id.0))
        .bind(first_id_at(cutoffs.orders).0)
        .bind(cutoffs.orders.0)
        .bind(limit_number(cutoffs.rows_max));
    let looked_at = tx.rows(statement).await?;
    let mut old: Vec<Uuid> = Vec::new();
    for row in &looked_at {
        if row.flag(1)? {
            old.push(row.try_get(0)?);
        }
    }
    let is_full = looked_at.len() >= cutoffs.rows_max;
    removed.orders_after = looked_at.last().filter(|_| is_full).map(|row| row.id(0)).transpose()?;
    if old.is_empty() {
        return Ok(());
    }
    let statement = tx.statement(
        "SELECT id, status FROM orders WHERE id = ANY ($1) AND is_final AND updated_at < $2 ORDER BY id FOR UPDATE",
    );
    // An order changed last before the oldest undecided entry has none itself.
    let before = undecided.map_or(cutoffs.orders, |undecided| undecided.min(cutoffs.orders)).0;
    let mut gone: Vec<Uuid> = Vec::new();
    for row in tx.rows(statement.bind(old).bind(before)).await? {
        notes.count(Some(row.status(1)?), None);
        gone.push(row.try_get(0)?);
    }
    if gone.is_empty() {
        return Ok(());
    }
    let statement = tx.statement("DELETE FROM history WHERE order_id = ANY ($1)");
    removed.history = count(tx.execute(statement.bind(gone.clone())).await?);
    let statement = tx.statement("DELETE FROM inbox WHERE order_id = ANY ($1)");
    removed.inbox += count(tx.execute(statement.bind(gone.clone())).await?);
    removed.orders = count(tx.execute(tx.statement("DELETE FROM orders WHERE id = ANY ($1)").bind(gone)).await?);
    Ok(())
}

/// Drops partitions of the logs all of which is carried and old enough.
async fn logs(
    sessions: &Sessions,
    now: Timestamp,
    cutoffs: &Cutoffs,
    removed: &mut Removed,
) -> Result<(), sqlx::Error> {
    let mut tx = sessions.begin(Kind::Write).await?;
    let closed = partitions::close(&mut tx, now.0).await?;
    tx.commit("").await?;
    for range in closed.iter().filter(|range| range.at < cutoffs.entries.0).take(DROPS_MAX) {
        let entries = drop_carried(sessions, range, "outbox", ENTRIES_LEFT).await?;
        let records = drop_carried(sessions, range, "records", RECORDS_LEFT).await?;
        removed.entries += entries.unwrap_or(0);
        removed.records += records.unwrap_or(0);
        if entries.is_some() && records.is_some() {
            let mut tx = sessions.begin(Kind::Write).await?;
            tx.execute(tx.statement("DELETE FROM log_ranges WHERE from_xid = $1").bind(range.from)).await?;
            tx.commit("").await?;
            info!("dropped the logs of transactions {} to {}", range.from, range.to);
        }
    }
    Ok(())
}

/// Whether a range of the outbox has an entry that is not decided.
const ENTRIES_LEFT: &str = "SELECT EXISTS (
     SELECT FROM outbox e JOIN decide_cursors c USING (slot)
     WHERE e.xid >= $1 AND e.xid < $2 AND c.xid < $2 AND (e.xid, e.number) > (c.xid, c.number))";
/// Whether a range of the records log has a record that is not known to be on Kafka.
const RECORDS_LEFT: &str = "SELECT EXISTS (
     SELECT FROM publish_cursors c CROSS JOIN LATERAL (
         SELECT FROM records r WHERE r.slot = c.slot AND r.number > c.number AND r.xid >= $1 AND r.xid < $2 LIMIT 1) l)";

/// Drops one partition unless something of it is still needed; returns about how many rows went, if it is gone.
async fn drop_carried(
    sessions: &Sessions,
    range: &Closed,
    log: &'static str,
    left: &'static str,
) -> Result<Option<usize>, sqlx::Error> {
    let mut tx = sessions.begin(Kind::Write).await?;
    let name = format!("{log}_{}", range.from);
    let there = tx.statement("SELECT pg_stat_get_live_tuples(to_regclass($1)), to_regclass($1) IS NOT NULL");
    let there = tx.row(there.bind(name)).await?.ok_or(sqlx::Error::RowNotFound)?;
    let (rows, is_there) = (there.number_or_none(0)?.unwrap_or(0), there.flag(1)?);
    if is_there {
        let needed = tx.row(tx.statement(left).bind(range.from).bind(range.to)).await?;
        if needed.map_or(Ok(true), |row| row.flag(0))? {
            tx.roll_back().await;
            return Ok(None);
        }
        match partitions::drop_one(&mut tx, log, range.from).await {
            Ok(()) => {
                crash::at(Point::RetainWritten);
                tx.commit("").await?;
            }
            // Somebody reads there: another time.
            Err(error) if code(&error).as_deref() == Some("55P03") => {
                debug!("the log {log} is in use, its old partition stays for now");
                tx.roll_back().await;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    } else {
        tx.roll_back().await;
    }
    Ok(Some(usize::try_from(rows).unwrap_or(0)))
}
