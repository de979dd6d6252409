//! Takes a database over that was moved from another server.
//!
//! The order of entries rests on transaction ids, and a dump restored elsewhere keeps those of the server it came from. Where
//! the present server's are lower, what was written before would hide behind every open transaction for ages, and what is
//! written now would stand before the cursors and never be read. So whatever is not carried yet is written anew, in its
//! order, under the present transaction's id, and the cursors are set before it (PROTOCOL D1).
//!
//! A physical backup keeps its server's ids and needs none of this.

use sqlx::Row;
use tracing::warn;

use super::partitions;
use super::session::{ADVISORY_LOCK, Kind, Sessions};

/// The highest id stored that a cursor, a log or an owner goes by, and the present one. Nothing of a table is scanned.
const IDS: &str = "SELECT greatest(
        (SELECT coalesce(max(xid), 0) FROM outbox),
        (SELECT max(xid) FROM decide_cursors),
        (SELECT max(from_xid) FROM publish_cursors),
        (SELECT coalesce(max(l.xid), 0) FROM decide_cursors c
         CROSS JOIN LATERAL (SELECT xid FROM records r WHERE r.slot = c.slot AND r.number = c.last_record LIMIT 1) l)),
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint";

/// What is not carried yet, out of the logs; then the logs without any partition.
const TAKE_OUT: &str = "
    LOCK TABLE slots, outbox, records IN ACCESS EXCLUSIVE MODE;
    CREATE TEMP TABLE moved_entries ON COMMIT DROP AS
        SELECT row_number() OVER (ORDER BY e.xid, e.number) AS place, e.slot, e.kind, e.order_id, e.at, e.payload
        FROM outbox e JOIN decide_cursors c USING (slot) WHERE (e.xid, e.number) > (c.xid, c.number);
    CREATE TEMP TABLE moved_records ON COMMIT DROP AS
        SELECT r.* FROM records r JOIN publish_cursors c USING (slot) WHERE r.number > c.number;
    DO $$
    DECLARE own record;
    BEGIN
        FOR own IN SELECT from_xid FROM log_ranges LOOP
            EXECUTE format('DROP TABLE IF EXISTS outbox_%s, records_%s', own.from_xid, own.from_xid);
        END LOOP;
    END $$;
    DELETE FROM log_ranges";

/// The same into the new partitions, with numbers of a block of their own, and everybody's tenure ended.
const PUT_BACK: &str = "
    WITH block AS MATERIALIZED (SELECT nextval('numbers') AS base)
    INSERT INTO outbox (number, slot, kind, order_id, at, payload)
        SELECT base + place, slot, kind, order_id, at, payload FROM moved_entries CROSS JOIN block ORDER BY place;
    SELECT setval('numbers', last_value + 1048576 * (1 + (SELECT count(*) FROM moved_entries) / 1048576)) FROM numbers;
    UPDATE decide_cursors SET xid = pg_current_xact_id()::text::bigint, number = 0;
    INSERT INTO records (slot, number, order_id, is_outcome, topic, record_key, at, headers, value)
        SELECT slot, number, order_id, is_outcome, topic, record_key, at, headers, value FROM moved_records ORDER BY slot, number;
    UPDATE publish_cursors SET from_xid = pg_current_xact_id()::text::bigint;
    UPDATE slots SET owner = '', lease_until = '-infinity', epoch = epoch + 1;
    DELETE FROM suspects;
    DELETE FROM begun;
    DELETE FROM nodes";

/// Takes the database over if its ids are another server's; returns whether they were.
pub(super) async fn take_over(sessions: &Sessions, width_min: i64) -> Result<bool, sqlx::Error> {
    if !is_foreign(&sessions.rows(IDS, |statement| statement).await?)? {
        return Ok(false);
    }
    let mut tx = sessions.begin(Kind::Write).await?;
    // Nodes that start together queue here, and those behind find it done.
    tx.run_patiently(format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
         SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"
    ))
    .await?;
    let ids = tx.statement(IDS);
    if !is_foreign(&tx.rows(ids).await?)? {
        tx.roll_back().await;
        return Ok(false);
    }
    warn!("the database was moved here from another server: what is not carried yet is put in order anew");
    tx.run_patiently(TAKE_OUT.to_owned()).await?;
    partitions::extend(&mut tx, width_min).await?;
    tx.run_patiently(PUT_BACK.to_owned()).await?;
    tx.commit("").await?;
    Ok(true)
}

fn is_foreign(rows: &[sqlx::postgres::PgRow]) -> Result<bool, sqlx::Error> {
    let Some(row) = rows.first() else { return Ok(false) };
    let (stored, present): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(stored >= present)
}
