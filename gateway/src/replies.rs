//! Takes replies in, and watches deadlines.
//!
//! Two loops. The reader takes replies in batches: inbox, status changes and what follows are one transaction, the
//! offset is committed after it. The watch expires what was not answered in time, but only once everything that was
//! sent in time has been read (PROTOCOL R4, R5): an hour of downtime expires nothing by itself.
//!
//! # Not here
//!
//! What a reply looks like (`subscriber`), what a set of replies amounts to (`route`), SQL (`outbox`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::clock::Timestamp;
use crate::config::RepliesConfig;
use crate::crash::{self, Point};
use crate::lifecycle::{Condition, Readiness};
use crate::order::Slot;
use crate::outbox::{Expiring, Fates, Outbox, OutboxError, TakenReplies};
use crate::ownership::Ownership;
use crate::pace::Pace;
use crate::reply::Position;
use crate::retry::backoff;
use crate::subscriber::{ReplyBatch, SubscribeError, Subscriber};
use crate::telemetry::metrics::KindLabel;
use crate::telemetry::{Metrics, chain};

/// How long Kafka may take to say where the reply topics end.
const ENDS_LIMIT: Duration = Duration::from_secs(10);
/// Orders expired in one transaction.
const EXPIRE_MAX: usize = 500;
/// First and longest wait after the database refused a batch.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Takes replies in and watches deadlines.
pub struct Replies {
    pub outbox: Outbox,
    pub subscriber: Subscriber,
    /// Deadlines are watched for the slots that this node owns, whoever reads the partitions with their replies.
    pub ownership: Ownership,
    /// The reply topics of all routes.
    pub topics: Vec<String>,
    pub limits: RepliesConfig,
    /// Tells brokers apart that count offsets from zero again.
    pub incarnation: Arc<str>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
}

/// Ends of a topic's partitions, and when they were asked for.
struct Asked {
    at: Timestamp,
    ends: Vec<Position>,
}

impl Replies {
    /// Reads until `stop`. What was read and not committed comes again at the next start.
    pub async fn read(self: Arc<Self>, stop: CancellationToken) {
        self.go_back(&stop).await;
        if let Err(error) = self.subscriber.join() {
            error!(error = %chain(&error), "replies are not read");
            self.readiness.set("replies", Condition::Degraded(chain(&error).to_string()));
            return stop.cancelled().await;
        }
        let mut pace = Pace::new(self.limits.rest_max.0);
        while !stop.is_cancelled() {
            let batch = tokio::select! {
                () = stop.cancelled() => return,
                batch = self.subscriber.next_batch(self.limits.batch_max) => batch,
            };
            let (begun, is_full) = (Instant::now(), batch.replies.len() >= self.limits.batch_max);
            self.take(batch, &stop).await;
            pace.worked(begun.elapsed(), is_full, Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                () = pace.rest() => {}
            }
        }
    }

    /// Makes sure that the group reads on from where the database stands, however long that takes: until Kafka answers
    /// nothing can be read anyway.
    async fn go_back(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while let Err(reason) = self.try_to_go_back().await {
            if failures == 0 {
                warn!("replies are not read yet: {reason}");
            }
            self.readiness.set("replies", Condition::Degraded(format!("replies are not read yet: {reason}")));
            let pause = backoff(PAUSE.0, PAUSE.1, failures, fastrand::f64());
            failures += 1;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if failures > 0 {
            self.readiness.set("replies", Condition::Ready);
        }
    }

    /// A database that was restored from a backup stands before what the group has read. Replies that came in between are
    /// read again: the inbox knows those that it has.
    async fn try_to_go_back(&self) -> Result<(), String> {
        let stored = |error: OutboxError| chain(&error).to_string();
        let asked = |error: SubscribeError| chain(&error).to_string();
        if self.outbox.reply_positions().await.map_err(stored)?.is_empty()
            && self.outbox.backlog() == 0
            && !self.outbox.awaits_replies().await.map_err(stored)?
        {
            // A new database: what was said to another one is not for this one.
            return Ok(());
        }
        let read = self.subscriber.committed(ENDS_LIMIT).await.map_err(asked)?;
        // Read after Kafka was asked: a node that reads on meanwhile commits here first.
        let behind = behind(&self.outbox.reply_positions().await.map_err(stored)?, read);
        if behind.is_empty() {
            return Ok(());
        }
        let told = behind.len();
        self.subscriber.set_back(behind).await.map_err(|error| {
            format!(
                "the database was restored from a backup, so the replies since then have to be read again: {}; stop every node \
                 that still reads, and start them anew",
                chain(&error)
            )
        })?;
        warn!(
            partitions = told,
            "the database was restored from a backup: the replies of {told} partition(s) are read again from where it stands"
        );
        Ok(())
    }

    /// Stores one batch, however often that takes, and commits its offsets.
    async fn take(&self, batch: ReplyBatch, stop: &CancellationToken) {
        let ReplyBatch { replies, positions } = batch;
        if !replies.is_empty() {
            crash::at(Point::RepliesRead);
        }
        let taken = Arc::new(TakenReplies {
            replies,
            positions: positions.clone(),
            incarnation: Arc::clone(&self.incarnation),
        });
        let mut failures = 0;
        loop {
            match self.outbox.take_replies(Arc::clone(&taken)).await {
                Ok(fates) => {
                    self.count(fates);
                    if failures > 0 {
                        self.readiness.set("replies", Condition::Ready);
                    }
                    break;
                }
                Err(error) => {
                    error.warn("failed to store replies");
                    self.readiness.set("replies", Condition::Degraded(format!("replies wait: {}", chain(&error))));
                    let pause = backoff(PAUSE.0, PAUSE.1, failures, fastrand::f64());
                    failures += 1;
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
        if !taken.replies.is_empty() && crash::fails(Point::RepliesStored) {
            return;
        }
        if let Err(error) = self.subscriber.commit(&positions) {
            // They come again, and the inbox knows them.
            warn!(error = %chain(&error), "failed to commit the offsets of replies");
        }
    }

    fn count(&self, fates: Fates) {
        let Fates { counted, early, late, repeated, unasked, parked, poison } = fates;
        for (kind, count) in [
            ("counted", counted),
            ("early", early),
            ("late", late),
            ("repeated", repeated),
            ("unasked", unasked),
            ("parked", parked),
            ("poison", poison),
        ] {
            self.metrics.replies.get_or_create(&KindLabel { kind }).inc_by(count);
        }
    }

    /// Watches deadlines until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let (mut asked, mut in_trouble) = (HashMap::new(), false);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.limits.watch_interval.0) => {}
            }
            self.expire(&mut asked).await;
            self.tell(&mut in_trouble);
        }
    }

    /// Tells what keeps replies from being read, and that nothing does any more.
    fn tell(&self, in_trouble: &mut bool) {
        match self.subscriber.trouble() {
            Some(trouble) => {
                *in_trouble = true;
                self.readiness.set("replies", Condition::Degraded(format!("replies are not read: {trouble}")));
            }
            None if std::mem::take(in_trouble) => self.readiness.set("replies", Condition::Ready),
            None => {}
        }
    }

    /// One pass of the watch. `asked` holds by topic the ends that reading has not reached yet: they are asked for once per
    /// need, so that a busy topic does not move the goal for ever, nor hold up another one.
    async fn expire(&self, asked: &mut HashMap<String, Asked>) {
        let open: Vec<String> = self.topics.iter().filter(|topic| !asked.contains_key(*topic)).cloned().collect();
        if !open.is_empty()
            && let Some((at, mut ends)) = self.ask_ends(&open).await
        {
            asked.extend(open.into_iter().map(|topic| {
                let own;
                (own, ends) = std::mem::take(&mut ends).into_iter().partition(|end| end.topic == topic);
                (topic, Asked { at, ends: own })
            }));
        }
        let waiting = std::mem::take(asked);
        for (topic, ends) in waiting {
            if !self.expire_topic(&ends, &topic).await {
                asked.insert(topic, ends);
            }
        }
    }

    /// Expires what was due on one topic as its ends were asked for; returns whether all of it is.
    async fn expire_topic(&self, asked: &Asked, topic: &str) -> bool {
        loop {
            let expiring = Expiring {
                asked_at: asked.at,
                topic: topic.to_owned(),
                ends: asked.ends.clone(),
                slots: self.ownership.slots(),
                limit: EXPIRE_MAX,
            };
            match self.outbox.expire(expiring).await {
                Ok(Some(expired)) => {
                    self.metrics.orders_expired.inc_by(expired as u64);
                    if expired < EXPIRE_MAX {
                        return true;
                    }
                }
                Ok(None) => return false,
                Err(error) => {
                    error.warn("failed to expire orders");
                    return false;
                }
            }
        }
    }

    /// Asks Kafka where reply topics end, if a deadline of ours and its grace have passed; returns when it asked, and what
    /// it was told.
    async fn ask_ends(&self, topics: &[String]) -> Option<(Timestamp, Vec<Position>)> {
        let slots: Vec<Slot> = self.ownership.slots().into_iter().map(|(slot, _)| slot).collect();
        if slots.is_empty() {
            return None;
        }
        // A moment before the answer: whoever was due then was due when the ends were looked up.
        let asked_at = match self.outbox.overdue(slots, self.limits.grace.0).await {
            Ok(asked_at) => asked_at?,
            Err(error) => {
                error.warn("failed to look for deadlines");
                return None;
            }
        };
        let ends = match self.subscriber.ends(topics, ENDS_LIMIT).await {
            Ok(ends) => ends,
            Err(error) => {
                debug!(error = %chain(&error), "Kafka did not say where the reply topics end: nothing expires yet");
                return None;
            }
        };
        match self.outbox.note_ends(asked_at, ends.clone()).await {
            Ok(()) => Some((asked_at, ends)),
            Err(error) => {
                error.warn("failed to note the ends of reply topics");
                None
            }
        }
    }
}

/// Where the database stands in the partitions that the group has read further. Where it has no position it has read nothing,
/// so it stands at the beginning.
fn behind(stored: &[Position], group: Vec<Position>) -> Vec<Position> {
    let own = |read: Position| {
        let own = stored.iter().find(|own| (&own.topic, own.partition) == (&read.topic, read.partition));
        let next_offset = own.map_or(0, |own| own.next_offset);
        (read.next_offset > next_offset).then_some(Position { next_offset, ..read })
    };
    group.into_iter().filter_map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_behind_also_in_partitions_of_which_it_has_read_nothing() {
        let position = |partition, next_offset| Position { topic: "replies".to_owned(), partition, next_offset };
        let stored = [position(0, 5), position(1, 7), position(3, 4)];
        let group = vec![position(0, 5), position(1, 9), position(2, 3), position(4, 0)];
        assert_eq!(behind(&stored, group), [position(1, 7), position(2, 0)]);
    }
}
