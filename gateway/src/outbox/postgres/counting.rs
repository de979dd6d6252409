//! How many orders there are in each state, and what time it is: kept in step with what all nodes commit.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::values::Columns;
use crate::order::OrderStatus;

/// Between two looks at what other nodes have taken in and finished.
const PERIOD: Duration = Duration::from_millis(500);

impl Shared {
    pub(super) fn add_counts(&self, counts: [i64; 7]) {
        for (total, delta) in self.counted.iter().zip(counts) {
            total.fetch_add(delta, Ordering::Relaxed);
        }
        self.counts.add(counts);
        self.show_counts();
    }

    fn show_counts(&self) {
        self.metrics.outbox_backlog.set(self.counts.backlog());
        self.metrics.orders_held.set(self.counts.of(OrderStatus::Held));
    }

    fn own_counts(&self) -> [i64; 7] {
        self.counted.each_ref().map(|total| total.load(Ordering::Relaxed))
    }

    /// Reads how many orders there are, whichever node took them in, and what time it is.
    ///
    /// What this node commits while it is asked may be in the answer or not: then it is asked again.
    pub(super) async fn count(&self) -> Result<(), sqlx::Error> {
        for _ in 0..4 {
            let (before, begun) = (self.own_counts(), Instant::now());
            let rows = self
                .sessions
                .rows(
                    "SELECT sum(pending)::bigint, sum(published)::bigint, sum(validated)::bigint, sum(rejected)::bigint,
                            sum(held)::bigint, sum(expired)::bigint, sum(cancelled)::bigint,
                            (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM order_counts",
                    |statement| statement,
                )
                .await?;
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let order = [
                OrderStatus::Pending,
                OrderStatus::Published,
                OrderStatus::Validated,
                OrderStatus::Rejected,
                OrderStatus::Held,
                OrderStatus::Expired,
                OrderStatus::Cancelled,
            ];
            let mut stored = [0; 7];
            for (column, status) in order.into_iter().enumerate() {
                stored[status as usize] = row.number_or_none(column)?.unwrap_or(0);
            }
            self.clock.follow(row.time(7)?, begun.elapsed());
            if self.own_counts() == before {
                for status in OrderStatus::ALL {
                    self.counts.set(status, stored[status as usize]);
                }
                self.show_counts();
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Keeps the counts in step with what other nodes commit, and the clock with the database's, until the outbox is gone.
pub(super) async fn keep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(shared) = shared.upgrade() else { return };
        // A database that is away is told of by those who need it.
        drop(shared.count().await);
    }
}
