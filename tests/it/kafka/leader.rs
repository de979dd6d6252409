//! Leaders of partitions die under load, and others take their place: nothing is lost, overtaken, or another record the second
//! time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::kafka::Cluster;
use harness::random::unique;
use harness::services::Services;
use harness::{RaisedOnDrop, Route, TestGateway, order_of, wait_until};

use super::{Accepted, LIMIT, came_in_order, gateway, plain};

const KEYS: usize = 8;
/// Orders that are taken in between two things that happen.
const SOME: usize = 60;

/// A client that posts one order after another, each key in its order.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    accepted: Mutex<Accepted>,
}

impl Load {
    fn run(&self, gateway: &TestGateway) {
        let keys: Vec<String> = (0..KEYS).map(|_| unique("c")).collect();
        for key in keys.iter().cycle().take_while(|_| !self.is_over.load(Ordering::SeqCst)) {
            let id = gateway.post_order(&order_of(key)).id;
            self.accepted.lock().unwrap().entry(key.clone()).or_default().push(id);
        }
    }

    fn count(&self) -> usize {
        self.accepted.lock().unwrap().values().map(Vec::len).sum()
    }

    fn wait_for_more(&self) {
        let before = self.count();
        wait_until("more orders", LIMIT, || match self.count() - before {
            more if more >= SOME => Ok(()),
            more => Err(more),
        });
    }

    /// All that is accepted by now is carried to its end, while whatever is going on goes on.
    fn all_settle(&self, gateway: &TestGateway) {
        let accepted: Vec<String> = self.accepted.lock().unwrap().values().flatten().cloned().collect();
        for id in accepted {
            let order = wait_until("a settled order", LIMIT, || {
                let order = gateway.order(&id);
                if order["final"] == true { Ok(order) } else { Err(order) }
            });
            assert_eq!(order["status"], "VALIDATED");
        }
    }
}

#[test]
fn orders_go_on_in_their_order_while_leaders_die_under_load() {
    let Some(mut cluster) = Cluster::start() else { return };
    let (replies, outcomes) = (unique("replies"), unique("outcomes"));
    let route = Route {
        replies: Some(replies.clone()),
        outcomes: Some(outcomes.clone()),
        // Nothing expires by waiting for a leader.
        deadline: "30m".to_owned(),
        ..plain("/orders")
    };
    for topic in [&route.topic, &replies, &outcomes] {
        cluster.create_topic(topic);
    }
    let address = cluster.address();
    let _services = Services::start(&address, &route.topic, &replies);
    // What librdkafka says of each death.
    let (gateway, load) = (gateway(&address, &route).announce("").start(), Load::default());
    thread::scope(|scope| {
        let ends = RaisedOnDrop(&load.is_over);
        scope.spawn(|| load.run(&gateway));
        load.wait_for_more();
        load.all_settle(&gateway);
        for broker in [2, 3] {
            load.wait_for_more();
            cluster.kill_leader(broker, &route.topic);
            load.wait_for_more();
            load.all_settle(&gateway);
            cluster.start_again(broker);
            for topic in [&route.topic, &replies, &outcomes] {
                cluster.wait_until_whole(topic);
            }
        }
        load.wait_for_more();
        drop(ends);
    });
    load.all_settle(&gateway);
    let accepted = load.accepted.lock().unwrap();
    came_in_order(&address, &route.topic, &accepted);
    // Outcomes go by the same log.
    let mut outcomes = harness::Topic::open(&address, &outcomes);
    wait_until("an outcome for each order", LIMIT, || {
        let records = outcomes.read_to_end();
        let told: std::collections::BTreeSet<&str> = records.iter().map(|record| record.header("ce_subject")).collect();
        if told.len() == load_size(&accepted) { Ok(()) } else { Err((told.len(), load_size(&accepted))) }
    });
}

fn load_size(accepted: &Accepted) -> usize {
    accepted.values().map(Vec::len).sum()
}
