use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{RouteReplies, Span};
use crate::order::OrderId;

const PATIENCE: Duration = Duration::from_secs(30);

fn route() -> RouteConfig {
    let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
    RouteConfig {
        path: "/orders".to_owned(),
        topic: Some("orders".to_owned()),
        key: "/customerId".to_owned(),
        plugins: Vec::new(),
        event_type: "OrderCreated".to_owned(),
        outcomes: Some("order-outcomes".to_owned()),
        replies: Some(RouteReplies {
            topic: "order-replies".to_owned(),
            all_of: words(["ConsumerValidated", "OrderDetailsValidated"]),
            any_of_rejects: words(["ConsumerRejected", "OrderDetailsRejected"]),
            deadline: Span(Duration::from_secs(30)),
        }),
        records: Vec::new(),
    }
}

fn order(producer: &BaseProducer, record_id: &str, order_id: &str, customer: &str) {
    let mut headers = OwnedHeaders::new();
    for (key, value) in [("ce_id", record_id), ("ce_type", "OrderCreated"), ("ce_subject", order_id)] {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let body = format!(r#"{{"customerId":"{customer}"}}"#);
    let record = BaseRecord::to("orders").key(customer).payload(&body).headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_services_answer_refuse_and_ignore() {
    let tasks = Tasks::new(CancellationToken::new());
    let broker = DevBroker::start(&[route()], 2).unwrap();
    for service in services::Service::of_routes(&[route()]) {
        service.start(broker.bootstrap_servers(), Duration::from_millis(50), &tasks).unwrap();
    }
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().unwrap();
    let [ignored, refused, good] = [(); 3].map(|()| OrderId::generate().to_string());
    order(&producer, "1", &ignored, "ignore-me");
    order(&producer, "2", &refused, "refuse-me");
    order(&producer, "3", &good, "17850");
    order(&producer, "3", &good, "17850");

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..2 {
        all.add_partition_offset("order-replies", partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut answers = BTreeSet::new();
    let mut read = |patience| -> bool {
        let Some(message) = consumer.poll(patience) else { return false };
        let message = message.unwrap();
        let headers = message.headers().unwrap();
        let header = |name| {
            let header = headers.iter().find(|header| header.key == name).unwrap();
            std::str::from_utf8(header.value.unwrap()).unwrap().to_owned()
        };
        let problems = std::str::from_utf8(message.payload().unwrap()).unwrap().contains("problems");
        answers.insert((header("ce_subject"), header("ce_type"), header("ce_source"), header("ce_id"), problems))
    };
    for _ in 0..4 {
        assert!(read(PATIENCE), "an answer of its own");
    }
    assert!(!read(Duration::from_millis(300)), "four answers in all");
    let answer = |order: &str, kind: &str, service: &str, problems| {
        (order.to_owned(), kind.to_owned(), format!("/services/{service}"), format!("{order}/{kind}"), problems)
    };
    let expected = BTreeSet::from([
        answer(&refused, "ConsumerRejected", "consumer-service", true),
        answer(&refused, "OrderDetailsValidated", "order-service", false),
        answer(&good, "ConsumerValidated", "consumer-service", false),
        answer(&good, "OrderDetailsValidated", "order-service", false),
    ]);
    assert_eq!(answers, expected);
    assert!(tasks.stop("services", PATIENCE).await);
}

#[test]
fn each_topic_is_made_once() {
    assert_eq!(topics(&[route(), route()]), ["order-outcomes", "order-replies", "orders"]);
}
