//! What a client sees of an order at one version, and its JSON.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{OrderId, OrderStatus, Problem};
use crate::clock::Timestamp;

/// Why an order waits and when it is looked at again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// A stable word: `behind`, `dead`, or what the plugin did (`retry-later`, `fault`, …).
    pub reason: String,
    /// The same for people; says which plugin, which limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub since: Timestamp,
    /// Absent where time alone changes nothing: `behind` and `dead`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// How often the chain ran for this order.
    pub attempts: u32,
}

/// An order at one version, as `GET` and every stream show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderView {
    pub id: OrderId,
    /// Path of its route, such as `/orders`.
    pub route: Arc<str>,
    pub status: OrderStatus,
    pub is_final: bool,
    pub version: u64,
    pub accepted_at: Timestamp,
    pub updated_at: Timestamp,
    /// The order as enriched: members that no plugin touched keep their bytes.
    pub body: Bytes,
    pub problems: Vec<Problem>,
    pub held: Option<Held>,
    /// When unanswered replies expire the order; only while they are awaited.
    pub deadline_at: Option<Timestamp>,
}

impl OrderView {
    /// The JSON document that `GET`, long polls and streams share.
    ///
    /// The body goes in as it is: it was checked to be one JSON object when it came in.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut json = Vec::with_capacity(self.body.len() + 512);
        json.extend_from_slice(b"{\"id\":\"");
        json.extend_from_slice(self.id.to_string().as_bytes());
        json.extend_from_slice(b"\",\"status\":\"");
        json.extend_from_slice(self.status.as_str().as_bytes());
        json.extend_from_slice(format!("\",\"final\":{},\"version\":{}", self.is_final, self.version).as_bytes());
        json.extend_from_slice(
            format!(",\"acceptedAt\":\"{}\",\"updatedAt\":\"{}\"", self.accepted_at, self.updated_at).as_bytes(),
        );
        if let Some(held) = &self.held {
            json.extend_from_slice(b",\"held\":");
            json.extend_from_slice(held_json(held).to_string().as_bytes());
        }
        if let Some(deadline) = self.deadline_at {
            json.extend_from_slice(format!(",\"deadlineAt\":\"{deadline}\"").as_bytes());
        }
        json.extend_from_slice(b",\"order\":");
        json.extend_from_slice(&self.body);
        json.extend_from_slice(b",\"problems\":");
        json.extend_from_slice(serde_json::json!(self.problems).to_string().as_bytes());
        let path = format!("{}/{}", self.route, self.id);
        json.extend_from_slice(
            format!(
                ",\"links\":{{\"self\":\"{path}\",\"events\":\"{path}/events\",\"timeline\":\"{path}/timeline\"}}}}"
            )
            .as_bytes(),
        );
        json.into()
    }
}

fn held_json(held: &Held) -> serde_json::Value {
    let mut json = serde_json::json!({
        "reason": held.reason,
        "since": held.since.to_string(),
        "nextAttemptAt": held.next_attempt_at.map(|at| at.to_string()),
        "attempts": held.attempts,
    });
    if let Some(detail) = &held.detail {
        json["detail"] = detail.as_str().into();
    }
    json
}

/// One happening in the life of an order, as its timeline shows it.
///
/// What the kinds carry is in the public contract; `details` holds those members as JSON.
#[derive(Debug, Clone)]
pub struct TimelineEntry {
    pub at: Timestamp,
    pub version: u64,
    pub kind: String,
    pub details: Box<RawValue>,
}
