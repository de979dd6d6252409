//! A real Apache Kafka that goes away, hangs, refuses and forgets: what the gateway does meanwhile and what it says.
//!
//! The broker belongs to these tests, which borrow it one at a time (`harness::kafka`); without the jars of one they are
//! skipped, loudly.

mod clients;
mod leader;
mod member;
mod order;
mod outage;
mod refusal;
#[cfg(feature = "kafka-tls")]
mod security;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::gateway::Builder;
use harness::random::unique;
use harness::{Route, TestGateway, Topic, wait_until};
use serde_json::Value;

/// Longest for anything here: a broker starts in it, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(120);

/// Ids by order key, in the order of acceptance.
type Accepted = BTreeMap<String, Vec<String>>;

/// Everything that was accepted is on the topic, each key in its order; a record that came twice is the same record.
fn came_in_order(address: &str, topic: &str, accepted: &Accepted) {
    let mut topic = Topic::open(address, topic);
    let mut came: Accepted = BTreeMap::new();
    let mut records = BTreeMap::new();
    for seen in topic.read_to_end() {
        let id = seen.header("ce_subject").to_owned();
        let record = (seen.key.clone(), seen.headers.clone(), seen.value.clone(), seen.timestamp);
        match records.get(&id) {
            Some(first) => assert_eq!(first, &record, "the same record again"),
            None => {
                records.insert(id.clone(), record);
                came.entry(String::from_utf8(seen.key.clone()).unwrap()).or_default().push(id);
            }
        }
    }
    assert_eq!(&came, accepted);
}

/// A route whose orders are done when they are on Kafka.
fn plain(path: &str) -> Route {
    Route {
        path: path.to_owned(),
        topic: unique("orders"),
        plugins: Vec::new(),
        outcomes: None,
        replies: None,
        ..Default::default()
    }
}

/// `sluice run` on a broker, with one such route.
fn gateway(address: &str, route: &Route) -> Builder {
    TestGateway::with().broker(address).route(route.clone())
}

/// How a part stands on `/readyz`; the node must be ready.
fn part(gateway: &TestGateway, name: &str) -> (String, String) {
    let answer = gateway.admin().get("/readyz");
    assert_eq!(answer.status, 200, "Kafka never makes a node unready: {}", answer.text());
    let parts = answer.json()["parts"].as_array().unwrap().clone();
    let part = parts.into_iter().find(|part| part["part"] == name).unwrap_or(Value::Null);
    let text = |member: &str| part[member].as_str().unwrap_or_default().to_owned();
    (text("condition"), text("detail"))
}

/// Waits until a part is degraded and says one of some words; returns what it says.
fn degraded(gateway: &TestGateway, name: &str, words: &[&str]) -> String {
    wait_until(&format!("part {name} degraded with one of {words:?}"), LIMIT, || {
        let (condition, detail) = part(gateway, name);
        let is_it = condition == "degraded" && words.iter().any(|word| detail.contains(word));
        if is_it { Ok(detail) } else { Err((condition, detail)) }
    })
}

fn ready_again(gateway: &TestGateway, name: &str) {
    wait_until(&format!("part {name} ready"), LIMIT, || {
        let (condition, detail) = part(gateway, name);
        if condition == "ready" { Ok(()) } else { Err((condition, detail)) }
    });
}

/// Posts one order to a path; returns its id.
fn post(gateway: &TestGateway, path: &str, order: &Value) -> String {
    let answer = gateway.post_with(path, &[("content-type", "application/json")], order.to_string().as_bytes());
    answer.accepted().id
}

/// Waits until an order of a path is published.
fn published(gateway: &TestGateway, path: &str, id: &str) -> Value {
    wait_until(&format!("{path}/{id} published"), LIMIT, || {
        let order = gateway.get(&format!("{path}/{id}")).json();
        if order["status"] == "PUBLISHED" { Ok(order) } else { Err(order) }
    })
}
