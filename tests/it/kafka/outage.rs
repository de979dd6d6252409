//! The broker is away, hangs or starts again: orders are taken, wait, and come out in their order.

use std::collections::BTreeMap;

use harness::kafka::{self, Kafka};
use harness::{TestGateway, order_of, wait_until};

use super::{Accepted, LIMIT, came_in_order, degraded, gateway, part, plain, post, published, ready_again};

const BACKLOG_MAX: usize = 60;
const KEYS: usize = 5;

fn post_some(gateway: &TestGateway, accepted: &mut Accepted, count: usize) {
    for number in 0..count {
        let customer = format!("customer {}", number % KEYS);
        let id = post(gateway, "/orders", &order_of(&customer));
        accepted.entry(customer).or_default().push(id);
    }
}

/// Everything that was accepted is on the topic, each key in its order.
fn all_came_in_order(kafka: &Kafka, topic: &str, gateway: &TestGateway, accepted: &Accepted) {
    for id in accepted.values().flatten() {
        published(gateway, "/orders", id);
    }
    came_in_order(&kafka.address(), topic, accepted);
}

#[test]
fn while_the_broker_is_away_orders_are_taken_up_to_the_backlog_and_then_refused() {
    let Some(mut kafka) = kafka::borrow() else { return };
    let route = plain("/orders");
    kafka.create_topic(&route.topic, 4, &[]);
    let gateway = gateway(&kafka.address(), &route)
        .set("intake.backlog_max", &BACKLOG_MAX.to_string())
        .announce("Kafka is not reachable")
        .announce("backlog")
        .start();
    let mut accepted = BTreeMap::new();
    post_some(&gateway, &mut accepted, 10);
    all_came_in_order(&kafka, &route.topic, &gateway, &accepted);
    ready_again(&gateway, "kafka");

    kafka.kill9();
    let said = degraded(&gateway, "kafka", &["Connection refused", "brokers are down", "Disconnected"]);
    assert!(
        said.starts_with("no broker answers: ") && said.contains("orders are taken up to intake.backlog_max"),
        "{said}"
    );
    post_some(&gateway, &mut accepted, BACKLOG_MAX);
    // How many wait is counted now and then, not with each order.
    let body = order_of("one too many").to_string();
    let refusal = wait_until("a refusal", LIMIT, || {
        let answer = gateway.post_with("/orders", &[("content-type", "application/json")], body.as_bytes());
        if answer.status == 503 {
            return Ok(answer);
        }
        accepted.entry("one too many".to_owned()).or_default().push(answer.accepted().id);
        Err("it was taken")
    });
    let problem = refusal.problem(503);
    assert_eq!((&problem["retryable"], &problem["source"]), (&true.into(), &"gateway".into()), "{problem}");
    assert!(refusal.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()));
    let first = &accepted["customer 0"][2];
    assert_eq!(gateway.order(first)["status"], "PENDING");

    kafka.start_again();
    all_came_in_order(&kafka, &route.topic, &gateway, &accepted);
    ready_again(&gateway, "kafka");
    wait_until("orders are taken again", LIMIT, || {
        let answer = gateway.post_with("/orders", &[("content-type", "application/json")], body.as_bytes());
        if answer.status == 202 { Ok(()) } else { Err(answer.text()) }
    });
}

/// Connections stay and nothing answers: no error comes from anywhere, and still it is said.
#[test]
fn a_broker_that_hangs_is_said_to_be_slow_and_waited_for() {
    let Some(kafka) = kafka::borrow() else { return };
    let route = plain("/orders");
    kafka.create_topic(&route.topic, 4, &[]);
    let gateway = gateway(&kafka.address(), &route).announce("Kafka is not reachable").start();
    let mut accepted = BTreeMap::new();
    post_some(&gateway, &mut accepted, 10);
    all_came_in_order(&kafka, &route.topic, &gateway, &accepted);

    kafka.freeze();
    post_some(&gateway, &mut accepted, 50);
    let said = degraded(&gateway, "kafka", &["nothing acknowledged for"]);
    assert!(said.contains("records on their way"), "{said}");
    assert_eq!(gateway.order(&accepted["customer 0"][2])["status"], "PENDING");
    kafka.thaw();
    all_came_in_order(&kafka, &route.topic, &gateway, &accepted);
    ready_again(&gateway, "kafka");
}

/// Killed and started twice while orders come in all the time.
#[test]
fn a_broker_that_starts_again_under_load_loses_and_reorders_nothing() {
    let Some(mut kafka) = kafka::borrow() else { return };
    let route = plain("/orders");
    kafka.create_topic(&route.topic, 4, &[]);
    let gateway = gateway(&kafka.address(), &route).announce("Kafka is not reachable").announce("librdkafka").start();
    let mut accepted = BTreeMap::new();
    for _ in 0..2 {
        post_some(&gateway, &mut accepted, 40);
        kafka.kill9();
        post_some(&gateway, &mut accepted, 40);
        kafka.start_again();
        post_some(&gateway, &mut accepted, 40);
    }
    all_came_in_order(&kafka, &route.topic, &gateway, &accepted);
    assert_eq!(part(&gateway, "kafka-topics").0, "ready");
}
