//! Decides: entries and due held orders go through the plugins, and what they say is committed as records.
//!
//! One pass takes a batch over all slots. Plugins run before the transaction, never inside it. What must wait moves to
//! the held table with those behind it under the same key; everything else goes on (PROTOCOL D1 to D10).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::arrange::{Arranged, HeldKeys, Key, Work, arrange};
use super::aside::{self, Aside};
use super::records::{order_records, outcome_record};
use super::{HandOver, Routes};
use crate::clock::{Clock, Timestamp};
use crate::config::RelayConfig;
use crate::crash::{self, Point};
use crate::entry::{EntryKind, EntryPlace};
use crate::order::timeline::Happening;
use crate::order::{OrderId, Slot};
use crate::outbox::{
    HeldOrder, Item, Origin, Outbox, OutboxError, Pass, ReadEntries, ReadLimits, SlotDecided, SlotPass, Step, Strikes,
    Suspicion, Tenure,
};
use crate::plugin::{Decision, FaultKind, Judgement, PluginHost};
use crate::record::Record;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

/// So many deaths of the process at one cursor make a slot suspect, and an order dead.
pub(super) const DEATHS_MAX: u32 = 3;
/// Slots that had nothing to carry are moved on after so many entries of others, or after so long.
const IDLE_ENTRIES: usize = 2_000;
const IDLE_TIME: Duration = Duration::from_secs(60);

/// The deciding half of the relay.
#[derive(Debug)]
pub struct Decider {
    pub(super) outbox: Outbox,
    pub(super) plugins: PluginHost,
    pub(super) routes: Routes,
    pub(super) limits: RelayConfig,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) hand_over: HandOver,
    pub(super) slots: HashMap<Slot, SlotState>,
    pub(super) held: HeldKeys,
    pub(super) aside: Aside,
    pub(super) idle: Idle,
}

/// Since when, and since how many entries, slots without entries have stayed where they were.
#[derive(Debug)]
pub(super) struct Idle {
    since: Instant,
    pub(super) entries: usize,
}

impl Default for Idle {
    fn default() -> Self {
        Self { since: Instant::now(), entries: 0 }
    }
}

/// What the decider knows of a slot it owns.
#[derive(Debug)]
pub(super) struct SlotState {
    pub(super) epoch: i64,
    pub(super) cursor: EntryPlace,
    /// Every entry of it up to here is carried; the cursor follows where there was something to carry.
    pub(super) read_to: EntryPlace,
    pub(super) suspicion: Option<Suspicion>,
    /// The last entry that the batch can have had over which the process died.
    suspect_to: EntryPlace,
}

impl SlotState {
    /// Whether its entries run one by one and alone in the process.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspicion.as_ref().is_some_and(|suspicion| suspicion.deaths >= DEATHS_MAX)
    }

    pub(super) fn is_culprit(&self, id: OrderId) -> bool {
        self.suspicion.as_ref().is_some_and(|suspicion| suspicion.alone == Some(id))
    }
}

impl Decider {
    /// Forgets everything about these slots and reads it from the database (PROTOCOL O5); others are not touched.
    pub(super) async fn load(&mut self, tenures: Vec<Tenure>) -> Result<(), OutboxError> {
        tenures.iter().for_each(|tenure| self.forget(tenure.slot));
        let slots: HashSet<Slot> = tenures.iter().map(|tenure| tenure.slot).collect();
        let held = self.outbox.held_keys().await?;
        let is_quiet = tenures.iter().all(|tenure| tenure.suspicion.is_none());
        let suspect_to = if is_quiet { EntryPlace::default() } else { self.outbox.last_entry().await? };
        let held = held.into_iter().filter(|(slot, ..)| slots.contains(slot));
        held.for_each(|(_, route, order_key)| self.held.insert((route, order_key)));
        for tenure in tenures {
            let Tenure { slot, epoch, decide_cursor: cursor, suspicion, .. } = tenure;
            if let Some(suspicion) = &suspicion {
                let deaths = suspicion.deaths;
                warn!(slot = slot.0, deaths, "the process died while it decided slot {}", slot.0);
            }
            self.slots.insert(slot, SlotState { epoch, cursor, read_to: cursor, suspicion, suspect_to });
        }
        Ok(())
    }

    /// Forgets everything about a slot.
    pub(super) fn forget(&mut self, slot: Slot) {
        if self.slots.remove(&slot).is_some() {
            self.held.forget_slot(slot);
            self.aside.forget_slot(slot);
        }
    }

    /// Runs one pass and returns how many entries and held orders it looked at.
    pub async fn pass(&mut self) -> Result<usize, OutboxError> {
        let limits = ReadLimits { count: self.limits.pass_entries_max, bytes: self.limits.pass_bytes_max.0 };
        self.aside.collect(self.limits.patience.0);
        if self.slots.is_empty() {
            return Ok(0);
        }
        let due = self.due(limits).await?;
        let after: Vec<_> = self.slots.iter().map(|(slot, state)| (*slot, state.read_to)).collect();
        let ReadEntries { entries, looked_at: read, mut read_to, has_more } =
            self.outbox.entries(&after, limits).await?;
        let looked_at = due.len() + entries.len();
        self.idle.entries += read;
        let slots = &self.slots;
        let is_suspect = |slot| slots.get(&slot).is_some_and(SlotState::is_suspect);
        let Arranged { mut work, cut_at } = arrange(due, entries, &self.held, is_suspect);
        for (slot, place) in &mut read_to {
            *place = cut_at.get(slot).copied().unwrap_or(*place);
        }
        if !work.is_empty() {
            crash::at(Point::EntriesRead);
            let ran_alone = self.judge(&mut work).await?;
            crash::at(Point::Judged);
            let pass = self.resolve(work, ran_alone);
            self.commit(pass).await?;
        }
        for (slot, place) in read_to {
            // Those that were lost are not there any more.
            if let Some(state) = self.slots.get_mut(&slot) {
                state.read_to = state.read_to.max(place);
            }
        }
        self.advance_idle().await?;
        // What other slots carry already may have filled the batch: behind it there may be more.
        Ok(looked_at + usize::from(has_more))
    }

    /// Held orders that are due, but for those of routes whose last batch is still judged aside.
    async fn due(&mut self, limits: ReadLimits) -> Result<Vec<HeldOrder>, OutboxError> {
        let routes = self.due_routes(limits.count);
        if routes.is_empty() {
            return Ok(Vec::new());
        }
        let mut due = self.outbox.due(routes, limits.bytes).await?;
        due.retain(|held| self.slots.contains_key(&held.entry.slot));
        Ok(due)
    }

    /// Routes whose held orders are looked at, and how many of each.
    fn due_routes(&self, count_max: usize) -> Vec<(Arc<str>, usize)> {
        let count = |route: &Arc<str>| if self.aside.lags(route) { aside::BATCH_ORDERS_MAX } else { count_max };
        let routes = self.held.routes().filter(|route| !self.aside.is_busy(route));
        routes.map(|route| (Arc::clone(route), count(route))).collect()
    }

    /// Turns judgements into steps, in order, so that whoever stands behind a held order stays there.
    fn resolve(&self, work: Vec<Work>, ran_alone: bool) -> Pass {
        let now = self.clock.now();
        let mut slots: Vec<SlotPass> = Vec::new();
        let mut index_of: HashMap<Slot, usize> = HashMap::new();
        let mut stopped: HashSet<Key> = HashSet::new();
        for work in work {
            let (slot, key) = (work.entry.slot, work.key());
            let Some(state) = self.slots.get(&slot) else { continue };
            let index = *index_of.entry(slot).or_insert_with(|| {
                let (epoch, from) = (state.epoch, state.cursor);
                slots.push(SlotPass { slot, epoch, from, to: from, items: Vec::new(), clears_suspicion: false });
                slots.len() - 1
            });
            let part = &mut slots[index];
            if let Origin::Entry { place, .. } = work.origin {
                part.to = place;
                // A suspect stays one until the whole batch is past: its killer need not be the first.
                part.clears_suspicion = state.suspicion.is_some() && (!state.is_suspect() || place >= state.suspect_to);
            } else if stopped.contains(&key) {
                // It stays behind the one of its key that still has to wait.
                continue;
            }
            let is_behind = work.is_order() && (work.is_behind || stopped.contains(&key));
            let item = match work.origin {
                _ if is_behind => work.moves(Step::Behind),
                Origin::Held { .. } if work.is_aside => {
                    // It stays as it is until its judgement is there, and so do those behind it.
                    stopped.insert(key);
                    continue;
                }
                Origin::Entry { .. } if work.is_aside => work.moves(Step::Aside),
                _ => self.step(work, now),
            };
            if matches!(item.step, Step::Hold { .. } | Step::Aside) {
                stopped.insert(key);
            }
            self.metrics.relay_decided.get_or_create(&KindLabel { kind: kind_of(&item.step) }).inc();
            part.items.push(item);
        }
        let still_open = self.aside.slots().into_iter().map(|slot| {
            let part = slots.iter().find(|part| part.slot == slot);
            format!("{}:{}", slot.0, part.map_or_else(|| self.cursor(slot), |part| part.to))
        });
        let still_open = still_open.collect::<Vec<_>>().join(",");
        Pass { slots, ran_alone, still_open }
    }

    /// What follows from what is known about one order.
    fn step(&self, work: Work, now: Timestamp) -> Item {
        let (is_culprit, by) = (self.is_culprit(&work), work.by());
        let route = self.routes.get(&work.entry.route);
        let Work { entry, origin, since, strikes, attempts, judgement, .. } = work;
        let (mut runs, mut plugins) = (Vec::new(), String::new());
        let step = match (entry.kind, judgement) {
            (EntryKind::Cancel, _) => Step::Cancel,
            (EntryKind::Discard, _) => Step::Discard,
            (EntryKind::Revise, _) => Step::Revise(entry.payload.clone().unwrap_or_default()),
            (EntryKind::Outcome, _) => match route.and_then(|route| outcome_record(&entry, route, now)) {
                Some(record) => Step::Outcome(Box::new(record)),
                None => Step::Skip,
            },
            (EntryKind::Order | EntryKind::Redrive, Some(judgement)) => {
                (runs, plugins) = said(&judgement);
                let hold = Waiting { since, attempts, strikes, now };
                match (judgement.decision, route) {
                    (Decision::Pass { patch, body, headers }, Some(route)) => {
                        let records = order_records(&entry, route, &body, &headers, &plugins, now);
                        let patch = (!patch.is_empty()).then(|| serde_json::to_string(&patch).unwrap_or_default());
                        Step::Pass { records, patch }
                    }
                    (Decision::Pass { .. }, None) => self.no_route(&entry.route, &hold),
                    (Decision::Reject(problems), _) => Step::Reject(problems),
                    (Decision::Later { plugin, reason, after }, _) => {
                        let detail = format!("plugin `{plugin}` asks to be asked later: {reason}");
                        self.wait("retry-later", detail, after, &hold)
                    }
                    (Decision::Fault { plugin, kind, detail }, _) => {
                        let detail = format!("plugin `{plugin}` failed ({}): {detail}", kind.as_str());
                        self.fault(kind, detail, hold)
                    }
                }
            }
            (EntryKind::Order | EntryKind::Redrive, None) => {
                // Not judged: the process died over it.
                let deaths = if is_culprit { 1 } else { strikes.deaths };
                let hold = Waiting { since, attempts, strikes: Strikes { deaths, ..strikes }, now };
                if deaths >= DEATHS_MAX {
                    let detail = format!("the process died {deaths} times while this order was judged alone");
                    Step::Die { reason: "killed-the-process", detail }
                } else {
                    let detail = "the process died while this order was judged alone".to_owned();
                    self.wait("killed-the-process", detail, self.backoff(attempts), &hold)
                }
            }
        };
        Item { order_id: entry.order_id, origin, step, runs, plugins, by }
    }

    fn no_route(&self, route: &str, hold: &Waiting) -> Step {
        let detail = format!("the configuration has no route {route} any more: add it again, or discard the order");
        self.wait("no-route", detail, self.backoff(hold.attempts), hold)
    }

    /// Holds the order that a plugin failed on, or gives it up when it did so too often. A plugin that is not there
    /// says nothing about the order.
    fn fault(&self, kind: FaultKind, detail: String, mut hold: Waiting) -> Step {
        if kind != FaultKind::Absent {
            hold.strikes.faults += 1;
        }
        let faults = hold.strikes.faults;
        if kind != FaultKind::Absent && faults >= self.plugins.poison_faults() {
            return Step::Die { reason: "poison", detail: format!("{detail} (for the {faults}. time)") };
        }
        let after = self.backoff(hold.attempts);
        self.wait("fault", detail, after, &hold)
    }

    /// Holds the order, or gives it up when it was held for too long (PROTOCOL D6).
    fn wait(&self, reason: &str, detail: String, after: Duration, hold: &Waiting) -> Step {
        let since = hold.since.unwrap_or(hold.now);
        let last = since.after(self.limits.hold_max.0);
        if hold.now >= last {
            return Step::Die { reason: "held-too-long", detail };
        }
        let due_at = hold.now.after(after).min(last);
        Step::Hold { reason: reason.to_owned(), detail, due_at, strikes: hold.strikes }
    }

    fn backoff(&self, attempts: u32) -> Duration {
        crate::retry::backoff(self.limits.retry_first.0, self.limits.retry_max.0, attempts, fastrand::f64())
    }

    async fn commit(&mut self, pass: Pass) -> Result<(), OutboxError> {
        let slots: Vec<Slot> = pass.slots.iter().map(|part| part.slot).collect();
        let pass = Arc::new(pass);
        let decided = self.outbox.decide(Arc::clone(&pass)).await?;
        crash::at(Point::Decided);
        let mut lost = Vec::new();
        let mut records = Vec::new();
        // The writer let go of it before it answered.
        let mut pass = Arc::into_inner(pass);
        for (index, result) in decided.slots.into_iter().enumerate() {
            let (Ok(SlotDecided { numbers, held_keys }), Some(pass)) = (result, pass.as_mut()) else {
                lost.push(slots[index]);
                continue;
            };
            let part = &mut pass.slots[index];
            if let Some(state) = self.slots.get_mut(&part.slot) {
                if part.clears_suspicion {
                    state.suspicion = None;
                } else if part.to != part.from
                    && let Some(suspicion) = &mut state.suspicion
                {
                    suspicion.alone = None;
                }
                state.cursor = part.to;
            }
            for (route, key, is_held) in held_keys {
                if is_held {
                    self.held.insert((route, key))
                } else {
                    self.held.remove(&route, &key)
                };
            }
            records.extend(part.items.drain(..).zip(numbers).flat_map(|(item, first)| numbered(item, first)));
        }
        self.hand_over.give(records);
        self.lose(lost);
        Ok(())
    }

    /// The database has other cursors or epochs of these: they are loaded afresh before the next pass, if they are
    /// still ours.
    fn lose(&mut self, lost: Vec<Slot>) {
        if lost.is_empty() {
            return;
        }
        self.metrics.relay_abandoned.inc();
        info!("{} slots were lost: what is still ours of them is loaded afresh", lost.len());
        lost.into_iter().for_each(|slot| self.forget(slot));
    }

    /// Moves slots without entries on, so that a restart need not read past them, and what they have behind them can go.
    async fn advance_idle(&mut self) -> Result<(), OutboxError> {
        if self.idle.entries < IDLE_ENTRIES && self.idle.since.elapsed() < IDLE_TIME {
            return Ok(());
        }
        self.idle = Idle::default();
        // What is under way is named by its cursor, so that a death over it is found (PROTOCOL D10): it has to stay.
        let under_way = self.aside.slots();
        let behind = |(slot, state): &(&Slot, &SlotState)| {
            state.read_to > state.cursor && state.suspicion.is_none() && !under_way.contains(slot)
        };
        let Some(to) = self.slots.iter().filter(behind).map(|(_, state)| state.read_to).min() else { return Ok(()) };
        let idle: Vec<(Slot, i64, EntryPlace)> = self
            .slots
            .iter()
            .filter(|own| own.1.cursor < to && behind(own))
            .map(|(slot, state)| (*slot, state.epoch, state.cursor))
            .collect();
        let slots: Vec<Slot> = idle.iter().map(|(slot, ..)| *slot).collect();
        if self.outbox.advance_idle(idle, to).await? {
            for slot in slots {
                if let Some(state) = self.slots.get_mut(&slot) {
                    state.cursor = to;
                }
            }
        } else {
            self.lose(slots);
        }
        Ok(())
    }
}

/// How long an order waits already.
struct Waiting {
    since: Option<Timestamp>,
    attempts: u32,
    strikes: Strikes,
    now: Timestamp,
}

/// The records of an item, if it made any, with their numbers.
fn numbered(item: Item, first: Option<i64>) -> impl Iterator<Item = Record> {
    let records = match item.step {
        Step::Pass { records, .. } if first.is_some() => records,
        Step::Outcome(record) if first.is_some() => vec![*record],
        _ => Vec::new(),
    };
    records.into_iter().zip(first.unwrap_or_default()..).map(|(record, number)| Record { number, ..record })
}

/// What the plugins said, for the timeline and for the record.
fn said(judgement: &Judgement) -> (Vec<Happening>, String) {
    let runs = judgement.runs.iter().map(|run| Happening::Plugin {
        name: Arc::clone(&run.name),
        digest: Arc::clone(&run.digest),
        verdict: run.verdict,
        micros: run.micros,
    });
    let plugins: Vec<String> = judgement.runs.iter().map(|run| format!("{}@{}", run.name, run.digest)).collect();
    (runs.collect(), plugins.join(","))
}

fn kind_of(step: &Step) -> &'static str {
    match step {
        Step::Pass { .. } => "pass",
        Step::Reject(_) => "reject",
        Step::Hold { .. } => "hold",
        Step::Aside => "aside",
        Step::Behind => "behind",
        Step::Die { .. } => "dead",
        Step::Outcome(_) | Step::Skip => "outcome",
        Step::Cancel | Step::Revise(_) | Step::Discard => "command",
    }
}
