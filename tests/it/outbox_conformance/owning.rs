//! Owning slots: epochs, cursors, and who is suspected after the process died.

use std::collections::HashSet;
use std::sync::Arc;

use sluice::entry::{Entry, EntryKind, EntryPlace};
use sluice::order::{OrderId, Slot};
use sluice::outbox::{Lost, Origin, Pass, Step, Suspicion, Tenure};

use super::conformance;
use super::world::{ORDERS, World, die, entry_item, item, key_beside, key_elsewhere, let_pass, new_order};

/// The process begins a pass over these slots and dies; another takes over.
async fn dies_in(world: &World, slots: &[Slot], alone: Option<(Slot, OrderId)>) -> Vec<Tenure> {
    let mut cursors = Vec::new();
    for slot in slots {
        cursors.push(format!("{}:{}", slot.0, world.tenure(*slot).await.decide_cursor));
    }
    let alone = match alone {
        Some((slot, id)) => Some((slot, world.tenure(slot).await.decide_cursor, id)),
        None => None,
    };
    world.outbox.begin(cursors.join(","), alone).await.unwrap();
    world.take_over().await
}

fn suspicion(tenures: &[Tenure], slot: Slot) -> Option<Suspicion> {
    tenures.iter().find(|tenure| tenure.slot == slot).unwrap().suspicion.clone()
}

async fn first_entry(world: &World, id: OrderId) -> Entry {
    world.undecided().await.into_iter().find(|entry| entry.order_id == id).unwrap()
}

conformance! {
    async fn a_take_over_raises_every_epoch_and_moves_no_cursor(world) {
        world.published("k").await;
        let before = world.outbox.tenures().await.unwrap();
        let after = world.take_over().await;
        assert_eq!(after.len(), 64);
        for (before, after) in before.into_iter().zip(after) {
            assert_eq!(after, Tenure { epoch: before.epoch + 1, ..before });
        }
    }

    async fn an_earlier_owner_decides_and_publishes_nothing(world) {
        let id = world.accept("k").await;
        let entry = first_entry(world, id).await;
        let stale = world.tenure(entry.slot).await;
        world.take_over().await;
        let part = world.part(&stale, entry.place, vec![entry_item(&entry, let_pass(&entry))]);
        assert!(matches!(world.commit(part).await, Err(Lost)));
        assert!(world.unsent(entry.slot).await.is_empty());
        assert_eq!(world.tenure(entry.slot).await.decide_cursor, stale.decide_cursor);
        assert!(!world.outbox.advance_idle(vec![(stale.slot, stale.epoch, stale.decide_cursor)], EntryPlace::of(9)).await.unwrap());
        world.pass().await;
        let record = world.unsent(entry.slot).await.remove(0);
        let items = vec![super::world::delivered(&record, false, false)];
        let part = sluice::outbox::SlotDeliveries { slot: entry.slot, epoch: stale.epoch, from: 0, to: 1, items };
        assert_eq!(world.deliver(part).await, Err(Lost));
        assert_eq!(world.kinds(id).await, ["accepted"]);
    }

    async fn a_batch_is_decided_once_however_often_it_is_committed(world) {
        let other = world.accept(&key_elsewhere("k")).await;
        let id = world.accept("k").await;
        let (entry, beside) = (first_entry(world, id).await, first_entry(world, other).await);
        let tenure = world.tenure(entry.slot).await;
        let part = || world.part(&tenure, entry.place, vec![entry_item(&entry, let_pass(&entry))]);
        assert_eq!(world.commit(part()).await.unwrap().numbers, [Some(1)]);
        // The part of the other slot goes on.
        let there = world.tenure(beside.slot).await;
        let fresh = world.part(&there, beside.place, vec![entry_item(&beside, let_pass(&beside))]);
        let results = world.commit_all(vec![part(), fresh]).await;
        assert!(matches!(&results[..], [Err(Lost), Ok(decided)] if decided.numbers == [Some(1)]));
        assert_eq!(world.unsent(entry.slot).await.len(), 1);
    }

    async fn records_are_numbered_from_one_without_gaps(world) {
        let beside = key_beside("k");
        for key in ["k", &beside, "k", &beside, "k"] {
            world.accept(key).await;
        }
        world.decide(|entry| if &*entry.order_key == "k" { let_pass(entry) } else { super::world::reject(entry) }).await;
        world.accept("k").await;
        world.take_over().await;
        world.pass().await;
        let numbers: Vec<i64> = world.unsent(Slot::of(ORDERS, "k")).await.iter().map(|record| record.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert!(world.outbox.log_ends().await.unwrap().contains(&(Slot::of(ORDERS, "k"), 4)));
    }

    async fn idle_slots_move_on_and_are_still_told_of_what_comes(world) {
        let tenure = world.tenure(Slot::of(ORDERS, "k")).await;
        world.accept(&key_elsewhere("k")).await;
        let last = world.outbox.last_entry().await.unwrap();
        assert!(world.outbox.advance_idle(vec![(tenure.slot, tenure.epoch, tenure.decide_cursor)], last).await.unwrap());
        let id = world.accept("k").await;
        assert_eq!(first_entry(world, id).await.order_id, id);
    }

    async fn three_deaths_at_one_cursor_are_counted_and_progress_forgets_them(world) {
        let id = world.accept("k").await;
        let slot = Slot::of(ORDERS, "k");
        for deaths in 1..=3 {
            let tenures = dies_in(world, &[slot], None).await;
            assert_eq!(suspicion(&tenures, slot), Some(Suspicion { deaths, alone: None }));
            assert_eq!(tenures.iter().filter(|tenure| tenure.suspicion.is_some()).count(), 1, "others are not blamed");
        }
        let entry = first_entry(world, id).await;
        let tenure = world.tenure(slot).await;
        let part = world.part(&tenure, entry.place, vec![entry_item(&entry, let_pass(&entry))]);
        world.commit(part).await.unwrap();
        assert_eq!(suspicion(&world.take_over().await, slot), None);
    }

    async fn a_process_that_ends_between_passes_is_nobodys_fault(world) {
        let id = world.accept("k").await;
        let slot = Slot::of(ORDERS, "k");
        world.outbox.begin(format!("{}:0", slot.0), None).await.unwrap();
        let entry = first_entry(world, id).await;
        let tenure = world.tenure(slot).await;
        world.commit(world.part(&tenure, entry.place, vec![entry_item(&entry, world.hold())])).await.unwrap();
        assert_eq!(suspicion(&world.take_over().await, slot), None);
    }

    async fn whoever_ran_alone_when_the_process_died_is_named(world) {
        let id = world.accept("k").await;
        let slot = Slot::of(ORDERS, "k");
        dies_in(world, &[slot], None).await;
        let tenures = dies_in(world, &[slot], Some((slot, id))).await;
        assert_eq!(suspicion(&tenures, slot), Some(Suspicion { deaths: 2, alone: Some(id) }));
    }

    async fn a_suspect_that_survived_is_not_blamed_for_the_next_one(world) {
        let (one, two) = (world.accept("k").await, world.accept(&key_elsewhere("k")).await);
        let (here, there) = (Slot::of(ORDERS, "k"), first_entry(world, two).await.slot);
        world.outbox.begin(format!("{}:0", here.0), Some((here, EntryPlace::START, one))).await.unwrap();
        let tenures = dies_in(world, &[there], Some((there, two))).await;
        assert_eq!(suspicion(&tenures, there).unwrap().alone, Some(two));
        assert_eq!(suspicion(&tenures, here).and_then(|suspicion| suspicion.alone), None);
    }

    async fn a_suspect_of_an_abandoned_pass_is_not_blamed_for_the_next_batch(world) {
        let id = world.accept("k").await;
        let slot = Slot::of(ORDERS, "k");
        world.outbox.begin(format!("{}:0", slot.0), Some((slot, EntryPlace::START, id))).await.unwrap();
        assert_eq!(dies_in(world, &[slot], None).await.iter().filter_map(|t| t.suspicion.as_ref()?.alone).count(), 0);
    }

    async fn looking_again_at_the_slots_accuses_and_acquits_nobody(world) {
        let id = world.accept("k").await;
        let slot = Slot::of(ORDERS, "k");
        dies_in(world, &[slot], None).await;
        world.outbox.begin(format!("{}:0", slot.0), Some((slot, EntryPlace::START, id))).await.unwrap();
        // The sender loads its slots afresh while the order runs alone.
        let seen = world.outbox.tenures().await.unwrap();
        assert_eq!(suspicion(&seen, slot).unwrap().alone, None, "it has not died");
        assert_eq!(suspicion(&world.take_over().await, slot).unwrap().alone, Some(id));
    }

    async fn each_death_of_a_held_order_that_runs_alone_is_counted(world) {
        let id = world.accept("k").await;
        world.decide(|_| world.hold()).await;
        let slot = Slot::of(ORDERS, "k");
        world.later(std::time::Duration::from_secs(60));
        for deaths in 1..=3 {
            dies_in(world, &[slot], Some((slot, id))).await;
            assert_eq!(world.due().await[0].strikes.deaths, deaths);
        }
        let held = world.due().await.remove(0);
        world.retry_one(&held, die()).await.unwrap();
        assert_eq!(world.state(id).await, "HELD dead");
        let other = new_order(ORDERS, "k");
        world.outbox.accept(other.clone()).await.unwrap();
        world.pass().await;
        assert_eq!(world.unsent(slot).await.len(), 1, "its key is released");
    }

    async fn a_survivor_that_ran_alone_is_acquitted_with_its_pass(world) {
        let id = world.accept("k").await;
        let slot = Slot::of(ORDERS, "k");
        let entry = first_entry(world, id).await;
        let tenure = world.tenure(slot).await;
        world.outbox.begin(format!("{}:0", slot.0), Some((slot, EntryPlace::START, id))).await.unwrap();
        let origin = Origin::Entry { kind: EntryKind::Order, place: entry.place };
        let part = world.part(&tenure, entry.place, vec![item(id, origin, Step::Skip)]);
        world.outbox.decide(Arc::new(Pass { slots: vec![part], ran_alone: true, still_open: String::new() })).await.unwrap();
        let blamed: HashSet<_> = world.take_over().await.into_iter().filter_map(|tenure| tenure.suspicion?.alone).collect();
        assert_eq!(blamed, HashSet::new());
    }
}
