//! Services that use no library of ours: kcat, and kafka-python. They read records, and what they answer counts.

use std::fs;
use std::process::{Command, Stdio};

use harness::environment::{self, say};
use harness::kafka::{self, Kafka};
use harness::random::unique;
use harness::{Route, TestGateway, Topic, order_of};
use serde_json::Value;

use super::{LIMIT, gateway, post};

const CUSTOMER: &str = "Käthe & Söhne, 北京";

fn started(kafka: &Kafka) -> (TestGateway, Route) {
    let route = Route { topic: unique("orders"), replies: Some(unique("replies")), outcomes: None, ..Route::default() };
    kafka.create_topic(&route.topic, 3, &[]);
    kafka.create_topic(route.replies.as_ref().unwrap(), 3, &[]);
    (gateway(&kafka.address(), &route).start(), route)
}

fn kcat() -> Option<&'static str> {
    let is_there = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if is_there.is_ok_and(|status| status.success()) {
        return Some("kcat");
    }
    say("SKIPPED: kcat is not installed (Debian's `kafkacat`)");
    None
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn kcat_reads_records_and_its_replies_count() {
    let Some(kafka) = kafka::borrow() else { return };
    let Some(kcat) = kcat() else { return };
    let (gateway, route) = started(&kafka);
    let id = post(&gateway, "/orders", &order_of(CUSTOMER));
    let ours =
        Topic::open(&kafka.address(), &route.topic).find("record", LIMIT, |seen| seen.header("ce_subject") == id);

    let read = output(Command::new(kcat).args(["-C", "-q", "-e", "-J", "-o", "beginning", "-b"]).args([
        &kafka.address(),
        "-t",
        &route.topic,
    ]));
    let records: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [record] = &records[..] else { panic!("one record: {read}") };
    assert_eq!(record["key"], CUSTOMER);
    assert_eq!(record["payload"].as_str().unwrap().as_bytes(), ours.value);
    assert_eq!((&record["partition"], &record["offset"]), (&ours.partition.into(), &ours.offset.into()));
    // A list in which name and value take turns.
    let headers: Vec<&str> = record["headers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let header = |name: &str| headers.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    for name in ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject", "traceparent"] {
        assert_eq!(header(name), Some(ours.header(name)), "{name} in {headers:?}");
    }
    assert_eq!((header("ce_subject"), header("ce_type")), (Some(id.as_str()), Some("OrderCreated")));

    let body = gateway.folder().join("reply.json");
    fs::write(&body, "{}").unwrap();
    for kind in ["ConsumerValidated", "OrderDetailsValidated"] {
        let (subject, id, kind) = (format!("ce_subject={id}"), format!("ce_id={id}-{kind}"), format!("ce_type={kind}"));
        let mut send = Command::new(kcat);
        send.args(["-P", "-b", &kafka.address(), "-t", route.replies.as_ref().unwrap(), "-k", CUSTOMER]);
        for header in ["ce_specversion=1.0", "ce_source=/kcat", &subject, &id, &kind] {
            send.args(["-H", header]);
        }
        output(send.arg(&body));
    }
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    let timeline = gateway.timeline(&id);
    let from: Vec<&Value> =
        timeline.iter().filter(|entry| entry["kind"] == "reply").map(|entry| &entry["from"]).collect();
    assert!(from.len() == 2 && from.iter().all(|from| **from == "/kcat"), "{timeline:?}");
}

/// A consumer group of kafka-python reads every record; its service says yes to some and no to others, once as a `CloudEvent` and
/// once in the plainest form there is: a header with the order's id and the type in the JSON.
#[test]
fn a_service_written_with_kafka_python_takes_part() {
    let Some(kafka) = kafka::borrow() else { return };
    let Some(python) = environment::python() else {
        return say("SKIPPED: SLUICE_TEST_PYTHON names no Python with kafka-python");
    };
    let (gateway, route) = started(&kafka);
    let customers: Vec<String> =
        (0..12).map(|i| if i % 4 == 0 { format!("refuse {i}") } else { unique("c") }).collect();
    let ids: Vec<String> = customers.iter().map(|customer| post(&gateway, "/orders", &order_of(customer))).collect();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/it/kafka/service.py");
    let replies = route.replies.as_ref().unwrap();
    let count = ids.len().to_string();
    let seen = output(Command::new(python).args([script, &kafka.address(), &route.topic, replies, &count]));
    let seen: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(seen.len(), ids.len());

    let mut topic = Topic::open(&kafka.address(), &route.topic);
    let ours = topic.read_to_end().to_vec();
    for theirs in &seen {
        let ours =
            ours.iter().find(|seen| seen.header("ce_id") == theirs["headers"]["ce_id"]).expect("a record of ours");
        assert_eq!(theirs["key"].as_str().unwrap().as_bytes(), ours.key);
        assert_eq!(theirs["value"].as_str().unwrap().as_bytes(), ours.value, "byte for byte");
        assert_eq!(theirs["timestamp"], ours.timestamp);
        let headers: std::collections::BTreeMap<String, String> =
            serde_json::from_value(theirs["headers"].clone()).unwrap();
        assert_eq!(headers, ours.headers);
    }
    for (customer, id) in customers.iter().zip(&ids) {
        let order = gateway.settled(id);
        let expected = if customer.starts_with("refuse") { "REJECTED" } else { "VALIDATED" };
        assert_eq!(order["status"], expected, "{order}");
        if expected == "REJECTED" {
            assert_eq!(order["problems"][0]["code"], "not-today", "{order}");
        }
    }
}
