//! The store step: what an operation changed, one statement per table, and one for all that nearly every operation writes
//! (`changes`).

use super::changes;
use super::cursors::Cursors;
use super::session::Tx;
use super::values::{Columns, count_number, shown, slot_number};
use super::words::{counts_row, new_orders};
use crate::clock::Timestamp;
use crate::order::{OrderId, Slot};
use crate::outbox::json::{headers_json, json};
use crate::outbox::state::OrderState;
use crate::outbox::work::{HeldPlace, HeldRow, InboxChange, InboxRow, KeyState, NextDead, Work, Writes};

/// Writes what became of a working set; tells of each touched key whether it has held orders.
pub(super) async fn store(tx: &mut Tx<'_>, cursors: &Cursors, work: &Work<'_>) -> Result<Vec<bool>, sqlx::Error> {
    let writes = &work.out.writes;
    store_keys(tx, work).await?;
    insert_orders(tx, work).await?;
    changes::store(tx, cursors, work).await?;
    insert_entries(tx, work).await?;
    store_held(tx, work).await?;
    store_dead(tx, work).await?;
    store_replies(tx, work).await?;
    store_rest(tx, writes, work.out.now).await?;
    if writes.touched.is_empty() { Ok(Vec::new()) } else { heads_are_due(tx, work).await }
}

/// Only a `202` binds a key: those nobody claimed are free again.
async fn store_keys(tx: &mut Tx<'_>, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let in_state = |state: KeyState| work.keys.iter().filter(move |key| key.state == state);
    let free: Vec<&[u8]> = in_state(KeyState::Fresh).map(|key| &key.hash.key[..]).collect();
    if !free.is_empty() {
        tx.execute(tx.statement("DELETE FROM idempotency WHERE key_hash = ANY ($1)").bind(free)).await?;
    }
    if in_state(KeyState::Rebound).next().is_none() {
        return Ok(());
    }
    let statement = tx.statement(
        "UPDATE idempotency i SET fingerprint = n.fingerprint, order_id = n.order_id
         FROM unnest($1::bytea[], $2::bytea[], $3::uuid[]) AS n (key_hash, fingerprint, order_id)
         WHERE i.key_hash = n.key_hash",
    );
    let statement = statement
        .bind(in_state(KeyState::Rebound).map(|key| &key.hash.key[..]).collect::<Vec<_>>())
        .bind(in_state(KeyState::Rebound).map(|key| &key.hash.fingerprint[..]).collect::<Vec<_>>())
        .bind(in_state(KeyState::Rebound).map(|key| key.order_id.0).collect::<Vec<_>>());
    tx.execute(statement).await.map(|_| ())
}

/// New orders, their first row of history, their entry and their count, in one statement: that is what a client waits for.
async fn insert_orders(tx: &mut Tx<'_>, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let rows = &work.out.writes.new_orders;
    if rows.is_empty() {
        return Ok(());
    }
    let statement = tx.statement(
        "WITH new_orders AS (
             INSERT INTO orders (id, route, order_key, slot, status, accepted_at, updated_at, traceparent, body_at)
             SELECT id, route, order_key, slot, 'PENDING', $1, $1, traceparent, body_at
             FROM unnest($2::uuid[], $3::text[], $4::bytea[], $5::smallint[], $6::text[], $7::bigint[])
                 AS n (id, route, order_key, slot, traceparent, body_at)
         ), new_history AS (
             INSERT INTO history (order_id, sequence, version, at, status, entries, body)
             SELECT id, body_at, 1, $1, 'PENDING', '[{\"kind\":\"accepted\"}]', body
             FROM unnest($2::uuid[], $7::bigint[], $8::bytea[]) AS n (id, body_at, body)
         ), counted AS (
             UPDATE order_counts SET pending = pending + $10 WHERE part = $11
         )
         INSERT INTO outbox (number, slot, kind, order_id, at)
         SELECT number, slot, 'order', id, $1
         FROM unnest($9::bigint[], $5::smallint[], $2::uuid[]) AS n (number, slot, id)",
    );
    let statement = statement
        .bind(work.out.now.0)
        .bind(rows.iter().map(|row| row.order.id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &*row.order.route).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.order.order_key.as_bytes()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| slot_number(row.order.slot)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &*row.order.traceparent).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sequence).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.order.body.as_ref()).collect::<Vec<&[u8]>>())
        .bind(rows.iter().map(|row| row.number).collect::<Vec<_>>())
        .bind(new_orders(work))
        .bind(counts_row(work.out.sequence));
    tx.execute(statement).await.map(|_| ())
}

async fn insert_entries(tx: &mut Tx<'_>, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let rows = &work.out.writes.entries;
    if rows.is_empty() {
        return Ok(());
    }
    let statement = tx.statement(
        "INSERT INTO outbox (number, slot, kind, order_id, at, payload)
         SELECT number, slot, kind, order_id, $1, payload
         FROM unnest($2::bigint[], $3::smallint[], $4::text[], $5::uuid[], $6::bytea[])
             AS n (number, slot, kind, order_id, payload)",
    );
    let statement = statement
        .bind(work.out.now.0)
        .bind(rows.iter().map(|row| row.number).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| slot_number(row.slot)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.order_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.payload.as_deref()).collect::<Vec<_>>());
    tx.execute(statement).await.map(|_| ())
}

async fn store_held(tx: &mut Tx<'_>, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let gone = work.held.iter().filter(|(_, place)| place.is_stored && place.row.is_none());
    let gone: Vec<uuid::Uuid> = gone.map(|(id, _)| id.0).collect();
    if !gone.is_empty() {
        tx.execute(tx.statement("DELETE FROM held WHERE order_id = ANY ($1)").bind(gone)).await?;
    }
    let kept = |is_stored: bool| {
        let kept = work.held.iter().filter(move |(_, place)| place.is_stored == is_stored);
        kept.filter(|(_, place): &(_, &HeldPlace)| !place.is_stored || place.is_changed)
            .filter_map(|(id, place)| Some((work.orders.get(*id)?, place.row.as_ref()?)))
            .collect::<Vec<(&OrderState, &HeldRow)>>()
    };
    let (changed, new) = (kept(true), kept(false));
    if !changed.is_empty() {
        let statement = tx.statement(
            "UPDATE held h SET since = n.since, attempts = n.attempts, due_at = n.due_at, deaths = n.deaths, faults = n.faults
             FROM unnest($1::uuid[], $2::bigint[], $3::integer[], $4::bigint[], $5::integer[], $6::integer[])
                 AS n (order_id, since, attempts, due_at, deaths, faults)
             WHERE h.order_id = n.order_id",
        );
        tx.execute(bind_held(statement, &changed)).await?;
    }
    if !new.is_empty() {
        let statement = tx.statement(
            "INSERT INTO held (order_id, since, attempts, due_at, deaths, faults, slot, route, order_key, place)
             SELECT order_id, since, attempts, due_at, deaths, faults, slot, route, order_key, place
             FROM unnest($1::uuid[], $2::bigint[], $3::integer[], $4::bigint[], $5::integer[], $6::integer[],
                         $7::smallint[], $8::text[], $9::bytea[], $10::bigint[])
                 AS n (order_id, since, attempts, due_at, deaths, faults, slot, route, order_key, place)",
        );
        let statement = bind_held(statement, &new)
            .bind(new.iter().map(|(order, _)| slot_number(order.slot)).collect::<Vec<_>>())
            .bind(new.iter().map(|(order, _)| &*order.route).collect::<Vec<_>>())
            .bind(new.iter().map(|(order, _)| order.order_key.as_bytes()).collect::<Vec<_>>())
            .bind(new.iter().map(|(_, row)| row.place).collect::<Vec<_>>());
        tx.execute(statement).await?;
    }
    Ok(())
}

fn bind_held(statement: super::session::Statement, rows: &[(&OrderState, &HeldRow)]) -> super::session::Statement {
    statement
        .bind(rows.iter().map(|(order, _)| order.id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.since.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| count_number(row.attempts)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.due_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| count_number(row.strikes.deaths)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| count_number(row.strikes.faults)).collect::<Vec<_>>())
}

async fn store_dead(tx: &mut Tx<'_>, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let gone = work.dead.iter().filter(|(_, place)| place.is_stored && !matches!(place.next, NextDead::Stored));
    let gone: Vec<uuid::Uuid> = gone.map(|(id, _)| id.0).collect();
    if !gone.is_empty() {
        tx.execute(tx.statement("DELETE FROM dead WHERE order_id = ANY ($1)").bind(gone)).await?;
    }
    let new = work.dead.iter().filter_map(|(id, place)| match &place.next {
        NextDead::New(row) => Some((id, row)),
        NextDead::None | NextDead::Stored => None,
    });
    let new: Vec<_> = new.collect();
    if new.is_empty() {
        return Ok(());
    }
    let statement = tx.statement(
        "INSERT INTO dead (kind, order_id, reason, detail, since, attempts, plugins)
         SELECT kind, order_id, reason, detail, $1, attempts, plugins
         FROM unnest($2::text[], $3::uuid[], $4::text[], $5::text[], $6::integer[], $7::text[])
             AS n (kind, order_id, reason, detail, attempts, plugins)",
    );
    let statement = statement
        .bind(work.out.now.0)
        .bind(new.iter().map(|(_, row)| row.kind.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| shown(&row.reason)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| shown(&row.detail)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| count_number(row.attempts)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| shown(&row.plugins)).collect::<Vec<_>>());
    tx.execute(statement).await.map(|_| ())
}

async fn store_replies(tx: &mut Tx<'_>, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let rows = || work.inboxes.iter().flat_map(|(id, rows)| rows.iter().map(move |row| (*id, row)));
    let refated: Vec<(OrderId, &InboxRow<'_>)> =
        rows().filter(|(_, row)| matches!(row.change, InboxChange::Fate)).collect();
    if !refated.is_empty() {
        let statement = tx.statement(
            "UPDATE inbox i SET fate = n.fate FROM unnest($1::uuid[], $2::bytea[], $3::text[]) AS n (order_id, dedup, fate)
             WHERE i.order_id = n.order_id AND i.dedup = n.dedup",
        );
        let statement = statement
            .bind(refated.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
            .bind(refated.iter().map(|(_, row)| row.dedup.as_bytes()).collect::<Vec<_>>())
            .bind(refated.iter().map(|(_, row)| row.fate.as_str()).collect::<Vec<_>>());
        tx.execute(statement).await?;
    }
    let new: Vec<_> = rows()
        .filter_map(|(id, row)| match row.change {
            InboxChange::New(reply) => Some((id, row, reply)),
            InboxChange::Same | InboxChange::Fate => None,
        })
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let problems = |row: &InboxRow<'_>| (!row.problems.is_empty()).then(|| json(&row.problems));
    let statement = tx.statement(
        "INSERT INTO inbox
             (order_id, dedup, kind, source, topic, partition, record_offset, record_at, taken_at, fate, problems)
         SELECT order_id, dedup, kind, source, topic, partition, record_offset, record_at, taken_at, fate, problems
         FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::bigint[], $8::bigint[],
                     $9::bigint[], $10::text[], $11::text[])
             AS n (order_id, dedup, kind, source, topic, partition, record_offset, record_at, taken_at, fate, problems)
         ON CONFLICT (order_id, dedup) DO NOTHING",
    );
    let statement = statement
        .bind(new.iter().map(|(id, ..)| id.0).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row, _)| row.dedup.as_bytes()).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row, _)| shown(&row.kind)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row, _)| row.source.as_deref().map(shown)).collect::<Vec<_>>())
        .bind(new.iter().map(|(.., reply)| reply.place.topic.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|(.., reply)| reply.place.partition).collect::<Vec<_>>())
        .bind(new.iter().map(|(.., reply)| reply.place.offset).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row, _)| row.sent_at.0).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row, _)| row.taken_at.0).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row, _)| row.fate.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row, _)| problems(row)).collect::<Vec<_>>());
    tx.execute(statement).await.map(|_| ())
}

/// What few operations write.
async fn store_rest(tx: &mut Tx<'_>, writes: &Writes<'_>, now: Timestamp) -> Result<(), sqlx::Error> {
    if writes.forgets_broker {
        tx.run("DELETE FROM republish; DELETE FROM reply_positions; DELETE FROM reply_ends".to_owned()).await?;
    }
    let columns = |keys: &[(Slot, i64)]| -> (Vec<i16>, Vec<i64>) {
        keys.iter().map(|(slot, number)| (slot_number(*slot), *number)).unzip()
    };
    if !writes.forgotten.is_empty() {
        let (slots, numbers) = columns(&writes.forgotten);
        let statement = tx.statement(
            "INSERT INTO republish (slot, number) SELECT slot, number FROM unnest($1::smallint[], $2::bigint[]) AS n (slot, number)",
        );
        tx.execute(statement.bind(slots).bind(numbers)).await?;
    }
    if !writes.republished.is_empty() {
        let (slots, numbers) = columns(&writes.republished);
        let statement = tx.statement(
            "DELETE FROM republish r USING unnest($1::smallint[], $2::bigint[]) AS n (slot, number)
             WHERE r.slot = n.slot AND r.number = n.number",
        );
        tx.execute(statement.bind(slots).bind(numbers)).await?;
    }
    if !writes.positions.is_empty() {
        // In one order, since readers of other partitions of other nodes do the same; each row once, since one
        // statement may not change a row twice.
        let statement = tx.statement(
            "INSERT INTO reply_positions AS p (topic, partition, next_offset)
             SELECT topic, partition, max(next_offset) FROM unnest($1::text[], $2::integer[], $3::bigint[])
                 AS n (topic, partition, next_offset) GROUP BY topic, partition ORDER BY topic, partition
             ON CONFLICT (topic, partition) DO UPDATE SET next_offset = greatest(p.next_offset, excluded.next_offset)",
        );
        let statement = statement
            .bind(writes.positions.iter().map(|position| position.topic.as_str()).collect::<Vec<_>>())
            .bind(writes.positions.iter().map(|position| position.partition).collect::<Vec<_>>())
            .bind(writes.positions.iter().map(|position| position.next_offset).collect::<Vec<_>>());
        tx.execute(statement).await?;
    }
    for poison in &writes.poison {
        let raw = &poison.raw;
        // Read again after a crash it is the same in the same place.
        let statement = tx.statement(
            "INSERT INTO dead (kind, reason, detail, since, attempts, plugins, topic, partition, record_offset, headers, payload)
             SELECT 'reply', 'not-a-reply', $1, $2, 1, '', $3, $4, $5, $6, $7
             WHERE NOT EXISTS (
                 SELECT 1 FROM dead WHERE kind = 'reply' AND topic = $3 AND partition = $4 AND record_offset = $5
                     AND headers = $6 AND payload = $7)",
        );
        let statement = statement
            .bind(shown(&poison.reason))
            .bind(now.0)
            .bind(raw.place.topic.as_str())
            .bind(raw.place.partition)
            .bind(raw.place.offset)
            .bind(headers_json(&raw.headers))
            .bind(raw.value.as_deref().unwrap_or_default());
        tx.execute(statement).await?;
    }
    for letter in &writes.letters_edited {
        let statement = tx.statement("UPDATE dead SET headers = $2, payload = $3 WHERE id = $1 AND kind = 'reply'");
        tx.execute(statement.bind(letter.number).bind(headers_json(letter.headers)).bind(letter.payload)).await?;
    }
    if !writes.letters_out.is_empty() {
        tx.execute(tx.statement("DELETE FROM dead WHERE id = ANY ($1)").bind(writes.letters_out.clone())).await?;
    }
    if let Some((topic, moment)) = writes.ends_before {
        let statement = tx.statement("DELETE FROM reply_ends WHERE topic = $1 AND asked_at < $2");
        tx.execute(statement.bind(topic).bind(moment.0)).await?;
    }
    Ok(())
}

/// Makes sure that the first held order of each touched key is looked at some time; returns whether a key has any.
///
/// Those behind have no time of their own: whoever becomes first, by whatever happened, is due at once.
async fn heads_are_due(tx: &mut Tx<'_>, work: &Work<'_>) -> Result<Vec<bool>, sqlx::Error> {
    let touched = &work.out.writes.touched;
    let slots: Vec<i16> = touched.iter().map(|(slot, ..)| slot_number(*slot)).collect();
    let routes: Vec<&str> = touched.iter().map(|(_, route, _)| &**route).collect();
    let keys: Vec<&[u8]> = touched.iter().map(|(.., order_key)| order_key.as_bytes()).collect();
    let statement = tx.statement(
        "UPDATE held SET due_at = $4 WHERE due_at IS NULL AND order_id IN (
             SELECT f.order_id FROM unnest($1::smallint[], $2::text[], $3::bytea[]) AS n (slot, route, order_key)
             CROSS JOIN LATERAL (
                 SELECT h.order_id FROM held h
                 WHERE h.slot = n.slot AND h.route = n.route AND h.order_key = n.order_key ORDER BY h.place LIMIT 1) f)",
    );
    tx.execute(statement.bind(slots.clone()).bind(routes.clone()).bind(keys.clone()).bind(work.out.now.0)).await?;
    let statement = tx.statement(
        "SELECT EXISTS (SELECT FROM held h WHERE h.slot = n.slot AND h.route = n.route AND h.order_key = n.order_key)
         FROM unnest($1::smallint[], $2::text[], $3::bytea[]) WITH ORDINALITY AS n (slot, route, order_key, place)
         ORDER BY n.place",
    );
    let rows = tx.rows(statement.bind(slots).bind(routes).bind(keys)).await?;
    rows.iter().map(|row| row.flag(0)).collect()
}
