//! What clients and the operator read, as stored rows make it: orders at any version, timelines.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::OutboxError;
use super::state::OrderState;
use crate::clock::Timestamp;
use crate::order::patch::{self, PatchOp};
use crate::order::view::TimelineEntry;
use crate::order::{Held, OrderId, OrderStatus, OrderView, Problem};

/// Which orders a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    pub route: Option<String>,
    pub order_key: Option<String>,
    pub status: Option<OrderStatus>,
    pub before: Option<OrderId>,
    pub limit: usize,
}

/// The versions of an order above a given one.
#[derive(Debug, Clone)]
pub enum Versions {
    /// All of them, without a gap.
    Next(Vec<OrderView>),
    /// The given version was never reached, or its successor is gone.
    Gone(OrderView),
}

/// The trace context of an order and all that happened to it; `None` if there is no such order.
#[derive(Debug, Clone)]
pub struct StoredTimeline {
    pub route: String,
    pub traceparent: String,
    pub entries: Vec<TimelineEntry>,
}

/// What the plugins added is shown from the moment it is on Kafka; before, a retry may still change it.
pub(super) fn shows_patch(status: OrderStatus) -> bool {
    !matches!(status, OrderStatus::Pending | OrderStatus::Held)
}

fn enriched(body: &Bytes, patch: Option<&[u8]>) -> Result<Bytes, OutboxError> {
    let Some(patch) = patch else { return Ok(body.clone()) };
    let operations: Vec<PatchOp> = serde_json::from_slice(patch).map_err(|_| OutboxError::Unavailable)?;
    patch::apply(body, &operations).map_err(|_| OutboxError::Unavailable)
}

/// What `GET` shows of a stored state, with its body and, where [`shows_patch`], the patch.
pub(super) fn view(state: OrderState, body: Vec<u8>, patch: Option<&[u8]>) -> Result<OrderView, OutboxError> {
    Ok(OrderView {
        id: state.id,
        route: state.route,
        status: state.status,
        is_final: state.is_final,
        version: state.version.unsigned_abs(),
        accepted_at: state.accepted_at,
        updated_at: state.updated_at,
        body: enriched(&Bytes::from(body), patch)?,
        problems: state.problems,
        held: state.held,
        deadline_at: state.deadline_at,
    })
}

/// A row of history, as far as versions are made of it.
#[derive(Debug)]
pub(super) struct StoredRow {
    pub(super) body: Option<Vec<u8>>,
    pub(super) patch: Option<Vec<u8>>,
    /// Absent: the row only adds to the timeline.
    pub(super) version: Option<StoredVersion>,
}

/// The version a row of history stands for.
#[derive(Debug)]
pub(super) struct StoredVersion {
    pub(super) number: i64,
    pub(super) at: Timestamp,
    pub(super) status: OrderStatus,
    pub(super) is_final: bool,
    pub(super) problems: Vec<Problem>,
    pub(super) held: Option<Held>,
    pub(super) deadline_at: Option<Timestamp>,
}

/// Rebuilds from an order's whole history, oldest first, what `GET` showed at each version above one.
#[derive(Debug)]
pub(super) struct Rebuild<'s> {
    state: &'s OrderState,
    above: u64,
    body: Bytes,
    patch: Option<Vec<u8>>,
    views: Vec<OrderView>,
}

impl<'s> Rebuild<'s> {
    pub(super) fn new(state: &'s OrderState, above: u64) -> Self {
        Self { state, above, body: Bytes::new(), patch: None, views: Vec::new() }
    }

    /// Takes the next row.
    pub(super) fn push(&mut self, row: StoredRow) -> Result<(), OutboxError> {
        if let Some(body) = row.body {
            self.body = body.into();
            self.patch = None;
        }
        self.patch = row.patch.or_else(|| self.patch.take());
        let Some(version) = row.version else { return Ok(()) };
        if version.status == OrderStatus::Held {
            // What was decided before does not hold: the chain starts anew.
            self.patch = None;
        }
        let number = version.number.unsigned_abs();
        if number > self.above {
            let shown = self.patch.as_deref().filter(|_| shows_patch(version.status));
            self.views.push(OrderView {
                id: self.state.id,
                route: self.state.route.clone(),
                status: version.status,
                is_final: version.is_final,
                version: number,
                accepted_at: self.state.accepted_at,
                updated_at: version.at,
                body: enriched(&self.body, shown)?,
                problems: version.problems,
                held: version.held,
                deadline_at: version.deadline_at,
            });
        }
        Ok(())
    }

    /// The versions, if they begin with the next one and reach the present (PROTOCOL S1).
    pub(super) fn whole(self) -> Option<Vec<OrderView>> {
        let (first, last) = (self.views.first()?.version, self.views.last()?.version);
        (first == self.above + 1 && last == self.state.version.unsigned_abs()).then_some(self.views)
    }
}

/// What a row of history adds to the timeline; `happenings` as they were stored.
pub(super) fn timeline_entries(
    at: Timestamp,
    version: i64,
    happenings: Vec<serde_json::Map<String, serde_json::Value>>,
) -> Result<Vec<TimelineEntry>, OutboxError> {
    let entry = |mut happening: serde_json::Map<String, serde_json::Value>| {
        let kind = happening.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
        let details = RawValue::from_string(serde_json::Value::Object(happening).to_string());
        let details = details.map_err(|_| OutboxError::Unavailable)?;
        Ok(TimelineEntry { at, version: version.unsigned_abs(), kind, details })
    };
    happenings.into_iter().map(entry).collect()
}
