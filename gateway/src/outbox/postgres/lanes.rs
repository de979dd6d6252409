//! Taking orders in: a few lanes, each of which takes what waits, commits it as one transaction and answers everybody.
//!
//! A lone request waits for its commit and nothing else. Where several come at the same time commits begin apart, so that more
//! share each: a commit costs the same messages for one order as for a crowd. A crowd that waits already begins at once. An
//! item that fails by its own fault is found by halving the batch, and fails alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::failure::{Fate, again, answer, fate};
use crate::outbox::OutboxError;
use crate::outbox::accept::{Intake, KeepAll, Kept};

/// From the begin of one commit to that of the next: so many times what the last one took, at most so long.
const SPACE: u32 = 2;
const SPACE_MAX: Duration = Duration::from_millis(5);
/// So many do not wait for more.
const CROWD: usize = 16;

/// What one caller wants kept, and where the answer goes.
struct Wanted {
    items: Vec<Intake>,
    bytes: usize,
    answer: oneshot::Sender<Result<Vec<Kept>, OutboxError>>,
}

/// The queue in front of the lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    queue: mpsc::Sender<Wanted>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

/// How much one commit may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitLimits {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl Lanes {
    /// Starts lanes; they end when this is dropped and what was queued is done.
    pub(super) fn start(shared: &Arc<Shared>, lanes: usize, queue_max: usize, limits: CommitLimits) -> Self {
        let (queue, waiting) = mpsc::channel(queue_max);
        let (commits, next) = (Arc::default(), Instant::now());
        let waiting = Arc::new(Mutex::new(Waiting { queue: waiting, commits, next, was_shared: false }));
        for _ in 0..lanes {
            super::spawn(run(Arc::clone(shared), Arc::clone(&waiting), limits));
        }
        Self { queue }
    }

    /// Resolves when no lane is left, which happens only by a panic.
    pub(super) async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Keeps something; gives up at once when the queue is full.
    pub(super) async fn try_keep(&self, item: Intake) -> Result<Kept, OutboxError> {
        let (answer, kept) = oneshot::channel();
        let wanted = Wanted { bytes: item.bytes(), items: vec![item], answer };
        self.queue.try_send(wanted).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => OutboxError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => OutboxError::Unavailable,
        })?;
        let kept = kept.await.map_err(|_| OutboxError::Unavailable)??;
        kept.into_iter().next().ok_or(OutboxError::Unavailable)
    }

    /// Keeps many things in one transaction; waits for room.
    pub(super) async fn keep_all(&self, items: Vec<Intake>) -> Result<Vec<Kept>, OutboxError> {
        let (answer, kept) = oneshot::channel();
        let bytes = items.iter().map(Intake::bytes).sum();
        self.queue.send(Wanted { items, bytes, answer }).await.map_err(|_| OutboxError::Unavailable)?;
        kept.await.map_err(|_| OutboxError::Unavailable)?
    }
}

/// What the lanes share: the queue, and how the last commits went.
struct Waiting {
    queue: mpsc::Receiver<Wanted>,
    commits: Arc<Commits>,
    /// Before that only a crowd begins a commit where others come too.
    next: Instant,
    was_shared: bool,
}

/// Commits of all lanes.
#[derive(Debug, Default)]
struct Commits {
    under_way: AtomicUsize,
    /// How long the last one took, in microseconds.
    took: AtomicU64,
}

impl Waiting {
    /// What the next commit holds; `None` when nothing comes any more.
    async fn batch(&mut self, limits: CommitLimits) -> Option<Vec<Wanted>> {
        let first = self.queue.recv().await?;
        let others_come = self.was_shared || self.commits.under_way.load(Ordering::Relaxed) > 0;
        let (mut items, mut bytes) = (first.items.len(), first.bytes);
        let mut batch = vec![first];
        while items < limits.items && bytes < limits.bytes {
            let next = match self.queue.try_recv() {
                Ok(next) => next,
                Err(_) if items >= CROWD || !others_come => break,
                Err(_) => match timeout_at(self.next, self.queue.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => break,
                },
            };
            items += next.items.len();
            bytes += next.bytes;
            batch.push(next);
        }
        let took = Duration::from_micros(self.commits.took.load(Ordering::Relaxed));
        self.next = Instant::now() + (took * SPACE).min(SPACE_MAX);
        self.was_shared = batch.len() > 1;
        Some(batch)
    }
}

async fn run(shared: Arc<Shared>, waiting: Arc<Mutex<Waiting>>, limits: CommitLimits) {
    let commits = Arc::clone(&waiting.lock().await.commits);
    loop {
        // Whoever has the queue waits for the first, the others meanwhile for the queue.
        let batch = waiting.lock().await.batch(limits).await;
        let Some(batch) = batch else { return };
        let begun = Instant::now();
        commits.under_way.fetch_add(1, Ordering::Relaxed);
        keep_or_divide(&shared, batch).await;
        commits.under_way.fetch_sub(1, Ordering::Relaxed);
        commits.took.store(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Keeps a batch; where one of it cannot be kept, the others are all the same.
async fn keep_or_divide(shared: &Shared, batch: Vec<Wanted>) {
    let mut batches = vec![batch];
    while let Some(mut batch) = batches.pop() {
        let counts: Vec<usize> = batch.iter().map(|wanted| wanted.items.len()).collect();
        let items = batch.iter_mut().flat_map(|wanted| std::mem::take(&mut wanted.items)).collect();
        let operation = KeepAll(items);
        match shared.try_transact(&operation).await {
            Ok(kept) => {
                let mut kept = kept.into_iter();
                for (wanted, count) in batch.into_iter().zip(counts) {
                    // The asker may have gone; what is committed is committed.
                    drop(wanted.answer.send(Ok(kept.by_ref().take(count).collect())));
                }
            }
            Err(error) if fate(&error) == Fate::Own && batch.len() > 1 => {
                shared.metrics.outbox_commit_failures.inc();
                let mut items = operation.0.into_iter();
                for (wanted, count) in batch.iter_mut().zip(counts) {
                    wanted.items = items.by_ref().take(count).collect();
                }
                let half = batch.split_off(batch.len() / 2);
                batches.extend([half, batch]);
            }
            Err(error) => {
                let failure = answer(&error);
                for wanted in batch {
                    drop(wanted.answer.send(Err(again(&failure))));
                }
            }
        }
    }
}
