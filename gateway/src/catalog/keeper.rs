//! The thread of the catalog: looks, chooses, publishes, keeps, reports.

mod asked;
mod configuration;
mod publish;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{debug, warn};

use super::choose::{Choice, Entry, Pick};
use super::good::Good;
use super::look::Sight;
use super::report::Report;
use super::trust::Pins;
use super::{Ask, CatalogError, Parts};
use crate::clock::Clock;
use crate::config::Config;
use crate::folder::{Watch, Watched};
use crate::lifecycle::Readiness;
use crate::outbox::Outbox;
use crate::plugin::{PluginHost, Tables};
use crate::telemetry::{Metrics, chain};

/// Between two looks that must see the same.
const STABLE: Duration = Duration::from_millis(100);

/// Looks in a row that may see something else each before what is stable among it is acted on.
const UNSTABLE_LOOKS_MAX: usize = 50;

/// What the thread owns.
pub(super) struct Keeper {
    host: PluginHost,
    clock: Clock,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    report: Arc<ArcSwap<Report>>,
    good: Good,
    config_path: PathBuf,
    /// What the node runs with: as at the start, with the hot keys of now.
    config: Config,
    /// What is wrong with the file, and what of it needs a restart.
    config_problems: Vec<String>,
    restart_keys: Vec<String>,
    /// Plugins that a route names.
    entries: BTreeMap<String, Entry>,
    generation: u64,
    /// What was seen last and acted on.
    settled: Sight,
    pins: Pins,
    /// Lookup tables as they were read last.
    tables: Tables,
    /// What could not be kept on disk.
    disk_problem: Option<String>,
}

/// What serves next, by plugin name.
type Picks = BTreeMap<String, Pick>;

impl Keeper {
    pub(super) fn new(parts: Parts, report: Arc<ArcSwap<Report>>) -> Result<Self, CatalogError> {
        let Parts { config, config_path, host, clock, metrics, readiness } = parts;
        let good = Good::open(&config.plugins.state_dir);
        let good = good.map_err(|source| CatalogError::State { path: config.plugins.state_dir.clone(), source })?;
        Ok(Self {
            host,
            clock,
            metrics,
            readiness,
            report,
            good,
            config_path,
            config,
            config_problems: Vec::new(),
            restart_keys: Vec::new(),
            entries: BTreeMap::new(),
            generation: 0,
            settled: Sight::default(),
            pins: Pins::Open,
            tables: Tables::default(),
            disk_problem: None,
        })
    }

    /// The first generation.
    pub(super) fn begin(&mut self) -> Result<(), CatalogError> {
        let lines = |errors: Vec<crate::plugin::TableError>| errors.iter().map(ToString::to_string).collect();
        self.tables = Tables::load(&self.config.plugins).map_err(lines).map_err(CatalogError::Plugins)?;
        let (sight, _) = self.look_twice();
        self.pins = sight.pins();
        let picks = self.choose(&self.config, &sight, None).map_err(CatalogError::Plugins)?;
        self.settled = sight.without_bytes();
        self.publish(None, picks, None);
        Ok(())
    }

    /// Looks whenever something hints at a change, when asked, and from time to time; ends with the last asker.
    pub(super) fn run(
        &mut self,
        asks: &Receiver<Ask>,
        hint: Box<dyn Fn() + Send>,
        runtime: &tokio::runtime::Handle,
        outbox: &Outbox,
    ) {
        let watched = vec![Watched::Folder(self.config.plugins.dir.clone()), Watched::File(self.config_path.clone())];
        let mut watch = Watch::start(watched, hint)
            .inspect_err(|reason| {
                let interval = self.config.plugins.poll_interval;
                warn!(reason, "the system tells nothing of changes in folders: they are noticed every {interval}");
            })
            .ok();
        let mut unstable_looks = 0;
        // Something may have changed before the watch began.
        self.answer(Ask::Hint, false);
        loop {
            let wait = if unstable_looks > 0 { Duration::ZERO } else { self.config.plugins.poll_interval.0 };
            let ask = match asks.recv_timeout(wait) {
                Ok(ask) => ask,
                Err(RecvTimeoutError::Timeout) => Ask::Hint,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(watch) = &mut watch {
                watch.listen();
            }
            self.note_proven();
            let generation = self.generation;
            let is_stable = self.answer(ask, unstable_looks >= UNSTABLE_LOOKS_MAX);
            unstable_looks = if is_stable { 0 } else { (unstable_looks + 1) % (UNSTABLE_LOOKS_MAX + 1) };
            if self.generation != generation {
                self.wake(runtime, outbox);
            }
        }
    }

    /// Orders that a plugin failed on need not wait for their time: something else judges them now.
    fn wake(&self, runtime: &tokio::runtime::Handle, outbox: &Outbox) {
        let outbox = outbox.clone();
        runtime.spawn(async move {
            match outbox.retry_faults().await {
                Ok(orders) => debug!(orders, "{orders} orders that a plugin failed on are looked at again"),
                // They are looked at when their time has come.
                Err(error) => warn!(error = %chain(&error), "held orders wait for their time"),
            }
        });
    }

    /// Looks and acts on what is stable; whether everything was. Where it is not, nothing is done unless it `must` be.
    fn look(&mut self, forced: Option<&str>, must: bool) -> bool {
        let names = self.names();
        let first = Sight::look(&self.config, &self.config_path, &names);
        let is_open = !self.config_problems.is_empty();
        if forced.is_none() && !is_open && first.is_same(&self.settled) {
            return true;
        }
        std::thread::sleep(STABLE);
        let again = Sight::look(&self.config, &self.config_path, &names);
        let (sight, is_stable) = first.settle(again, &self.settled);
        if is_stable || must {
            self.act(sight, forced, Instant::now());
        }
        is_stable
    }

    /// The same at the start, when there is nothing to compare with.
    fn look_twice(&self) -> (Sight, bool) {
        let names = self.names();
        let mut first = Sight::look(&self.config, &self.config_path, &names);
        if !first.has_files() {
            return (first, true);
        }
        for _ in 0..UNSTABLE_LOOKS_MAX {
            std::thread::sleep(STABLE);
            let again = Sight::look(&self.config, &self.config_path, &names);
            if again.is_same(&first) {
                return (again, true);
            }
            first = again;
        }
        (first, false)
    }

    /// Takes over what can be taken over: configuration and plugins in one step.
    fn act(&mut self, sight: Sight, forced: Option<&str>, stable_at: Instant) {
        self.pins = sight.pins();
        let wanted = self.read_configuration(&sight);
        let mut sight = sight;
        let mut next = None;
        if let Some(wanted) = wanted {
            // It may name plugins that were not looked at.
            let names = named(&wanted);
            if names.iter().any(|name| !sight.files.contains_key(name)) {
                let more = Sight::look(&wanted, &self.config_path, &names);
                for (name, seen) in more.files {
                    sight.files.entry(name).or_insert(seen);
                }
            }
            match self.choose(&wanted, &sight, forced) {
                Ok(picks) => next = Some((Some(wanted), picks)),
                Err(problems) => self.complain_of_configuration(problems),
            }
        }
        if next.is_none() {
            match self.choose(&self.config, &sight, forced) {
                Ok(picks) => next = Some((None, picks)),
                Err(problems) => warn!("plugins are left as they are: {}", problems.join("; ")),
            }
        }
        self.settled = sight.without_bytes();
        if let Some((config, picks)) = next {
            self.publish(config, picks, Some(stable_at));
        }
    }

    /// Chooses for every plugin that the configuration names, at the same time.
    fn choose(&self, config: &Config, sight: &Sight, forced: Option<&str>) -> Result<Picks, Vec<String>> {
        let now = self.clock.now().to_string();
        let records: BTreeMap<String, _> = named(config)
            .into_iter()
            .map(|name| {
                let entry = self.entries.get(&name);
                let record = entry.map_or_else(|| self.good.read(&name), |entry| entry.record.clone());
                (name, record)
            })
            .collect();
        let missing = super::look::Seen::Missing;
        let chosen: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = records
                .iter()
                .map(|(name, record)| {
                    let choice = Choice {
                        host: &self.host,
                        good: &self.good,
                        config,
                        pins: &self.pins,
                        tables: &self.tables,
                        now: &now,
                        name,
                        seen: sight.files.get(name).unwrap_or(&missing),
                        record,
                        entry: self.entries.get(name),
                        is_forced: forced == Some(name),
                    };
                    (name, scope.spawn(move || choice.pick()))
                })
                .collect();
            let crashed = |name: &String| Err(format!("plugin `{name}`: the gateway failed on it"));
            threads.into_iter().map(|(name, thread)| (name, thread.join().unwrap_or_else(|_| crashed(name)))).collect()
        });
        let (mut picks, mut problems) = (Picks::new(), Vec::new());
        for (name, choice) in chosen {
            match choice {
                Ok(pick) => drop(picks.insert(name.clone(), pick)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(picks) } else { Err(problems) }
    }

    /// The plugins that a route names.
    fn names(&self) -> Vec<String> {
        named(&self.config)
    }
}

fn named(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = config.route.iter().flat_map(|route| route.plugins.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
