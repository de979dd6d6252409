//! Which version of each plugin serves, and why: watches the plugins' folder and the configuration, and publishes
//! generations.
//!
//! One thread looks: when something hints at a change, when asked, and from time to time. What it saw twice the same,
//! 100 ms apart, is a **candidate**; one that is trusted, granted and loads takes the place of the version that serves.
//!
//! # Guarantees
//!
//! - **All or nothing.** Configuration and plugins change in one step, from one batch to the next; a batch that has begun
//!   finishes on what it began with.
//! - **What is bad never serves**: it is reported, and what served goes on serving.
//! - **The last good version survives**: it is kept on disk, checked by its digest, and serves after a restart although
//!   the folder is broken or gone.
//!
//! # Not here
//!
//! Compiling and running (`plugin`), what may change while the node runs (`config::hot`), notification (`folder`).

mod choose;
mod good;
mod keeper;
mod look;
mod report;
mod trust;

use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config::Config;
use crate::lifecycle::Readiness;
use crate::outbox::Outbox;
use crate::plugin::PluginHost;
use crate::telemetry::Metrics;

pub use report::{CandidateReport, PluginReport, Report, State, Version};

use keeper::Keeper;

/// What a catalog is made of.
#[derive(Debug)]
pub struct Parts {
    /// As it was read at the start.
    pub config: Config,
    /// Where it was read; the file need not be there.
    pub config_path: PathBuf,
    pub host: PluginHost,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("plugins cannot be used, and there is no earlier version of them:\n{}", .0.join("\n"))]
    Plugins(Vec<String>),
    #[error("the folder plugins.state_dir = {} cannot be used", path.display())]
    State {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("start the thread that watches plugins")]
    Thread(#[source] std::io::Error),
}

/// Why something the operator asked for was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no route names a plugin `{0}`")]
    Unknown(String),
    #[error("{0}")]
    State(String),
    #[error("the node is shutting down")]
    Gone,
}

/// What the thread is asked.
enum Ask {
    /// Something may have changed.
    Hint,
    Reload {
        name: Option<String>,
        answer: Answer,
    },
    RollBack {
        name: String,
        answer: Answer,
    },
    Pin {
        name: String,
        digest: Option<String>,
        answer: Answer,
    },
    Forget {
        name: String,
        answer: Answer,
    },
    /// Its faults are too many.
    Withdraw {
        name: String,
        digest: String,
        why: String,
    },
}

type Answer = oneshot::Sender<Result<(), Refusal>>;

/// The catalog of a running node. Cheap to clone; its thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    asks: Arc<Mutex<Sender<Ask>>>,
    report: Arc<ArcSwap<Report>>,
    ended: Arc<tokio::sync::Notify>,
}

impl Catalog {
    /// Reads, checks and compiles every plugin that a route names, and publishes the first generation. Blocks.
    ///
    /// # Errors
    ///
    /// A plugin cannot be used and has no last good version.
    pub fn open(parts: Parts) -> Result<Opened, CatalogError> {
        let report = Arc::new(ArcSwap::default());
        let mut keeper = Keeper::new(parts, Arc::clone(&report))?;
        keeper.begin()?;
        Ok(Opened { keeper, report })
    }

    /// How things stand.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// Says that looking may pay.
    pub fn hint(&self) {
        self.send(Ask::Hint);
    }

    /// Looks now, until what it sees is stable. With a name, that plugin's file is tried although it was refused or
    /// withdrawn before.
    ///
    /// # Errors
    ///
    /// No route names the plugin.
    pub async fn reload(&self, name: Option<String>) -> Result<(), Refusal> {
        self.ask(|answer| Ask::Reload { name, answer }).await
    }

    /// Puts the version before the present one back, until the file changes.
    ///
    /// # Errors
    ///
    /// No route names the plugin, or there is no earlier version, or it cannot be used any more.
    pub async fn roll_back(&self, name: String) -> Result<(), Refusal> {
        self.ask(|answer| Ask::RollBack { name, answer }).await
    }

    /// Writes a digest into `plugins.lock`: the one given, else that of the version that serves.
    ///
    /// # Errors
    ///
    /// No route names the plugin, or the file cannot be written.
    pub async fn pin(&self, name: String, digest: Option<String>) -> Result<(), Refusal> {
        self.ask(|answer| Ask::Pin { name, digest, answer }).await
    }

    /// Forgets the kept versions of a plugin whose file is gone, so that the bundled one serves again.
    ///
    /// # Errors
    ///
    /// No route names the plugin, its file is there, or nothing else could serve.
    pub async fn forget(&self, name: String) -> Result<(), Refusal> {
        self.ask(|answer| Ask::Forget { name, answer }).await
    }

    /// Takes a version that faults too often out of service, where there is an earlier one.
    pub fn withdraw(&self, name: String, digest: String, why: String) {
        self.send(Ask::Withdraw { name, digest, why });
    }

    /// Resolves when the thread has ended, which it does by itself only after a panic. The node has to end too.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    fn send(&self, ask: Ask) {
        // A thread that has ended looks at nothing any more; the node hears of that by `ended`.
        drop(self.asks.lock().unwrap_or_else(PoisonError::into_inner).send(ask));
    }

    async fn ask(&self, make: impl FnOnce(Answer) -> Ask) -> Result<(), Refusal> {
        let (answer, receiver) = oneshot::channel();
        self.send(make(answer));
        receiver.await.unwrap_or(Err(Refusal::Gone))
    }
}

/// A catalog whose first generation serves and that watches nothing yet.
pub struct Opened {
    keeper: Keeper,
    report: Arc<ArcSwap<Report>>,
}

impl Opened {
    /// Starts watching. Orders that a plugin failed on are looked at again, in this outbox, when the generation changes.
    ///
    /// # Errors
    ///
    /// The thread could not be started.
    pub fn watch(self, outbox: Outbox) -> Result<Catalog, CatalogError> {
        let Self { mut keeper, report } = self;
        let (sender, asks) = mpsc::channel();
        let ended = Arc::new(tokio::sync::Notify::new());
        let catalog = Catalog { asks: Arc::new(Mutex::new(sender)), report, ended: Arc::clone(&ended) };
        let runtime = tokio::runtime::Handle::current();
        // The watch must not keep the thread alive.
        let askers = Arc::downgrade(&catalog.asks);
        let hint = move || {
            if let Some(asks) = askers.upgrade() {
                drop(asks.lock().unwrap_or_else(PoisonError::into_inner).send(Ask::Hint));
            }
        };
        let work = move || {
            let _ended = Ended(ended);
            keeper.run(&asks, Box::new(hint), &runtime, &outbox);
        };
        std::thread::Builder::new().name("catalog".to_owned()).spawn(work).map_err(CatalogError::Thread)?;
        Ok(catalog)
    }
}

/// Tells of the end of the thread, however it ends.
struct Ended(Arc<tokio::sync::Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
