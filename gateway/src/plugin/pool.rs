//! The threads that plugins run on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, mpsc, oneshot};
use tracing::{debug, error};

use super::chain::{Chain, Link, Shared};
use super::engine::{Runtime, THREAD_STACK_BYTES};
use super::{Candidate, Judgement};
use crate::telemetry::metrics::Metrics;

/// Jobs that may wait for each thread.
const QUEUE_PER_THREAD: usize = 4;

/// Niceness of the slow thread: whatever else wants to run goes first.
const SLOW_NICE: i32 = 15;

/// Where threads take their jobs from.
type Jobs = Arc<Mutex<mpsc::Receiver<Job>>>;

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

/// A fixed number of threads on one bounded queue, and a slow one on its own. They end when the pool is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    queue: mpsc::Sender<Job>,
    slow: mpsc::Sender<Job>,
}

impl Pool {
    /// Starts so many threads of this niceness, and the slow one.
    pub(super) fn start(
        runtime: &Runtime,
        (threads, nice): (usize, i32),
        metrics: &Arc<Metrics>,
        shared: &Arc<Shared>,
    ) -> std::io::Result<Self> {
        let queue = |length| -> (mpsc::Sender<Job>, Jobs) {
            let (queue, jobs) = mpsc::channel(length);
            (queue, Arc::new(Mutex::new(jobs)))
        };
        let start = |name: String, jobs: &Jobs, nice| {
            let (jobs, runtime) = (Arc::clone(jobs), runtime.clone());
            let (metrics, shared) = (Arc::clone(metrics), Arc::clone(shared));
            spawn(name, nice, move || {
                let chain = Chain { runtime: &runtime, metrics: &metrics, shared: &shared };
                while let Some(job) = next(&jobs) {
                    work(&chain, job);
                }
            })
        };
        let (sender, jobs) = queue(threads * QUEUE_PER_THREAD);
        for number in 0..threads {
            start(format!("plugin-{number}"), &jobs, nice)?;
        }
        let (slow, jobs) = queue(QUEUE_PER_THREAD);
        start("plugin-slow".to_owned(), &jobs, SLOW_NICE.max(nice))?;
        Ok(Self { queue: sender, slow })
    }

    /// Waits for room in the queue and hands the job over.
    pub(super) async fn submit(&self, job: Job, is_slow: bool) {
        let queue = if is_slow { &self.slow } else { &self.queue };
        // The threads outlive the pool; were they gone, the job's answer would be dropped, which its waiter sees.
        drop(queue.send(job).await);
    }
}

fn spawn(name: String, nice: i32, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let thread = thread::Builder::new().name(name).stack_size(THREAD_STACK_BYTES);
    thread.spawn(move || {
        if let Err(error) = setpriority_process(Some(gettid()), nice) {
            // It runs like the others then.
            debug!(%error, "the priority of a thread stays as it is");
        }
        run();
    })?;
    Ok(())
}

/// The next job. One thread waits in the queue, the others for their turn to do so.
fn next(jobs: &Jobs) -> Option<Job> {
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
