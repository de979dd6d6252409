//! The vocabulary of dead letters: what waits for the operator, and why.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::order::OrderId;
use crate::reply::Place;

/// What died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadKind {
    /// An order that was held longer than `relay.hold_max`, or that killed the process.
    Order,
    /// A record that Kafka refused for good.
    Record,
    /// Something on a reply topic that is no reply.
    Reply,
}

impl DeadKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Order, Self::Record, Self::Reply];

    /// The word on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Record => "record",
            Self::Reply => "reply",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Which dead letters, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadFilter {
    pub kind: Option<DeadKind>,
    pub reason: Option<String>,
    /// Path of the order's route; replies have none.
    pub route: Option<String>,
    /// Died at this moment or later.
    pub since: Option<Timestamp>,
    /// Died before this moment.
    pub before: Option<Timestamp>,
    /// Those behind this one.
    pub after: i64,
    pub limit: usize,
}

impl Default for DeadFilter {
    /// The oldest hundred of all.
    fn default() -> Self {
        Self { kind: None, reason: None, route: None, since: None, before: None, after: 0, limit: 100 }
    }
}

/// What takes the place of what died.
#[derive(Debug, Clone)]
pub enum DeadEdit {
    /// Another body of the order; its order key must be what it was.
    Order { body: Bytes, order_key: Arc<str> },
    /// Another record of the reply topic.
    Reply { headers: Vec<(String, Bytes)>, payload: Bytes },
}

/// Something that goes no further until the operator redrives or discards it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub id: i64,
    pub kind: DeadKind,
    /// Absent for a reply that names no order.
    pub order_id: Option<OrderId>,
    /// Path of the order's route.
    pub route: Option<String>,
    /// A stable word: `held-too-long`, `killed-the-process`, `refused-by-kafka`, `not-a-reply`.
    pub reason: String,
    /// What happened, whose fault, what to do.
    pub detail: String,
    pub since: Timestamp,
    pub attempts: u32,
    /// How often the operator put the order back before.
    pub redrives: u32,
    /// `name@digest` of the plugins that had judged it, by comma.
    pub plugins: String,
    /// Where a reply stood.
    pub place: Option<Place>,
    pub headers: Vec<(String, Bytes)>,
    /// The order's body, the record's value or the reply's value.
    pub payload: Bytes,
}
