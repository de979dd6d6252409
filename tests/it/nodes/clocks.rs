//! Nodes whose clocks are wrong: what an order's times mean is said by the database's clock alone.

use std::fs;
use std::time::Duration;

use harness::orders::IGNORED;
use harness::random::unique;
use harness::{TestGateway, order_of};
use serde_json::Value;
use sluice::clock::{Clock, Timestamp};

use super::{Field, SLOTS, wait_for_slots};

const HOUR_MS: i64 = 3_600_000;
/// Farther from the right time nothing is, on a busy machine too.
const NEAR: Duration = Duration::from_secs(120);

/// A node whose clock is ahead by so much, or behind.
fn node_ahead_by(field: &Field, millis: i64) -> TestGateway {
    let node = field.builder("2s").text("replies.grace", "100ms").text("replies.watch_interval", "100ms").prepare();
    let clock = node.folder().join("clock");
    fs::write(&clock, millis.to_string()).unwrap();
    node.set_for_every_start("SLUICE_CRASH_CLOCK", &clock.display().to_string());
    node.start_again();
    node
}

fn time(order: &Value, member: &str) -> Timestamp {
    order[member].as_str().unwrap_or_else(|| panic!("no {member}: {order}")).parse().unwrap()
}

fn is_near(moment: Timestamp) -> bool {
    let now = Clock::system().now();
    moment.since(now).max(now.since(moment)) < NEAR
}

/// Two nodes, two hours apart, and the slots shared among them.
fn apart(field: &mut Field, deadline: &str) -> [TestGateway; 2] {
    // Who is ignored is another order key each time, so that both nodes have orders to watch.
    "/note".clone_into(&mut field.route.key);
    deadline.clone_into(&mut field.route.deadline);
    let nodes = [HOUR_MS, -HOUR_MS].map(|millis| node_ahead_by(field, millis));
    wait_for_slots(&[(&nodes[0], SLOTS / 2.0), (&nodes[1], SLOTS / 2.0)]);
    nodes
}

fn order_to(customer: &str) -> Value {
    let mut order = order_of(customer);
    order["note"] = unique("key").into();
    order
}

#[test]
fn nodes_whose_clocks_are_hours_apart_let_nothing_expire_too_early() {
    let Some(mut field) = Field::open() else { return };
    let nodes = apart(&mut field, "10m");
    for number in 0..16 {
        let (here, there) = (&nodes[number % 2], &nodes[1 - number % 2]);
        let answered = here.post_order(&order_to(&unique("c"))).id;
        let waiting = here.post_order(&order_to(IGNORED)).id;
        assert_eq!(there.settled(&answered)["status"], "VALIDATED");
        let order = here.order(&answered);
        assert!(is_near(time(&order, "acceptedAt")) && is_near(time(&order, "updatedAt")), "{order}");
        let order = there.order_in(&waiting, &["PUBLISHED"]);
        assert!(is_near(time(&order, "deadlineAt").before(Duration::from_secs(600))), "{order}");
    }
}

/// Without the database's clock half of them would expire at once and half in two hours.
#[test]
fn nodes_whose_clocks_are_hours_apart_let_everything_expire_in_time() {
    let Some(mut field) = Field::open() else { return };
    let nodes = apart(&mut field, "2s");
    let ids: Vec<String> = (0..16).map(|number| nodes[number % 2].post_order(&order_to(IGNORED)).id).collect();
    for id in ids {
        let order = nodes[0].settled(&id);
        assert_eq!(order["status"], "EXPIRED");
        let lived = time(&order, "updatedAt").since(time(&order, "acceptedAt"));
        assert!(lived >= Duration::from_secs(2) && lived < NEAR, "{order}");
    }
}
