//! What services downstream find on Kafka.

use std::time::Duration;

use harness::orders::REFUSED;
use harness::random::unique;
use harness::{Topic, order_of, shared};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_record_is_a_cloudevent_with_the_enriched_order() {
    let gateway = shared();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let id = gateway.post_order_with(&order_of("17850"), &[("traceparent", &traceparent)]).accepted().id;
    let order = gateway.settled(&id);
    let mut topic = Topic::open(&gateway.broker_address(), &gateway.topic("orders"));
    let record = topic.find("record of the order", LIMIT, |seen| seen.header("ce_subject") == id);
    assert_eq!(record.key, b"17850");
    assert_eq!(record.json(), order["order"]);
    for (name, value) in [("ce_specversion", "1.0"), ("ce_type", "OrderCreated"), ("content-type", "application/json")]
    {
        assert_eq!(record.header(name), value, "{name}");
    }
    for name in ["ce_id", "ce_source", "ce_time"] {
        assert!(!record.header(name).is_empty(), "{name}");
    }
    assert_eq!(record.header("traceparent").split('-').nth(1), Some(trace));
    let published = gateway.timeline(&id).into_iter().find(|entry| entry["kind"] == "published").unwrap();
    assert_eq!((&published["partition"], &published["offset"]), (&record.partition.into(), &record.offset.into()));
}

#[test]
fn each_final_state_of_a_published_order_makes_one_outcome_record() {
    let gateway = shared();
    let validated = gateway.post_order(&order_of(&unique("c"))).id;
    let refused = gateway.post_order(&order_of(REFUSED)).id;
    let unpublished = gateway.post_order(&order_of("")).id;
    let mut topic = Topic::open(&gateway.broker_address(), &gateway.topic("order-outcomes"));
    for (id, status, kind) in [(&validated, "VALIDATED", "OrderValidated"), (&refused, "REJECTED", "OrderRejected")] {
        assert_eq!(gateway.settled(id)["status"], status);
        let record = topic.find(kind, LIMIT, |seen| seen.header("ce_subject") == id);
        assert_eq!((record.header("ce_type"), &record.json()["status"]), (kind, &status.into()));
        assert_eq!(record.json()["orderId"], id.as_str());
    }
    assert_eq!(gateway.settled(&unpublished)["status"], "REJECTED");
    let records = topic.read_to_end();
    let count = |id: &str| records.iter().filter(|seen| seen.header("ce_subject") == id).count();
    assert_eq!((count(&validated), count(&refused), count(&unpublished)), (1, 1, 0));
}

#[test]
fn an_order_that_a_plugin_refused_is_never_published() {
    let gateway = shared();
    let refused = gateway.post_order(&order_of("")).id;
    assert_eq!(gateway.settled(&refused)["status"], "REJECTED");
    let later = gateway.post_order(&order_of(&unique("c"))).id;
    assert_eq!(gateway.settled(&later)["status"], "VALIDATED");
    let mut topic = Topic::open(&gateway.broker_address(), &gateway.topic("orders"));
    assert!(topic.read_to_end().iter().all(|seen| seen.header("ce_subject") != refused));
}

#[test]
fn records_of_a_key_come_in_the_order_of_acceptance() {
    let (gateway, customer) = (shared(), unique("ordered"));
    let lines: Vec<String> = (0..200).map(|_| order_of(&customer).to_string()).collect();
    let results = gateway.post_batch(&lines, &[]);
    let mut ids: Vec<String> = results.iter().map(|line| line["order"]["id"].as_str().unwrap().to_owned()).collect();
    ids.extend((0..20).map(|_| gateway.post_order(&order_of(&customer)).id));
    assert_eq!(gateway.settled(ids.last().unwrap())["status"], "VALIDATED");
    let mut topic = Topic::open(&gateway.broker_address(), &gateway.topic("orders"));
    let records = topic.read_to_end().iter().filter(|seen| seen.key == customer.as_bytes());
    let on_topic: Vec<&str> = records.map(|seen| seen.header("ce_subject")).collect();
    assert_eq!(on_topic, ids);
}

/// An order without a customer has its own id as key, so that nothing stands behind it.
#[test]
fn without_an_order_key_the_order_id_is_the_key() {
    let gateway =
        harness::TestGateway::with().route(harness::Route { key: "/group".to_owned(), ..Default::default() }).start();
    let id = gateway.post_order(&order_of("someone")).id;
    let mut null = order_of("someone");
    null["group"] = serde_json::Value::Null;
    let second = gateway.post_order(&null).id;
    let mut topic = Topic::open(&gateway.broker_address(), &gateway.topic("orders"));
    for id in [id, second] {
        assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
        assert_eq!(topic.find("record", LIMIT, |seen| seen.header("ce_subject") == id).key, id.as_bytes());
    }
}
