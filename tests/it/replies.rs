//! Replies of the services downstream: in time, early, late, repeated, contradicting, unknown, and none at all.

use std::time::Duration;

use harness::broker::Sender;
use harness::orders::{IGNORED, REFUSED};
use harness::random::unique;
use harness::{Broker, Route, TestGateway, guests, order_of, shared, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
/// Headers and value of something that is no reply.
type Poison<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);

const YES: [&str; 2] = ["ConsumerValidated", "OrderDetailsValidated"];

/// An order that nobody answers but the test, on Kafka.
fn published(gateway: &TestGateway) -> String {
    let id = gateway.post_order(&order_of(IGNORED)).id;
    assert_eq!(gateway.order_in(&id, &["PUBLISHED"])["final"], false);
    id
}

fn replies_in_timeline(gateway: &TestGateway, id: &str) -> Vec<Value> {
    gateway.timeline(id).into_iter().filter(|entry| entry["kind"] == "reply").collect()
}

fn wait_for_replies(gateway: &TestGateway, id: &str, count: usize) {
    wait_until("replies in the timeline", LIMIT, || {
        let replies = replies_in_timeline(gateway, id);
        if replies.len() >= count { Ok(()) } else { Err(replies) }
    });
}

#[test]
fn all_required_replies_validate_in_any_order() {
    let gateway = shared();
    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    for kinds in [YES, [YES[1], YES[0]]] {
        let id = published(&gateway);
        sender.reply(&topic, &id, kinds[0], &unique("r"));
        wait_for_replies(&gateway, &id, 1);
        assert_eq!(gateway.order(&id)["status"], "PUBLISHED", "one reply alone is no verdict");
        sender.reply(&topic, &id, kinds[1], &unique("r"));
        assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    }
}

#[test]
fn a_refusal_of_a_service_rejects_with_its_problems() {
    let gateway = shared();
    let order = gateway.settled(&gateway.post_order(&order_of(REFUSED)).id);
    assert_eq!((&order["status"], &order["problems"][0]["source"]), (&"REJECTED".into(), &"downstream".into()));

    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    let id = published(&gateway);
    let body = r#"{"problems":[{"code":"out-of-stock","title":"Out of stock","detail":"71053","pointer":"/lines/1"}]}"#;
    sender.reply_with(&topic, &id, "OrderDetailsRejected", &unique("r"), body);
    let order = gateway.settled(&id);
    assert_eq!(order["status"], "REJECTED");
    let problem = &order["problems"][0];
    assert_eq!((&problem["code"], &problem["pointer"]), (&"out-of-stock".into(), &"/lines/1".into()), "{problem}");
    assert_eq!(problem["source"], "downstream");
}

#[test]
fn a_repeated_reply_counts_once() {
    let gateway = shared();
    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    let (id, reply) = (published(&gateway), unique("r"));
    for _ in 0..3 {
        sender.reply(&topic, &id, YES[0], &reply);
    }
    sender.reply(&topic, &id, YES[1], &unique("r"));
    let order = gateway.settled(&id);
    assert_eq!(order["status"], "VALIDATED");
    assert_eq!(replies_in_timeline(&gateway, &id).len(), 2);
    assert_eq!(gateway.order(&id)["version"], order["version"]);
}

#[test]
fn a_contradiction_after_the_verdict_changes_nothing() {
    let gateway = shared();
    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    let id = published(&gateway);
    for kind in YES {
        sender.reply(&topic, &id, kind, &unique("r"));
    }
    let order = gateway.settled(&id);
    assert_eq!(order["status"], "VALIDATED");
    sender.reply(&topic, &id, "ConsumerRejected", &unique("r"));
    wait_for_replies(&gateway, &id, 3);
    assert_eq!(gateway.order(&id), order);
}

#[test]
fn silence_expires_and_a_late_reply_changes_nothing() {
    let gateway = TestGateway::with()
        .route(Route { deadline: "1s".to_owned(), ..Default::default() })
        .text("replies.grace", "200ms")
        .text("replies.watch_interval", "100ms")
        .start();
    let id = gateway.post_order(&order_of(IGNORED)).id;
    let order = gateway.settled(&id);
    assert_eq!((&order["status"], &order["final"]), (&"EXPIRED".into(), &true.into()));
    let sender = Sender::new(&gateway.broker_address());
    for kind in YES {
        sender.reply(&gateway.topic("order-replies"), &id, kind, &unique("r"));
    }
    wait_for_replies(&gateway, &id, 2);
    assert_eq!(gateway.order(&id), order);
}

/// A service may be faster than the note that the order is on Kafka; here it is faster than the order itself.
#[test]
fn early_replies_are_kept_and_judged_with_publishing() {
    let mut route = Route::default();
    route.plugins.push("marked".to_owned());
    let gateway = TestGateway::with()
        .plugin("marked", guests::marked())
        .route(route)
        .text("relay.retry_first", "1500ms")
        .announce("plugin")
        .start();
    let mut order = order_of(IGNORED);
    order["mark"] = "retry".into();
    let id = gateway.post_order(&order).id;
    assert_eq!(gateway.order_in(&id, &["HELD"])["status"], "HELD");
    let sender = Sender::new(&gateway.broker_address());
    for kind in YES {
        sender.reply(&gateway.topic("order-replies"), &id, kind, &unique("r"));
    }
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    let events = gateway.stream(&format!("/orders/{id}/events"), &[("last-event-id", "1")]).rest();
    let statuses: Vec<&Value> = events.iter().rev().take(2).map(|event| &event.data["status"]).collect();
    assert_eq!(statuses, ["VALIDATED", "PUBLISHED"], "two versions, both in history");
    let kinds: Vec<Value> = gateway.timeline(&id).into_iter().map(|entry| entry["kind"].clone()).collect();
    let position = |kind: &str| kinds.iter().position(|known| known == kind).unwrap();
    assert!(position("published") < position("reply"), "{kinds:?}");
}

#[test]
fn a_reply_to_an_unknown_order_is_parked_and_holds_nobody_up() {
    let gateway = TestGateway::start();
    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    sender.reply(&topic, "01890a5d-ac96-774b-bcce-b302099a8057", YES[0], &unique("r"));
    let id = published(&gateway);
    for kind in YES {
        sender.reply(&topic, &id, kind, &unique("r"));
    }
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    wait_until("the parked reply", LIMIT, || {
        let parked = gateway.metric("sluice_kafka_replies_total", "parked");
        if parked >= 1.0 { Ok(()) } else { Err(parked) }
    });
    assert_eq!(gateway.admin().get("/dead").json()["dead"].as_array().unwrap().len(), 0);
}

#[test]
fn poison_goes_to_the_dead_letters_and_the_partition_advances() {
    let gateway = TestGateway::with().announce("repl").start();
    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    let id = published(&gateway);
    let poison: [Poison<'_>; 6] = [
        (&[], b"\xff\xfe not text"),
        (&[], b"{\"type\":"),
        (&[], b"{\"type\":\"ConsumerValidated\"}"),
        (&[("ce_type", "ConsumerValidated"), ("ce_subject", "not-an-id")], b"{}"),
        (&[("ce_subject", id.as_str())], b"[1,2"),
        (&[("ce_subject", id.as_str())], b""),
    ];
    // One key, so one partition: what is good stands behind what is not.
    for (headers, value) in poison {
        sender.send(&topic, &id, headers, value);
    }
    for kind in YES {
        sender.reply(&topic, &id, kind, &unique("r"));
    }
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    let letters = gateway.admin().get("/dead?kind=reply").json();
    let letters = letters["dead"].as_array().unwrap();
    assert_eq!(letters.len(), poison.len(), "{letters:?}");
    for letter in letters {
        assert_eq!((&letter["place"]["topic"], &letter["reason"]), (&topic.as_str().into(), &"not-a-reply".into()));
        assert!(letter["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{letter}");
    }
    let path = format!("/dead/{}", letters[1]["id"]);
    assert_eq!(gateway.admin().get(&path).json()["payload"], "{\"type\":");
    assert_eq!(gateway.admin().command(&format!("{path}/redrive")).status, 422, "what is no reply cannot be redriven");
    assert_eq!(gateway.admin().command(&format!("{path}/discard")).status, 202);
}

/// Replies that come while the gateway is down settle their orders after the start, without new traffic.
#[test]
fn replies_of_a_downtime_are_read_after_the_start() {
    let (broker, prefix) = (Broker::start(), unique("downtime"));
    let route = Route {
        topic: format!("{prefix}-orders"),
        replies: Some(format!("{prefix}-replies")),
        outcomes: None,
        deadline: "2s".to_owned(),
        ..Default::default()
    };
    broker.create_topic(&route.topic, 4);
    let replies = route.replies.clone().unwrap();
    broker.create_topic(&replies, 4);
    let gateway = TestGateway::with().broker(broker.address()).route(route).start();
    let id = published(&gateway);
    gateway.kill9();
    let sender = Sender::new(broker.address());
    for kind in YES {
        sender.reply(&replies, &id, kind, &unique("r"));
    }
    // The deadline passes in the downtime: what was answered in time does not expire for it.
    std::thread::sleep(Duration::from_secs(3));
    gateway.start_again();
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
}

/// The development broker forgets at a restart; what was unanswered goes out again and is answered then.
#[test]
fn dev_publishes_again_what_was_unanswered() {
    let gateway = TestGateway::with().dev().text("dev.answer_within", "1500ms").start();
    let ids: Vec<String> = (0..20).map(|_| gateway.post_order(&harness::order()).id).collect();
    assert_eq!(gateway.order_in(&ids[19], &["PUBLISHED", "VALIDATED"])["problems"], serde_json::json!([]));
    gateway.start_again();
    for id in &ids {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
    }
}

/// What the group counts as read, the database of the backup has never seen.
#[test]
fn after_a_restore_of_a_backup_the_replies_since_then_are_read_again() {
    if harness::environment::on_postgres() {
        // The backup is a copy of the file here; a dump has a test among those of several nodes.
        return;
    }
    if harness::environment::kafka().is_none() {
        // The broker in memory takes no offsets from outside a group that ever had members.
        harness::environment::say("SKIPPED: the restore of a backup needs SLUICE_TEST_KAFKA");
        return;
    }
    let broker = Broker::start();
    let gateway = TestGateway::with()
        .broker(broker.address())
        // Restarts on a busy machine take their time.
        .route(Route { deadline: "10m".to_owned(), ..Default::default() })
        .announce("restored from a backup")
        .announce("create the reply topics")
        .start();
    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    let (before, unanswered) = (published(&gateway), published(&gateway));
    for kind in YES {
        sender.reply(&topic, &before, kind, &unique("r"));
    }
    assert_eq!(gateway.settled(&before)["status"], "VALIDATED");
    let _took = gateway.terminate();
    let (file, backup) = (gateway.database_file(), gateway.folder().join("backup.db"));
    let copy = format!("VACUUM INTO '{}'", backup.display());
    rusqlite::Connection::open(file).unwrap().execute_batch(&copy).unwrap();

    gateway.start_again();
    for kind in YES {
        sender.reply(&topic, &unanswered, kind, &unique("r"));
    }
    assert_eq!(gateway.settled(&unanswered)["status"], "VALIDATED");
    let _took = gateway.terminate();
    for rest in ["-wal", "-shm"] {
        // Those of another state of the file; gone with the last connection, if that was in time.
        drop(std::fs::remove_file(format!("{}{rest}", file.display())));
    }
    std::fs::copy(backup, file).unwrap();

    gateway.start_again();
    assert_eq!(gateway.settled(&unanswered)["status"], "VALIDATED");
    assert_eq!(gateway.order(&before)["status"], "VALIDATED");
    assert_eq!(replies_in_timeline(&gateway, &before).len(), 2, "those before the backup are known");
}
