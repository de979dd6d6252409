//! The feed of changes: what any node committed, read in the order of commits, wakes this node's listeners and relay.
//!
//! It asks for versions of transactions that had not ended when it asked before and have now: those between the oldest
//! running transaction then and now. While there is something it asks every few milliseconds, then less and less often;
//! while nobody listens it only keeps its place. What this node committed itself was told at its commit.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::warn;

use super::Shared;
use super::failure::is_told;
use super::session::Sessions;
use super::values::{Columns, limit_number};
use crate::order::OrderId;
use crate::outbox::wake::Changed;

/// Between two looks while there is something.
const HOT: Duration = Duration::from_millis(4);
/// Between two looks while there is nothing.
const IDLE: Duration = Duration::from_millis(64);
/// After a look that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// Changes that one look brings.
const CHANGES_MAX: usize = 4_096;

/// Up to where the feed is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    xid: i64,
    sequence: i64,
}

/// Runs until the outbox is gone.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut place = None;
    let mut pause = IDLE;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // What was just committed here can be read once every older transaction has ended: very soon.
            () = shared.committed.notified() => tokio::time::sleep(HOT).await,
        }
        match look(&shared, &mut place).await {
            Ok(found) => pause = if found { HOT } else { (pause * 2).clamp(HOT, IDLE) },
            Err(error) => {
                if !is_told(&error) {
                    warn!(%error, "the feed of changes stands still: the database does not answer");
                }
                pause = AFTER_FAILURE;
            }
        }
    }
}

/// Looks once; returns whether there was anything.
async fn look(shared: &Arc<Shared>, place: &mut Option<Place>) -> Result<bool, sqlx::Error> {
    let Some(from) = *place else {
        *place = Some(Place { xid: horizon(&shared.sessions).await?, sequence: 0 });
        return Ok(false);
    };
    if !shared.wakes.is_heard() && !shared.carries() {
        // Whoever begins to listen reads the present after that, so this place is early enough.
        *place = Some(Place { xid: horizon(&shared.sessions).await?, sequence: 0 });
        return Ok(false);
    }
    let rows = shared
        .sessions
        .rows(
            "SELECT g.horizon, h.xid, h.sequence, h.order_id
             FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon) g
             LEFT JOIN LATERAL (
                 SELECT xid, sequence, order_id FROM history
                 WHERE status IS NOT NULL AND xid >= $1 AND (xid, sequence) > ($1, $2) AND xid < g.horizon
                 ORDER BY xid, sequence LIMIT $3) h ON true
             ORDER BY h.xid, h.sequence",
            |statement| statement.bind(from.xid).bind(from.sequence).bind(limit_number(CHANGES_MAX)),
        )
        .await?;
    let mut changes = Vec::with_capacity(rows.len());
    let mut last = from;
    for row in &rows {
        let Some(xid) = row.number_or_none(1)? else { continue };
        let (sequence, order_id): (i64, OrderId) = (row.number(2)?, row.id(3)?);
        last = Place { xid, sequence };
        if !shared.own.was_told(sequence) {
            changes.push(Changed { order_id, sequence });
        }
    }
    let is_cut = rows.len() >= CHANGES_MAX;
    let horizon = rows.first().map_or(Ok(from.xid), |row| row.number(0))?;
    *place = Some(if is_cut { last } else { Place { xid: horizon.max(from.xid), sequence: 0 } });
    // The relay is woken for this node's own orders too: at their commit an older transaction may have hidden them.
    let found = last != from;
    shared.wakes.told(&changes, found);
    Ok(found)
}

async fn horizon(sessions: &Sessions) -> Result<i64, sqlx::Error> {
    let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
    let rows = sessions.rows(sql, |statement| statement).await?;
    rows.first().map_or(Ok(0), |row| row.number(0))
}
