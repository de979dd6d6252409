//! Dead letters: how an order becomes one, and what the operator makes of it.

use std::sync::Arc;

use super::needs::{More, Needs, Operation};
use super::replies::{TakeReplies, TakenReplies};
use super::state::OrderState;
use super::work::{DeadPlace, DeadRow, EditedLetter, Letter, NextDead, Out, Work};
use crate::crash::Point;
use crate::dead::{DeadEdit, DeadKind};
use crate::entry::EntryKind;
use crate::order::timeline::Happening;
use crate::order::{Held, OrderId, OrderStatus};
use crate::reply::Reply;
use crate::route::Rules;

/// The reason of a dead order.
pub const DEAD: &str = "dead";

/// What an act on a dead letter came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadResult {
    Accepted,
    NotDead,
    Unknown,
    /// It is a reply where an order was expected, or the other way round.
    WrongKind,
    /// An edit would change the order key.
    OrderKeyChanged,
    /// An edit would change an order of which services have records already (PROTOCOL D8).
    HasRecord,
}

/// Why an order is a dead letter.
pub(super) struct Death<'d> {
    pub(super) kind: DeadKind,
    pub(super) reason: &'d str,
    pub(super) detail: &'d str,
    pub(super) attempts: u32,
    /// `name@digest` of the plugins that judged it, by comma.
    pub(super) plugins: &'d str,
}

/// Makes an order a dead letter: HELD until the operator acts.
pub(super) fn bury(
    out: &mut Out<'_>,
    dead: &mut DeadPlace,
    order: &mut OrderState,
    death: &Death<'_>,
    mut happenings: Vec<Happening>,
) {
    let Death { kind, reason, detail, attempts, plugins } = death;
    dead.next = NextDead::New(DeadRow {
        kind: *kind,
        reason: (*reason).to_owned(),
        detail: (*detail).to_owned(),
        attempts: *attempts,
        plugins: (*plugins).to_owned(),
    });
    order.enter(out, OrderStatus::Held, false);
    // Kafka has no record of it, whatever the log holds: nobody needs to hear of its end. But of several it may have others
    // than the one it refused; then the order stays what services know, and they hear.
    order.has_record &= order.records.is_some();
    order.held = Some(Held {
        reason: DEAD.to_owned(),
        detail: Some((*detail).to_owned()),
        since: out.now,
        next_attempt_at: None,
        attempts: *attempts,
    });
    happenings.push(Happening::Held {
        reason: DEAD.to_owned(),
        detail: Some((*detail).to_owned()),
        attempts: *attempts,
    });
    order.store(out, &happenings);
}

/// Promises to put a dead order back, at the end of its key. The slot's owner decides whether it is still dead.
#[derive(Debug)]
pub(super) struct Redrive {
    pub(super) letter: i64,
    pub(super) by: String,
}

/// Gives a dead letter up: at once for a reply, by an entry for an order.
#[derive(Debug)]
pub(super) struct Discard {
    pub(super) letter: i64,
    pub(super) by: String,
}

/// Replaces what died: by a revision for an order, at once for a reply. It stays dead.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) letter: i64,
    pub(super) edit: DeadEdit,
    pub(super) by: String,
}

/// Takes a dead reply in after all.
#[derive(Debug)]
pub(super) struct RedriveReply {
    letter: i64,
    by: String,
    order_id: OrderId,
    take: TakeReplies,
}

impl RedriveReply {
    pub(super) fn new(letter: i64, reply: Reply, by: String, rules: Arc<Rules>) -> Self {
        let order_id = reply.order_id;
        let taken = TakenReplies { replies: vec![Ok(reply)], positions: Vec::new(), incarnation: "".into() };
        Self { letter, by, order_id, take: TakeReplies::new(Arc::new(taken), rules) }
    }
}

impl Operation for Redrive {
    type Output = DeadResult;
    const WRITTEN: Option<Point> = Some(Point::RedriveWritten);

    fn needs(&self) -> Needs<'_> {
        Needs { letter: Some(self.letter), ..Needs::default() }
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> DeadResult {
        match work.letter {
            Letter::Unknown => DeadResult::Unknown,
            Letter::Gone => DeadResult::NotDead,
            Letter::Reply => DeadResult::WrongKind,
            Letter::Of(id) => promise(work, id, EntryKind::Redrive, &self.by),
        }
    }
}

impl Operation for Discard {
    type Output = DeadResult;
    const WRITTEN: Option<Point> = Some(Point::RedriveWritten);

    fn needs(&self) -> Needs<'_> {
        Needs { letter: Some(self.letter), ..Needs::default() }
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> DeadResult {
        match work.letter {
            Letter::Unknown => DeadResult::Unknown,
            Letter::Gone => DeadResult::NotDead,
            Letter::Reply => {
                work.out.writes.letters_out.push(self.letter);
                DeadResult::Accepted
            }
            Letter::Of(id) => promise(work, id, EntryKind::Discard, &self.by),
        }
    }
}

impl Operation for Edit {
    type Output = DeadResult;

    fn needs(&self) -> Needs<'_> {
        Needs { letter: Some(self.letter), locks_orders: true, ..Needs::default() }
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> DeadResult {
        match (work.letter, &self.edit) {
            (Letter::Unknown, _) => DeadResult::Unknown,
            (Letter::Gone, _) => DeadResult::NotDead,
            (Letter::Reply, DeadEdit::Reply { headers, payload }) => {
                work.out.writes.letters_edited.push(EditedLetter { number: self.letter, headers, payload });
                DeadResult::Accepted
            }
            (Letter::Of(id), DeadEdit::Order { body, order_key }) => {
                let Some(order) = work.orders.get(id) else { return DeadResult::Unknown };
                if order.order_key != *order_key {
                    return DeadResult::OrderKeyChanged;
                }
                if order.status != OrderStatus::Held {
                    return DeadResult::NotDead;
                }
                if order.has_record {
                    return DeadResult::HasRecord;
                }
                order.note(&mut work.out, &[Happening::Edited { by: self.by.clone() }]);
                work.out.append(order.slot, EntryKind::Revise, id, Some(body.clone()));
                DeadResult::Accepted
            }
            (Letter::Reply, DeadEdit::Order { .. }) | (Letter::Of(_), DeadEdit::Reply { .. }) => DeadResult::WrongKind,
        }
    }
}

impl Operation for RedriveReply {
    type Output = DeadResult;

    fn needs(&self) -> Needs<'_> {
        Needs { letter: Some(self.letter), ..self.take.needs() }
    }

    fn more(&self, work: &Work<'_>) -> More<'_> {
        self.take.more(work)
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> DeadResult {
        match work.letter {
            Letter::Unknown => DeadResult::Unknown,
            Letter::Gone => DeadResult::NotDead,
            Letter::Of(_) => DeadResult::WrongKind,
            Letter::Reply => {
                if let Some(order) = work.orders.get(self.order_id) {
                    order.note(&mut work.out, &[Happening::Redriven { by: self.by.clone() }]);
                }
                // What it amounts to is what it would have amounted to now.
                self.take.run(work);
                work.out.writes.letters_out.push(self.letter);
                DeadResult::Accepted
            }
        }
    }
}

/// The entry carries who wants it.
fn promise(work: &mut Work<'_>, id: OrderId, kind: EntryKind, by: &str) -> DeadResult {
    let Some(order) = work.orders.get(id) else { return DeadResult::Unknown };
    work.out.append(order.slot, kind, id, Some(by.to_owned().into()));
    DeadResult::Accepted
}
