//! The load step: takes the locks in the one order that all transactions share, then reads what an operation needs.
//!
//! Idempotency keys by key, lease rows by slot (`FOR KEY SHARE`, epoch and lease end checked in that statement, PROTOCOL
//! O2), cursors by slot, orders by id (`FOR UPDATE`, R1); everything else in later statements than those.

use std::borrow::Cow;
use std::collections::HashMap;

use uuid::Uuid;

use super::cursors::Cursors;
use super::session::Tx;
use super::values::{Columns, limit_number, slot_number};
use crate::order::{OrderId, Slot};
use crate::outbox::accept::KeyHash;
use crate::outbox::needs::{Due, More, Needs, NewKey};
use crate::outbox::owning::Strikes;
use crate::outbox::publish::{Unanswered, fitting};
use crate::outbox::state::{OrderChange, OrderState};
use crate::outbox::work::{
    BoundKey, DeadPlace, HeldPlace, HeldRow, InboxChange, InboxRow, KeyState, Letter, NextDead, PartitionEnd,
    ReplyFate, Work,
};

/// A `SELECT` of the columns that [`read_order`] expects, with what follows it.
macro_rules! select_orders {
    ($rest:literal) => {
        concat!(
            "SELECT o.id, o.route, o.order_key, o.slot, o.status, o.is_final, o.version, o.accepted_at, o.updated_at, ",
            "o.has_record, o.redrives, o.body_at, o.patch_at, o.problems, o.held, o.deadline_at, ",
            "o.first_record, o.last_record",
            $rest
        )
    };
}
pub(super) use select_orders;

/// How many columns those are; what is asked for besides comes behind them.
pub(super) const ORDER_COLUMNS: usize = 18;

pub(super) fn read_order(row: &sqlx::postgres::PgRow) -> Result<OrderState, sqlx::Error> {
    Ok(OrderState {
        id: row.id(0)?,
        route: row.text(1)?.into(),
        order_key: row.key(2)?,
        slot: row.slot(3)?,
        status: row.status(4)?,
        is_final: row.flag(5)?,
        version: row.number(6)?,
        accepted_at: row.time(7)?,
        updated_at: row.time(8)?,
        has_record: row.flag(9)?,
        redrives: row.count(10)?,
        body_at: row.number(11)?,
        patch_at: row.number_or_none(12)?,
        problems: row.json(13)?,
        held: row.json(14)?,
        deadline_at: row.time_or_none(15)?,
        records: row.number_or_none(16)?.zip(row.number_or_none(17)?),
        change: OrderChange::None,
    })
}

/// Takes the locks and reads what an operation of `node` needs first; returns a block of numbers where orders were read: it
/// is taken after the locks, so that the numbers of one order rise.
pub(super) async fn load<'a>(
    tx: &mut Tx<'_>,
    node: &str,
    cursors: &Cursors,
    mut needs: Needs<'a>,
    work: &mut Work<'a>,
) -> Result<Option<i64>, sqlx::Error> {
    if !needs.keys.is_empty() {
        work.keys = bind(tx, &needs.keys, work.out.now.0).await?;
    }
    lock_leases(tx, node, &mut needs).await?;
    work.owned = needs.owning.iter().map(|(slot, _)| *slot).collect();
    if !needs.deciding.is_empty() {
        work.deciding = cursors.deciding(tx, &needs.deciding).await?;
    }
    if !needs.publishing.is_empty() {
        work.publishing = cursors.publishing(tx, &needs.publishing).await?;
    }
    if let Some(number) = needs.letter {
        work.letter = letter(tx, number).await?;
        if let Letter::Of(id) = work.letter {
            needs.orders.push(id);
        }
    }
    if let Some(due) = &needs.due {
        work.due = overdue(tx, due, &work.owned).await?;
        needs.orders.extend(work.due.iter().flatten());
    }
    if let Some(bytes_max) = needs.unanswered {
        work.unanswered = unanswered(tx, bytes_max).await?;
        needs.orders.extend(work.unanswered.iter().map(|(.., id)| *id));
    }
    let number = orders(tx, &mut needs, work).await?;
    if !needs.held.is_empty() {
        held(tx, &needs.held, work).await?;
    }
    if !needs.dead.is_empty() {
        dead(tx, &needs.dead, work).await?;
    }
    if !needs.replies.is_empty() {
        known(tx, needs.replies, work).await?;
    }
    if !needs.republish.is_empty() {
        republish(tx, &needs.republish, work).await?;
    }
    Ok(number)
}

/// Binds free keys, and reads what the others are bound to.
///
/// A key that another transaction is binding is waited for; in the order of keys, so that two never wait for each other.
async fn bind(tx: &mut Tx<'_>, keys: &[NewKey], now: i64) -> Result<Vec<BoundKey>, sqlx::Error> {
    let hashes: Vec<Vec<u8>> = keys.iter().map(|new| new.hash.key.to_vec()).collect();
    let statement = tx.statement(
        "INSERT INTO idempotency (key_hash, fingerprint, order_id, created_at)
         SELECT key_hash, fingerprint, order_id, $4 FROM unnest($1::bytea[], $2::bytea[], $3::uuid[])
             WITH ORDINALITY AS n (key_hash, fingerprint, order_id, place) ORDER BY place
         ON CONFLICT (key_hash) DO NOTHING RETURNING key_hash",
    );
    let statement = statement
        .bind(hashes.clone())
        .bind(keys.iter().map(|new| new.hash.fingerprint.to_vec()).collect::<Vec<_>>())
        .bind(keys.iter().map(|new| new.order_id.0).collect::<Vec<_>>())
        .bind(now);
    let mut fresh = std::collections::HashSet::new();
    for row in tx.rows(statement).await? {
        fresh.insert(row.bytes(0)?);
    }
    let mut bound: HashMap<[u8; 32], ([u8; 32], OrderId)> = HashMap::new();
    if fresh.len() < keys.len() {
        let statement =
            tx.statement("SELECT key_hash, fingerprint, order_id FROM idempotency WHERE key_hash = ANY ($1)");
        for row in tx.rows(statement.bind(hashes)).await? {
            bound.insert(row.hash(0)?, (row.hash(1)?, row.id(2)?));
        }
    }
    keys.iter()
        .map(|new| {
            if fresh.contains(&new.hash.key[..]) {
                return Ok(BoundKey { hash: new.hash, order_id: new.order_id, state: KeyState::Fresh });
            }
            // Removed between the two statements: the transaction is tried again.
            let (fingerprint, order_id) = *bound.get(&new.hash.key).ok_or(sqlx::Error::RowNotFound)?;
            let hash = KeyHash { key: new.hash.key, fingerprint };
            Ok(BoundKey { hash, order_id, state: KeyState::Bound })
        })
        .collect()
}

/// Locks the lease rows of all slots an operation relies on; those that are stale are taken out of what it needs.
async fn lock_leases(tx: &mut Tx<'_>, node: &str, needs: &mut Needs<'_>) -> Result<(), sqlx::Error> {
    let mut wanted: Vec<(Slot, i64)> =
        needs.deciding.iter().chain(&needs.publishing).chain(&needs.owning).copied().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    wanted.sort_unstable();
    wanted.dedup();
    let statement = tx.statement(
        "SELECT s.slot, s.epoch FROM slots s JOIN unnest($1::smallint[], $2::bigint[]) AS n (slot, epoch)
             ON n.slot = s.slot AND n.epoch = s.epoch
         WHERE s.owner = $3 AND s.lease_until > clock_timestamp() ORDER BY s.slot FOR KEY SHARE OF s",
    );
    let statement = statement
        .bind(wanted.iter().map(|(slot, _)| slot_number(*slot)).collect::<Vec<_>>())
        .bind(wanted.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>())
        .bind(node.to_owned());
    let mut owned = Vec::with_capacity(wanted.len());
    for row in tx.rows(statement).await? {
        owned.push((row.slot(0)?, row.number(1)?));
    }
    needs.deciding.retain(|tenure| owned.contains(tenure));
    needs.publishing.retain(|tenure| owned.contains(tenure));
    needs.owning.retain(|tenure| owned.contains(tenure));
    Ok(())
}

fn numbers_of(slots: &[(Slot, i64)]) -> Vec<i16> {
    slots.iter().map(|(slot, _)| slot_number(*slot)).collect()
}

async fn letter(tx: &mut Tx<'_>, number: i64) -> Result<Letter, sqlx::Error> {
    // Numbers are never used twice, so one below the last was dead once.
    let statement = tx.statement(
        "SELECT d.id IS NOT NULL, d.order_id, $1 BETWEEN 1 AND CASE WHEN s.is_called THEN s.last_value ELSE 0 END
         FROM dead_id_seq s LEFT JOIN dead d ON d.id = $1",
    );
    let Some(row) = tx.row(statement.bind(number)).await? else { return Ok(Letter::Unknown) };
    Ok(match (row.flag(0)?, row.id_or_none(1)?) {
        (true, Some(id)) => Letter::Of(id),
        (true, None) => Letter::Reply,
        (false, _) if row.flag(2)? => Letter::Gone,
        (false, _) => Letter::Unknown,
    })
}

async fn overdue(tx: &mut Tx<'_>, due: &Due<'_>, owned: &[Slot]) -> Result<Option<Vec<OrderId>>, sqlx::Error> {
    let unread = tx.statement(
        "SELECT 1 FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS e (topic, partition, end_offset)
         LEFT JOIN reply_positions p ON p.topic = e.topic AND p.partition = e.partition
         WHERE coalesce(p.next_offset, 0) < e.end_offset LIMIT 1",
    );
    let unread = unread
        .bind(due.ends.iter().map(|end| end.topic.as_str()).collect::<Vec<_>>())
        .bind(due.ends.iter().map(|end| end.partition).collect::<Vec<_>>())
        .bind(due.ends.iter().map(|end| end.next_offset).collect::<Vec<_>>());
    if tx.row(unread).await?.is_some() {
        return Ok(None);
    }
    let statement = tx.statement(
        "SELECT o.id FROM orders o JOIN unnest($1::text[], $2::bigint[]) AS n (route, moment) ON n.route = o.route
         WHERE o.deadline_at IS NOT NULL AND o.deadline_at <= n.moment AND o.slot = ANY ($4)
         ORDER BY o.deadline_at LIMIT $3",
    );
    let statement = statement
        .bind(due.routes.iter().map(|(route, _)| route.to_string()).collect::<Vec<_>>())
        .bind(due.routes.iter().map(|(_, moment)| moment.0).collect::<Vec<_>>())
        .bind(limit_number(due.limit))
        .bind(owned.iter().map(|slot| slot_number(*slot)).collect::<Vec<_>>());
    let rows = tx.rows(statement).await?;
    rows.iter().map(|row| row.id(0)).collect::<Result<_, _>>().map(Some)
}

async fn unanswered(tx: &mut Tx<'_>, bytes_max: usize) -> Result<Vec<(Slot, i64, OrderId)>, sqlx::Error> {
    let statement = tx.statement(
        "SELECT r.slot, r.number, r.order_id, (octet_length(r.value) + octet_length(r.headers))::bigint,
                o.first_record IS NOT NULL
         FROM orders o JOIN records r ON r.order_id = o.id AND r.slot = o.slot AND NOT r.is_outcome
         JOIN publish_cursors c ON c.slot = r.slot
         WHERE (o.status = 'PUBLISHED' AND NOT o.is_final OR o.status = 'PENDING' AND o.first_record IS NOT NULL)
             AND r.number <= c.number AND (o.first_record IS NULL OR r.number BETWEEN o.first_record AND o.last_record)
         ORDER BY r.at DESC, r.slot, r.number DESC",
    );
    let rows = tx.rows(statement).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Unanswered {
            slot: row.slot(0)?,
            number: row.number(1)?,
            order_id: row.id(2)?,
            bytes: row.number(3)?,
            is_of_several: row.flag(4)?,
        })
    };
    let rows = rows.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>()?;
    Ok(fitting(&rows, bytes_max))
}

/// Locks the orders, then reads them (PROTOCOL R1), and with them a block of numbers.
async fn orders(tx: &mut Tx<'_>, needs: &mut Needs<'_>, work: &mut Work<'_>) -> Result<Option<i64>, sqlx::Error> {
    if needs.orders.is_empty() {
        return Ok(None);
    }
    needs.orders.sort_unstable();
    needs.orders.dedup();
    let ids = ids_of(&needs.orders);
    if needs.locks_orders {
        let lock = tx.statement("SELECT FROM orders WHERE id = ANY ($1) ORDER BY id FOR UPDATE");
        tx.execute(lock.bind(ids.clone())).await?;
    }
    // The number is asked for once, not for each row: the inner query depends on none.
    let read =
        tx.statement(select_orders!(", (SELECT nextval('numbers')) FROM orders o WHERE o.id = ANY ($1) ORDER BY o.id"));
    let mut number = None;
    for row in tx.rows(read.bind(ids)).await? {
        work.orders.push(read_order(&row)?);
        number = Some(row.number(ORDER_COLUMNS)?);
    }
    Ok(number)
}

fn ids_of(ids: &[OrderId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.0).collect()
}

async fn held(tx: &mut Tx<'_>, ids: &[OrderId], work: &mut Work<'_>) -> Result<(), sqlx::Error> {
    for id in ids {
        work.held.insert(*id, HeldPlace::default());
    }
    let statement = tx.statement(
        "SELECT order_id, place, since, attempts, due_at, deaths, faults FROM held WHERE order_id = ANY ($1)",
    );
    for row in tx.rows(statement.bind(ids_of(ids))).await? {
        let held = HeldRow {
            place: row.number(1)?,
            since: row.time(2)?,
            attempts: row.count(3)?,
            due_at: row.time_or_none(4)?,
            strikes: Strikes { deaths: row.count(5)?, faults: row.count(6)? },
        };
        work.held.insert(row.id(0)?, HeldPlace { is_stored: true, row: Some(held), is_changed: false });
    }
    Ok(())
}

async fn dead(tx: &mut Tx<'_>, ids: &[OrderId], work: &mut Work<'_>) -> Result<(), sqlx::Error> {
    for id in ids {
        work.dead.insert(*id, DeadPlace::default());
    }
    let statement = tx.statement("SELECT order_id FROM dead WHERE order_id = ANY ($1)");
    for row in tx.rows(statement.bind(ids_of(ids))).await? {
        work.dead.insert(row.id(0)?, DeadPlace { is_stored: true, next: NextDead::Stored });
    }
    Ok(())
}

async fn known<'a>(tx: &mut Tx<'_>, replies: Vec<(OrderId, &'a str)>, work: &mut Work<'a>) -> Result<(), sqlx::Error> {
    let statement = tx.statement(
        "SELECT n.place::bigint FROM unnest($1::uuid[], $2::bytea[]) WITH ORDINALITY AS n (order_id, dedup, place)
         JOIN inbox i ON i.order_id = n.order_id AND i.dedup = n.dedup",
    );
    let statement = statement
        .bind(replies.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
        .bind(replies.iter().map(|(_, dedup)| dedup.as_bytes().to_vec()).collect::<Vec<_>>());
    for row in tx.rows(statement).await? {
        let place = usize::try_from(row.number(0)? - 1).unwrap_or(usize::MAX);
        work.known.extend(replies.get(place).copied());
    }
    Ok(())
}

async fn republish(tx: &mut Tx<'_>, keys: &[(Slot, i64)], work: &mut Work<'_>) -> Result<(), sqlx::Error> {
    let statement = tx.statement(
        "SELECT slot, number FROM republish JOIN unnest($1::smallint[], $2::bigint[]) AS n (slot, number)
             USING (slot, number)",
    );
    let statement = statement.bind(numbers_of(keys)).bind(keys.iter().map(|(_, number)| *number).collect::<Vec<_>>());
    for row in tx.rows(statement).await? {
        work.republish.insert((row.slot(0)?, row.number(1)?));
    }
    Ok(())
}

/// Reads what an operation needs once the orders are known.
pub(super) async fn load_more(tx: &mut Tx<'_>, more: More<'_>, work: &mut Work<'_>) -> Result<(), sqlx::Error> {
    if !more.inboxes.is_empty() {
        let statement = tx.statement(
            "SELECT order_id, dedup, kind, source, record_at, taken_at, fate, problems FROM inbox
             WHERE order_id = ANY ($1) AND fate IN ('early', 'parked', 'counted', 'noted')
             ORDER BY order_id, taken_at, record_at",
        );
        for row in tx.rows(statement.bind(ids_of(&more.inboxes))).await? {
            work.inboxes.entry(row.id(0)?).or_default().push(inbox_row(&row)?);
        }
    }
    if !more.ends.is_empty() {
        let statement = tx.statement(
            "SELECT topic, partition, asked_at, end_offset FROM reply_ends
             JOIN unnest($1::text[], $2::integer[]) AS n (topic, partition) USING (topic, partition)",
        );
        let statement = statement
            .bind(more.ends.iter().map(|(topic, _)| (*topic).to_owned()).collect::<Vec<_>>())
            .bind(more.ends.iter().map(|(_, partition)| *partition).collect::<Vec<_>>());
        for row in tx.rows(statement).await? {
            work.ends.push(PartitionEnd {
                topic: row.text(0)?,
                partition: row.partition(1)?,
                asked_at: row.time(2)?,
                end_offset: row.number(3)?,
            });
        }
    }
    Ok(())
}

fn inbox_row(row: &sqlx::postgres::PgRow) -> Result<InboxRow<'static>, sqlx::Error> {
    let fate = row.text(6)?;
    Ok(InboxRow {
        dedup: Cow::Owned(row.key(1)?.to_string()),
        kind: Cow::Owned(row.text(2)?),
        source: row.text_or_none(3)?.map(Cow::Owned),
        sent_at: row.time(4)?,
        taken_at: row.time(5)?,
        fate: ReplyFate::parse(&fate).ok_or_else(|| super::values::unknown(&fate, "fate of a reply"))?,
        problems: Cow::Owned(row.json(7)?),
        change: InboxChange::Same,
    })
}
