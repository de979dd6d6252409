//! The vocabulary of the outbox: what happened to an order, and the relay's place in the log.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::order::{OrderId, Slot};

/// What happened to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Accepted: the order itself.
    Order,
    /// The client takes it back.
    Cancel,
    /// The client hands in another body for it.
    Revise,
    /// The operator puts a dead order back, at the end of its key.
    Redrive,
    /// The operator gives a dead order up.
    Discard,
    /// A final state that services downstream must hear of.
    Outcome,
}

impl EntryKind {
    const ALL: [Self; 6] = [Self::Order, Self::Cancel, Self::Revise, Self::Redrive, Self::Discard, Self::Outcome];

    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Cancel => "cancel",
            Self::Revise => "revise",
            Self::Redrive => "redrive",
            Self::Discard => "discard",
            Self::Outcome => "outcome",
        }
    }

    /// The kind of a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A row of the outbox with what the relay needs of its order.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Place in the log; on one node the order of commits.
    pub number: i64,
    pub slot: Slot,
    pub kind: EntryKind,
    pub order_id: OrderId,
    pub route: Arc<str>,
    pub order_key: Arc<str>,
    pub accepted_at: Timestamp,
    /// W3C trace context of the request that accepted the order.
    pub traceparent: Arc<str>,
    /// The order as it was handed in.
    pub body: Bytes,
    /// What the kind carries: for an outcome the final status, for a revision the new body.
    pub payload: Option<Bytes>,
    /// How often the operator put the order back: each makes a record with an id of its own.
    pub redrives: u32,
}
