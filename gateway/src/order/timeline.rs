//! The happenings that make an order's timeline, as they are stored and shown.

use std::sync::Arc;

use serde::Serialize;

/// One happening; the members are the public contract.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Happening {
    /// Taken in.
    Accepted {},
    /// A plugin said something about it.
    Plugin { name: Arc<str>, digest: Arc<str>, verdict: &'static str, micros: u64 },
    /// It waits.
    Held {
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        attempts: u32,
    },
    /// A record of it is on Kafka; `type` tells the order from an outcome.
    Published {
        #[serde(rename = "type")]
        event_type: String,
        topic: String,
        partition: i32,
        offset: i64,
    },
    /// Kafka refused a record for good.
    Refused { topic: String, detail: String },
    /// A service answered. Only counted replies make the verdict.
    Reply {
        #[serde(rename = "type")]
        reply_type: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        fate: &'static str,
        /// Kafka timestamp of the reply, RFC 3339.
        sent_at: String,
    },
    /// What plugins or replies amounted to.
    Verdict { status: &'static str },
    /// The deadline passed.
    Expired { deadline: String },
    /// Taken back by the client; without effect where the order was final.
    Cancelled { effect: bool },
    /// The client handed in another body; without effect once a record existed.
    Revised { effect: bool },
    /// Put back by an operator.
    Redriven { by: String },
    /// Given up by an operator.
    Discarded { by: String },
    /// An operator handed in another body for it while it was dead.
    Edited { by: String },
}

/// The happenings of one transaction as JSON, for storage.
#[must_use]
pub fn to_json(happenings: &[Happening]) -> String {
    // Plain data with string keys always serialises.
    serde_json::to_string(happenings).unwrap_or_else(|_| "[]".to_owned())
}
