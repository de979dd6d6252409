//! The threads that plugins run on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, mpsc, oneshot};
use tracing::error;

use super::chain::{Chain, Link};
use super::engine::{Runtime, THREAD_STACK_BYTES};
use super::{Candidate, Judgement};
use crate::telemetry::metrics::Metrics;

/// Jobs that may wait for each thread.
const QUEUE_PER_THREAD: usize = 4;

/// A batch for a chain, and where its judgements go.
pub(super) struct Job {
    pub(super) chain: Arc<[Link]>,
    pub(super) orders: Vec<Candidate>,
    pub(super) answer: oneshot::Sender<Vec<Judgement>>,
    /// Dropped when the job is done, even if nobody waits for its answer any more.
    pub(super) permit: Permit,
}

/// The right to run, with others or alone.
#[expect(dead_code, reason = "held, never read")]
pub(super) enum Permit {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

/// A fixed number of threads on one bounded queue. They end when the pool is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    queue: mpsc::Sender<Job>,
}

impl Pool {
    pub(super) fn start(runtime: &Runtime, threads: usize, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(threads * QUEUE_PER_THREAD);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..threads {
            let (jobs, runtime, metrics) = (Arc::clone(&jobs), runtime.clone(), Arc::clone(metrics));
            thread::Builder::new().name(format!("plugin-{number}")).stack_size(THREAD_STACK_BYTES).spawn(
                move || {
                    let chain = Chain { runtime: &runtime, metrics: &metrics };
                    while let Some(job) = next(&jobs) {
                        work(&chain, job);
                    }
                },
            )?;
        }
        Ok(Self { queue })
    }

    /// Waits for room in the queue and hands the job over.
    pub(super) async fn submit(&self, job: Job) {
        // The threads outlive the pool; were they gone, the job's answer would be dropped, which its waiter sees.
        drop(self.queue.send(job).await);
    }
}

/// The next job. One thread waits in the queue, the others for their turn to do so.
fn next(jobs: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}

fn work(chain: &Chain<'_>, job: Job) {
    let Job { chain: links, orders, answer, permit } = job;
    match catch_unwind(AssertUnwindSafe(|| chain.run(&links, orders))) {
        // Nobody may wait for it any more.
        Ok(judgements) => drop(answer.send(judgements)),
        Err(_) => error!("a plugin thread panicked: its batch counts as a fault of the first plugin"),
    }
    drop(permit);
}
