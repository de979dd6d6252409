//! What is written with the commit itself, in one message: statements without parameters, in which nothing came from outside.

use super::BLOCK_BITS;
use super::values::{limit_number, slot_number};
use crate::order::OrderStatus;
use crate::outbox::work::{SuspicionStep, Work};

/// Rows that the counts are spread over.
const COUNT_ROWS: i64 = 64;

/// What is left of a working set: the pass under way, and how many orders came, went on or went.
pub(super) fn last_words(work: &Work<'_>, node: &str) -> String {
    let mut words = Vec::new();
    words.extend(work.out.writes.begun.map(|begun| begun_is(node, begun)));
    if work.out.writes.survived_alone {
        words.push(survived_alone(node));
    }
    for (what, rest, step) in [
        ("DELETE FROM suspects", "", SuspicionStep::Cleared),
        ("UPDATE suspects SET culprit = NULL", " AND culprit IS NOT NULL", SuspicionStep::CulpritGone),
    ] {
        let slots = work.deciding.iter().filter(|cursor| cursor.is_moved && cursor.suspicion == step);
        let slots: Vec<String> = slots.map(|cursor| slot_number(cursor.slot).to_string()).collect();
        if !slots.is_empty() {
            words.push(format!("{what} WHERE slot IN ({}){rest}", slots.join(",")));
        }
    }
    let mut counts = work.out.notes.counts;
    counts[OrderStatus::Pending as usize] -= new_orders(work);
    words.extend(counted(counts, counts_row(work.out.sequence)));
    words.join(";")
}

/// How many orders are new: they are counted by the statement that writes them.
pub(super) fn new_orders(work: &Work<'_>) -> i64 {
    limit_number(work.out.writes.new_orders.len())
}

/// The row of counts of the transaction with this number: transactions of the same moment have others.
pub(super) fn counts_row(sequence: i64) -> i16 {
    i16::try_from((sequence >> BLOCK_BITS).rem_euclid(COUNT_ROWS)).unwrap_or_default()
}

/// The statement that names what a node's pass works on; an empty name means that no pass is under way.
pub(super) fn begun_is(node: &str, batch: &str) -> String {
    debug_assert!(batch.bytes().all(|byte| byte.is_ascii_digit() || b":/,".contains(&byte)), "slots and places");
    format!(
        "INSERT INTO begun (node, batch, is_open) VALUES ('{node}', '{batch}', {is_open}) \
         ON CONFLICT (node) DO UPDATE SET batch = excluded.batch, is_open = excluded.is_open",
        is_open = !batch.is_empty()
    )
}

/// The statement by which the orders that ran alone at a node have survived that.
pub(super) fn survived_alone(node: &str) -> String {
    format!(
        "UPDATE suspects SET alone = NULL \
         WHERE alone IS NOT NULL AND slot IN (SELECT slot FROM slots WHERE owner = '{node}')"
    )
}

/// The statement that keeps count, on one of the rows.
pub(super) fn counted(counts: [i64; 7], row: i16) -> Option<String> {
    if counts == [0; 7] {
        return None;
    }
    let changed = OrderStatus::ALL.into_iter().filter(|status| counts[*status as usize] != 0);
    let columns = changed.map(|status| {
        let (column, count) = (status.as_str().to_ascii_lowercase(), counts[status as usize]);
        format!("{column} = {column} + ({count})")
    });
    let columns: Vec<String> = columns.collect();
    Some(format!("UPDATE order_counts SET {} WHERE part = {row}", columns.join(", ")))
}
