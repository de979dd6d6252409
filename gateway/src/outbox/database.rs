//! The two databases behind the outbox, with the same methods.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::accept::{Intake, KeepAll, KeepOne, Kept};
use super::counts::Counts;
use super::needs::Operation;
use super::owning::{HeldKey, HeldOrder, ReadLimits, Tenure};
use super::postgres::{self, Postgres};
use super::reading::{OrderFilter, StoredTimeline, Versions};
use super::retention::{Cutoffs, Removed};
use super::sqlite::{self, OpenError, Sqlite};
use super::wake::Wakes;
use super::{OutboxError, ReadEntries, StuckRead, Tended};
use crate::clock::{Clock, Timestamp};
use crate::config::DatabaseConfig;
use crate::dead::{DeadFilter, DeadKind, DeadLetter};
use crate::entry::EntryPlace;
use crate::order::{OrderId, OrderView, SLOTS, Slot};
use crate::record::Record;
use crate::reply::Position;
use crate::telemetry::Metrics;

/// What `database.url` names.
pub(super) enum Database {
    Sqlite(File),
    Postgres(Postgres),
}

/// A SQLite file, and what its one node holds: its lock is the lease.
pub(super) struct File {
    sqlite: Sqlite,
    wakes: Arc<Wakes>,
    held: OnceCell<Vec<(Slot, i64)>>,
}

/// A database that was just opened, and what is kept in step with its commits from now on.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) wakes: Arc<Wakes>,
    pub(super) counts: Arc<Counts>,
}

/// Asks whichever database it is.
macro_rules! ask {
    ($database:expr, $method:ident($($argument:expr),*)) => {
        match $database {
            Database::Sqlite(file) => file.sqlite.$method($($argument),*).await,
            // Apart, so that the futures of the other database stay small.
            Database::Postgres(postgres) => Box::pin(postgres.$method($($argument),*)).await,
        }
    };
}

/// Whether a URL names a server rather than a file.
pub(super) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

impl Database {
    /// Opens what the configuration names.
    pub(super) async fn open(
        config: &DatabaseConfig,
        node: String,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Opened, OpenError> {
        if is_postgres(&config.url) {
            let postgres::Opened { postgres, wakes, counts } =
                Box::pin(Postgres::open(config, node, clock, metrics)).await?;
            return Ok(Opened { database: Self::Postgres(postgres), wakes, counts });
        }
        let sqlite::Opened { sqlite, wakes, counts } = Sqlite::open(config, clock, metrics)?;
        let file = File { sqlite, wakes: Arc::clone(&wakes), held: OnceCell::new() };
        Ok(Opened { database: Self::Sqlite(file), wakes, counts })
    }

    pub(super) async fn writer_ended(&self) {
        ask!(self, writer_ended());
    }

    /// Keeps a request; gives up at once when too many wait.
    pub(super) async fn keep(&self, intake: Intake) -> Result<Kept, OutboxError> {
        match self {
            Self::Sqlite(file) => file.sqlite.try_transact(intake.bytes(), KeepOne(intake)).await,
            Self::Postgres(postgres) => Box::pin(postgres.keep(intake)).await,
        }
    }

    /// Keeps many requests in one transaction; waits for room.
    pub(super) async fn keep_all(&self, intakes: Vec<Intake>) -> Result<Vec<Kept>, OutboxError> {
        match self {
            Self::Sqlite(file) => {
                let bytes = intakes.iter().map(Intake::bytes).sum();
                file.sqlite.transact(bytes, KeepAll(intakes)).await
            }
            Self::Postgres(postgres) => Box::pin(postgres.keep_all(intakes)).await,
        }
    }

    /// Runs an operation that adds so many bytes; waits for room.
    pub(super) async fn transact<O>(&self, bytes: usize, operation: O) -> Result<O::Output, OutboxError>
    where
        O: Operation + Send + Sync + 'static,
        O::Output: Send + 'static,
    {
        match self {
            Self::Sqlite(file) => file.sqlite.transact(bytes, operation).await,
            Self::Postgres(postgres) => Box::pin(postgres.transact(operation)).await,
        }
    }

    pub(super) async fn tend(
        &self,
        node: &str,
        lease: Duration,
        ready: Vec<(Slot, i64)>,
    ) -> Result<Tended, OutboxError> {
        match self {
            Self::Sqlite(File { sqlite, held, .. }) => {
                let held = held.get_or_try_init(async || {
                    sqlite.take_over(node.to_owned()).await?;
                    let tenures = sqlite.tenures().await?;
                    Ok::<_, OutboxError>(tenures.iter().map(|tenure| (tenure.slot, tenure.epoch)).collect())
                });
                Ok(Tended { held: held.await?.clone(), nodes: 1, surplus: 0, ends: false, next_end: None })
            }
            Self::Postgres(postgres) => Box::pin(postgres.tend(lease, ready)).await,
        }
    }

    pub(super) async fn resign(&self) -> Result<(), OutboxError> {
        match self {
            // The lock goes with the process.
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(postgres) => Box::pin(postgres.resign()).await,
        }
    }

    pub(super) async fn take_over(&self, owner: String) -> Result<(), OutboxError> {
        match self {
            Self::Sqlite(file) => file.sqlite.take_over(owner).await,
            Self::Postgres(_) => Err(OutboxError::Refused("leases end by themselves".to_owned())),
        }
    }

    pub(super) async fn tenures(&self) -> Result<Vec<Tenure>, OutboxError> {
        ask!(self, tenures())
    }

    /// Entries of these slots, each above its place.
    pub(super) async fn entries(
        &self,
        after: &[(Slot, EntryPlace)],
        limits: ReadLimits,
    ) -> Result<ReadEntries, OutboxError> {
        match self {
            Self::Sqlite(file) => file.entries(after, limits).await,
            Self::Postgres(postgres) => Box::pin(postgres.entries(after, limits)).await,
        }
    }

    pub(super) async fn last_entry(&self) -> Result<EntryPlace, OutboxError> {
        ask!(self, last_entry())
    }

    pub(super) async fn due(
        &self,
        now: Timestamp,
        routes: Vec<(Arc<str>, usize)>,
        bytes_max: usize,
    ) -> Result<Vec<HeldOrder>, OutboxError> {
        ask!(self, due(now, routes, bytes_max))
    }

    pub(super) async fn held_keys(&self) -> Result<Vec<HeldKey>, OutboxError> {
        ask!(self, held_keys())
    }

    pub(super) async fn begin(
        &self,
        batch: String,
        alone: Option<(Slot, EntryPlace, OrderId)>,
    ) -> Result<(), OutboxError> {
        ask!(self, begin(batch, alone))
    }

    pub(super) async fn advance_idle(
        &self,
        cursors: Vec<(Slot, i64, EntryPlace)>,
        to: EntryPlace,
    ) -> Result<bool, OutboxError> {
        ask!(self, advance_idle(cursors, to))
    }

    pub(super) async fn stuck_read(&self, longer_than: Duration) -> Result<Option<StuckRead>, OutboxError> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(postgres) => Box::pin(postgres.stuck_read(longer_than)).await,
        }
    }

    pub(super) async fn log_ends(&self) -> Result<Vec<(Slot, i64)>, OutboxError> {
        ask!(self, log_ends())
    }

    pub(super) async fn records(&self, slot: Slot, after: i64, limits: ReadLimits) -> Result<Vec<Record>, OutboxError> {
        ask!(self, records(slot, after, limits))
    }

    pub(super) async fn forgotten(&self) -> Result<Vec<Record>, OutboxError> {
        ask!(self, forgotten())
    }

    pub(super) async fn has_overdue(&self, slots: Vec<Slot>, moment: Timestamp) -> Result<bool, OutboxError> {
        match self {
            // Every slot of a file is ours.
            Self::Sqlite(file) => file.sqlite.has_overdue(moment).await,
            Self::Postgres(postgres) => Box::pin(postgres.has_overdue(slots, moment)).await,
        }
    }

    pub(super) async fn reply_positions(&self) -> Result<Vec<Position>, OutboxError> {
        ask!(self, reply_positions())
    }

    pub(super) async fn note_ends(&self, asked_at: Timestamp, ends: Vec<Position>) -> Result<(), OutboxError> {
        ask!(self, note_ends(asked_at, ends))
    }

    pub(super) async fn order(&self, id: OrderId) -> Result<Option<OrderView>, OutboxError> {
        ask!(self, order(id))
    }

    pub(super) async fn versions(&self, id: OrderId, version: u64) -> Result<Option<Versions>, OutboxError> {
        ask!(self, versions(id, version))
    }

    pub(super) async fn list(&self, filter: OrderFilter) -> Result<Vec<OrderView>, OutboxError> {
        ask!(self, list(filter))
    }

    pub(super) async fn timeline(&self, id: OrderId) -> Result<Option<StoredTimeline>, OutboxError> {
        ask!(self, timeline(id))
    }

    pub(super) async fn oldest_undecided(&self) -> Result<Option<Timestamp>, OutboxError> {
        ask!(self, oldest_undecided())
    }

    pub(super) async fn dead(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, OutboxError> {
        ask!(self, dead(filter))
    }

    pub(super) async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, OutboxError> {
        ask!(self, dead_letter(id))
    }

    pub(super) async fn dead_counts(&self) -> Result<Vec<(DeadKind, u64)>, OutboxError> {
        ask!(self, dead_counts())
    }

    pub(super) async fn retry_faults(&self) -> Result<usize, OutboxError> {
        ask!(self, retry_faults())
    }

    pub(super) async fn retain(&self, cutoffs: Cutoffs, orders_after: Option<OrderId>) -> Result<Removed, OutboxError> {
        ask!(self, retain(cutoffs, orders_after))
    }
}

impl File {
    /// What the writer handed over stands for the read where all slots are read up to where it begins.
    async fn entries(&self, after: &[(Slot, EntryPlace)], limits: ReadLimits) -> Result<ReadEntries, OutboxError> {
        let first = after.iter().map(|(_, place)| *place).min().unwrap_or_default();
        let mut entries = self.wakes.take(first.number, limits.count, limits.bytes);
        if entries.is_empty() {
            entries = self.sqlite.entries(first, limits).await?;
        }
        // One log over all slots: what those further on carry already is read again.
        let Some(last) = entries.last().map(|entry| entry.place) else {
            return Ok(ReadEntries { entries, looked_at: 0, read_to: Vec::new(), has_more: false });
        };
        let looked_at = entries.len();
        let mut places = [None; SLOTS as usize];
        after.iter().for_each(|(slot, place)| places[usize::from(slot.0)] = Some(*place));
        entries.retain(|entry| places[usize::from(entry.slot.0)].is_some_and(|place| entry.place > place));
        let read_to = after.iter().map(|(slot, place)| (*slot, last.max(*place))).collect();
        Ok(ReadEntries { entries, looked_at, read_to, has_more: true })
    }
}
