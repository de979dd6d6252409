//! Tasks, their early ends, readiness and the phases of shutdown.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

/// Tasks that belong together: stopped by one token, waited for with one limit.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Tasks {
    /// An empty group. Its first task that ends early (panics, or returns before the stop) cancels `failed`.
    #[must_use]
    pub fn new(failed: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), failed }
    }

    /// Cancelled when the group is to stop.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task for as long as the group lives. An early end is a process event, never silent.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        self.tracker.spawn(async move {
            let guard = EarlyEnd { name, stop, failed };
            task.await;
            drop(guard);
        });
    }

    /// Runs a task that ends by itself, such as a connection.
    pub fn spawn_short(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Stops the group and waits for it; returns whether everything ended within `limit`.
    pub async fn stop(&self, phase: &'static str, limit: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        let left = self.tracker.len();
        if tokio::time::timeout(limit, self.tracker.wait()).await.is_ok() {
            info!(phase, tasks = left, "phase `{phase}` of the shutdown is done");
            return true;
        }
        error!(phase, left = self.tracker.len(), "phase `{phase}` of the shutdown hit its limit of {limit:?}");
        false
    }
}

/// Tells of a task that ended although nobody asked it to, also by a panic.
struct EarlyEnd {
    name: &'static str,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Drop for EarlyEnd {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            error!(task = self.name, "task `{}` ended early: shutting down", self.name);
            self.failed.cancel();
        }
    }
}

/// How one part of the node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Ready,
    /// Not ready, and what it waits for.
    Waiting(String),
    /// Serving, but something is wrong.
    Degraded(String),
}

/// What keeps the node from being ready, part by part.
#[derive(Debug, Default)]
pub struct Readiness {
    parts: Mutex<BTreeMap<&'static str, Condition>>,
}

impl Readiness {
    /// Notes how a part stands.
    pub fn set(&self, part: &'static str, condition: Condition) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, condition);
    }

    /// Every part and how it stands.
    #[must_use]
    pub fn report(&self) -> Vec<(&'static str, Condition)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(part, condition)| (*part, condition.clone())).collect()
    }

    /// Whether no part is waiting.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.report().iter().any(|(_, condition)| matches!(condition, Condition::Waiting(_)))
    }
}
