//! What the operator sees and does: dead letters and counts. Plugins are in `catalog`.

use crate::clock::Clock;
use crate::dead::{DeadKind, DeadLetter};
use crate::outbox::{DeadResult, Outbox, OutboxError};

/// What a redrive or discard came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadAnswer {
    /// It will be done, durably.
    Accepted,
    /// It is no longer dead: somebody was faster, or did it already.
    NotDead,
    /// There is no such dead letter.
    Unknown,
    /// A reply that is none cannot be taken in again: discard it.
    NotRedrivable,
}

impl From<DeadResult> for DeadAnswer {
    fn from(result: DeadResult) -> Self {
        match result {
            DeadResult::Accepted => Self::Accepted,
            DeadResult::NotDead => Self::NotDead,
            DeadResult::Unknown => Self::Unknown,
            DeadResult::NotRedrivable => Self::NotRedrivable,
        }
    }
}

/// Why the operator got no answer.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer")]
pub struct AdminError;

impl From<OutboxError> for AdminError {
    /// The outbox has logged it.
    fn from(_: OutboxError) -> Self {
        Self
    }
}

/// How things stand.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Orders by status.
    pub orders: Vec<(String, u64)>,
    pub backlog: u64,
    pub oldest_undecided_seconds: f64,
    pub dead: Vec<(String, u64)>,
}

/// The operator's side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    outbox: Outbox,
    clock: Clock,
}

impl Admin {
    #[must_use]
    pub fn new(outbox: Outbox, clock: Clock) -> Self {
        Self { outbox, clock }
    }

    /// Dead letters, oldest first, above `after`.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn dead(
        &self,
        kind: Option<DeadKind>,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, AdminError> {
        Ok(self.outbox.dead(kind, after.unwrap_or(0), limit).await?)
    }

    /// One dead letter with its payload.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, AdminError> {
        Ok(self.outbox.dead_letter(id).await?)
    }

    /// Puts a dead order back at the end of its key. Idempotent.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn redrive(&self, id: i64) -> Result<DeadAnswer, AdminError> {
        Ok(self.outbox.redrive(id).await?.into())
    }

    /// Gives a dead letter up: its order ends CANCELLED. Idempotent.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn discard(&self, id: i64) -> Result<DeadAnswer, AdminError> {
        Ok(self.outbox.discard(id).await?.into())
    }

    /// Counts and ages.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn overview(&self) -> Result<Overview, AdminError> {
        let orders = self.outbox.counts().into_iter().map(|(status, count)| (status.as_str().to_owned(), count));
        let dead = self.outbox.dead_counts().await?;
        let oldest = self.outbox.oldest_undecided().await?;
        let age = oldest.map_or(0.0, |oldest| self.clock.now().since(oldest).as_secs_f64());
        Ok(Overview {
            orders: orders.collect(),
            backlog: self.outbox.backlog(),
            oldest_undecided_seconds: age,
            dead: dead.into_iter().map(|(kind, count)| (kind.as_str().to_owned(), count)).collect(),
        })
    }
}
