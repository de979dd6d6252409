//! S15: how long an order takes while another route's plugin does not end, and while plugins are swapped, against quiet
//! times of the same run.
//!
//! Orders come at a fixed rate, whatever becomes of those before; each is timed from the moment it was due to be posted to
//! the moment it is seen PUBLISHED.
//!
//! A plugin that does not end burns what CPU time it is given, and on few cores that alone makes others slower. So there
//! is a control: a process that has nothing to do with the gateway burns as much, at the same priority.

use std::hint::black_box;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use sluice::clock::Clock;
use sluice::config::{Config, RouteConfig, Span};
use sluice::dev::DevBroker;
use sluice::intake::{Intake, Request};
use sluice::lifecycle::Tasks;
use sluice::order::{OrderId, OrderStatus};
use sluice::outbox::Outbox;
use sluice::plugin::{Generation, LoadedPlugin, PluginHost, bundled};
use sluice::telemetry::Metrics;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::carry::Relay;
use super::plugins::source;
use super::report::{self, Ratios};
use super::{drain, orders, server};

/// Orders per second on the quiet route.
const RATE: u32 = 400;
/// Orders per second on the route whose plugin does not end.
const STALLED_RATE: u32 = 10;
/// Length of a window. The swap's is the second after it.
const WINDOW: Duration = Duration::from_secs(5);
const SWAP_WINDOW: Duration = Duration::from_secs(1);
/// Swaps of one round: each has its window.
const SWAPS: usize = 5;
const PLUGIN: &str = "order-rules";

/// Answers a question without orders, and never one with.
const ENDLESS: &str = r#"(module
  (memory (export "memory") 32)
  (data (i32.const 0) "{\"outcomes\":[]}")
  (func (export "sluice_alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "sluice_process") (param i32) (param $length i32) (result i64)
    (loop $again (br_if $again (i32.gt_u (local.get $length) (i32.const 60))))
    (i64.const 15)))"#;

pub(crate) fn run() -> anyhow::Result<()> {
    report::title(
        "S15: p99 of an order beside a plugin that does not end, and in the second of a swap, against quiet times",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir_in(".")?;
    runtime.block_on(measure(folder.path()))
}

async fn measure(folder: &Path) -> anyhow::Result<()> {
    let world = World::start(folder).await?;
    let [mut stalled, mut swapped, mut burnt] = [(); 3].map(|()| Ratios::default());
    world.window(WINDOW).await?;
    for round in 1..=report::ROUNDS {
        let probe = report::probe(folder)?;
        let quiet = world.window(WINDOW).await?;
        let (during_swaps, reload) = world.swaps().await?;
        let (beside, share) = world.beside_a_stall().await?;
        let burner = Burner::start(share)?;
        let control = world.window(WINDOW).await?;
        drop(burner);
        println!(
            "round {round}: {probe}; p99 quiet {:.2} ms, swap {:.2} ms (reload {reload:.2} ms), beside a stall {:.2} ms, beside a process that burns {:.0} % of a core {:.2} ms; p50 {:.2}, {:.2}, {:.2}, {:.2} ms",
            quiet.p99(),
            during_swaps.p99(),
            beside.p99(),
            share * 1e2,
            control.p99(),
            quiet.p50(),
            during_swaps.p50(),
            beside.p50(),
            control.p50(),
        );
        stalled.add(beside.p99() / quiet.p99());
        burnt.add(beside.p99() / control.p99());
        swapped.add(during_swaps.p99() / quiet.p99());
    }
    stalled.print("S15a p99, beside a plugin that does not end / quiet", "<= 1.10");
    burnt.print("S15a against a process that burns as much CPU", "<= 1.10");
    swapped.print("S15b p99, in the second of a swap / quiet", "<= 1.1");
    println!("every order of the quiet route was PUBLISHED: {} of them", world.published.load(Ordering::Relaxed));
    world.tasks.stop("relay", Duration::from_secs(10)).await;
    Ok(())
}

/// The priority of the gateway's slow plugin thread.
const NICE: &str = "15";

/// A process that burns a share of a core.
struct Burner(Child);

impl Burner {
    fn start(share: f64) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let mut nice = Command::new("nice");
        nice.args(["-n", NICE]).arg(own).args(["--burn", &share.to_string()]);
        Ok(Self(nice.stdin(Stdio::null()).spawn().context("nice")?))
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        // Its end is what is wanted; that it has ended already is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Burns a share of a core until it is killed, in pieces as long as a call may take.
pub(crate) fn burn(share: f64) -> ! {
    let piece = Duration::from_millis(20);
    loop {
        let begun = std::time::Instant::now();
        let mut number = 0_u64;
        while begun.elapsed() < piece {
            number = black_box(number.wrapping_mul(31).wrapping_add(7));
        }
        std::thread::sleep(piece.mul_f64((1.0 / share.clamp(0.01, 1.0) - 1.0).max(0.0)));
    }
}

/// CPU time of the thread that judges aside, in seconds.
fn slow_thread_seconds() -> anyhow::Result<f64> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == "plugin-slow" {
            let text = std::fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds: f64 = text.split(' ').next().context("schedstat")?.parse()?;
            return Ok(nanoseconds / 1e9);
        }
    }
    anyhow::bail!("no thread plugin-slow")
}

/// Milliseconds of orders, sorted.
struct Latencies(Vec<f64>);

impl Latencies {
    fn p50(&self) -> f64 {
        self.at(0.5)
    }

    fn p99(&self) -> f64 {
        self.at(0.99)
    }

    fn at(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
        let place = (self.0.len() as f64 * share) as usize;
        self.0.get(place.min(self.0.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}

struct World {
    config: Config,
    outbox: Outbox,
    intake: Intake,
    host: PluginHost,
    endless: LoadedPlugin,
    tasks: Tasks,
    number: AtomicU64,
    published: AtomicU64,
    _broker: DevBroker,
}

impl World {
    async fn start(folder: &Path) -> anyhow::Result<Arc<Self>> {
        let mut config = server::config(folder)?;
        config.plugins.state_dir = folder.join("plugins");
        let stalled =
            RouteConfig { path: "/stalled".to_owned(), plugins: vec!["endless".to_owned()], ..config.route[0].clone() };
        config.route[0].plugins = vec![PLUGIN.to_owned()];
        config.route.push(stalled);
        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
        let broker = DevBroker::start(&config.route, config.dev.partitions)?;
        broker.adapt(&mut config.kafka);
        // One judgement each, so that they are done with when their window is.
        config.relay.retry_first = Span(Duration::from_secs(3600));
        config.relay.retry_max = config.relay.retry_first;
        let outbox = Outbox::open(&config.database, drain::rules(&config), clock.clone(), Arc::clone(&metrics)).await?;
        let intake = Intake::new(outbox.clone(), config.intake.clone(), Arc::clone(&metrics));
        // As in the program: compiled in a child of low priority, once.
        let program = Path::new(env!("CARGO_BIN_EXE_sluice"));
        let host = PluginHost::start(&config.plugins, Arc::clone(&metrics))?
            .compiling(&config.plugins.state_dir, Some(program.to_owned()));
        let endless = host.load(&config.plugins, source("endless", ENDLESS.into(), b"{}".to_vec()))?;
        let relay = Relay::connect(&config, &outbox, host.clone(), clock, &metrics).await?;
        let world = Self {
            config,
            outbox,
            intake,
            host,
            endless,
            tasks: relay.run(),
            number: AtomicU64::new(0),
            published: AtomicU64::new(0),
            _broker: broker,
        };
        world.publish()?;
        Ok(Arc::new(world))
    }

    /// Loads the quiet route's plugin anew and puts it in its place.
    fn publish(&self) -> anyhow::Result<()> {
        let table = self.config.plugins.config.get(PLUGIN).cloned().unwrap_or_default();
        let (_, component) = bundled().into_iter().find(|(name, _)| *name == PLUGIN).context(PLUGIN)?;
        let source = source(PLUGIN, Bytes::from_static(component), serde_json::to_vec(&table)?);
        let loaded = vec![self.host.load(&self.config.plugins, source)?, self.endless.clone()];
        let chains = self.config.route.iter().map(|route| (route.path.as_str(), route.plugins.as_slice()));
        self.host.publish(Generation::new(self.host.generation().number() + 1, loaded, chains));
        Ok(())
    }

    /// Posts at the rate for so long and waits until all are PUBLISHED.
    async fn window(self: &Arc<Self>, length: Duration) -> anyhow::Result<Latencies> {
        let mut waiting = JoinSet::new();
        let begun = Instant::now();
        for number in 0..u32::try_from(length.as_millis())? * RATE / 1000 {
            let due = begun + Duration::from_secs(1) * number / RATE;
            tokio::time::sleep_until(due).await;
            waiting.spawn(Arc::clone(self).order(due));
        }
        let mut latencies = Vec::new();
        while let Some(latency) = waiting.join_next().await {
            latencies.push(latency??);
        }
        latencies.sort_by(f64::total_cmp);
        Ok(Latencies(latencies))
    }

    async fn order(self: Arc<Self>, due: Instant) -> anyhow::Result<f64> {
        let id = self.post("/orders").await?;
        let mut listener = self.outbox.listen(id);
        loop {
            let order = self.outbox.order(id).await?.context("an order that was accepted")?;
            if order.status != OrderStatus::Pending {
                ensure!(order.status == OrderStatus::Published, "{:?}", order.status);
                self.published.fetch_add(1, Ordering::Relaxed);
                return Ok(due.elapsed().as_secs_f64() * 1e3);
            }
            listener.changed().await;
        }
    }

    async fn post(&self, route: &str) -> anyhow::Result<OrderId> {
        let number = usize::try_from(self.number.fetch_add(1, Ordering::Relaxed))?;
        // Each on its own: none is to wait behind another.
        let request = Request { route: route.into(), order_key: None, ..orders::asked(number) };
        Ok(self.intake.accept(request).await?.id)
    }

    /// The second after each of some swaps; also how many milliseconds loading and swapping took.
    async fn swaps(self: &Arc<Self>) -> anyhow::Result<(Latencies, f64)> {
        let (mut all, mut reloads) = (Vec::new(), Vec::new());
        for _ in 0..SWAPS {
            let own = Arc::clone(self);
            let swap = tokio::task::spawn_blocking(move || {
                let begun = Instant::now();
                own.publish().map(|()| begun.elapsed().as_secs_f64() * 1e3)
            });
            all.extend(self.window(SWAP_WINDOW).await?.0);
            reloads.push(swap.await??);
        }
        all.sort_by(f64::total_cmp);
        Ok((Latencies(all), report::median(&reloads)))
    }

    /// A window while orders come on the other route, whose plugin does not end; also the share of a core that it burnt.
    async fn beside_a_stall(self: &Arc<Self>) -> anyhow::Result<(Latencies, f64)> {
        let before = slow_thread_seconds()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (own, over) = (Arc::clone(self), Arc::clone(&is_over));
        let mut posting = JoinSet::new();
        posting.spawn(async move {
            let mut ids = Vec::new();
            while !over.load(Ordering::Relaxed) {
                ids.push(own.post("/stalled").await?);
                tokio::time::sleep(Duration::from_secs(1) / STALLED_RATE).await;
            }
            anyhow::Ok(ids)
        });
        let latencies = self.window(WINDOW).await;
        let burnt = (slow_thread_seconds()? - before) / WINDOW.as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        let ids = posting.join_next().await.context("the task that posts")???;
        // The next quiet time is to be quiet.
        for id in ids {
            self.fault_of(id).await?;
        }
        Ok((latencies?, burnt))
    }

    /// Waits until an order was found at fault.
    async fn fault_of(&self, id: OrderId) -> anyhow::Result<()> {
        let mut listener = self.outbox.listen(id);
        loop {
            let order = self.outbox.order(id).await?.context("an order that was accepted")?;
            if order.held.is_some_and(|held| held.reason == "fault") {
                return Ok(());
            }
            listener.changed().await;
        }
    }
}
