//! Static membership (`replies.member`): a node that is soon back disturbs nobody who reads replies.

use std::time::Duration;

use harness::kafka::{self, Kafka};
use harness::random::unique;
use harness::services::Services;
use harness::{Builder, Route, TestGateway, order_of, postgres, wait_until};

use super::{LIMIT, plain};

/// Longer than a start takes, on a busy machine too; no longer than the broker allows.
const SESSION: &str = "60s";

/// Two nodes of one group, on a database and a broker of theirs.
struct Pair {
    nodes: [TestGateway; 2],
    _services: Services,
    _database: postgres::Database,
}

impl Pair {
    /// `None` on a machine without PostgreSQL.
    fn start(kafka: &Kafka, shape: impl Fn(Builder, usize) -> Builder) -> Option<Self> {
        let database = postgres::server()?.database();
        let replies = unique("replies");
        let route = Route { replies: Some(replies.clone()), deadline: "30m".to_owned(), ..plain("/orders") };
        for topic in [&route.topic, &replies] {
            kafka.create_topic(topic, 4, &[]);
        }
        let services = Services::start(&kafka.address(), &route.topic, &replies);
        let group = unique("group");
        let node = |number: usize| {
            let builder = TestGateway::with()
                .broker(&kafka.address())
                .route(route.clone())
                .text("database.url", &database.url())
                .text("node.lease", "2s")
                .text("node.drain", "1s")
                .text("kafka.group", &group)
                .text("replies.session_timeout", SESSION)
                .announce("");
            shape(builder, number).start()
        };
        let pair = Self { nodes: [node(0), node(1)], _services: services, _database: database };
        pair.both_read();
        Some(pair)
    }

    /// Replies come to both, so both have partitions, and the group has settled.
    fn both_read(&self) {
        let mut seen = self.rebalances();
        wait_until("partitions at both", LIMIT, || {
            self.carries_orders();
            let read = [0, 1].map(|node| self.nodes[node].metric("sluice_kafka_replies_total", "counted"));
            let (before, now) = (seen, self.rebalances());
            seen = now;
            if read.iter().all(|count| *count > 0.0) && before == now { Ok(()) } else { Err((read, now)) }
        });
    }

    fn carries_orders(&self) {
        let ids: Vec<String> = (0..16).map(|_| self.nodes[0].post_order(&order_of(&unique("c"))).id).collect();
        for id in ids {
            assert_eq!(self.nodes[0].settled(&id)["status"], "VALIDATED");
        }
    }

    fn rebalances(&self) -> [f64; 2] {
        [0, 1].map(|node| self.nodes[node].metric("sluice_kafka_subscriber_rebalances_total", ""))
    }
}

#[test]
fn a_named_node_that_is_soon_back_reads_on_and_the_others_do_not_notice() {
    let Some(kafka) = kafka::borrow() else { return };
    let named = |builder: Builder, number| builder.text("replies.member", &format!("node-{number}"));
    let Some(pair) = Pair::start(&kafka, named) else { return };
    // Whichever of them leads the group, killed or stopped in order.
    for node in [0, 1] {
        let (one, other) = (&pair.nodes[node], 1 - node);
        let before = pair.rebalances()[other];
        one.kill9();
        one.start_again();
        pair.both_read();
        let _took = one.terminate();
        one.start_again();
        pair.both_read();
        assert_eq!(pair.rebalances()[other], before, "nobody else was told anything");
    }
}

/// What the name is for, and that the count above would have shown it.
#[test]
fn a_nameless_node_that_comes_back_moves_partitions_about() {
    let Some(kafka) = kafka::borrow() else { return };
    let Some(pair) = Pair::start(&kafka, |builder, _| builder) else { return };
    let before = pair.rebalances()[1];
    let _took = pair.nodes[0].terminate();
    pair.nodes[0].start_again();
    wait_until("a rebalance at the other", Duration::from_secs(30), || match pair.rebalances()[1] {
        after if after > before => Ok(()),
        after => Err((before, after)),
    });
    pair.both_read();
}
