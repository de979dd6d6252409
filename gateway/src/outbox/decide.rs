//! The transactions of deciding: entries and held orders become records, versions and places in the held table.
//!
//! One transaction per pass. Per slot it checks the epoch and moves the decide cursor by compare-and-set (PROTOCOL O2,
//! D2); a slot where that does not match loses its part of the pass and nothing else does.

use std::sync::Arc;

use bytes::Bytes;

use super::Lost;
use super::dead::{DEAD, Death, bury};
use super::json::json;
use super::needs::{Needs, Operation};
use super::owning::Strikes;
use super::state::OrderState;
use super::work::{DecideCursor, HeldPlace, HeldRow, NextDead, Out, RecordRow, SuspicionStep, Work};
use crate::clock::Timestamp;
use crate::crash::Point;
use crate::dead::DeadKind;
use crate::entry::{EntryKind, EntryPlace};
use crate::order::timeline::Happening;
use crate::order::{Held, OrderId, OrderStatus, Problem, Slot};
use crate::record::Record;
use crate::route::Rules;

/// The reason of an order that stands behind another of its key.
pub const BEHIND: &str = "behind";
/// The reason of an order that is judged aside, since the plugins of its route take long.
pub const BUSY: &str = "busy";

/// An operator who gave no name.
const OPERATOR: &str = "operator";

/// What one pass decided.
#[derive(Debug)]
pub struct Pass {
    pub slots: Vec<SlotPass>,
    /// Whether an order ran alone in the process; it survived.
    pub ran_alone: bool,
    /// What is still under way when this is committed, named as by [`begin`](super::Outbox::begin); empty if nothing is.
    pub still_open: String,
}

/// The part of a pass that is one slot's.
#[derive(Debug)]
pub struct SlotPass {
    pub slot: Slot,
    pub epoch: i64,
    /// The decide cursor the batch was read at.
    pub from: EntryPlace,
    /// The last entry carried; `from` if only held orders were looked at.
    pub to: EntryPlace,
    pub items: Vec<Item>,
    /// Whether the slot was suspect and is no more once this is committed.
    pub clears_suspicion: bool,
}

/// One order's part of a pass.
#[derive(Debug)]
pub struct Item {
    pub order_id: OrderId,
    pub origin: Origin,
    pub step: Step,
    /// What the plugins said, for the timeline.
    pub runs: Vec<Happening>,
    /// `name@digest` of those plugins, by comma.
    pub plugins: String,
    /// The operator in whose name it is done, if it is an operator's doing.
    pub by: Option<String>,
}

/// Where an item came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A row of the outbox.
    Entry { kind: EntryKind, place: EntryPlace },
    /// A row of the held table, as it was read.
    Held { attempts: u32 },
}

/// What is to happen with the order.
#[derive(Debug)]
pub enum Step {
    /// The plugins let it pass.
    Pass {
        /// At least one; they stand together in the log.
        records: Vec<Record>,
        patch: Option<String>,
    },
    Reject(Vec<Problem>),
    /// A plugin must be asked again, or failed.
    Hold {
        reason: String,
        detail: String,
        due_at: Timestamp,
        strikes: Strikes,
    },
    /// Its plugins take long: it is judged aside, and due at once.
    Aside,
    /// An order before it under the same key is held.
    Behind,
    /// Held too long, or plugins failed on it or the process died of it too often.
    Die {
        reason: &'static str,
        detail: String,
    },
    Outcome(Box<Record>),
    /// Nothing follows.
    Skip,
    Cancel,
    Revise(Bytes),
    Discard,
}

/// What became of a pass, slot by slot in its order.
#[derive(Debug)]
pub struct Decided {
    pub slots: Vec<Result<SlotDecided, Lost>>,
}

/// What became of a slot's part.
#[derive(Debug, Default)]
pub struct SlotDecided {
    /// Per item the number its first record got, if it made any.
    pub numbers: Vec<Option<i64>>,
    /// Keys whose held rows changed, and whether any is left.
    pub held_keys: Vec<(Arc<str>, Arc<str>, bool)>,
}

/// Commits what a pass decided.
#[derive(Debug)]
pub(super) struct Decide {
    pub(super) pass: Arc<Pass>,
    pub(super) rules: Arc<Rules>,
}

impl Operation for Decide {
    type Output = Decided;
    const WRITTEN: Option<Point> = Some(Point::DecideWritten);

    fn needs(&self) -> Needs<'_> {
        let mut needs = Needs { locks_orders: true, ..Needs::default() };
        needs.deciding = self.pass.slots.iter().map(|part| (part.slot, part.epoch)).collect();
        needs.deciding.sort_unstable();
        needs.orders.reserve(self.pass.slots.iter().map(|part| part.items.len()).sum());
        for item in self.pass.slots.iter().flat_map(|part| &part.items) {
            if matches!(item.step, Step::Outcome(_)) {
                continue;
            }
            needs.orders.push(item.order_id);
            if matches!(item.origin, Origin::Held { .. }) || matches!(item.step, Step::Cancel | Step::Revise(_)) {
                needs.held.push(item.order_id);
            }
            let is_of_dead = matches!(item.origin, Origin::Entry { kind: EntryKind::Redrive | EntryKind::Discard, .. });
            if is_of_dead || matches!(item.step, Step::Cancel) {
                needs.dead.push(item.order_id);
            }
        }
        for ids in [&mut needs.orders, &mut needs.held, &mut needs.dead] {
            ids.sort_unstable();
            ids.dedup();
        }
        needs
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> Decided {
        let slots = self.pass.slots.iter().map(|part| decide_slot(work, part, &self.rules)).collect();
        work.out.writes.begun = Some(&self.pass.still_open);
        work.out.writes.survived_alone = self.pass.ran_alone;
        Decided { slots }
    }

    fn complete(&self, decided: &mut Decided, are_held: &[bool]) {
        let keys = decided.slots.iter_mut().flatten().flat_map(|slot| &mut slot.held_keys);
        for ((.., is_held), found) in keys.zip(are_held) {
            *is_held = *found;
        }
    }
}

fn decide_slot<'a>(work: &mut Work<'a>, part: &'a SlotPass, rules: &Rules) -> Result<SlotDecided, Lost> {
    let index = work.deciding.iter().position(|cursor| cursor.slot == part.slot).ok_or(Lost)?;
    if work.deciding[index].at != part.from {
        return Err(Lost);
    }
    let cursor = work.deciding[index];
    let mut deciding = Deciding { work, rules, cursor, taken: None, touched: Vec::new() };
    let numbers = part.items.iter().map(|item| deciding.apply(item)).collect();
    let Deciding { mut cursor, touched, .. } = deciding;
    cursor.at = part.to;
    cursor.is_moved = true;
    cursor.suspicion = if part.clears_suspicion {
        SuspicionStep::Cleared
    } else if part.to != part.from {
        SuspicionStep::CulpritGone
    } else {
        SuspicionStep::Same
    };
    work.deciding[index] = cursor;
    let mut held_keys = Vec::with_capacity(touched.len());
    for (route, order_key) in touched {
        work.out.writes.touched.push((part.slot, Arc::clone(&route), Arc::clone(&order_key)));
        // Told by the store step.
        held_keys.push((route, order_key, false));
    }
    Ok(SlotDecided { numbers, held_keys })
}

/// A slot's part under way.
struct Deciding<'w, 'a> {
    work: &'w mut Work<'a>,
    rules: &'w Rules,
    cursor: DecideCursor,
    /// The held row that was just taken.
    taken: Option<HeldRow>,
    touched: Vec<(Arc<str>, Arc<str>)>,
}

impl<'a> Deciding<'_, 'a> {
    /// Applies one item and returns the number of its first record, if it made any.
    fn apply(&mut self, item: &'a Item) -> Option<i64> {
        if let Step::Outcome(record) = &item.step {
            return Some(append(&mut self.cursor, &mut self.work.out, std::slice::from_ref(&**record)).0);
        }
        let order = self.work.orders.get_mut(item.order_id)?;
        if matches!(item.origin, Origin::Entry { kind: EntryKind::Order, .. }) {
            // From now on, with the cursor behind its entry, the order is found by its key here.
            self.work.out.writes.order_keys.push(order.id);
            if let Step::Pass { records, patch } = &item.step {
                if !order.note_record(&mut self.work.out, &item.runs, patch.as_deref()) {
                    return None;
                }
                let (first, last) = append(&mut self.cursor, &mut self.work.out, records);
                order.note_numbers(first, last);
                return Some(first);
            }
        }
        // Out of the working set while other parts of it change.
        let mut order = order.clone();
        let number = self.apply_to(&mut order, item);
        if let Some(place) = self.work.orders.get_mut(item.order_id) {
            *place = order;
        }
        number
    }

    fn apply_to(&mut self, order: &mut OrderState, item: &'a Item) -> Option<i64> {
        self.taken = None;
        if !self.still_stands(order, item) {
            return None;
        }
        let mut happenings = Vec::with_capacity(item.runs.len() + 2);
        if matches!(item.origin, Origin::Entry { kind: EntryKind::Redrive, .. }) {
            happenings.push(Happening::Redriven { by: item.by.clone().unwrap_or_else(|| OPERATOR.to_owned()) });
        }
        happenings.extend(item.runs.iter().cloned());
        match &item.step {
            Step::Pass { records, patch } => Some(self.pass(order, records, patch.as_deref(), &happenings)),
            step => {
                self.stay(order, item, step, happenings);
                None
            }
        }
    }

    /// Whether the order is still as the pass read it; clears the row the item came from (PROTOCOL D2).
    fn still_stands(&mut self, order: &mut OrderState, item: &Item) -> bool {
        match item.origin {
            Origin::Held { attempts } => self.take_held_row(order, attempts),
            Origin::Entry { kind: EntryKind::Order, .. } => order.status == OrderStatus::Pending && !order.has_record,
            Origin::Entry { kind: EntryKind::Redrive, .. } => {
                let was_dead = self.take_dead(order.id);
                order.redrives += u32::from(was_dead);
                was_dead
            }
            Origin::Entry { kind: EntryKind::Discard, .. } => self.take_dead(order.id),
            Origin::Entry { kind: EntryKind::Cancel | EntryKind::Revise | EntryKind::Outcome, .. } => true,
        }
    }

    fn take_held_row(&mut self, order: &OrderState, attempts: u32) -> bool {
        self.touch(order);
        let place = self.work.held.get_mut(&order.id);
        self.taken = place.and_then(|place| place.row.take_if(|row| row.attempts == attempts));
        self.taken.is_some()
    }

    fn take_dead(&mut self, id: OrderId) -> bool {
        let place = self.work.dead.get_mut(&id);
        place.is_some_and(|place| !matches!(std::mem::take(&mut place.next), NextDead::None))
    }

    /// Lets a held order pass.
    fn pass(
        &mut self,
        order: &mut OrderState,
        records: &'a [Record],
        patch: Option<&'a str>,
        happenings: &[Happening],
    ) -> i64 {
        let (first, last) = append(&mut self.cursor, &mut self.work.out, records);
        let out = &mut self.work.out;
        order.enter(out, OrderStatus::Pending, false);
        order.has_record = true;
        order.note_numbers(first, last);
        order.patch_at = None;
        order.store_with(out, happenings, None, patch);
        first
    }

    /// Every step that makes no record.
    fn stay(&mut self, order: &mut OrderState, item: &'a Item, step: &'a Step, mut happenings: Vec<Happening>) {
        let now = self.work.out.now;
        match step {
            Step::Reject(problems) => {
                order.problems.clone_from(problems);
                happenings.push(Happening::Verdict { status: OrderStatus::Rejected.as_str() });
                self.end(order, OrderStatus::Rejected, &happenings);
            }
            Step::Hold { reason, detail, due_at, strikes } => {
                let (since, attempts) = first_hold(order, item);
                let held = Held {
                    reason: reason.clone(),
                    detail: Some(detail.clone()),
                    since: since.unwrap_or(now),
                    next_attempt_at: Some(*due_at),
                    attempts,
                };
                self.hold(order, held, Some(*due_at), *strikes, happenings);
            }
            Step::Aside => {
                let held = Held {
                    reason: BUSY.to_owned(),
                    detail: Some("the plugins of its route take long".to_owned()),
                    since: now,
                    next_attempt_at: Some(now),
                    attempts: 0,
                };
                self.hold(order, held, Some(now), Strikes::default(), happenings);
            }
            Step::Behind => {
                let held =
                    Held { reason: BEHIND.to_owned(), detail: None, since: now, next_attempt_at: None, attempts: 0 };
                self.hold(order, held, None, Strikes::default(), happenings);
            }
            Step::Die { reason, detail } => {
                let attempts = first_hold(order, item).1;
                let death = Death { kind: DeadKind::Order, reason, detail, attempts, plugins: &item.plugins };
                let dead = self.work.dead.entry(order.id).or_default();
                bury(&mut self.work.out, dead, order, &death, happenings);
            }
            Step::Cancel if order.is_final => order.note(&mut self.work.out, &[Happening::Cancelled { effect: false }]),
            Step::Cancel => {
                if let Some(place) = self.work.held.get_mut(&order.id) {
                    place.row = None;
                }
                self.take_dead(order.id);
                self.touch(order);
                happenings.push(Happening::Cancelled { effect: true });
                self.end(order, OrderStatus::Cancelled, &happenings);
            }
            Step::Discard => {
                happenings.push(Happening::Discarded { by: item.by.clone().unwrap_or_else(|| OPERATOR.to_owned()) });
                self.end(order, OrderStatus::Cancelled, &happenings);
            }
            Step::Revise(body) => self.revise(order, body),
            // Handled before the order was looked at, or by `pass`.
            Step::Pass { .. } | Step::Outcome(_) | Step::Skip => {}
        }
    }

    fn hold(
        &mut self,
        order: &mut OrderState,
        held: Held,
        due_at: Option<Timestamp>,
        strikes: Strikes,
        mut happenings: Vec<Happening>,
    ) {
        // One that is held again keeps its place, the one thing about its row that stays.
        let place = match self.taken.take() {
            Some(row) => row.place,
            None => {
                self.cursor.last_place += 1;
                self.cursor.last_place
            }
        };
        let row = HeldRow { place, since: held.since, attempts: held.attempts, due_at, strikes };
        let stands: &mut HeldPlace = self.work.held.entry(order.id).or_default();
        stands.row = Some(row);
        stands.is_changed = true;
        happenings.push(Happening::Held {
            reason: held.reason.clone(),
            detail: held.detail.clone(),
            attempts: held.attempts,
        });
        self.touch(order);
        let out = &mut self.work.out;
        order.enter(out, OrderStatus::Held, false);
        order.held = Some(held);
        order.store(out, &happenings);
    }

    fn revise(&mut self, order: &mut OrderState, body: &'a Bytes) {
        let out = &mut self.work.out;
        if order.has_record || !matches!(order.status, OrderStatus::Pending | OrderStatus::Held) {
            return order.note(out, &[Happening::Revised { effect: false }]);
        }
        if order.held.as_ref().is_some_and(|held| held.reason != BEHIND && held.reason != DEAD)
            && let Some(place) = self.work.held.get_mut(&order.id)
            && let Some(row) = &mut place.row
        {
            // Its chain starts anew, at its place; what plugins failed on was another text.
            row.due_at = Some(out.now);
            row.strikes.faults = 0;
            place.is_changed = true;
        }
        order.store_with(out, &[Happening::Revised { effect: true }], Some(body), None);
    }

    /// Ends the order; services that may know of it hear of that (PROTOCOL D9).
    fn end(&mut self, order: &mut OrderState, status: OrderStatus, happenings: &[Happening]) {
        let out = &mut self.work.out;
        order.enter(out, status, true);
        order.store(out, happenings);
        emit_outcome(out, order, self.rules);
    }

    fn touch(&mut self, order: &OrderState) {
        let key = (Arc::clone(&order.route), Arc::clone(&order.order_key));
        if !self.touched.contains(&key) {
            self.touched.push(key);
        }
    }
}

/// Appends records to the log of the slot, without a gap; returns the numbers of the first and the last.
fn append<'a>(cursor: &mut DecideCursor, out: &mut Out<'a>, records: &'a [Record]) -> (i64, i64) {
    let first = cursor.last_record + 1;
    for record in records {
        cursor.last_record += 1;
        out.writes.records.push(RecordRow { slot: cursor.slot, number: cursor.last_record, record });
    }
    (first, cursor.last_record)
}

/// Since when the order is held for a reason of its own, and how often the chain ran, this run included.
fn first_hold(order: &OrderState, item: &Item) -> (Option<Timestamp>, u32) {
    let own = order.held.as_ref().filter(|held| ![BEHIND, BUSY, DEAD].contains(&held.reason.as_str()));
    match item.origin {
        Origin::Held { attempts } => (own.map(|held| held.since), attempts + 1),
        Origin::Entry { .. } => (None, 1),
    }
}

/// Writes the outcome entry of an order that has just become final.
pub(super) fn emit_outcome(out: &mut Out<'_>, order: &OrderState, rules: &Rules) {
    if !order.has_record || !rules.get(&order.route).is_some_and(|route| route.has_outcomes) {
        return;
    }
    let payload = json(&serde_json::json!({ "status": order.status.as_str(), "problems": order.problems }));
    out.append(order.slot, EntryKind::Outcome, order.id, Some(payload.into()));
}
