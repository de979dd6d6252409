//! S14: what it costs that no instance outlives its batch, against one instance for all and an instance for each order.
//!
//! Calls of the contract alone, without the rest of the host, so that nothing else dampens the ratio.

use std::time::Instant;

use anyhow::anyhow;
use sluice::plugin::bundled;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, UpdateDeadline};

use super::orders;
use super::report::{self, Ratios};

/// What the contract says, as generated.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit/1.1.0",
        world: "validator",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

use bindings::ValidatorPre;
use bindings::sluice::plugin::types::Event;

const BATCH: usize = 128;
const ORDERS: usize = BATCH * 64;
const NAME: &str = "order-rules";

struct Host;

impl bindings::sluice::plugin::types::Host for Host {}

impl bindings::sluice::plugin::log::Host for Host {
    fn write(&mut self, _: bindings::sluice::plugin::log::Level, _: String) {}
}

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("S14: a fresh instance for each batch of 128, one instance for all batches, one for each order");
    let engine = Engine::new(&engine_config()).map_err(|error| anyhow!("{error:#}"))?;
    let pre = prepare(&engine).map_err(|error| anyhow!("{error:#}"))?;
    let config = {
        let folder = tempfile::tempdir()?;
        let table = super::server::config(folder.path())?.plugins.config.get(NAME).cloned().unwrap_or_default();
        serde_json::to_vec(&table)?
    };
    let bodies: Vec<String> = (0..ORDERS).map(orders::body).collect();
    let arms = Arms { engine, pre, config, bodies };
    let (mut isolation, mut naive) = (Ratios::default(), Ratios::default());
    for round in 1..=report::ROUNDS {
        let [shared, fresh, single] = [Arm::Shared, Arm::Fresh(BATCH), Arm::Fresh(1)]
            .map(|arm| arms.micros(arm).map_err(|error| anyhow!("{error:#}")));
        let (shared, fresh, single) = (shared?, fresh?, single?);
        println!("round {round}: shared {shared:.2} us, fresh per batch {fresh:.2} us, fresh per order {single:.2} us");
        isolation.add(fresh / shared);
        naive.add(fresh / single);
    }
    isolation.print("S14 time per order, a fresh instance per batch / one shared instance", "<= 1.06");
    naive.print("S14 time per order, a fresh instance per batch / one per order", "<= 0.15");
    Ok(())
}

#[derive(Clone, Copy)]
enum Arm {
    Shared,
    Fresh(usize),
}

struct Arms {
    engine: Engine,
    pre: ValidatorPre<Host>,
    config: Vec<u8>,
    bodies: Vec<String>,
}

impl Arms {
    /// Microseconds per order.
    fn micros(&self, arm: Arm) -> wasmtime::Result<f64> {
        let begun = Instant::now();
        match arm {
            Arm::Shared => {
                let mut store = self.store();
                let instance = self.instance(&mut store)?;
                for batch in self.bodies.chunks(BATCH) {
                    call(&instance, &mut store, batch)?;
                }
            }
            Arm::Fresh(size) => {
                for batch in self.bodies.chunks(size) {
                    let mut store = self.store();
                    let instance = self.instance(&mut store)?;
                    call(&instance, &mut store, batch)?;
                }
            }
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6 / ORDERS as f64)
    }

    fn store(&self) -> Store<Host> {
        let mut store = Store::new(&self.engine, Host);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(1)));
        store
    }

    fn instance(&self, store: &mut Store<Host>) -> wasmtime::Result<bindings::Validator> {
        let instance = self.pre.instantiate(&mut *store)?;
        let configured = instance.sluice_plugin_lifecycle().call_configure(store, &self.config)?;
        configured.map_err(|problems| wasmtime::Error::msg(format!("{problems:?}")))?;
        Ok(instance)
    }
}

fn call(instance: &bindings::Validator, store: &mut Store<Host>, batch: &[String]) -> wasmtime::Result<()> {
    let attrs = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")];
    let events: Vec<Event<'_>> = batch
        .iter()
        .zip(0..)
        .map(|(body, seq)| Event {
            seq,
            id: "0198f3a0-0000-7000-8000-000000000000",
            route: "/orders",
            kind: "OrderCreated",
            received: "2026-11-25T00:00:00.000Z",
            attempt: 1,
            attrs: &attrs,
            body: body.as_bytes(),
        })
        .collect();
    let outcomes = instance.sluice_plugin_processor().call_process(store, &events)?;
    assert_eq!(outcomes.len(), batch.len(), "each order has its outcome");
    Ok(())
}

/// As the gateway's own engine is set up.
fn engine_config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(2)
        .total_core_instances(16)
        .total_memories(8)
        .total_tables(16)
        .table_keep_resident(64 << 10)
        .linear_memory_keep_resident(1 << 20)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .cranelift_nan_canonicalization(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

fn prepare(engine: &Engine) -> wasmtime::Result<ValidatorPre<Host>> {
    let (_, bytes) = bundled().into_iter().find(|(name, _)| *name == NAME).ok_or_else(|| wasmtime::Error::msg(NAME))?;
    let component = Component::from_binary(engine, bytes)?;
    let mut linker = Linker::new(engine);
    bindings::Validator::add_to_linker::<_, HasSelf<_>>(&mut linker, |host: &mut Host| host)?;
    ValidatorPre::new(linker.instantiate_pre(&component)?)
}
