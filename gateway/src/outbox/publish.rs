//! The transactions of publishing: delivery reports become PUBLISHED, and the publish cursor moves.
//!
//! A reply that came before is judged in the same transaction (PROTOCOL R3): two versions, both in history.

use std::collections::HashSet;

use rusqlite::params;

use super::Lost;
use super::accept::note;
use super::decide::bury;
use super::order_row::OrderState;
use super::replies::judge;
use super::writer::Tx;
use crate::order::status::{OrderEvent, transition};
use crate::order::timeline::Happening;
use crate::order::{OrderId, Slot};
use crate::route::Rules;

/// Acknowledged records of many slots.
#[derive(Debug)]
pub struct Deliveries {
    pub slots: Vec<SlotDeliveries>,
}

/// The next records of one slot, without a gap.
#[derive(Debug)]
pub struct SlotDeliveries {
    pub slot: Slot,
    pub epoch: i64,
    /// The publish cursor before these.
    pub from: i64,
    /// The number of the last of these; `from` where only forgotten records went out again.
    pub to: i64,
    pub items: Vec<Delivered>,
}

/// One record and what Kafka said of it.
#[derive(Debug)]
pub struct Delivered {
    pub number: i64,
    pub order_id: OrderId,
    pub is_outcome: bool,
    /// CloudEvents type of the record.
    pub event_type: String,
    pub topic: String,
    /// Whether the broker had forgotten it and got it once more.
    pub is_again: bool,
    pub result: Result<Placed, Refused>,
}

/// Where Kafka put a record.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    pub partition: i32,
    pub offset: i64,
}

/// Why Kafka will never take a record.
#[derive(Debug, Clone)]
pub struct Refused {
    pub detail: String,
    pub plugins: String,
}

pub(super) fn publish(
    tx: &mut Tx<'_>,
    deliveries: &Deliveries,
    rules: &Rules,
) -> rusqlite::Result<Vec<Result<(), Lost>>> {
    deliveries.slots.iter().map(|part| publish_slot(tx, part, rules)).collect()
}

fn publish_slot(tx: &mut Tx<'_>, part: &SlotDeliveries, rules: &Rules) -> rusqlite::Result<Result<(), Lost>> {
    let stored = tx.query_one(
        "SELECT epoch, number FROM slots JOIN publish_cursors USING (slot) WHERE slot = ?1",
        [part.slot],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    if stored != Some((part.epoch, part.from)) {
        return Ok(Err(Lost));
    }
    for item in &part.items {
        if item.is_again {
            let taken =
                tx.execute("DELETE FROM republish WHERE slot = ?1 AND number = ?2", params![part.slot, item.number])?;
            if taken == 0 {
                continue;
            }
        }
        deliver(tx, item, rules)?;
    }
    if part.to != part.from {
        tx.execute("UPDATE publish_cursors SET number = ?2 WHERE slot = ?1", params![part.slot, part.to])?;
    }
    Ok(Ok(()))
}

fn deliver(tx: &mut Tx<'_>, item: &Delivered, rules: &Rules) -> rusqlite::Result<()> {
    let Some(mut order) = OrderState::find(tx, item.order_id)? else { return Ok(()) };
    let replies = rules.get(&order.route).and_then(|route| route.replies.as_ref());
    let placed = match &item.result {
        Ok(placed) => placed,
        Err(refused) => return refuse(tx, &mut order, item, refused),
    };
    let happening = Happening::Published {
        event_type: item.event_type.clone(),
        topic: item.topic.clone(),
        partition: placed.partition,
        offset: placed.offset,
    };
    let event = if item.is_again { OrderEvent::Republish } else { OrderEvent::Publish };
    let next = if item.is_outcome { None } else { transition(order.status, replies.is_some(), event) };
    let Some(status) = next.filter(|_| !order.is_final) else {
        return note(tx, &order, &[happening]);
    };
    order.enter(tx, status, replies.is_none());
    order.deadline_at = replies.map(|replies| tx.now.after(replies.deadline));
    order.store(tx, &[happening])?;
    if replies.is_some() {
        judge(tx, &mut order, rules)?;
    }
    Ok(())
}

fn refuse(tx: &mut Tx<'_>, order: &mut OrderState, item: &Delivered, refused: &Refused) -> rusqlite::Result<()> {
    let may_die = !item.is_outcome && transition(order.status, true, OrderEvent::Refuse).is_some();
    if !may_die {
        // Nobody waits for it any more; the operator learns it from the timeline and the log.
        return note(tx, order, &[Happening::Refused { topic: item.topic.clone(), detail: refused.detail.clone() }]);
    }
    order.patch_at = None;
    bury(tx, order, "refused-by-kafka", &refused.detail, 1, &refused.plugins, Vec::new())
}

/// Notes, at the start of a development broker, which records it forgot: those of unanswered orders, in order.
///
/// Until one is sent again its order's deadline is not watched (PROTOCOL R7). What does not fit in `bytes_max` stays
/// with its deadline running.
pub(super) fn forget_broker(tx: &mut Tx<'_>, bytes_max: i64) -> rusqlite::Result<usize> {
    tx.execute("DELETE FROM republish", [])?;
    let unanswered = tx.query_all(
        "SELECT r.slot, r.number, r.order_id, length(r.value) + length(r.headers)
         FROM orders o JOIN records r ON r.order_id = o.id AND r.slot = o.slot AND r.is_outcome = 0
         JOIN publish_cursors c ON c.slot = r.slot
         WHERE o.status = 'PUBLISHED' AND o.is_final = 0 AND r.number <= c.number
         ORDER BY r.at DESC, r.slot, r.number DESC",
        [],
        |row| Ok((row.get::<_, Slot>(0)?, row.get::<_, i64>(1)?, row.get::<_, OrderId>(2)?, row.get::<_, i64>(3)?)),
    )?;
    let (mut bytes, mut noted) = (0, 0);
    let mut seen = HashSet::new();
    for (slot, number, id, length) in unanswered {
        // The newest of an order: an earlier one was refused.
        if !seen.insert(id) {
            continue;
        }
        bytes += length;
        if bytes > bytes_max {
            break;
        }
        tx.execute("INSERT INTO republish (slot, number) VALUES (?1, ?2)", params![slot, number])?;
        if let Some(mut order) = OrderState::find(tx, id)?
            && order.deadline_at.is_some()
        {
            order.deadline_at = None;
            order.store(tx, &[])?;
        }
        noted += 1;
    }
    // The new broker's offsets begin at zero.
    tx.execute("DELETE FROM reply_positions", [])?;
    tx.execute("DELETE FROM reply_ends", [])?;
    Ok(noted)
}
