//! What the operator sees and does: dead letters and counts. Plugins are in `catalog`.
//!
//! What the operator does to a dead letter is idempotent: it is done once, and asked for again it is no longer dead. So
//! that a task over many can be broken off and begun again, it goes in steps over what died before it began.

use futures_util::future::join_all;

use crate::clock::{Clock, Timestamp};
use crate::crash::{self, Point};
use crate::dead::{DeadEdit, DeadFilter, DeadKind, DeadLetter};
use crate::outbox::{DeadResult, Outbox, OutboxError};
use crate::reply::{Place, RawReply};
use crate::subscriber::reply;

/// Letters of one step of a task over many.
pub const STEP_MAX: usize = 100;

/// What an act on a dead letter came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadAnswer {
    /// It will be done, durably.
    Accepted,
    /// It is no longer dead: somebody was faster, or did it already.
    NotDead,
    /// There is no such dead letter.
    Unknown,
    /// What came on a reply topic still is no reply, and why: edit or discard it.
    NotAReply(String),
    /// An edit must keep the order key.
    OrderKeyChanged,
    /// Services have records of the order already: it can only go on as it is, or be given up.
    HasRecord,
    /// The edit is for another kind of dead letter.
    WrongKind,
}

impl From<DeadResult> for DeadAnswer {
    fn from(result: DeadResult) -> Self {
        match result {
            DeadResult::Accepted => Self::Accepted,
            DeadResult::NotDead => Self::NotDead,
            DeadResult::Unknown => Self::Unknown,
            DeadResult::OrderKeyChanged => Self::OrderKeyChanged,
            DeadResult::HasRecord => Self::HasRecord,
            DeadResult::WrongKind => Self::WrongKind,
        }
    }
}

/// What is done to many dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadAct {
    Redrive,
    Discard,
}

/// What one step over many came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadStep {
    pub accepted: usize,
    /// Dead no more as their turn came.
    pub not_dead: usize,
    /// Those that cannot be redriven as they are.
    pub refused: Vec<i64>,
    /// Where the next step goes on; absent: it was the last.
    pub next: Option<i64>,
    /// What died later is not part of the task.
    pub before: Timestamp,
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

    /// Dead letters, oldest first.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn dead(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, AdminError> {
        Ok(self.outbox.dead(filter).await?)
    }

    /// One dead letter with its payload.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, AdminError> {
        Ok(self.outbox.dead_letter(id).await?)
    }

    /// Puts a dead letter back, in the name of `by`: an order at the end of its key, a reply into the inbox of its order.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn redrive(&self, id: i64, by: &str) -> Result<DeadAnswer, AdminError> {
        match self.outbox.dead_letter(id).await? {
            Some(letter) if letter.kind == DeadKind::Reply => self.redrive_reply(letter, by).await,
            // Also what is not there: whether it ever was is seen in the transaction.
            _ => self.redrive_order(id, by).await,
        }
    }

    async fn redrive_order(&self, id: i64, by: &str) -> Result<DeadAnswer, AdminError> {
        let result = self.outbox.redrive(id, by.to_owned()).await?;
        crash::at(Point::Redriven);
        Ok(result.into())
    }

    async fn redrive_reply(&self, letter: DeadLetter, by: &str) -> Result<DeadAnswer, AdminError> {
        let id = letter.id;
        match reply::parse(raw_reply(letter)) {
            Ok(reply) => Ok(self.outbox.redrive_reply(id, reply, by.to_owned()).await?.into()),
            Err(poison) => Ok(DeadAnswer::NotAReply(poison.reason)),
        }
    }

    /// Gives a dead letter up, in the name of `by`: its order ends CANCELLED.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn discard(&self, id: i64, by: &str) -> Result<DeadAnswer, AdminError> {
        let result = self.outbox.discard(id, by.to_owned()).await?;
        crash::at(Point::Redriven);
        Ok(result.into())
    }

    /// Replaces what died, in the name of `by`; it stays dead until it is redriven.
    ///
    /// # Errors
    ///
    /// The database does not answer.
    pub async fn edit(&self, letter: &DeadLetter, edit: DeadEdit, by: &str) -> Result<DeadAnswer, AdminError> {
        if let DeadEdit::Reply { headers, payload } = &edit {
            let edited = DeadLetter { headers: headers.clone(), payload: payload.clone(), ..letter.clone() };
            if let Err(poison) = reply::parse(raw_reply(edited)) {
                return Ok(DeadAnswer::NotAReply(poison.reason));
            }
        }
        Ok(self.outbox.edit_dead(letter.id, edit, by.to_owned()).await?.into())
    }

    /// One step over many: does it to the next ones that the filter has, at most [`STEP_MAX`].
    ///
    /// # Errors
    ///
    /// The database does not answer; what was done so far is done.
    pub async fn act_on_many(&self, act: DeadAct, filter: DeadFilter, by: &str) -> Result<DeadStep, AdminError> {
        let before = filter.before.unwrap_or_else(|| self.clock.now());
        let limit = filter.limit.min(STEP_MAX);
        let letters = self.dead(DeadFilter { before: Some(before), limit, ..filter }).await?;
        let next = letters.last().map(|letter| letter.id).filter(|_| letters.len() == limit);
        let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
        // Together, so that they share a commit.
        let answers = join_all(letters.into_iter().map(async |letter| match act {
            DeadAct::Redrive if letter.kind == DeadKind::Reply => self.redrive_reply(letter, by).await,
            DeadAct::Redrive => self.redrive_order(letter.id, by).await,
            DeadAct::Discard => self.discard(letter.id, by).await,
        }))
        .await;
        let mut step = DeadStep { accepted: 0, not_dead: 0, refused: Vec::new(), next, before };
        for (id, answer) in ids.into_iter().zip(answers) {
            match answer? {
                DeadAnswer::Accepted => step.accepted += 1,
                DeadAnswer::NotDead | DeadAnswer::Unknown => step.not_dead += 1,
                DeadAnswer::NotAReply(_)
                | DeadAnswer::OrderKeyChanged
                | DeadAnswer::HasRecord
                | DeadAnswer::WrongKind => step.refused.push(id),
            }
        }
        Ok(step)
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

/// A dead letter as the record of a reply topic that it is. It counts as sent when it was first taken in.
fn raw_reply(letter: DeadLetter) -> RawReply {
    let DeadLetter { since, place, headers, payload, .. } = letter;
    let nowhere = Place { topic: String::new(), partition: 0, offset: 0 };
    RawReply { place: place.unwrap_or(nowhere), timestamp: since, key: None, headers, value: Some(payload) }
}
