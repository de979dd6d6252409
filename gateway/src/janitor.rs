//! Removes what is finished and old, in small steps between which everybody else goes on.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::clock::Clock;
use crate::config::RetentionConfig;
use crate::crash::{self, Point};
use crate::order::OrderId;
use crate::outbox::{Cutoffs, Outbox, OutboxError, Removed};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::TableLabel;

/// Removes what is finished and old.
#[derive(Debug)]
pub struct Janitor {
    pub outbox: Outbox,
    pub limits: RetentionConfig,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

impl Janitor {
    /// Runs steps until `stop`: back to back while there is more to do, else one per interval.
    pub async fn run(self, stop: CancellationToken) {
        let mut orders_after = None;
        loop {
            let has_more = match self.step(orders_after).await {
                Ok(removed) => {
                    orders_after = removed.orders_after;
                    removed.has_more
                }
                Err(error) => {
                    error.warn("failed to remove old rows");
                    false
                }
            };
            if has_more && !stop.is_cancelled() {
                // The writer takes what else waits between two steps.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.limits.interval.0) => {}
            }
        }
    }

    /// One step: a bounded number of rows per table.
    pub async fn step(&self, orders_after: Option<OrderId>) -> Result<Removed, OutboxError> {
        let now = self.clock.now();
        let cutoffs = Cutoffs {
            orders: now.before(self.limits.orders.0),
            entries: now.before(self.limits.entries.0),
            idempotency: now.before(self.limits.idempotency.0),
            parked_replies: now.before(self.limits.parked_replies.0),
            rows_max: self.limits.step_rows_max,
        };
        let removed = self.outbox.retain(cutoffs, orders_after).await?;
        if removed.entries + removed.orders + removed.records > 0 {
            crash::at(Point::Retained);
        }
        for (table, rows) in [
            ("orders", removed.orders),
            ("history", removed.history),
            ("outbox", removed.entries),
            ("records", removed.records),
            ("idempotency", removed.idempotency),
            ("inbox", removed.inbox),
        ] {
            if rows > 0 {
                self.metrics.retention_rows.get_or_create(&TableLabel { table }).inc_by(rows as u64);
                debug!(table, rows, "removed {rows} old rows of `{table}`");
            }
        }
        Ok(removed)
    }
}
