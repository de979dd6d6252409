use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::clock::Timestamp;
use crate::config::ByteSize;
use crate::order::OrderId;

const TOPIC: &str = "orders";
const PATIENCE: Duration = Duration::from_secs(30);
const TOO_LARGE: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

struct Bench {
    cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    publisher: Publisher,
    deliveries: UnboundedReceiver<Delivery>,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new(partitions: i32, producer: &[(&str, &str)]) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, partitions, 1).unwrap();
        let (sender, deliveries) = unbounded_channel();
        let metrics = Arc::new(Metrics::new());
        let config = config(producer);
        let publisher = Publisher::connect(&config, &cluster.bootstrap_servers(), sender, metrics.clone()).unwrap();
        Self { cluster, publisher, deliveries, metrics }
    }

    async fn delivery(&mut self) -> Delivery {
        tokio::time::timeout(PATIENCE, self.deliveries.recv()).await.expect("a delivery report in time").unwrap()
    }

    /// Reports of everything sent, in the order they came.
    async fn deliveries(&mut self, count: usize) -> Vec<Delivery> {
        let mut reports = Vec::new();
        while reports.len() < count {
            reports.push(self.delivery().await);
        }
        reports
    }

    fn send_all(&self, numbers: impl IntoIterator<Item = i64>) {
        for number in numbers {
            self.publisher.send(&record(7, number, "one key", 10)).unwrap();
        }
    }

    /// Everything on the topic, each partition in its order: (key, value).
    fn read_topic(&self, partitions: i32) -> Vec<(Vec<u8>, i64)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "reader")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
        let (mut records, mut ended) = (Vec::new(), HashSet::new());
        while ended.len() < usize::try_from(partitions).unwrap() {
            match consumer.poll(PATIENCE).expect("an answer in time") {
                Ok(message) => {
                    let value = std::str::from_utf8(message.payload().unwrap()).unwrap();
                    records.push((message.key().unwrap().to_vec(), value.trim_end().parse().unwrap()));
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    ended.insert(partition);
                }
                Err(error) => panic!("{error}"),
            }
        }
        records
    }
}

fn config(producer: &[(&str, &str)]) -> KafkaConfig {
    KafkaConfig {
        brokers: String::new(),
        group: "sluice".to_owned(),
        message_bytes_max: ByteSize(2 << 20),
        properties: BTreeMap::new(),
        producer: producer.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        consumer: BTreeMap::new(),
    }
}

/// A record whose value is its number, filled up with blanks.
fn record(slot: u8, number: i64, key: &str, bytes: usize) -> Record {
    Record {
        slot: Slot(slot),
        number,
        order_id: OrderId::generate(),
        is_outcome: false,
        topic: TOPIC.to_owned(),
        key: Bytes::from(key.to_owned()),
        headers: vec![("ce_id".to_owned(), Bytes::from(number.to_string()))],
        value: Bytes::from(format!("{number}{}", " ".repeat(bytes))),
        timestamp: Timestamp(1_290_000_000_000),
    }
}

fn numbers(reports: &[Delivery], is_wanted: impl Fn(&Delivery) -> bool) -> Vec<i64> {
    reports.iter().filter(|report| is_wanted(report)).map(|report| report.number).collect()
}

#[tokio::test]
async fn a_thousand_records_are_acknowledged_in_the_order_of_their_keys() {
    let mut bench = Bench::new(4, &[]);
    let sent: Vec<Record> =
        (0..1_000).map(|i| record(u8::try_from(i % 64).unwrap(), i / 64 + 1, &format!("key {}", i % 64), 10)).collect();
    for record in &sent {
        bench.publisher.send(record).unwrap();
    }
    let reports = bench.deliveries(sent.len()).await;
    assert!(reports.iter().all(|report| report.generation == 1 && report.result.is_ok()));
    let places: HashSet<_> =
        reports.iter().map(|report| report.result.clone().unwrap()).map(|p| (p.partition, p.offset)).collect();
    assert_eq!(places.len(), sent.len(), "each has a place of its own");
    assert!(bench.publisher.flush(PATIENCE).await);
    assert_eq!(bench.metrics.kafka_in_flight.get(), 0);

    let mut by_key: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
    for (key, number) in bench.read_topic(4) {
        by_key.entry(key).or_default().push(number);
    }
    assert_eq!((by_key.len(), by_key.values().map(Vec::len).sum::<usize>()), (64, 1_000));
    assert!(by_key.values().all(|numbers| numbers.is_sorted()));
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_at_once_and_harms_no_other() {
    let mut bench = Bench::new(1, &[]);
    bench.send_all([1]);
    let refused = bench.publisher.send(&record(7, 2, "one key", 3 << 20)).unwrap_err();
    assert!(matches!(refused, SendError::Refused(_)), "{refused}");
    bench.send_all([3]);
    let reports = bench.deliveries(2).await;
    assert_eq!(numbers(&reports, |report| report.result.is_ok()), [1, 3]);
}

/// P2: one record of a key fails while later ones are in flight.
#[tokio::test]
async fn nothing_overtakes_a_record_that_failed() {
    const LAST: i64 = 100;
    let mut bench = Bench::new(1, &[("batch.num.messages", "10")]);
    bench.send_all([0]);
    bench.deliveries(1).await;
    // Several requests are on their way when the third one is refused.
    bench.cluster.broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &[NO_ERROR, NO_ERROR, TOO_LARGE]);
    bench.send_all(1..=LAST);
    let mut reports = bench.deliveries(20).await;
    while reports.last().unwrap().result.is_ok() {
        reports.push(bench.delivery().await);
    }
    let refused = bench.publisher.send(&record(7, LAST + 1, "one key", 10)).unwrap_err();
    assert!(matches!(refused, SendError::Broken(_)), "{refused}");

    bench.publisher.rebuild().unwrap();
    assert!(bench.publisher.is_careful());
    let missing = usize::try_from(LAST).unwrap() - reports.len();
    reports.extend(bench.deliveries(missing).await);
    let acknowledged = numbers(&reports, |report| report.result.is_ok());
    assert_eq!(acknowledged, (1..=20).collect::<Vec<_>>(), "a contiguous prefix");
    let blamed =
        numbers(&reports, |report| matches!(report.result, Err(DeliveryFault::Refused(_) | DeliveryFault::Stopped(_))));
    assert!(blamed.is_empty(), "nobody is blamed for a batch: {blamed:?}");

    // The careful producer finds the one; a report takes long enough to be waited for.
    bench.cluster.broker_round_trip_time(1, Duration::from_millis(50)).unwrap();
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &[NO_ERROR, NO_ERROR, NO_ERROR, TOO_LARGE]);
    for number in 21..=24 {
        bench.send_all([number]);
        let full = bench.publisher.send(&record(7, number + 1, "one key", 10)).unwrap_err();
        assert_eq!(full, SendError::Full, "one at a time");
        let report = bench.delivery().await;
        assert_eq!((report.generation, report.number), (2, number));
        assert_eq!(report.result.is_ok(), number < 24, "{report:?}");
        assert!(number < 24 || matches!(report.result, Err(DeliveryFault::Refused(_))), "{report:?}");
    }
    bench.publisher.rebuild().unwrap();
    assert!(!bench.publisher.is_careful());

    bench.cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    bench.send_all(25..=LAST);
    let reports = bench.deliveries(76).await;
    assert!(reports.iter().all(|report| report.generation == 3 && report.result.is_ok()));
    let on_topic: Vec<i64> = bench.read_topic(1).into_iter().map(|(_, number)| number).collect();
    let mut seen = HashSet::new();
    let first_seen: Vec<i64> = on_topic.into_iter().filter(|number| seen.insert(*number)).collect();
    let expected: Vec<i64> = (0..=LAST).filter(|number| *number != 24).collect();
    assert_eq!(first_seen, expected);
}

#[tokio::test]
async fn an_outage_delays_and_reports_nothing() {
    let mut bench = Bench::new(1, &[]);
    bench.send_all([0]);
    bench.deliveries(1).await;
    wait_for(|| bench.publisher.link() == Link::Up).await;
    bench.cluster.broker_down(-1).unwrap();
    bench.send_all(1..=200);
    wait_for(|| matches!(bench.publisher.link(), Link::Down(_))).await;
    assert!(!bench.publisher.flush(Duration::from_millis(300)).await);
    bench.cluster.broker_up(-1).unwrap();
    let reports = bench.deliveries(200).await;
    assert_eq!(numbers(&reports, |report| report.result.is_ok()), (1..=200).collect::<Vec<_>>());
    wait_for(|| bench.publisher.link() == Link::Up).await;
    let on_topic: Vec<i64> = bench.read_topic(1).into_iter().map(|(_, number)| number).collect();
    assert_eq!(on_topic, (0..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refusal_by_the_topic_stops_and_blames_no_record() {
    let mut bench = Bench::new(1, &[]);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &[denied]);
    bench.send_all([1]);
    let report = bench.delivery().await;
    assert!(matches!(report.result, Err(DeliveryFault::Stopped(_))), "{report:?}");
    let refused = bench.publisher.send(&record(7, 2, "one key", 10)).unwrap_err();
    assert!(matches!(refused, SendError::Broken(_)), "{refused}");
    bench.publisher.rebuild().unwrap();
    assert!(!bench.publisher.is_careful());
    bench.send_all([1, 2]);
    assert_eq!(numbers(&bench.deliveries(2).await, |report| report.result.is_ok()), [1, 2]);
}

/// Without a right to write anything Kafka gives no producer id; no record is to blame, and no other producer would help.
#[tokio::test]
async fn a_cluster_that_takes_nothing_says_so() {
    let mut bench = Bench::new(1, &[]);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    // The first producer may have its id already, or use a refusal up before it is replaced.
    bench.cluster.request_errors(RDKafkaApiKey::InitProducerId, &[denied; 8]);
    bench.publisher.rebuild().unwrap();
    wait_for(|| bench.publisher.failure().is_some()).await;
    let refused = bench.publisher.send(&record(7, 1, "one key", 10)).unwrap_err();
    assert!(matches!(refused, SendError::Broken(_)), "{refused}");
    let said = bench.publisher.cluster_fault().unwrap();
    assert!(said.contains("Cluster authorization failed") && said.contains("WRITE to its topics"), "{said}");
    bench.cluster.clear_request_errors(RDKafkaApiKey::InitProducerId);
    bench.publisher.rebuild().unwrap();
    assert_eq!((bench.publisher.failure(), bench.publisher.cluster_fault()), (None, None));
    bench.send_all([1]);
    assert!(bench.delivery().await.result.is_ok());
}

#[test]
fn settings_that_carry_a_promise_cannot_be_overridden() {
    for key in ["acks", "enable.idempotence", "message.timeout.ms", "enable.gapless.guarantee", "partitioner"] {
        let (sender, _deliveries) = unbounded_channel();
        let metrics = Arc::new(Metrics::new());
        let refused = Publisher::connect(&config(&[(key, "1")]), "localhost:1", sender, metrics).err().unwrap();
        assert!(refused.to_string().starts_with(&format!("`kafka.producer.{key}` cannot be set: ")), "{refused}");
    }
    let (sender, _deliveries) = unbounded_channel();
    let unknown = config(&[("no.such.setting", "1")]);
    let refused = Publisher::connect(&unknown, "localhost:1", sender, Arc::new(Metrics::new())).err().unwrap();
    let shown = crate::telemetry::chain(&refused).to_string();
    assert!(shown.contains("no.such.setting"), "{shown}");
}

async fn wait_for(is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("it is so in time");
}
