//! Reads replies from Kafka, and says how far it has read.
//!
//! # Guarantees
//!
//! - Nothing is committed but by [`Subscriber::commit`], so what the database does not have comes again.
//! - A position says that everything before it was handed out, in this batch or before; ends of partitions count, so
//!   that markers of transactions and partitions without records are no gap.
//! - The group never stands beyond what the database has: where it does, the database was restored, and the group is set
//!   back ([`Subscriber::set_back`]) before it is joined.
//! - No error ends the reading: a transient one is logged once and outlived, after a fatal one the consumer is replaced.
//!
//! # What is not here
//!
//! Whether a reply counts: `replies`. What a record must look like: [`reply`].

mod offsets;
pub mod reply;
mod settings;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tracing::{debug, error, info, warn};

use crate::clock::Timestamp;
use crate::config::{KafkaConfig, RepliesConfig};
use crate::reply::{Place, PoisonReply, Position, RawReply, Reply};
use crate::telemetry::Metrics;

use trouble::Trouble;

/// Pause before a consumer that failed for good is replaced.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// Reads the reply topics as one member of the group.
pub struct Subscriber {
    settings: ClientConfig,
    topics: Vec<String>,
    metrics: Arc<Metrics>,
    consumer: ArcSwap<StreamConsumer<Events>>,
    /// Partitions whose end was seen although nothing was read from them: where they start is still to be asked.
    unread: Mutex<BTreeSet<(String, i32)>>,
    /// What keeps replies from being read, as it was logged last: so an outage is logged once.
    trouble: Mutex<Option<Trouble>>,
}

/// What came in at once.
#[derive(Debug, Default)]
pub struct ReplyBatch {
    /// In the order of each partition. May be empty where only positions moved.
    pub replies: Vec<Result<Reply, PoisonReply>>,
    /// Per partition touched, up to where it is read with this batch.
    pub positions: Vec<Position>,
}

/// What the reading side could not do.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    #[error("`{section}.{key}` cannot be set: {reason}")]
    Reserved { section: &'static str, key: String, reason: &'static str },
    #[error("librdkafka does not accept the settings of the consumer")]
    Settings(#[source] KafkaError),
    #[error("the offsets of the replies could not be committed")]
    Commit(#[source] KafkaError),
    #[error("Kafka did not say how far the reply topics reach")]
    Ends(#[source] KafkaError),
    #[error("Kafka did not say how far the group has read")]
    Committed(#[source] KafkaError),
    #[error("the group could not be set back")]
    SetBack(#[source] KafkaError),
    #[error("a question to Kafka was cut off")]
    CutOff(#[source] tokio::task::JoinError),
}

type Consuming = Arc<StreamConsumer<Events>>;

impl Subscriber {
    /// Connects in the background. Must be called within a tokio runtime. Nothing is read before [`Subscriber::join`].
    ///
    /// # Errors
    ///
    /// A setting that would break a promise, or one that librdkafka does not accept.
    pub fn connect(
        config: &KafkaConfig,
        replies: &RepliesConfig,
        brokers: &str,
        topics: &[String],
        metrics: Arc<Metrics>,
    ) -> Result<Self, SubscribeError> {
        let settings = settings::consumer(config, replies, brokers)?;
        let consumer = ArcSwap::from(consume(&settings, &metrics)?);
        let (unread, trouble) = (Mutex::default(), Mutex::default());
        Ok(Self { settings, topics: topics.to_vec(), metrics, consumer, unread, trouble })
    }

    /// Joins the group, in the background. A topic that does not exist yet is no error: it is seen within seconds of its
    /// creation.
    ///
    /// # Errors
    ///
    /// librdkafka does not accept the names of the topics.
    pub fn join(&self) -> Result<(), SubscribeError> {
        subscribe(&self.consumer.load(), &self.topics)
    }

    /// How far the group has read the reply topics, where it has.
    ///
    /// # Errors
    ///
    /// Kafka did not answer within `limit`, or refuses to.
    pub async fn committed(&self, limit: Duration) -> Result<Vec<Position>, SubscribeError> {
        let (consumer, topics) = (self.consumer.load_full(), self.topics.clone());
        let asked = tokio::task::spawn_blocking(move || offsets::committed(&consumer, &topics, limit)).await;
        asked.map_err(SubscribeError::CutOff)?.map_err(SubscribeError::Committed)
    }

    /// Lets the group read from these positions on. Only while nobody reads: Kafka refuses it where the group has members.
    ///
    /// # Errors
    ///
    /// Kafka refused, or did not answer.
    pub async fn set_back(&self, positions: Vec<Position>) -> Result<(), SubscribeError> {
        let settings = self.settings.clone();
        let done = tokio::task::spawn_blocking(move || offsets::set_back(&settings, &positions)).await;
        done.map_err(SubscribeError::CutOff)?.map_err(SubscribeError::SetBack)
    }

    /// Waits for a record or an end of a partition, then takes what is there, at most `max` records.
    ///
    /// Cancel-safe: what was not returned was not taken.
    pub async fn next_batch(&self, max: usize) -> ReplyBatch {
        let mut gathered = Gathered::default();
        let mut consumer = self.consumer.load_full();
        // Nothing is taken off the queue before the last await.
        for position in self.starts(&consumer).await {
            gathered.reach(position);
        }
        while gathered.is_empty() {
            match consumer.recv().await {
                Err(KafkaError::MessageConsumptionFatal(code)) => consumer = self.replace(code).await,
                event => self.take(event, &mut gathered),
            }
        }
        let mut ready = consumer.stream();
        while gathered.replies.len() < max
            && let Some(Some(event)) = ready.next().now_or_never()
        {
            self.take(event, &mut gathered);
        }
        self.count_ends(&consumer, &mut gathered);
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.retain(|partition| !gathered.reached.contains_key(partition));
        gathered.into_batch()
    }

    /// Commits what the database has; call it after the transaction. Does not wait: a commit that fails is logged, and
    /// the next one covers it.
    ///
    /// # Errors
    ///
    /// The commit could not even be asked for.
    pub fn commit(&self, positions: &[Position]) -> Result<(), SubscribeError> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::with_capacity(positions.len());
        for position in positions {
            offsets
                .add_partition_offset(&position.topic, position.partition, Offset::Offset(position.next_offset))
                .map_err(SubscribeError::Commit)?;
        }
        self.consumer.load().commit(&offsets, CommitMode::Async).map_err(SubscribeError::Commit)
    }

    /// How far every partition of `topics` reaches now, by fresh metadata: the end that a reader can reach, so records
    /// of a transaction that is still open lie behind it. A topic that does not exist has no partitions.
    ///
    /// # Errors
    ///
    /// Kafka did not answer within `limit`, or refuses to.
    pub async fn ends(&self, topics: &[String], limit: Duration) -> Result<Vec<Position>, SubscribeError> {
        let (consumer, topics) = (self.consumer.load_full(), topics.to_vec());
        let asked = tokio::task::spawn_blocking(move || offsets::ends(&consumer, &topics, limit)).await;
        asked.map_err(SubscribeError::CutOff)?.map_err(SubscribeError::Ends)
    }

    /// Leaves the group, so that others need not wait for this member to be missed.
    pub async fn close(self) {
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            error!("the Kafka consumer did not close: {error}");
        }
    }

    fn take(&self, event: KafkaResult<BorrowedMessage<'_>>, gathered: &mut Gathered) {
        match event {
            Ok(message) => {
                let raw = raw_reply(&message);
                let Place { topic, partition, offset } = raw.place.clone();
                gathered.reach(Position { topic, partition, next_offset: offset + 1 });
                gathered.replies.push(reply::parse(raw));
                self.note_recovery();
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                gathered.ended.insert(partition);
                self.note_recovery();
            }
            Err(error) => self.note_error(&error),
        }
    }

    /// An end names its partition but not its topic: every position of that number is read off, each is true.
    fn count_ends(&self, consumer: &Consuming, gathered: &mut Gathered) {
        if gathered.ended.is_empty() {
            return;
        }
        let positions = match consumer.position() {
            Ok(positions) => positions,
            Err(error) => return self.note_error(&error),
        };
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        for element in positions.elements() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            match element.offset() {
                _ if !gathered.ended.contains(&partition) => {}
                Offset::Offset(next_offset) => gathered.reach(Position { topic, partition, next_offset }),
                _ => {
                    unread.insert((topic, partition));
                }
            }
        }
    }

    /// Where the partitions start of which nothing was read; those that cannot be asked now are asked next time.
    async fn starts(&self, consumer: &Consuming) -> Vec<Position> {
        let unread: Vec<_> = {
            let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
            unread.iter().cloned().collect()
        };
        if unread.is_empty() {
            return Vec::new();
        }
        let (consumer, asked) = (consumer.clone(), unread.clone());
        match tokio::task::spawn_blocking(move || offsets::starts(&consumer, &asked)).await {
            Ok(Ok(starts)) => {
                let mut still = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
                still.retain(|partition| !unread.contains(partition));
                starts
            }
            Ok(Err(error)) => {
                self.note_error(&error);
                Vec::new()
            }
            Err(error) => {
                debug!("the question where partitions start was cut off: {error}");
                Vec::new()
            }
        }
    }

    /// After a fatal error a consumer reads nothing more: another takes its place.
    async fn replace(&self, code: RDKafkaErrorCode) -> Consuming {
        if code == RDKafkaErrorCode::FencedInstanceId {
            error!("another node reads replies under this node's `replies.member`: give each a name of its own");
        } else {
            error!("the Kafka consumer failed for good and is replaced: {code}");
        }
        self.metrics.kafka_subscriber_errors.inc();
        tokio::time::sleep(REPLACE_PAUSE).await;
        let replaced = consume(&self.settings, &self.metrics).and_then(|consumer| {
            subscribe(&consumer, &self.topics)?;
            Ok(consumer)
        });
        match replaced {
            Ok(consumer) => self.consumer.store(consumer),
            Err(error) => error!("{}", crate::telemetry::chain(&error)),
        }
        self.consumer.load_full()
    }

    /// What keeps replies from being read, and what can be done about it; `None` while all is well as far as is known.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ToString::to_string)
    }

    fn note_error(&self, error: &KafkaError) {
        self.metrics.kafka_subscriber_errors.inc();
        let found = Trouble::of(error);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_ref().is_none_or(|known| !known.is_same(&found)) {
            warn!("reading replies: {found}; it is tried again");
            *trouble = Some(found);
        }
    }

    fn note_recovery(&self) {
        if self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            info!("replies are read again");
        }
    }
}

/// A batch in the making.
#[derive(Default)]
struct Gathered {
    replies: Vec<Result<Reply, PoisonReply>>,
    reached: BTreeMap<(String, i32), i64>,
    ended: BTreeSet<i32>,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.reached.is_empty() && self.ended.is_empty()
    }

    fn reach(&mut self, position: Position) {
        let reached = self.reached.entry((position.topic, position.partition)).or_insert(position.next_offset);
        *reached = position.next_offset.max(*reached);
    }

    fn into_batch(self) -> ReplyBatch {
        let positions = self.reached.into_iter();
        let positions = positions.map(|((topic, partition), next_offset)| Position { topic, partition, next_offset });
        ReplyBatch { replies: self.replies, positions: positions.collect() }
    }
}

fn consume(settings: &ClientConfig, metrics: &Arc<Metrics>) -> Result<Consuming, SubscribeError> {
    let events = Events { metrics: Arc::clone(metrics) };
    let consumer: StreamConsumer<Events> =
        StreamConsumer::from_config_and_context(settings, events).map_err(SubscribeError::Settings)?;
    Ok(Arc::new(consumer))
}

fn subscribe(consumer: &Consuming, topics: &[String]) -> Result<(), SubscribeError> {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(SubscribeError::Settings)
}

fn raw_reply(message: &BorrowedMessage<'_>) -> RawReply {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    RawReply {
        place: Place { topic: message.topic().to_owned(), partition: message.partition(), offset: message.offset() },
        // Records of a format that has no time count as old.
        timestamp: Timestamp(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().map(Bytes::copy_from_slice),
        headers: headers
            .map(|header| (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default())))
            .collect(),
        value: message.payload().map(Bytes::copy_from_slice),
    }
}

/// Takes the consumer's events that are no records.
struct Events {
    metrics: Arc<Metrics>,
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // Errors also come out of the stream of records, where they are logged once.
        debug!(target: "librdkafka", ?level, facility, "{text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!("Kafka consumer: {error}: {reason}");
    }
}

impl ConsumerContext for Events {
    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, change: &Rebalance<'_>) {
        self.metrics.kafka_subscriber_rebalances.inc();
        match change {
            Rebalance::Assign(gained) if gained.count() > 0 => {
                info!(partitions = gained.count(), "reads {} reply partition(s) more", gained.count());
            }
            Rebalance::Revoke(lost) if lost.count() > 0 => {
                info!(partitions = lost.count(), "reads {} reply partition(s) less", lost.count());
            }
            Rebalance::Assign(_) | Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => warn!("the group of those who read replies is in disorder: {error}"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => warn!("the offsets of replies were not committed: {error}; the next commit covers them"),
        }
    }
}

#[cfg(test)]
mod tests;
