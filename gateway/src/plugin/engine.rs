//! The engine that compiles and runs plugins, and the clock that interrupts them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::warn;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How often a running plugin is asked for its time.
const TICK: Duration = Duration::from_millis(1);

/// Stack of a plugin's own code. Threads have [`THREAD_STACK_BYTES`]: host functions need theirs on top.
const WASM_STACK_BYTES: usize = 512 << 10;

/// Stack of each thread that runs plugins: running out of it would end the process.
pub(super) const THREAD_STACK_BYTES: usize = 4 << 20;

/// What one component may consist of; dynamic languages bring many core modules.
const CORE_INSTANCES_PER_PLUGIN: u32 = 256;
const MEMORIES_PER_PLUGIN: u32 = 4;
const TABLES_PER_PLUGIN: u32 = 64;

/// The engine with its ticker.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    pub(super) engine: Engine,
    /// Whether each store has to be given fuel.
    pub(super) counts_instructions: bool,
    ticker: Arc<Ticker>,
    /// Held while a plugin is configured at its loading: the pool has room for one instance besides those of its threads.
    pub(super) loading: Arc<Mutex<()>>,
}

impl Runtime {
    /// Makes an engine with room for one instance on each of so many threads, one on the slow thread, and one for a plugin that is being loaded.
    pub(super) fn start(threads: usize) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Self::of(config(), threads, false)
    }

    /// The same, but code counts its instructions as it runs, which makes it slower.
    pub(super) fn counting(threads: usize) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut config = config();
        config.consume_fuel(true);
        Self::of(config, threads, true)
    }

    fn of(
        mut config: Config,
        threads: usize,
        counts_instructions: bool,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let engine = match Engine::new(config.allocation_strategy(pool(threads + 2))) {
            Ok(engine) => engine,
            Err(error) => {
                warn!(error = format!("{error:#}"), "no address space for pooled plugin memory: plugins start slower");
                Engine::new(config.allocation_strategy(InstanceAllocationStrategy::OnDemand))?
            }
        };
        let ticker = Arc::new(Ticker::start(engine.clone())?);
        Ok(Self { engine, counts_instructions, ticker, loading: Arc::default() })
    }

    /// Notes that a call runs until the guard is dropped; the ticker only ticks meanwhile.
    pub(super) fn calling(&self) -> Calling<'_> {
        if self.ticker.state.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.ticker.unpark();
        }
        Calling(&self.ticker.state)
    }
}

/// An engine that only compiles: what it makes fits those that run plugins, without their address space.
pub(super) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(config().allocation_strategy(InstanceAllocationStrategy::OnDemand))
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        // The same order gets the same verdict on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true);
    config
}

fn pool(instances: usize) -> InstanceAllocationStrategy {
    let instances = u32::try_from(instances).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_PLUGIN))
        .total_memories(instances.saturating_mul(MEMORIES_PER_PLUGIN))
        .total_tables(instances.saturating_mul(TABLES_PER_PLUGIN))
        .max_core_instances_per_component(CORE_INSTANCES_PER_PLUGIN)
        .max_memories_per_component(MEMORIES_PER_PLUGIN)
        .max_tables_per_component(TABLES_PER_PLUGIN)
        .max_component_instance_size(16 << 20)
        .max_core_instance_size(16 << 20)
        .table_elements(100_000)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    // Without the kernel's help the lowest bytes are reset whether they were used or not.
    let has_scan = PoolingAllocationConfig::is_pagemap_scan_available();
    pool.linear_memory_keep_resident(if has_scan { 1 << 20 } else { 64 << 10 });
    InstanceAllocationStrategy::Pooling(pool)
}

/// A thread that raises the engine's epoch every [`TICK`] while calls run, and sleeps while none does.
#[derive(Debug)]
struct Ticker {
    state: Arc<TickerState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct TickerState {
    calls: AtomicUsize,
    is_over: AtomicBool,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let state = Arc::new(TickerState::default());
        let own = Arc::clone(&state);
        let thread = thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || {
            while !own.is_over.load(Ordering::SeqCst) {
                if own.calls.load(Ordering::SeqCst) == 0 {
                    thread::park();
                } else {
                    thread::sleep(TICK);
                    engine.increment_epoch();
                }
            }
        })?;
        Ok(Self { state, thread: Some(thread) })
    }

    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        self.unpark();
        // It has nothing to say, not even by a panic.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A call is under way.
#[derive(Debug)]
pub(super) struct Calling<'ticker>(&'ticker TickerState);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}
