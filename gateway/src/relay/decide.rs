//! Decides: entries and due held orders go through the plugins, and what they say is committed as records.
//!
//! One pass takes a batch over all slots. Plugins run before the transaction, never inside it. What must wait moves to
//! the held table with those behind it under the same key; everything else goes on (PROTOCOL D1 to D10).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tracing::{info, warn};

use super::arrange::{Arranged, HeldKeys, Key, Work, arrange};
use super::aside::{self, Aside};
use super::records::{order_record, outcome_record};
use super::{HandOver, Routes};
use crate::clock::{Clock, Timestamp};
use crate::config::RelayConfig;
use crate::entry::EntryKind;
use crate::order::timeline::Happening;
use crate::order::{OrderId, Slot};
use crate::outbox::{
    HeldOrder, Item, Origin, Outbox, OutboxError, Pass, ReadLimits, SlotDecided, SlotPass, Step, Strikes, Suspicion,
    Tenure,
};
use crate::plugin::{Decision, FaultKind, Judgement, PluginHost};
use crate::record::Record;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

/// So many deaths of the process at one cursor make a slot suspect, and an order dead.
pub(super) const DEATHS_MAX: u32 = 3;
/// Slots that had nothing to carry are moved on when they lag so far behind the log.
const IDLE_LAG_MAX: i64 = 10_000;

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
    /// Every entry up to this one is carried.
    pub(super) position: i64,
}

/// What the decider knows of a slot it owns.
#[derive(Debug)]
pub(super) struct SlotState {
    epoch: i64,
    pub(super) cursor: i64,
    pub(super) suspicion: Option<Suspicion>,
    /// The last entry that the batch can have had over which the process died.
    suspect_to: i64,
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
    /// Forgets everything and reads it from the database (PROTOCOL O5).
    pub(super) async fn load(&mut self, tenures: Vec<Tenure>) -> Result<(), OutboxError> {
        self.aside.clear();
        self.held = self.outbox.held_keys().await?.into_iter().map(|(_, route, key)| (route, key)).collect();
        self.position = tenures.iter().map(|tenure| tenure.decide_cursor).min().unwrap_or(0);
        let is_quiet = tenures.iter().all(|tenure| tenure.suspicion.is_none());
        let suspect_to = if is_quiet { 0 } else { self.outbox.last_entry().await? };
        self.slots = tenures
            .into_iter()
            .map(|tenure| {
                let Tenure { slot, epoch, decide_cursor: cursor, suspicion, .. } = tenure;
                if let Some(suspicion) = &suspicion {
                    warn!(
                        slot = slot.0,
                        deaths = suspicion.deaths,
                        "the process died while it decided slot {}",
                        slot.0
                    );
                }
                (slot, SlotState { epoch, cursor, suspicion, suspect_to })
            })
            .collect();
        Ok(())
    }

    /// Runs one pass and returns how many entries and held orders it looked at.
    pub async fn pass(&mut self) -> Result<usize, OutboxError> {
        let limits = ReadLimits { count: self.limits.pass_entries_max, bytes: self.limits.pass_bytes_max.0 };
        self.aside.collect(self.limits.patience.0);
        let due = self.due(limits).await?;
        let entries = self.outbox.entries(self.position, limits).await?;
        let looked_at = due.len() + entries.len();
        let read_to = entries.last().map_or(self.position, |entry| entry.number);
        let slots = &self.slots;
        let arranged = arrange(due, entries, &self.held, |entry| {
            let slot = slots.get(&entry.slot);
            (slot.is_none_or(|slot| entry.number <= slot.cursor), slot.is_some_and(SlotState::is_suspect))
        });
        let Arranged { mut work, cut_at } = arranged;
        let to = cut_at.unwrap_or(read_to);
        if work.is_empty() {
            self.position = to;
            self.advance_idle().await?;
            // What was carried already counts: behind it there may be more.
            return Ok(looked_at);
        }
        let ran_alone = self.judge(&mut work).await?;
        let pass = self.resolve(work, ran_alone);
        self.commit(pass, to).await?;
        self.advance_idle().await?;
        Ok(looked_at)
    }

    /// Held orders that are due, but for those of routes whose last batch is still judged aside.
    async fn due(&mut self, limits: ReadLimits) -> Result<Vec<HeldOrder>, OutboxError> {
        let routes = self.due_routes(limits.count);
        if routes.is_empty() { Ok(Vec::new()) } else { self.outbox.due(routes, limits.bytes).await }
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
            if let Origin::Entry { number, .. } = work.origin {
                part.to = number;
                // A suspect stays one until the whole batch is past: its killer need not be the first.
                part.clears_suspicion =
                    state.suspicion.is_some() && (!state.is_suspect() || number >= state.suspect_to);
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
        let is_culprit = self.is_culprit(&work);
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
                        let record = Box::new(order_record(&entry, route, body, &headers, &plugins, now));
                        let patch = (!patch.is_empty()).then(|| serde_json::to_string(&patch).unwrap_or_default());
                        Step::Pass { record, patch }
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
        Item { order_id: entry.order_id, origin, step, runs, plugins }
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
    fn wait(&self, reason: &str, detail: String, after: std::time::Duration, hold: &Waiting) -> Step {
        let since = hold.since.unwrap_or(hold.now);
        let last = since.after(self.limits.hold_max.0);
        if hold.now >= last {
            return Step::Die { reason: "held-too-long", detail };
        }
        let due_at = hold.now.after(after).min(last);
        Step::Hold { reason: reason.to_owned(), detail, due_at, strikes: hold.strikes }
    }

    fn backoff(&self, attempts: u32) -> std::time::Duration {
        crate::retry::backoff(self.limits.retry_first.0, self.limits.retry_max.0, attempts, fastrand::f64())
    }

    async fn commit(&mut self, pass: Pass, to: i64) -> Result<(), OutboxError> {
        let pass = Arc::new(pass);
        let decided = self.outbox.decide(Arc::clone(&pass)).await?;
        let mut is_lost = false;
        let mut records = Vec::new();
        // The writer let go of it before it answered.
        let mut pass = Arc::into_inner(pass);
        for (index, result) in decided.slots.into_iter().enumerate() {
            let Ok(SlotDecided { numbers, held_keys }) = result else {
                is_lost = true;
                continue;
            };
            let Some(pass) = pass.as_mut() else {
                is_lost = true;
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
            records.extend(part.items.drain(..).zip(numbers).filter_map(|(item, number)| numbered(item, number?)));
        }
        self.hand_over.give(records);
        if is_lost {
            self.metrics.relay_abandoned.inc();
            info!("slots were lost: loading them afresh");
            let tenures = self.outbox.tenures().await?;
            self.load(tenures).await?;
        } else {
            self.position = to;
        }
        Ok(())
    }

    /// Moves slots without entries on, so that a restart need not read past them.
    async fn advance_idle(&mut self) -> Result<(), OutboxError> {
        let lagging: Vec<(Slot, i64, i64)> = self
            .slots
            .iter()
            .filter(|(_, state)| self.position - state.cursor > IDLE_LAG_MAX)
            .map(|(slot, state)| (*slot, state.epoch, state.cursor))
            .collect();
        if lagging.is_empty() {
            return Ok(());
        }
        let slots: Vec<Slot> = lagging.iter().map(|(slot, ..)| *slot).collect();
        if self.outbox.advance_idle(lagging, self.position).await? {
            for slot in slots {
                if let Some(state) = self.slots.get_mut(&slot) {
                    state.cursor = self.position;
                }
            }
        } else {
            let tenures = self.outbox.tenures().await?;
            self.load(tenures).await?;
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

fn numbered(item: Item, number: i64) -> Option<Record> {
    match item.step {
        Step::Pass { record, .. } | Step::Outcome(record) => Some(Record { number, ..*record }),
        _ => None,
    }
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
