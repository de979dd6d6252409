//! What a plugin costs, measured as a node would pay it: on an engine of its own, one call at a time.

use std::time::Duration;

use bytes::Bytes;
use wasmtime::Module;
use wasmtime::component::Component;

use super::call::{Call, Event, Failure, Outcome};
use super::compile::Compiler;
use super::engine::Runtime;
use super::lane::{self, Lane};
use super::limits::thread_cpu_time;
use super::load::{self, Code, LoadedPlugin};
use super::verdict::{self, Size};
use super::{Candidate, PluginError, PluginSource, UnusablePlugin};
use crate::config::PluginsConfig;

/// A plugin with two engines: one as a node has it, and one that counts instructions.
pub struct Gauge {
    plain: (Runtime, LoadedPlugin),
    counting: (Runtime, LoadedPlugin),
    wasm: Bytes,
    lane: Lane,
}

/// What one call cost; times are CPU time of the thread.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    pub time: Duration,
    /// Executed by the plugin, instance and configuration included: the same each time.
    pub instructions: u64,
    /// What the instance had taken at the end; memory is never given back.
    pub memory_bytes: usize,
    pub log_lines: usize,
    /// Of each order.
    pub patches: Vec<Patch>,
}

/// The size of an order's outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patch {
    pub operations: usize,
    /// Of its operations together.
    pub bytes: usize,
    /// Of all that it answers.
    pub answer_bytes: usize,
}

impl Gauge {
    /// Loads a plugin on both engines.
    ///
    /// # Errors
    ///
    /// It cannot be used, or an engine could not be started.
    pub fn new(config: &PluginsConfig, source: PluginSource) -> Result<Self, PluginError> {
        let engine = |source| PluginError::Engine { source };
        let (plain, counting) = (Runtime::start(1).map_err(engine)?, Runtime::counting(1).map_err(engine)?);
        let unusable = |problem: UnusablePlugin| PluginError::Unusable { name: source.name.clone(), problem };
        let prepared = lane::prepare(&source.component).map_err(unusable)?;
        let (wasm, lane) = (Bytes::from(prepared.wasm.to_vec()), prepared.lane);
        let load = |runtime: &Runtime, source| load::load(runtime, &Compiler::new(&runtime.engine), config, source);
        let loaded = (load(&plain, source.clone())?, load(&counting, source)?);
        Ok(Self { plain: (plain, loaded.0), counting: (counting, loaded.1), wasm, lane })
    }

    /// The CPU and wall time of a compilation; it uses all cores.
    ///
    /// # Errors
    ///
    /// It does not compile.
    pub fn compile(&self) -> Result<Duration, String> {
        let start = std::time::Instant::now();
        let engine = &self.plain.0.engine;
        let compiled = match self.lane {
            Lane::Bytes => Module::from_binary(engine, &self.wasm).map(drop),
            Lane::Component | Lane::Module => Component::from_binary(engine, &self.wasm).map(drop),
        };
        compiled.map(|()| start.elapsed()).map_err(|error| format!("{error:#}"))
    }

    /// The time of making and dropping an instance.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn instantiate(&self) -> Result<Duration, String> {
        let (runtime, plugin) = &self.plain;
        let call = Call { runtime, plugin };
        let start = thread_cpu_time();
        let mut store = call.store(1, 0);
        let made = match plugin.code() {
            Code::Component(pre) => pre.instantiate(&mut store).map(drop),
            Code::Bytes(pre) => pre.instantiate(&mut store).map(drop),
        };
        drop(store);
        made.map(|()| thread_cpu_time().saturating_sub(start)).map_err(|error| format!("{error:#}"))
    }

    /// The time of one call with these orders, in a fresh instance.
    ///
    /// # Errors
    ///
    /// The plugin fails.
    pub fn time(&self, orders: &[Candidate]) -> Result<Duration, String> {
        let (runtime, plugin) = &self.plain;
        with_events(orders, |events| {
            let start = thread_cpu_time();
            let done = Call { runtime, plugin }.process(events);
            let taken = thread_cpu_time().saturating_sub(start);
            done.map(|_| taken).map_err(|failure| told(&failure))
        })
    }

    /// All that one call with these orders costs.
    ///
    /// # Errors
    ///
    /// The plugin fails.
    pub fn cost(&self, orders: &[Candidate]) -> Result<Cost, String> {
        let mut cost = Cost { time: self.time(orders)?, ..Cost::default() };
        let (runtime, plugin) = &self.counting;
        let lines = plugin.limits().log_lines_per_order_max.saturating_mul(orders.len());
        let outcomes = with_events(orders, |events| {
            Call { runtime, plugin }.observed(events, |store| {
                cost.instructions = store.get_fuel().map_or(0, |left| u64::MAX - left);
                cost.memory_bytes = store.data().memory_bytes();
                let (left, dropped) = store.data().lines();
                cost.log_lines = lines - left + dropped;
            })
        });
        let (outcomes, _) = outcomes.map_err(|failure| told(&failure))?;
        cost.patches = outcomes.iter().map(patch).collect();
        Ok(cost)
    }
}

fn patch(outcome: &Outcome) -> Patch {
    let Size { operations, patch_bytes, answer_bytes } = verdict::size_of(outcome);
    Patch { operations, bytes: patch_bytes, answer_bytes }
}

fn with_events<T>(orders: &[Candidate], run: impl FnOnce(&[Event<'_>]) -> T) -> T {
    let texts: Vec<_> = orders.iter().map(|order| (order.order_id.to_string(), order.received.to_string())).collect();
    let events: Vec<_> = (0..)
        .zip(orders.iter().zip(&texts))
        .map(|(seq, (order, (id, received)))| Event {
            seq,
            id,
            route: &order.route,
            kind: &order.event_type,
            received,
            attempt: order.attempt,
            attrs: &[],
            body: &order.body,
        })
        .collect();
    run(&events)
}

fn told(failure: &Failure) -> String {
    match failure {
        Failure::Fault { kind, detail } => format!("{}: {detail}", kind.as_str()),
        Failure::Refused(problems) => format!("it refuses its configuration: {}", problems.join("; ")),
    }
}
