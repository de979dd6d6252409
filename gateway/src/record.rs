//! A Kafka record as it will be sent, and how an order becomes one: CloudEvents in binary mode.
//!
//! Pure: the same order, decision and moment give the same bytes.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::order::{OrderId, OrderStatus, Problem, Slot};

/// A row of the records log: decided, committed, and sent exactly like this however often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub slot: Slot,
    /// Place in the slot's log, without gaps, from 1.
    pub number: i64,
    pub order_id: OrderId,
    /// Whether this announces a final state rather than carrying the order.
    pub is_outcome: bool,
    pub topic: String,
    /// The order key.
    pub key: Bytes,
    pub headers: Vec<(String, Bytes)>,
    pub value: Bytes,
    /// Kafka timestamp: when it was decided.
    pub timestamp: Timestamp,
}

/// What the headers of a record are made of.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Stable id: consumers drop repeats by it.
    pub id: &'a str,
    /// CloudEvents `type`, such as `OrderCreated`.
    pub kind: &'a str,
    /// CloudEvents `source`: the path of the route.
    pub source: &'a str,
    pub order_id: OrderId,
    pub time: Timestamp,
    pub traceparent: &'a str,
}

impl Envelope<'_> {
    /// The headers of the Kafka protocol binding of CloudEvents 1.0, binary mode, and the trace context.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Bytes)> {
        let text = |value: &str| Bytes::copy_from_slice(value.as_bytes());
        vec![
            ("content-type".to_owned(), Bytes::from_static(b"application/json")),
            ("ce_specversion".to_owned(), Bytes::from_static(b"1.0")),
            ("ce_id".to_owned(), text(self.id)),
            ("ce_type".to_owned(), text(self.kind)),
            ("ce_source".to_owned(), text(self.source)),
            ("ce_time".to_owned(), text(&self.time.to_string())),
            ("ce_subject".to_owned(), text(&self.order_id.to_string())),
            ("traceparent".to_owned(), text(self.traceparent)),
        ]
    }
}

/// CloudEvents type of the record that announces a final state.
#[must_use]
pub fn outcome_kind(status: OrderStatus) -> Option<&'static str> {
    match status {
        OrderStatus::Validated => Some("OrderValidated"),
        OrderStatus::Rejected => Some("OrderRejected"),
        OrderStatus::Expired => Some("OrderExpired"),
        OrderStatus::Cancelled => Some("OrderCancelled"),
        OrderStatus::Pending | OrderStatus::Held | OrderStatus::Published => None,
    }
}

/// Body of an outcome record.
#[must_use]
pub fn outcome_value(order_id: OrderId, status: OrderStatus, problems: &[Problem]) -> Bytes {
    serde_json::json!({ "orderId": order_id.to_string(), "status": status.as_str(), "problems": problems })
        .to_string()
        .into()
}
