//! The outbox on PostgreSQL: one database, any number of nodes.
//!
//! Differs from SQLite because several nodes write at the same time: every transaction takes locks on the rows it relies
//! on, in one order (`load`); slots are leased (`leases`); entries are read behind every running transaction (`owned`);
//! what other nodes commit is read from a feed (`feed`). The logs are partitioned and never changed (`partitions`).
//! Connections and transactions are in `session`, what their errors amount to in `failure`.

mod changes;
mod counting;
mod cursors;
mod examine;
mod failure;
mod feed;
mod following;
mod lanes;
mod leases;
mod load;
mod open;
mod owned;
mod partitions;
mod read;
mod restored;
mod retain;
mod schema;
mod session;
mod store;
mod values;
mod words;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::accept::{Intake, Kept};
use super::counts::Counts;
use super::needs::Operation;
use super::owning::{HeldKey, HeldOrder, ReadLimits, Tenure};
use super::reading::{OrderFilter, StoredTimeline, Versions};
use super::retention::{Cutoffs, Removed};
use super::wake::Wakes;
use super::work::{Notes, Work};
use super::{OutboxError, ReadEntries, StuckRead, Tended};
use crate::clock::{Clock, Timestamp};
use crate::config::DatabaseConfig;
use crate::crash::{self, Point};
use crate::dead::{DeadFilter, DeadKind, DeadLetter};
use crate::entry::EntryPlace;
use crate::order::{OrderId, OrderView, Slot};
use crate::record::Record;
use crate::reply::Position;
use crate::telemetry::Metrics;

pub use open::ConnectError;

pub(super) use examine::examine;

use cursors::Cursors;
use failure::{Fate, answer, fate};
use following::Following;
use lanes::{CommitLimits, Lanes};
use session::{Kind, Sessions};

/// How often a transaction is tried that met others.
const TRIES: usize = 8;
/// Own transactions that the feed is told to leave out; beyond, it wakes somebody twice, which does no harm.
const OWN_MAX: usize = 65_536;
/// Numbers are taken in blocks of 2 to the power of this.
const BLOCK_BITS: u32 = 20;

/// One database, as a node sees it.
pub(super) struct Postgres {
    shared: Arc<Shared>,
    lanes: Lanes,
    following: Following,
}

/// A database that was just opened, and what is kept in step with it from now on.
pub(super) struct Opened {
    pub(super) postgres: Postgres,
    pub(super) wakes: Arc<Wakes>,
    pub(super) counts: Arc<Counts>,
}

/// What the lanes, the feed and all callers share.
#[derive(Debug)]
struct Shared {
    sessions: Sessions,
    cursors: Cursors,
    node: String,
    clock: Clock,
    metrics: Arc<Metrics>,
    wakes: Arc<Wakes>,
    counts: Arc<Counts>,
    /// What this node has added to the counts, all in all.
    counted: [AtomicI64; 7],
    own: Own,
    /// Raised by a commit with something to read.
    committed: Notify,
    /// Whether the node carries slots, so that entries of other nodes matter to it.
    carries: AtomicBool,
    /// Whether more entries may wait than one read takes.
    is_deep: AtomicBool,
    /// Whether an order may be named as the one that runs alone at this node.
    is_alone: AtomicBool,
    partition_transactions: i64,
}

/// The blocks of numbers of this node's own transactions, whose changes are told already.
#[derive(Debug, Default)]
struct Own {
    blocks: Mutex<(HashSet<i64>, VecDeque<i64>)>,
}

impl Own {
    fn note(&self, sequence: i64) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *blocks;
        if known.insert(sequence >> BLOCK_BITS) {
            order.push_back(sequence >> BLOCK_BITS);
        }
        if order.len() > OWN_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    fn was_told(&self, sequence: i64) -> bool {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&(sequence >> BLOCK_BITS))
    }
}

/// Connects to PostgreSQL and brings its schema up to date, as a node that starts, and lets go of it again.
///
/// # Errors
///
/// Why it could not be used, and what to do.
pub async fn prepare(config: &DatabaseConfig) -> Result<(), ConnectError> {
    open::open(config, "").await.map(drop)
}

#[expect(clippy::disallowed_methods, reason = "these end with the outbox, which outlives the phases of a shutdown")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

impl Postgres {
    /// Connects, brings the schema up to date, and starts the lanes and the feed.
    pub(super) async fn open(
        config: &DatabaseConfig,
        node: String,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Opened, ConnectError> {
        let (sessions, server) = open::open(config, &node).await?;
        let (wakes, counts) = (Arc::new(Wakes::new(0, 0)), Arc::new(Counts::default()));
        let shared = Arc::new(Shared {
            sessions,
            cursors: Cursors::default(),
            node,
            clock,
            metrics,
            wakes: Arc::clone(&wakes),
            counts: Arc::clone(&counts),
            counted: Default::default(),
            own: Own::default(),
            committed: Notify::new(),
            carries: AtomicBool::new(false),
            is_deep: AtomicBool::new(true),
            is_alone: AtomicBool::new(true),
            partition_transactions: i64::try_from(config.partition_transactions).unwrap_or(i64::MAX),
        });
        shared.count().await.map_err(|error| open::refused(&server, error))?;
        let limits = CommitLimits { items: config.commit_items_max, bytes: config.commit_bytes_max.0 };
        let lanes = Lanes::start(&shared, config.lanes, config.queue_max, limits);
        let following = Following::start(&shared);
        spawn(feed::run(Arc::downgrade(&shared)));
        spawn(counting::keep(Arc::downgrade(&shared)));
        Ok(Opened { postgres: Self { shared, lanes, following }, wakes, counts })
    }

    /// Resolves when nothing can be written any more.
    pub(super) async fn writer_ended(&self) {
        self.lanes.ended().await;
    }

    pub(super) async fn keep(&self, item: Intake) -> Result<Kept, OutboxError> {
        self.lanes.try_keep(item).await
    }

    pub(super) async fn keep_all(&self, items: Vec<Intake>) -> Result<Vec<Kept>, OutboxError> {
        self.lanes.keep_all(items).await
    }

    /// Runs an operation in a transaction of its own. Dropping the future does not stop it.
    pub(super) async fn transact<O>(&self, operation: O) -> Result<O::Output, OutboxError>
    where
        O: Operation + Send + Sync + 'static,
        O::Output: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        go_on(async move { shared.try_transact(&operation).await }).await
    }

    // --- owning ---

    pub(super) async fn tend(&self, lease: Duration, ready: Vec<(Slot, i64)>) -> Result<Tended, OutboxError> {
        self.shared.carries.store(true, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        go_on(async move { leases::tend(&shared.sessions, &shared.node, lease, &ready).await }).await
    }

    pub(super) async fn resign(&self) -> Result<(), OutboxError> {
        self.shared.carries.store(false, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        go_on(async move { leases::resign(&shared.sessions, &shared.node).await }).await
    }

    pub(super) async fn tenures(&self) -> Result<Vec<Tenure>, OutboxError> {
        told(owned::tenures(&self.shared.sessions, &self.shared.node).await)
    }

    pub(super) async fn entries(
        &self,
        after: &[(Slot, EntryPlace)],
        limits: ReadLimits,
    ) -> Result<ReadEntries, OutboxError> {
        let deep = &self.shared.is_deep;
        let read = owned::entries(&self.shared.sessions, after, limits, deep.load(Ordering::Relaxed)).await;
        // One that failed may have tried to read all there is.
        deep.store(read.as_ref().map_or(true, |read| read.has_more), Ordering::Relaxed);
        told(read)
    }

    pub(super) async fn last_entry(&self) -> Result<EntryPlace, OutboxError> {
        told(owned::last_entry(&self.shared.sessions).await)
    }

    pub(super) async fn due(
        &self,
        now: Timestamp,
        routes: Vec<(Arc<str>, usize)>,
        bytes_max: usize,
    ) -> Result<Vec<HeldOrder>, OutboxError> {
        told(owned::due(&self.shared.sessions, &self.shared.node, now, &routes, bytes_max).await)
    }

    pub(super) async fn held_keys(&self) -> Result<Vec<HeldKey>, OutboxError> {
        told(owned::held_keys(&self.shared.sessions, &self.shared.node).await)
    }

    pub(super) async fn begin(
        &self,
        batch: String,
        alone: Option<(Slot, EntryPlace, OrderId)>,
    ) -> Result<(), OutboxError> {
        let shared = Arc::clone(&self.shared);
        let was_alone = self.shared.is_alone.swap(true, Ordering::Relaxed);
        go_on(async move {
            owned::begin(&shared.sessions, &shared.node, &batch, was_alone, alone).await?;
            shared.is_alone.store(alone.is_some(), Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    pub(super) async fn advance_idle(
        &self,
        cursors: Vec<(Slot, i64, EntryPlace)>,
        to: EntryPlace,
    ) -> Result<bool, OutboxError> {
        let shared = Arc::clone(&self.shared);
        go_on(async move { owned::advance_idle(&shared.sessions, &shared.node, &shared.cursors, &cursors, to).await })
            .await
    }

    /// Whoever holds the guarded read back for longer than that.
    pub(super) async fn stuck_read(&self, longer_than: Duration) -> Result<Option<StuckRead>, OutboxError> {
        told(owned::stuck_read(&self.shared.sessions, longer_than).await)
    }

    // --- publishing and replies ---

    pub(super) async fn log_ends(&self) -> Result<Vec<(Slot, i64)>, OutboxError> {
        told(owned::log_ends(&self.shared.sessions).await)
    }

    pub(super) async fn records(&self, slot: Slot, after: i64, limits: ReadLimits) -> Result<Vec<Record>, OutboxError> {
        let lies_at = self.shared.cursors.publish.of([slot].into_iter()).pop().flatten();
        told(owned::records(&self.shared.sessions, slot, after, limits, lies_at).await)
    }

    pub(super) async fn forgotten(&self) -> Result<Vec<Record>, OutboxError> {
        told(owned::forgotten(&self.shared.sessions).await)
    }

    pub(super) async fn has_overdue(&self, slots: Vec<Slot>, moment: Timestamp) -> Result<bool, OutboxError> {
        told(owned::has_overdue(&self.shared.sessions, &slots, moment).await)
    }

    pub(super) async fn reply_positions(&self) -> Result<Vec<Position>, OutboxError> {
        told(owned::reply_positions(&self.shared.sessions).await)
    }

    pub(super) async fn note_ends(&self, asked_at: Timestamp, ends: Vec<Position>) -> Result<(), OutboxError> {
        let shared = Arc::clone(&self.shared);
        go_on(async move { owned::note_ends(&shared.sessions, asked_at, &ends).await }).await
    }

    // --- reading ---

    pub(super) async fn order(&self, id: OrderId) -> Result<Option<OrderView>, OutboxError> {
        read::order(&self.shared.sessions, id).await
    }

    pub(super) async fn versions(&self, id: OrderId, version: u64) -> Result<Option<Versions>, OutboxError> {
        self.following.versions(id, version).await
    }

    pub(super) async fn list(&self, filter: OrderFilter) -> Result<Vec<OrderView>, OutboxError> {
        read::list(&self.shared.sessions, &filter).await
    }

    pub(super) async fn timeline(&self, id: OrderId) -> Result<Option<StoredTimeline>, OutboxError> {
        read::timeline(&self.shared.sessions, id).await
    }

    pub(super) async fn oldest_undecided(&self) -> Result<Option<Timestamp>, OutboxError> {
        told(read::oldest_undecided(&self.shared.sessions).await)
    }

    pub(super) async fn dead(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, OutboxError> {
        told(read::dead(&self.shared.sessions, &filter).await)
    }

    pub(super) async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, OutboxError> {
        told(read::dead_letter(&self.shared.sessions, id).await)
    }

    pub(super) async fn dead_counts(&self) -> Result<Vec<(DeadKind, u64)>, OutboxError> {
        told(read::dead_counts(&self.shared.sessions).await)
    }

    // --- upkeep ---

    pub(super) async fn retry_faults(&self) -> Result<usize, OutboxError> {
        let shared = Arc::clone(&self.shared);
        go_on(async move { owned::retry_faults(&shared.sessions, shared.clock.now()).await }).await
    }

    pub(super) async fn retain(&self, cutoffs: Cutoffs, orders_after: Option<OrderId>) -> Result<Removed, OutboxError> {
        let shared = Arc::clone(&self.shared);
        go_on(async move {
            let (width, now) = (shared.partition_transactions, shared.clock.now());
            let (removed, notes) = retain::step(&shared.sessions, width, now, &cutoffs, orders_after).await?;
            shared.add_counts(notes.counts);
            Ok(removed)
        })
        .await
    }
}

/// Does something that goes on when the caller does not wait for it any more.
async fn go_on<T: Send + 'static>(
    work: impl Future<Output = Result<T, sqlx::Error>> + Send + 'static,
) -> Result<T, OutboxError> {
    spawn(work).await.map_or(Err(OutboxError::Unavailable), told)
}

fn told<T>(result: Result<T, sqlx::Error>) -> Result<T, OutboxError> {
    result.map_err(|error| answer(&error))
}

impl Shared {
    fn carries(&self) -> bool {
        self.carries.load(Ordering::Relaxed)
    }

    /// Runs an operation; one that met another transaction runs again from its start.
    ///
    /// A commit whose answer was lost is not repeated: whoever asked finds out what is stored (PROTOCOL D2).
    async fn try_transact<O: Operation + Sync>(&self, operation: &O) -> Result<O::Output, sqlx::Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.attempt(operation).await {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            match fate(&error) {
                Fate::Again if tries < TRIES => {
                    let pause = Duration::from_millis(1 << tries).mul_f64(fastrand::f64());
                    tokio::time::sleep(pause).await;
                }
                Fate::NoPartition if tries < TRIES => {
                    partitions::make_ahead(&self.sessions, self.partition_transactions).await?;
                }
                Fate::Again | Fate::NoPartition | Fate::Away | Fate::DiskFull | Fate::Own => return Err(error),
            }
        }
    }

    async fn attempt<O: Operation + Sync>(&self, operation: &O) -> Result<O::Output, sqlx::Error> {
        let begun = Instant::now();
        let needs = operation.needs();
        let (mut tx, number) = if needs.no_order() {
            let (tx, number) = self.sessions.begin_numbered().await?;
            (tx, Some(number))
        } else {
            (self.sessions.begin(Kind::Write).await?, None)
        };
        let now = self.clock.follow(tx.begun_at, begun.elapsed());
        let mut work = Work::new(now, 0, Notes::default());
        let after_locks = load::load(&mut tx, &self.node, &self.cursors, needs, &mut work).await?;
        let more = operation.more(&work);
        load::load_more(&mut tx, more, &mut work).await?;
        let sequence = match number.or(after_locks) {
            Some(number) => number,
            None => tx.next_number().await?,
        };
        work.out.sequence = sequence;
        let mut output = operation.run(&mut work);
        let are_held = store::store(&mut tx, &self.cursors, &work).await?;
        if O::WRITTEN.is_some_and(crash::fails) {
            return Err(sqlx::Error::InvalidArgument("a test has it fail here".to_owned()));
        }
        operation.complete(&mut output, &are_held);
        let statements = tx.statements();
        tx.commit(&words::last_words(&work, &self.node)).await?;
        if crash::fails(Point::Committed) {
            // The answer is lost: whoever asked cannot know that it is done.
            return Err(sqlx::Error::PoolClosed);
        }
        let notes = work.out.notes;
        if !notes.changed.is_empty() {
            self.own.note(sequence + 1);
        }
        self.add_counts(notes.counts);
        let metrics = &self.metrics;
        metrics.outbox_commits.inc();
        metrics.outbox_syncs.inc();
        metrics.outbox_statements.inc_by(statements);
        metrics.outbox_commit_seconds.observe(begun.elapsed().as_secs_f64());
        if !notes.changed.is_empty() || !notes.entries.is_empty() {
            let has_entries = !notes.entries.is_empty() && !crash::fails(Point::WakeLost);
            self.wakes.told(&notes.changed, has_entries);
            self.committed.notify_one();
        }
        Ok(output)
    }
}
