//! S13: what a plugin costs in the host, against the same Rust code without WebAssembly.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use order_rules::OrderRules;
use sluice::clock::Clock;
use sluice::config::PluginPolicy;
use sluice::order::OrderId;
use sluice::order::patch::{self, PatchOp};
use sluice::plugin::{Candidate, Decision, Generation, Pace, PluginHost, PluginOrigin, PluginSource, Tables, bundled};
use sluice::telemetry::Metrics;
use sluice_plugin::testing::Harness;
use sluice_plugin::{Order, Plugin, Verdict};

use super::report::{self, Ratios};
use super::{orders, server};

/// Orders of one round: many batches, so that threads do not wait for each other.
const ORDERS: usize = 64 * 64;
/// Repetitions of one round.
const REPEATS: usize = 12;
const NAME: &str = "order-rules";
const ROUTE: &str = "/orders";

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("S13: order-rules in the host, a fresh instance per 64 orders, epochs on, against native code");
    let folder = tempfile::tempdir()?;
    let mut config = server::config(folder.path())?.plugins;
    config.threads = 1;
    let table = config.config.get(NAME).cloned().unwrap_or_default();
    let config_json = serde_json::to_vec(&table)?;
    let native =
        Harness::<OrderRules>::new(std::str::from_utf8(&config_json)?).map_err(|found| anyhow::anyhow!("{found:?}"))?;
    let (_, component) = bundled().into_iter().find(|(name, _)| *name == NAME).context("order-rules")?;
    let source = source(NAME, Bytes::from_static(component), config_json);
    let host = PluginHost::start(&config, Metrics::new().into())?;
    let chain = [NAME.to_owned()];
    host.publish(Generation::new(1, vec![host.load(&config, source)?], [(ROUTE, chain.as_slice())]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let candidates: Vec<Candidate> = (0..ORDERS).map(candidate).collect();
    let expected: Vec<Bytes> = candidates.iter().map(|order| natively(&native, order)).collect::<Result<_, _>>()?;
    let pace = Pace::default();
    let in_host = || runtime.block_on(host.judge(ROUTE, candidates.clone(), &pace));
    for (judgement, expected) in in_host().into_iter().zip(&expected) {
        let Decision::Pass { body, .. } = judgement.decision else { anyhow::bail!("{judgement:?}") };
        ensure!(body == *expected, "the host and native code made different orders");
    }
    println!("both made the same {ORDERS} orders");

    let (mut walls, mut cpus, mut judging) = (Ratios::default(), Ratios::default(), Ratios::default());
    for round in 1..=report::ROUNDS + 2 {
        let probe = report::probe(folder.path())?;
        let (mut native_times, mut host_times, mut judge_time) = (Times::default(), Times::default(), Times::default());
        for _ in 0..REPEATS {
            native_times.add(|| {
                for order in candidates.clone() {
                    black_box(natively(&native, &order).is_ok());
                }
            });
            host_times.add(|| black_box(in_host()));
            judge_time.add(|| {
                for order in &candidates {
                    black_box(native.judge_order(&as_order(order)));
                }
            });
        }
        println!(
            "round {round}: {probe}; host {:.2} us ({:.2} us CPU), native {:.2} us, native verdict alone {:.2} us per order",
            host_times.wall(),
            host_times.cpu(),
            native_times.wall(),
            judge_time.wall()
        );
        walls.add(host_times.wall() / native_times.wall());
        cpus.add(host_times.cpu() / native_times.cpu());
        judging.add(host_times.wall() / judge_time.wall());
    }
    walls.print("S13 time per order, host / native (verdict and patched order)", "<= 1.45");
    cpus.print("S13 CPU per order, host / native (verdict and patched order)", "<= 1.45");
    judging.print("S13 time per order, host (with patched order) / native verdict alone", "none");
    Ok(())
}

/// Times of one arm in one round.
#[derive(Default)]
struct Times {
    walls: Vec<f64>,
    cpus: Vec<f64>,
}

impl Times {
    fn add<T>(&mut self, run: impl FnOnce() -> T) {
        let (begun, cpu) = (Instant::now(), report::cpu_of_process());
        drop(run());
        let micros = |span: Duration| span.as_secs_f64() * 1e6 / ORDERS as f64;
        self.walls.push(micros(begun.elapsed()));
        self.cpus.push(micros(report::cpu_of_process().saturating_sub(cpu)));
    }

    fn wall(&self) -> f64 {
        report::median(&self.walls)
    }

    fn cpu(&self) -> f64 {
        report::median(&self.cpus)
    }
}

fn candidate(number: usize) -> Candidate {
    Candidate {
        order_id: OrderId::generate(),
        route: "/orders".into(),
        event_type: "OrderCreated".into(),
        received: Clock::system().now(),
        attempt: 1,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".into(),
        body: orders::body(number).into(),
    }
}

fn as_order(candidate: &Candidate) -> Order {
    Order {
        id: candidate.order_id.to_string(),
        route: candidate.route.to_string(),
        kind: candidate.event_type.to_string(),
        received: candidate.received.to_string(),
        attempt: candidate.attempt,
        attrs: vec![("traceparent".to_owned(), candidate.traceparent.to_string())],
        body: candidate.body.to_vec(),
    }
}

/// The same order, judged and patched without WebAssembly.
pub(crate) fn natively<P: Plugin>(plugin: &Harness<P>, candidate: &Candidate) -> anyhow::Result<Bytes> {
    let Verdict::Enrich(patch) = plugin.judge_order(&as_order(candidate)) else { anyhow::bail!("not enriched") };
    let ops = patch.ops.into_iter().filter_map(|op| match op {
        sluice_plugin::PatchOp::Set { pointer, value } => Some(PatchOp::set(pointer, &value)),
        sluice_plugin::PatchOp::Remove { pointer } => Some(PatchOp::remove(pointer)),
        sluice_plugin::PatchOp::Header { .. } => None,
    });
    Ok(patch::apply(&candidate.body, &ops.collect::<Result<Vec<_>, _>>()?)?)
}

/// A plugin to load, without a policy of its own.
pub(crate) fn source(name: &str, component: Bytes, config_json: Vec<u8>) -> PluginSource {
    PluginSource {
        name: name.to_owned(),
        origin: PluginOrigin::Bundled,
        component,
        config_json,
        policy: PluginPolicy::default(),
        tables: Tables::default(),
    }
}
