//! The transactions of deciding: entries and held orders become records, versions and places in the held table.
//!
//! One transaction per pass. Per slot it checks the epoch and moves the decide cursor by compare-and-set (PROTOCOL O2,
//! D2); a slot where that does not match loses its part of the pass and nothing else does.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::params;

use super::Lost;
use super::accept::{append, note};
use super::order_row::OrderState;
use super::slots::Strikes;
use super::values::json;
use super::writer::Tx;
use crate::clock::Timestamp;
use crate::entry::EntryKind;
use crate::order::timeline::Happening;
use crate::order::{Held, OrderId, OrderStatus, Problem, Slot};
use crate::record::Record;
use crate::route::Rules;

/// The reason of an order that stands behind another of its key.
pub const BEHIND: &str = "behind";
/// The reason of an order that is judged aside, since the plugins of its route take long.
pub const BUSY: &str = "busy";
/// The reason of a dead order.
pub const DEAD: &str = "dead";

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
    pub from: i64,
    /// The last entry carried; `from` if only held orders were looked at.
    pub to: i64,
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
}

/// Where an item came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A row of the outbox, with its number.
    Entry { kind: EntryKind, number: i64 },
    /// A row of the held table, as it was read.
    Held { attempts: u32 },
}

/// What is to happen with the order.
#[derive(Debug)]
pub enum Step {
    /// The plugins let it pass.
    Pass {
        record: Box<Record>,
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
    /// Per item the number its record got, if it made one.
    pub numbers: Vec<Option<i64>>,
    /// Keys whose held rows changed, and whether any is left.
    pub held_keys: Vec<(Arc<str>, Arc<str>, bool)>,
}

pub(super) fn decide(tx: &mut Tx<'_>, pass: &Pass, rules: &Rules) -> rusqlite::Result<Decided> {
    let slots = pass.slots.iter().map(|part| decide_slot(tx, part, rules)).collect::<rusqlite::Result<_>>()?;
    tx.execute("UPDATE begun SET batch = ?1, is_open = (?1 <> '')", [&pass.still_open])?;
    if pass.ran_alone {
        tx.execute("UPDATE suspects SET alone = NULL", [])?;
    }
    Ok(Decided { slots })
}

fn decide_slot(tx: &mut Tx<'_>, part: &SlotPass, rules: &Rules) -> rusqlite::Result<Result<SlotDecided, Lost>> {
    let stored = tx.query_one(
        "SELECT epoch, number, last_record FROM slots JOIN decide_cursors USING (slot) WHERE slot = ?1",
        [part.slot],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
    )?;
    let Some((epoch, number, last_record)) = stored else { return Ok(Err(Lost)) };
    if (epoch, number) != (part.epoch, part.from) {
        return Ok(Err(Lost));
    }
    let mut deciding = Deciding { tx, rules, slot: part.slot, last_record, place: None, touched: Vec::new() };
    let numbers = part.items.iter().map(|item| deciding.apply(item)).collect::<rusqlite::Result<Vec<_>>>()?;
    let Deciding { last_record, touched, .. } = deciding;
    let mut held_keys = Vec::with_capacity(touched.len());
    for (route, order_key) in touched {
        let is_held = head_is_due(tx, part.slot, &route, &order_key)?;
        held_keys.push((route, order_key, is_held));
    }
    tx.execute(
        "UPDATE decide_cursors SET number = ?2, last_record = ?3 WHERE slot = ?1",
        params![part.slot, part.to, last_record],
    )?;
    if part.clears_suspicion {
        tx.execute("DELETE FROM suspects WHERE slot = ?1", [part.slot])?;
    } else if part.to != part.from {
        // The culprit was the next entry, or is a held order with a count of its own.
        tx.execute("UPDATE suspects SET culprit = NULL WHERE slot = ?1 AND culprit IS NOT NULL", [part.slot])?;
    }
    Ok(Ok(SlotDecided { numbers, held_keys }))
}

/// Makes sure that the first held order of a key is looked at some time; returns whether the key has any.
///
/// Those behind have no time of their own: whoever becomes first, by whatever happened, is due at once.
fn head_is_due(tx: &mut Tx<'_>, slot: Slot, route: &str, order_key: &str) -> rusqlite::Result<bool> {
    let head = tx.query_one(
        "SELECT order_id, due_at IS NULL FROM held WHERE slot = ?1 AND route = ?2 AND order_key = ?3
         ORDER BY place LIMIT 1",
        params![slot, route, order_key],
        |row| Ok((row.get::<_, OrderId>(0)?, row.get::<_, bool>(1)?)),
    )?;
    let Some((id, is_timeless)) = head else { return Ok(false) };
    if is_timeless {
        tx.execute("UPDATE held SET due_at = ?2 WHERE order_id = ?1", params![id, tx.now])?;
    }
    Ok(true)
}

/// Makes orders due that wait after a fault of a plugin: another version judges them now.
pub(super) fn retry_faults(tx: &mut Tx<'_>) -> rusqlite::Result<usize> {
    tx.execute(
        "UPDATE held SET due_at = ?1 WHERE due_at > ?1 AND order_id IN
             (SELECT id FROM orders WHERE status = 'HELD' AND json_extract(held, '$.reason') = 'fault')",
        params![tx.now],
    )
}

struct Deciding<'t, 'c> {
    tx: &'t mut Tx<'c>,
    rules: &'t Rules,
    slot: Slot,
    last_record: i64,
    /// Where the held order stood whose row was just taken.
    place: Option<i64>,
    touched: Vec<(Arc<str>, Arc<str>)>,
}

impl Deciding<'_, '_> {
    /// Applies one item and returns the number of its record, if it made one.
    fn apply(&mut self, item: &Item) -> rusqlite::Result<Option<i64>> {
        if let Step::Outcome(record) = &item.step {
            return self.append_record(record).map(Some);
        }
        if matches!(item.origin, Origin::Entry { kind: EntryKind::Order, .. }) {
            self.note_key(item.order_id)?;
        }
        if let (Step::Pass { record, patch }, Origin::Entry { kind: EntryKind::Order, .. }) = (&item.step, item.origin)
        {
            let is_pending = OrderState::note_record(self.tx, item.order_id, &item.runs, patch.as_deref())?;
            return if is_pending { self.append_record(record).map(Some) } else { Ok(None) };
        }
        let Some(mut order) = OrderState::find(self.tx, item.order_id)? else { return Ok(None) };
        if !self.still_stands(&order, item)? {
            return Ok(None);
        }
        let mut happenings = Vec::with_capacity(item.runs.len() + 2);
        if matches!(item.origin, Origin::Entry { kind: EntryKind::Redrive, .. }) {
            happenings.push(Happening::Redriven { by: "operator" });
        }
        happenings.extend(item.runs.iter().cloned());
        match &item.step {
            Step::Pass { record, patch } => self.pass(&mut order, record, patch.as_deref(), &happenings).map(Some),
            step => self.stay(&mut order, item, step, happenings).map(|()| None),
        }
    }

    /// From now on, with the cursor behind its entry, the order is found by its key here.
    fn note_key(&mut self, id: OrderId) -> rusqlite::Result<()> {
        self.tx.execute(
            "INSERT INTO order_keys (order_key, route, order_id) SELECT order_key, route, id FROM orders WHERE id = ?1
             ON CONFLICT DO NOTHING",
            [id],
        )?;
        Ok(())
    }

    /// Whether the order is still as the pass read it; clears the row the item came from (PROTOCOL D2).
    fn still_stands(&mut self, order: &OrderState, item: &Item) -> rusqlite::Result<bool> {
        match item.origin {
            Origin::Held { attempts } => self.take_held_row(order, attempts),
            Origin::Entry { kind: EntryKind::Order, .. } => {
                Ok(order.status == OrderStatus::Pending && !order.has_record)
            }
            Origin::Entry { kind: EntryKind::Redrive, .. } => {
                let is_dead = self.tx.execute("DELETE FROM dead WHERE order_id = ?1", [order.id])? == 1;
                if is_dead {
                    self.tx.execute("UPDATE orders SET redrives = redrives + 1 WHERE id = ?1", [order.id])?;
                }
                Ok(is_dead)
            }
            Origin::Entry { kind: EntryKind::Discard, .. } => {
                Ok(self.tx.execute("DELETE FROM dead WHERE order_id = ?1", [order.id])? == 1)
            }
            Origin::Entry { kind: EntryKind::Cancel | EntryKind::Revise | EntryKind::Outcome, .. } => Ok(true),
        }
    }

    fn take_held_row(&mut self, order: &OrderState, attempts: u32) -> rusqlite::Result<bool> {
        self.touch(order);
        self.place = self.tx.query_one(
            "DELETE FROM held WHERE order_id = ?1 AND attempts = ?2 RETURNING place",
            params![order.id, attempts],
            |row| row.get(0),
        )?;
        Ok(self.place.is_some())
    }

    /// Lets a held order pass.
    fn pass(
        &mut self,
        order: &mut OrderState,
        record: &Record,
        patch: Option<&str>,
        happenings: &[Happening],
    ) -> rusqlite::Result<i64> {
        let number = self.append_record(record)?;
        order.enter(self.tx, OrderStatus::Pending, false);
        order.has_record = true;
        order.patch_at = None;
        order.store_with(self.tx, happenings, None, patch)?;
        Ok(number)
    }

    /// Every step that makes no record.
    fn stay(
        &mut self,
        order: &mut OrderState,
        item: &Item,
        step: &Step,
        mut happenings: Vec<Happening>,
    ) -> rusqlite::Result<()> {
        match step {
            Step::Reject(problems) => {
                order.problems.clone_from(problems);
                happenings.push(Happening::Verdict { status: OrderStatus::Rejected.as_str() });
                self.end(order, OrderStatus::Rejected, &happenings)
            }
            Step::Hold { reason, detail, due_at, strikes } => {
                let first = first_hold(order, item);
                let held = Held {
                    reason: reason.clone(),
                    detail: Some(detail.clone()),
                    since: first.0.unwrap_or(self.tx.now),
                    next_attempt_at: Some(*due_at),
                    attempts: first.1,
                };
                self.hold(order, item, held, Some(*due_at), *strikes, happenings)
            }
            Step::Aside => {
                let held = Held {
                    reason: BUSY.to_owned(),
                    detail: Some("the plugins of its route take long".to_owned()),
                    since: self.tx.now,
                    next_attempt_at: Some(self.tx.now),
                    attempts: 0,
                };
                let due_at = held.next_attempt_at;
                self.hold(order, item, held, due_at, Strikes::default(), happenings)
            }
            Step::Behind => {
                let held = Held {
                    reason: BEHIND.to_owned(),
                    detail: None,
                    since: self.tx.now,
                    next_attempt_at: None,
                    attempts: 0,
                };
                self.hold(order, item, held, None, Strikes::default(), happenings)
            }
            Step::Die { reason, detail } => {
                let attempts = first_hold(order, item).1;
                bury(self.tx, order, reason, detail, attempts, &item.plugins, happenings)
            }
            Step::Cancel if order.is_final => note(self.tx, order, &[Happening::Cancelled { effect: false }]),
            Step::Cancel => {
                self.tx.execute("DELETE FROM held WHERE order_id = ?1", [order.id])?;
                self.tx.execute("DELETE FROM dead WHERE order_id = ?1", [order.id])?;
                self.touch(order);
                happenings.push(Happening::Cancelled { effect: true });
                self.end(order, OrderStatus::Cancelled, &happenings)
            }
            Step::Discard => {
                happenings.push(Happening::Discarded { by: "operator" });
                self.end(order, OrderStatus::Cancelled, &happenings)
            }
            Step::Revise(body) => self.revise(order, body),
            // Handled before the order was looked at, or by `pass`.
            Step::Pass { .. } | Step::Outcome(_) | Step::Skip => Ok(()),
        }
    }

    fn hold(
        &mut self,
        order: &mut OrderState,
        item: &Item,
        held: Held,
        due_at: Option<Timestamp>,
        strikes: Strikes,
        mut happenings: Vec<Happening>,
    ) -> rusqlite::Result<()> {
        let place = match item.origin {
            Origin::Entry { number, .. } => number,
            // Its row was just taken; the place is the one thing about it that stays.
            Origin::Held { .. } => self.place.take().unwrap_or(order.body_at),
        };
        self.tx.execute(
            "INSERT INTO held (order_id, slot, route, order_key, place, since, attempts, due_at, deaths,
                               faults)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                order.id,
                self.slot,
                order.route,
                order.order_key,
                place,
                held.since,
                held.attempts,
                due_at,
                strikes.deaths,
                strikes.faults,
            ],
        )?;
        happenings.push(Happening::Held {
            reason: held.reason.clone(),
            detail: held.detail.clone(),
            attempts: held.attempts,
        });
        self.touch(order);
        order.enter(self.tx, OrderStatus::Held, false);
        order.held = Some(held);
        order.store(self.tx, &happenings)
    }

    fn revise(&mut self, order: &mut OrderState, body: &Bytes) -> rusqlite::Result<()> {
        if order.has_record || !matches!(order.status, OrderStatus::Pending | OrderStatus::Held) {
            return note(self.tx, order, &[Happening::Revised { effect: false }]);
        }
        if order.held.as_ref().is_some_and(|held| held.reason != BEHIND && held.reason != DEAD) {
            // Its chain starts anew, at its place; what plugins failed on was another text.
            let anew = "UPDATE held SET due_at = ?2, faults = 0 WHERE order_id = ?1";
            self.tx.execute(anew, params![order.id, self.tx.now])?;
        }
        order.store_with(self.tx, &[Happening::Revised { effect: true }], Some(body), None)
    }

    /// Ends the order; services that may know of it hear of that (PROTOCOL D9).
    fn end(&mut self, order: &mut OrderState, status: OrderStatus, happenings: &[Happening]) -> rusqlite::Result<()> {
        order.enter(self.tx, status, true);
        order.store(self.tx, happenings)?;
        emit_outcome(self.tx, order, self.rules)
    }

    fn append_record(&mut self, record: &Record) -> rusqlite::Result<i64> {
        self.last_record += 1;
        let headers: Vec<(&str, String)> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned()))
            .collect();
        self.tx.execute(
            "INSERT INTO records (slot, number, order_id, is_outcome, topic, record_key, headers, value, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                self.slot,
                self.last_record,
                record.order_id,
                record.is_outcome,
                record.topic,
                record.key.as_ref(),
                json(&headers),
                record.value.as_ref(),
                record.timestamp,
            ],
        )?;
        Ok(self.last_record)
    }

    fn touch(&mut self, order: &OrderState) {
        let key = (Arc::clone(&order.route), Arc::clone(&order.order_key));
        if !self.touched.contains(&key) {
            self.touched.push(key);
        }
    }
}

/// Since when the order is held for a reason of its own, and how often the chain ran, this run included.
fn first_hold(order: &OrderState, item: &Item) -> (Option<Timestamp>, u32) {
    let own = order.held.as_ref().filter(|held| ![BEHIND, BUSY, DEAD].contains(&held.reason.as_str()));
    match item.origin {
        Origin::Held { attempts } => (own.map(|held| held.since), attempts + 1),
        Origin::Entry { .. } => (None, 1),
    }
}

/// Makes an order a dead letter: HELD until the operator acts.
pub(super) fn bury(
    tx: &mut Tx<'_>,
    order: &mut OrderState,
    reason: &str,
    detail: &str,
    attempts: u32,
    plugins: &str,
    mut happenings: Vec<Happening>,
) -> rusqlite::Result<()> {
    let kind = if order.has_record { "record" } else { "order" };
    tx.execute(
        "INSERT INTO dead (kind, order_id, reason, detail, since, attempts, plugins) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![kind, order.id, reason, detail, tx.now, attempts, plugins],
    )?;
    order.enter(tx, OrderStatus::Held, false);
    // Kafka has no record of it, whatever the log holds: nobody needs to hear of its end.
    order.has_record = false;
    order.held = Some(Held {
        reason: DEAD.to_owned(),
        detail: Some(detail.to_owned()),
        since: tx.now,
        next_attempt_at: None,
        attempts,
    });
    happenings.push(Happening::Held { reason: DEAD.to_owned(), detail: Some(detail.to_owned()), attempts });
    order.store(tx, &happenings)
}

/// Writes the outcome entry of an order that has just become final.
pub(super) fn emit_outcome(tx: &mut Tx<'_>, order: &OrderState, rules: &Rules) -> rusqlite::Result<()> {
    if !order.has_record || !rules.get(&order.route).is_some_and(|route| route.has_outcomes) {
        return Ok(());
    }
    let payload = json(&serde_json::json!({ "status": order.status.as_str(), "problems": order.problems }));
    let number = tx.next_sequence();
    append(tx, number, order.slot, EntryKind::Outcome, order.id, Some(payload.as_bytes()))?;
    tx.note_entry(number, None);
    Ok(())
}
