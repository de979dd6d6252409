//! Versions: they rise by one, and history rebuilds what was shown at each, whatever happened in whatever order.

use std::collections::HashMap;
use std::time::Duration;

use harness::random::Dice;
use sluice::entry::EntryKind;
use sluice::order::{OrderId, OrderStatus, OrderView};
use sluice::outbox::{OrderFilter, Versions};

use super::conformance;
use super::world::{GRACE, NOTES, ORDERS, World, behind, die, enrich, entry_item, let_pass, reject, reply, said};

const STEPS: u64 = 120;
const SEEDS: u64 = 12;

/// What each order showed, version by version.
#[derive(Default)]
struct Remembered(HashMap<OrderId, Vec<OrderView>>);

impl Remembered {
    /// Looks at every order; what changed must be its next version.
    async fn look(&mut self, world: &World) {
        let filter = OrderFilter { limit: usize::MAX, ..OrderFilter::default() };
        for order in world.outbox.list(filter).await.unwrap() {
            let seen = self.0.entry(order.id).or_default();
            match seen.last() {
                Some(last) if *last == order => {}
                Some(last) => {
                    assert!(!last.is_final, "a final state was left: {last:?} {order:?}");
                    assert!(order.version > last.version, "changed without a version: {last:?} {order:?}");
                    let Some(Versions::Next(next)) = world.outbox.versions(order.id, last.version).await.unwrap()
                    else {
                        panic!("{order:?}");
                    };
                    seen.extend(next);
                    assert_eq!(seen.last(), Some(&order));
                }
                None => seen.push(order),
            }
        }
    }

    async fn compare(&self, world: &World) {
        for (id, seen) in &self.0 {
            let Some(Versions::Next(all)) = world.outbox.versions(*id, 0).await.unwrap() else { panic!("{id}") };
            assert_eq!(all, *seen);
            assert!(all.iter().map(|order| order.version).eq(1..=all.len() as u64), "{all:?}");
            let kinds = world.kinds(*id).await;
            let published = kinds.iter().position(|kind| kind == "published");
            let first_reply = kinds.iter().position(|kind| kind == "reply");
            let was_published = seen.iter().any(|order| order.status == OrderStatus::Published);
            if was_published && let Some(first_reply) = first_reply {
                assert!(published.is_some_and(|published| published < first_reply), "{kinds:?}");
            }
            for held in seen.iter().filter_map(|order| order.held.as_ref()) {
                assert!(held.reason == "dead" || held.reason == "behind" || held.next_attempt_at.is_some());
            }
        }
    }
}

async fn decide_one(world: &World, dice: &mut Dice) {
    let keys = world.outbox.held_keys().await.unwrap();
    let roll = dice.below(6);
    let mut seen = keys;
    for entry in world.undecided().await {
        let is_order = matches!(entry.kind, EntryKind::Order | EntryKind::Redrive);
        let key = (entry.slot, entry.route.clone(), entry.order_key.clone());
        let step = match (entry.kind, roll) {
            (EntryKind::Cancel, _) => sluice::outbox::Step::Cancel,
            (EntryKind::Discard, _) => sluice::outbox::Step::Discard,
            (EntryKind::Revise, _) => sluice::outbox::Step::Revise(entry.payload.clone().unwrap()),
            (EntryKind::Outcome, _) => sluice::outbox::Step::Outcome(Box::new(super::world::record(&entry, "outcome"))),
            (EntryKind::Order | EntryKind::Redrive, _) if seen.contains(&key) => behind(&entry),
            (_, 0) => reject(&entry),
            (_, 1 | 2) => world.hold(),
            (_, 3) => enrich(&entry),
            _ => let_pass(&entry),
        };
        if is_order && matches!(step, sluice::outbox::Step::Hold { .. }) {
            seen.push(key);
        }
        let tenure = world.tenure(entry.slot).await;
        let mut item = entry_item(&entry, step);
        item.runs = said();
        world.commit(world.part(&tenure, entry.place, vec![item])).await.unwrap();
    }
}

async fn retry_one(world: &World, dice: &mut Dice) {
    world.later(Duration::from_secs(60));
    let Some(held) = world.due().await.into_iter().next() else { return };
    let step = match dice.below(5) {
        0 => world.hold(),
        1 => die(),
        2 => reject(&held.entry),
        3 => enrich(&held.entry),
        _ => let_pass(&held.entry),
    };
    world.retry_one(&held, step).await.unwrap();
}

async fn act(world: &World, dice: &mut Dice, ids: &mut Vec<OrderId>) {
    let kinds = ["A", "B", "NotA", "Strange"];
    let any = |dice: &mut Dice, ids: &[OrderId]| ids[usize::try_from(dice.below(ids.len() as u64)).unwrap()];
    match dice.below(12) {
        0 | 1 => {
            let route = if dice.below(4) == 0 { NOTES } else { ORDERS };
            ids.push(world.accept_on(route, ["k", "l"][usize::try_from(dice.below(2)).unwrap()]).await);
        }
        2 | 3 => decide_one(world, dice).await,
        4 => retry_one(world, dice).await,
        5 => {
            let refuses = dice.below(3) == 0;
            world.publish_but(|_| refuses).await;
        }
        6 | 7 => {
            let at = world.clock.now();
            let kind = kinds[usize::try_from(dice.below(4)).unwrap()];
            world.take(vec![reply(any(dice, ids), kind, at), reply(any(dice, ids), "A", at)]).await;
        }
        8 => {
            let id = any(dice, ids);
            match dice.below(3) {
                0 => world.command(id, EntryKind::Cancel, None).await,
                _ => world.command(id, EntryKind::Revise, Some(r#"{"revised":true}"#)).await,
            };
        }
        9 => {
            for letter in world.dead(1).await {
                match dice.below(3) {
                    0 => world.discard(letter.id).await,
                    _ => world.redrive(letter.id).await,
                };
            }
        }
        10 => {
            world.later(GRACE);
            world.expire(world.clock.now(), Vec::new(), 2).await;
        }
        _ => drop(world.outbox.forget_broker(1 << 20).await.unwrap()),
    }
}

conformance! {
    async fn history_rebuilds_what_was_shown_at_every_version(world) {
        let mut remembered = Remembered::default();
        for seed in 0..SEEDS {
            let mut dice = Dice::new(seed);
            let mut ids = vec![world.accept("k").await];
            remembered.look(world).await;
            for _ in 0..STEPS {
                act(world, &mut dice, &mut ids).await;
                remembered.look(world).await;
                world.keeps_count().await;
            }
        }
        remembered.compare(world).await;
    }

    async fn a_patch_that_was_refused_with_its_record_is_not_shown_again(world) {
        let id = world.accept("k").await;
        world.decide(enrich).await;
        world.publish_but(|_| true).await;
        world.redrive(1).await;
        world.pass().await;
        world.publish().await;
        let now = world.order(id).await;
        assert!(!String::from_utf8_lossy(&now.body).contains("seen"));
        let Some(Versions::Next(all)) = world.outbox.versions(id, 0).await.unwrap() else { panic!() };
        assert_eq!(all.last(), Some(&now));
        let statuses: Vec<_> = all.iter().map(|order| order.status).collect();
        assert_eq!(statuses, [OrderStatus::Pending, OrderStatus::Held, OrderStatus::Pending, OrderStatus::Published]);
    }
}
