//! PROTOCOL P2: a record that fails is never overtaken by a later one of its key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::kafka::{self, Kafka};
use harness::random::unique;
use harness::{Topic, order_of};
use sluice::clock::Timestamp;
use sluice::config::{Config, KafkaConfig};
use sluice::order::{OrderId, Slot};
use sluice::publisher::{Delivery, DeliveryFault, Publisher};
use sluice::record::Record;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{LIMIT, gateway, plain, post, published};

/// Records of one request: small, so that many requests are on their way at once.
const BATCH: &str = "5";
/// What the topic takes, and what one record has beyond it.
const TOPIC_BYTES: &str = "20000";
const TOO_MANY_BYTES: usize = 60_000;

const RECORDS: i64 = 100;
/// In the second of five requests that librdkafka has on their way at once.
const BAD: i64 = 8;

fn record(topic: &str, number: i64) -> Record {
    let bytes = if number == BAD { TOO_MANY_BYTES } else { 10 };
    Record {
        slot: Slot(0),
        number,
        order_id: OrderId::generate(),
        is_outcome: false,
        topic: topic.to_owned(),
        key: Bytes::from_static(b"one key"),
        headers: vec![("ce_id".to_owned(), Bytes::from(number.to_string()))],
        value: Bytes::from(format!("{number}{}", " ".repeat(bytes))),
        timestamp: Timestamp(1_290_000_000_000),
    }
}

fn config() -> KafkaConfig {
    let mut config = sluice::config::load::assemble(None, []).map(|config: Config| config.kafka).unwrap();
    config.producer.insert("batch.num.messages".to_owned(), BATCH.to_owned());
    config
}

fn delivery(deliveries: &mut UnboundedReceiver<Delivery>) -> Delivery {
    let begin = Instant::now();
    loop {
        if let Ok(delivery) = deliveries.try_recv() {
            return delivery;
        }
        assert!(begin.elapsed() < LIMIT, "no delivery report");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All records are handed over while the broker stands still, so that five requests are on their way when the second one
/// is refused. Nobody purges and nobody rebuilds: what keeps the later ones back is `enable.gapless.guarantee` alone.
#[test]
fn a_producer_that_failed_one_record_of_a_key_delivers_no_later_one() {
    let Some(kafka) = kafka::borrow() else { return };
    let topic = unique("gapless");
    kafka.create_topic(&topic, 1, &[("max.message.bytes", TOPIC_BYTES)]);
    let (sender, mut deliveries) = tokio::sync::mpsc::unbounded_channel();
    let publisher = Publisher::connect(&config(), &kafka.address(), sender, Default::default()).unwrap();
    // The producer has its id, and knows the partition.
    publisher.send(&record(&topic, 0)).unwrap();
    assert!(delivery(&mut deliveries).result.is_ok());

    kafka.freeze();
    for number in 1..=RECORDS {
        publisher.send(&record(&topic, number)).unwrap();
    }
    kafka.thaw();
    let reports: Vec<Delivery> = (0..RECORDS).map(|_| delivery(&mut deliveries)).collect();

    let mut acknowledged: Vec<i64> =
        reports.iter().filter(|report| report.result.is_ok()).map(|report| report.number).collect();
    acknowledged.sort_unstable();
    assert!(acknowledged.last().is_none_or(|last| *last < BAD), "overtaken: {acknowledged:?}");
    assert!(acknowledged.iter().copied().eq(1..=acknowledged.len() as i64), "a contiguous prefix: {acknowledged:?}");
    let blamed = reports.iter().filter(|report| matches!(report.result, Err(DeliveryFault::Refused(_)))).count();
    assert_eq!(blamed, 0, "nobody is blamed for a batch of five");
    let on_topic = numbers(&kafka, &topic);
    assert!(on_topic.iter().all(|number| *number < BAD), "on the topic: {on_topic:?}");
}

fn numbers(kafka: &Kafka, topic: &str) -> Vec<i64> {
    let mut topic = Topic::open(&kafka.address(), topic);
    let values = topic.read_to_end().iter().map(|seen| String::from_utf8_lossy(&seen.value).trim().parse().unwrap());
    values.collect()
}

/// The same through the whole gateway: the one is a dead letter with the reason, all others come out in their order.
#[test]
fn an_order_too_large_for_its_topic_is_a_dead_letter_and_nothing_overtakes_it() {
    let Some(kafka) = kafka::borrow() else { return };
    let route = plain("/orders");
    kafka.create_topic(&route.topic, 1, &[("max.message.bytes", TOPIC_BYTES)]);
    let gateway = gateway(&kafka.address(), &route)
        .set("kafka.producer", &format!("{{ \"batch.num.messages\" = {BATCH:?} }}"))
        .announce("refused the record")
        .announce("failed for good")
        .start();
    published(&gateway, "/orders", &post(&gateway, "/orders", &order_of("first")));

    kafka.freeze();
    let mut ids = BTreeMap::new();
    for number in 1..=RECORDS {
        let mut order = order_of(if number % 4 == 0 { "other" } else { "one" });
        if number == BAD {
            order["note"] = "x".repeat(TOO_MANY_BYTES).into();
        }
        ids.insert(number, post(&gateway, "/orders", &order));
    }
    kafka.thaw();

    let bad = ids.remove(&BAD).unwrap();
    let dead = harness::wait_until("a dead letter", LIMIT, || {
        let order = gateway.order(&bad);
        if order["held"]["reason"] == "dead" { Ok(order) } else { Err(order) }
    });
    assert_eq!(dead["status"], "HELD");
    for id in ids.values() {
        published(&gateway, "/orders", id);
    }
    let letters = gateway.admin().get("/dead").json();
    let letter = &letters["dead"].as_array().unwrap()[0];
    assert_eq!((&letter["orderId"], &letter["reason"]), (&bad.as_str().into(), &"refused-by-kafka".into()));
    let detail = letter.to_string();
    assert!(detail.contains("MessageSizeTooLarge") && detail.contains("raise `max.message.bytes`"), "{detail}");

    let mut topic = Topic::open(&kafka.address(), &route.topic);
    let mut by_key: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    for seen in topic.read_to_end() {
        let of_key = by_key.entry(seen.key.clone()).or_default();
        let id = seen.header("ce_subject").to_owned();
        // A record that came twice counts where it came first.
        if !of_key.contains(&id) {
            of_key.push(id);
        }
    }
    for (key, is_it) in [("one", false), ("other", true)] {
        let expected: Vec<&String> =
            ids.iter().filter(|(number, _)| (*number % 4 == 0) == is_it).map(|(_, id)| id).collect();
        assert_eq!(by_key[key.as_bytes()].iter().collect::<Vec<_>>(), expected, "{key}");
    }

    // The operator acts as told, and it goes out as a new record.
    kafka.set_on_topic(&route.topic, "max.message.bytes", "1000000");
    // The broker heeds the change a moment later: until then it is a dead letter again.
    harness::wait_until("the redriven order published", LIMIT, || {
        let order = gateway.order(&bad);
        if order["status"] == "PUBLISHED" {
            return Ok(());
        }
        if order["held"]["reason"] == "dead" {
            let letters = gateway.admin().get("/dead").json();
            if let Some(letter) = letters["dead"].as_array().unwrap().first() {
                let answer = gateway.admin().command(&format!("/dead/{}/redrive", letter["id"]));
                assert!([202, 404, 409].contains(&answer.status), "{}", answer.text());
            }
        }
        Err(order["status"].clone())
    });
    topic.find("redriven record", LIMIT, |seen| seen.header("ce_id").starts_with(&format!("{bad}.r")));
}
