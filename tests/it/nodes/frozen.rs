//! A node that is frozen inside a transaction, with everything that this one holds: the others carry on without it, and it does
//! no harm when it wakes up (PROTOCOL O4, O6).

use std::collections::{BTreeMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use harness::random::unique;
use harness::{TestGateway, Topic, order_of, wait_until};
use rustix::process::Signal;
use sluice::crash::Point;

use super::{Field, LIMIT, SLOTS, wait_for_slots};

const KEYS: usize = 8;

fn arm(node: &TestGateway, point: Point, hit: u64) {
    node.set_for_next_start("SLUICE_CRASH_POINT", &format!("{}:{hit}:freeze", point.name()));
    node.start_again();
}

fn is_frozen(node: &TestGateway, point: Point) -> bool {
    node.log().text().contains(&format!("crash point {}: Freeze", point.name()))
}

type Posted = BTreeMap<String, Vec<String>>;

/// Posts one order of each key; returns the id of the last.
fn post(node: &TestGateway, keys: &[String], posted: &mut Posted) -> String {
    let mut last = String::new();
    for key in keys {
        last = node.post_order(&order_of(key)).id;
        posted.entry(key.clone()).or_default().push(last.clone());
    }
    last
}

/// Orders go to one node until the other is frozen; then all of them are carried to their end while it is.
fn frozen_at(point: Point, hit: u64) {
    let Some(field) = Field::open() else { return };
    let (one, two) = (field.node("3s"), field.node("3s"));
    arm(&one, point, hit);
    wait_for_slots(&[(&one, SLOTS / 2.0), (&two, SLOTS / 2.0)]);
    let keys: Vec<String> = (0..KEYS).map(|_| unique("c")).collect();
    let mut posted = Posted::new();
    let begun = Instant::now();
    let mut has_frozen = false;
    while !has_frozen {
        assert!(begun.elapsed() < LIMIT, "{} was never reached", point.name());
        let last = post(&two, &keys, &mut posted);
        // What is posted next finds this one carried, or nobody to carry it.
        wait_until("the last order, or a frozen node", LIMIT, || {
            has_frozen = is_frozen(&one, point);
            let status = two.order(&last)["status"].clone();
            if has_frozen || status == "VALIDATED" { Ok(()) } else { Err(status) }
        });
    }
    drop(post(&two, &keys, &mut posted));
    for id in posted.values().flatten() {
        assert_eq!(two.settled(id)["status"], "VALIDATED");
    }
    wait_for_slots(&[(&two, SLOTS)]);

    one.signal(Signal::CONT);
    wait_for_slots(&[(&one, SLOTS / 2.0), (&two, SLOTS / 2.0)]);
    post(&one, &keys, &mut posted);
    drop(post(&two, &keys, &mut posted));
    for id in posted.values().flatten() {
        assert_eq!(one.settled(id)["status"], "VALIDATED");
    }
    in_order_and_the_same_again(&field, &posted);
}

/// Each key's orders came in their order, and what came twice is the same record.
fn in_order_and_the_same_again(field: &Field, posted: &Posted) {
    let mut topic = Topic::open(field.broker.address(), &field.route.topic);
    let records = topic.read_to_end();
    let mut known = BTreeMap::new();
    for seen in records {
        let record = (&seen.key, &seen.headers, &seen.value, seen.timestamp);
        let first = *known.entry(seen.header("ce_id")).or_insert(record);
        assert_eq!(first, record, "the same record again");
    }
    for (key, ids) in posted {
        let mut seen = HashSet::new();
        let of_key =
            records.iter().map(|record| record.header("ce_subject")).filter(|id| ids.iter().any(|own| own == id));
        let firsts: Vec<&str> = of_key.filter(|id| seen.insert(*id)).collect();
        assert_eq!(&firsts, ids, "{key}");
    }
}

#[test]
fn a_node_frozen_with_decisions_written_holds_nobody_up() {
    frozen_at(Point::DecideWritten, 3);
}

#[test]
fn a_node_frozen_with_the_publish_cursor_written_holds_nobody_up() {
    frozen_at(Point::PublishWritten, 3);
}

#[test]
fn a_node_frozen_with_replies_written_holds_nobody_up() {
    frozen_at(Point::RepliesWritten, 3);
}

/// A client whose node is frozen asks another one.
#[test]
fn a_node_frozen_with_an_order_written_keeps_no_other_from_taking_it() {
    let Some(field) = Field::open() else { return };
    let (one, two) = (field.node("3s"), field.node("3s"));
    arm(&one, Point::AcceptWritten, 1);
    let (order, key) = (order_of(&unique("c")), unique("key"));
    let post = |node: &TestGateway| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        node.ask("POST", "/orders", &headers, Some(order.to_string().as_bytes())).unwrap()
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| post(&one));
        wait_until("a frozen node", LIMIT, || if is_frozen(&one, Point::AcceptWritten) { Ok(()) } else { Err(()) });
        let begun = Instant::now();
        let second = post(&two);
        let id = second.accepted().id;
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "half a lease, on a busy machine too: {:?}",
            begun.elapsed()
        );
        assert_eq!(two.settled(&id)["status"], "VALIDATED");
        one.signal(Signal::CONT);
        let first = first.join().unwrap();
        let problem = first.problem(503);
        assert_eq!(problem["retryable"], true);
        // Whoever does as it says gets the order that there is.
        let again = post(&one);
        assert_eq!((again.accepted().id, again.header("idempotent-replayed")), (id, Some("true")));
    });
    assert_eq!(field.database.ask("SELECT count(*) FROM orders").as_deref(), Some("1"));
}
