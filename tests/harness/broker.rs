//! The broker as a service downstream sees it: reads whole topics, sends replies, and can own a broker.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use sluice::config::Config;
use sluice::dev::DevBroker;

use crate::environment;
use crate::gateway::Route;
use crate::wait::wait_until;

/// Longest a broker may take for one thing.
const LIMIT: Duration = Duration::from_secs(30);

/// A broker that outlives the gateways of a test: the real one, where `SLUICE_TEST_KAFKA` names one, else librdkafka's
/// mock cluster in this process.
pub struct Broker {
    address: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    /// The mock cluster as the program itself sets it up: a group need not wait 3 s for its members.
    quick: Option<DevBroker>,
}

impl Broker {
    /// Finds or starts the broker.
    #[must_use]
    pub fn start() -> Self {
        if let Some(address) = environment::kafka() {
            return Self { address, mock: None, quick: None };
        }
        let mock = MockCluster::new(1).expect("a mock cluster starts");
        Self { address: mock.bootstrap_servers(), mock: Some(mock), quick: None }
    }

    /// The same with the topics of a route; members of a group that die are missed within a second or so where it is
    /// not a real one.
    ///
    /// # Panics
    ///
    /// When the broker does not start, or the route is none.
    #[must_use]
    pub fn start_with(route: &Route, partitions: i32) -> Self {
        if let Some(address) = environment::kafka() {
            return Self::at(&address, route, partitions);
        }
        // No plugin is looked for here.
        let text = Route { plugins: Vec::new(), ..route.clone() }.to_toml("");
        let config = Config::from_bytes(Some((Path::new("route.toml"), text.as_bytes()))).expect("a route");
        let quick = DevBroker::start(&config.route, partitions).expect("a mock cluster starts");
        Self { address: quick.bootstrap_servers().to_owned(), mock: None, quick: Some(quick) }
    }

    /// A real Kafka at an address, which gets the topics of a route.
    #[must_use]
    pub fn at(address: &str, route: &Route, partitions: i32) -> Self {
        for topic in route.topics() {
            create_topic(address, topic, partitions);
        }
        Self { address: address.to_owned(), mock: None, quick: None }
    }

    /// Whether it is a real Kafka.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.mock.is_none() && self.quick.is_none()
    }

    /// Takes a broker that is not a real one off the network, or puts it back, with all its records. Returns whether
    /// that was possible.
    ///
    /// # Panics
    ///
    /// When librdkafka refuses.
    pub fn set_reachable(&self, is_reachable: bool) -> bool {
        let quick = self.quick.as_ref();
        quick.map(|quick| quick.set_reachable(is_reachable).expect("the mock cluster obeys")).is_some()
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Lets nobody write to a topic of a broker that is not a real one, or lets everybody again. Returns whether that was
    /// possible.
    ///
    /// # Panics
    ///
    /// When librdkafka refuses.
    pub fn set_forbidden(&self, topic: &str, is_forbidden: bool) -> bool {
        let error = if is_forbidden {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        } else {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        };
        let mock = self.mock.as_ref();
        mock.map(|mock| mock.topic_error(topic, error).expect("the mock cluster obeys")).is_some()
    }

    /// Creates a topic that does not exist yet.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        match &self.mock {
            Some(mock) => mock.create_topic(name, partitions, 1).expect("the mock cluster creates topics"),
            None => create_topic(&self.address, name, partitions),
        }
    }
}

/// Creates a topic on a real Kafka; records of the gateway's default limit fit in.
pub(crate) fn create_topic(address: &str, name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address).create().expect("an admin client");
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", "4194304");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let results = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(LIMIT))));
    for result in results.expect("Kafka answers") {
        result.unwrap_or_else(|(topic, error)| panic!("Kafka did not create {topic}: {error}"));
    }
}

/// A record as it stands on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub key: Vec<u8>,
    pub headers: BTreeMap<String, String>,
    pub value: Vec<u8>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
}

impl Seen {
    /// A header's text; empty where it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The value as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.value).expect("records are JSON")
    }
}

/// Reads a topic from its beginning, all partitions, in no group.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    /// Offset of the next record of each partition.
    next: BTreeMap<i32, i64>,
    records: Vec<Seen>,
}

impl Topic {
    /// Opens a topic that exists.
    #[must_use]
    pub fn open(address: &str, name: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("group.id", "reader-of-the-tests")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "50")
            .create()
            .expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(name), LIMIT).expect("the broker answers");
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
            .collect();
        assert!(!partitions.is_empty(), "there is no topic {name}");
        let mut assignment = TopicPartitionList::new();
        for partition in &partitions {
            assignment.add_partition_offset(name, *partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&assignment).expect("an assignment");
        let next = partitions.into_iter().map(|partition| (partition, 0)).collect();
        Self { consumer, name: name.to_owned(), next, records: Vec::new() }
    }

    /// The next record, if one comes within `limit`.
    pub fn poll(&mut self, limit: Duration) -> Option<Seen> {
        let message = self.consumer.poll(limit)?.ok()?;
        let mut headers = BTreeMap::new();
        for header in message.headers().iter().flat_map(|headers| headers.iter()) {
            let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
            headers.insert(header.key.to_owned(), value);
        }
        let seen = Seen {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
            headers,
            value: message.payload().unwrap_or_default().to_vec(),
            timestamp: message.timestamp().to_millis().unwrap_or_default(),
        };
        self.next.insert(seen.partition, seen.offset + 1);
        self.records.push(seen.clone());
        Some(seen)
    }

    /// Reads up to the present end; returns all records since the beginning, those of a partition in their order.
    pub fn read_to_end(&mut self) -> &[Seen] {
        let start = Instant::now();
        let ends: Vec<(i32, i64)> = self
            .next
            .keys()
            .map(|partition| {
                // Right after its creation, and after the death of its leader, nobody leads a partition yet.
                let (_, end) = wait_until("the end of a partition", LIMIT, || {
                    self.consumer.fetch_watermarks(&self.name, *partition, LIMIT)
                });
                (*partition, end)
            })
            .collect();
        while ends.iter().any(|(partition, end)| self.next[partition] < *end) {
            assert!(start.elapsed() < LIMIT, "{} was not read to {ends:?}, only to {:?}", self.name, self.next);
            self.poll(Duration::from_millis(100));
        }
        &self.records
    }

    /// Reads until a record meets the condition, and returns it.
    pub fn find(&mut self, what: &str, limit: Duration, is_it: impl Fn(&Seen) -> bool) -> Seen {
        let start = Instant::now();
        let mut looked_at = 0;
        loop {
            if let Some(found) = self.records[looked_at..].iter().find(|seen| is_it(seen)) {
                return found.clone();
            }
            looked_at = self.records.len();
            let last = self.records.last();
            assert!(start.elapsed() < limit, "no {what} on {} within {limit:?}, last: {last:?}", self.name);
            self.poll(Duration::from_millis(100));
        }
    }
}

/// Sends records, as services do that answer.
pub struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Sender {
    /// A sender to the broker at `address`.
    #[must_use]
    pub fn new(address: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address).set("linger.ms", "0").set("message.max.bytes", "4194304");
        Self { producer: config.create().expect("a producer") }
    }

    /// Hands a record over without waiting for the broker.
    pub fn send(&self, topic: &str, key: &str, headers: &[(&str, &str)], value: &[u8]) {
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(*value) });
        }
        let record = BaseRecord::to(topic).key(key).headers(owned).payload(value);
        self.producer.send(record).map_err(|(error, _)| error).expect("the producer's queue has room");
    }

    /// Sends a record that says it was made at a moment, in milliseconds since the Unix epoch, and waits for the broker.
    pub fn send_at(&self, topic: &str, key: &str, moment: i64) {
        let record = BaseRecord::to(topic).key(key).payload("{}").timestamp(moment);
        self.producer.send(record).map_err(|(error, _)| error).expect("the producer's queue has room");
        self.flush();
    }

    /// Waits until the broker has all that was sent.
    pub fn flush(&self) {
        self.producer.flush(LIMIT).expect("the broker takes records");
    }

    /// Sends one reply to an order, as a `CloudEvent`, and waits for the broker.
    pub fn reply(&self, topic: &str, order: &str, kind: &str, id: &str) {
        self.reply_with(topic, order, kind, id, "{}");
    }

    /// The same with a body.
    pub fn reply_with(&self, topic: &str, order: &str, kind: &str, id: &str, body: &str) {
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_type", kind),
            ("ce_source", "/service-of-the-tests"),
            ("ce_subject", order),
        ];
        self.send(topic, order, &headers, body.as_bytes());
        self.flush();
    }
}
