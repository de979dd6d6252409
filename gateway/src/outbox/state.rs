//! The present state of one order, and the only ways in which it changes: each together with its row of history.
//!
//! Every change of what `GET` shows goes through [`OrderState::store`], which raises the version by one (PROTOCOL R6).

use std::sync::Arc;

use super::json::json;
use super::wake::Changed;
use super::work::{HistoryRow, Out, Shown};
use crate::clock::Timestamp;
use crate::order::timeline::{Happening, to_json};
use crate::order::{Held, OrderId, OrderStatus, Problem, Slot};

/// A row of `orders`.
#[derive(Debug, Clone)]
pub(super) struct OrderState {
    pub(super) id: OrderId,
    pub(super) route: Arc<str>,
    pub(super) order_key: Arc<str>,
    pub(super) slot: Slot,
    pub(super) status: OrderStatus,
    pub(super) is_final: bool,
    pub(super) version: i64,
    pub(super) accepted_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) has_record: bool,
    /// First and last number of its records in the log, where one decision made several; the last one decision, if more did.
    pub(super) records: Option<(i64, i64)>,
    pub(super) redrives: u32,
    pub(super) body_at: i64,
    pub(super) patch_at: Option<i64>,
    pub(super) problems: Vec<Problem>,
    pub(super) held: Option<Held>,
    pub(super) deadline_at: Option<Timestamp>,
    /// What of it the store step writes.
    pub(super) change: OrderChange,
}

/// How much of an order's row must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum OrderChange {
    #[default]
    None,
    /// `has_record` and `patch_at`: what becomes of most orders that are decided.
    Record,
    /// Every column that can change.
    Whole,
}

impl OrderState {
    /// Gives the order its next status and clears what belonged to the last one.
    pub(super) fn enter(&mut self, out: &mut Out<'_>, status: OrderStatus, is_final: bool) {
        out.notes.count(Some(self.status), Some(status));
        self.status = status;
        self.is_final = is_final;
        self.held = None;
        self.deadline_at = None;
    }

    /// Stores the state as the next version, with what happened.
    pub(super) fn store(&mut self, out: &mut Out<'_>, happenings: &[Happening]) {
        self.store_with(out, happenings, None, None);
    }

    /// As [`OrderState::store`], with a new body or the plugins' patch.
    pub(super) fn store_with<'a>(
        &mut self,
        out: &mut Out<'a>,
        happenings: &[Happening],
        body: Option<&'a [u8]>,
        patch: Option<&'a str>,
    ) {
        let sequence = out.next_sequence();
        self.version += 1;
        self.updated_at = out.now;
        if body.is_some() {
            self.body_at = sequence;
        }
        if patch.is_some() {
            self.patch_at = Some(sequence);
        }
        self.change = OrderChange::Whole;
        let shown = Shown {
            status: self.status,
            is_final: self.is_final,
            problems: self.problems_json(),
            held: self.held_json(),
            deadline_at: self.deadline_at,
        };
        out.writes.history.push(HistoryRow {
            order_id: self.id,
            sequence,
            version: self.version,
            shown: Some(shown),
            entries: to_json(happenings),
            body,
            patch,
        });
        out.notes.changed.push(Changed { order_id: self.id, sequence });
    }

    /// Notes that a pending order has a record in the log; what a client sees stays as it is. Returns whether it was
    /// pending and had none.
    pub(super) fn note_record<'a>(
        &mut self,
        out: &mut Out<'a>,
        happenings: &[Happening],
        patch: Option<&'a str>,
    ) -> bool {
        if self.status != OrderStatus::Pending || self.has_record {
            return false;
        }
        let sequence = self.note_with(out, happenings, patch);
        self.has_record = true;
        self.patch_at = patch.map(|_| sequence);
        self.change = self.change.max(OrderChange::Record);
        true
    }

    /// Notes where the records of a decision stand in the log.
    pub(super) fn note_numbers(&mut self, first: i64, last: i64) {
        // One alone is told by that; but not one that follows several.
        if first < last || self.records.is_some() {
            self.records = Some((first, last));
            self.change = OrderChange::Whole;
        }
    }

    /// Adds to the order's timeline what changes nothing a client sees.
    pub(super) fn note(&self, out: &mut Out<'_>, happenings: &[Happening]) {
        self.note_with(out, happenings, None);
    }

    fn note_with<'a>(&self, out: &mut Out<'a>, happenings: &[Happening], patch: Option<&'a str>) -> i64 {
        let sequence = out.next_sequence();
        out.writes.history.push(HistoryRow {
            order_id: self.id,
            sequence,
            version: self.version,
            shown: None,
            entries: to_json(happenings),
            body: None,
            patch,
        });
        sequence
    }

    /// The problems as their column has them.
    pub(super) fn problems_json(&self) -> Option<String> {
        (!self.problems.is_empty()).then(|| json(&self.problems))
    }

    /// Why it is held, as its column has it.
    pub(super) fn held_json(&self) -> Option<String> {
        self.held.as_ref().map(json)
    }
}
