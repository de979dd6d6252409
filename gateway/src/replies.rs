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
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::{Clock, Timestamp};
use crate::config::RepliesConfig;
use crate::lifecycle::{Condition, Readiness};
use crate::outbox::{Fates, Outbox, TakenReplies};
use crate::retry::backoff;
use crate::subscriber::{ReplyBatch, Subscriber};
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
    /// The reply topics of all routes.
    pub topics: Vec<String>,
    pub limits: RepliesConfig,
    /// Tells brokers apart that count offsets from zero again.
    pub incarnation: Arc<str>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
}

impl Replies {
    /// Reads until `stop`. What was read and not committed comes again at the next start.
    pub async fn read(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let batch = tokio::select! {
                () = stop.cancelled() => return,
                batch = self.subscriber.next_batch(self.limits.batch_max) => batch,
            };
            self.take(batch, &stop).await;
        }
    }

    /// Stores one batch, however often that takes, and commits its offsets.
    async fn take(&self, batch: ReplyBatch, stop: &CancellationToken) {
        let ReplyBatch { replies, positions } = batch;
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
                    warn!(error = %chain(&error), "failed to store replies");
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
        let mut asked = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.limits.watch_interval.0) => {}
            }
            self.expire(&mut asked).await;
        }
    }

    /// One pass of the watch. `asked` holds by topic when the ends were asked for that reading has not reached yet: they
    /// are asked for once per need, so that a busy topic does not move the goal for ever, nor hold up another one.
    async fn expire(&self, asked: &mut HashMap<String, Timestamp>) {
        let open: Vec<String> = self.topics.iter().filter(|topic| !asked.contains_key(*topic)).cloned().collect();
        if !open.is_empty()
            && let Some(asked_at) = self.ask_ends(&open).await
        {
            asked.extend(open.into_iter().map(|topic| (topic, asked_at)));
        }
        let waiting = std::mem::take(asked);
        for (topic, asked_at) in waiting {
            if !self.expire_topic(asked_at, &topic).await {
                asked.insert(topic, asked_at);
            }
        }
    }

    /// Expires what was due at `asked_at` on one topic; returns whether all of it is.
    async fn expire_topic(&self, asked_at: Timestamp, topic: &str) -> bool {
        loop {
            match self.outbox.expire(asked_at, topic.to_owned(), EXPIRE_MAX).await {
                Ok(Some(expired)) => {
                    self.metrics.orders_expired.inc_by(expired as u64);
                    if expired < EXPIRE_MAX {
                        return true;
                    }
                }
                Ok(None) => return false,
                Err(error) => {
                    warn!(error = %chain(&error), "failed to expire orders");
                    return false;
                }
            }
        }
    }

    /// Asks Kafka where reply topics end, if a deadline and its grace have passed; returns when it asked.
    async fn ask_ends(&self, topics: &[String]) -> Option<Timestamp> {
        let due = self.clock.now().before(self.limits.grace.0);
        match self.outbox.has_overdue(due).await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                warn!(error = %chain(&error), "failed to look for deadlines");
                return None;
            }
        }
        // Taken before the answer: whoever was due then was due when the ends were looked up.
        let asked_at = self.clock.now();
        let ends = match self.subscriber.ends(topics, ENDS_LIMIT).await {
            Ok(ends) => ends,
            Err(error) => {
                debug!(error = %chain(&error), "Kafka did not say where the reply topics end: nothing expires yet");
                return None;
            }
        };
        match self.outbox.note_ends(asked_at, ends).await {
            Ok(()) => Some(asked_at),
            Err(error) => {
                warn!(error = %chain(&error), "failed to note the ends of reply topics");
                None
            }
        }
    }
}
