//! The one writer: takes what waits, commits it as one transaction, wakes everybody.
//!
//! There is no timer. While one commit is in flight the next batch builds itself in the queue, so a lone request waits
//! for one commit and a crowd shares one. A job that fails by its own fault rolls the batch back; then every job runs
//! in a transaction of its own, so that only the culprit gets the error.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::load::{load, load_more};
use super::store::store;
use crate::clock::{Clock, Timestamp};
use crate::crash::{self, Point};
use crate::order::OrderStatus;
use crate::outbox::OutboxError;
use crate::outbox::counts::Counts;
use crate::outbox::needs::Operation;
use crate::outbox::wake::Wakes;
use crate::outbox::work::{Notes, Work};
use crate::telemetry::{Metrics, chain};

/// What a transaction must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// A crash of the machine: the commit waits for the disk.
    Machine,
    /// A crash of the process: the page cache is enough. Lost with the machine, it does no harm.
    Process,
}

/// Something to do inside a transaction. Runs again when the batch it was in failed.
pub(super) trait Job: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    /// Called once, after the commit or with the reason why there is none.
    fn finish(self: Box<Self>, result: Result<(), OutboxError>);
    fn bytes(&self) -> usize;
    fn durability(&self) -> Durability;
}

/// A job made of a function and a place for its answer.
struct Call<F, T> {
    run: F,
    output: Option<T>,
    answer: oneshot::Sender<Result<T, OutboxError>>,
    bytes: usize,
    durability: Durability,
}

impl<F, T> Job for Call<F, T>
where
    F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.output = Some((self.run)(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, result: Result<(), OutboxError>) {
        let Self { run, output, answer, .. } = *self;
        // Gone before the answer: what it shared with the asker is the asker's alone again.
        drop(run);
        let result = result.and_then(|()| output.ok_or(OutboxError::Unavailable));
        // The asker may have gone; what is committed is committed.
        drop(answer.send(result));
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn durability(&self) -> Durability {
        self.durability
    }
}

/// The way to the writer. Cheap to clone.
#[derive(Clone)]
pub(super) struct WriterQueue {
    jobs: mpsc::Sender<Box<dyn Job>>,
}

impl WriterQueue {
    /// Runs a function in a transaction and waits for the commit; waits for room in the queue first.
    ///
    /// Dropping the future after the job was queued does not stop the transaction.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        bytes: usize,
        durability: Durability,
        run: impl FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let (answer, result) = oneshot::channel();
        let call = Box::new(Call { run, output: None, answer, bytes, durability });
        self.jobs.send(call).await.map_err(|_| OutboxError::Unavailable)?;
        result.await.map_err(|_| OutboxError::Unavailable)?
    }

    /// Resolves when the writer's thread has ended, which it does by itself only after a panic.
    pub(super) async fn ended(&self) {
        self.jobs.closed().await;
    }

    /// As [`WriterQueue::call`], but gives up at once when the queue is full.
    pub(super) async fn try_call<T: Send + 'static>(
        &self,
        bytes: usize,
        run: impl FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let (answer, result) = oneshot::channel();
        let call = Box::new(Call { run, output: None, answer, bytes, durability: Durability::Machine });
        self.jobs.try_send(call).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => OutboxError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => OutboxError::Unavailable,
        })?;
        result.await.map_err(|_| OutboxError::Unavailable)?
    }
}

/// A transaction under way, with what is to be told once it is committed.
pub(super) struct Tx<'c> {
    conn: &'c Connection,
    /// The moment of the transaction; every row it writes has it.
    pub(super) now: Timestamp,
    /// The last number of the one counter.
    sequence: i64,
    /// What is to be told once it is committed.
    pub(super) notes: Notes,
    statements: Cell<u64>,
    /// Statements that this transaction has used: found by the address of their text, which is much cheaper than by
    /// the text itself.
    prepared: RefCell<Vec<(&'static str, CachedStatement<'c>)>>,
}

impl<'c> Tx<'c> {
    /// Runs an operation: load, logic, store.
    pub(super) fn transact<O: Operation>(&mut self, operation: &O) -> rusqlite::Result<O::Output> {
        let mut work = Work::new(self.now, self.sequence, std::mem::take(&mut self.notes));
        load(self, operation.needs(), &mut work)?;
        let more = operation.more(&work);
        load_more(self, more, &mut work)?;
        let mut output = operation.run(&mut work);
        let are_held = store(self, &work)?;
        if O::WRITTEN.is_some_and(crash::fails) {
            return Err(rusqlite::Error::InvalidQuery);
        }
        operation.complete(&mut output, &are_held);
        self.sequence = work.out.sequence;
        self.notes = work.out.notes;
        Ok(output)
    }

    /// Runs a statement and returns how many rows it changed.
    pub(super) fn execute(&self, sql: &'static str, params: impl Params) -> rusqlite::Result<usize> {
        self.with(sql, |statement| statement.execute(params))
    }

    /// Reads at most one row.
    pub(super) fn query_one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.with(sql, |statement| statement.query_row(params, read).optional())
    }

    /// Reads all rows.
    pub(super) fn query_all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.with(sql, |statement| statement.query_map(params, read)?.collect())
    }

    fn with<T>(
        &self,
        sql: &'static str,
        run: impl FnOnce(&mut CachedStatement<'c>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.statements.set(self.statements.get() + 1);
        let mut prepared = self.prepared.borrow_mut();
        let known = prepared.iter().position(|(own, _)| std::ptr::eq(*own, sql));
        let place = match known {
            Some(place) => place,
            None => {
                prepared.push((sql, self.conn.prepare_cached(sql)?));
                prepared.len() - 1
            }
        };
        run(&mut prepared[place].1)
    }
}

/// How much one commit may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitLimits {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

/// What the writer shares with the rest of the outbox.
#[derive(Debug, Clone)]
pub(super) struct WriterShared {
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) wakes: Arc<Wakes>,
    pub(super) counts: Arc<Counts>,
}

/// The thread's state.
pub(super) struct Writer {
    conn: Connection,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    limits: CommitLimits,
    shared: WriterShared,
    sequence: i64,
    syncs: bool,
    /// Given back with the last commit, not before.
    _lock: File,
}

/// The last number of the one counter.
pub(super) fn last_sequence(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("SELECT value FROM meta WHERE name = 'sequence'", [], |row| row.get(0))
}

impl Writer {
    /// Makes the writer and the queue to it. The caller runs [`Writer::run`] on a thread of its own.
    pub(super) fn new(
        conn: Connection,
        lock: File,
        queue_max: usize,
        limits: CommitLimits,
        shared: WriterShared,
    ) -> rusqlite::Result<(Self, WriterQueue)> {
        let sequence = last_sequence(&conn)?;
        let (sender, jobs) = mpsc::channel(queue_max);
        let writer = Self { conn, jobs, limits, shared, sequence, syncs: true, _lock: lock };
        Ok((writer, WriterQueue { jobs: sender }))
    }

    /// Commits batches until every way to the queue is gone.
    pub(super) fn run(mut self) {
        let mut batch = Vec::with_capacity(self.limits.items);
        while let Some(first) = self.jobs.blocking_recv() {
            let mut bytes = first.bytes();
            batch.push(first);
            while batch.len() < self.limits.items && bytes < self.limits.bytes {
                let Ok(next) = self.jobs.try_recv() else { break };
                bytes += next.bytes();
                batch.push(next);
            }
            self.commit_or_divide(&mut batch);
        }
    }

    fn commit_or_divide(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        match self.commit(batch) {
            Ok(()) => batch.drain(..).for_each(|job| job.finish(Ok(()))),
            Err(failure) if batch.len() == 1 => {
                error!(error = %chain(&failure), "failed to commit a transaction");
                batch.drain(..).for_each(|job| job.finish(Err(OutboxError::from(&failure))));
            }
            Err(_) => {
                self.shared.metrics.outbox_commit_failures.inc();
                for job in batch.drain(..) {
                    self.commit_or_divide(&mut vec![job]);
                }
            }
        }
    }

    /// Runs the jobs in one transaction; on an error nothing of it remains.
    fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let begun = Instant::now();
        let syncs = batch.iter().any(|job| job.durability() == Durability::Machine);
        self.set_durability(syncs)?;
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let mut tx = Tx {
            conn: &self.conn,
            now: self.shared.clock.now(),
            sequence: self.sequence,
            notes: Notes::default(),
            statements: Cell::new(2),
            prepared: RefCell::default(),
        };
        let result = run_all(&mut tx, batch).and_then(|()| {
            let sequence = tx.sequence;
            tx.execute("UPDATE meta SET value = ?1 WHERE name = 'sequence'", [sequence])?;
            tx.conn.execute_batch("COMMIT")
        });
        let Tx { sequence, notes, statements, prepared, .. } = tx;
        // Back into the connection's cache.
        drop(prepared);
        if let Err(failure) = result {
            if !self.conn.is_autocommit() {
                self.conn.execute_batch("ROLLBACK")?;
            }
            return Err(failure);
        }
        crash::at(Point::Committed);
        self.sequence = sequence;
        self.shared.counts.add(notes.counts);
        let metrics = &self.shared.metrics;
        metrics.outbox_backlog.set(self.shared.counts.backlog());
        metrics.orders_held.set(self.shared.counts.of(OrderStatus::Held));
        metrics.outbox_commits.inc();
        metrics.outbox_statements.inc_by(statements.get());
        metrics.outbox_commit_seconds.observe(begun.elapsed().as_secs_f64());
        if syncs {
            metrics.outbox_syncs.inc();
        }
        self.shared.wakes.committed(notes.entries, &notes.changed);
        Ok(())
    }

    /// `NORMAL` does not wait for the disk at a commit, but still does at a checkpoint, so nothing can be torn.
    fn set_durability(&mut self, syncs: bool) -> rusqlite::Result<()> {
        if syncs != self.syncs {
            self.conn.execute_batch(if syncs { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" })?;
            self.syncs = syncs;
        }
        Ok(())
    }
}

fn run_all(tx: &mut Tx<'_>, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    batch.iter_mut().try_for_each(|job| job.run(tx))
}
