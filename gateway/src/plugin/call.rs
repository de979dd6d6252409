//! One call of one plugin, in whichever lane: instantiate, configure, process, and say what went wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmtime::{Store, Trap, UpdateDeadline};

use super::engine::Runtime;
use super::host::{Ended, Host, bindings};
use super::limits::{MemoryIsUp, TimeIsUp};
use super::load::{Code, LoadedPlugin};
use super::reported::Reported;
use super::{FaultKind, bytes_lane};
use crate::crash::{self, Point};

pub(super) use bindings::sluice::plugin::types::{Event, Outcome, PatchOp, Problem, Verdict};

/// What wasmtime says where an answer is longer than `set_hostcall_fuel` allows; it has no type for it.
pub(super) const OUTPUT_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// At its loading a plugin has the time of a batch with so many orders: it is asked once, and the first instance on a busy machine
/// must not be what refuses it.
const LOADING_ORDERS: usize = 64;

/// One plugin and what a call of it needs.
#[derive(Clone, Copy)]
pub(super) struct Call<'host> {
    pub(super) runtime: &'host Runtime,
    pub(super) plugin: &'host LoadedPlugin,
}

/// Why a call gave no outcomes.
#[derive(Debug)]
pub(super) enum Failure {
    Fault {
        kind: FaultKind,
        detail: String,
    },
    /// The plugin says that its configuration is wrong.
    Refused(Vec<String>),
}

impl Failure {
    pub(super) fn contract(detail: String) -> Self {
        Self::Fault { kind: FaultKind::Contract, detail }
    }
}

impl Call<'_> {
    /// Configures an instance and drops it.
    pub(super) fn configure(self) -> Result<(), Failure> {
        self.guarded(LOADING_ORDERS, &[], |_| ()).map(drop)
    }

    /// Has a batch processed in a fresh instance. Outcome *i* belongs to event *i*; with them, what was reported meanwhile.
    pub(super) fn process(self, events: &[Event<'_>]) -> Result<(Vec<Outcome>, Reported), Failure> {
        self.guarded(events.len(), events, |_| ())
    }

    /// The same, and `look` sees the instance's store at the end of a call that did not fail.
    pub(super) fn observed(
        self,
        events: &[Event<'_>],
        look: impl FnOnce(&Store<Host>),
    ) -> Result<(Vec<Outcome>, Reported), Failure> {
        self.guarded(events.len(), events, look)
    }

    /// Asks a fresh, configured instance about events. It is gone afterwards, whatever happened.
    fn guarded(
        self,
        orders: usize,
        events: &[Event<'_>],
        look: impl FnOnce(&Store<Host>),
    ) -> Result<(Vec<Outcome>, Reported), Failure> {
        let _calling = self.runtime.calling();
        let bytes = events.iter().map(|event| event.body.len()).sum();
        // A panic in a host function unwinds through the instance, which is dropped with its store.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let mut store = self.store(orders, bytes);
            let done = match self.plugin.code() {
                Code::Component(pre) => self.ask(pre, &mut store, events),
                Code::Bytes(pre) => {
                    let output_bytes_max = self.plugin.limits().output_bytes_max;
                    bytes_lane::run(pre, &mut store, self.plugin.config_json(), events, output_bytes_max)
                }
            };
            store.data_mut().finish_log();
            if done.is_ok() {
                look(&store);
            }
            done.map(|done| (done, store.into_data().into_reported()))
        }));
        match done {
            Ok(Ok((done, reported))) => Ok((in_sequence(done?, events.len())?, reported)),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => {
                let detail = "the gateway failed while it ran the plugin".to_owned();
                Err(Failure::Fault { kind: FaultKind::Trap, detail })
            }
        }
    }

    /// Configures a component; it is only asked if there are events.
    fn ask(
        self,
        pre: &bindings::EnricherPre<Host>,
        store: &mut Store<Host>,
        events: &[Event<'_>],
    ) -> wasmtime::Result<Result<Vec<Outcome>, Failure>> {
        let instance = pre.instantiate(&mut *store)?;
        let lifecycle = instance.sluice_plugin_lifecycle();
        if let Err(problems) = lifecycle.call_configure(&mut *store, self.plugin.config_json())? {
            return Ok(Err(Failure::Refused(problems.into_iter().map(problem_text).collect())));
        }
        if events.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        crash::at(Point::InPlugin);
        instance.sluice_plugin_processor().call_process(store, events).map(Ok)
    }

    pub(super) fn store(self, orders: usize, bytes: usize) -> Store<Host> {
        let limits = self.plugin.limits();
        let host = Host::new(self.plugin, orders, bytes);
        let mut store = Store::new(&self.runtime.engine, host);
        store.limiter(|host| host.memory());
        store.set_hostcall_fuel(limits.output_bytes_max);
        if self.runtime.counts_instructions {
            // Without end: what is used up is measured, not limited. The engine was made for it.
            drop(store.set_fuel(u64::MAX));
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            context.data().check_time().map_err(wasmtime::Error::new)?;
            Ok(UpdateDeadline::Continue(1))
        });
        store
    }
}

/// A problem with a plugin's configuration, for people.
pub(super) fn problem_text(problem: Problem) -> String {
    let place = problem.pointer.map_or_else(String::new, |pointer| format!("{pointer}: "));
    format!("{place}{}", problem.detail.unwrap_or(problem.title))
}

/// Puts outcomes into the sequence of their events.
fn in_sequence(outcomes: Vec<Outcome>, count: usize) -> Result<Vec<Outcome>, Failure> {
    if outcomes.len() != count {
        return Err(Failure::contract(format!("it gave {} outcomes for {count} orders", outcomes.len())));
    }
    let is_ready = outcomes.iter().enumerate().all(|(position, outcome)| u32::try_from(position) == Ok(outcome.seq));
    if is_ready {
        return Ok(outcomes);
    }
    let mut places: Vec<Option<Outcome>> = Vec::new();
    places.resize_with(count, || None);
    for outcome in outcomes {
        let seq = outcome.seq;
        let place = usize::try_from(seq).ok().and_then(|seq| places.get_mut(seq));
        let place = place.ok_or_else(|| Failure::contract(format!("it answered for the unknown seq {seq}")))?;
        if place.replace(outcome).is_some() {
            return Err(Failure::contract(format!("it answered twice for seq {seq}")));
        }
    }
    // As many outcomes as places, none of them twice: each place has its own.
    Ok(places.into_iter().flatten().collect())
}

fn classify(error: &wasmtime::Error) -> Failure {
    let (kind, detail) = if let Some(up) = error.downcast_ref::<TimeIsUp>() {
        (FaultKind::Time, up.to_string())
    } else if let Some(up) = error.downcast_ref::<MemoryIsUp>() {
        (FaultKind::Memory, up.to_string())
    } else if let Some(Ended { kind, detail }) = error.downcast_ref::<Ended>() {
        (*kind, detail.clone())
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        (FaultKind::Trap, trap.to_string())
    } else {
        let root = error.root_cause().to_string();
        if root.contains(OUTPUT_EXHAUSTED) {
            (FaultKind::Output, "it answered with more data than it may".to_owned())
        } else {
            (FaultKind::Trap, root)
        }
    };
    Failure::Fault { kind, detail }
}
