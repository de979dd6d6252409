//! Runs chains of plugins on orders and says what they decided.
//!
//! A batch of orders goes to one plugin thread, there through the chain: each plugin sees the orders as patched by those
//! before it, all orders of the batch in one call, in an instance made for that call. The first reject, retry-later
//! or fault ends the chain for its order.
//!
//! # Guarantees
//!
//! - **Nothing survives a call**: not memory, not globals. What a plugin answers cannot depend on other batches.
//! - **A fault is its own order's.** After a trap or a limit the instance is dropped and the batch is judged again in
//!   halves, on fresh instances, until the orders at fault stand alone; the others get their decisions.
//! - **No plugin runs on a thread of the runtime**, blocks one, or can end the process.
//! - **Limits are on CPU time**, memory, output and log, so a busy machine does not fault innocent plugins.
//!
//! # Not here
//!
//! What is made of a decision (`relay`), how patches are applied (`order::patch`).

mod bytes_lane;
mod call;
mod chain;
mod compile;
mod engine;
mod generation;
mod health;
mod host;
mod inspect;
mod lane;
mod limits;
mod load;
mod manifest;
mod measure;
mod policy;
mod pool;
mod reported;
mod stub;
mod tables;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{RwLock, oneshot};

use crate::clock::Timestamp;
use crate::config::{PluginPolicy, PluginsConfig};
use crate::order::patch::PatchOp;
use crate::order::{OrderId, Problem};
use crate::telemetry::metrics::Metrics;

pub use compile::work as compile_for_parent;
pub use generation::Generation;
pub use health::Health;
pub use inspect::{Inspection, inspect};
pub use lane::Lane;
pub use load::{LoadedPlugin, PluginError, UnusablePlugin};
pub use manifest::{Manifest, SECTION as MANIFEST_SECTION};
pub use measure::{Cost, Gauge, Patch};
pub use tables::{TableError, TableStamps, Tables};

use compile::Compiler;
use engine::Runtime;
use limits::BatchLimits;
use pool::{Job, Permit, Pool};

/// The plugins that the gateway brings along, by name, as components.
#[must_use]
pub fn bundled() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("order-rules", include_bytes!(concat!(env!("OUT_DIR"), "/order-rules.wasm"))),
        ("customer-enricher", include_bytes!(concat!(env!("OUT_DIR"), "/customer-enricher.wasm"))),
    ]
}

/// The path of the running program, also when its file was replaced meanwhile.
#[must_use]
pub fn this_program() -> Option<PathBuf> {
    let link = Path::new("/proc/self/exe");
    if link.exists() { Some(link.to_owned()) } else { std::env::current_exe().ok() }
}

/// A plugin to load.
#[derive(Debug, Clone)]
pub struct PluginSource {
    pub name: String,
    pub origin: PluginOrigin,
    /// Its file: WebAssembly of any lane.
    pub component: Bytes,
    /// What it is configured with: one JSON object.
    pub config_json: Vec<u8>,
    pub policy: PluginPolicy,
    /// What it may look up, if its policy grants that.
    pub tables: Tables,
}

/// Where a plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginOrigin {
    Bundled,
    File(PathBuf),
}

/// A plugin that is loaded.
#[derive(Debug, Clone)]
pub struct PluginInfo {
    pub name: Arc<str>,
    /// SHA-256 of its file, as `sha256:` and hexadecimal digits.
    pub digest: Arc<str>,
    pub origin: PluginOrigin,
    /// Size of its file.
    pub bytes: usize,
    pub lane: Lane,
    /// The smallest world that has all that it imports: `validator`, `enricher` or `bytes`.
    pub world: &'static str,
    /// What it was built for: `sluice:plugin@1.1.0`, `bytes-abi@1`.
    pub contract: Arc<str>,
    /// What it asks for: `log`, `metrics`, `lookup`.
    pub capabilities: Arc<[String]>,
    /// Its imports of WASI, which it gets in a form that denies everything.
    pub denied: Arc<[String]>,
    /// What its author says of it.
    pub manifest: Option<Arc<Manifest>>,
    /// How long it took to compile, or to fetch where it was compiled before.
    pub compiled: Duration,
    pub is_cached: bool,
}

/// An order to judge.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub order_id: OrderId,
    /// Path of its route.
    pub route: Arc<str>,
    /// `CloudEvents` type of the order's record.
    pub event_type: Arc<str>,
    /// When it was accepted.
    pub received: Timestamp,
    /// Counts its judgements, from 1.
    pub attempt: u32,
    /// Trace context, or empty.
    pub traceparent: Arc<str>,
    /// The order: one JSON object.
    pub body: Bytes,
}

/// Whether a batch runs among the others or, since it takes long, on the slow thread, which has the lowest priority. Shared
/// by its clones.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicBool>);

impl Pace {
    /// What has not begun yet runs on the slow thread.
    pub fn slow_down(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_slow(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a chain made of an order.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// The plugins that were asked, in sequence.
    pub runs: Vec<PluginRun>,
    pub decision: Decision,
}

/// One plugin's part in a judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRun {
    pub name: Arc<str>,
    pub digest: Arc<str>,
    /// `accept`, `enrich`, `reject`, `retry-later` or `fault`.
    pub verdict: &'static str,
    /// The order's share of the call's wall time.
    pub micros: u64,
}

/// What becomes of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may go out.
    Pass {
        patch: Vec<PatchOp>,
        /// As enriched; the same bytes as given if there is no patch.
        body: Bytes,
        /// Headers for its record, each name once.
        headers: Vec<(String, String)>,
    },
    /// Refused for good. At least one problem.
    Reject(Vec<Problem>),
    /// To be judged again, not before `after` has passed.
    Later { plugin: Arc<str>, reason: String, after: Duration },
    /// A plugin failed on it.
    Fault { plugin: Arc<str>, kind: FaultKind, detail: String },
}

/// How a plugin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It stopped by itself: a panic, a stack overflow, an access out of bounds.
    Trap,
    /// More CPU or wall time than granted.
    Time,
    /// More memory than granted.
    Memory,
    /// A longer answer than granted.
    Output,
    /// An answer that the contract does not allow.
    Contract,
    /// It said so itself.
    Reported,
    /// It is not loaded.
    Absent,
}

impl FaultKind {
    /// The word for metrics and for the order's status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Contract => "contract",
            Self::Reported => "reported",
            Self::Absent => "absent",
        }
    }
}

/// The present generation of plugins and the threads they run on. Cheap to clone; the threads end with the last clone.
#[derive(Debug, Clone)]
pub struct PluginHost {
    current: Arc<ArcSwap<Generation>>,
    runtime: Runtime,
    compiler: Arc<Compiler>,
    pool: Arc<Pool>,
    batches: BatchLimits,
    poison_faults: u32,
    shared: Arc<chain::Shared>,
    /// Held for reading by each call, for writing by one that is to be alone.
    calls: Arc<RwLock<()>>,
}

impl PluginHost {
    /// Makes the engine and its threads, and the slow one. Nothing is loaded: the first generation is empty.
    ///
    /// # Errors
    ///
    /// The engine or its threads could not be started.
    pub fn start(config: &PluginsConfig, metrics: Arc<Metrics>) -> Result<Self, PluginError> {
        let batches = BatchLimits::new(config);
        let runtime = Runtime::start(batches.threads).map_err(|source| PluginError::Engine { source })?;
        let shared = Arc::new(chain::Shared::default());
        let nice = i32::try_from(config.nice).unwrap_or(i32::MAX);
        let pool = Pool::start(&runtime, (batches.threads, nice), &metrics, &shared)
            .map_err(|source| PluginError::Engine { source: source.into() })?;
        let compiler = Arc::new(Compiler::new(&runtime.engine));
        Ok(Self {
            current: Arc::default(),
            runtime,
            compiler,
            pool: Arc::new(pool),
            batches,
            poison_faults: config.poison_faults,
            shared,
            calls: Arc::default(),
        })
    }

    /// Compiles plugins in processes of their own, if the path of this program is given, and keeps what comes out below a
    /// folder of the gateway's own. Without this they are compiled on a thread, and nothing is kept.
    #[must_use]
    pub fn compiling(mut self, state_dir: &Path, program: Option<PathBuf>) -> Self {
        self.compiler = Arc::new(Compiler::with(&self.runtime.engine, state_dir, program));
        self
    }

    /// Compiles a plugin, checks it against the contract and configures it once, under the limits of `config`. Blocks for
    /// as long as that takes; what serves goes on.
    ///
    /// # Errors
    ///
    /// Why it cannot be used: what was found and what was expected.
    pub fn load(&self, config: &PluginsConfig, source: PluginSource) -> Result<LoadedPlugin, PluginError> {
        load::load(&self.runtime, &self.compiler, config, source)
    }

    /// Loads many plugins at the same time. Result *i* belongs to source *i*.
    ///
    /// # Errors
    ///
    /// The first that cannot be used, as [`PluginHost::load`].
    pub fn load_all(
        &self,
        config: &PluginsConfig,
        sources: Vec<PluginSource>,
    ) -> Result<Vec<LoadedPlugin>, PluginError> {
        std::thread::scope(|scope| {
            let load = |source: PluginSource| {
                let name = source.name.clone();
                (name, scope.spawn(move || self.load(config, source)))
            };
            let loading: Vec<_> = sources.into_iter().map(load).collect();
            let crashed = |name| Err(PluginError::Unusable { name, problem: UnusablePlugin::crashed() });
            loading.into_iter().map(|(name, thread)| thread.join().unwrap_or_else(|_| crashed(name))).collect()
        })
    }

    /// Puts a generation in the place of the present one. Batches that have begun finish on theirs.
    pub fn publish(&self, generation: Generation) {
        self.current.store(Arc::new(generation));
    }

    /// What judges orders now.
    #[must_use]
    pub fn generation(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Faults on one order after which it is given up.
    #[must_use]
    pub fn poison_faults(&self) -> u32 {
        self.poison_faults
    }

    /// Waits until a plugin of the present generation fails too often, and returns it; each loaded plugin once. For one
    /// who waits: with many, each plugin comes to one of them.
    pub async fn broken_plugin(&self) -> LoadedPlugin {
        loop {
            let noticed = self.shared.broken.notified();
            if let Some(plugin) = self.generation().plugins.iter().find(|plugin| plugin.tell_broken()) {
                return plugin.clone();
            }
            noticed.await;
        }
    }

    /// Runs a route's chain on each candidate. Result *i* belongs to candidate *i*; what fails is a decision too.
    ///
    /// One thread is always left to the other routes. Parts of the batch that have not begun when it is slowed down run on
    /// the slow thread.
    pub async fn judge(&self, route: &str, batch: Vec<Candidate>, pace: &Pace) -> Vec<Judgement> {
        let chain = self.generation().chain(route);
        let parts = self.batches.cut(batch).into_iter().map(|part| async {
            let guard = Arc::clone(&self.calls).read_owned().await;
            self.submit(Arc::clone(&chain), part, Permit::Shared(guard), pace).await.finish().await
        });
        let judgements: Vec<Vec<Judgement>> =
            stream::iter(parts).buffered(self.batches.threads_per_route()).collect().await;
        judgements.into_iter().flatten().collect()
    }

    /// Runs a chain on one candidate while no other call is under way, for orders that are suspected of a crash.
    pub async fn judge_alone(&self, route: &str, candidate: Candidate) -> Judgement {
        let alone = Arc::clone(&self.calls).write_owned().await;
        let chain = self.generation().chain(route);
        self.submit(chain, vec![candidate], Permit::Alone(alone), &Pace::default()).await.finish().await.remove(0)
    }

    async fn submit(&self, chain: Arc<[chain::Link]>, orders: Vec<Candidate>, permit: Permit, pace: &Pace) -> Running {
        let first = chain.first().map_or_else(|| Arc::from(""), chain::Link::name);
        let count = orders.len();
        let (sender, receiver) = oneshot::channel();
        self.pool.submit(Job { chain, orders, answer: sender, permit }, pace.is_slow()).await;
        Running { count, first, receiver }
    }
}

/// A part of a batch that is being judged.
struct Running {
    count: usize,
    /// The first plugin of the chain, to blame if no answer comes.
    first: Arc<str>,
    receiver: oneshot::Receiver<Vec<Judgement>>,
}

impl Running {
    async fn finish(self) -> Vec<Judgement> {
        if let Ok(judgements) = self.receiver.await {
            return judgements;
        }
        // The thread dropped the job: a panic in this program, which it has logged.
        let detail = "the gateway failed while it ran the plugin".to_owned();
        let decision = Decision::Fault { plugin: self.first, kind: FaultKind::Trap, detail };
        vec![Judgement { runs: Vec::new(), decision }; self.count]
    }
}

#[cfg(test)]
pub(crate) mod tests;
