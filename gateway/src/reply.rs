//! The vocabulary of replies: what services downstream answered, and where it stood on Kafka.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::order::{OrderId, Problem};

/// Where a record stands on Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// Up to where a partition is read, or how far it reaches: the offset of the next record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub topic: String,
    pub partition: i32,
    pub next_offset: i64,
}

/// A record read from Kafka, before anything is believed about it.
#[derive(Debug, Clone)]
pub struct RawReply {
    pub place: Place,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub headers: Vec<(String, Bytes)>,
    pub value: Option<Bytes>,
}

/// A service's answer about one order.
#[derive(Debug, Clone)]
pub struct Reply {
    pub place: Place,
    pub timestamp: Timestamp,
    pub order_id: OrderId,
    /// What it says, such as `ConsumerValidated`.
    pub kind: String,
    /// Who says it: `ce_source`.
    pub from: Option<String>,
    /// The same answer repeated has the same: `ce_source` and `ce_id`. Absent: its place stands for it.
    pub event_id: Option<String>,
    /// What a refusal found.
    pub problems: Vec<Problem>,
}

/// A record that is no reply: it goes to the dead letters as it came.
#[derive(Debug, Clone)]
pub struct PoisonReply {
    pub raw: Box<RawReply>,
    /// What is wrong with it, for the operator.
    pub reason: String,
}
