//! The transactions of replies: inbox, verdict, late ones, expiry.
//!
//! A reply goes to the inbox once. The verdict is judged over what the inbox holds for the order, in the transaction
//! that changed it, so every order of arrival ends the same (PROTOCOL R1 to R5).

use std::borrow::Cow;
use std::sync::Arc;

use super::decide::emit_outcome;
use super::needs::{Due, More, Needs, Operation};
use super::state::OrderState;
use super::work::{InboxChange, InboxRow, ReplyFate, Work};
use crate::clock::Timestamp;
use crate::crash::Point;
use crate::order::timeline::Happening;
use crate::order::{OrderId, OrderStatus, Problem, Slot, Source};
use crate::reply::{PoisonReply, Position, Reply};
use crate::route::{ReplyRules, Rules, Verdict};

/// Replies read from Kafka, and up to where.
#[derive(Debug)]
pub struct TakenReplies {
    pub replies: Vec<Result<Reply, PoisonReply>>,
    pub positions: Vec<Position>,
    /// Tells brokers apart that count offsets from zero again: in `dev` one per start.
    pub incarnation: Arc<str>,
}

/// How many replies met which fate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fates {
    pub counted: u64,
    pub early: u64,
    pub late: u64,
    pub repeated: u64,
    pub unasked: u64,
    pub parked: u64,
    pub poison: u64,
}

/// Takes replies in.
#[derive(Debug)]
pub(super) struct TakeReplies {
    taken: Arc<TakenReplies>,
    rules: Arc<Rules>,
    /// By what each reply is told from others, in their order.
    dedups: Vec<String>,
}

impl TakeReplies {
    pub(super) fn new(taken: Arc<TakenReplies>, rules: Arc<Rules>) -> Self {
        let replies = taken.replies.iter();
        let dedups = replies
            .map(|reply| reply.as_ref().map_or_else(|_| String::new(), |reply| dedup(reply, &taken.incarnation)))
            .collect();
        Self { taken, rules, dedups }
    }

    /// The replies with their dedup texts.
    fn replies(&self) -> impl Iterator<Item = (&Reply, &str)> {
        let replies = self.taken.replies.iter().zip(&self.dedups);
        replies.filter_map(|(reply, dedup)| Some((reply.as_ref().ok()?, dedup.as_str())))
    }
}

impl Operation for TakeReplies {
    type Output = Fates;
    const WRITTEN: Option<Point> = Some(Point::RepliesWritten);

    fn needs(&self) -> Needs<'_> {
        let mut needs = Needs { locks_orders: true, ..Needs::default() };
        needs.replies = self.replies().map(|(reply, dedup)| (reply.order_id, dedup)).collect();
        needs.orders = self.replies().map(|(reply, _)| reply.order_id).collect();
        needs.orders.sort_unstable();
        needs.orders.dedup();
        needs
    }

    fn more(&self, work: &Work<'_>) -> More<'_> {
        let mut more = More::default();
        for (reply, _) in self.replies() {
            let Some(order) = work.orders.get(reply.order_id) else { continue };
            if order.is_final || order.status != OrderStatus::Published {
                continue;
            }
            let Some(asked) = asked_of(order, &self.rules).filter(|asked| asked.asks_for(&reply.kind)) else {
                continue;
            };
            more.inboxes.push(order.id);
            if closed_at(order, asked).is_some_and(|closed_at| work.out.now >= closed_at) {
                more.ends.push((&reply.place.topic, reply.place.partition));
            }
        }
        more.inboxes.sort_unstable();
        more.inboxes.dedup();
        more.ends.sort_unstable();
        more.ends.dedup();
        more
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> Fates {
        let mut fates = Fates::default();
        let mut touched: Vec<OrderId> = Vec::new();
        for (reply, dedup) in self.replies() {
            let counts = take_one(work, reply, dedup, &self.rules, &mut fates);
            if counts && !touched.contains(&reply.order_id) {
                touched.push(reply.order_id);
            }
        }
        for id in touched {
            judge(work, id, &self.rules);
        }
        for poison in self.taken.replies.iter().filter_map(|reply| reply.as_ref().err()) {
            fates.poison += 1;
            work.out.writes.poison.push(poison);
        }
        work.out.writes.positions = &self.taken.positions;
        fates
    }
}

/// By what a reply is told from others to its order.
fn dedup(reply: &Reply, incarnation: &str) -> String {
    let place = &reply.place;
    match &reply.event_id {
        Some(event_id) => format!("event\n{event_id}"),
        None => format!("place\n{incarnation}\n{}\n{}\n{}", place.topic, place.partition, place.offset),
    }
}

/// Puts a reply into the inbox; returns whether its order has to be judged.
fn take_one<'a>(work: &mut Work<'a>, reply: &'a Reply, dedup: &'a str, rules: &Rules, fates: &mut Fates) -> bool {
    if !work.known.insert((reply.order_id, dedup)) {
        fates.repeated += 1;
        return false;
    }
    let order = work.orders.get(reply.order_id);
    let fate = match (order, order.and_then(|order| asked_of(order, rules))) {
        (None, _) => ReplyFate::Parked,
        // Whatever it says: `published` stands before it in the timeline.
        (Some(order), _) if !order.is_final && order.status != OrderStatus::Published => ReplyFate::Early,
        (Some(_), None) => ReplyFate::Unasked,
        (Some(_), Some(asked)) if !asked.asks_for(&reply.kind) => ReplyFate::Unasked,
        (Some(order), _) if order.is_final => ReplyFate::Late,
        (Some(order), Some(asked)) if is_late(work, reply, order, asked) => ReplyFate::Late,
        (Some(_), Some(_)) => ReplyFate::Counted,
    };
    let count = match fate {
        ReplyFate::Parked => &mut fates.parked,
        ReplyFate::Early => &mut fates.early,
        ReplyFate::Counted | ReplyFate::Noted => &mut fates.counted,
        ReplyFate::Late => &mut fates.late,
        ReplyFate::Unasked => &mut fates.unasked,
    };
    *count += 1;
    // A route that asks for no replies gets none into a timeline that has no `published` yet.
    let is_shown = |order: &OrderState| order.is_final || order.status == OrderStatus::Published;
    if let Some(order) = order.filter(|order| matches!(fate, ReplyFate::Late | ReplyFate::Unasked) && is_shown(order)) {
        order.note(&mut work.out, &[shown(&reply.kind, reply.from.as_deref(), fate, reply.timestamp)]);
    }
    let row = InboxRow {
        dedup: Cow::Borrowed(dedup),
        kind: Cow::Borrowed(&reply.kind),
        source: reply.from.as_deref().map(Cow::Borrowed),
        sent_at: reply.timestamp,
        taken_at: work.out.now,
        fate,
        problems: Cow::Borrowed(&reply.problems),
        change: InboxChange::New(reply),
    };
    work.inboxes.entry(reply.order_id).or_default().push(row);
    fate == ReplyFate::Counted
}

fn asked_of<'r>(order: &OrderState, rules: &'r Rules) -> Option<&'r ReplyRules> {
    rules.get(&order.route).and_then(|route| route.replies.as_ref())
}

fn shown(kind: &str, from: Option<&str>, fate: ReplyFate, sent_at: Timestamp) -> Happening {
    let (reply_type, from) = (kind.to_owned(), from.map(str::to_owned));
    Happening::Reply { reply_type, from, fate: fate.as_str(), sent_at: sent_at.to_string() }
}

/// From when on the ends of the reply partitions are asked for on account of an order.
fn closed_at(order: &OrderState, asked: &ReplyRules) -> Option<Timestamp> {
    order.deadline_at.map(|deadline| deadline.after(asked.grace))
}

/// Late is what was sent after the deadline, or lies behind the end that was asked for after it (PROTOCOL R4).
fn is_late(work: &Work<'_>, reply: &Reply, order: &OrderState, asked: &ReplyRules) -> bool {
    let Some(closed_at) = closed_at(order, asked) else { return false };
    if order.deadline_at.is_some_and(|deadline| reply.timestamp > deadline) {
        return true;
    }
    if work.out.now < closed_at {
        return false;
    }
    let place = &reply.place;
    work.ends.iter().any(|end| {
        end.topic == place.topic
            && end.partition == place.partition
            && end.asked_at >= closed_at
            && end.end_offset <= place.offset
    })
}

/// Judges a published order by its inbox and stores what follows. Early replies are first sorted in.
pub(super) fn judge(work: &mut Work<'_>, id: OrderId, rules: &Rules) {
    let Some(order) = work.orders.get_mut(id) else { return };
    let Some(asked) = asked_of(order, rules) else { return };
    if order.is_final || order.status != OrderStatus::Published {
        return;
    }
    let inbox = work.inboxes.get_mut(&id).map(Vec::as_mut_slice).unwrap_or_default();
    inbox.sort_by_key(|reply| (reply.taken_at, reply.sent_at));
    let mut happenings = Vec::new();
    for reply in &mut *inbox {
        // Counted replies become noted once the timeline has them.
        if matches!(reply.fate, ReplyFate::Early | ReplyFate::Parked | ReplyFate::Counted) {
            let counts = asked.asks_for(&reply.kind);
            let fate = if counts { ReplyFate::Counted } else { ReplyFate::Unasked };
            happenings.push(shown(&reply.kind, reply.source.as_deref(), fate, reply.sent_at));
            reply.fate = if counts { ReplyFate::Noted } else { ReplyFate::Unasked };
            if let InboxChange::Same = reply.change {
                reply.change = InboxChange::Fate;
            }
        }
    }
    let noted = inbox.iter().filter(|reply| reply.fate == ReplyFate::Noted);
    let out = &mut work.out;
    match asked.judge(noted.clone().map(|reply| &*reply.kind)) {
        None if happenings.is_empty() => {}
        None => order.note(out, &happenings),
        Some(verdict) => {
            let status = match verdict {
                Verdict::Validated => OrderStatus::Validated,
                Verdict::Rejected => OrderStatus::Rejected,
            };
            if verdict == Verdict::Rejected {
                order.problems = refusals(noted, asked);
            }
            happenings.push(Happening::Verdict { status: status.as_str() });
            order.enter(out, status, true);
            order.store(out, &happenings);
            emit_outcome(out, order, rules);
        }
    }
}

/// What the refusing services found; a refusal without a word of explanation is one problem of its own.
fn refusals<'i>(replies: impl Iterator<Item = &'i InboxRow<'i>>, asked: &ReplyRules) -> Vec<Problem> {
    let refusing = replies.filter(|reply| asked.is_refusal(&reply.kind));
    refusing
        .flat_map(|reply| {
            if reply.problems.is_empty() {
                let from = reply.source.as_deref().unwrap_or("a service downstream");
                vec![Problem {
                    code: reply.kind.clone().into_owned(),
                    title: format!("Refused by {from}"),
                    detail: None,
                    pointer: None,
                    source: Source::Downstream,
                }]
            } else {
                reply.problems.to_vec()
            }
        })
        .collect()
}

/// Which orders are to expire: those whose deadline and grace had passed at `asked_at`.
#[derive(Debug, Clone)]
pub struct Expiring {
    /// By the database's clock, and before the ends were asked for.
    pub asked_at: Timestamp,
    pub topic: String,
    /// Where every partition of the topic ended then. They stand in the database too, for other nodes to see who is
    /// late; but there others may clear them away.
    pub ends: Vec<Position>,
    /// The slots that this node watches, with their epochs, by slot.
    pub slots: Vec<(Slot, i64)>,
    pub limit: usize,
}

/// Expires orders if every partition of their reply topic has been read up to its end as asked (PROTOCOL R5). Answers how
/// many, `None` if not all is read.
#[derive(Debug)]
pub(super) struct Expire {
    pub(super) expiring: Expiring,
    pub(super) rules: Arc<Rules>,
}

impl Operation for Expire {
    type Output = Option<usize>;

    fn needs(&self) -> Needs<'_> {
        let Expiring { asked_at, topic, ends, slots, limit } = &self.expiring;
        let of_topic = |replies: &&ReplyRules| replies.topic == *topic;
        let routes = self.rules.iter().filter_map(|(path, route)| {
            let replies = route.replies.as_ref().filter(of_topic)?;
            Some((Arc::clone(path), asked_at.before(replies.grace)))
        });
        let due = Due { ends, routes: routes.collect(), limit: *limit };
        Needs { due: Some(due), owning: slots.clone(), locks_orders: true, ..Needs::default() }
    }

    fn run<'a>(&'a self, work: &mut Work<'a>) -> Option<usize> {
        let due = work.due.take()?;
        let mut expired = 0;
        for id in due {
            let Some(order) = work.orders.get_mut(id).filter(|order| work.owned.contains(&order.slot)) else {
                continue;
            };
            // It may have been answered, or sent again, before its row was locked.
            let grace = asked_of(order, &self.rules).map(|asked| asked.grace).unwrap_or_default();
            let still_due = |deadline: &Timestamp| *deadline <= self.expiring.asked_at.before(grace);
            let Some(deadline) = order.deadline_at.filter(still_due) else { continue };
            let out = &mut work.out;
            order.enter(out, OrderStatus::Expired, true);
            order.store(out, &[Happening::Expired { deadline: deadline.to_string() }]);
            emit_outcome(out, order, &self.rules);
            expired += 1;
        }
        work.out.writes.ends_before = Some((&self.expiring.topic, self.expiring.asked_at));
        Some(expired)
    }
}
