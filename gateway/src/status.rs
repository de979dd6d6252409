//! Reads what became of orders, and waits for changes: one feed for polls, long polls and streams.
//!
//! A wake-up only wakes; what is sent is read from the database, versions from history. So everybody sees the same
//! versions in the same order, and a stream can go on where another left off.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::order::view::TimelineEntry;
use crate::order::{OrderId, OrderStatus, OrderView};
use crate::outbox::{ChangeListener, OrderFilter, Outbox, OutboxError, Versions};

/// What clients are told to wait when the database does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Between two looks of whoever waits, while wake-ups come late.
const LATE_POLL: Duration = Duration::from_secs(1);

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer")]
pub struct StatusError {
    pub retry_after: Duration,
}

impl From<OutboxError> for StatusError {
    /// The outbox has logged it.
    fn from(_: OutboxError) -> Self {
        Self { retry_after: RETRY_AFTER }
    }
}

/// Which orders a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Absent: every route (admin only).
    pub route: Option<String>,
    /// Absent: every key (admin only).
    pub order_key: Option<String>,
    pub status: Option<OrderStatus>,
    pub limit: usize,
    /// Orders older than this one.
    pub after: Option<OrderId>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    pub orders: Vec<OrderView>,
    /// Where the next page goes on; absent at the end.
    pub next: Option<OrderId>,
}

/// All that happened to an order.
#[derive(Debug, Clone)]
pub struct Timeline {
    pub id: OrderId,
    /// 32 hex digits.
    pub trace_id: String,
    pub entries: Vec<TimelineEntry>,
}

/// What a stream sends to go on after a version.
#[derive(Debug, Clone)]
pub enum Resume {
    /// Every version after the given one, in order; empty when there is none yet.
    Versions(Vec<OrderView>),
    /// The given version is unknown or its successor is pruned: the present state.
    Reset(OrderView),
}

/// One change of one order, for the operator's page.
#[derive(Debug, Clone)]
pub struct Change {
    /// Rises with every change of any order.
    pub sequence: i64,
    pub at: Timestamp,
    pub order: OrderView,
}

/// Wakes whoever listens to an order. A wake-up only wakes: read to learn what changed.
#[derive(Debug)]
pub struct Listener {
    changes: ChangeListener,
}

impl Listener {
    /// Returns once something may have changed since the listener was made or last returned. Cancel-safe.
    pub async fn changed(&mut self) {
        self.changes.changed().await;
    }
}

/// Reads orders and hears of their changes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Status {
    outbox: Outbox,
}

impl Status {
    #[must_use]
    pub fn new(outbox: Outbox) -> Self {
        Self { outbox }
    }

    /// The present state of an order of a route, or `None` if there is no such order.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn read(&self, route: &str, id: OrderId) -> Result<Option<OrderView>, StatusError> {
        Ok(self.outbox.order(id).await?.filter(|order| *order.route == *route))
    }

    /// The state as soon as its version is not `version` any more or it is final; at the latest after `limit`.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn wait(
        &self,
        route: &str,
        id: OrderId,
        version: u64,
        limit: Duration,
    ) -> Result<Option<OrderView>, StatusError> {
        let end = Instant::now() + limit;
        let mut listener = self.listen(id);
        loop {
            let order = self.read(route, id).await?;
            if order.as_ref().is_none_or(|order| order.version != version || order.is_final) {
                return Ok(order);
            }
            let look_again = if self.outbox.wakes_are_late() { end.min(Instant::now() + LATE_POLL) } else { end };
            let is_woken = tokio::time::timeout_at(look_again, listener.changed()).await.is_ok();
            if !is_woken && look_again == end {
                // A wake-up only wakes: what there is by now counts, whether it was told or not.
                return self.read(route, id).await;
            }
        }
    }

    /// Whether wake-ups come late for now, so that whoever waits has to look by itself from time to time.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.outbox.wakes_are_late()
    }

    /// Orders, newest first.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn list(&self, query: ListQuery) -> Result<Page, StatusError> {
        let ListQuery { route, order_key, status, limit, after: before } = query;
        // One more than asked for tells whether there is a next page.
        let filter = OrderFilter { route, order_key, status, before, limit: limit + 1 };
        let mut orders = self.outbox.list(filter).await?;
        let has_more = orders.len() > limit;
        orders.truncate(limit);
        let next = orders.last().filter(|_| has_more).map(|order| order.id);
        Ok(Page { orders, next })
    }

    /// All that happened to an order.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn timeline(&self, route: &str, id: OrderId) -> Result<Option<Timeline>, StatusError> {
        let stored = self.outbox.timeline(id).await?.filter(|timeline| timeline.route == route);
        Ok(stored.map(|timeline| Timeline {
            id,
            trace_id: timeline.traceparent.get(3..35).unwrap_or_default().to_owned(),
            entries: timeline.entries,
        }))
    }

    /// What comes after version `version` of an order; `None` if there is no such order.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn resume(&self, id: OrderId, version: u64) -> Result<Option<Resume>, StatusError> {
        Ok(self.outbox.versions(id, version).await?.map(|versions| match versions {
            Versions::Next(orders) => Resume::Versions(orders),
            Versions::Gone(order) => Resume::Reset(order),
        }))
    }

    /// Listens to one order. Listen first, then read, then send: so no change is missed.
    #[must_use]
    pub fn listen(&self, id: OrderId) -> Listener {
        Listener { changes: self.outbox.listen(id) }
    }

    /// Listens to every order.
    #[must_use]
    pub fn listen_all(&self) -> Listener {
        Listener { changes: self.outbox.listen_all() }
    }

    /// The changes after `sequence`, oldest first, at most `limit`; without it, or where the node has forgotten them,
    /// the newest `limit` orders as they are now. An order that changed twice may be shown at its newer state twice.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn changes(&self, sequence: Option<i64>, limit: usize) -> Result<Vec<Change>, StatusError> {
        let Some(remembered) = sequence.and_then(|sequence| self.outbox.recent_changes(sequence, limit)) else {
            return self.newest(limit).await;
        };
        let mut changes = Vec::with_capacity(remembered.len());
        for change in remembered {
            if let Some(order) = self.outbox.order(change.order_id).await? {
                changes.push(Change { sequence: change.sequence, at: order.updated_at, order });
            }
        }
        Ok(changes)
    }

    async fn newest(&self, limit: usize) -> Result<Vec<Change>, StatusError> {
        // Read first: what changes meanwhile comes again.
        let sequence = self.outbox.newest_change();
        let orders = self.outbox.list(OrderFilter { limit, ..OrderFilter::default() }).await?;
        Ok(orders.into_iter().rev().map(|order| Change { sequence, at: order.updated_at, order }).collect())
    }
}
