//! One call of one plugin: instantiate, configure, process, and say what went wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmtime::{Store, Trap, UpdateDeadline};

use super::FaultKind;
use super::engine::Runtime;
use super::host::{Host, bindings};
use super::limits::{MemoryIsUp, TimeIsUp};
use super::load::LoadedPlugin;

pub(super) use bindings::sluice::plugin::types::{Event, Outcome, PatchOp, Verdict};

/// What wasmtime says where an answer is longer than `set_hostcall_fuel` allows; it has no type for it.
const OUTPUT_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

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
        self.guarded(1, 0, |_, _| Ok(()))
    }

    /// Has a batch processed in a fresh instance. Outcome *i* belongs to event *i*.
    pub(super) fn process(self, events: &[Event<'_>]) -> Result<Vec<Outcome>, Failure> {
        let bytes = events.iter().map(|event| event.body.len()).sum();
        let outcomes = self.guarded(events.len(), bytes, |instance, store| {
            instance.sluice_plugin_processor().call_process(store, events)
        })?;
        in_sequence(outcomes, events.len())
    }

    /// Runs something in a fresh, configured instance. The instance is gone afterwards, whatever happened.
    fn guarded<T>(
        self,
        orders: usize,
        bytes: usize,
        run: impl FnOnce(&bindings::Validator, &mut Store<Host>) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        let _calling = self.runtime.calling();
        // A panic in a host function unwinds through the instance, which is dropped with its store.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let mut store = self.store(orders, bytes);
            let instance = self.plugin.pre().instantiate(&mut store)?;
            let configured =
                instance.sluice_plugin_lifecycle().call_configure(&mut store, self.plugin.config_json())?;
            let done = match configured {
                Ok(()) => Ok(run(&instance, &mut store)?),
                Err(problems) => Err(problems.into_iter().map(|problem| {
                    let place = problem.pointer.map_or_else(String::new, |pointer| format!("{pointer}: "));
                    format!("{place}{}", problem.detail.unwrap_or(problem.title))
                })),
            };
            store.data_mut().finish_log();
            Ok::<_, wasmtime::Error>(done)
        }));
        match done {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(problems))) => Err(Failure::Refused(problems.collect())),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => {
                let detail = "the gateway failed while it ran the plugin".to_owned();
                Err(Failure::Fault { kind: FaultKind::Trap, detail })
            }
        }
    }

    fn store(self, orders: usize, bytes: usize) -> Store<Host> {
        let limits = self.plugin.limits();
        let host = Host::new(&self.plugin.info().name, limits, orders, bytes);
        let mut store = Store::new(&self.runtime.engine, host);
        store.limiter(|host| host.memory());
        store.set_hostcall_fuel(limits.output_bytes_max);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            context.data().check_time().map_err(wasmtime::Error::new)?;
            Ok(UpdateDeadline::Continue(1))
        });
        store
    }
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
