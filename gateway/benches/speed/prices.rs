//! PRICES: what one call of the gateway costs a plugin, as the difference to the same plugin without that call, and what one
//! order that traps costs the batch it is in.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use sluice::config::{Capability, PluginPolicy};
use sluice::plugin::{Candidate, Decision, Generation, Pace, PluginHost, PluginSource, Tables};
use sluice::telemetry::Metrics;
use tokio::runtime::Runtime;

use super::plugins::source;
use super::{languages, report, server};

/// Calls for each order: as many as each capability grants by default.
const CALLS: usize = 16;
const ORDERS: usize = 64 * 32;
const ROUTE: &str = "/orders";
/// Orders of a batch with one that traps: the 38th.
const BATCH: usize = 64;
const EVIL: usize = 37;
/// Traps on an order above 4,096 bytes.
const TRAP: &str = "(if (i32.gt_u (i32.load offset=52 (local.get $event)) (i32.const 4096)) (then (unreachable)))";

/// What is called, as it stands in the plugin: 3 bytes of name at 0, a table's name at 16, a key at 32.
const PRICES: [(&str, &str); 5] = [
    ("nothing", ""),
    ("log.write, of a level that is not shown", "(call $log (i32.const 0) (i32.const 0) (i32.const 3))"),
    ("metrics.count", "(call $count (i32.const 0) (i32.const 3) (i32.const 1))"),
    ("metrics.observe", "(call $observe (i32.const 0) (i32.const 3) (f64.const 1.5))"),
    ("lookup.get, found", "(call $get (i32.const 16) (i32.const 9) (i32.const 32) (i32.const 5) (i32.const 64))"),
];

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("PRICES: microseconds of CPU of one call of the gateway, from a plugin written by hand");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let table = folder.path().join("customers.json");
    std::fs::write(&table, r#"{"17850":{"name":"Harbour Lane Gifts","segment":"wholesale"}}"#)?;
    let start = |call: &str| -> anyhow::Result<PluginHost> {
        let mut config = server::config(folder.path())?.plugins;
        config.threads = 1;
        config.state_dir = folder.path().join("state");
        config.tables.insert("customers".to_owned(), table.clone());
        let tables = Tables::load(&config).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let policy = PluginPolicy { grants: vec![Capability::Metrics, Capability::Lookup], ..PluginPolicy::default() };
        let host = PluginHost::start(&config, Arc::new(Metrics::new()))?;
        let source = PluginSource { policy, tables, ..source("caller", plugin(call).into(), b"{}".to_vec()) };
        let chain = ["caller".to_owned()];
        host.publish(Generation::new(1, vec![host.load(&config, source)?], [(ROUTE, chain.as_slice())]));
        Ok(host)
    };
    let mut arms = Vec::new();
    for (what, call) in PRICES {
        arms.push((what, start(&call.repeat(CALLS))?, Vec::new()));
    }
    for _ in 0..report::ROUNDS {
        for (_, host, micros) in &mut arms {
            micros.push(micros_per_order(&runtime, host)?);
        }
    }
    let base = report::median(&arms[0].2);
    println!("{:>42}: {base:.2} us per order", arms[0].0);
    for (what, _, micros) in &arms[1..] {
        println!("{what:>42}: {:.3} us per call", (report::median(micros) - base) / CALLS as f64);
    }
    let (host, mut clean, mut trapped) = (start(TRAP)?, Vec::new(), Vec::new());
    for _ in 0..report::ROUNDS {
        clean.push(batch_millis(&runtime, &host, false)?);
        trapped.push(batch_millis(&runtime, &host, true)?);
    }
    println!("{:>42}: {:.3} ms", "a batch of 64 orders", report::median(&clean));
    println!("{:>42}: {:.3} ms", "a batch of 64 of which one order traps", report::median(&trapped));
    Ok(())
}

/// Milliseconds until a batch is judged.
fn batch_millis(runtime: &Runtime, host: &PluginHost, has_evil: bool) -> anyhow::Result<f64> {
    let mut candidates: Vec<Candidate> = (0..BATCH).map(languages::candidate).collect();
    if has_evil {
        candidates[EVIL].body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(8192)).into();
    }
    let begun = Instant::now();
    let judgements = runtime.block_on(host.judge(ROUTE, candidates, &Pace::default()));
    let millis = begun.elapsed().as_secs_f64() * 1e3;
    for (number, judgement) in judgements.iter().enumerate() {
        let is_fault = matches!(judgement.decision, Decision::Fault { .. });
        ensure!(is_fault == (has_evil && number == EVIL), "order {number}: {judgement:?}");
    }
    Ok(millis)
}

fn micros_per_order(runtime: &Runtime, host: &PluginHost) -> anyhow::Result<f64> {
    let candidates = (0..ORDERS).map(languages::candidate).collect();
    let cpu = report::cpu_of_process();
    let judgements = runtime.block_on(host.judge(ROUTE, candidates, &Pace::default()));
    let micros = (report::cpu_of_process() - cpu).as_secs_f64() * 1e6 / ORDERS as f64;
    let odd = judgements.iter().find(|judgement| !matches!(judgement.decision, Decision::Pass { .. }));
    ensure!(odd.is_none(), "{odd:?}");
    Ok(micros)
}

/// A core module of the contract that does something for each order and accepts it.
fn plugin(calls: &str) -> String {
    format!(
        r#"(module
  (import "sluice:plugin/log@1.1.0" "write" (func $log (param i32 i32 i32)))
  (import "sluice:plugin/metrics@1.1.0" "count" (func $count (param i32 i32 i32)))
  (import "sluice:plugin/metrics@1.1.0" "observe" (func $observe (param i32 i32 f64)))
  (import "sluice:plugin/lookup@1.1.0" "get" (func $get (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 32)
  (data (i32.const 0) "tag")
  (data (i32.const 16) "customers")
  (data (i32.const 32) "17850")
  (global $heap (mut i32) (i32.const 1024))
  (func $alloc (param $bytes i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $heap))
    (global.set $heap (i32.and (i32.add (i32.add (local.get $at) (local.get $bytes)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $alloc (local.get 3)))
  (func (export "sluice:plugin/lifecycle@1.1.0#configure") (param i32 i32) (result i32) (call $alloc (i32.const 12)))
  (func (export "sluice:plugin/processor@1.1.0#process") (param $event i32) (param $count i32) (result i32)
    (local $answer i32) (local $outcome i32) (local $left i32)
    (local.set $answer (call $alloc (i32.const 8)))
    (local.set $outcome (call $alloc (i32.mul (local.get $count) (i32.const 28))))
    (i32.store (local.get $answer) (local.get $outcome))
    (i32.store offset=4 (local.get $answer) (local.get $count))
    (local.set $left (local.get $count))
    (loop $next
      (i32.store (local.get $outcome) (i32.load (local.get $event)))
      {calls}
      (local.set $event (i32.add (local.get $event) (i32.const 56)))
      (local.set $outcome (i32.add (local.get $outcome) (i32.const 28)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (local.get $answer)))"#
    )
}
