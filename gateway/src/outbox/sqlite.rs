//! The outbox on SQLite: one file, one node, one thread that writes.
//!
//! Differs from a shared database because the lock on the file stands for every lease, and the writer's turn for every
//! lock on a row: what a transaction read nobody changes before it has committed.

mod dead;
mod examine;
mod load;
mod open;
mod read;
mod readers;
mod retain;
mod slots;
mod store;
mod values;
mod writer;

use std::sync::Arc;

use rusqlite::Connection;

use super::OutboxError;
use super::counts::Counts;
use super::needs::Operation;
use super::owning::{HeldKey, HeldOrder, ReadLimits, Tenure};
use super::reading::{OrderFilter, StoredTimeline, Versions};
use super::retention::{Cutoffs, Removed};
use super::wake::Wakes;
use crate::clock::{Clock, Timestamp};
use crate::config::DatabaseConfig;
use crate::dead::{DeadFilter, DeadKind, DeadLetter};
use crate::entry::{Entry, EntryPlace};
use crate::order::{OrderId, OrderView, Slot};
use crate::record::Record;
use crate::reply::Position;
use crate::telemetry::Metrics;

pub use open::OpenError;

pub(super) use examine::examine;
pub(super) use open::path_of;

use readers::Readers;
use writer::{CommitLimits, Durability, Tx, Writer, WriterQueue, WriterShared};

/// One file.
pub(super) struct Sqlite {
    queue: WriterQueue,
    readers: Readers,
}

/// A file that was just opened, and what is kept in step with its commits from now on.
pub(super) struct Opened {
    pub(super) sqlite: Sqlite,
    pub(super) wakes: Arc<Wakes>,
    pub(super) counts: Arc<Counts>,
}

impl Sqlite {
    /// Opens, or makes, the database, takes its lock and starts the writer's thread.
    pub(super) fn open(config: &DatabaseConfig, clock: Clock, metrics: Arc<Metrics>) -> Result<Opened, OpenError> {
        let opened = open::open(&config.url, config.readers, config.cache_bytes.0)?;
        let path = opened.path;
        let failed = |source| OpenError::Sqlite { path: path.clone(), source };
        let counts = Arc::new(count(&opened.writer).map_err(failed)?);
        let sequence = writer::last_sequence(&opened.writer).map_err(failed)?;
        let last_entry = slots::last_entry(&opened.writer).map_err(failed)?;
        let wakes = Arc::new(Wakes::new(sequence, last_entry.number));
        let shared = WriterShared { clock, metrics, wakes: Arc::clone(&wakes), counts: Arc::clone(&counts) };
        let limits = CommitLimits { items: config.commit_items_max, bytes: config.commit_bytes_max.0 };
        let (writer, queue) =
            Writer::new(opened.writer, opened.lock, config.queue_max, limits, shared).map_err(failed)?;
        let spawned = std::thread::Builder::new().name("outbox-writer".to_owned()).spawn(move || writer.run());
        spawned.map_err(|source| OpenError::Lock { path: path.clone(), source })?;
        let sqlite = Self { queue, readers: Readers::new(opened.readers) };
        Ok(Opened { sqlite, wakes, counts })
    }

    /// Resolves when nothing can be written any more.
    pub(super) async fn writer_ended(&self) {
        self.queue.ended().await;
    }

    /// Runs an operation that adds so many bytes; waits for room in the queue first.
    pub(super) async fn transact<O>(&self, bytes: usize, operation: O) -> Result<O::Output, OutboxError>
    where
        O: Operation + Send + 'static,
        O::Output: Send + 'static,
    {
        self.queue.call(bytes, Durability::Machine, move |tx| tx.transact(&operation)).await
    }

    /// As [`Sqlite::transact`], but gives up at once when the queue is full.
    pub(super) async fn try_transact<O>(&self, bytes: usize, operation: O) -> Result<O::Output, OutboxError>
    where
        O: Operation + Send + 'static,
        O::Output: Send + 'static,
    {
        self.queue.try_call(bytes, move |tx| tx.transact(&operation)).await
    }

    pub(super) async fn take_over(&self, owner: String) -> Result<(), OutboxError> {
        self.write(move |tx| slots::take_over(tx, &owner)).await
    }

    pub(super) async fn tenures(&self) -> Result<Vec<Tenure>, OutboxError> {
        self.write(slots::tenures).await
    }

    pub(super) async fn entries(&self, after: EntryPlace, limits: ReadLimits) -> Result<Vec<Entry>, OutboxError> {
        self.read(move |conn| Ok(slots::entries(conn, after, limits)?)).await
    }

    pub(super) async fn due(
        &self,
        now: Timestamp,
        routes: Vec<(Arc<str>, usize)>,
        bytes_max: usize,
    ) -> Result<Vec<HeldOrder>, OutboxError> {
        self.read(move |conn| Ok(slots::due(conn, now, &routes, bytes_max)?)).await
    }

    pub(super) async fn held_keys(&self) -> Result<Vec<HeldKey>, OutboxError> {
        self.read(|conn| Ok(slots::held_keys(conn)?)).await
    }

    pub(super) async fn last_entry(&self) -> Result<EntryPlace, OutboxError> {
        self.read(|conn| Ok(slots::last_entry(conn)?)).await
    }

    /// Survives the process, not the machine: a crash of the machine is no plugin's doing.
    pub(super) async fn begin(
        &self,
        batch: String,
        alone: Option<(Slot, EntryPlace, OrderId)>,
    ) -> Result<(), OutboxError> {
        self.queue.call(0, Durability::Process, move |tx| slots::begin(tx, &batch, alone)).await
    }

    pub(super) async fn advance_idle(
        &self,
        cursors: Vec<(Slot, i64, EntryPlace)>,
        to: EntryPlace,
    ) -> Result<bool, OutboxError> {
        let lost = self.write(move |tx| slots::advance_idle(tx, &cursors, to)).await?;
        Ok(lost.is_empty())
    }

    pub(super) async fn log_ends(&self) -> Result<Vec<(Slot, i64)>, OutboxError> {
        self.read(|conn| Ok(slots::log_ends(conn)?)).await
    }

    pub(super) async fn records(&self, slot: Slot, after: i64, limits: ReadLimits) -> Result<Vec<Record>, OutboxError> {
        self.read(move |conn| Ok(slots::records(conn, slot, after, limits)?)).await
    }

    pub(super) async fn forgotten(&self) -> Result<Vec<Record>, OutboxError> {
        self.read(|conn| Ok(slots::forgotten(conn)?)).await
    }

    pub(super) async fn has_overdue(&self, moment: Timestamp) -> Result<bool, OutboxError> {
        self.read(move |conn| Ok(read::has_overdue(conn, moment)?)).await
    }

    pub(super) async fn reply_positions(&self) -> Result<Vec<Position>, OutboxError> {
        self.read(|conn| Ok(read::reply_positions(conn)?)).await
    }

    pub(super) async fn note_ends(&self, asked_at: Timestamp, ends: Vec<Position>) -> Result<(), OutboxError> {
        self.write(move |tx| slots::note_ends(tx, asked_at, &ends)).await
    }

    pub(super) async fn order(&self, id: OrderId) -> Result<Option<OrderView>, OutboxError> {
        self.read(move |conn| read::order(conn, id)).await
    }

    pub(super) async fn versions(&self, id: OrderId, version: u64) -> Result<Option<Versions>, OutboxError> {
        self.read(move |conn| read::versions(conn, id, version)).await
    }

    pub(super) async fn list(&self, filter: OrderFilter) -> Result<Vec<OrderView>, OutboxError> {
        self.read(move |conn| read::list(conn, &filter)).await
    }

    pub(super) async fn timeline(&self, id: OrderId) -> Result<Option<StoredTimeline>, OutboxError> {
        self.read(move |conn| read::timeline(conn, id)).await
    }

    pub(super) async fn oldest_undecided(&self) -> Result<Option<Timestamp>, OutboxError> {
        self.read(|conn| Ok(read::oldest_undecided(conn)?)).await
    }

    pub(super) async fn dead(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, OutboxError> {
        self.read(move |conn| Ok(dead::list(conn, &filter)?)).await
    }

    pub(super) async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, OutboxError> {
        self.read(move |conn| Ok(dead::one(conn, id)?)).await
    }

    pub(super) async fn dead_counts(&self) -> Result<Vec<(DeadKind, u64)>, OutboxError> {
        self.read(|conn| Ok(dead::counts(conn)?)).await
    }

    pub(super) async fn retry_faults(&self) -> Result<usize, OutboxError> {
        self.write(slots::retry_faults).await
    }

    pub(super) async fn retain(&self, cutoffs: Cutoffs, orders_after: Option<OrderId>) -> Result<Removed, OutboxError> {
        self.write(move |tx| retain::step(tx, &cutoffs, orders_after)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, OutboxError> {
        self.queue.call(0, Durability::Machine, run).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, OutboxError> + Send + 'static,
    ) -> Result<T, OutboxError> {
        self.readers.read(read).await
    }
}

/// Counts the orders by status, once; from then on the writer keeps count.
fn count(conn: &Connection) -> rusqlite::Result<Counts> {
    let counts = Counts::default();
    let mut statement = conn.prepare("SELECT status, count(*) FROM orders GROUP BY status")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        counts.set(row.get(0)?, row.get(1)?);
    }
    Ok(counts)
}
