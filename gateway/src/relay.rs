//! Carries entries to Kafka: decides what becomes of them, then publishes the records that follow.
//!
//! Two loops. [`Decider`] reads entries, asks the plugins and commits what they say as records; [`Sender`] sends the
//! records and commits what Kafka acknowledged. Between them stands the records log; the hand-over in memory only
//! spares reads. Both carry what the node owns at the time, which [`Tender`] sees to: it keeps the leases, takes slots
//! and gives them back. All go by `PROTOCOL` rules named at their places.
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
mod standing;
mod stops;
mod tender;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{RelayConfig, RouteConfig};
use crate::crash::{self, Point};
use crate::lifecycle::{Condition, Readiness};
use crate::order::Slot;
use crate::outbox::{Outbox, OutboxError};
use crate::ownership::{Half, Moves, Ownership};
use crate::pace::Pace;
use crate::plugin::PluginHost;
use crate::record::Record;
use crate::retry::backoff;
use crate::telemetry::{Metrics, chain};

use arrange::HeldKeys;
use aside::Aside;
use decide::Idle;

pub use decide::Decider;
pub use publish::Sender;
pub use tender::Tender;

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
        let idle = Idle::default();
        Self { outbox, plugins, routes, limits, clock, metrics, hand_over, slots, held, aside, idle }
    }

    /// Runs passes over what is owned until `stop`; a pass already begun is finished first.
    pub async fn run(mut self, ownership: Ownership, readiness: Arc<Readiness>, stop: CancellationToken) {
        let mut failures = 0;
        let mut changes = ownership.watch();
        let mut pace = Pace::new(self.limits.rest_max.0);
        while !stop.is_cancelled() {
            let outbox = self.outbox.clone();
            // Registered before the read, so an entry that is committed in between wakes us.
            let mut committed = pin!(outbox.entry_committed());
            committed.as_mut().enable();
            let begun = Instant::now();
            match self.follow_and_pass(&ownership).await {
                Ok(carried) => {
                    if failures > 0 {
                        readiness.set("relay", Condition::Ready);
                    }
                    failures = 0;
                    if carried > 0 {
                        pace.worked(begun.elapsed(), carried >= self.limits.pass_entries_max, Instant::now());
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = pace.rest() => {}
                        }
                        if committed.as_mut().now_or_never().is_some() {
                            crash::at(Point::Woken);
                        }
                        continue;
                    }
                }
                // An outage ends the pass, never the relay; what is committed is read anew.
                Err(error) => {
                    error.warn("relay pass abandoned");
                    self.metrics.relay_abandoned.inc();
                    readiness.set("relay", Condition::Degraded(format!("passes fail: {}", chain(&error))));
                    tokio::time::sleep(backoff(PAUSE.0, PAUSE.1, failures, fastrand::f64())).await;
                    failures += 1;
                    continue;
                }
            }
            // Every arm may be dropped: none of them holds anything.
            tokio::select! {
                () = stop.cancelled() => {}
                () = committed => crash::at(Point::Woken),
                () = changes.changed() => {}
                () = self.aside.finished(self.limits.patience.0), if !self.aside.is_idle() => {}
                () = tokio::time::sleep(self.limits.poll_interval.0) => {}
            }
        }
        ownership.end(Half::Decider);
    }

    async fn follow_and_pass(&mut self, ownership: &Ownership) -> Result<usize, OutboxError> {
        self.follow(ownership).await?;
        if !ownership.lives() {
            return Ok(0);
        }
        let passed = self.pass().await;
        if passed.is_err() {
            // Its answer may be lost only, so nothing is tried again from memory (PROTOCOL D2).
            let slots: Vec<Slot> = self.slots.keys().copied().collect();
            slots.into_iter().for_each(|slot| self.forget(slot));
        }
        passed
    }

    /// Loads the slots that were gained, forgets those that were lost, and lets go of those that are to be given back:
    /// between passes nothing of them is in flight, and what is judged aside is in the held table.
    async fn follow(&mut self, ownership: &Ownership) -> Result<(), OutboxError> {
        let carried = self.slots.iter().map(|(slot, state)| (*slot, state.epoch));
        let Moves { gained, lost, leaving } = ownership.moves(Half::Decider, carried);
        lost.into_iter().for_each(|slot| self.forget(slot));
        for (slot, _) in leaving {
            self.forget(slot);
            ownership.let_go(Half::Decider, slot);
        }
        if gained.is_empty() {
            return Ok(());
        }
        let mut tenures = self.outbox.tenures().await?;
        tenures.retain(|tenure| gained.iter().any(|(slot, _)| *slot == tenure.slot));
        for (slot, epoch) in gained {
            if !tenures.iter().any(|tenure| tenure.slot == slot) {
                ownership.disown(slot, epoch);
            }
        }
        self.load(tenures).await
    }
}

#[cfg(test)]
mod tests;
