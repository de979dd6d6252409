//! Passes of the decider over a database of its own: order per key, suspects, restarts.
//!
//! A route without plugins lets every order pass; one that names a plugin which is not loaded holds every order.

use super::*;
use crate::clock::Timestamp;
use crate::config::load::assemble;
use crate::config::{Config, RouteConfig, Span};
use crate::dead::{DeadEdit, DeadFilter};
use crate::entry::{EntryKind, EntryPlace};
use crate::order::{OrderId, OrderStatus};
use crate::outbox::{Kept, NewCommand, NewOrder, ReadLimits};
use crate::plugin::Generation;
use crate::relay::records::header;

const ALL: ReadLimits = ReadLimits { count: 1_000, bytes: 1 << 30 };
const HOUR: Duration = Duration::from_secs(3_600);

pub(super) struct World {
    pub(super) outbox: Outbox,
    clock: Clock,
    pub(super) config: Config,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = assemble(None, std::iter::empty()).unwrap();
        config.database.url = format!("sqlite://{}", folder.path().join("sluice.db").display());
        let clock = Clock::by_hand(Timestamp(1_290_000_000_000));
        let outbox = Outbox::open(&config.database, HashMap::new(), clock.clone(), Arc::default()).await.unwrap();
        outbox.take_over("node".to_owned()).await.unwrap();
        Self { outbox, clock, config, _folder: folder }
    }

    /// A decider of the slots as they are stored.
    pub(super) async fn decider(&self, plugins: &[&str]) -> Decider {
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

    /// A decider of one route that asks one plugin.
    async fn decider_with(&self, path: &str, name: &str, plugin: &[u8]) -> Decider {
        let route = RouteConfig { plugins: vec![name.to_owned()], ..self.config.route[0].clone() };
        let host = PluginHost::start(&self.config.plugins, Arc::default()).unwrap();
        let source = crate::plugin::tests::source(name, plugin.to_vec());
        let plugin = host.load(&self.config.plugins, source).unwrap();
        host.publish(Generation::new(1, vec![plugin], [(path, route.plugins.as_slice())]));
        let routes = Arc::new(HashMap::from([(Arc::from(path), route)]));
        let (outbox, clock, limits) = (self.outbox.clone(), self.clock.clone(), self.config.relay.clone());
        let mut decider = Decider::new(outbox, host, routes, limits, clock, Arc::default(), HandOver::default());
        decider.load(self.outbox.tenures().await.unwrap()).await.unwrap();
        decider
    }

    /// A decider of two routes: `/orders` asks no plugin, `/slow` one that never ends on an evil order.
    async fn decider_of_two(&self) -> Decider {
        let named = |path: &str, plugins: &[&str]| RouteConfig {
            path: path.to_owned(),
            plugins: plugins.iter().map(|&name| name.to_owned()).collect(),
            ..self.config.route[0].clone()
        };
        let routes = [named("/orders", &[]), named("/slow", &["loops"])];
        let host = PluginHost::start(&self.config.plugins, Arc::default()).unwrap();
        let plugin = crate::plugin::tests::guest("(loop $l (br $l))", "", "");
        let plugin = host.load(&self.config.plugins, crate::plugin::tests::source("loops", plugin)).unwrap();
        let chains = routes.iter().map(|route| (route.path.as_str(), route.plugins.as_slice()));
        host.publish(Generation::new(1, vec![plugin], chains));
        let routes = Arc::new(routes.into_iter().map(|route| (Arc::from(route.path.as_str()), route)).collect());
        let (outbox, clock, limits) = (self.outbox.clone(), self.clock.clone(), self.config.relay.clone());
        let mut decider = Decider::new(outbox, host, routes, limits, clock, Arc::default(), HandOver::default());
        decider.load(self.outbox.tenures().await.unwrap()).await.unwrap();
        decider
    }

    pub(super) async fn accept(&self, key: &str) -> OrderId {
        self.accept_on("/orders", key, "{}").await
    }

    async fn accept_on(&self, route: &str, key: &str, body: &str) -> OrderId {
        let id = OrderId::generate();
        let order = NewOrder {
            id,
            route: route.into(),
            order_key: key.into(),
            slot: Slot::of(route, key),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            body: body.to_owned().into(),
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

    pub(super) async fn status(&self, id: OrderId) -> OrderStatus {
        self.outbox.order(id).await.unwrap().unwrap().status
    }

    /// Every slot with its epoch, as stored.
    pub(super) async fn epochs(&self) -> Vec<(Slot, i64)> {
        self.outbox.tenures().await.unwrap().iter().map(|tenure| (tenure.slot, tenure.epoch)).collect()
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
    let letter = world.outbox.dead(DeadFilter::default()).await.unwrap().remove(0);
    assert_eq!((letter.order_id, letter.reason.as_str()), (Some(id), "held-too-long"));
    world.outbox.redrive(letter.id, "ann".to_owned()).await.unwrap();
    let mut passing = world.decider(&[]).await;
    while passing.pass().await.unwrap() > 0 {}
    let record = world.records("k").await.remove(0);
    assert_eq!((record.order_id, header(&record, "ce_id")), (id, format!("{id}.r1").as_str()));
}

/// Each retry is one fault; what asks to be asked later is none.
#[tokio::test]
async fn an_order_that_plugins_fail_on_again_and_again_is_poison_and_its_neighbors_go_on() {
    let mut world = World::new().await;
    world.config.plugins.poison_faults = 3;
    let plugin = crate::plugin::tests::guest("unreachable", "", "");
    let mut decider = world.decider_with("/orders", "traps", &plugin).await;
    let poison = world.accept_on("/orders", "k", r#"{"evil":1}"#).await;
    let follower = world.accept("k").await;
    for faults in 1..3 {
        while decider.pass().await.unwrap() > 0 {}
        let held = world.outbox.order(poison).await.unwrap().unwrap().held.unwrap();
        assert_eq!((held.reason.as_str(), held.attempts), ("fault", faults));
        assert!(world.sent("k").await.is_empty());
        world.clock.advance(HOUR);
    }
    while decider.pass().await.unwrap() > 0 {}
    let letter = world.outbox.dead(DeadFilter::default()).await.unwrap().remove(0);
    assert_eq!((letter.order_id, letter.reason.as_str()), (Some(poison), "poison"));
    assert!(letter.plugins.starts_with("traps@sha256:"), "{}", letter.plugins);
    assert!(letter.detail.contains("plugin `traps` failed (trap)"), "{}", letter.detail);
    assert_eq!(world.sent("k").await, [follower]);

    world.outbox.redrive(letter.id, "ann".to_owned()).await.unwrap();
    while decider.pass().await.unwrap() > 0 {}
    let held = world.outbox.order(poison).await.unwrap().unwrap().held.unwrap();
    assert_eq!((held.reason.as_str(), held.attempts), ("fault", 1), "a redrive counts anew");
    assert!(world.outbox.dead(DeadFilter::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_plugin_that_is_not_there_poisons_nothing() {
    let mut world = World::new().await;
    world.config.plugins.poison_faults = 2;
    let id = world.accept("k").await;
    let mut decider = world.decider(&["absent"]).await;
    for attempts in 1..6 {
        while decider.pass().await.unwrap() > 0 {}
        let held = world.outbox.order(id).await.unwrap().unwrap().held.unwrap();
        assert_eq!((held.reason.as_str(), held.attempts), ("fault", attempts));
        world.clock.advance(HOUR);
    }
    let mut passing = world.decider(&[]).await;
    while passing.pass().await.unwrap() > 0 {}
    assert_eq!(world.sent("k").await, [id]);
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
    let letter = world.outbox.dead(DeadFilter::default()).await.unwrap().remove(0);
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

/// The plugin has so much time that it would be seen if a pass waited for it.
#[tokio::test]
async fn a_pass_does_not_wait_for_a_plugin_that_takes_long() {
    let mut world = World::new().await;
    world.config.plugins.time_per_batch_min = Span(Duration::from_secs(2));
    world.config.plugins.time_per_batch_max = Span(Duration::from_secs(2));
    let mut decider = world.decider_of_two().await;
    let evil = world.accept_on("/slow", "k", r#"{"evil":1}"#).await;
    let follower = world.accept_on("/slow", "k", "{}").await;
    let innocent = world.accept("k").await;
    decider.pass().await.unwrap();
    assert_eq!(world.sent("k").await, [innocent]);
    assert!(!decider.aside.is_idle(), "the slow order is still being judged");
    let reason = async |id| world.outbox.order(id).await.unwrap().unwrap().held.unwrap().reason;
    assert_eq!((reason(evil).await.as_str(), reason(follower).await.as_str()), ("busy", "behind"));

    // While it goes on, what comes in on the slow route is held unjudged, and nobody else waits.
    let later = world.accept_on("/slow", "other", "{}").await;
    let innocent_too = world.accept("k").await;
    decider.pass().await.unwrap();
    assert_eq!(world.sent("k").await, [innocent, innocent_too]);
    assert_eq!(reason(later).await, "busy");

    decider.aside.idle(world.config.relay.patience.0).await;
    while decider.pass().await.unwrap() > 0 || !decider.aside.is_idle() {
        decider.aside.idle(world.config.relay.patience.0).await;
    }
    assert_eq!((reason(evil).await.as_str(), reason(follower).await.as_str()), ("fault", "behind"));
    let held = world.outbox.order(evil).await.unwrap().unwrap().held.unwrap();
    assert_eq!(held.attempts, 1, "being judged aside is no attempt of its own");
    let slow = world.outbox.records(Slot::of("/slow", "other"), 0, ALL).await.unwrap();
    assert!(slow.iter().any(|record| record.order_id == later), "the innocent order of the slow route went on");
}

/// The revision comes in the pass after the order's, or in the same one.
#[tokio::test]
async fn a_revision_counts_over_what_is_being_judged_aside() {
    for is_same_pass in [false, true] {
        let mut world = World::new().await;
        world.config.plugins.time_per_batch_min = Span(Duration::from_millis(300));
        world.config.plugins.time_per_batch_max = Span(Duration::from_millis(300));
        let mut decider = world.decider_of_two().await;
        // Its plugin accepts it in the end, so that a judgement of what it was before would make a record.
        let id = world.accept_on("/slow", "k", r#"{"other":1}"#).await;
        // It makes the batch of its route take long.
        world.accept_on("/slow", "evil", r#"{"evil":1}"#).await;
        if !is_same_pass {
            decider.pass().await.unwrap();
            assert!(!decider.aside.is_idle());
        }
        let revised = world.outbox.command(NewCommand {
            kind: EntryKind::Revise,
            order_id: id,
            route: "/slow".into(),
            payload: Some("{}".into()),
            order_key: Some("k".into()),
            idempotency: None,
        });
        assert_eq!(revised.await.unwrap(), Kept::New(id));
        // What is handed over in memory ends before a command; the log has them all.
        world.outbox.entries(&[(Slot(0), EntryPlace::START)], ALL).await.unwrap();
        decider.pass().await.unwrap();
        for _ in 0..6 {
            decider.aside.idle(world.config.relay.patience.0).await;
            decider.pass().await.unwrap();
        }
        let records = world.outbox.records(Slot::of("/slow", "k"), 0, ALL).await.unwrap();
        let of_order = records.iter().filter(|record| record.order_id == id).map(|record| &record.value[..]);
        assert_eq!(of_order.collect::<Vec<_>>(), [b"{}"], "in the same pass: {is_same_pass}");
    }
}

/// Whoever was named as under way is found after a death, also when passes were committed meanwhile.
#[tokio::test]
async fn a_death_over_what_is_judged_aside_makes_its_slot_suspect() {
    let mut world = World::new().await;
    world.config.plugins.time_per_batch_min = Span(Duration::from_secs(1));
    world.config.plugins.time_per_batch_max = Span(Duration::from_secs(1));
    let mut decider = world.decider_of_two().await;
    world.accept_on("/slow", "k", r#"{"evil":1}"#).await;
    decider.pass().await.unwrap();
    world.accept("other").await;
    // Slots without entries are moved on in this pass; one whose order is under way is not.
    decider.idle.entries = 1_000_000;
    decider.pass().await.unwrap();
    assert_eq!(decider.idle.entries, 0, "they were moved on");
    assert!(!decider.aside.is_idle());
    let tenures = world.outbox.take_over("node".to_owned()).await.unwrap();
    let suspects: Vec<Slot> =
        tenures.iter().filter(|tenure| tenure.suspicion.is_some()).map(|tenure| tenure.slot).collect();
    assert_eq!(suspects, [Slot::of("/slow", "k")]);
}

fn owning(held: &[(Slot, i64)]) -> Ownership {
    let ownership = Ownership::default();
    ownership.hold(held, None);
    ownership
}

#[tokio::test]
async fn only_slots_that_are_owned_are_decided_and_one_that_comes_later_from_where_it_stands() {
    let world = World::new().await;
    let (here, there) = (Slot::of("/orders", "k"), Slot::of("/orders", "other"));
    let epochs = world.epochs().await;
    let of = |slot: Slot| epochs.iter().copied().filter(|(own, _)| *own == slot).collect::<Vec<_>>();
    let mut decider = world.decider(&[]).await;
    let ownership = owning(&of(here));
    let (first, foreign) = (world.accept("k").await, world.accept("other").await);
    decider.follow(&ownership).await.unwrap();
    while decider.pass().await.unwrap() > 0 {}
    assert_eq!((world.sent("k").await, world.sent("other").await), (vec![first], Vec::new()));

    ownership.hold(&[of(here), of(there)].concat(), None);
    let second = world.accept("k").await;
    decider.follow(&ownership).await.unwrap();
    while decider.pass().await.unwrap() > 0 {}
    assert_eq!((world.sent("k").await, world.sent("other").await), (vec![first, second], vec![foreign]));
}

#[tokio::test]
async fn a_stale_owner_decides_nothing_and_its_successor_everything_once() {
    let world = World::new().await;
    let (mut before, mut after) = (world.decider(&[]).await, world.decider(&[]).await);
    let mut ids = vec![world.accept("k").await];
    for _ in 0..4 {
        while before.pass().await.unwrap() > 0 {}
        ids.push(world.accept("k").await);
        // The other node takes the slots over; this one does not know it yet.
        world.outbox.take_over("another".to_owned()).await.unwrap();
        before.pass().await.unwrap();
        assert_eq!(world.sent("k").await, ids[..ids.len() - 1], "the stale owner changed nothing");
        let ownership = owning(&world.epochs().await);
        after.follow(&ownership).await.unwrap();
        while after.pass().await.unwrap() > 0 {}
        assert_eq!(world.sent("k").await, ids);
        std::mem::swap(&mut before, &mut after);
    }
}

#[tokio::test]
async fn a_slot_whose_cursor_stands_elsewhere_is_loaded_afresh_by_itself() {
    let world = World::new().await;
    let (mut decider, mut another) = (world.decider(&[]).await, world.decider(&[]).await);
    let ownership = owning(&world.epochs().await);
    let first = world.accept("k").await;
    while another.pass().await.unwrap() > 0 {}
    let (second, foreign) = (world.accept("k").await, world.accept("other").await);
    decider.pass().await.unwrap();
    assert_eq!((world.sent("k").await, world.sent("other").await), (vec![first], vec![foreign]));
    assert_eq!(decider.slots.len(), usize::from(crate::order::SLOTS) - 1);
    decider.follow(&ownership).await.unwrap();
    while decider.pass().await.unwrap() > 0 {}
    assert_eq!(world.sent("k").await, [first, second]);
}

/// What waits behind a held order goes on waiting with the node that gets the slot.
#[tokio::test]
async fn a_slot_that_is_given_back_takes_its_held_orders_along() {
    let world = World::new().await;
    let (mut one, mut two) = (world.decider(&["absent"]).await, world.decider(&[]).await);
    let slot = Slot::of("/orders", "k");
    let ownership = owning(&world.epochs().await);
    let (head, follower) = (world.accept("k").await, world.accept("k").await);
    while one.pass().await.unwrap() > 0 {}
    ownership.give_back(usize::from(crate::order::SLOTS), std::time::Instant::now() + HOUR);
    one.follow(&ownership).await.unwrap();
    assert!(one.slots.is_empty() && !one.held.contains("/orders", "k"));
    world.clock.advance(HOUR);
    one.pass().await.unwrap();
    assert_eq!(world.status(head).await, OrderStatus::Held, "it begins nothing any more");

    world.outbox.take_over("another".to_owned()).await.unwrap();
    let ownership = owning(&world.epochs().await);
    two.follow(&ownership).await.unwrap();
    assert!(two.held.contains("/orders", "k") && two.slots.contains_key(&slot));
    while two.pass().await.unwrap() > 0 {}
    assert_eq!(world.sent("k").await, [head, follower]);
}

/// Both entries are read in one pass, before the revision is committed.
#[tokio::test]
async fn an_order_that_is_edited_and_redriven_at_once_goes_out_as_it_was_edited() {
    let world = World::new().await;
    let id = world.accept("k").await;
    let mut holding = world.decider(&["absent"]).await;
    holding.pass().await.unwrap();
    world.clock.advance(world.config.relay.hold_max.0);
    holding.pass().await.unwrap();
    let letter = world.outbox.dead(DeadFilter::default()).await.unwrap().remove(0);
    let edit = DeadEdit::Order { body: r#"{"mended":1}"#.into(), order_key: "k".into() };
    world.outbox.edit_dead(letter.id, edit, "bob".to_owned()).await.unwrap();
    world.outbox.redrive(letter.id, "bob".to_owned()).await.unwrap();
    let next = world.accept("k").await;
    let mut passing = world.decider(&[]).await;
    while passing.pass().await.unwrap() > 0 {}
    assert_eq!(world.sent("k").await, [id, next]);
    assert_eq!(&world.records("k").await[0].value[..], br#"{"mended":1}"#);
}
