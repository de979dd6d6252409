//! What the owner of slots reads and names: tenures, entries by the guarded read, due orders, records, suspects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::PgRow;

use super::cursors::Cursors;
use super::session::{Kind, Sessions, Statement};
use super::values::{Columns, limit_number, slot_number, xid_number};
use super::words::{begun_is, survived_alone};
use crate::clock::Timestamp;
use crate::entry::{Entry, EntryPlace};
use crate::order::{OrderId, Slot};
use crate::outbox::owning::{HeldKey, HeldOrder, KEY_ORDERS_MAX, ReadLimits, Strikes, Suspicion, Tenure};
use crate::outbox::{ReadEntries, StuckRead};
use crate::record::Record;
use crate::reply::Position;

/// The tenures of a node as they are stored.
pub(super) async fn tenures(sessions: &Sessions, node: &str) -> Result<Vec<Tenure>, sqlx::Error> {
    let rows = sessions
        .rows(
            "SELECT s.slot, s.epoch, d.xid, d.number, d.last_record, p.number, x.deaths, x.culprit
             FROM slots s JOIN decide_cursors d USING (slot) JOIN publish_cursors p USING (slot)
             LEFT JOIN suspects x ON x.slot = s.slot AND (x.at_xid, x.at_number) = (d.xid, d.number)
             WHERE s.owner = $1 ORDER BY s.slot",
            |statement| statement.bind(node.to_owned()),
        )
        .await?;
    let read = |row: &PgRow| {
        let deaths: Option<i32> = sqlx::Row::try_get(row, 6)?;
        let alone = row.id_or_none(7)?;
        let deaths = deaths.map(|deaths| u32::try_from(deaths).unwrap_or(0));
        Ok(Tenure {
            slot: row.slot(0)?,
            epoch: row.number(1)?,
            decide_cursor: row.place(2, 3)?,
            last_record: row.number(4)?,
            publish_cursor: row.number(5)?,
            suspicion: deaths.map(|deaths| Suspicion { deaths, alone }),
        })
    };
    rows.iter().map(read).collect()
}

/// Names the pass under way, or the one order of it that runs alone; whoever was named before (`was_alone`) has survived.
pub(super) async fn begin(
    sessions: &Sessions,
    node: &str,
    batch: &str,
    was_alone: bool,
    alone: Option<(Slot, EntryPlace, OrderId)>,
) -> Result<(), sqlx::Error> {
    let mut words = vec![begun_is(node, batch)];
    words.extend(was_alone.then(|| survived_alone(node)));
    if let Some((slot, place, id)) = alone {
        words.push(format!(
            "INSERT INTO suspects (slot, at_xid, at_number, deaths, alone) VALUES ({}, {}, {}, 0, '{id}') \
             ON CONFLICT (slot) DO UPDATE SET alone = excluded.alone",
            slot_number(slot),
            xid_number(place),
            place.number,
            id = id.0
        ));
    }
    // Naming a pass twice names it.
    sessions.run(Kind::WriteSoon, &words.join(";")).await
}

/// Moves the decide cursors of slots that had nothing to carry up to `to`; returns whether all of them moved.
pub(super) async fn advance_idle(
    sessions: &Sessions,
    node: &str,
    places: &Cursors,
    cursors: &[(Slot, i64, EntryPlace)],
    to: EntryPlace,
) -> Result<bool, sqlx::Error> {
    let mut tx = sessions.begin(Kind::Write).await?;
    let statement = tx.statement(
        "SELECT s.slot FROM slots s JOIN unnest($1::smallint[], $2::bigint[]) AS n (slot, epoch)
             ON n.slot = s.slot AND n.epoch = s.epoch
         WHERE s.owner = $3 AND s.lease_until > clock_timestamp() ORDER BY s.slot FOR KEY SHARE OF s",
    );
    let slots: Vec<i16> = cursors.iter().map(|(slot, ..)| slot_number(*slot)).collect();
    let statement = statement
        .bind(slots)
        .bind(cursors.iter().map(|(_, epoch, _)| *epoch).collect::<Vec<_>>())
        .bind(node.to_owned());
    let mut owned = Vec::new();
    for row in tx.rows(statement).await? {
        owned.push(row.slot(0)?);
    }
    let owned: Vec<_> = cursors.iter().filter(|(slot, ..)| owned.contains(slot)).copied().collect();
    let moved = places.advance(&mut tx, &owned, to).await?;
    tx.commit("").await?;
    Ok(moved == cursors.len())
}

/// The guarded read, with what makes its text another one.
macro_rules! guarded_read {
    ($comment:literal) => {
        concat!(
            "SELECT e.xid, e.number, e.slot, e.kind, e.order_id, e.route, e.order_key, e.accepted_at, e.traceparent, e.body,
                e.payload, e.redrives, g.horizon, e.place
         FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon) g
         LEFT JOIN LATERAL (
             SELECT l.*, o.route, o.order_key, o.accepted_at, o.traceparent, h.body, o.redrives,
                    row_number() OVER read AS place,
                    sum(octet_length(h.body)) OVER read - octet_length(h.body) AS bytes_before
             FROM (SELECT xid, number, slot, kind, order_id, payload FROM outbox
                   WHERE xid >= $1 AND (xid, number) > ($1, $2) AND xid < g.horizon AND slot = ANY ($3)
                   ORDER BY xid, number LIMIT $4) l
             CROSS JOIN LATERAL (SELECT * FROM orders WHERE id = l.order_id LIMIT 1) o
             CROSS JOIN LATERAL (SELECT body FROM history WHERE order_id = l.order_id AND sequence = o.body_at LIMIT 1) h
             WINDOW read AS (ORDER BY l.xid, l.number)
         ) e ON e.bytes_before < $5
         ORDER BY e.place",
            $comment
        )
    };
}

/// Entries of these slots, each above its place, in the order (`xid`, number); only those that no running transaction can
/// still get in front of (PROTOCOL D1).
///
/// Each read costs the same however many entries lie behind it: partitions below the places are left out, the index is
/// read from there, and orders and bodies are looked up row by row. Where the planner expects fewer rows than the limit it
/// would rather read all that wait and sort them, and what it expects is often wrong: so it may not where more can wait than
/// one read takes (`is_deep`). Elsewhere all that wait are read anyway, and one message is enough.
pub(super) async fn entries(
    sessions: &Sessions,
    after: &[(Slot, EntryPlace)],
    limits: ReadLimits,
    is_deep: bool,
) -> Result<ReadEntries, sqlx::Error> {
    let first = after.iter().map(|(_, place)| *place).min().unwrap_or_default();
    let slots: Vec<i16> = after.iter().map(|(slot, _)| slot_number(*slot)).collect();
    let bind = |statement: Statement| {
        statement
            .bind(xid_number(first))
            .bind(first.number)
            .bind(slots.clone())
            .bind(limits.count())
            .bind(limit_number(limits.bytes))
    };
    let rows = if is_deep {
        sessions.rows_within(Kind::ReadInOrder, guarded_read!(" -- in order"), bind).await?
    } else {
        sessions.rows(guarded_read!(""), bind).await?
    };
    let horizon = rows.first().map_or(Ok(0), |row| row.number(12))?;
    let found = rows.iter().filter(|row| row.number_or_none(13).is_ok_and(|place| place.is_some()));
    let mut entries = found.map(read_entry).collect::<Result<Vec<_>, _>>()?;
    let is_cut = limit_number(entries.len()) >= limits.count()
        || entries.iter().map(|entry| entry.body.len()).sum::<usize>() >= limits.bytes;
    let to = match entries.last() {
        Some(last) if is_cut => last.place,
        // Whatever comes now is written by a transaction at or above the horizon.
        _ => EntryPlace { xid: horizon.unsigned_abs(), number: 0 },
    };
    let looked_at = entries.len();
    let place_of = |slot: Slot| after.iter().find(|(own, _)| *own == slot).map(|(_, place)| *place);
    // Slots stand at different places; what those further on carry already was read again.
    entries.retain(|entry| place_of(entry.slot).is_some_and(|place| entry.place > place));
    let read_to = after.iter().map(|(slot, place)| (*slot, to.max(*place))).collect();
    Ok(ReadEntries { entries, looked_at, read_to, has_more: is_cut })
}

fn read_entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    Ok(Entry {
        place: row.place(0, 1)?,
        slot: row.slot(2)?,
        kind: row.entry_kind(3)?,
        order_id: row.id(4)?,
        route: row.text(5)?.into(),
        order_key: row.key(6)?,
        accepted_at: row.time(7)?,
        traceparent: row.text(8)?.into(),
        body: row.bytes(9)?,
        payload: row.bytes_or_none(10)?,
        redrives: row.count(11)?,
    })
}

/// Place of the last entry of the log that can be read.
pub(super) async fn last_entry(sessions: &Sessions) -> Result<EntryPlace, sqlx::Error> {
    let sql = "SELECT xid, number FROM outbox ORDER BY xid DESC, number DESC LIMIT 1";
    let rows = sessions.rows(sql, |statement| statement).await?;
    rows.first().map_or(Ok(EntryPlace::START), |row| row.place(0, 1))
}

/// Orders of these slots due at `now`, of each route the longest overdue first, each with those behind it, in the order of
/// their key.
pub(super) async fn due(
    sessions: &Sessions,
    node: &str,
    now: Timestamp,
    routes: &[(Arc<str>, usize)],
    bytes_max: usize,
) -> Result<Vec<HeldOrder>, sqlx::Error> {
    let mut taken: Vec<HeldOrder> = Vec::new();
    let mut bytes = 0;
    for (route, count) in routes {
        let rows = sessions
            .rows(
                "SELECT 0::bigint, f.place, f.slot, 'order', f.order_id, o.route, o.order_key, o.accepted_at, o.traceparent,
                        h.body, NULL::bytea, o.redrives, f.since, f.attempts, f.deaths, f.faults
                 FROM (SELECT * FROM held
                       WHERE route = $1 AND due_at <= $2 AND slot IN (SELECT slot FROM slots WHERE owner = $5)
                       ORDER BY due_at LIMIT $3) d
                 CROSS JOIN LATERAL (
                     SELECT * FROM held
                     WHERE slot = d.slot AND route = d.route AND order_key = d.order_key AND place >= d.place
                     ORDER BY place LIMIT $4) f
                 CROSS JOIN LATERAL (SELECT * FROM orders WHERE id = f.order_id LIMIT 1) o
                 CROSS JOIN LATERAL (SELECT body FROM history WHERE order_id = o.id AND sequence = o.body_at LIMIT 1) h
                 ORDER BY d.due_at, d.slot, d.order_key, f.place LIMIT $3",
                |statement| {
                    statement
                        .bind(route.to_string())
                        .bind(now.0)
                        .bind(limit_number(*count))
                        .bind(KEY_ORDERS_MAX)
                        .bind(node.to_owned())
                },
            )
            .await?;
        for row in &rows {
            let held = HeldOrder {
                entry: read_entry(row)?,
                since: row.time(12)?,
                attempts: row.count(13)?,
                strikes: Strikes { deaths: row.count(14)?, faults: row.count(15)? },
            };
            bytes += held.entry.body.len();
            taken.push(held);
            if bytes >= bytes_max {
                return Ok(taken);
            }
        }
    }
    Ok(taken)
}

/// Every key of a node's slots that has held orders.
pub(super) async fn held_keys(sessions: &Sessions, node: &str) -> Result<Vec<HeldKey>, sqlx::Error> {
    let rows = sessions
        .rows(
            "SELECT DISTINCT slot, route, order_key FROM held WHERE slot IN (SELECT slot FROM slots WHERE owner = $1)",
            |statement| statement.bind(node.to_owned()),
        )
        .await?;
    rows.iter().map(|row| Ok((row.slot(0)?, row.text(1)?.into(), row.key(2)?))).collect()
}

/// Number of the last record in each slot's log.
pub(super) async fn log_ends(sessions: &Sessions) -> Result<Vec<(Slot, i64)>, sqlx::Error> {
    let rows = sessions.rows("SELECT slot, last_record FROM decide_cursors", |statement| statement).await?;
    rows.iter().map(|row| Ok((row.slot(0)?, row.number(1)?))).collect()
}

/// Records of a slot above `after`, in the order of publishing. `lies_at` is where its publish cursor lay when it was last seen.
pub(super) async fn records(
    sessions: &Sessions,
    slot: Slot,
    after: i64,
    limits: ReadLimits,
    lies_at: Option<String>,
) -> Result<Vec<Record>, sqlx::Error> {
    // What lies above the publish cursor was not written before its `from_xid`: earlier partitions are left out.
    let rows = sessions
        .rows_within(
            Kind::ReadInOrder,
            "SELECT slot, number, order_id, is_outcome, topic, record_key, headers, value, at
             FROM (SELECT r.*, sum(octet_length(value)) OVER (ORDER BY number) - octet_length(value) AS bytes_before
                   FROM (SELECT * FROM records
                         WHERE slot = $1 AND number > $2
                             AND xid >= coalesce(
                                 (SELECT CASE WHEN number <= $2 THEN from_xid ELSE 0 END FROM publish_cursors
                                  WHERE ctid = $5::text::tid AND slot + 0 = $1),
                                 (SELECT CASE WHEN number <= $2 THEN from_xid ELSE 0 END FROM publish_cursors WHERE slot = $1))
                         ORDER BY number LIMIT $3) r) s
             WHERE bytes_before < $4 ORDER BY number",
            |statement| {
                statement
                    .bind(slot_number(slot))
                    .bind(after)
                    .bind(limits.count())
                    .bind(limit_number(limits.bytes))
                    .bind(lies_at.clone())
            },
        )
        .await?;
    rows.iter().map(read_record).collect()
}

/// Records that a development broker forgot, slot by slot, in order.
pub(super) async fn forgotten(sessions: &Sessions) -> Result<Vec<Record>, sqlx::Error> {
    let rows = sessions
        .rows(
            "SELECT slot, number, r.order_id, r.is_outcome, r.topic, r.record_key, r.headers, r.value, r.at
             FROM republish JOIN records r USING (slot, number) ORDER BY slot, number",
            |statement| statement,
        )
        .await?;
    rows.iter().map(read_record).collect()
}

fn read_record(row: &PgRow) -> Result<Record, sqlx::Error> {
    let headers: Vec<(String, String)> = row.json(6)?;
    Ok(Record {
        slot: row.slot(0)?,
        number: row.number(1)?,
        order_id: row.id(2)?,
        is_outcome: row.flag(3)?,
        topic: row.text(4)?,
        key: row.bytes(5)?,
        headers: headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        value: row.bytes(7)?,
        timestamp: row.time(8)?,
    })
}

/// Whether a deadline of an order of these slots lies before `moment`.
pub(super) async fn has_overdue(sessions: &Sessions, slots: &[Slot], moment: Timestamp) -> Result<bool, sqlx::Error> {
    let sql = "SELECT EXISTS (
                   SELECT FROM orders WHERE deadline_at IS NOT NULL AND deadline_at <= $1 AND slot = ANY ($2))";
    let slots: Vec<i16> = slots.iter().map(|slot| slot_number(*slot)).collect();
    let rows = sessions.rows(sql, |statement| statement.bind(moment.0).bind(slots.clone())).await?;
    rows.first().map_or(Ok(false), |row| row.flag(0))
}

/// Up to where each reply partition is read.
pub(super) async fn reply_positions(sessions: &Sessions) -> Result<Vec<Position>, sqlx::Error> {
    let sql = "SELECT topic, partition, next_offset FROM reply_positions";
    let rows = sessions.rows(sql, |statement| statement).await?;
    let read =
        |row: &PgRow| Ok(Position { topic: row.text(0)?, partition: row.partition(1)?, next_offset: row.number(2)? });
    rows.iter().map(read).collect()
}

/// Notes where reply partitions ended at a moment.
pub(super) async fn note_ends(sessions: &Sessions, asked_at: Timestamp, ends: &[Position]) -> Result<(), sqlx::Error> {
    let mut tx = sessions.begin(Kind::Write).await?;
    let statement = tx.statement(
        "INSERT INTO reply_ends (topic, partition, asked_at, end_offset)
         SELECT topic, partition, $1, max(end_offset) FROM unnest($2::text[], $3::integer[], $4::bigint[])
             AS n (topic, partition, end_offset) GROUP BY topic, partition ORDER BY topic, partition
         ON CONFLICT (topic, partition, asked_at) DO UPDATE SET end_offset = excluded.end_offset",
    );
    let statement = statement
        .bind(asked_at.0)
        .bind(ends.iter().map(|end| end.topic.as_str()).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.partition).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.next_offset).collect::<Vec<_>>());
    tx.execute(statement).await?;
    tx.commit("").await
}

/// Makes orders due that wait after a fault of a plugin: another version judges them now.
pub(super) async fn retry_faults(sessions: &Sessions, now: Timestamp) -> Result<usize, sqlx::Error> {
    let mut tx = sessions.begin(Kind::Write).await?;
    let statement = tx.statement(
        "UPDATE held SET due_at = $1 WHERE due_at > $1 AND order_id IN
             (SELECT o.id FROM held h JOIN orders o ON o.id = h.order_id
              WHERE o.status = 'HELD' AND o.held::json ->> 'reason' = 'fault')",
    );
    let made = tx.execute(statement.bind(now.0)).await?;
    tx.commit("").await?;
    Ok(usize::try_from(made).unwrap_or(usize::MAX))
}

/// A transaction with a number of its own that is older than `longer_than` and that no entry behind it gets past, the
/// oldest first.
pub(super) async fn stuck_read(sessions: &Sessions, longer_than: Duration) -> Result<Option<StuckRead>, sqlx::Error> {
    let rows = sessions
        .rows(
            "SELECT pid, coalesce(application_name, ''), coalesce(state, 'unknown'),
                    extract(epoch FROM clock_timestamp() - xact_start)::bigint
             FROM pg_stat_activity
             WHERE backend_xid IS NOT NULL AND xact_start < clock_timestamp() - $1 * interval '1 second'
             UNION ALL
             SELECT 0, 'prepared transaction ' || gid, 'prepared', extract(epoch FROM clock_timestamp() - prepared)::bigint
             FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - $1 * interval '1 second'
             ORDER BY 4 DESC LIMIT 1",
            |statement| statement.bind(longer_than.as_secs_f64()),
        )
        .await?;
    let read = |row: &PgRow| {
        let (pid, name, state) = (row.partition(0)?, row.text(1)?, row.text(2)?);
        let session = if pid == 0 { name } else { format!("session {pid} of `{name}`, {state}") };
        Ok(StuckRead { session, open_for: Duration::from_secs(row.number(3)?.unsigned_abs()) })
    };
    rows.first().map(read).transpose()
}
