//! A route that sends several records per order: one per service, each with its own topic and its own part of the order.

use std::fs;
use std::time::Duration;

use harness::broker::{Seen, Sender};
use harness::gateway::{Builder, RouteRecord};
use harness::random::unique;
use harness::{Broker, Route, TestGateway, Topic, order_of, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const YES: [&str; 2] = ["ConsumerValidated", "OrderDetailsValidated"];
const NAMES: [&str; 3] = ["stock", "billing", "audit"];

fn record(name: &str, prefix: &str, more: &str) -> RouteRecord {
    RouteRecord { name: name.to_owned(), topic: format!("{prefix}-{name}"), more: more.to_owned() }
}

/// Three records on three topics; the replies are the test's own.
fn route(prefix: &str, billing: &str) -> Route {
    Route {
        records: vec![
            record("stock", prefix, "type = \"StockRequested\"\nfields = [\"/customerId\", \"/lines\", \"/weight\"]"),
            record("billing", prefix, billing),
            record("audit", prefix, ""),
        ],
        replies: Some(format!("{prefix}-replies")),
        outcomes: Some(format!("{prefix}-outcomes")),
        ..Default::default()
    }
}

/// A broker with the topics of a route, and the gateway in front of it.
fn gateway(broker: &Broker, route: &Route) -> Builder {
    let topics = route.records.iter().map(|record| &record.topic);
    for topic in topics.chain(&route.replies).chain(&route.outcomes) {
        broker.create_topic(topic, 4);
    }
    TestGateway::with().broker(broker.address()).route(route.clone())
}

fn records_of(broker: &Broker, topic: &str, id: &str) -> Vec<Seen> {
    let mut topic = Topic::open(broker.address(), topic);
    topic.read_to_end().iter().filter(|seen| seen.header("ce_subject") == id).cloned().collect()
}

/// Topics in the order of the timeline's `published` entries.
fn published_on(gateway: &TestGateway, id: &str) -> Vec<String> {
    let published = gateway.timeline(id).into_iter().filter(|entry| entry["kind"] == "published");
    published.map(|entry| entry["topic"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_service_gets_its_own_part_of_the_order_byte_for_byte() {
    let (broker, prefix) = (Broker::start(), unique("several"));
    let billing =
        "fields = { account = \"/customerId\", first = \"/lines/0/unitPrice\", net = \"/totals/net\", vat = \"/vat\" }";
    let route = route(&prefix, billing);
    let gateway = gateway(&broker, &route).start();
    let posted = r#"{ "customerId":"17850","weight" : 1.500e0, "currency":"GBP","lines":[ {"stockCode":"85123A","quantity":6,"unitPrice":"2.55","n":12345678901234567890} ]}"#;
    let answer = gateway.post_with("/orders", &[("content-type", "application/json")], posted.as_bytes());
    let id = answer.accepted().id;
    // A plugin that takes long makes versions of its own; the storage suite counts them.
    drop(gateway.order_in(&id, &["PUBLISHED"]));
    let topics: Vec<String> = NAMES.iter().map(|name| format!("{prefix}-{name}")).collect();
    assert_eq!(published_on(&gateway, &id), topics);

    let stock = r#"{"customerId":"17850","weight" : 1.500e0,"lines":[ {"stockCode":"85123A","quantity":6,"unitPrice":"2.55","n":12345678901234567890} ]}"#;
    let billing = r#"{"account":"17850","first":"2.55","net":"15.30"}"#;
    for (name, kind, value) in [
        ("stock", "StockRequested", Some(stock)),
        ("billing", "OrderCreated", Some(billing)),
        ("audit", "OrderCreated", None),
    ] {
        let records = records_of(&broker, &format!("{prefix}-{name}"), &id);
        let [record] = &records[..] else { panic!("{name}: {records:?}") };
        assert_eq!((record.header("ce_id"), record.header("ce_type")), (&*format!("{id}/{name}"), kind));
        assert_eq!((&record.key[..], record.header("ce_source")), (&b"17850"[..], "/orders"));
        assert!(record.header("sluice-plugins").contains("order-rules@"), "{record:?}");
        match value {
            Some(value) => assert_eq!(String::from_utf8_lossy(&record.value), value),
            None => assert_eq!(record.json(), gateway.order(&id)["order"], "the whole order, as enriched"),
        }
    }

    let sender = Sender::new(broker.address());
    for kind in YES {
        sender.reply(&format!("{prefix}-replies"), &id, kind, &unique("r"));
    }
    let order = gateway.settled(&id);
    assert_eq!(order["status"], "VALIDATED");
    let mut outcomes = Topic::open(broker.address(), &format!("{prefix}-outcomes"));
    let outcome = outcomes.find("outcome", LIMIT, |seen| seen.header("ce_subject") == id);
    assert_eq!(outcome.header("ce_type"), "OrderValidated");
    let count = outcomes.read_to_end().iter().filter(|seen| seen.header("ce_subject") == id).count();
    assert_eq!(count, 1, "one per order, not per record");
}

/// One of the topics takes nothing; meanwhile the process is killed, too. What went out before is not sent again and nothing
/// overtakes.
#[test]
fn an_order_is_published_when_the_last_topic_has_its_record() {
    let (broker, prefix) = (Broker::start(), unique("stopped"));
    let mut route = route(&prefix, "");
    route.replies = None;
    let gateway = gateway(&broker, &route).announce("takes no records for topic").announce("failed for good").start();
    let billing = format!("{prefix}-billing");
    if !broker.set_forbidden(&billing, true) {
        harness::environment::say("SKIPPED: a real broker's topics have rights of their own");
        return;
    }
    let customer = unique("c");
    let ids = [(); 2].map(|()| gateway.post_order(&order_of(&customer)).id);
    let readyz = || gateway.admin().get("/readyz").text();
    wait_until("the refused topic on /readyz", LIMIT, || {
        let said = readyz();
        if said.contains(&billing) { Ok(()) } else { Err(said) }
    });
    wait_until("the first record of the first order", LIMIT, || {
        let topics = published_on(&gateway, &ids[0]);
        if topics == [format!("{prefix}-stock")] { Ok(()) } else { Err(topics) }
    });
    // Until it was noted it may have gone out more than once.
    let noted = records_of(&broker, &format!("{prefix}-stock"), &ids[0]).len();
    gateway.kill9();
    gateway.start_again();
    assert_eq!(gateway.order(&ids[0])["status"], "PENDING", "stock has it, billing has not");
    assert_eq!(gateway.order(&ids[1])["status"], "PENDING");

    assert!(broker.set_forbidden(&billing, false));
    for id in &ids {
        let order = gateway.order_in(id, &["PUBLISHED"]);
        assert_eq!(order["final"], true);
        assert_eq!(published_on(&gateway, id), NAMES.map(|name| format!("{prefix}-{name}")));
    }
    for name in NAMES {
        let mut topic = Topic::open(broker.address(), &format!("{prefix}-{name}"));
        let mut seen: Vec<&str> = topic.read_to_end().iter().map(|seen| seen.header("ce_subject")).collect();
        let mut first = Vec::new();
        seen.retain(|id| {
            !first.contains(id) && {
                first.push(id.to_owned());
                true
            }
        });
        assert_eq!(seen, [&*ids[0], &*ids[1]], "{name}");
    }
    let stock = records_of(&broker, &format!("{prefix}-stock"), &ids[0]);
    assert_eq!(stock.len(), noted, "what is noted is not sent again");
}

/// One record is too large for Kafka: a dead letter. When it fits, the redrive sends all, under the ids that they had.
#[test]
fn a_record_too_large_is_a_dead_letter_and_its_redrive_sends_the_same_ids() {
    let (broker, prefix) = (Broker::start(), unique("large"));
    let mut route = route(&prefix, "fields = { a = \"\", b = \"\", c = \"\" }");
    route.replies = None;
    let gateway = gateway(&broker, &route)
        .text("http.body_bytes_max", "64KiB")
        .text("plugins.patch_bytes_max", "1KiB")
        .text("kafka.message_bytes_max", "100KiB")
        .announce("refused the record")
        .announce("too large")
        .start();
    let customer = unique("c");
    let mut large = order_of(&customer);
    large["note"] = "x".repeat(50 << 10).into();
    let id = gateway.post_order(&large).id;
    let behind = gateway.post_order(&order_of(&customer)).id;
    let dead = wait_until("a dead order", LIMIT, || {
        let order = gateway.order(&id);
        if order["held"]["reason"] == "dead" { Ok(order) } else { Err(order) }
    });
    assert!(dead["held"]["detail"].as_str().is_some_and(|said| said.contains(&format!("{prefix}-billing"))), "{dead}");
    assert_eq!(gateway.order_in(&behind, &["PUBLISHED"])["final"], true, "its key goes on");
    assert_eq!(published_on(&gateway, &id), ["stock", "audit"].map(|name| format!("{prefix}-{name}")));

    let letters = gateway.admin().get("/dead?kind=record").json();
    let path = format!("/dead/{}", letters["dead"][0]["id"]);
    assert_eq!(letters["dead"][0]["orderId"], id.as_str());
    let edit = serde_json::json!({ "payload": order_of(&customer).to_string() }).to_string();
    let headers = [("content-type", "application/json"), ("sluice-operator", "ann")];
    let refused = gateway.admin().post_with(&format!("{path}/edit"), &headers, edit.as_bytes()).problem(409);
    assert!(refused["detail"].as_str().is_some_and(|said| said.contains("redrive it as it is")), "{refused}");

    let text = fs::read_to_string(gateway.config_file()).unwrap();
    fs::write(gateway.config_file(), text.replace("100KiB", "1MiB")).unwrap();
    gateway.kill9();
    gateway.start_again();
    assert_eq!(gateway.admin().command(&format!("{path}/redrive")).status, 202);
    assert_eq!(gateway.order_in(&id, &["PUBLISHED"])["final"], true);
    for (name, times) in [("stock", 2), ("billing", 1), ("audit", 2)] {
        let records = records_of(&broker, &format!("{prefix}-{name}"), &id);
        let same =
            |record: &&Seen| record.header("ce_id") == format!("{id}/{name}") && record.value == records[0].value;
        assert_eq!((records.len(), records.iter().filter(same).count()), (times, times), "{name}");
    }
}

/// The sample services read one record each, and a broker that forgets gets all of them again.
#[test]
fn dev_serves_each_sample_service_its_record() {
    let mut route = route("dev", "");
    route.replies = Some("order-replies".to_owned());
    let gateway = TestGateway::with().dev().route(route).text("dev.answer_within", "1500ms").start();
    let ids: Vec<String> = (0..10).map(|_| gateway.post_order(&harness::order()).id).collect();
    let last: Value = gateway.order_in(&ids[9], &["PUBLISHED", "VALIDATED"]);
    assert_eq!(last["problems"], serde_json::json!([]));
    gateway.start_again();
    for id in &ids {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
    }
    let mut stock = Topic::open(&gateway.broker_address(), "dev-stock");
    assert!(stock.read_to_end().iter().all(|seen| seen.header("ce_type") == "StockRequested"));
}
