use std::collections::BTreeMap;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::*;
use crate::config::ByteSize;
use crate::config::load::assemble;
use crate::dev::DevBroker;
use crate::order::OrderId;

const TOPIC: &str = "order-replies";
const OTHER: &str = "refund-replies";
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    broker: DevBroker,
    config: KafkaConfig,
    replies: RepliesConfig,
    producer: BaseProducer,
}

impl Bench {
    fn new(topics: &[(&str, i32)]) -> Self {
        let broker = DevBroker::start(&[], 1).unwrap();
        for (topic, partitions) in topics {
            broker.cluster().create_topic(topic, *partitions, 1).unwrap();
        }
        let mut config = KafkaConfig {
            brokers: String::new(),
            group: "sluice".to_owned(),
            message_bytes_max: ByteSize(1 << 20),
            properties: BTreeMap::new(),
            producer: BTreeMap::new(),
            consumer: BTreeMap::new(),
        };
        broker.adapt(&mut config);
        let producer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().unwrap();
        Self { broker, config, replies: assemble(None, []).unwrap().replies, producer }
    }

    fn subscribe(&self, topics: &[&str]) -> Subscriber {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let brokers = self.broker.bootstrap_servers();
        let subscriber = Subscriber::connect(&self.config, &self.replies, brokers, &topics, Arc::default()).unwrap();
        subscriber.join().unwrap();
        subscriber
    }

    fn answer(&self, topic: &str, partition: i32, kind: &str) {
        let order_id = OrderId::generate().to_string();
        let headers = OwnedHeaders::new()
            .insert(Header { key: "ce_type", value: Some(kind) })
            .insert(Header { key: "ce_subject", value: Some(&order_id) });
        let record = BaseRecord::to(topic).partition(partition).key("k").payload("{}").headers(headers);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(PATIENCE).unwrap();
    }
}

/// Reads until every wanted position is reached; gives the kinds read.
async fn read_up_to(subscriber: &Subscriber, wanted: &[Position]) -> Vec<String> {
    let mut kinds = Vec::new();
    let mut reached: BTreeMap<(String, i32), i64> = BTreeMap::new();
    let is_done = |reached: &BTreeMap<(String, i32), i64>| {
        wanted.iter().all(|w| reached.get(&(w.topic.clone(), w.partition)).is_some_and(|found| *found >= w.next_offset))
    };
    while !is_done(&reached) {
        let batch = tokio::time::timeout(PATIENCE, subscriber.next_batch(3)).await;
        let batch = batch.unwrap_or_else(|_| panic!("only reached {reached:?}"));
        assert!(batch.replies.len() <= 3);
        kinds.extend(batch.replies.into_iter().map(|reply| reply.unwrap().kind));
        for position in batch.positions {
            reached.insert((position.topic, position.partition), position.next_offset);
        }
    }
    assert!(wanted.iter().all(|w| reached[&(w.topic.clone(), w.partition)] == w.next_offset), "{reached:?}");
    kinds
}

fn position(topic: &str, partition: i32, next_offset: i64) -> Position {
    Position { topic: topic.to_owned(), partition, next_offset }
}

#[tokio::test]
async fn reading_resumes_where_it_was_committed() {
    let bench = Bench::new(&[(TOPIC, 1)]);
    for number in 0..10 {
        bench.answer(TOPIC, 0, &format!("first {number}"));
    }
    let subscriber = bench.subscribe(&[TOPIC]);
    let kinds = read_up_to(&subscriber, &[position(TOPIC, 0, 10)]).await;
    assert_eq!(kinds, (0..10).map(|number| format!("first {number}")).collect::<Vec<_>>());
    subscriber.commit(&[position(TOPIC, 0, 8)]).unwrap();
    subscriber.close().await;

    let subscriber = bench.subscribe(&[TOPIC]);
    assert_eq!(read_up_to(&subscriber, &[position(TOPIC, 0, 10)]).await, ["first 8", "first 9"]);
    subscriber.commit(&[position(TOPIC, 0, 10)]).unwrap();
    subscriber.close().await;

    let subscriber = bench.subscribe(&[TOPIC]);
    assert_eq!(read_up_to(&subscriber, &[position(TOPIC, 0, 10)]).await, <[&str; 0]>::default());
    bench.answer(TOPIC, 0, "later");
    assert_eq!(read_up_to(&subscriber, &[position(TOPIC, 0, 11)]).await, ["later"]);
    subscriber.close().await;
}

#[tokio::test]
async fn the_ends_of_partitions_count_also_where_nothing_is() {
    let bench = Bench::new(&[(TOPIC, 2), (OTHER, 1)]);
    bench.answer(TOPIC, 1, "one");
    let subscriber = bench.subscribe(&[TOPIC, OTHER]);
    let all = [position(TOPIC, 0, 0), position(TOPIC, 1, 1), position(OTHER, 0, 0)];
    assert_eq!(read_up_to(&subscriber, &all).await, ["one"]);
    bench.answer(OTHER, 0, "two");
    assert_eq!(read_up_to(&subscriber, &[position(OTHER, 0, 1)]).await, ["two"]);
    subscriber.close().await;
}

#[tokio::test]
async fn ends_are_those_of_every_partition() {
    let bench = Bench::new(&[(TOPIC, 3), (OTHER, 1)]);
    for (topic, partition) in [(TOPIC, 0), (TOPIC, 2), (TOPIC, 2), (OTHER, 0)] {
        bench.answer(topic, partition, "x");
    }
    let subscriber = bench.subscribe(&[TOPIC]);
    let mut ends = subscriber.ends(&[TOPIC.to_owned(), OTHER.to_owned()], PATIENCE).await.unwrap();
    ends.sort();
    let expected = [position(TOPIC, 0, 1), position(TOPIC, 1, 0), position(TOPIC, 2, 2), position(OTHER, 0, 1)];
    assert_eq!(ends, expected);

    bench.broker.set_reachable(false).unwrap();
    let cut_off = subscriber.ends(&[TOPIC.to_owned()], Duration::from_millis(300)).await;
    assert!(matches!(cut_off, Err(SubscribeError::Ends(_))), "{cut_off:?}");
}

#[tokio::test]
async fn an_outage_does_not_end_the_reading() {
    let bench = Bench::new(&[(TOPIC, 1)]);
    bench.answer(TOPIC, 0, "before");
    let subscriber = bench.subscribe(&[TOPIC]);
    assert_eq!(read_up_to(&subscriber, &[position(TOPIC, 0, 1)]).await, ["before"]);
    bench.broker.set_reachable(false).unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(500), async {
        loop {
            let batch = subscriber.next_batch(10).await;
            assert!(batch.replies.is_empty());
        }
    });
    assert!(quiet.await.is_err());
    bench.broker.set_reachable(true).unwrap();
    bench.answer(TOPIC, 0, "after");
    assert_eq!(read_up_to(&subscriber, &[position(TOPIC, 0, 2)]).await, ["after"]);
    subscriber.close().await;
}

/// What moves while it is being read is read again at most: nothing is left out, on nobody's account.
#[tokio::test]
async fn members_share_the_partitions_and_take_over_those_of_one_that_leaves() {
    const PARTITIONS: i32 = 4;
    let bench = Bench::new(&[(TOPIC, PARTITIONS)]);
    let (one, two) = (bench.subscribe(&[TOPIC]), bench.subscribe(&[TOPIC]));
    let mut readers = vec![(one, BTreeSet::new()), (two, BTreeSet::new())];
    let (mut sent, mut seen) = (0, BTreeSet::new());
    // Both have partitions of their own once each has read what the other has not.
    while readers.iter().any(|(_, read)| read.is_empty()) {
        for partition in 0..PARTITIONS {
            bench.answer(TOPIC, partition, &format!("reply {sent}"));
            sent += 1;
        }
        read_round(&mut readers, &mut seen, sent).await;
    }
    let (leaving, _) = readers.remove(0);
    leaving.close().await;
    for partition in 0..PARTITIONS {
        bench.answer(TOPIC, partition, &format!("reply {sent}"));
        sent += 1;
    }
    read_round(&mut readers, &mut seen, sent).await;
    for (subscriber, _) in readers {
        subscriber.close().await;
    }
}

/// Has all read until every reply was seen, and commit what they read.
async fn read_round(readers: &mut [(Subscriber, BTreeSet<i32>)], seen: &mut BTreeSet<String>, sent: usize) {
    let reading = async {
        while seen.len() < sent {
            for (subscriber, partitions) in readers.iter_mut() {
                let Ok(batch) = tokio::time::timeout(Duration::from_millis(20), subscriber.next_batch(100)).await
                else {
                    continue;
                };
                for reply in batch.replies {
                    let reply = reply.unwrap();
                    partitions.insert(reply.place.partition);
                    seen.insert(reply.kind);
                }
                subscriber.commit(&batch.positions).unwrap();
            }
        }
    };
    let is_done = tokio::time::timeout(PATIENCE, reading).await.is_ok();
    assert!(is_done, "{sent} replies were sent, {} are read", seen.len());
}

#[test]
fn a_member_has_a_name_only_where_one_is_given_and_the_times_fit_each_other() {
    let mut bench = Bench::new(&[]);
    let settings = |bench: &Bench| settings::consumer(&bench.config, &bench.replies, "localhost:1").unwrap();
    assert_eq!(settings(&bench).get("group.instance.id"), None);
    bench.replies.member = "node-a".to_owned();
    bench.replies.session_timeout = crate::config::Span(Duration::from_secs(120));
    let settings = settings(&bench);
    assert_eq!(settings.get("group.instance.id"), Some("node-a"));
    // librdkafka refuses a shorter one.
    assert_eq!(settings.get("max.poll.interval.ms"), settings.get("session.timeout.ms"));
}

#[tokio::test]
async fn settings_that_carry_a_promise_cannot_be_overridden() {
    let mut bench = Bench::new(&[]);
    bench.config.consumer.insert("enable.auto.commit".to_owned(), "true".to_owned());
    let refused = Subscriber::connect(&bench.config, &bench.replies, "localhost:1", &[], Arc::default()).err().unwrap();
    assert_eq!(refused.to_string(), "`kafka.consumer.enable.auto.commit` cannot be set: replies would be lost");
}
