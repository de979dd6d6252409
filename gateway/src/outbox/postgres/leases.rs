//! Owning slots among several nodes (PROTOCOL O1 to O5).
//!
//! Time is the database's. A renewal changes no key column, so it waits for no owner's transaction; a take-over locks
//! the row `FOR UPDATE`, so it waits for them, and then looks again. Where that takes too long it ends the sessions in
//! its way: the lease they relied on has ended, and whoever has one will not use it any more.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::Row;
use tracing::{info, warn};

use super::session::{Kind, Sessions, Tx};
use super::values::slot_number;
use crate::order::Slot;
use crate::outbox::Tended;

/// How many slots there are.
const SLOTS: usize = crate::order::SLOTS as usize;
/// A take-over waits so long, as a part of a lease, before it ends sessions in its way.
const PATIENCE: u32 = 10;
/// A node that said nothing for so many leases is forgotten.
const FORGOTTEN_AFTER: f64 = 10.0;

/// One round: says that the node lives, renews, gives back what is surplus and ready, takes what is free.
pub(super) async fn tend(
    sessions: &Sessions,
    node: &str,
    lease: Duration,
    ready: &[(Slot, i64)],
) -> Result<Tended, sqlx::Error> {
    sessions.set_lease(lease);
    let (mut held, nodes, given) = renew(sessions, node, lease, ready).await?;
    let share = SLOTS.div_ceil(nodes);
    let others = others(sessions, node).await?;
    let free: Vec<Slot> = others.iter().filter(|other| other.ends_in.is_none()).map(|other| other.slot).collect();
    let wanted: Vec<Slot> = spread(&free, node).filter(|slot| !given.contains(slot)).collect();
    let room = share.saturating_sub(held.len());
    if room > 0 && !wanted.is_empty() {
        held.extend(take(sessions, node, lease, &wanted[..room.min(wanted.len())]).await?);
        held.sort_by_key(|(slot, _)| *slot);
    }
    let taken = |slot: Slot| held.iter().any(|(own, _)| *own == slot);
    let ends = others.iter().filter(|other| !taken(other.slot)).filter_map(|other| other.ends_in);
    Ok(Tended { next_end: ends.min(), surplus: held.len().saturating_sub(share), held, nodes, ends: true })
}

/// Renews what is held but what is given back. Returns what is held now, how many nodes live, and what was given.
async fn renew(
    sessions: &Sessions,
    node: &str,
    lease: Duration,
    ready: &[(Slot, i64)],
) -> Result<(Vec<(Slot, i64)>, usize, Vec<Slot>), sqlx::Error> {
    // A renewal that a crash of the server loses ends the lease early, which is safe.
    let mut tx = sessions.begin(Kind::WriteSoon).await?;
    let lives = tx.statement(
        "INSERT INTO nodes (name, seen_at) VALUES ($1, clock_timestamp())
         ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at",
    );
    tx.execute(lives.bind(node.to_owned())).await?;
    let own = tx.statement("SELECT slot, epoch FROM slots WHERE owner = $1 ORDER BY slot FOR NO KEY UPDATE");
    let rows = tx.rows(own.bind(node.to_owned())).await?;
    let mut held: Vec<(Slot, i64)> = rows.iter().map(held_row).collect::<Result<_, _>>()?;
    let count = tx.statement("SELECT count(*) FROM nodes WHERE seen_at > clock_timestamp() - $1 * interval '1 second'");
    let row = tx.row(count.bind(lease.as_secs_f64())).await?;
    let nodes: i64 = row.map_or(Ok(1), |row| row.try_get(0))?;
    let nodes = usize::try_from(nodes).unwrap_or(1).max(1);
    let surplus = held.len().saturating_sub(SLOTS.div_ceil(nodes));
    let given: Vec<Slot> =
        ready.iter().filter(|tenure| held.contains(tenure)).take(surplus).map(|(slot, _)| *slot).collect();
    let renewed = tx.statement(
        "UPDATE slots SET lease_until = clock_timestamp() + $2 * interval '1 second'
         WHERE owner = $1 AND NOT slot = ANY ($3)",
    );
    let given_numbers: Vec<i16> = given.iter().map(|slot| slot_number(*slot)).collect();
    tx.execute(renewed.bind(node.to_owned()).bind(lease.as_secs_f64()).bind(given_numbers.clone())).await?;
    if !given.is_empty() {
        let back =
            tx.statement("UPDATE slots SET owner = '', lease_until = '-infinity' WHERE owner = $1 AND slot = ANY ($2)");
        tx.execute(back.bind(node.to_owned()).bind(given_numbers)).await?;
    }
    tx.commit("").await?;
    held.retain(|(slot, _)| !given.contains(slot));
    Ok((held, nodes, given))
}

fn held_row(row: &sqlx::postgres::PgRow) -> Result<(Slot, i64), sqlx::Error> {
    Ok((slot_of(row, 0)?, row.try_get(1)?))
}

/// A slot in a column.
pub(super) fn slot_of(row: &sqlx::postgres::PgRow, column: usize) -> Result<Slot, sqlx::Error> {
    let number: i16 = row.try_get(column)?;
    u8::try_from(number).map(Slot).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// A slot that another node has, or nobody.
struct Other {
    slot: Slot,
    /// Absent: nobody has it, or whose lease has ended.
    ends_in: Option<Duration>,
}

async fn others(sessions: &Sessions, node: &str) -> Result<Vec<Other>, sqlx::Error> {
    let rows = sessions
        .rows(
            "SELECT slot, CASE WHEN lease_until > clock_timestamp()
                               THEN extract(epoch FROM lease_until - clock_timestamp())::float8 END
             FROM slots WHERE owner <> $1 ORDER BY slot",
            |statement| statement.bind(node.to_owned()),
        )
        .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let seconds: Option<f64> = row.try_get(1)?;
        let ends_in = seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
        Ok(Other { slot: slot_of(row, 0)?, ends_in })
    };
    rows.iter().map(read).collect()
}

/// The same slots from a place on that is the node's own, so that nodes which look at once do not all want the first.
fn spread(slots: &[Slot], node: &str) -> impl Iterator<Item = Slot> {
    let seed = node.bytes().fold(0_usize, |seed, byte| seed.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let (behind, before) = slots.split_at(if slots.is_empty() { 0 } else { seed % slots.len() });
    before.iter().chain(behind).copied()
}

/// Takes slots over whose lease has ended. The cursors are read in a later transaction (PROTOCOL O5).
async fn take(
    sessions: &Sessions,
    node: &str,
    lease: Duration,
    wanted: &[Slot],
) -> Result<Vec<(Slot, i64)>, sqlx::Error> {
    let wanted: Vec<i16> = wanted.iter().map(|slot| slot_number(*slot)).collect();
    let mut tx = sessions.begin(Kind::Write).await?;
    let row = tx.row(tx.statement("SELECT pg_backend_pid()")).await?;
    let pid: i32 = row.ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
    let lock = tx.statement(
        "SELECT slot, owner FROM slots WHERE slot = ANY ($1) AND lease_until <= clock_timestamp()
         ORDER BY slot FOR UPDATE",
    );
    let locked = tx.rows(lock.bind(wanted));
    let locked = tokio::select! {
        locked = locked => locked?,
        never = clear_the_way(sessions, pid, lease / PATIENCE) => match never {},
    };
    let mut owners: HashMap<Slot, String> = HashMap::new();
    for row in &locked {
        owners.insert(slot_of(row, 0)?, row.try_get(1)?);
    }
    let locked: Vec<i16> = owners.keys().map(|slot| slot_number(*slot)).collect();
    let raise = tx.statement(
        "UPDATE slots SET owner = $1, epoch = epoch + 1, lease_until = clock_timestamp() + $2 * interval '1 second'
         WHERE slot = ANY ($3) AND lease_until <= clock_timestamp() RETURNING slot, epoch",
    );
    let raised = tx.rows(raise.bind(node.to_owned()).bind(lease.as_secs_f64()).bind(locked)).await?;
    let taken: Vec<(Slot, i64)> = raised.iter().map(held_row).collect::<Result<_, _>>()?;
    let slots: Vec<Slot> = taken.iter().map(|(slot, _)| *slot).collect();
    blame(&mut tx, &slots, &owners).await?;
    forget_nodes(&mut tx, lease).await?;
    tx.commit("").await?;
    if !taken.is_empty() {
        info!(slots = taken.len(), "took {} slots over", taken.len());
    }
    Ok(taken)
}

enum Never {}

/// Ends the sessions that the one with `pid` waits for, each time it has waited for `patience`.
async fn clear_the_way(sessions: &Sessions, pid: i32, patience: Duration) -> Never {
    loop {
        tokio::time::sleep(patience).await;
        let ended = sessions
            .rows(
                "SELECT pid, pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS pid WHERE pid > 0",
                |statement| statement.bind(pid),
            )
            .await;
        match ended {
            Ok(rows) => {
                for row in rows {
                    let pid: i32 = row.try_get(0).unwrap_or_default();
                    warn!(pid, "ended session {pid}, which held a slot beyond the end of its lease");
                }
            }
            Err(error) => {
                warn!(%error, "a session holds a slot beyond the end of its lease and cannot be ended: end it by hand");
            }
        }
    }
}

/// Names who is suspected after a process died in the middle of a pass over these slots (PROTOCOL D10).
async fn blame(tx: &mut Tx<'_>, taken: &[Slot], owners: &HashMap<Slot, String>) -> Result<(), sqlx::Error> {
    let earlier: Vec<String> =
        taken.iter().filter_map(|slot| owners.get(slot)).filter(|owner| !owner.is_empty()).cloned().collect();
    let open = tx.statement("SELECT node, batch FROM begun WHERE is_open AND node = ANY ($1)").bind(earlier);
    let mut blamed: Vec<i16> = Vec::new();
    for row in tx.rows(open).await? {
        let (owner, batch): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        for (slot, place) in batch.split(',').filter_map(parse_begun) {
            if !taken.contains(&slot) || owners.get(&slot) != Some(&owner) {
                continue;
            }
            blamed.push(slot_number(slot));
            let note = tx.statement(
                "INSERT INTO suspects AS s (slot, at_xid, at_number, deaths) VALUES ($1, $2, $3, 1)
                 ON CONFLICT (slot) DO UPDATE
                 SET deaths = CASE WHEN (s.at_xid, s.at_number) = (excluded.at_xid, excluded.at_number)
                                   THEN s.deaths + 1 ELSE 1 END,
                     at_xid = excluded.at_xid, at_number = excluded.at_number",
            );
            tx.execute(note.bind(slot_number(slot)).bind(place.0).bind(place.1)).await?;
        }
    }
    if !blamed.is_empty() {
        // Whoever ran alone when the process died is the culprit: its own count rises.
        let deaths = tx.statement(
            "UPDATE held SET deaths = deaths + 1
             WHERE order_id IN (SELECT alone FROM suspects WHERE alone IS NOT NULL AND slot = ANY ($1))",
        );
        tx.execute(deaths.bind(blamed.clone())).await?;
        let culprits = tx.statement("UPDATE suspects SET culprit = alone WHERE alone IS NOT NULL AND slot = ANY ($1)");
        tx.execute(culprits.bind(blamed)).await?;
    }
    let taken: Vec<i16> = taken.iter().map(|slot| slot_number(*slot)).collect();
    tx.execute(
        tx.statement("UPDATE suspects SET alone = NULL WHERE alone IS NOT NULL AND slot = ANY ($1)").bind(taken),
    )
    .await?;
    Ok(())
}

/// `slot:xid/number`, or `slot:number` as one writer has it.
fn parse_begun(text: &str) -> Option<(Slot, (i64, i64))> {
    let (slot, place) = text.split_once(':')?;
    let place = match place.split_once('/') {
        Some((xid, number)) => (xid.parse().ok()?, number.parse().ok()?),
        None => (0, place.parse().ok()?),
    };
    Some((Slot(slot.parse().ok()?), place))
}

/// Removes nodes that are gone for long, and what they had under way once nobody can ask for it any more.
async fn forget_nodes(tx: &mut Tx<'_>, lease: Duration) -> Result<(), sqlx::Error> {
    let nodes = tx.statement("DELETE FROM nodes WHERE seen_at < clock_timestamp() - $1 * interval '1 second'");
    tx.execute(nodes.bind(lease.as_secs_f64() * FORGOTTEN_AFTER)).await?;
    let begun = tx.statement(
        "DELETE FROM begun b WHERE NOT EXISTS (SELECT FROM nodes n WHERE n.name = b.node)
             AND NOT EXISTS (SELECT FROM slots s WHERE s.owner = b.node)",
    );
    tx.execute(begun).await?;
    Ok(())
}

/// Gives everything back, at the end of a node that stops in order: nobody died.
pub(super) async fn resign(sessions: &Sessions, node: &str) -> Result<(), sqlx::Error> {
    let mut tx = sessions.begin(Kind::Write).await?;
    for sql in [
        "DELETE FROM begun WHERE node = $1",
        "UPDATE slots SET owner = '', lease_until = '-infinity' WHERE owner = $1",
        "DELETE FROM nodes WHERE name = $1",
    ] {
        tx.execute(tx.statement(sql).bind(node.to_owned())).await?;
    }
    tx.commit("").await
}
