//! The transactions of replies: inbox, verdict, late ones, expiry.
//!
//! A reply goes to the inbox once. The verdict is judged over what the inbox holds for the order, in the transaction
//! that changed it, so every order of arrival ends the same (PROTOCOL R1 to R5).

use std::sync::Arc;

use rusqlite::params;

use super::decide::emit_outcome;
use super::order_row::OrderState;
use super::values::{json, json_or_default};
use super::writer::Tx;
use crate::clock::Timestamp;
use crate::order::timeline::Happening;
use crate::order::{OrderId, OrderStatus, Problem, Source};
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

pub(super) fn take(tx: &mut Tx<'_>, taken: &TakenReplies, rules: &Rules) -> rusqlite::Result<Fates> {
    let mut fates = Fates::default();
    let mut touched: Vec<OrderId> = Vec::new();
    for reply in &taken.replies {
        match reply {
            Ok(reply) => {
                if take_one(tx, reply, &taken.incarnation, rules, &mut fates)? && !touched.contains(&reply.order_id) {
                    touched.push(reply.order_id);
                }
            }
            Err(poison) => {
                fates.poison += 1;
                bury_reply(tx, poison)?;
            }
        }
    }
    for id in touched {
        if let Some(mut order) = OrderState::find(tx, id)? {
            judge(tx, &mut order, rules)?;
        }
    }
    for position in &taken.positions {
        tx.execute(
            "INSERT INTO reply_positions (topic, partition, next_offset) VALUES (?1, ?2, ?3)
             ON CONFLICT (topic, partition) DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
            params![position.topic, position.partition, position.next_offset],
        )?;
    }
    Ok(fates)
}

/// Puts a reply into the inbox; returns whether its order has to be judged.
fn take_one(
    tx: &mut Tx<'_>,
    reply: &Reply,
    incarnation: &str,
    rules: &Rules,
    fates: &mut Fates,
) -> rusqlite::Result<bool> {
    let order = OrderState::find(tx, reply.order_id)?;
    let asked = order.as_ref().and_then(|order| rules.get(&order.route)).and_then(|route| route.replies.as_ref());
    let fate = match (&order, asked) {
        (None, _) => "parked",
        // Whatever it says: `published` stands before it in the timeline.
        (Some(order), _) if !order.is_final && order.status != OrderStatus::Published => "early",
        (Some(_), None) => "unasked",
        (Some(_), Some(asked)) if !asked.asks_for(&reply.kind) => "unasked",
        (Some(order), _) if order.is_final => "late",
        (Some(order), Some(asked)) if is_late(tx, reply, order, asked)? => "late",
        (Some(_), Some(_)) => "counted",
    };
    if !insert(tx, reply, incarnation, fate)? {
        fates.repeated += 1;
        return Ok(false);
    }
    let count = match fate {
        "parked" => &mut fates.parked,
        "early" => &mut fates.early,
        "counted" => &mut fates.counted,
        "late" => &mut fates.late,
        _ => &mut fates.unasked,
    };
    *count += 1;
    // A route that asks for no replies gets none into a timeline that has no `published` yet.
    let is_shown = |order: &OrderState| order.is_final || order.status == OrderStatus::Published;
    if let Some(order) = order.filter(|order| matches!(fate, "late" | "unasked") && is_shown(order)) {
        super::accept::note(tx, &order, &[shown(&reply.kind, reply.from.as_deref(), fate, reply.timestamp)])?;
    }
    Ok(fate == "counted")
}

fn shown(kind: &str, from: Option<&str>, fate: &'static str, sent_at: Timestamp) -> Happening {
    Happening::Reply { reply_type: kind.to_owned(), from: from.map(str::to_owned), fate, sent_at: sent_at.to_string() }
}

/// Stores a reply once; returns whether it is new.
fn insert(tx: &mut Tx<'_>, reply: &Reply, incarnation: &str, fate: &str) -> rusqlite::Result<bool> {
    let place = &reply.place;
    let dedup = match &reply.event_id {
        Some(event_id) => format!("event\n{event_id}"),
        None => format!("place\n{incarnation}\n{}\n{}\n{}", place.topic, place.partition, place.offset),
    };
    let problems = (!reply.problems.is_empty()).then(|| json(&reply.problems));
    let new = tx.execute(
        "INSERT INTO inbox (order_id, dedup, kind, source, topic, partition, record_offset, record_at, taken_at, fate, problems)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (order_id, dedup) DO NOTHING",
        params![
            reply.order_id,
            dedup,
            reply.kind,
            reply.from,
            place.topic,
            place.partition,
            place.offset,
            reply.timestamp,
            tx.now,
            fate,
            problems,
        ],
    )?;
    Ok(new == 1)
}

/// Late is what was sent after the deadline, or lies behind the end that was asked for after it (PROTOCOL R4).
fn is_late(tx: &mut Tx<'_>, reply: &Reply, order: &OrderState, asked: &ReplyRules) -> rusqlite::Result<bool> {
    let Some(deadline) = order.deadline_at else { return Ok(false) };
    if reply.timestamp > deadline {
        return Ok(true);
    }
    let closed_at = deadline.after(asked.grace);
    if tx.now < closed_at {
        return Ok(false);
    }
    let behind = tx.query_one(
        "SELECT 1 FROM reply_ends WHERE topic = ?1 AND partition = ?2 AND asked_at >= ?3 AND end_offset <= ?4 LIMIT 1",
        params![reply.place.topic, reply.place.partition, closed_at, reply.place.offset],
        |_| Ok(()),
    )?;
    Ok(behind.is_some())
}

/// A reply as the inbox has it.
struct InInbox {
    dedup: String,
    kind: String,
    source: Option<String>,
    sent_at: Timestamp,
    fate: String,
    problems: Vec<Problem>,
}

/// Judges a published order by its inbox and stores what follows. Early replies are first sorted in.
pub(super) fn judge(tx: &mut Tx<'_>, order: &mut OrderState, rules: &Rules) -> rusqlite::Result<()> {
    let Some(asked) = rules.get(&order.route).and_then(|route| route.replies.as_ref()) else { return Ok(()) };
    if order.is_final || order.status != OrderStatus::Published {
        return Ok(());
    }
    let replies = tx.query_all(
        "SELECT dedup, kind, source, record_at, fate, problems FROM inbox
         WHERE order_id = ?1 AND fate IN ('early', 'parked', 'counted', 'noted')
         ORDER BY taken_at, record_at",
        [order.id],
        |row| {
            Ok(InInbox {
                dedup: row.get(0)?,
                kind: row.get(1)?,
                source: row.get(2)?,
                sent_at: row.get(3)?,
                fate: row.get(4)?,
                problems: json_or_default(row, 5)?,
            })
        },
    )?;
    // Counted replies become noted once the timeline has them.
    let mut happenings = Vec::new();
    for reply in replies.iter().filter(|reply| reply.fate != "noted") {
        let counts = asked.asks_for(&reply.kind);
        let fate = if counts { "counted" } else { "unasked" };
        happenings.push(shown(&reply.kind, reply.source.as_deref(), fate, reply.sent_at));
        tx.execute(
            "UPDATE inbox SET fate = ?3 WHERE order_id = ?1 AND dedup = ?2",
            params![order.id, reply.dedup, if counts { "noted" } else { "unasked" }],
        )?;
    }
    match asked.judge(replies.iter().map(|reply| reply.kind.as_str())) {
        None if happenings.is_empty() => Ok(()),
        None => super::accept::note(tx, order, &happenings),
        Some(verdict) => {
            let status = match verdict {
                Verdict::Validated => OrderStatus::Validated,
                Verdict::Rejected => OrderStatus::Rejected,
            };
            if verdict == Verdict::Rejected {
                order.problems = refusals(&replies, asked);
            }
            happenings.push(Happening::Verdict { status: status.as_str() });
            order.enter(tx, status, true);
            order.store(tx, &happenings)?;
            emit_outcome(tx, order, rules)
        }
    }
}

/// What the refusing services found; a refusal without a word of explanation is one problem of its own.
fn refusals(replies: &[InInbox], asked: &ReplyRules) -> Vec<Problem> {
    let refusing = replies.iter().filter(|reply| asked.is_refusal(&reply.kind));
    refusing
        .flat_map(|reply| {
            if reply.problems.is_empty() {
                let from = reply.source.as_deref().unwrap_or("a service downstream");
                vec![Problem {
                    code: reply.kind.clone(),
                    title: format!("Refused by {from}"),
                    detail: None,
                    pointer: None,
                    source: Source::Downstream,
                }]
            } else {
                reply.problems.clone()
            }
        })
        .collect()
}

/// Keeps what is no reply, once: read again after a crash it is the same in the same place.
fn bury_reply(tx: &mut Tx<'_>, poison: &PoisonReply) -> rusqlite::Result<()> {
    let raw = &poison.raw;
    let headers: Vec<(&str, String)> =
        raw.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned())).collect();
    tx.execute(
        "INSERT INTO dead (kind, reason, detail, since, attempts, plugins, topic, partition, record_offset, headers, payload)
         SELECT 'reply', 'not-a-reply', ?1, ?2, 1, '', ?3, ?4, ?5, ?6, ?7
         WHERE NOT EXISTS (
             SELECT 1 FROM dead
             WHERE kind = 'reply' AND topic = ?3 AND partition = ?4 AND record_offset = ?5 AND headers = ?6 AND payload = ?7)",
        params![
            poison.reason,
            tx.now,
            raw.place.topic,
            raw.place.partition,
            raw.place.offset,
            json(&headers),
            raw.value.as_deref().unwrap_or_default(),
        ],
    )?;
    Ok(())
}

/// Notes where reply partitions ended at a moment.
pub(super) fn note_ends(tx: &mut Tx<'_>, asked_at: Timestamp, ends: &[Position]) -> rusqlite::Result<()> {
    for end in ends {
        tx.execute(
            "INSERT INTO reply_ends (topic, partition, asked_at, end_offset) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (topic, partition, asked_at) DO UPDATE SET end_offset = excluded.end_offset",
            params![end.topic, end.partition, asked_at, end.next_offset],
        )?;
    }
    Ok(())
}

/// Expires orders of `route` whose deadline and grace had passed at `asked_at`, if every partition of their reply topic
/// has been read up to its end as asked then (PROTOCOL R5). At most `limit`; returns how many, `None` if not all is read.
pub(super) fn expire(
    tx: &mut Tx<'_>,
    asked_at: Timestamp,
    topic: &str,
    rules: &Rules,
    limit: usize,
) -> rusqlite::Result<Option<usize>> {
    let unread = tx.query_one(
        "SELECT 1 FROM reply_ends e LEFT JOIN reply_positions p USING (topic, partition)
         WHERE e.topic = ?1 AND e.asked_at = ?2 AND coalesce(p.next_offset, 0) < e.end_offset LIMIT 1",
        params![topic, asked_at],
        |_| Ok(()),
    )?;
    if unread.is_some() {
        return Ok(None);
    }
    let mut expired = 0;
    for (path, route) in rules {
        let Some(replies) = route.replies.as_ref().filter(|replies| replies.topic == topic) else { continue };
        let due = tx.query_all(
            "SELECT id FROM orders WHERE deadline_at IS NOT NULL AND deadline_at <= ?1 AND route = ?2
             ORDER BY deadline_at LIMIT ?3",
            params![asked_at.before(replies.grace), path, i64::try_from(limit - expired).unwrap_or(i64::MAX)],
            |row| row.get::<_, OrderId>(0),
        )?;
        for id in due {
            let Some(mut order) = OrderState::find(tx, id)? else { continue };
            let deadline = order.deadline_at.unwrap_or(tx.now).to_string();
            order.enter(tx, OrderStatus::Expired, true);
            order.store(tx, &[Happening::Expired { deadline }])?;
            emit_outcome(tx, &order, rules)?;
            expired += 1;
        }
    }
    tx.execute("DELETE FROM reply_ends WHERE topic = ?1 AND asked_at < ?2", params![topic, asked_at])?;
    Ok(Some(expired))
}
