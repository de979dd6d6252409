//! Has a pass judged: most orders together with those of their route, some aside, suspects alone.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tracing::info;

use super::arrange::Work;
use super::aside::Running;
use super::decide::{DEATHS_MAX, Decider, SlotState};
use crate::entry::{EntryKind, EntryPlace};
use crate::order::Slot;
use crate::outbox::{Origin, OutboxError};
use crate::plugin::{Candidate, Pace};

/// Places in a pass's work, by route.
type Batches = HashMap<Arc<str>, Vec<usize>>;

impl Decider {
    /// Runs the chains, route by route at the same time; suspects alone. Returns whether any ran alone.
    pub(super) async fn judge(&mut self, work: &mut [Work]) -> Result<bool, OutboxError> {
        let (by_route, lagging, alone) = self.sort(work);
        let slots_of = |indexes: &Vec<usize>| indexes.iter().map(|index| work[*index].entry.slot).collect::<Vec<_>>();
        let together: HashSet<Slot> = by_route.values().chain(lagging.values()).flat_map(slots_of).collect();
        if !together.is_empty() {
            let names = self.names(together.iter().copied().chain(self.aside.slots()));
            self.outbox.begin(names, None).await?;
        }
        for (route, indexes) in lagging {
            let pace = Pace::default();
            pace.slow_down();
            let (number, batch) = self.batch(&route, &indexes, work, pace);
            self.leave_aside(&route, number, &indexes, work);
            self.aside.run([batch]);
        }
        self.judge_together(by_route, work, &together).await;
        if !alone.is_empty() {
            // Whoever is blamed for the end of the process must be alone in it.
            self.aside.idle(self.limits.patience.0).await;
        }
        for index in &alone {
            let item = &work[*index];
            if self.is_culprit(item) || item.strikes.deaths >= DEATHS_MAX {
                continue;
            }
            // Its slot only: nobody else runs now.
            let (slot, id) = (item.entry.slot, item.entry.order_id);
            self.outbox.begin(self.name(slot), Some((slot, self.cursor(slot), id))).await?;
            let judgement = self.plugins.judge_alone(&item.entry.route, self.candidate(item)).await;
            work[*index].judgement = Some(judgement);
        }
        // What is revised or cancelled in this very pass was sent to be judged as it was before.
        let is_changed = |item: &&Work| matches!(item.entry.kind, EntryKind::Cancel | EntryKind::Revise);
        for item in work.iter().filter(is_changed) {
            self.aside.forget_order(&item.entry.route, item.entry.order_id);
        }
        Ok(!alone.is_empty())
    }

    /// Who is judged now, by route; who is judged aside, by route; and who alone. What was judged aside before gets its
    /// judgement here.
    fn sort(&mut self, work: &mut [Work]) -> (Batches, Batches, Vec<usize>) {
        let (mut by_route, mut lagging, mut alone) = (Batches::new(), Batches::new(), Vec::new());
        for (index, item) in work.iter_mut().enumerate().filter(|(_, item)| item.is_judged) {
            let route = &item.entry.route;
            let is_held = matches!(item.origin, Origin::Held { .. });
            if is_held && let Some(judgement) = self.aside.result(route, item.entry.order_id) {
                item.judgement = Some(judgement);
            } else if self.runs_alone(item) {
                alone.push(index);
            } else if !self.aside.lags(route) {
                by_route.entry(Arc::clone(route)).or_default().push(index);
            } else {
                item.is_aside = true;
                if is_held {
                    lagging.entry(Arc::clone(route)).or_default().push(index);
                }
            }
        }
        (by_route, lagging, alone)
    }

    fn batch(&mut self, route: &Arc<str>, indexes: &[usize], work: &[Work], pace: Pace) -> (u64, Running) {
        let candidates = indexes.iter().map(|index| self.candidate(&work[*index])).collect();
        self.aside.batch(&self.plugins, route, candidates, pace)
    }

    /// Leaves orders of a batch to what is judged aside.
    fn leave_aside(&mut self, route: &Arc<str>, number: u64, indexes: &[usize], work: &mut [Work]) {
        for index in indexes {
            work[*index].is_aside = true;
        }
        let orders = indexes.iter().map(|index| (work[*index].entry.order_id, work[*index].entry.slot));
        self.aside.note(route, number, orders);
    }

    /// Judges batches of different routes at the same time. What takes too long goes on aside, unless there is no other
    /// route to wait for it, or a slot is under suspicion: then all must be seen to survive before a cursor moves.
    async fn judge_together(&mut self, by_route: Batches, work: &mut [Work], slots: &HashSet<Slot>) {
        let is_suspicious = |slot: &Slot| self.slots.get(slot).is_some_and(|state| state.suspicion.is_some());
        let has_time = self.routes.len() < 2 || slots.iter().any(is_suspicious);
        let mut running = FuturesUnordered::new();
        let mut open: HashMap<Arc<str>, (u64, Pace, Vec<usize>)> = HashMap::new();
        for (route, indexes) in by_route {
            let pace = Pace::default();
            let (number, batch) = self.batch(&route, &indexes, work, pace.clone());
            running.push(batch);
            open.insert(route, (number, pace, indexes));
        }
        let mut patience = pin!(tokio::time::sleep(self.limits.patience.0));
        loop {
            tokio::select! {
                // What is there counts, also when the time is up.
                biased;
                judged = running.next() => {
                    let Some(judged) = judged else { return };
                    let (route, judgements) = judged.into_judgements();
                    let places = open.remove(&route).into_iter().flat_map(|(.., indexes)| indexes);
                    for (index, judgement) in places.zip(judgements) {
                        work[index].judgement = Some(judgement);
                    }
                }
                () = &mut patience, if !has_time => break,
            }
        }
        for (route, (number, pace, indexes)) in open {
            pace.slow_down();
            info!(route = &*route, "the plugins of {route} take long: its orders are judged aside");
            self.leave_aside(&route, number, &indexes, work);
        }
        self.aside.run(running);
    }

    pub(super) fn cursor(&self, slot: Slot) -> EntryPlace {
        self.slots.get(&slot).map_or_else(EntryPlace::default, |slot| slot.cursor)
    }

    /// What parts of a pass are called in the database.
    fn names(&self, slots: impl IntoIterator<Item = Slot>) -> String {
        let slots: HashSet<Slot> = slots.into_iter().collect();
        slots.into_iter().map(|slot| self.name(slot)).collect::<Vec<_>>().join(",")
    }

    /// What a slot's part of a pass is called in the database.
    fn name(&self, slot: Slot) -> String {
        format!("{}:{}", slot.0, self.cursor(slot))
    }

    fn runs_alone(&self, work: &Work) -> bool {
        work.strikes.deaths > 0
            || self.slots.get(&work.entry.slot).is_some_and(SlotState::is_suspect)
            || self.is_culprit(work)
    }

    pub(super) fn is_culprit(&self, work: &Work) -> bool {
        work.strikes.deaths == 0
            && self.slots.get(&work.entry.slot).is_some_and(|slot| slot.is_culprit(work.entry.order_id))
    }

    fn candidate(&self, work: &Work) -> Candidate {
        let route = self.routes.get(&work.entry.route);
        Candidate {
            order_id: work.entry.order_id,
            route: Arc::clone(&work.entry.route),
            event_type: route.map_or_else(|| Arc::from(""), |route| Arc::from(route.event_type.as_str())),
            received: work.entry.accepted_at,
            attempt: work.attempts + 1,
            traceparent: Arc::clone(&work.entry.traceparent),
            body: work.entry.body.clone(),
        }
    }
}
