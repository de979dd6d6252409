//! Taking orders in: one transaction, one order per idempotency key.

use sluice::entry::{EntryKind, EntryPlace};
use sluice::order::{OrderId, OrderStatus, Slot};
use sluice::outbox::{Kept, NewCommand, ReadLimits};

use super::conformance;
use super::world::{ALL, NOTES, ORDERS, START, new_order, with_key};

conformance! {
    async fn an_accepted_order_is_there_with_its_entry_and_its_history(world) {
        let order = new_order(ORDERS, "k");
        assert_eq!(world.outbox.accept(order.clone()).await.unwrap(), Kept::New(order.id));
        let view = world.order(order.id).await;
        assert_eq!((view.status, view.version, view.is_final, &view.body), (OrderStatus::Pending, 1, false, &order.body));
        assert_eq!((view.accepted_at, view.updated_at, &*view.route), (START, START, ORDERS));
        assert_eq!(world.kinds(order.id).await, ["accepted"]);
        let entries = world.undecided().await;
        let [entry] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((entry.kind, entry.order_id, entry.slot), (EntryKind::Order, order.id, Slot::of(ORDERS, "k")));
        assert_eq!(world.outbox.oldest_undecided().await.unwrap(), Some(START));
        world.pass().await;
        assert_eq!(world.outbox.oldest_undecided().await.unwrap(), None);
    }

    async fn the_same_request_again_is_the_same_order(world) {
        let first = with_key(new_order(ORDERS, "k"), 1, 1);
        assert_eq!(world.outbox.accept(first.clone()).await.unwrap(), Kept::New(first.id));
        let again = with_key(new_order(ORDERS, "k"), 1, 1);
        assert_eq!(world.outbox.accept(again.clone()).await.unwrap(), Kept::Replay(first.id));
        assert!(world.outbox.order(again.id).await.unwrap().is_none());
        assert_eq!(world.undecided().await.len(), 1);
    }

    async fn another_body_under_the_same_idempotency_key_is_refused(world) {
        world.outbox.accept(with_key(new_order(ORDERS, "k"), 1, 1)).await.unwrap();
        let other = with_key(new_order(ORDERS, "k"), 1, 2);
        assert_eq!(world.outbox.accept(other).await.unwrap(), Kept::KeyReused);
    }

    async fn twins_in_one_batch_are_one_order(world) {
        let (one, two) = (with_key(new_order(ORDERS, "k"), 1, 1), with_key(new_order(ORDERS, "k"), 1, 1));
        let other = with_key(new_order(ORDERS, "k"), 1, 2);
        let kept = world.outbox.accept_all(vec![one.clone(), two, other, new_order(NOTES, "n")]).await.unwrap();
        let [first, second, third, fourth] = kept[..] else { panic!("{kept:?}") };
        assert_eq!((first, second, third), (Kept::New(one.id), Kept::Replay(one.id), Kept::KeyReused));
        assert!(matches!(fourth, Kept::New(_)));
        assert_eq!(world.undecided().await.len(), 2);
    }

    async fn a_command_that_comes_to_nothing_leaves_its_idempotency_key_free(world) {
        let id = world.accept_on(NOTES, "k").await;
        world.command(id, EntryKind::Cancel, None).await;
        world.pass().await;
        let hash = with_key(new_order(NOTES, "k"), 1, 1).idempotency;
        for (order_id, kept) in [(id, Kept::TooLate), (OrderId::generate(), Kept::Unknown)] {
            let (kind, route) = (EntryKind::Cancel, NOTES.into());
            let command = NewCommand { kind, order_id, route, payload: None, order_key: None, idempotency: hash };
            assert_eq!(world.outbox.command(command).await.unwrap(), kept);
        }
        let order = with_key(new_order(NOTES, "k"), 1, 2);
        assert_eq!(world.outbox.accept(order.clone()).await.unwrap(), Kept::New(order.id));
        assert_eq!(world.outbox.accept(order.clone()).await.unwrap(), Kept::Replay(order.id));
    }

    async fn entries_come_in_the_order_of_acceptance_and_in_portions(world) {
        let mut ids = Vec::new();
        for number in 0..10 {
            ids.push(world.accept(&format!("k{number}")).await);
        }
        let (mut after, mut read) = (EntryPlace::START, Vec::<OrderId>::new());
        loop {
            let entries = world.entries(after, ReadLimits { count: 3, ..ALL }).await;
            let Some(last) = entries.last() else { break };
            assert!(entries.len() <= 3 && entries[0].place > after);
            after = last.place;
            read.extend(entries.iter().map(|entry| entry.order_id));
        }
        assert_eq!(read, ids);
        assert_eq!(world.entries(EntryPlace::START, ReadLimits { bytes: 1, ..ALL }).await.len(), 1, "one fits always");
    }

    async fn what_is_handed_over_is_what_would_be_read(world) {
        for number in 0..5 {
            world.accept(&format!("k{number}")).await;
        }
        // The first read takes what was handed over, the second finds nothing of it left.
        let handed_over = world.entries(EntryPlace::START, ALL).await;
        let read = world.entries(EntryPlace::START, ALL).await;
        assert_eq!(handed_over.len(), 5);
        assert_eq!(format!("{handed_over:?}"), format!("{read:?}"));
    }

    async fn a_command_comes_too_late_for_a_final_order_and_finds_no_order_of_another_route(world) {
        let id = world.accept_on(NOTES, "k").await;
        assert_eq!(world.command(id, EntryKind::Cancel, None).await, Kept::New(id));
        world.pass().await;
        assert_eq!(world.status(id).await, OrderStatus::Cancelled);
        assert_eq!(world.command(id, EntryKind::Cancel, None).await, Kept::TooLate);
        assert_eq!(world.command(id, EntryKind::Revise, Some("{}")).await, Kept::TooLate);
    }
}
