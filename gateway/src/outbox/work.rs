//! The working set of a transaction: what was read for it, what it will write, what is told once it is committed.
//!
//! A transaction is three steps: the database reads what an [operation](super::needs::Operation) needs, and takes the
//! locks; the operation changes the working set; the database writes what became of it. The middle step is the same on
//! every database and knows no SQL. What it read and may change (keys, cursors, orders, held rows, dead letters,
//! inboxes) carries the mark of the change with it; what it only adds stands in [`Writes`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::accept::{KeyHash, NewOrder};
use super::owning::Strikes;
use super::state::OrderState;
use super::wake::Changed;
use crate::clock::Timestamp;
use crate::dead::DeadKind;
use crate::entry::{Entry, EntryKind, EntryPlace};
use crate::order::{OrderId, OrderStatus, Problem, Slot};
use crate::record::Record;
use crate::reply::{PoisonReply, Position, Reply};

/// Everything a transaction knows. `'a` is the life of its operation, whose texts and bodies are borrowed.
pub(super) struct Work<'a> {
    /// The idempotency keys that were asked for, by key.
    pub(super) keys: Vec<BoundKey>,
    /// Decide cursors of the slots that are still owned as the operation says, by slot.
    pub(super) deciding: Vec<DecideCursor>,
    /// Publish cursors of the slots that are still owned as the operation says, by slot.
    pub(super) publishing: Vec<PublishCursor>,
    /// Those of `owning` that are still owned as the operation says, by slot.
    pub(super) owned: Vec<Slot>,
    pub(super) orders: Orders,
    pub(super) held: BTreeMap<OrderId, HeldPlace>,
    pub(super) dead: BTreeMap<OrderId, DeadPlace>,
    /// What counts, or may count, of the inboxes that were asked for, and the rows that are new.
    pub(super) inboxes: BTreeMap<OrderId, Vec<InboxRow<'a>>>,
    /// The replies, of those asked for, that an inbox has; in the course of the operation those that are new join.
    pub(super) known: BTreeSet<(OrderId, &'a str)>,
    /// Ends of the reply partitions that were asked for.
    pub(super) ends: Vec<PartitionEnd>,
    /// Rows, of those asked for, that are to be sent again to a broker that forgot them.
    pub(super) republish: BTreeSet<(Slot, i64)>,
    /// The dead letter that was asked for by its number.
    pub(super) letter: Letter,
    /// Overdue orders, longest first; `None` while a reply partition is not read up to its end as asked.
    pub(super) due: Option<Vec<OrderId>>,
    /// Unanswered records on Kafka, newest first: of each order the one, or all that were decided together.
    pub(super) unanswered: Vec<(Slot, i64, OrderId)>,
    pub(super) out: Out<'a>,
}

/// What a transaction produces. Apart from the rest, so that an order can be changed while rows are added.
pub(super) struct Out<'a> {
    /// The moment of the transaction; every row it writes has it.
    pub(super) now: Timestamp,
    /// The last number that was given: to entries and to rows of history.
    pub(super) sequence: i64,
    pub(super) writes: Writes<'a>,
    pub(super) notes: Notes,
}

/// Rows that are added or removed without having been read.
#[derive(Default)]
pub(super) struct Writes<'a> {
    pub(super) new_orders: Vec<NewOrderRow<'a>>,
    pub(super) history: Vec<HistoryRow<'a>>,
    /// Entries of the outbox but those of `new_orders`.
    pub(super) entries: Vec<EntryRow>,
    pub(super) records: Vec<RecordRow<'a>>,
    /// Orders that are found by their key from now on; written where it is not there yet.
    pub(super) order_keys: Vec<OrderId>,
    /// Keys whose held rows changed. The store step makes the first row of each due that has no time (`due_at` NULL),
    /// and tells of each, in this order, whether any row is left.
    pub(super) touched: Vec<(Slot, Arc<str>, Arc<str>)>,
    /// Records that were sent again.
    pub(super) republished: Vec<(Slot, i64)>,
    /// The broker starts empty: before anything else `republish`, `reply_positions` and `reply_ends` are cleared.
    pub(super) forgets_broker: bool,
    /// Records that are to be sent again.
    pub(super) forgotten: Vec<(Slot, i64)>,
    /// Up to where reply partitions are read; never moves back.
    pub(super) positions: &'a [Position],
    /// What is no reply: a dead letter, unless the same from the same place is one.
    pub(super) poison: Vec<&'a PoisonReply>,
    /// Dead letters that are given up, by number.
    pub(super) letters_out: Vec<i64>,
    /// Dead replies that get other headers and another payload.
    pub(super) letters_edited: Vec<EditedLetter<'a>>,
    /// Ends of a topic that were asked for before this moment are of no use any more.
    pub(super) ends_before: Option<(&'a str, Timestamp)>,
    /// The passes still under way after this one; empty: none.
    pub(super) begun: Option<&'a str>,
    /// Whether the order that ran alone in the process survived.
    pub(super) survived_alone: bool,
}

/// A dead reply as it is from now on.
pub(super) struct EditedLetter<'a> {
    pub(super) number: i64,
    pub(super) headers: &'a [(String, Bytes)],
    pub(super) payload: &'a [u8],
}

/// An order that is accepted: row, first history row, entry of the outbox.
pub(super) struct NewOrderRow<'a> {
    pub(super) order: &'a NewOrder,
    /// Number of its history row, where the body stands.
    pub(super) sequence: i64,
    /// Number of its entry.
    pub(super) number: i64,
}

/// A row of history but the first of an order.
pub(super) struct HistoryRow<'a> {
    pub(super) order_id: OrderId,
    pub(super) sequence: i64,
    pub(super) version: i64,
    /// Absent: the row only adds to the timeline.
    pub(super) shown: Option<Shown>,
    /// What happened, as JSON.
    pub(super) entries: String,
    pub(super) body: Option<&'a [u8]>,
    pub(super) patch: Option<&'a str>,
}

/// What `GET` shows from this row of history on, besides body and patch.
pub(super) struct Shown {
    pub(super) status: OrderStatus,
    pub(super) is_final: bool,
    /// JSON.
    pub(super) problems: Option<String>,
    /// JSON.
    pub(super) held: Option<String>,
    pub(super) deadline_at: Option<Timestamp>,
}

/// An entry of the outbox.
pub(super) struct EntryRow {
    pub(super) number: i64,
    pub(super) slot: Slot,
    pub(super) kind: EntryKind,
    pub(super) order_id: OrderId,
    pub(super) payload: Option<Bytes>,
}

/// A row of the records log.
pub(super) struct RecordRow<'a> {
    pub(super) slot: Slot,
    /// Not that of `record`, which has none yet.
    pub(super) number: i64,
    pub(super) record: &'a Record,
}

/// An idempotency key, as it is bound after the load step.
#[derive(Debug, Clone, Copy)]
pub(super) struct BoundKey {
    pub(super) hash: KeyHash,
    pub(super) order_id: OrderId,
    pub(super) state: KeyState,
}

/// Whose an idempotency key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyState {
    /// Of an order that has it.
    Bound,
    /// This transaction inserted it and nothing has claimed it; where that is still so at the end, the store step
    /// removes it: only a `202` binds a key.
    Fresh,
    /// This transaction inserted it for a request that came to nothing, and another one claimed it: the store step
    /// updates fingerprint and order.
    Rebound,
}

/// A slot's place in the outbox and in the records log, read under the lock that makes the compare-and-set one.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecideCursor {
    pub(super) slot: Slot,
    pub(super) at: EntryPlace,
    pub(super) last_record: i64,
    /// The last place that was given to a held row.
    pub(super) last_place: i64,
    pub(super) is_moved: bool,
    pub(super) suspicion: SuspicionStep,
}

/// What becomes of a suspicion against a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SuspicionStep {
    /// It stays as it is.
    Same,
    /// The culprit was the next entry, or is a held order with a count of its own: it is forgotten.
    CulpritGone,
    /// The row goes.
    Cleared,
}

/// How far a slot's records are known to be on Kafka.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublishCursor {
    pub(super) slot: Slot,
    pub(super) at: i64,
    pub(super) is_moved: bool,
}

/// The orders that were asked for, as far as they exist.
#[derive(Debug, Default)]
pub(super) struct Orders {
    by_id: Vec<OrderState>,
}

/// What the held table has of an order, and what it shall have.
#[derive(Debug, Default)]
pub(super) struct HeldPlace {
    /// Whether the table has a row now.
    pub(super) is_stored: bool,
    /// The row it shall have.
    pub(super) row: Option<HeldRow>,
    /// Whether a stored row must be written anew.
    pub(super) is_changed: bool,
}

/// A row of the held table; slot, route and order key are those of the order.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldRow {
    pub(super) place: i64,
    pub(super) since: Timestamp,
    pub(super) attempts: u32,
    pub(super) due_at: Option<Timestamp>,
    pub(super) strikes: Strikes,
}

/// What the dead letters have of an order, and what they shall have.
#[derive(Debug, Default)]
pub(super) struct DeadPlace {
    /// Whether there is a row now.
    pub(super) is_stored: bool,
    pub(super) next: NextDead,
}

/// The dead letter an order shall have.
#[derive(Debug, Default)]
pub(super) enum NextDead {
    #[default]
    None,
    /// The stored one.
    Stored,
    New(DeadRow),
}

/// A new dead letter of an order.
#[derive(Debug)]
pub(super) struct DeadRow {
    pub(super) kind: DeadKind,
    pub(super) reason: String,
    pub(super) detail: String,
    pub(super) attempts: u32,
    pub(super) plugins: String,
}

/// What became of a reply, as the inbox has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyFate {
    /// It makes the verdict, and the timeline does not have it yet.
    Counted,
    /// It makes the verdict.
    Noted,
    /// It came before its order was published.
    Early,
    Late,
    /// Its route asks for no such reply.
    Unasked,
    /// There is no such order.
    Parked,
}

/// A row of the inbox.
#[derive(Debug)]
pub(super) struct InboxRow<'a> {
    pub(super) dedup: Cow<'a, str>,
    pub(super) kind: Cow<'a, str>,
    pub(super) source: Option<Cow<'a, str>>,
    pub(super) sent_at: Timestamp,
    pub(super) taken_at: Timestamp,
    pub(super) fate: ReplyFate,
    pub(super) problems: Cow<'a, [Problem]>,
    pub(super) change: InboxChange<'a>,
}

/// What the store step does with a row of the inbox.
#[derive(Debug, Clone, Copy)]
pub(super) enum InboxChange<'a> {
    Same,
    /// Its fate is written anew.
    Fate,
    /// It is inserted, unless it is there by then.
    New(&'a Reply),
}

/// Where a reply partition ended at a moment.
#[derive(Debug, Clone)]
pub(super) struct PartitionEnd {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) asked_at: Timestamp,
    pub(super) end_offset: i64,
}

/// What a number of a dead letter stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Letter {
    /// It was never given.
    #[default]
    Unknown,
    /// It is dead no more.
    Gone,
    /// Something on a reply topic that is no reply.
    Reply,
    /// An order, which is then among the orders that were read.
    Of(OrderId),
}

/// What is told once the transaction is committed.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) changed: Vec<Changed>,
    pub(super) entries: Vec<NewEntry>,
    /// Orders that came, went on or went, by status.
    pub(super) counts: [i64; 7],
}

/// An entry that is committed soon. With the entry itself the relay is spared the read.
#[derive(Debug)]
pub(super) struct NewEntry {
    pub(super) number: i64,
    pub(super) entry: Option<Entry>,
}

impl<'a> Work<'a> {
    /// A working set of which nothing was read. The numbers it gives begin behind `sequence`.
    pub(super) fn new(now: Timestamp, sequence: i64, notes: Notes) -> Self {
        Self {
            keys: Vec::new(),
            deciding: Vec::new(),
            publishing: Vec::new(),
            owned: Vec::new(),
            orders: Orders::default(),
            held: BTreeMap::new(),
            dead: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            known: BTreeSet::new(),
            ends: Vec::new(),
            republish: BTreeSet::new(),
            letter: Letter::Unknown,
            due: None,
            unanswered: Vec::new(),
            out: Out { now, sequence, writes: Writes::default(), notes },
        }
    }

    /// The idempotency key of a request; all were asked for.
    pub(super) fn key(&mut self, hash: &KeyHash) -> Option<&mut BoundKey> {
        let index = self.keys.binary_search_by(|bound| bound.hash.key.cmp(&hash.key)).ok()?;
        self.keys.get_mut(index)
    }
}

impl Orders {
    /// Takes a row that was read. Rows come by id.
    pub(super) fn push(&mut self, order: OrderState) {
        debug_assert!(self.by_id.last().is_none_or(|last| last.id < order.id), "orders are read by id");
        self.by_id.push(order);
    }

    pub(super) fn get(&self, id: OrderId) -> Option<&OrderState> {
        self.by_id.binary_search_by_key(&id, |order| order.id).ok().map(|index| &self.by_id[index])
    }

    pub(super) fn get_mut(&mut self, id: OrderId) -> Option<&mut OrderState> {
        self.by_id.binary_search_by_key(&id, |order| order.id).ok().map(|index| &mut self.by_id[index])
    }

    /// All of them, by id.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, OrderState> {
        self.by_id.iter()
    }
}

impl<'a> Out<'a> {
    /// The next number of the one counter.
    pub(super) fn next_sequence(&mut self) -> i64 {
        self.sequence += 1;
        self.sequence
    }

    /// Appends to the outbox.
    pub(super) fn append(&mut self, slot: Slot, kind: EntryKind, order_id: OrderId, payload: Option<Bytes>) {
        let number = self.next_sequence();
        self.writes.entries.push(EntryRow { number, slot, kind, order_id, payload });
        self.notes.entries.push(NewEntry { number, entry: None });
    }
}

impl Notes {
    /// Counts an order that came, went on to another status, or went.
    pub(super) fn count(&mut self, from: Option<OrderStatus>, to: Option<OrderStatus>) {
        if let Some(from) = from {
            self.counts[from as usize] -= 1;
        }
        if let Some(to) = to {
            self.counts[to as usize] += 1;
        }
    }
}

impl ReplyFate {
    const ALL: [Self; 6] = [Self::Counted, Self::Noted, Self::Early, Self::Late, Self::Unasked, Self::Parked];

    /// The word in the database and in the timeline.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Noted => "noted",
            Self::Early => "early",
            Self::Late => "late",
            Self::Unasked => "unasked",
            Self::Parked => "parked",
        }
    }

    /// The fate of a stored word.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fate| fate.as_str() == word)
    }
}
