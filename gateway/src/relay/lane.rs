//! What the sender knows of one slot: what is to be sent next, what is in flight, what is acknowledged without a gap.
//!
//! Pure state; sending, reading and committing are in `publish`.

use std::collections::VecDeque;

use super::records::{PLUGINS_HEADER, header};
use crate::order::OrderId;
use crate::outbox::{Delivered, Placed, Refused, Tenure};
use crate::record::Record;

/// Bytes of records read, or kept from the hand-over, per slot.
pub(super) const SLOT_BYTES_MAX: usize = 1 << 20;

/// One slot's way to Kafka.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) epoch: i64,
    /// The publish cursor, as it is once the commit under way is done.
    pub(super) cursor: i64,
    /// Number of the next record to send, and of the last in the log.
    pub(super) next: i64,
    pub(super) last: i64,
    /// Records that the broker forgot: they go first.
    pub(super) again: VecDeque<Record>,
    /// Records read or handed over, the first of which is `next`.
    ready: VecDeque<Record>,
    ready_bytes: usize,
    sent: VecDeque<Sent>,
    /// It is to be given back: nothing more is sent.
    pub(super) is_leaving: bool,
}

/// A record that was handed to the producer.
#[derive(Debug)]
pub(super) struct Sent {
    number: i64,
    pub(super) order_id: OrderId,
    is_outcome: bool,
    is_again: bool,
    event_type: String,
    pub(super) topic: String,
    plugins: String,
    bytes: usize,
    pub(super) fate: Fate,
}

/// What Kafka said of a record.
#[derive(Debug)]
pub(super) enum Fate {
    InFlight,
    Placed(Placed),
    Refused(String),
}

impl Lane {
    /// A slot as its tenure finds it.
    pub(super) fn new(tenure: &Tenure) -> Self {
        Self {
            epoch: tenure.epoch,
            cursor: tenure.publish_cursor,
            next: tenure.publish_cursor + 1,
            last: tenure.last_record,
            ..Self::default()
        }
    }

    /// Takes a record over from the decider, if it directly follows and there is room; else it is read later.
    pub(super) fn offer(&mut self, record: Record) {
        let follows = self.next + i64::try_from(self.ready.len()).unwrap_or(i64::MAX) == record.number;
        if follows && self.ready_bytes < SLOT_BYTES_MAX {
            self.ready_bytes += record.value.len();
            self.ready.push_back(record);
        }
    }

    /// Whether the log has records that are not in memory.
    pub(super) fn must_read(&self) -> bool {
        self.again.is_empty() && self.ready.is_empty() && self.next <= self.last
    }

    /// Takes records from the log, from `next` on.
    pub(super) fn fill(&mut self, records: Vec<Record>) {
        self.ready_bytes = records.iter().map(|record| record.value.len()).sum();
        self.ready = records.into();
    }

    /// Topic and number of the next record to send.
    pub(super) fn peek(&self) -> Option<(&str, i64)> {
        let next = self.again.front().or(self.ready.front())?;
        Some((&next.topic, next.number))
    }

    /// The next record to send, and whether it goes out again.
    pub(super) fn take_next(&mut self) -> Option<(Record, bool)> {
        if let Some(record) = self.again.pop_front() {
            return Some((record, true));
        }
        let record = self.ready.pop_front()?;
        self.ready_bytes -= record.value.len();
        Some((record, false))
    }

    /// The producer did not take it: it is the next one still.
    pub(super) fn put_back(&mut self, record: Record, is_again: bool) {
        if is_again {
            self.again.push_front(record);
        } else {
            self.ready_bytes += record.value.len();
            self.ready.push_front(record);
        }
    }

    /// The producer took it, or refused it for good.
    pub(super) fn sent(&mut self, record: Record, is_again: bool, fate: Fate) {
        if !is_again {
            self.next = record.number + 1;
        }
        self.sent.push_back(Sent {
            number: record.number,
            order_id: record.order_id,
            is_outcome: record.is_outcome,
            is_again,
            event_type: header(&record, "ce_type").to_owned(),
            plugins: header(&record, PLUGINS_HEADER).to_owned(),
            topic: record.topic,
            bytes: record.value.len(),
            fate,
        });
    }

    /// A record in flight by its number. Numbers rise along the queue, those that go out again being the lowest.
    pub(super) fn in_flight(&mut self, number: i64) -> Option<&mut Sent> {
        let index = self.sent.binary_search_by_key(&number, |sent| sent.number).ok()?;
        self.sent.get_mut(index).filter(|sent| matches!(sent.fate, Fate::InFlight))
    }

    /// Takes at most `max` records off that are acknowledged, or refused, without a gap, moves the cursor behind them and
    /// tells their bytes.
    pub(super) fn take_acknowledged(&mut self, max: usize) -> (Vec<Delivered>, usize) {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < max && self.sent.front().is_some_and(|sent| !matches!(sent.fate, Fate::InFlight)) {
            let Some(sent) = self.sent.pop_front() else { break };
            bytes += sent.bytes;
            if !sent.is_again {
                self.cursor = sent.number;
            }
            items.extend(sent.delivered());
        }
        (items, bytes)
    }

    /// Whether everything in the log was sent.
    pub(super) fn is_drained(&self) -> bool {
        self.again.is_empty() && self.next > self.last
    }

    /// Records that the producer has or had and that are not taken off yet, and their bytes.
    pub(super) fn in_hand(&self) -> (usize, usize) {
        (self.sent.len(), self.sent.iter().map(|sent| sent.bytes).sum())
    }
}

impl Sent {
    fn delivered(self) -> Option<Delivered> {
        let Self { number, order_id, is_outcome, is_again, event_type, topic, plugins, fate, .. } = self;
        let result = match fate {
            Fate::Placed(placed) => Ok(placed),
            Fate::Refused(detail) => Err(Refused { detail, plugins }),
            Fate::InFlight => return None,
        };
        Some(Delivered { number, order_id, is_outcome, event_type, topic, is_again, result })
    }
}
