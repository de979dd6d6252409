//! Several nodes on one PostgreSQL and one broker: slots come and go, and any node serves any order.

mod clocks;
mod frozen;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use harness::random::unique;
use harness::services::Services;
use harness::{Broker, Builder, Route, TestGateway, order_of, postgres, wait_until};

const LIMIT: Duration = Duration::from_secs(90);
const SLOTS: f64 = 64.0;

/// What nodes share.
struct Field {
    broker: Broker,
    database: postgres::Database,
    group: String,
    route: Route,
    _services: Services,
}

impl Field {
    /// `None` where the machine has no PostgreSQL.
    fn open() -> Option<Self> {
        let database = postgres::server()?.database();
        let broker = Broker::start();
        let (replies, outcomes) = (unique("order-replies"), unique("order-outcomes"));
        let route = Route {
            topic: unique("orders"),
            replies: Some(replies.clone()),
            outcomes: Some(outcomes.clone()),
            ..Default::default()
        };
        for topic in [&route.topic, &replies, &outcomes] {
            broker.create_topic(topic, 4);
        }
        let services = Services::start(broker.address(), &route.topic, &replies);
        Some(Self { broker, database, group: unique("sluice"), route, _services: services })
    }

    fn node(&self, lease: &str) -> TestGateway {
        self.builder(lease).start()
    }

    fn builder(&self, lease: &str) -> Builder {
        // Nodes are killed here, and take slots from each other.
        TestGateway::with()
            .broker(self.broker.address())
            .route(self.route.clone())
            .text("database.url", &self.database.url())
            .text("kafka.group", &self.group)
            .text("node.lease", lease)
            .text("node.drain", "1s")
            .announce("")
    }
}

fn slots(node: &TestGateway) -> f64 {
    node.metric("sluice_node_slots", "")
}

/// Waits until the nodes carry as many slots as these.
fn wait_for_slots(nodes: &[(&TestGateway, f64)]) {
    wait_until("shared slots", LIMIT, || {
        let found: Vec<f64> = nodes.iter().map(|(node, _)| slots(node)).collect();
        if nodes.iter().zip(&found).all(|((_, expected), found)| found == expected) { Ok(()) } else { Err(found) }
    });
}

fn post_many(node: &TestGateway, count: usize) -> Vec<String> {
    (0..count).map(|_| node.post_order(&order_of(&unique("c"))).id).collect()
}

#[test]
fn nodes_share_the_slots_and_what_a_dead_one_carried_goes_on() {
    let Some(field) = Field::open() else { return };
    let one = field.node("2s");
    wait_for_slots(&[(&one, SLOTS)]);
    let two = field.node("2s");
    wait_for_slots(&[(&one, SLOTS / 2.0), (&two, SLOTS / 2.0)]);
    assert_eq!(one.metric("sluice_nodes_live", ""), 2.0);
    let ids = post_many(&two, 40);
    two.kill9();
    for id in &ids {
        assert_eq!(one.settled(id)["status"], "VALIDATED");
    }
    wait_for_slots(&[(&one, SLOTS)]);
}

/// The lease is so long that nobody could wait for its end.
#[test]
fn a_node_that_stops_gives_its_slots_back_at_once() {
    let Some(field) = Field::open() else { return };
    let one = field.node("10m");
    wait_for_slots(&[(&one, SLOTS)]);
    let ids = post_many(&one, 10);
    one.terminate();
    let two = field.node("10m");
    wait_for_slots(&[(&two, SLOTS)]);
    for id in &ids {
        assert_eq!(two.settled(id)["status"], "VALIDATED");
    }
}

#[test]
fn what_one_node_takes_in_every_node_serves_as_it_changes() {
    let Some(field) = Field::open() else { return };
    let (one, two) = (field.node("2s"), field.node("2s"));
    wait_for_slots(&[(&one, SLOTS / 2.0), (&two, SLOTS / 2.0)]);
    for _ in 0..10 {
        let id = one.post_order(&order_of(&unique("c"))).id;
        // Read your writes, on whichever node.
        assert_eq!(two.get(&format!("/orders/{id}")).status, 200);
        let versions: Vec<u64> =
            two.stream(&format!("/orders/{id}/events"), &[]).rest().iter().map(harness::sse::Event::version).collect();
        let first = versions[0];
        let last = two.order(&id)["version"].as_u64().unwrap();
        assert_eq!(versions, (first..=last).collect::<Vec<_>>());
        assert_eq!(two.order(&id), one.order(&id));
        let polled = two.get_with(&format!("/orders/{id}?wait=20"), &[("if-none-match", "\"1\"")]);
        assert_eq!(polled.json()["status"], "VALIDATED");
        let waited = one.post_order_with(&order_of(&unique("c")), &[("prefer", "wait=20")]);
        assert_eq!((waited.status, waited.header("preference-applied")), (200, Some("wait=20")));
    }
}

/// A client posts the orders of each key one after another, to whichever node lives.
#[test]
fn orders_of_a_key_keep_their_order_while_nodes_come_and_go() {
    const KEYS: usize = 8;
    let Some(field) = Field::open() else { return };
    let keys: Vec<String> = (0..KEYS).map(|_| unique("c")).collect();
    let mut posted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut post = |node: &TestGateway| {
        for key in keys.iter().cycle().take(5 * KEYS) {
            posted.entry(key.clone()).or_default().push(node.post_order(&order_of(key)).id);
        }
    };
    let one = field.node("2s");
    post(&one);
    let two = field.node("2s");
    post(&one);
    wait_for_slots(&[(&one, SLOTS / 2.0), (&two, SLOTS / 2.0)]);
    post(&two);
    let three = field.node("2s");
    post(&three);
    two.kill9();
    post(&one);
    one.terminate();
    post(&three);
    wait_for_slots(&[(&three, SLOTS)]);
    let mut topic = harness::Topic::open(field.broker.address(), &field.route.topic);
    for (key, ids) in &posted {
        for id in ids {
            assert_eq!(three.settled(id)["status"], "VALIDATED");
        }
        let mut seen = HashSet::new();
        let records = topic.read_to_end().iter().map(|record| record.header("ce_subject").to_owned());
        let firsts: Vec<String> = records.filter(|id| ids.contains(id) && seen.insert(id.clone())).collect();
        assert_eq!(&firsts, ids, "{key}");
    }
}

/// Orders wait, and whoever looks learns why.
#[test]
fn a_transaction_that_holds_the_reading_back_is_named_and_nothing_is_lost() {
    let Some(field) = Field::open() else { return };
    let node = field.node("1s");
    wait_for_slots(&[(&node, SLOTS)]);
    let idle = field.database.session();
    idle.run("BEGIN; SELECT pg_current_xact_id()");
    let id = node.post_order(&order_of(&unique("c"))).id;
    let entries = || {
        let ready = node.admin().get("/readyz");
        let parts = ready.json()["parts"].clone();
        let part = parts.as_array().unwrap().iter().find(|part| part["part"] == "entries").cloned();
        (ready.status, part.unwrap_or_default())
    };
    wait_until("the name of who is in the way", LIMIT, || match entries() {
        (200, part) if part["condition"] == "degraded" => Ok(()),
        seen => Err(seen),
    });
    assert!(node.metric("sluice_outbox_stuck_read_seconds", "") >= 1.0);
    assert_eq!(node.order(&id)["status"], "PENDING");
    drop(idle);
    assert_eq!(node.settled(&id)["status"], "VALIDATED");
    wait_until("nobody in the way", LIMIT, || match entries() {
        (200, part) if part["condition"] == "ready" => Ok(()),
        seen => Err(seen),
    });
}
