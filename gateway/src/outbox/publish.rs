//! The transactions of publishing: delivery reports become PUBLISHED, and the publish cursor moves.
//!
//! A reply that came before is judged in the same transaction (PROTOCOL R3): two versions, both in history.

use std::collections::HashSet;
use std::sync::Arc;

use super::Lost;
use super::dead::{Death, bury};
use super::needs::{More, Needs, Operation};
use super::replies::judge;
use super::state::OrderState;
use super::work::Work;
use crate::crash::Point;
use crate::dead::DeadKind;
use crate::order::status::{OrderEvent, transition};
use crate::order::timeline::Happening;
use crate::order::{OrderId, OrderStatus, Slot};
use crate::route::{ReplyRules, Rules};

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

/// Commits delivery reports.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) rules: Arc<Rules>,
}

impl Operation for Publish {
    type Output = Vec<Result<(), Lost>>;
    const WRITTEN: Option<Point> = Some(Point::PublishWritten);

    fn needs(&self) -> Needs<'_> {
        let mut needs = Needs { locks_orders: true, ..Needs::default() };
        needs.publishing = self.deliveries.slots.iter().map(|part| (part.slot, part.epoch)).collect();
        needs.publishing.sort_unstable();
        needs.orders.reserve(self.deliveries.slots.iter().map(|part| part.items.len()).sum());
        for part in &self.deliveries.slots {
            needs.orders.extend(part.items.iter().map(|item| item.order_id));
            let again = part.items.iter().filter(|item| item.is_again);
            needs.republish.extend(again.map(|item| (part.slot, item.number)));
        }
        needs.orders.sort_unstable();
        needs.orders.dedup();
        needs
    }

    /// A reply may have come before.
    fn more(&self, work: &Work<'_>) -> More<'_> {
        let mut more = More::default();
        for item in self.deliveries.slots.iter().flat_map(|part| &part.items) {
            let next = work.orders.get(item.order_id).and_then(|order| next_status(order, item, &self.rules));
            if next.is_some_and(|(_, replies)| replies.is_some()) {
                more.inboxes.push(item.order_id);
            }
        }
        more.inboxes.sort_unstable();
        more.inboxes.dedup();
        more
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> Self::Output {
        self.deliveries.slots.iter().map(|part| publish_slot(work, part, &self.rules)).collect()
    }
}

fn publish_slot(work: &mut Work<'_>, part: &SlotDeliveries, rules: &Rules) -> Result<(), Lost> {
    let index = work.publishing.iter().position(|cursor| cursor.slot == part.slot).ok_or(Lost)?;
    if work.publishing[index].at != part.from {
        return Err(Lost);
    }
    for item in &part.items {
        if item.is_again {
            if !work.republish.remove(&(part.slot, item.number)) {
                continue;
            }
            work.out.writes.republished.push((part.slot, item.number));
        }
        deliver(work, item, rules);
    }
    if part.to != part.from {
        let cursor = &mut work.publishing[index];
        (cursor.at, cursor.is_moved) = (part.to, true);
    }
    Ok(())
}

fn deliver(work: &mut Work<'_>, item: &Delivered, rules: &Rules) {
    let Some(order) = work.orders.get_mut(item.order_id) else { return };
    let placed = match &item.result {
        Ok(placed) => placed,
        Err(refused) => return refuse(work, item, refused),
    };
    let happening = Happening::Published {
        event_type: item.event_type.clone(),
        topic: item.topic.clone(),
        partition: placed.partition,
        offset: placed.offset,
    };
    let out = &mut work.out;
    let Some((status, replies)) = next_status(order, item, rules) else {
        return order.note(out, &[happening]);
    };
    order.enter(out, status, replies.is_none());
    order.deadline_at = replies.map(|replies| out.now.after(replies.deadline));
    order.store(out, &[happening]);
    if replies.is_some() {
        judge(work, item.order_id, rules);
    }
}

/// What an order becomes by a record of it that is on Kafka, and which replies it then expects; `None` where that
/// changes nothing.
fn next_status<'r>(
    order: &OrderState,
    item: &Delivered,
    rules: &'r Rules,
) -> Option<(OrderStatus, Option<&'r ReplyRules>)> {
    if item.is_outcome || order.is_final || item.result.is_err() {
        return None;
    }
    // Of several the last one does it: those before it are on Kafka then, or refused.
    if order.records.is_some_and(|(_, last)| item.number != last) {
        return None;
    }
    let replies = rules.get(&order.route).and_then(|route| route.replies.as_ref());
    let event = if item.is_again { OrderEvent::Republish } else { OrderEvent::Publish };
    Some((transition(order.status, replies.is_some(), event)?, replies))
}

fn refuse(work: &mut Work<'_>, item: &Delivered, refused: &Refused) {
    let Some(order) = work.orders.get_mut(item.order_id) else { return };
    let out = &mut work.out;
    // One that was decided before the operator put the order back says nothing of what was decided since.
    let is_current = order.records.is_none_or(|(first, last)| (first..=last).contains(&item.number));
    let may_die = !item.is_outcome && is_current && transition(order.status, true, OrderEvent::Refuse).is_some();
    if !may_die {
        // Nobody waits for it any more; the operator learns it from the timeline and the log.
        return order.note(out, &[Happening::Refused { topic: item.topic.clone(), detail: refused.detail.clone() }]);
    }
    order.patch_at = None;
    let detail = match order.records {
        None => refused.detail.clone(),
        Some(_) => format!("the record for topic `{}`: {}", item.topic, refused.detail),
    };
    let (kind, reason) = (DeadKind::Record, "refused-by-kafka");
    let death = Death { kind, reason, detail: &detail, attempts: 1, plugins: &refused.plugins };
    bury(out, work.dead.entry(order.id).or_default(), order, &death, Vec::new());
}

/// Notes, at the start of a development broker, which records it forgot: those of unanswered orders, in order.
///
/// Until one is sent again its order's deadline is not watched (PROTOCOL R7). What does not fit in `bytes_max` stays
/// with its deadline running.
#[derive(Debug)]
pub(super) struct ForgetBroker {
    pub(super) bytes_max: usize,
}

impl Operation for ForgetBroker {
    type Output = usize;

    fn needs(&self) -> Needs<'_> {
        Needs { unanswered: Some(self.bytes_max), locks_orders: true, ..Needs::default() }
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> usize {
        // The new broker's offsets begin at zero.
        work.out.writes.forgets_broker = true;
        let unanswered = std::mem::take(&mut work.unanswered);
        for (slot, number, id) in &unanswered {
            work.out.writes.forgotten.push((*slot, *number));
            if let Some(order) = work.orders.get_mut(*id)
                && order.deadline_at.is_some()
            {
                order.deadline_at = None;
                order.store(&mut work.out, &[]);
            }
        }
        unanswered.len()
    }
}

/// A record on Kafka that is not answered.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) slot: Slot,
    pub(super) number: i64,
    pub(super) order_id: OrderId,
    pub(super) bytes: i64,
    /// Whether all of its order that were read were made by one decision, and need each other.
    pub(super) is_of_several: bool,
}

/// Of unanswered records, newest first, as many as fit: of each order the newest, since an earlier one was refused, or
/// all where they belong together.
pub(super) fn fitting(records: &[Unanswered], bytes_max: usize) -> Vec<(Slot, i64, OrderId)> {
    let (mut bytes, mut seen, mut fitting) = (0_usize, HashSet::new(), Vec::new());
    for own in records.chunk_by(|one, next| one.order_id == next.order_id) {
        if !seen.insert(own[0].order_id) {
            continue;
        }
        let own = if own[0].is_of_several { own } else { &own[..1] };
        let length = own.iter().map(|record| usize::try_from(record.bytes).unwrap_or(usize::MAX));
        bytes = length.fold(bytes, usize::saturating_add);
        if bytes > bytes_max {
            break;
        }
        fitting.extend(own.iter().map(|record| (record.slot, record.number, record.order_id)));
    }
    fitting
}
