//! What the same plugin costs in each language, against the Rust one and against the same Rust code without WebAssembly:
//! loading, and judging in batches of 1 and 64 and in one instance for many.
//!
//! `SLUICE_BENCH_LANGUAGES` names a folder with one `order-check` per language, as `.ci/languages FOLDER` leaves them.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use order_check::OrderCheck;
use sluice::clock::Clock;
use sluice::config::{ByteSize, PluginsConfig, Span};
use sluice::order::OrderId;
use sluice::plugin::{Candidate, Decision, Generation, Pace, PluginHost};
use sluice::telemetry::Metrics;
use sluice_plugin::testing::Harness;
use tokio::runtime::Runtime;

use super::plugins::{natively, source};
use super::report::{self, Ratios};
use super::{orders, server};

/// Orders of one round in batches, and alone.
const ORDERS: usize = 64 * 16;
const ALONE: usize = 64;
const ROUTE: &str = "/orders";
const CONFIG: &str = r#"{"segments":{"10001":"wholesale","10002":"retail"}}"#;

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("LANGUAGES: order-check in each language, us of CPU per order, and against Rust");
    let Some(folder) = std::env::var_os("SLUICE_BENCH_LANGUAGES").map(PathBuf::from) else {
        println!("SKIPPED: SLUICE_BENCH_LANGUAGES names no folder with plugins");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let state = tempfile::tempdir()?;
    let mut languages = files(&folder)?
        .into_iter()
        .map(|file| Language::load(&file, state.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for language in &languages {
        println!("{:>15}: {:>10} bytes, loaded in {:>7.1} ms", language.name, language.bytes, language.load);
    }
    let native = Harness::<OrderCheck>::new(CONFIG).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let mut natives = Vec::new();
    for round in 1..=report::ROUNDS {
        natives.push(native_round(&native)?);
        for language in &mut languages {
            language.round(&runtime)?;
        }
        println!("round {round}: {}", report::probe(state.path())?);
    }
    let rust = languages.iter().position(|language| language.name == "rust").context("rust.wasm")?;
    let rust: Vec<Vec<f64>> = languages[rust].micros.to_vec();
    println!("{:>15}  alone      in 64      many       (us per order, medians)", "");
    for language in &languages {
        let [alone, batch, many] = &language.micros;
        println!(
            "{:>15}  {:>9.2}  {:>9.2}  {:>9.2}",
            language.name,
            report::median(alone),
            report::median(batch),
            report::median(many)
        );
    }
    println!("{:>15}  {:>9.2}  (one after the other, without WebAssembly)", "rust, native", report::median(&natives));
    for language in &languages {
        for (place, what) in ["alone", "in batches of 64", "in one instance for many"].into_iter().enumerate() {
            let mut ratios = Ratios::default();
            language.micros[place].iter().zip(&rust[place]).for_each(|(own, rust)| ratios.add(own / rust));
            ratios.print(&format!("{} {what} / Rust", language.name), "none");
        }
        let mut ratios = Ratios::default();
        language.micros[1].iter().zip(&natives).for_each(|(own, native)| ratios.add(own / native));
        ratios.print(&format!("{} in batches of 64 / native", language.name), "none");
    }
    Ok(())
}

/// Microseconds of CPU per order of the Rust plugin's code as part of this program, verdict and patched order.
fn native_round(plugin: &Harness<OrderCheck>) -> anyhow::Result<f64> {
    let candidates: Vec<Candidate> = (0..ORDERS).map(candidate).collect();
    let cpu = report::cpu_of_process();
    for candidate in &candidates {
        black_box(natively(plugin, candidate)?);
    }
    Ok((report::cpu_of_process() - cpu).as_secs_f64() * 1e6 / ORDERS as f64)
}

/// The plugins of a folder, sorted by name.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "no plugin in {}", folder.display());
    Ok(files)
}

/// The plugin of a language, in a host for each way of asking it.
struct Language {
    name: String,
    bytes: usize,
    /// Milliseconds from the file to a plugin that is ready, compiled for the first time.
    load: f64,
    /// One order a batch, 64, and all in one.
    hosts: [PluginHost; 3],
    /// Microseconds of CPU per order and round, by host.
    micros: [Vec<f64>; 3],
}

impl Language {
    fn load(file: &Path, state: &Path) -> anyhow::Result<Self> {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let component = std::fs::read(file)?;
        let bytes = component.len();
        let mut load = 0.0;
        let mut host = |orders: usize| -> anyhow::Result<PluginHost> {
            let config = limits(state, orders)?;
            let host = PluginHost::start(&config, Metrics::new().into())?;
            let begun = Instant::now();
            let plugin = host.load(&config, source(&name, component.clone().into(), CONFIG.into()))?;
            // The first is compiled, the others come from the cache.
            load = if load == 0.0 { begun.elapsed().as_secs_f64() * 1e3 } else { load };
            let chain = [name.clone()];
            host.publish(Generation::new(1, vec![plugin], [(ROUTE, chain.as_slice())]));
            Ok(host)
        };
        let hosts = [host(1)?, host(64)?, host(ORDERS)?];
        Ok(Self { name, bytes, load, hosts, micros: Default::default() })
    }

    fn round(&mut self, runtime: &Runtime) -> anyhow::Result<()> {
        for (place, (host, micros)) in self.hosts.iter().zip(&mut self.micros).enumerate() {
            let candidates: Vec<Candidate> = (0..if place == 0 { ALONE } else { ORDERS }).map(candidate).collect();
            let count = candidates.len() as f64;
            let (pace, cpu) = (Pace::default(), report::cpu_of_process());
            let judgements = runtime.block_on(host.judge(ROUTE, candidates, &pace));
            micros.push((report::cpu_of_process() - cpu).as_secs_f64() * 1e6 / count);
            let odd = judgements.iter().find(|judgement| !matches!(judgement.decision, Decision::Pass { .. }));
            ensure!(odd.is_none(), "{}: {odd:?}", self.name);
        }
        Ok(())
    }
}

/// The limits as shipped, but for time and size, so that the slowest language can show all of its orders in one batch.
fn limits(state: &Path, orders: usize) -> anyhow::Result<PluginsConfig> {
    let mut config = server::config(state)?.plugins;
    let long = Span(Duration::from_secs(60));
    config.threads = 1;
    config.batch_orders_max = orders;
    config.batch_bytes_max = ByteSize(64 << 20);
    config.output_bytes_max = ByteSize(64 << 20);
    config.memory_bytes_max = ByteSize(256 << 20);
    (config.time_per_batch_min, config.time_per_batch_max, config.wall_per_batch_max) = (long, long, long);
    config.state_dir = state.to_owned();
    Ok(config)
}

pub(crate) fn candidate(number: usize) -> Candidate {
    Candidate {
        order_id: OrderId::generate(),
        route: ROUTE.into(),
        event_type: "OrderCreated".into(),
        received: Clock::system().now(),
        attempt: 1,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".into(),
        body: orders::body(number).into(),
    }
}
