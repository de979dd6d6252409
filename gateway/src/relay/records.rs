//! Makes the records of orders and of their outcomes. Pure.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::config::RouteConfig;
use crate::entry::{Entry, EntryKind};
use crate::order::{OrderStatus, Problem};
use crate::record::{Envelope, Record, outcome_kind, outcome_value};

/// Header that names the plugins which judged the order: `name@digest`, by comma.
pub(super) const PLUGINS_HEADER: &str = "sluice-plugins";

/// The records of an order that the plugins let pass: one, or those that its route lists. Their numbers come with the
/// commit.
#[must_use]
pub(super) fn order_records(
    entry: &Entry,
    route: &RouteConfig,
    body: &Bytes,
    extra_headers: &[(String, String)],
    plugins: &str,
    now: Timestamp,
) -> Vec<Record> {
    let made = |id: &str, kind: &str, topic: &str, value: Bytes| {
        let headers = order_headers(entry, (id, kind), extra_headers, plugins);
        record(entry, false, topic.to_owned(), headers, value, now)
    };
    if let Some(topic) = &route.topic {
        let redrives = entry.redrives + u32::from(entry.kind == EntryKind::Redrive);
        let id = if redrives == 0 { entry.order_id.to_string() } else { format!("{}.r{redrives}", entry.order_id) };
        return vec![made(&id, &route.event_type, topic, body.clone())];
    }
    let own = route.records.iter().map(|own| {
        // The same after a redrive: some services have theirs already, and are to drop it.
        let id = format!("{}/{}", entry.order_id, own.name);
        let value = own.fields.as_ref().map_or_else(|| body.clone(), |fields| fields.of(body));
        made(&id, own.event_type.as_ref().unwrap_or(&route.event_type), &own.topic, value)
    });
    own.collect()
}

fn order_headers(
    entry: &Entry,
    (id, kind): (&str, &str),
    extra_headers: &[(String, String)],
    plugins: &str,
) -> Vec<(String, Bytes)> {
    let envelope = Envelope {
        id,
        kind,
        source: &entry.route,
        order_id: entry.order_id,
        time: entry.accepted_at,
        traceparent: &entry.traceparent,
    };
    let mut headers = envelope.headers();
    if !plugins.is_empty() {
        headers.push((PLUGINS_HEADER.to_owned(), Bytes::copy_from_slice(plugins.as_bytes())));
    }
    let extra = extra_headers.iter().map(|(name, value)| (name.clone(), Bytes::copy_from_slice(value.as_bytes())));
    headers.extend(extra);
    headers
}

/// What an outcome entry carries.
#[derive(Debug, Deserialize)]
struct Outcome {
    status: String,
    problems: Vec<Problem>,
}

/// The record that announces an order's final state; `None` where the route tells no outcomes any more.
#[must_use]
pub(super) fn outcome_record(entry: &Entry, route: &RouteConfig, now: Timestamp) -> Option<Record> {
    let topic = route.outcomes.clone()?;
    let outcome: Outcome = serde_json::from_slice(entry.payload.as_deref()?).ok()?;
    let status: OrderStatus = outcome.status.parse().ok()?;
    let envelope = Envelope {
        id: &format!("{}.outcome", entry.order_id),
        kind: outcome_kind(status)?,
        source: &entry.route,
        order_id: entry.order_id,
        time: now,
        traceparent: &entry.traceparent,
    };
    let value = outcome_value(entry.order_id, status, &outcome.problems);
    Some(record(entry, true, topic, envelope.headers(), value, now))
}

fn record(
    entry: &Entry,
    is_outcome: bool,
    topic: String,
    headers: Vec<(String, Bytes)>,
    value: Bytes,
    timestamp: Timestamp,
) -> Record {
    let key = Bytes::from_owner(KeyBytes(Arc::clone(&entry.order_key)));
    Record { slot: entry.slot, number: 0, order_id: entry.order_id, is_outcome, topic, key, headers, value, timestamp }
}

/// Shares the order key's text as the record's key.
struct KeyBytes(Arc<str>);

impl AsRef<[u8]> for KeyBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The value of a record's header, as text.
#[must_use]
pub(super) fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    let found = record.headers.iter().find(|(header, _)| header == name);
    found.and_then(|(_, value)| std::str::from_utf8(value).ok()).unwrap_or_default()
}
