//! What became of orders, written in one statement with all that goes with it: a message costs the server and the node
//! more than a few more rows in it.
//!
//! Whatever changes orders adds to their history. Deciding also writes records and moves decide cursors, publishing moves
//! publish cursors. The parts touch different tables, so it does not matter in which order the server does them.

use super::cursors::Cursors;
use super::session::{Statement, Tx};
use super::values::{count_number, slot_number, xid_number};
use crate::outbox::json::headers_json;
use crate::outbox::state::{OrderChange, OrderState};
use crate::outbox::work::{DecideCursor, PublishCursor, Work};

/// Rows of history: parameters 1 to 12.
macro_rules! history {
    () => {
        "INSERT INTO history
             (order_id, sequence, version, at, status, is_final, problems, held, deadline_at, entries, body, patch)
         SELECT order_id, sequence, version, $1, status, is_final, problems, held, deadline_at, entries, body, patch
         FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::boolean[], $7::text[], $8::text[],
                     $9::bigint[], $10::text[], $11::bytea[], $12::bytea[])
             AS n (order_id, sequence, version, status, is_final, problems, held, deadline_at, entries, body, patch)"
    };
}

/// Orders that changed for whoever looks at them: parameters 13 to 26.
macro_rules! orders {
    () => {
        "UPDATE orders o
         SET status = n.status, is_final = n.is_final, version = n.version, updated_at = n.updated_at,
             has_record = n.has_record, redrives = n.redrives, body_at = n.body_at, patch_at = n.patch_at,
             problems = n.problems, held = n.held, deadline_at = n.deadline_at, first_record = n.first_record,
             last_record = n.last_record
         FROM unnest($13::uuid[], $14::text[], $15::boolean[], $16::bigint[], $17::bigint[], $18::boolean[],
                     $19::integer[], $20::bigint[], $21::bigint[], $22::text[], $23::text[], $24::bigint[], $25::bigint[],
                     $26::bigint[])
             AS n (id, status, is_final, version, updated_at, has_record, redrives, body_at, patch_at, problems, held,
                   deadline_at, first_record, last_record)
         WHERE o.id = n.id"
    };
}

/// Of an operation that moves no cursor.
const CHANGED: &str = concat!("WITH new_history AS (", history!(), ") ", orders!());

/// What becomes of most orders that are decided changes two columns, neither of which an index has.
const DECIDED: &str = concat!(
    "WITH new_history AS (",
    history!(),
    "), changed AS (",
    orders!(),
    "), noted AS (
         UPDATE orders o SET has_record = n.has_record, patch_at = n.patch_at
         FROM unnest($27::uuid[], $28::boolean[], $29::bigint[]) AS n (id, has_record, patch_at) WHERE o.id = n.id
     ), new_records AS (
         INSERT INTO records (slot, number, order_id, is_outcome, topic, record_key, at, headers, value)
         SELECT slot, number, order_id, is_outcome, topic, record_key, at, headers, value
         FROM unnest($30::smallint[], $31::bigint[], $32::uuid[], $33::boolean[], $34::text[], $35::bytea[], $36::bigint[],
                     $37::text[], $38::bytea[])
             AS n (slot, number, order_id, is_outcome, topic, record_key, at, headers, value)
     )
     UPDATE decide_cursors c
     SET xid = n.xid, number = n.number, last_record = n.last_record, last_place = n.last_place
     FROM unnest($39::smallint[], $40::bigint[], $41::bigint[], $42::bigint[], $43::bigint[], $44::text[]::tid[])
         AS n (slot, xid, number, last_record, last_place, lies_at)
     WHERE c.ctid = n.lies_at AND c.slot + 0 = n.slot RETURNING c.slot, c.ctid::text"
);

/// What lies above a publish cursor was not written before the record at it.
const PUBLISHED: &str = concat!(
    "WITH new_history AS (",
    history!(),
    "), changed AS (",
    orders!(),
    ")
     UPDATE publish_cursors c
     SET number = n.number,
         from_xid = coalesce((SELECT r.xid FROM records r
                              WHERE r.slot = n.slot AND r.number = n.number AND r.xid >= c.from_xid), c.from_xid)
     FROM unnest($27::smallint[], $28::bigint[], $29::text[]::tid[]) AS n (slot, number, lies_at)
     WHERE c.ctid = n.lies_at AND c.slot + 0 = n.slot RETURNING c.slot, c.ctid::text"
);

/// Writes what became of orders that were there before, what is to be published of them, and the cursors behind that.
pub(super) async fn store(tx: &mut Tx<'_>, cursors: &Cursors, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let decided: Vec<&DecideCursor> = work.deciding.iter().filter(|cursor| cursor.is_moved).collect();
    let published: Vec<&PublishCursor> = work.publishing.iter().filter(|cursor| cursor.is_moved).collect();
    debug_assert!(decided.is_empty() || published.is_empty(), "an operation moves cursors of one kind");
    if !decided.is_empty() {
        let statement = bind_records(bind_noted(bind_changed(tx.statement(DECIDED), work), work), work);
        let statement = statement
            .bind(decided.iter().map(|cursor| slot_number(cursor.slot)).collect::<Vec<_>>())
            .bind(decided.iter().map(|cursor| xid_number(cursor.at)).collect::<Vec<_>>())
            .bind(decided.iter().map(|cursor| cursor.at.number).collect::<Vec<_>>())
            .bind(decided.iter().map(|cursor| cursor.last_record).collect::<Vec<_>>())
            .bind(decided.iter().map(|cursor| cursor.last_place).collect::<Vec<_>>())
            .bind(cursors.decide.of(decided.iter().map(|cursor| cursor.slot)));
        let rows = tx.rows(statement).await?;
        return cursors.decide.moved(&rows, decided.len());
    }
    debug_assert!(work.out.writes.records.is_empty(), "records are written where a decide cursor moves");
    if !published.is_empty() {
        let statement = bind_changed(tx.statement(PUBLISHED), work)
            .bind(published.iter().map(|cursor| slot_number(cursor.slot)).collect::<Vec<_>>())
            .bind(published.iter().map(|cursor| cursor.at).collect::<Vec<_>>())
            .bind(cursors.publish.of(published.iter().map(|cursor| cursor.slot)));
        let rows = tx.rows(statement).await?;
        return cursors.publish.moved(&rows, published.len());
    }
    if !work.out.writes.history.is_empty() {
        tx.execute(bind_changed(tx.statement(CHANGED), work)).await?;
    }
    Ok(())
}

fn with<'a>(work: &'a Work<'_>, change: OrderChange) -> Vec<&'a OrderState> {
    work.orders.iter().filter(|order| order.change == change).collect()
}

/// Binds the rows of history, and the orders that changed as a whole.
fn bind_changed(statement: Statement, work: &Work<'_>) -> Statement {
    let history = &work.out.writes.history;
    let whole = with(work, OrderChange::Whole);
    let shown = || history.iter().map(|row| row.shown.as_ref());
    statement
        .bind(work.out.now.0)
        .bind(history.iter().map(|row| row.order_id.0).collect::<Vec<_>>())
        .bind(history.iter().map(|row| row.sequence).collect::<Vec<_>>())
        .bind(history.iter().map(|row| row.version).collect::<Vec<_>>())
        .bind(shown().map(|shown| shown.map(|shown| shown.status.as_str())).collect::<Vec<_>>())
        .bind(shown().map(|shown| shown.is_some_and(|shown| shown.is_final)).collect::<Vec<_>>())
        .bind(shown().map(|shown| shown.and_then(|shown| shown.problems.as_deref())).collect::<Vec<_>>())
        .bind(shown().map(|shown| shown.and_then(|shown| shown.held.as_deref())).collect::<Vec<_>>())
        .bind(shown().map(|shown| shown.and_then(|shown| shown.deadline_at).map(|at| at.0)).collect::<Vec<_>>())
        .bind(history.iter().map(|row| row.entries.as_str()).collect::<Vec<_>>())
        .bind(history.iter().map(|row| row.body).collect::<Vec<_>>())
        .bind(history.iter().map(|row| row.patch.map(str::as_bytes)).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.id.0).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.status.as_str()).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.is_final).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.version).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.updated_at.0).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.has_record).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| count_number(order.redrives)).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.body_at).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.patch_at).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.problems_json()).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.held_json()).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.deadline_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.records.map(|(first, _)| first)).collect::<Vec<_>>())
        .bind(whole.iter().map(|order| order.records.map(|(_, last)| last)).collect::<Vec<_>>())
}

/// Binds the orders of which it is but noted that they have a record.
fn bind_noted(statement: Statement, work: &Work<'_>) -> Statement {
    let noted = with(work, OrderChange::Record);
    statement
        .bind(noted.iter().map(|order| order.id.0).collect::<Vec<_>>())
        .bind(noted.iter().map(|order| order.has_record).collect::<Vec<_>>())
        .bind(noted.iter().map(|order| order.patch_at).collect::<Vec<_>>())
}

fn bind_records(statement: Statement, work: &Work<'_>) -> Statement {
    let rows = &work.out.writes.records;
    statement
        .bind(rows.iter().map(|row| slot_number(row.slot)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.number).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.order_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.is_outcome).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.topic.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.key.as_ref()).collect::<Vec<&[u8]>>())
        .bind(rows.iter().map(|row| row.record.timestamp.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| headers_json(&row.record.headers)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.value.as_ref()).collect::<Vec<&[u8]>>())
}
