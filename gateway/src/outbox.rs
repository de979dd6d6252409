//! The database: orders, their history, the two logs of the relay, replies, dead letters.
//!
//! This file lists what can be asked, in the order of an order's life. The transactions stand in the files below.
//!
//! # Guarantees
//!
//! - **Durable.** A method that writes returns after its transaction is on disk, with one exception that says so.
//! - **Two databases, one logic.** What an operation does is written once (`accept`, `decide`, `publish`, `replies`,
//!   `dead`); SQLite (`sqlite`) and PostgreSQL (`postgres`) read what it needs and write what became of it.
//! - **Fenced.** What only the owner of a slot may do carries the slot's epoch and the cursor it was read at; where they
//!   do not match nothing is changed and the caller gets [`Lost`].
//! - **Not undone.** Dropping a future of this module does not stop a transaction that was queued.
//!
//! # Not here
//!
//! What an entry amounts to (`relay`), what a reply means (`subscriber`, `route`), HTTP.

mod accept;
mod counts;
mod database;
mod dead;
mod decide;
mod examine;
mod json;
mod needs;
mod owning;
mod postgres;
mod publish;
mod reading;
mod replies;
mod retention;
mod sqlite;
mod state;
mod wake;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::config::DatabaseConfig;
use crate::dead::{DeadEdit, DeadFilter, DeadKind, DeadLetter};
use crate::entry::{Entry, EntryPlace};
use crate::order::{OrderId, OrderStatus, OrderView, Slot};
use crate::record::Record;
use crate::reply::{Position, Reply};
use crate::route::Rules;
use crate::telemetry::{Metrics, chain};

pub use accept::{Kept, KeyHash, NewCommand, NewOrder};
pub use dead::{DEAD, DeadResult};
pub use decide::{BEHIND, BUSY, Decided, Item, Origin, Pass, SlotDecided, SlotPass, Step};
pub use examine::{DatabaseFacts, examine, file_of};
pub use owning::{HeldKey, HeldOrder, ReadLimits, Strikes, Suspicion, Tenure};
pub use postgres::{ConnectError, prepare};
pub use publish::{Delivered, Deliveries, Placed, Refused, SlotDeliveries};
pub use reading::{OrderFilter, StoredTimeline, Versions};
pub use replies::{Expiring, Fates, TakenReplies};
pub use retention::{Cutoffs, Removed};
pub use sqlite::OpenError;
pub use wake::{ChangeListener, Changed};

use accept::Intake;
use counts::Counts;
use database::{Database, Opened};
use wake::Wakes;

/// The tenure is over, or the cursor stands elsewhere: load the slot afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// What a node owns after it has tended its leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tended {
    /// Every slot it owns, with the epoch; one that was lost in between and taken again has another.
    pub held: Vec<(Slot, i64)>,
    /// Live nodes, this one included.
    pub nodes: usize,
    /// How many slots it owns above its fair share.
    pub surplus: usize,
    /// Whether leases end.
    pub ends: bool,
    /// How long until the first lease of another node ends that may be taken then.
    pub next_end: Option<Duration>,
}

/// Entries, and how far the slots that were asked for are read with them.
#[derive(Debug)]
pub struct ReadEntries {
    /// In the order of commits, without a gap within a slot.
    pub entries: Vec<Entry>,
    /// How many were read for that, those among them that slots further on have carried already.
    pub looked_at: usize,
    /// Everything of the slot up to here was read, now or before; a slot that is not named stands where it stood.
    pub read_to: Vec<(Slot, EntryPlace)>,
    /// Whether there may be more right now.
    pub has_more: bool,
}

/// A transaction that holds the reading of entries back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckRead {
    /// Which session it is and what it does, for the operator to find and to end.
    pub session: String,
    /// How long its transaction is open.
    pub open_for: Duration,
}

/// Why the database did not do what was asked. Nothing of it was done, or (after a lost answer) all of it.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("too many transactions wait")]
    QueueFull,
    #[error("the disk is full")]
    DiskFull,
    #[error("the database does not answer, or what it holds cannot be read")]
    Unavailable,
    /// The log was told when that began.
    #[error("the database is away")]
    Away,
    #[error("the database refused")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the database refused: {0}")]
    Refused(String),
}

impl OutboxError {
    /// Logs that something could not be done, and why; not again and again while the database is away.
    pub fn warn(&self, what: &str) {
        match self {
            Self::Away => debug!("{what}: {self}"),
            _ => warn!(error = %chain(self), "{what}"),
        }
    }
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
    database: Database,
    wakes: Arc<Wakes>,
    counts: Arc<Counts>,
    rules: Arc<Rules>,
    clock: Clock,
    node: String,
    /// Whether somebody holds the reading in the order of commits back.
    is_late: AtomicBool,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Opens the database that `database.url` names: a SQLite file, which is made where there is none and locked, or
    /// PostgreSQL, whose schema is brought up to date.
    pub async fn open(
        config: &DatabaseConfig,
        rules: Rules,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let (rules, node) = (Arc::new(rules), Uuid::now_v7().to_string());
        let Opened { database, wakes, counts } =
            Database::open(config, node.clone(), clock.clone(), Arc::clone(&metrics)).await?;
        metrics.outbox_backlog.set(counts.backlog());
        metrics.orders_held.set(counts.of(OrderStatus::Held));
        let is_late = AtomicBool::new(false);
        let inner = Inner { database, wakes, counts, rules, clock, node, is_late };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Resolves when nothing can be written any more: the writer's thread has ended by a panic. The node has to end too.
    pub async fn writer_ended(&self) {
        self.inner.database.writer_ended().await;
    }

    /// Orders accepted and not yet on Kafka, rejected or cancelled.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        u64::try_from(self.inner.counts.backlog()).unwrap_or(0)
    }

    // --- taking in ---

    /// Keeps an order: order, history, entry and idempotency row in one transaction. Does not wait for room.
    pub async fn accept(&self, order: NewOrder) -> Result<Kept, OutboxError> {
        self.inner.database.keep(Intake::Order(order)).await
    }

    /// Keeps many orders in one transaction, each with its own result. Waits for room.
    pub async fn accept_all(&self, orders: Vec<NewOrder>) -> Result<Vec<Kept>, OutboxError> {
        self.inner.database.keep_all(orders.into_iter().map(Intake::Order).collect()).await
    }

    /// Promises a client's command.
    pub async fn command(&self, command: NewCommand) -> Result<Kept, OutboxError> {
        self.inner.database.keep(Intake::Command(command)).await
    }

    // --- owning and deciding ---

    /// What this process is called among the nodes: another name at every start.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// Renews the leases of this node for `lease`, takes free slots up to its fair share and gives back at most its
    /// surplus, of those that are `ready`, each under the epoch it has.
    ///
    /// On SQLite the lock on the file is the lease: the first call takes every slot over, later ones change nothing.
    pub async fn tend(&self, lease: Duration, ready: Vec<(Slot, i64)>) -> Result<Tended, OutboxError> {
        self.inner.database.tend(&self.inner.node, lease, ready).await
    }

    /// Gives every slot back: the node ends, and nothing of its work is under way.
    pub async fn resign(&self) -> Result<(), OutboxError> {
        self.inner.database.resign().await
    }

    /// On SQLite: takes every slot over, with a new epoch, after the process that had them has ended. Where leases end by
    /// themselves nobody can say that, and this is refused.
    pub async fn take_over(&self, owner: String) -> Result<Vec<Tenure>, OutboxError> {
        self.inner.database.take_over(owner).await?;
        self.tenures().await
    }

    /// A transaction that entries have waited behind for longer than that; never on SQLite.
    pub async fn stuck_read(&self, longer_than: Duration) -> Result<Option<StuckRead>, OutboxError> {
        let stuck = self.inner.database.stuck_read(longer_than).await?;
        self.inner.is_late.store(stuck.is_some(), Ordering::Relaxed);
        Ok(stuck)
    }

    /// Whether what other nodes commit is told late: as long as somebody holds the reading in the order of commits back.
    #[must_use]
    pub fn wakes_are_late(&self) -> bool {
        self.inner.is_late.load(Ordering::Relaxed)
    }

    /// The tenures of this node's slots as stored, for slots whose state is to be loaded afresh.
    pub async fn tenures(&self) -> Result<Vec<Tenure>, OutboxError> {
        self.inner.database.tenures().await
    }

    /// Entries of these slots, each above its place, in the order of commits.
    pub async fn entries(&self, after: &[(Slot, EntryPlace)], limits: ReadLimits) -> Result<ReadEntries, OutboxError> {
        self.inner.database.entries(after, limits).await
    }

    /// Resolves at the next commit with entries. Make it before looking, so that none is missed.
    pub fn entry_committed(&self) -> Notified<'_> {
        self.inner.wakes.entries().notified()
    }

    /// Orders of these routes that are due now, each with those behind it; of each route about as many as said.
    pub async fn due(&self, routes: Vec<(Arc<str>, usize)>, bytes_max: usize) -> Result<Vec<HeldOrder>, OutboxError> {
        self.inner.database.due(self.inner.clock.now(), routes, bytes_max).await
    }

    /// Every key that has held orders.
    pub async fn held_keys(&self) -> Result<Vec<HeldKey>, OutboxError> {
        self.inner.database.held_keys().await
    }

    /// Place of the last entry of the log.
    pub async fn last_entry(&self) -> Result<EntryPlace, OutboxError> {
        self.inner.database.last_entry().await
    }

    /// Names a pass before its plugins run, and the order of it that runs alone. Survives the process, not the machine:
    /// a crash of the machine is no plugin's doing.
    pub async fn begin(&self, batch: String, alone: Option<(Slot, EntryPlace, OrderId)>) -> Result<(), OutboxError> {
        self.inner.database.begin(batch, alone).await
    }

    /// Commits what a pass decided. Returns the pass for its records.
    pub async fn decide(&self, pass: Arc<Pass>) -> Result<Decided, OutboxError> {
        self.inner.database.transact(0, decide::Decide { pass, rules: self.rules() }).await
    }

    /// Moves the decide cursors of slots without entries up to `to`: (slot, epoch, from).
    pub async fn advance_idle(
        &self,
        cursors: Vec<(Slot, i64, EntryPlace)>,
        to: EntryPlace,
    ) -> Result<bool, OutboxError> {
        self.inner.database.advance_idle(cursors, to).await
    }

    // --- publishing ---

    /// Number of the last record in each slot's log.
    pub async fn log_ends(&self) -> Result<Vec<(Slot, i64)>, OutboxError> {
        self.inner.database.log_ends().await
    }

    /// Records of a slot above `after`, in the order of publishing.
    pub async fn records(&self, slot: Slot, after: i64, limits: ReadLimits) -> Result<Vec<Record>, OutboxError> {
        self.inner.database.records(slot, after, limits).await
    }

    /// Commits delivery reports; one result per slot, in their order.
    pub async fn publish(&self, deliveries: Arc<Deliveries>) -> Result<Vec<Result<(), Lost>>, OutboxError> {
        self.inner.database.transact(0, publish::Publish { deliveries, rules: self.rules() }).await
    }

    /// Notes what a broker that starts empty has forgotten; returns how many records go out again.
    pub async fn forget_broker(&self, bytes_max: usize) -> Result<usize, OutboxError> {
        self.inner.database.transact(0, publish::ForgetBroker { bytes_max }).await
    }

    /// Records that go out again, in order.
    pub async fn forgotten(&self) -> Result<Vec<Record>, OutboxError> {
        self.inner.database.forgotten().await
    }

    // --- replies ---

    /// Takes replies in: inbox, status changes and what follows from them, and the positions, in one transaction.
    pub async fn take_replies(&self, taken: Arc<TakenReplies>) -> Result<Fates, OutboxError> {
        self.inner.database.transact(0, replies::TakeReplies::new(taken, self.rules())).await
    }

    /// The moment, by the database's clock, if orders of these slots were overdue then, with a grace; else `None`.
    pub async fn overdue(&self, slots: Vec<Slot>, grace: Duration) -> Result<Option<Timestamp>, OutboxError> {
        let now = self.inner.clock.now();
        Ok(self.inner.database.has_overdue(slots, now.before(grace)).await?.then_some(now))
    }

    /// Whether any order waits for replies.
    pub async fn awaits_replies(&self) -> Result<bool, OutboxError> {
        self.inner.database.has_overdue(Slot::all().collect(), Timestamp(i64::MAX)).await
    }

    /// Up to where each reply partition is read.
    pub async fn reply_positions(&self) -> Result<Vec<Position>, OutboxError> {
        self.inner.database.reply_positions().await
    }

    /// Notes where reply partitions end at `asked_at`.
    pub async fn note_ends(&self, asked_at: Timestamp, ends: Vec<Position>) -> Result<(), OutboxError> {
        self.inner.database.note_ends(asked_at, ends).await
    }

    /// Expires orders that were due and returns how many; `None` until everything up to the ends is read.
    pub async fn expire(&self, expiring: Expiring) -> Result<Option<usize>, OutboxError> {
        self.inner.database.transact(0, replies::Expire { expiring, rules: self.rules() }).await
    }

    // --- reading ---

    /// An order at its present version.
    pub async fn order(&self, id: OrderId) -> Result<Option<OrderView>, OutboxError> {
        self.inner.database.order(id).await
    }

    /// The versions of an order above `version`.
    pub async fn versions(&self, id: OrderId, version: u64) -> Result<Option<Versions>, OutboxError> {
        self.inner.database.versions(id, version).await
    }

    /// Orders, newest first.
    pub async fn list(&self, filter: OrderFilter) -> Result<Vec<OrderView>, OutboxError> {
        self.inner.database.list(filter).await
    }

    /// All that happened to an order.
    pub async fn timeline(&self, id: OrderId) -> Result<Option<StoredTimeline>, OutboxError> {
        self.inner.database.timeline(id).await
    }

    /// Orders by status, as of the last commit.
    #[must_use]
    pub fn counts(&self) -> Vec<(OrderStatus, u64)> {
        let of = |status| (status, u64::try_from(self.inner.counts.of(status)).unwrap_or(0));
        OrderStatus::ALL.into_iter().map(of).collect()
    }

    /// When the oldest undecided entry was written.
    pub async fn oldest_undecided(&self) -> Result<Option<Timestamp>, OutboxError> {
        self.inner.database.oldest_undecided().await
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

    /// Dead letters, oldest first.
    pub async fn dead(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, OutboxError> {
        self.inner.database.dead(filter).await
    }

    /// One dead letter.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, OutboxError> {
        self.inner.database.dead_letter(id).await
    }

    /// Dead letters by kind.
    pub async fn dead_counts(&self) -> Result<Vec<(DeadKind, u64)>, OutboxError> {
        self.inner.database.dead_counts().await
    }

    /// Promises to put a dead order back, in the name of `by`.
    pub async fn redrive(&self, id: i64, by: String) -> Result<DeadResult, OutboxError> {
        self.inner.database.transact(0, dead::Redrive { letter: id, by }).await
    }

    /// Takes a dead reply in, as what it is by now, in the name of `by`.
    pub async fn redrive_reply(&self, id: i64, reply: Reply, by: String) -> Result<DeadResult, OutboxError> {
        self.inner.database.transact(0, dead::RedriveReply::new(id, reply, by, self.rules())).await
    }

    /// Gives a dead letter up, in the name of `by`.
    pub async fn discard(&self, id: i64, by: String) -> Result<DeadResult, OutboxError> {
        self.inner.database.transact(0, dead::Discard { letter: id, by }).await
    }

    /// Replaces what died, in the name of `by`; it stays dead.
    pub async fn edit_dead(&self, id: i64, edit: DeadEdit, by: String) -> Result<DeadResult, OutboxError> {
        let bytes = match &edit {
            DeadEdit::Order { body: bytes, .. } | DeadEdit::Reply { payload: bytes, .. } => bytes.len(),
        };
        self.inner.database.transact(bytes, dead::Edit { letter: id, edit, by }).await
    }

    /// Makes every order due that is held because a plugin failed on it; returns how many.
    pub async fn retry_faults(&self) -> Result<usize, OutboxError> {
        self.inner.database.retry_faults().await
    }

    /// One step of retention.
    pub async fn retain(&self, cutoffs: Cutoffs, orders_after: Option<OrderId>) -> Result<Removed, OutboxError> {
        self.inner.database.retain(cutoffs, orders_after).await
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.inner.rules)
    }
}
