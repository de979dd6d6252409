//! The vocabulary of dead letters: what waits for the operator, and why.

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
    /// `name@digest` of the plugins that had judged it, by comma.
    pub plugins: String,
    /// Where a reply stood.
    pub place: Option<Place>,
    pub headers: Vec<(String, Bytes)>,
    /// The order's body, the record's value or the reply's value.
    pub payload: Bytes,
}
