//! Judges orders with the gateway's own plugin host, without a gateway: no database, no broker, no listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use bytes::Bytes;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::config::PluginsConfig;
use crate::order::OrderId;
use crate::plugin::{
    Candidate, Decision, Generation, Judgement, LoadedPlugin, Pace, PluginError, PluginHost, PluginSource,
};
use crate::telemetry::Metrics;

/// The route that orders are judged on.
pub const ROUTE: &str = "/orders";

/// When orders are said to have been accepted, so that a run can be repeated: 2026-01-01T00:00:00Z.
const RECEIVED: Timestamp = Timestamp(1_767_225_600_000);

/// Where the ids of orders begin, a UUID version 7 of that moment; they count up from here in each run.
const FIRST_ID: u128 = 0x019b_76da_a800_7000_8000_0000_0000_0000;

/// A plugin host and what is needed to ask it.
pub struct Desk {
    host: PluginHost,
    limits: PluginsConfig,
    runtime: tokio::runtime::Runtime,
    generations: AtomicU64,
}

impl Desk {
    /// Starts the engine, with the limits that a node of this configuration would have.
    ///
    /// # Errors
    ///
    /// The engine could not be started.
    pub fn open(limits: PluginsConfig) -> anyhow::Result<Self> {
        let host = PluginHost::start(&limits, Arc::new(Metrics::new()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        Ok(Self { host, limits, runtime, generations: AtomicU64::new(0) })
    }

    /// Loads a plugin as a node does.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn load(&self, source: PluginSource) -> Result<LoadedPlugin, PluginError> {
        self.host.load(&self.limits, source)
    }

    /// Makes these plugins the chain that judges.
    pub fn seat(&self, chain: Vec<LoadedPlugin>) {
        let names: Vec<String> = chain.iter().map(|plugin| plugin.info().name.to_string()).collect();
        let number = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        self.host.publish(Generation::new(number, chain, [(ROUTE, names.as_slice())]));
    }

    /// Judges a batch. Result *i* belongs to order *i*.
    #[must_use]
    pub fn judge(&self, orders: Vec<Candidate>) -> Vec<Judgement> {
        self.runtime.block_on(self.host.judge(ROUTE, orders, &Pace::default()))
    }

    /// Most orders that one call of a plugin gets.
    #[must_use]
    pub fn batch_orders_max(&self) -> usize {
        self.limits.batch_orders_max.max(1)
    }
}

/// An order to judge, the `number`th of a run: the same id each time.
#[must_use]
pub fn candidate(number: usize, attempt: u32, body: Bytes) -> Candidate {
    Candidate {
        order_id: OrderId(Uuid::from_u128(FIRST_ID + number as u128)),
        route: ROUTE.into(),
        event_type: "OrderCreated".into(),
        received: RECEIVED,
        attempt,
        traceparent: "".into(),
        body,
    }
}

/// The contract's word for what became of an order.
#[must_use]
pub fn verdict(decision: &Decision) -> &'static str {
    match decision {
        Decision::Pass { patch, headers, .. } if patch.is_empty() && headers.is_empty() => "accept",
        Decision::Pass { .. } => "enrich",
        Decision::Reject(_) => "reject",
        Decision::Later { .. } => "retry-later",
        Decision::Fault { .. } => "fault",
    }
}
