//! Judges aside what takes long, so that the orders of other routes do not wait for it.
//!
//! A pass waits for plugins only for so long. Then the route *lags*: its orders move to the held table (reason `busy`),
//! the judgement goes on, and its result is taken by the pass that next finds the order due. While a route lags, its new
//! orders are held at once and judged here, one batch at a time, on the slow thread of the plugin host. It catches up
//! again when its batches are quick.
//!
//! Nothing here decides anything: a result counts only if the held row still stands as it was read (PROTOCOL D2), and
//! everything is forgotten with the tenure (O5).

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use crate::order::{OrderId, Slot};
use crate::plugin::{Candidate, Decision, FaultKind, Judgement, Pace, PluginHost};

/// Orders of one batch judged aside; its results come together.
pub(super) const BATCH_ORDERS_MAX: usize = 64;
/// So many quick batches in a row and a route lags no more.
const QUICK_BATCHES: u32 = 3;

/// A batch that is being judged, with what it takes to have it judged aside.
pub(super) type Running = Pin<Box<dyn Future<Output = Judged> + Send>>;

/// A batch that was judged.
pub(super) struct Judged {
    route: Arc<str>,
    batch: u64,
    ids: Vec<OrderId>,
    judgements: Vec<Judgement>,
    took: Duration,
}

impl Judged {
    /// The judgements, in the sequence of the batch's candidates.
    pub(super) fn into_judgements(self) -> (Arc<str>, Vec<Judgement>) {
        (self.route, self.judgements)
    }
}

/// What is judged aside.
#[derive(Default)]
pub(super) struct Aside {
    running: FuturesUnordered<Running>,
    lagging: HashMap<Arc<str>, Lagging>,
    batches: u64,
}

/// A route that lags.
#[derive(Default)]
struct Lagging {
    /// Orders that are being judged: in which slot, in which batch.
    outstanding: HashMap<OrderId, (Slot, u64)>,
    results: HashMap<OrderId, (Slot, Judgement)>,
    quick: u32,
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aside").field("lagging", &self.lagging.keys()).finish_non_exhaustive()
    }
}

impl Aside {
    /// A batch to be judged, at once or aside, and its number; nothing runs until it is polled.
    pub(super) fn batch(
        &mut self,
        host: &PluginHost,
        route: &Arc<str>,
        orders: Vec<Candidate>,
        pace: Pace,
    ) -> (u64, Running) {
        self.batches += 1;
        let (batch, host, route) = (self.batches, host.clone(), Arc::clone(route));
        let running: Running = Box::pin(async move {
            let begun = Instant::now();
            let ids = orders.iter().map(|order| order.order_id).collect();
            let judgements = host.judge(&route, orders, &pace).await;
            Judged { route, batch, ids, judgements, took: begun.elapsed() }
        });
        (batch, running)
    }

    /// Notes the orders of a batch that goes on aside. From now on its route lags.
    pub(super) fn note(&mut self, route: &Arc<str>, number: u64, orders: impl Iterator<Item = (OrderId, Slot)>) {
        let lagging = self.lagging.entry(Arc::clone(route)).or_default();
        lagging.quick = 0;
        lagging.results.clear();
        lagging.outstanding.extend(orders.map(|(id, slot)| (id, (slot, number))));
    }

    /// Goes on with batches that were noted.
    pub(super) fn run(&mut self, batches: impl IntoIterator<Item = Running>) {
        self.running.extend(batches);
    }

    /// Takes in what has been judged meanwhile.
    pub(super) fn collect(&mut self, patience: Duration) {
        while let Some(Some(judged)) = self.running.next().now_or_never() {
            self.take(judged, patience);
        }
    }

    /// Waits until a batch has been judged. Safe to cancel.
    pub(super) async fn finished(&mut self, patience: Duration) {
        if let Some(judged) = self.running.next().await {
            self.take(judged, patience);
        }
    }

    /// Waits until nothing runs any more.
    pub(super) async fn idle(&mut self, patience: Duration) {
        while !self.running.is_empty() {
            self.finished(patience).await;
        }
    }

    fn take(&mut self, judged: Judged, patience: Duration) {
        let Judged { route, ids, judgements, took, .. } = judged;
        let Some(lagging) = self.lagging.get_mut(&route) else { return };
        let ran_out_of_time =
            |judgement: &Judgement| matches!(&judgement.decision, Decision::Fault { kind: FaultKind::Time, .. });
        let is_quick = took < patience && !judgements.iter().any(ran_out_of_time);
        lagging.quick = if is_quick { lagging.quick + 1 } else { 0 };
        for (id, judgement) in ids.into_iter().zip(judgements) {
            // What was revised or cancelled meanwhile is no longer of this batch.
            let Some(&(slot, batch)) = lagging.outstanding.get(&id) else { continue };
            if batch == judged.batch {
                lagging.outstanding.remove(&id);
                lagging.results.insert(id, (slot, judgement));
            }
        }
    }

    /// Whether a route's orders are judged aside.
    pub(super) fn lags(&self, route: &str) -> bool {
        self.lagging.get(route).is_some_and(|lagging| lagging.quick < QUICK_BATCHES || !lagging.outstanding.is_empty())
    }

    /// Whether orders of a route are being judged aside now.
    pub(super) fn is_busy(&self, route: &str) -> bool {
        self.lagging.get(route).is_some_and(|lagging| !lagging.outstanding.is_empty())
    }

    /// Whether nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The result for an order, once.
    pub(super) fn result(&mut self, route: &str, id: OrderId) -> Option<Judgement> {
        Some(self.lagging.get_mut(route)?.results.remove(&id)?.1)
    }

    /// The order has changed: what was or is being judged of it does not count.
    pub(super) fn forget_order(&mut self, route: &str, id: OrderId) {
        if let Some(lagging) = self.lagging.get_mut(route) {
            lagging.outstanding.remove(&id);
            lagging.results.remove(&id);
        }
    }

    /// The slots whose orders are being judged aside.
    pub(super) fn slots(&self) -> HashSet<Slot> {
        self.lagging.values().flat_map(|lagging| lagging.outstanding.values().map(|(slot, _)| *slot)).collect()
    }

    /// Forgets everything about a slot: what is being judged of it does not count.
    pub(super) fn forget_slot(&mut self, slot: Slot) {
        for lagging in self.lagging.values_mut() {
            lagging.outstanding.retain(|_, (own, _)| *own != slot);
            lagging.results.retain(|_, (own, _)| *own != slot);
        }
    }
}
