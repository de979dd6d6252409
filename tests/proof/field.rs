//! What went wrong elsewhere, as tests here: each is a fault that users of such software met.
//!
//! Others stand where their part is: a request answered although Kafka is down (`kafka/outage.rs`), one key and many bodies or
//! many twins (`idempotency.rs`), replies of a downtime and repeated ones (`replies.rs`), tables that never shrink
//! (`retention.rs`), unknown event ids (`streams.rs`), a full disk (`overload.rs`).

mod nodes;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::broker::Sender;
use harness::http::raw;
use harness::orders::IGNORED;
use harness::random::unique;
use harness::{Route, TestGateway, guests, order_of, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn with_marked() -> TestGateway {
    let mut route = Route::default();
    route.plugins.push("marked".to_owned());
    TestGateway::with()
        .plugin("marked", guests::marked())
        .route(route)
        .text("relay.retry_first", "5s")
        .announce("plugin")
        .start()
}

/// The first of a key fails; the second, which would succeed, waits for it; other keys do not.
#[test]
fn a_later_order_of_a_key_waits_for_a_failing_one_and_other_keys_flow() {
    let (gateway, customer) = (with_marked(), unique("c"));
    let mut first = order_of(&customer);
    first["mark"] = "trap".into();
    let first = gateway.post_order(&first).id;
    let second = gateway.post_order(&order_of(&customer)).id;
    let other = gateway.post_order(&order_of(&unique("c"))).id;
    assert_eq!(gateway.settled(&other)["status"], "VALIDATED");
    assert_eq!(gateway.order_in(&second, &["HELD"])["held"]["reason"], "behind");
    assert_eq!(gateway.order_in(&first, &["HELD"])["held"]["reason"], "fault");
    assert_eq!(gateway.post_with(&format!("/orders/{first}/cancel"), &[], b"").status, 202);
    assert_eq!(gateway.settled(&first)["status"], "CANCELLED");
    assert_eq!(gateway.settled(&second)["status"], "VALIDATED");
}

/// Replies without an id of their own are told apart by partition and offset, not by the offset alone.
#[test]
fn replies_of_the_same_offset_on_two_partitions_both_count() {
    let gateway = TestGateway::start();
    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    let orders: Vec<String> = (0..8).map(|_| gateway.post_order(&order_of(IGNORED)).id).collect();
    for order in &orders {
        assert_eq!(gateway.order_in(order, &["PUBLISHED"])["final"], false);
    }
    // Spread over the partitions by the order's id, each partition counts from the same offset.
    for kind in ["ConsumerValidated", "OrderDetailsValidated"] {
        for order in &orders {
            sender.send(&topic, order, &[("ce_type", kind), ("ce_subject", order)], b"{}");
        }
    }
    sender.flush();
    for order in &orders {
        assert_eq!(gateway.settled(order)["status"], "VALIDATED");
    }
    let replies = gateway.timeline(&orders[0]);
    assert_eq!(replies.iter().filter(|entry| entry["kind"] == "reply").count(), 2, "{replies:?}");
}

/// After a restart a client that resumes gets what is after its id and nothing of what it has.
#[test]
fn a_restart_replays_nothing_to_streams_that_resume() {
    let gateway = TestGateway::start();
    let settled = gateway.post_order(&order_of(&unique("c"))).id;
    let last = gateway.settled(&settled)["version"].as_u64().unwrap();
    let waiting = gateway.post_order(&order_of(IGNORED)).id;
    assert_eq!(gateway.order_in(&waiting, &["PUBLISHED"])["version"], 2);
    gateway.start_again();
    let stream = gateway.stream(&format!("/orders/{settled}/events"), &[("last-event-id", &last.to_string())]);
    assert_eq!(stream.status, 204);
    let mut stream = gateway.stream(&format!("/orders/{waiting}/events"), &[("last-event-id", "1")]);
    let next = stream.next_event().unwrap();
    assert_eq!((next.name.as_str(), next.version()), ("status", 2));
    // The next is a new one: the development broker forgot, the record went out again; or the operator's cancel.
    assert_eq!(gateway.post_with(&format!("/orders/{waiting}/cancel"), &[], b"").status, 202);
    let mut before = 2;
    for event in stream.rest() {
        assert_eq!(event.version(), before + 1);
        before = event.version();
    }
    assert_eq!(gateway.order(&waiting)["version"], before);
}

/// Bodies of every size around the sizes of buffers arrive byte for byte, whole or in slow pieces; one byte too many is 413.
#[test]
fn bodies_of_every_size_arrive_whole_or_are_refused() {
    let limit = 64 << 10;
    let gateway = TestGateway::with().set("http.body_bytes_max", &limit.to_string()).start();
    let body = |size: usize| {
        let mut order = order_of(IGNORED);
        order["note"] = "".into();
        let rest = size - order.to_string().len();
        order["note"] = "x".repeat(rest).into();
        order
    };
    for size in [1 << 10, (4 << 10) - 1, 4 << 10, (8 << 10) + 1, (16 << 10) - 1, (16 << 10) + 1, limit - 1, limit] {
        let order = body(size);
        assert_eq!(order.to_string().len(), size);
        let id = gateway.post_order(&order).id;
        assert_eq!(gateway.order(&id)["order"]["note"], order["note"], "{size} bytes");
        let chunked = gateway.order(&post_in_pieces(&gateway, &order.to_string()));
        assert_eq!(chunked["order"]["note"], order["note"], "{size} bytes in pieces");
    }
    assert_eq!(gateway.post_order_with(&body(limit + 1), &[]).status, 413);
    let head = "POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let (status, _) = raw(gateway.http_address(), format!("{head}Content-Length: 0\r\n\r\n").as_bytes(), LIMIT);
    assert_eq!(status, 400, "no body is no order");
}

/// Posts a body in chunks that come one by one; returns the order.
fn post_in_pieces(gateway: &TestGateway, body: &str) -> String {
    let mut socket = TcpStream::connect(gateway.http_address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let head = "POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    socket.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
    for piece in body.as_bytes().chunks(3000) {
        socket.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
        socket.write_all(piece).unwrap();
        socket.write_all(b"\r\n").unwrap();
        socket.flush().unwrap();
    }
    socket.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

/// Nothing that was acknowledged goes out again, however often the node starts.
#[test]
fn what_is_acknowledged_is_not_sent_again_by_later_starts() {
    let world = crate::world::World::start(crate::world::Setup { posts: 40, ..Default::default() }, |builder| builder);
    let clients = world.clients();
    world.run(&clients, |_| {});
    let before = world.evidence(&clients);
    for _ in 0..3 {
        world.nodes[0].start_again();
        assert!(world.drain().is_some());
    }
    let after = world.evidence(&clients);
    assert_eq!(after.orders_topic.len(), before.orders_topic.len());
    assert_eq!(after.outcomes_topic.len(), before.outcomes_topic.len());
    world.expect_innocence(&after);
}

/// A poisonous order under one key delays nobody under other keys.
#[test]
fn a_poisonous_order_delays_nobody_under_other_keys() {
    let world = crate::world::World::start(crate::world::Setup { posts: 20, ..Default::default() }, |builder| {
        builder.set("plugins.poison_faults", "3")
    });
    let clients = world.clients();
    let node = &world.nodes[0];
    let mut neighbors = Vec::new();
    let post = |mark: Option<&str>| {
        let (serial, customer) = (unique("serial"), unique("c"));
        let sent = clients.history.now();
        let order = node.post_order(&crate::history::body(&serial, &customer, mark, true)).id;
        let must_end: &[&str] = &["VALIDATED"];
        let request = crate::history::Request::Post { serial, customer, idempotency_key: None, must_end };
        clients.history.note(request, sent, crate::history::Answer::Accepted(order.clone()));
        order
    };
    world.run(&clients, |_| {
        for mark in ["trap", "loop", "memory", "stack", "garbage", "trap"] {
            let poison = post(Some(mark));
            let begin = std::time::Instant::now();
            let innocent = post(None);
            assert_eq!(node.settled(&innocent)["status"], "VALIDATED");
            neighbors.push(crate::evidence::Neighbor { order: innocent, settled_in: begin.elapsed() });
            wait_until("the poison among the dead letters", LIMIT, || {
                let order = node.order(&poison);
                if order["held"]["reason"] == "dead" { Ok(()) } else { Err(order) }
            });
        }
    });
    let mut evidence = world.evidence(&clients);
    evidence.neighbors = neighbors;
    world.expect_innocence(&evidence);
    let dead = evidence.orders.iter().filter(|order| order.is_dead).count();
    assert_eq!(json!(dead), json!(6));
}

/// Waking others is no part of a transaction that writes: it would take a lock of the whole server at each commit.
#[test]
fn no_transaction_notifies() {
    let gateway = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway");
    let mut folders = vec![format!("{gateway}/src/outbox"), format!("{gateway}/migrations")];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.display().to_string());
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//") && !line.starts_with("--"));
            for line in code {
                let is_one = line.contains("NOTIFY ") || line.contains("pg_notify") || line.contains("SKIP LOCKED");
                assert!(!is_one, "{}: {line}", path.display());
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 20, "the outbox lies elsewhere: {looked_at} files");
}
