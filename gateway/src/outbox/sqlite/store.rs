//! The store step: what an operation changed, written row by row on the writer's thread.

use rusqlite::params;

use super::writer::Tx;
use crate::order::{OrderId, Slot};
use crate::outbox::json::{headers_json, json};
use crate::outbox::state::{OrderChange, OrderState};
use crate::outbox::work::{
    BoundKey, DeadPlace, DecideCursor, HeldPlace, HistoryRow, InboxChange, InboxRow, KeyState, NewOrderRow, NextDead,
    RecordRow, SuspicionStep, Work, Writes,
};
use crate::reply::PoisonReply;

/// Writes what became of a working set; tells of each touched key whether it has held orders.
pub(super) fn store(tx: &Tx<'_>, work: &Work<'_>) -> rusqlite::Result<Vec<bool>> {
    let writes = &work.out.writes;
    for key in &work.keys {
        store_key(tx, key)?;
    }
    for row in &writes.new_orders {
        insert_order(tx, row, work)?;
    }
    for row in &writes.history {
        insert_history(tx, row, work)?;
    }
    for row in &writes.entries {
        insert_entry(tx, work, (row.number, row.slot, row.kind.as_str(), row.order_id, row.payload.as_deref()))?;
    }
    for order in work.orders.iter() {
        update_order(tx, order)?;
    }
    for row in &writes.records {
        insert_record(tx, row)?;
    }
    for order in writes.order_keys.iter().filter_map(|id| work.orders.get(*id)) {
        tx.execute(
            "INSERT INTO order_keys (order_key, route, order_id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![order.order_key, order.route, order.id],
        )?;
    }
    for (id, place) in &work.held {
        store_held(tx, *id, place, work)?;
    }
    for (id, place) in &work.dead {
        store_dead(tx, *id, place, work)?;
    }
    for (id, rows) in &work.inboxes {
        rows.iter().try_for_each(|row| store_reply(tx, *id, row))?;
    }
    for cursor in work.deciding.iter().filter(|cursor| cursor.is_moved) {
        store_deciding(tx, cursor)?;
    }
    for cursor in work.publishing.iter().filter(|cursor| cursor.is_moved) {
        tx.execute("UPDATE publish_cursors SET number = ?2 WHERE slot = ?1", params![cursor.slot, cursor.at])?;
    }
    store_rest(tx, writes, work)?;
    writes.touched.iter().map(|(slot, route, order_key)| head_is_due(tx, work, *slot, route, order_key)).collect()
}

/// What few operations write.
fn store_rest(tx: &Tx<'_>, writes: &Writes<'_>, work: &Work<'_>) -> rusqlite::Result<()> {
    if writes.forgets_broker {
        for all in ["DELETE FROM republish", "DELETE FROM reply_positions", "DELETE FROM reply_ends"] {
            tx.execute(all, [])?;
        }
    }
    for key in &writes.forgotten {
        tx.execute("INSERT INTO republish (slot, number) VALUES (?1, ?2)", *key)?;
    }
    for key in &writes.republished {
        tx.execute("DELETE FROM republish WHERE slot = ?1 AND number = ?2", *key)?;
    }
    for position in writes.positions {
        tx.execute(
            "INSERT INTO reply_positions (topic, partition, next_offset) VALUES (?1, ?2, ?3)
             ON CONFLICT (topic, partition) DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
            params![position.topic, position.partition, position.next_offset],
        )?;
    }
    for poison in &writes.poison {
        insert_poison(tx, poison, work)?;
    }
    for letter in &writes.letters_edited {
        let edited = params![letter.number, headers_json(letter.headers), letter.payload];
        tx.execute("UPDATE dead SET headers = ?2, payload = ?3 WHERE id = ?1 AND kind = 'reply'", edited)?;
    }
    for number in &writes.letters_out {
        tx.execute("DELETE FROM dead WHERE id = ?1", [number])?;
    }
    if let Some((topic, moment)) = writes.ends_before {
        tx.execute("DELETE FROM reply_ends WHERE topic = ?1 AND asked_at < ?2", params![topic, moment])?;
    }
    if let Some(begun) = writes.begun {
        tx.execute("UPDATE begun SET batch = ?1, is_open = (?1 <> '')", [begun])?;
    }
    if writes.survived_alone {
        tx.execute("UPDATE suspects SET alone = NULL", [])?;
    }
    Ok(())
}

fn store_key(tx: &Tx<'_>, key: &BoundKey) -> rusqlite::Result<()> {
    match key.state {
        KeyState::Bound => {}
        KeyState::Fresh => {
            tx.execute("DELETE FROM idempotency WHERE key_hash = ?1", [key.hash.key])?;
        }
        KeyState::Rebound => {
            tx.execute(
                "UPDATE idempotency SET fingerprint = ?2, order_id = ?3 WHERE key_hash = ?1",
                params![key.hash.key, key.hash.fingerprint, key.order_id],
            )?;
        }
    }
    Ok(())
}

fn insert_order(tx: &Tx<'_>, row: &NewOrderRow<'_>, work: &Work<'_>) -> rusqlite::Result<()> {
    let (order, now) = (row.order, work.out.now);
    tx.execute(
        "INSERT INTO orders (id, route, order_key, slot, status, accepted_at, updated_at, traceparent, body_at)
         VALUES (?1, ?2, ?3, ?4, 'PENDING', ?5, ?5, ?6, ?7)",
        params![order.id, order.route, order.order_key, order.slot, now, order.traceparent, row.sequence],
    )?;
    tx.execute(
        "INSERT INTO history (order_id, sequence, version, at, status, entries, body)
         VALUES (?1, ?2, 1, ?3, 'PENDING', ?4, ?5)",
        params![order.id, row.sequence, now, r#"[{"kind":"accepted"}]"#, order.body.as_ref()],
    )?;
    insert_entry(tx, work, (row.number, order.slot, "order", order.id, None))
}

fn insert_entry(
    tx: &Tx<'_>,
    work: &Work<'_>,
    (number, slot, kind, id, payload): (i64, Slot, &str, OrderId, Option<&[u8]>),
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO outbox (number, slot, kind, order_id, at, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![number, slot, kind, id, work.out.now, payload],
    )?;
    Ok(())
}

fn insert_history(tx: &Tx<'_>, row: &HistoryRow<'_>, work: &Work<'_>) -> rusqlite::Result<()> {
    let (now, patch) = (work.out.now, row.patch.map(str::as_bytes));
    match &row.shown {
        None => tx.execute(
            "INSERT INTO history (order_id, sequence, version, at, entries, patch) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![row.order_id, row.sequence, row.version, now, row.entries, patch],
        )?,
        Some(shown) => tx.execute(
            "INSERT INTO history
             (order_id, sequence, version, at, status, is_final, problems, held, deadline_at, entries, body, patch)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                row.order_id,
                row.sequence,
                row.version,
                now,
                shown.status,
                shown.is_final,
                shown.problems,
                shown.held,
                shown.deadline_at,
                row.entries,
                row.body,
                patch,
            ],
        )?,
    };
    Ok(())
}

/// What becomes of most orders changes two columns, neither of which an index has.
fn update_order(tx: &Tx<'_>, order: &OrderState) -> rusqlite::Result<()> {
    match order.change {
        OrderChange::None => {}
        OrderChange::Record => {
            tx.execute(
                "UPDATE orders SET has_record = ?2, patch_at = ?3 WHERE id = ?1",
                params![order.id, order.has_record, order.patch_at],
            )?;
        }
        OrderChange::Whole => {
            tx.execute(
                "UPDATE orders
                 SET status = ?2, is_final = ?3, version = ?4, updated_at = ?5, has_record = ?6, redrives = ?7,
                     body_at = ?8, patch_at = ?9, problems = ?10, held = ?11, deadline_at = ?12, first_record = ?13,
                     last_record = ?14
                 WHERE id = ?1",
                params![
                    order.id,
                    order.status,
                    order.is_final,
                    order.version,
                    order.updated_at,
                    order.has_record,
                    order.redrives,
                    order.body_at,
                    order.patch_at,
                    order.problems_json(),
                    order.held_json(),
                    order.deadline_at,
                    order.records.map(|(first, _)| first),
                    order.records.map(|(_, last)| last),
                ],
            )?;
        }
    }
    Ok(())
}

fn insert_record(tx: &Tx<'_>, row: &RecordRow<'_>) -> rusqlite::Result<()> {
    let record = row.record;
    tx.execute(
        "INSERT INTO records (slot, number, order_id, is_outcome, topic, record_key, headers, value, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            row.slot,
            row.number,
            record.order_id,
            record.is_outcome,
            record.topic,
            record.key.as_ref(),
            headers_json(&record.headers),
            record.value.as_ref(),
            record.timestamp,
        ],
    )?;
    Ok(())
}

fn store_held(tx: &Tx<'_>, id: OrderId, place: &HeldPlace, work: &Work<'_>) -> rusqlite::Result<()> {
    match &place.row {
        None if place.is_stored => {
            tx.execute("DELETE FROM held WHERE order_id = ?1", [id])?;
        }
        Some(row) if place.is_stored && place.is_changed => {
            tx.execute(
                "UPDATE held SET since = ?2, attempts = ?3, due_at = ?4, deaths = ?5, faults = ?6 WHERE order_id = ?1",
                params![id, row.since, row.attempts, row.due_at, row.strikes.deaths, row.strikes.faults],
            )?;
        }
        Some(row) if !place.is_stored => {
            let Some(order) = work.orders.get(id) else { return Ok(()) };
            tx.execute(
                "INSERT INTO held (order_id, slot, route, order_key, place, since, attempts, due_at, deaths, faults)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    id,
                    order.slot,
                    order.route,
                    order.order_key,
                    row.place,
                    row.since,
                    row.attempts,
                    row.due_at,
                    row.strikes.deaths,
                    row.strikes.faults,
                ],
            )?;
        }
        _ => {}
    }
    Ok(())
}

fn store_dead(tx: &Tx<'_>, id: OrderId, place: &DeadPlace, work: &Work<'_>) -> rusqlite::Result<()> {
    if place.is_stored && !matches!(place.next, NextDead::Stored) {
        tx.execute("DELETE FROM dead WHERE order_id = ?1", [id])?;
    }
    if let NextDead::New(row) = &place.next {
        tx.execute(
            "INSERT INTO dead (kind, order_id, reason, detail, since, attempts, plugins)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![row.kind.as_str(), id, row.reason, row.detail, work.out.now, row.attempts, row.plugins],
        )?;
    }
    Ok(())
}

fn store_reply(tx: &Tx<'_>, id: OrderId, row: &InboxRow<'_>) -> rusqlite::Result<()> {
    match row.change {
        InboxChange::Same => {}
        InboxChange::Fate => {
            tx.execute(
                "UPDATE inbox SET fate = ?3 WHERE order_id = ?1 AND dedup = ?2",
                params![id, row.dedup, row.fate.as_str()],
            )?;
        }
        InboxChange::New(reply) => {
            let problems = (!row.problems.is_empty()).then(|| json(&row.problems));
            tx.execute(
                "INSERT INTO inbox
                 (order_id, dedup, kind, source, topic, partition, record_offset, record_at, taken_at, fate, problems)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (order_id, dedup) DO NOTHING",
                params![
                    id,
                    row.dedup,
                    row.kind,
                    row.source,
                    reply.place.topic,
                    reply.place.partition,
                    reply.place.offset,
                    row.sent_at,
                    row.taken_at,
                    row.fate.as_str(),
                    problems,
                ],
            )?;
        }
    }
    Ok(())
}

/// Keeps what is no reply, once: read again after a crash it is the same in the same place.
fn insert_poison(tx: &Tx<'_>, poison: &PoisonReply, work: &Work<'_>) -> rusqlite::Result<()> {
    let raw = &poison.raw;
    tx.execute(
        "INSERT INTO dead (kind, reason, detail, since, attempts, plugins, topic, partition, record_offset, headers, payload)
         SELECT 'reply', 'not-a-reply', ?1, ?2, 1, '', ?3, ?4, ?5, ?6, ?7
         WHERE NOT EXISTS (
             SELECT 1 FROM dead
             WHERE kind = 'reply' AND topic = ?3 AND partition = ?4 AND record_offset = ?5 AND headers = ?6 AND payload = ?7)",
        params![
            poison.reason,
            work.out.now,
            raw.place.topic,
            raw.place.partition,
            raw.place.offset,
            headers_json(&raw.headers),
            raw.value.as_deref().unwrap_or_default(),
        ],
    )?;
    Ok(())
}

fn store_deciding(tx: &Tx<'_>, cursor: &DecideCursor) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE decide_cursors SET number = ?2, last_record = ?3, last_place = ?4 WHERE slot = ?1",
        params![cursor.slot, cursor.at, cursor.last_record, cursor.last_place],
    )?;
    match cursor.suspicion {
        SuspicionStep::Same => {}
        SuspicionStep::CulpritGone => {
            let forget = "UPDATE suspects SET culprit = NULL WHERE slot = ?1 AND culprit IS NOT NULL";
            tx.execute(forget, [cursor.slot])?;
        }
        SuspicionStep::Cleared => {
            tx.execute("DELETE FROM suspects WHERE slot = ?1", [cursor.slot])?;
        }
    }
    Ok(())
}

/// Makes sure that the first held order of a key is looked at some time; returns whether the key has any.
///
/// Those behind have no time of their own: whoever becomes first, by whatever happened, is due at once.
fn head_is_due(tx: &Tx<'_>, work: &Work<'_>, slot: Slot, route: &str, order_key: &str) -> rusqlite::Result<bool> {
    let head = tx.query_one(
        "SELECT order_id, due_at IS NULL FROM held WHERE slot = ?1 AND route = ?2 AND order_key = ?3
         ORDER BY place LIMIT 1",
        params![slot, route, order_key],
        |row| Ok((row.get::<_, OrderId>(0)?, row.get::<_, bool>(1)?)),
    )?;
    let Some((id, is_timeless)) = head else { return Ok(false) };
    if is_timeless {
        tx.execute("UPDATE held SET due_at = ?2 WHERE order_id = ?1", params![id, work.out.now])?;
    }
    Ok(true)
}
