//! What stands behind Kafka: a service that answers at once, and readers of topics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use sluice::config::{RouteConfig, RouteReplies};

use super::services::{Kafka, topic_of};

const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A record as a service sees it.
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// `ce_id`: the same for a repeated record.
    pub(crate) id: String,
    pub(crate) order_id: String,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Seen {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let header = |name: &str| {
            let mut headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let value = headers.find(|header| header.key == name).and_then(|header| header.value);
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        Self {
            at: Instant::now(),
            id: header("ce_id"),
            order_id: header("ce_subject"),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }
}

/// Something that reads a topic on a thread of its own, from where it ended at the start.
pub(crate) struct Reader<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<T>>,
}

impl<T: Send + 'static> Reader<T> {
    fn start(
        kafka: &Kafka,
        topic: &str,
        state: T,
        mut each: impl FnMut(&mut T, Seen) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let consumer = at_the_end(kafka, topic)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut state = state;
            while !stopped.load(Ordering::Relaxed) {
                if let Some(message) = consumer.poll(POLL) {
                    each(&mut state, Seen::of(&message?))?;
                }
            }
            Ok(state)
        });
        Ok(Self { stop, thread })
    }

    /// Ends it and returns what it gathered.
    pub(crate) fn stop(self) -> anyhow::Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?
    }
}

/// Gathers every record of a topic.
pub(crate) fn gather(kafka: &Kafka, topic: &str) -> anyhow::Result<Reader<Vec<Seen>>> {
    Reader::start(kafka, topic, Vec::new(), |all, seen| {
        all.push(seen);
        Ok(())
    })
}

/// Answers every order of a route with all that it asks for, at once; counts the orders.
pub(crate) fn echo(kafka: &Kafka, route: &RouteConfig) -> anyhow::Result<Reader<u64>> {
    let service = Service::new(kafka, route)?;
    Reader::start(kafka, topic_of(route), 0, move |count, seen| {
        *count += 1;
        service.answer(&seen.order_id, &seen.key)
    })
}

/// Something that answers orders.
pub(crate) struct Service {
    producer: ThreadedProducer<DefaultProducerContext>,
    replies: RouteReplies,
}

impl Service {
    pub(crate) fn new(kafka: &Kafka, route: &RouteConfig) -> anyhow::Result<Self> {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &kafka.address).set("partitioner", "murmur2_random").set("linger.ms", "0");
        let replies = route.replies.clone().context("a route with replies")?;
        Ok(Self { producer: settings.create()?, replies })
    }

    /// Sends everything that the verdict needs.
    pub(crate) fn answer(&self, order_id: &str, key: &[u8]) -> anyhow::Result<()> {
        self.replies.all_of.iter().try_for_each(|kind| self.say(order_id, key, kind))
    }

    fn say(&self, order_id: &str, key: &[u8], kind: &str) -> anyhow::Result<()> {
        let id = format!("{order_id}/{kind}");
        let headers = [
            ("content-type", "application/json"),
            ("ce_specversion", "1.0"),
            ("ce_id", &id),
            ("ce_source", "/bench"),
            ("ce_type", kind),
            ("ce_subject", order_id),
        ];
        let headers = headers
            .into_iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let body = format!(r#"{{"orderId":"{order_id}"}}"#);
        let record = BaseRecord::to(&self.replies.topic).key(key).payload(&body).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error.into())
    }
}

fn at_the_end(kafka: &Kafka, topic: &str) -> anyhow::Result<BaseConsumer<DefaultConsumerContext>> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &kafka.address)
        // Required by librdkafka; nothing is committed and no group is joined.
        .set("group.id", "bench-reader")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer<DefaultConsumerContext> = settings.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (_, end) = consumer.fetch_watermarks(topic, partition.id(), LIMIT)?;
        partitions.add_partition_offset(topic, partition.id(), Offset::Offset(end))?;
    }
    consumer.assign(&partitions)?;
    Ok(consumer)
}
