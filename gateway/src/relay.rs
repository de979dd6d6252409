//! Carries entries to Kafka: decides what becomes of them, then publishes the records that follow.
//!
//! Two loops. [`Decider`] reads entries, asks the plugins and commits what they say as records; [`Sender`] sends the
//! records and commits what Kafka acknowledged. Between them stands the records log; the hand-over in memory only
//! spares reads. Both go by `PROTOCOL` rules named at their places.
//!
//! # Guarantees
//!
//! - **Decided before published.** A record is in the log, byte for byte, before Kafka sees it.
//! - **In order.** Orders of one key come out in the order of acceptance, whatever fails.
//! - **No plugin inside a transaction**, and no `await` per record.
//!
//! # Not here
//!
//! SQL (`outbox`), Wasm (`plugin`), librdkafka (`publisher`), replies (`replies`).

mod arrange;
mod aside;
mod decide;
mod judge;
mod lane;
mod publish;
mod records;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::Clock;
use crate::config::{RelayConfig, RouteConfig};
use crate::lifecycle::{Condition, Readiness};
use crate::order::Slot;
use crate::outbox::{Outbox, OutboxError, Tenure};
use crate::plugin::PluginHost;
use crate::record::Record;
use crate::retry::backoff;
use crate::telemetry::{Metrics, chain};

use arrange::HeldKeys;
use aside::Aside;

pub use decide::Decider;
pub use publish::Sender;

/// The configured routes, by path.
pub type Routes = Arc<HashMap<Arc<str>, RouteConfig>>;

/// Bytes of records that wait in memory between the two loops; what is above is read from the log.
const HANDED_OVER_BYTES_MAX: usize = 32 << 20;
/// First and longest wait after a pass that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Records on their way from the decider to the sender.
#[derive(Debug, Clone, Default)]
pub struct HandOver {
    inner: Arc<HandOverInner>,
}

#[derive(Debug, Default)]
struct HandOverInner {
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<Record>,
    bytes: usize,
    /// Number of the last record in each slot's log: all the sender needs where bodies did not come along.
    last: HashMap<Slot, i64>,
}

impl HandOver {
    fn give(&self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        {
            let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            for record in records {
                waiting.last.insert(record.slot, record.number);
                if waiting.bytes <= HANDED_OVER_BYTES_MAX {
                    waiting.bytes += record.value.len();
                    waiting.records.push(record);
                }
            }
        }
        self.inner.notify.notify_one();
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut *self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn committed(&self) -> Notified<'_> {
        self.inner.notify.notified()
    }
}

impl Decider {
    /// A decider that has loaded nothing yet.
    #[must_use]
    pub fn new(
        outbox: Outbox,
        plugins: PluginHost,
        routes: Routes,
        limits: RelayConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
        hand_over: HandOver,
    ) -> Self {
        let (slots, held, aside) = (HashMap::new(), HeldKeys::default(), Aside::default());
        Self { outbox, plugins, routes, limits, clock, metrics, hand_over, slots, held, aside, position: 0 }
    }

    /// Runs passes until `stop`; a pass already begun is finished first.
    pub async fn run(mut self, tenures: Vec<Tenure>, readiness: Arc<Readiness>, stop: CancellationToken) {
        let mut failures = 0;
        let mut to_load = Some(tenures);
        while !stop.is_cancelled() {
            let outbox = self.outbox.clone();
            // Registered before the read, so an entry that is committed in between wakes us.
            let mut committed = pin!(outbox.entry_committed());
            committed.as_mut().enable();
            match self.load_and_pass(&mut to_load).await {
                Ok(carried) => {
                    if failures > 0 {
                        readiness.set("relay", Condition::Ready);
                    }
                    failures = 0;
                    if carried > 0 {
                        continue;
                    }
                }
                // An outage ends the pass, never the relay; what is committed is read anew.
                Err(error) => {
                    warn!(error = %chain(&error), "relay pass abandoned");
                    self.metrics.relay_abandoned.inc();
                    readiness.set("relay", Condition::Degraded(format!("passes fail: {}", chain(&error))));
                    tokio::time::sleep(backoff(PAUSE.0, PAUSE.1, failures, fastrand::f64())).await;
                    failures += 1;
                    to_load = self.outbox.tenures().await.ok().or(to_load);
                    continue;
                }
            }
            // Every arm may be dropped: none of them holds anything.
            tokio::select! {
                () = stop.cancelled() => {}
                () = committed => {}
                () = self.aside.finished(self.limits.patience.0), if !self.aside.is_idle() => {}
                () = tokio::time::sleep(self.limits.poll_interval.0) => {}
            }
        }
    }

    async fn load_and_pass(&mut self, to_load: &mut Option<Vec<Tenure>>) -> Result<usize, OutboxError> {
        if let Some(tenures) = to_load.clone() {
            self.load(tenures).await?;
            *to_load = None;
        }
        self.pass().await
    }
}

#[cfg(test)]
mod tests;
