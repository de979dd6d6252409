//! The database: orders, their history, the two logs of the relay, replies, dead letters.
//!
//! This file lists what can be asked, in the order of an order's life. The transactions stand in the files below.
//!
//! # Guarantees
//!
//! - **Durable.** A method that writes returns after its transaction is on disk (`synchronous=FULL`), with one
//!   exception that says so.
//! - **One writer.** All writes go through one thread that commits what waits as one transaction; reads have their own
//!   connections and never wait for it.
//! - **Fenced.** What only the owner of a slot may do carries the slot's epoch and the cursor it was read at; where they
//!   do not match nothing is changed and the caller gets [`Lost`].
//! - **Not undone.** Dropping a future of this module does not stop a transaction that was queued.
//!
//! # Not here
//!
//! What an entry amounts to (`relay`), what a reply means (`subscriber`, `route`), HTTP.

mod accept;
mod dead;
mod decide;
mod open;
mod order_row;
mod publish;
mod read;
mod readers;
mod replies;
mod retain;
mod slots;
mod values;
mod wake;
mod writer;

use std::sync::Arc;

use tokio::sync::futures::Notified;

use crate::clock::{Clock, Timestamp};
use crate::config::DatabaseConfig;
use crate::dead::{DeadKind, DeadLetter};
use crate::entry::Entry;
use crate::order::{OrderId, OrderStatus, OrderView, Slot};
use crate::record::Record;
use crate::reply::Position;
use crate::route::Rules;
use crate::telemetry::Metrics;

pub use accept::{Kept, KeyHash, NewCommand, NewOrder};
pub use dead::DeadResult;
pub use decide::{BEHIND, BUSY, DEAD, Decided, Item, Origin, Pass, SlotDecided, SlotPass, Step};
pub use open::OpenError;
pub use publish::{Delivered, Deliveries, Placed, Refused, SlotDeliveries};
pub use read::{OrderFilter, StoredTimeline, Versions};
pub use replies::{Fates, TakenReplies};
pub use retain::{Cutoffs, Removed};
pub use slots::{HeldKey, HeldOrder, ReadLimits, Strikes, Suspicion, Tenure};
pub use wake::{ChangeListener, Changed};

use readers::Readers;
use wake::Wakes;
use writer::{CommitLimits, Counts, Durability, Writer, WriterQueue, WriterShared};

/// The tenure is over, or the cursor stands elsewhere: load the slot afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// Why the database did not do what was asked. Nothing of it was done, or (after a lost answer) all of it.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("too many transactions wait")]
    QueueFull,
    #[error("the disk is full")]
    DiskFull,
    #[error("the database is closed, or what it holds cannot be read")]
    Unavailable,
    #[error("the database refused")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the database refused: {0}")]
    Refused(String),
}

impl From<&rusqlite::Error> for OutboxError {
    fn from(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// The way to the database. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    queue: WriterQueue,
    readers: Readers,
    wakes: Arc<Wakes>,
    counts: Arc<Counts>,
    rules: Arc<Rules>,
    clock: Clock,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Opens, or makes, the database, takes its lock and starts the writer's thread.
    pub fn open(config: &DatabaseConfig, rules: Rules, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let opened = open::open(&config.url, config.readers, config.cache_bytes.0)?;
        let path = opened.path;
        let failed = |source| OpenError::Sqlite { path: path.clone(), source };
        let counts = count(&opened.writer).map_err(failed)?;
        metrics.outbox_backlog.set(counts.backlog());
        metrics.orders_held.set(counts.of(OrderStatus::Held));
        let sequence = writer::last_sequence(&opened.writer).map_err(failed)?;
        let wakes = Arc::new(Wakes::new(sequence));
        let shared = WriterShared { clock: clock.clone(), metrics, wakes, counts: Arc::new(counts) };
        let (wakes, counts) = (Arc::clone(&shared.wakes), Arc::clone(&shared.counts));
        let limits = CommitLimits { items: config.commit_items_max, bytes: config.commit_bytes_max.0 };
        let (writer, queue) =
            Writer::new(opened.writer, opened.lock, config.queue_max, limits, shared).map_err(failed)?;
        let spawned = std::thread::Builder::new().name("outbox-writer".to_owned()).spawn(move || writer.run());
        spawned.map_err(|source| OpenError::Lock { path: path.clone(), source })?;
        let readers = Readers::new(opened.readers);
        let inner = Inner { queue, readers, wakes, counts, rules: Arc::new(rules), clock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Resolves when nothing can be written any more: the writer's thread has ended by a panic. The node has to end too.
    pub async fn writer_ended(&self) {
        self.inner.queue.ended().await;
    }

    /// Orders accepted and not yet on Kafka, rejected or cancelled.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        u64::try_from(self.inner.counts.backlog()).unwrap_or(0)
    }

    // --- taking in ---

    /// Keeps an order: order, history, entry and idempotency row in one transaction. Does not wait for room.
    pub async fn accept(&self, order: NewOrder) -> Result<Kept, OutboxError> {
        let bytes = order.body.len();
        self.inner.queue.try_call(bytes, move |tx| accept::accept(tx, &order)).await
    }

    /// Keeps many orders in one transaction, each with its own result. Waits for room.
    pub async fn accept_all(&self, orders: Vec<NewOrder>) -> Result<Vec<Kept>, OutboxError> {
        let bytes = orders.iter().map(|order| order.body.len()).sum();
        let run = move |tx: &mut writer::Tx<'_>| orders.iter().map(|order| accept::accept(tx, order)).collect();
        self.inner.queue.call(bytes, Durability::Machine, run).await
    }

    /// Promises a client's command.
    pub async fn command(&self, command: NewCommand) -> Result<Kept, OutboxError> {
        let bytes = command.payload.as_ref().map_or(0, bytes::Bytes::len);
        self.inner.queue.try_call(bytes, move |tx| accept::command(tx, &command)).await
    }

    // --- owning and deciding ---

    /// Takes every slot over, with a new epoch, after the process that had them has ended.
    pub async fn take_over(&self, owner: String) -> Result<Vec<Tenure>, OutboxError> {
        self.write(move |tx| slots::take_over(tx, &owner)).await?;
        self.tenures().await
    }

    /// The tenures as stored, for slots whose state is to be loaded afresh.
    pub async fn tenures(&self) -> Result<Vec<Tenure>, OutboxError> {
        self.write(slots::tenures).await
    }

    /// Entries above `after` in the order of commits. What the writer handed over stands for the read where it
    /// directly follows `after`.
    pub async fn entries(&self, after: i64, limits: ReadLimits) -> Result<Vec<Entry>, OutboxError> {
        let handed_over = self.inner.wakes.take(after, limits.count, limits.bytes);
        if !handed_over.is_empty() {
            return Ok(handed_over);
        }
        self.read(move |conn| Ok(slots::entries(conn, after, limits)?)).await
    }

    /// Resolves at the next commit with entries. Make it before looking, so that none is missed.
    pub fn entry_committed(&self) -> Notified<'_> {
        self.inner.wakes.entries().notified()
    }

    /// Orders of these routes that are due now, each with those behind it; of each route about as many as said.
    pub async fn due(&self, routes: Vec<(Arc<str>, usize)>, bytes_max: usize) -> Result<Vec<HeldOrder>, OutboxError> {
        let now = self.inner.clock.now();
        self.read(move |conn| Ok(slots::due(conn, now, &routes, bytes_max)?)).await
    }

    /// Every key that has held orders.
    pub async fn held_keys(&self) -> Result<Vec<HeldKey>, OutboxError> {
        self.read(|conn| Ok(slots::held_keys(conn)?)).await
    }

    /// Number of the last entry of the log.
    pub async fn last_entry(&self) -> Result<i64, OutboxError> {
        self.read(|conn| Ok(slots::last_entry(conn)?)).await
    }

    /// Names a pass before its plugins run, and the order of it that runs alone. Survives the process, not the machine:
    /// a crash of the machine is no plugin's doing.
    pub async fn begin(&self, batch: String, alone: Option<(Slot, i64, OrderId)>) -> Result<(), OutboxError> {
        self.inner.queue.call(0, Durability::Process, move |tx| slots::begin(tx, &batch, alone)).await
    }

    /// Commits what a pass decided. Returns the pass for its records.
    pub async fn decide(&self, pass: Arc<Pass>) -> Result<Decided, OutboxError> {
        let rules = Arc::clone(&self.inner.rules);
        self.write(move |tx| decide::decide(tx, &pass, &rules)).await
    }

    /// Moves the decide cursors of slots without entries up to `to`: (slot, epoch, from).
    pub async fn advance_idle(&self, cursors: Vec<(Slot, i64, i64)>, to: i64) -> Result<bool, OutboxError> {
        let lost = self.write(move |tx| slots::advance_idle(tx, &cursors, to)).await?;
        Ok(lost.is_empty())
    }

    // --- publishing ---

    /// Number of the last record in each slot's log.
    pub async fn log_ends(&self) -> Result<Vec<(Slot, i64)>, OutboxError> {
        self.read(|conn| Ok(slots::log_ends(conn)?)).await
    }

    /// Records of a slot above `after`, in the order of publishing.
    pub async fn records(&self, slot: Slot, after: i64, limits: ReadLimits) -> Result<Vec<Record>, OutboxError> {
        self.read(move |conn| Ok(slots::records(conn, slot, after, limits)?)).await
    }

    /// Commits delivery reports; one result per slot, in their order.
    pub async fn publish(&self, deliveries: Arc<Deliveries>) -> Result<Vec<Result<(), Lost>>, OutboxError> {
        let rules = Arc::clone(&self.inner.rules);
        self.write(move |tx| publish::publish(tx, &deliveries, &rules)).await
    }

    /// Notes what a broker that starts empty has forgotten; returns how many records go out again.
    pub async fn forget_broker(&self, bytes_max: usize) -> Result<usize, OutboxError> {
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        self.write(move |tx| publish::forget_broker(tx, bytes_max)).await
    }

    /// Records that go out again, in order.
    pub async fn forgotten(&self) -> Result<Vec<Record>, OutboxError> {
        self.read(|conn| Ok(slots::forgotten(conn)?)).await
    }

    // --- replies ---

    /// Takes replies in: inbox, status changes and what follows from them, and the positions, in one transaction.
    pub async fn take_replies(&self, taken: Arc<TakenReplies>) -> Result<Fates, OutboxError> {
        let rules = Arc::clone(&self.inner.rules);
        self.write(move |tx| replies::take(tx, &taken, &rules)).await
    }

    /// Whether a deadline lies before `moment`.
    pub async fn has_overdue(&self, moment: Timestamp) -> Result<bool, OutboxError> {
        self.read(move |conn| Ok(read::has_overdue(conn, moment)?)).await
    }

    /// Notes where reply partitions end at `asked_at`.
    pub async fn note_ends(&self, asked_at: Timestamp, ends: Vec<Position>) -> Result<(), OutboxError> {
        self.write(move |tx| replies::note_ends(tx, asked_at, &ends)).await
    }

    /// Expires at most `limit` orders that were due at `asked_at` and returns how many; `None` until everything up to
    /// the ends asked for then is read.
    pub async fn expire(&self, asked_at: Timestamp, topic: String, limit: usize) -> Result<Option<usize>, OutboxError> {
        let rules = Arc::clone(&self.inner.rules);
        self.write(move |tx| replies::expire(tx, asked_at, &topic, &rules, limit)).await
    }

    // --- reading ---

    /// An order at its present version.
    pub async fn order(&self, id: OrderId) -> Result<Option<OrderView>, OutboxError> {
        self.read(move |conn| read::order(conn, id)).await
    }

    /// The versions of an order above `version`.
    pub async fn versions(&self, id: OrderId, version: u64) -> Result<Option<Versions>, OutboxError> {
        self.read(move |conn| read::versions(conn, id, version)).await
    }

    /// Orders, newest first.
    pub async fn list(&self, filter: OrderFilter) -> Result<Vec<OrderView>, OutboxError> {
        self.read(move |conn| read::list(conn, &filter)).await
    }

    /// All that happened to an order.
    pub async fn timeline(&self, id: OrderId) -> Result<Option<StoredTimeline>, OutboxError> {
        self.read(move |conn| read::timeline(conn, id)).await
    }

    /// Orders by status, as of the last commit.
    #[must_use]
    pub fn counts(&self) -> Vec<(OrderStatus, u64)> {
        let of = |status| (status, u64::try_from(self.inner.counts.of(status)).unwrap_or(0));
        OrderStatus::ALL.into_iter().map(of).collect()
    }

    /// When the oldest undecided entry was written.
    pub async fn oldest_undecided(&self) -> Result<Option<Timestamp>, OutboxError> {
        self.read(|conn| Ok(read::oldest_undecided(conn)?)).await
    }

    /// Hears of changes of one order.
    #[must_use]
    pub fn listen(&self, id: OrderId) -> ChangeListener {
        ChangeListener::to_one(&self.inner.wakes, id)
    }

    /// Hears of changes of every order.
    #[must_use]
    pub fn listen_all(&self) -> ChangeListener {
        ChangeListener::to_all(&self.inner.wakes)
    }

    /// Versions committed after `sequence`, oldest first, as long as this node remembers them; else `None`.
    #[must_use]
    pub fn recent_changes(&self, sequence: i64, limit: usize) -> Option<Vec<Changed>> {
        self.inner.wakes.recent(sequence, limit)
    }

    /// Sequence of the newest change, from which [`Outbox::recent_changes`] goes on.
    #[must_use]
    pub fn newest_change(&self) -> i64 {
        self.inner.wakes.newest()
    }

    // --- the operator ---

    /// Dead letters above `after`, oldest first.
    pub async fn dead(&self, kind: Option<DeadKind>, after: i64, limit: usize) -> Result<Vec<DeadLetter>, OutboxError> {
        self.read(move |conn| Ok(dead::list(conn, kind, after, limit)?)).await
    }

    /// One dead letter.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, OutboxError> {
        self.read(move |conn| Ok(dead::one(conn, id)?)).await
    }

    /// Dead letters by kind.
    pub async fn dead_counts(&self) -> Result<Vec<(DeadKind, u64)>, OutboxError> {
        self.read(|conn| Ok(dead::counts(conn)?)).await
    }

    /// Promises to put a dead order back.
    pub async fn redrive(&self, id: i64) -> Result<DeadResult, OutboxError> {
        self.write(move |tx| dead::redrive(tx, id)).await
    }

    /// Gives a dead letter up.
    pub async fn discard(&self, id: i64) -> Result<DeadResult, OutboxError> {
        self.write(move |tx| dead::discard(tx, id)).await
    }

    /// Makes every order due that is held because a plugin failed on it; returns how many.
    pub async fn retry_faults(&self) -> Result<usize, OutboxError> {
        self.write(decide::retry_faults).await
    }

    /// One step of retention.
    pub async fn retain(&self, cutoffs: Cutoffs, orders_after: Option<OrderId>) -> Result<Removed, OutboxError> {
        self.write(move |tx| retain::step(tx, &cutoffs, orders_after)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut writer::Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, OutboxError> {
        self.inner.queue.call(0, Durability::Machine, run).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&rusqlite::Connection) -> Result<T, OutboxError> + Send + 'static,
    ) -> Result<T, OutboxError> {
        self.inner.readers.read(read).await
    }
}

/// Counts the orders by status, once; from then on the writer keeps count.
fn count(conn: &rusqlite::Connection) -> rusqlite::Result<Counts> {
    let counts = Counts::default();
    let mut statement = conn.prepare("SELECT status, count(*) FROM orders GROUP BY status")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        counts.set(row.get(0)?, row.get(1)?);
    }
    Ok(counts)
}
