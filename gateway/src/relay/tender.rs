//! Keeps the node's leases: renews them, takes its fair share of the slots, gives surplus back (PROTOCOL O1 to O3).
//!
//! A third of a lease passes between two renewals, so two may fail before one ends. A node that has died is replaced as
//! soon as its leases end: whoever looks learns when that is, and looks again right then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::crash::{self, Point};
use crate::lifecycle::{Condition, Readiness};
use crate::outbox::{Outbox, OutboxError, Tended};
use crate::ownership::Ownership;
use crate::telemetry::{Metrics, chain};

/// Most slots that are on their way to other nodes at once: the rest is carried on meanwhile.
const GIVEN_AT_ONCE: usize = 16;
/// Shortest wait between two calls, so that nodes that look for the same slot do not storm the database.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The tending task of a node.
#[derive(Debug)]
pub struct Tender {
    pub outbox: Outbox,
    pub limits: NodeConfig,
    pub ownership: Ownership,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
}

impl Tender {
    /// Renews, takes and gives back once; returns how long until it must be done again.
    ///
    /// # Errors
    ///
    /// The database did not do it. What was owned stays owned until the leases end by our own clock.
    pub async fn tend(&self) -> Result<Duration, OutboxError> {
        // Before the call: by the database's clock the leases end later than this.
        let asked_at = Instant::now();
        let ready = self.ownership.ready();
        let tended = self.outbox.tend(self.limits.lease.0, ready).await?;
        let before = self.ownership.slots().len();
        if tended.held.len() > before {
            crash::at(Point::SlotsTaken);
        }
        self.ownership.hold(&tended.held, tended.ends.then(|| asked_at + self.limits.lease.0));
        let on_their_way = tended.surplus.min(GIVEN_AT_ONCE);
        self.ownership.give_back(on_their_way, asked_at + self.limits.drain.0);
        self.tell(&tended, before);
        Ok(self.pause(&tended))
    }

    /// Tends for the first time. The database was there a moment ago: what fails is tried again until `patience` is over, with
    /// the pause of later failures between. An attempt that takes longer is the last.
    ///
    /// # Errors
    ///
    /// As [`Tender::tend`], for all that time.
    pub async fn begin(&self, patience: Duration) -> Result<Duration, OutboxError> {
        let begun_at = Instant::now();
        loop {
            match self.tend().await {
                Err(error) if begun_at.elapsed() < patience => {
                    error.warn("failed to take slots over; it is tried again")
                }
                done => return done,
            }
            tokio::time::sleep(self.retry_pause()).await;
        }
    }

    /// Looks whether somebody holds the reading of entries back: orders wait then, although nothing else is wrong.
    async fn look_for_stuck_reads(&self) {
        match self.outbox.stuck_read(self.limits.lease.0).await {
            Ok(stuck) => {
                let seconds = stuck.as_ref().map_or(0.0, |stuck| stuck.open_for.as_secs_f64());
                self.metrics.outbox_stuck_seconds.set(seconds);
                let condition = match stuck {
                    None => Condition::Ready,
                    Some(stuck) => Condition::Degraded(format!(
                        "entries wait for a transaction that is open for {} s: {}; end that session",
                        stuck.open_for.as_secs(),
                        stuck.session
                    )),
                };
                self.readiness.set("entries", condition);
            }
            Err(error) => error.warn("failed to look for what holds the reading of entries back"),
        }
    }

    /// Tends until `stop`; then, once both halves of the relay have ended, gives everything back.
    pub async fn run(self, first_pause: Duration, stop: CancellationToken) {
        let (mut pause, mut failures) = (first_pause, 0_u32);
        let mut changes = self.ownership.watch();
        loop {
            let mut due = std::pin::pin!(tokio::time::sleep(pause));
            loop {
                tokio::select! {
                    () = stop.cancelled(), if !stop.is_cancelled() => {}
                    () = &mut due => break,
                    () = changes.changed() => {}
                }
                if stop.is_cancelled() && self.ownership.is_over() {
                    return self.resign().await;
                }
                if !self.ownership.ready().is_empty() {
                    break;
                }
            }
            match self.tend_and_tell().await {
                Ok(next) => {
                    if failures > 0 {
                        info!("the leases are renewed again");
                    }
                    (pause, failures) = (next, 0);
                    self.look_for_stuck_reads().await;
                }
                Err(error) => {
                    self.failed(&error, failures);
                    failures = failures.saturating_add(1);
                    pause = self.retry_pause();
                }
            }
        }
    }

    /// The same; a database that takes long to answer is told of before it has failed to.
    async fn tend_and_tell(&self) -> Result<Duration, OutboxError> {
        let mut tending = std::pin::pin!(self.tend());
        let asked_at = Instant::now();
        loop {
            tokio::select! {
                tended = &mut tending => return tended,
                () = tokio::time::sleep(self.limits.lease.0 / 3) => {}
            }
            let seconds = asked_at.elapsed().as_secs_f64();
            self.not_renewed(&format!("the database has not answered for {seconds:.1} s"));
        }
    }

    /// When to look again: a third of a lease on, earlier where somebody else's lease ends before, and soon while slots
    /// are on their way to us.
    fn pause(&self, tended: &Tended) -> Duration {
        let lease = self.limits.lease.0;
        if !tended.ends {
            return lease / 3;
        }
        // A little later than it ends, and not all nodes at once.
        let spread = (lease / 50).mul_f64(fastrand::f64());
        let next_end = tended.next_end.map_or(lease, |end| end + spread);
        let has_less = tended.held.len() < usize::from(crate::order::SLOTS) / tended.nodes.max(1);
        let wanted = if has_less { lease / 10 } else { lease / 3 };
        wanted.min(next_end).max(PAUSE_MIN)
    }

    fn retry_pause(&self) -> Duration {
        (self.limits.lease.0 / 12).max(PAUSE_MIN)
    }

    fn tell(&self, tended: &Tended, before: usize) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.node_slots.set(gauge(tended.held.len()));
        self.metrics.nodes_live.set(gauge(tended.nodes));
        self.metrics.node_lease_renewed.set(self.clock.now().0 as f64 / 1_000.0);
        self.readiness.set("leases", Condition::Ready);
        if tended.held.len() != before {
            info!(
                slots = tended.held.len(),
                nodes = tended.nodes,
                "carries {} of {} slots, among {} nodes",
                tended.held.len(),
                crate::order::SLOTS,
                tended.nodes
            );
        }
    }

    fn failed(&self, error: &OutboxError, failures: u32) {
        if failures == 0 {
            error.warn("failed to renew the leases");
        }
        self.not_renewed(&chain(error).to_string());
    }

    fn not_renewed(&self, reason: &str) {
        let detail = format!("the leases are not renewed: {reason}");
        let condition = if self.ownership.lives() { Condition::Degraded(detail) } else { Condition::Waiting(detail) };
        self.readiness.set("leases", condition);
    }

    /// So that others need not wait until the leases end.
    async fn resign(&self) {
        match self.outbox.resign().await {
            Ok(()) => info!("every slot is given back"),
            Err(error) => error.warn("failed to give the slots back: their leases end by themselves"),
        }
    }
}
