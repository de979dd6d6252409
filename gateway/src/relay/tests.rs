//! Passes of the decider over a database of its own: order per key, suspects, restarts.
//!
//! A route without plugins lets every order pass; one that names a plugin which is not loaded holds every order.

use super::*;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::config::load::assemble;
use crate::order::{OrderId, OrderStatus};
use crate::outbox::{Kept, NewOrder, ReadLimits};
use crate::plugin::Generation;
use crate::relay::records::header;

const ALL: ReadLimits = ReadLimits { count: 1_000, bytes: 1 << 30 };
const HOUR: Duration = Duration::from_secs(3_600);

struct World {
    outbox: Outbox,
    clock: Clock,
    config: Config,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = assemble(None, std::iter::empty()).unwrap();
        config.database.url = format!("sqlite://{}", folder.path().join("sluice.db").display());
        let clock = Clock::by_hand(Timestamp(1_290_000_000_000));
        let outbox = Outbox::open(&config.database, HashMap::new(), clock.clone(), Arc::default()).unwrap();
        outbox.take_over("node".to_owned()).await.unwrap();
        Self { outbox, clock, config, _folder: folder }
    }

    /// A decider of the slots as they are stored.
    async fn decider(&self, plugins: &[&str]) -> Decider {
        let mut route = self.config.route[0].clone();
        route.plugins = plugins.iter().map(|&name| name.to_owned()).collect();
        let routes = Arc::new(HashMap::from([(Arc::from("/orders"), route)]));
        let host = PluginHost::start(&self.config.plugins, Arc::default()).unwrap();
        let chain: Vec<String> = plugins.iter().map(|&name| name.to_owned()).collect();
        host.publish(Generation::new(1, Vec::new(), [("/orders", chain.as_slice())]));
        let (outbox, clock) = (self.outbox.clone(), self.clock.clone());
        let limits = self.config.relay.clone();
        let mut decider = Decider::new(outbox, host, routes, limits, clock, Arc::default(), HandOver::default());
        decider.load(self.outbox.tenures().await.unwrap()).await.unwrap();
        decider
    }

    async fn accept(&self, key: &str) -> OrderId {
        let id = OrderId::generate();
        let order = NewOrder {
            id,
            route: "/orders".into(),
            order_key: key.into(),
            slot: Slot::of("/orders", key),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            body: "{}".into(),
            idempotency: None,
        };
        assert_eq!(self.outbox.accept(order).await.unwrap(), Kept::New(id));
        id
    }

    async fn records(&self, key: &str) -> Vec<Record> {
        self.outbox.records(Slot::of("/orders", key), 0, ALL).await.unwrap()
    }

    async fn sent(&self, key: &str) -> Vec<OrderId> {
        self.records(key).await.iter().map(|record| record.order_id).collect()
    }

    async fn status(&self, id: OrderId) -> OrderStatus {
        self.outbox.order(id).await.unwrap().unwrap().status
    }

    /// The process dies over a pass, or over the one order that runs alone.
    async fn dies(&self, key: &str, alone: Option<OrderId>) {
        let slot = Slot::of("/orders", key);
        let tenures = self.outbox.tenures().await.unwrap();
        let cursor = tenures.iter().find(|tenure| tenure.slot == slot).unwrap().decide_cursor;
        let alone = alone.map(|id| (slot, cursor, id));
        self.outbox.begin(format!("{}:{cursor}", slot.0), alone).await.unwrap();
        self.outbox.take_over("node".to_owned()).await.unwrap();
    }
}

#[tokio::test]
async fn orders_of_a_key_wait_behind_the_held_one_and_follow_it() {
    let world = World::new().await;
    let (head, other) = (world.accept("k").await, world.accept("other").await);
    let mut holding = world.decider(&["absent"]).await;
    holding.pass().await.unwrap();
    let mut passing = world.decider(&[]).await;
    let follower = world.accept("k").await;
    passing.pass().await.unwrap();
    assert_eq!((world.status(head).await, world.status(follower).await), (OrderStatus::Held, OrderStatus::Held));
    world.clock.advance(HOUR);
    let last = world.accept("k").await;
    while passing.pass().await.unwrap() > 0 {}
    assert_eq!(world.sent("k").await, [head, follower, last]);
    assert_eq!(world.sent("other").await, [other]);
}

#[tokio::test]
async fn a_held_order_that_keeps_failing_dies_and_its_redriven_record_has_another_id() {
    let world = World::new().await;
    let id = world.accept("k").await;
    let mut holding = world.decider(&["absent"]).await;
    holding.pass().await.unwrap();
    world.clock.advance(world.config.relay.hold_max.0);
    holding.pass().await.unwrap();
    let letter = world.outbox.dead(None, 0, 9).await.unwrap().remove(0);
    assert_eq!((letter.order_id, letter.reason.as_str()), (Some(id), "held-too-long"));
    world.outbox.redrive(letter.id).await.unwrap();
    let mut passing = world.decider(&[]).await;
    while passing.pass().await.unwrap() > 0 {}
    let record = world.records("k").await.remove(0);
    assert_eq!((record.order_id, header(&record, "ce_id")), (id, format!("{id}.r1").as_str()));
}

/// The one that kills need not be the first of the batch.
#[tokio::test]
async fn a_suspect_slot_goes_one_by_one_until_the_whole_batch_is_past() {
    let world = World::new().await;
    for _ in 0..4 {
        world.accept("k").await;
    }
    for _ in 0..3 {
        world.dies("k", None).await;
    }
    let mut decider = world.decider(&[]).await;
    for done in 1..=4 {
        decider.pass().await.unwrap();
        assert_eq!(world.sent("k").await.len(), done);
    }
    world.accept("k").await;
    world.accept("k").await;
    decider.pass().await.unwrap();
    assert_eq!(world.sent("k").await.len(), 6, "nobody is suspect any more");
}

#[tokio::test]
async fn the_one_that_ran_alone_when_the_process_died_is_held_and_the_rest_goes_on() {
    let world = World::new().await;
    let (killer, next) = (world.accept("k").await, world.accept("other").await);
    for _ in 0..3 {
        world.dies("k", None).await;
    }
    world.dies("k", Some(killer)).await;
    let mut decider = world.decider(&[]).await;
    while decider.pass().await.unwrap() > 0 {}
    let held = world.outbox.order(killer).await.unwrap().unwrap().held.unwrap();
    assert_eq!(held.reason, "killed-the-process");
    assert_eq!(world.sent("other").await, [next]);
    for _ in 0..2 {
        world.dies("k", Some(killer)).await;
    }
    world.clock.advance(HOUR);
    let mut decider = world.decider(&[]).await;
    while decider.pass().await.unwrap() > 0 {}
    let letter = world.outbox.dead(None, 0, 9).await.unwrap().remove(0);
    assert_eq!((letter.order_id, letter.reason.as_str()), (Some(killer), "killed-the-process"));
}

#[tokio::test]
async fn a_restart_reads_past_what_is_carried_without_a_pause() {
    let mut world = World::new().await;
    world.config.relay.pass_entries_max = 2;
    for _ in 0..5 {
        world.accept("k").await;
    }
    let mut decider = world.decider(&[]).await;
    while decider.pass().await.unwrap() > 0 {}
    // The other slots are idle at the beginning of the log, so reading starts there.
    world.accept("k").await;
    let mut decider = world.decider(&[]).await;
    while decider.pass().await.unwrap() > 0 {}
    assert_eq!(world.sent("k").await.len(), 6);
}
