//! Taking orders in: a few lanes, each of which takes what waits, commits it as one transaction and answers everybody.
//!
//! There is no timer. While the lanes commit the next batch builds itself in the queue, so a lone request waits for one
//! commit and a crowd shares one. An item that fails by its own fault is found by halving the batch, and fails alone.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::Shared;
use super::failure::{Fate, again, answer, fate};
use crate::outbox::OutboxError;
use crate::outbox::accept::{Intake, KeepAll, Kept};

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
        let waiting = Arc::new(Mutex::new(waiting));
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

async fn run(shared: Arc<Shared>, waiting: Arc<Mutex<mpsc::Receiver<Wanted>>>, limits: CommitLimits) {
    loop {
        let batch = {
            // Whoever has the queue waits for the first, the others meanwhile for the queue.
            let mut waiting = waiting.lock().await;
            let Some(first) = waiting.recv().await else { return };
            let (mut items, mut bytes) = (first.items.len(), first.bytes);
            let mut batch = vec![first];
            while items < limits.items && bytes < limits.bytes {
                let Ok(next) = waiting.try_recv() else { break };
                items += next.items.len();
                bytes += next.bytes;
                batch.push(next);
            }
            batch
        };
        keep_or_divide(&shared, batch).await;
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
