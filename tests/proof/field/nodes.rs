//! The same where several nodes share a PostgreSQL: sessions that are lost, answers that come twice, reads at another node.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use harness::broker::Sender;
use harness::order_of;
use harness::orders::IGNORED;
use harness::random::unique;

use crate::world::{Setup, World};

/// Between two losses of all sessions.
const PAUSE: Duration = Duration::from_millis(700);

/// A node loses every session in the middle of its work, again and again, and nobody takes over or carries on without a right.
#[test]
fn sessions_that_the_database_ends_leave_no_two_owners() {
    let Some(setup) = Setup::on_postgres(2) else { return };
    let world = World::start(setup, |builder| builder);
    let clients = world.clients();
    let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name LIKE 'sluice %'";
    let mut ended = 0;
    world.run(&clients, |_| {
        for _ in 0..6 {
            thread::sleep(PAUSE);
            ended += world.store.read(end_all).len();
        }
    });
    let evidence = world.evidence(&clients);
    assert!(ended > 6, "only {ended} sessions were there to be ended");
    world.expect_innocence(&evidence);
}

/// The database is away under load, again and again, and no process is started again.
#[test]
fn nodes_recover_from_outages_of_the_database_by_themselves() {
    let Some(setup) = Setup::on_postgres(3) else { return };
    let world = World::start(setup, |builder| builder);
    let clients = world.clients();
    world.run(&clients, |_| {
        for _ in 0..3 {
            thread::sleep(PAUSE);
            world.database_proxies.iter().for_each(|proxy| proxy.close(true));
            thread::sleep(PAUSE);
            world.database_proxies.iter().for_each(|proxy| proxy.close(false));
        }
    });
    let evidence = world.evidence(&clients);
    let unanswered = clients.lost.load(Ordering::SeqCst) + clients.refused.load(Ordering::SeqCst);
    assert!(unanswered > 0, "nobody noticed");
    assert!(world.nodes.iter().all(harness::TestGateway::is_running));
    world.expect_innocence(&evidence);
}

/// The same reply on two partitions, which two nodes read at once: it counts once.
#[test]
fn the_same_reply_at_two_nodes_changes_an_order_once() {
    let Some(setup) = Setup::on_postgres(2) else { return };
    let world = World::start(setup, |builder| builder);
    let (sender, replies) = (Sender::new(world.broker.address()), world.replies_topic());
    let orders: Vec<String> = (0..16).map(|_| world.nodes[0].post_order(&order_of(IGNORED)).id).collect();
    for order in &orders {
        assert_eq!(world.nodes[1].order_in(order, &["PUBLISHED"])["final"], false);
    }
    for kind in ["ConsumerValidated", "OrderDetailsValidated"] {
        for order in &orders {
            // The key decides the partition: with many, the same reply lies on several.
            for _ in 0..4 {
                let headers = [("ce_id", kind), ("ce_type", kind), ("ce_source", "/twice"), ("ce_subject", order)];
                sender.send(&replies, &unique("key"), &headers, b"{}");
            }
        }
    }
    sender.flush();
    for order in &orders {
        assert_eq!(world.nodes[1].settled(order)["version"], 3);
        let timeline = world.nodes[0].timeline(order);
        assert_eq!(timeline.iter().filter(|entry| entry["kind"] == "reply").count(), 2, "{timeline:?}");
    }
}

/// What one node answered `202` every other node finds at once.
#[test]
fn a_read_at_any_node_finds_what_another_just_accepted() {
    let Some(setup) = Setup::on_postgres(3) else { return };
    let world = World::start(setup, |builder| builder);
    for number in 0..60 {
        let id = world.nodes[number % 3].post_order(&order_of(&unique("c"))).id;
        for node in &world.nodes {
            assert_eq!(node.get(&format!("/orders/{id}")).status, 200);
        }
    }
}
