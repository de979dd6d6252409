//! Publishing: the publish cursor, PUBLISHED, and a development broker that forgets.

use sluice::order::{OrderStatus, Slot};
use sluice::outbox::{Lost, SlotDeliveries};

use super::conformance;
use super::world::{DEADLINE, NOTES, ORDERS, START, World, delivered, enrich, key_beside};

/// The forgotten records of all slots are sent and noted.
pub(super) async fn send_forgotten(world: &World) -> usize {
    let records = world.outbox.forgotten().await.unwrap();
    for record in &records {
        let tenure = world.tenure(record.slot).await;
        let (from, items) = (tenure.publish_cursor, vec![delivered(record, false, true)]);
        let part = SlotDeliveries { slot: record.slot, epoch: tenure.epoch, from, to: from, items };
        assert_eq!(world.deliver(part).await, Ok(()));
    }
    records.len()
}

conformance! {
    async fn published_sets_the_deadline_and_shows_what_the_plugins_added(world) {
        let id = world.accept("k").await;
        world.decide(enrich).await;
        world.later(DEADLINE);
        world.publish().await;
        let order = world.order(id).await;
        assert_eq!((order.status, order.version, order.is_final), (OrderStatus::Published, 2, false));
        assert_eq!(order.deadline_at, Some(START.after(DEADLINE).after(DEADLINE)));
        assert!(String::from_utf8_lossy(&order.body).contains(r#""seen":true"#));
        assert_eq!(world.kinds(id).await, ["accepted", "published"]);
    }

    async fn published_is_final_where_no_reply_is_expected(world) {
        let id = world.accept_on(NOTES, "k").await;
        world.pass().await;
        world.publish().await;
        let order = world.order(id).await;
        assert_eq!((order.status, order.is_final, order.deadline_at), (OrderStatus::Published, true, None));
    }

    async fn the_publish_cursor_moves_once_from_where_it_was(world) {
        let id = world.accept("k").await;
        world.accept("k").await;
        world.pass().await;
        let slot = Slot::of(ORDERS, "k");
        let (tenure, records) = (world.tenure(slot).await, world.unsent(slot).await);
        let first = || {
            let items = vec![delivered(&records[0], false, false)];
            SlotDeliveries { slot, epoch: tenure.epoch, from: 0, to: 1, items }
        };
        assert_eq!(world.deliver(first()).await, Ok(()));
        let version = world.order(id).await.version;
        assert_eq!(world.deliver(first()).await, Err(Lost), "an answer that was lost is not asked for again");
        assert_eq!(world.order(id).await.version, version);
        assert_eq!(world.unsent(slot).await.len(), 1);
    }

    async fn records_come_as_they_were_decided(world) {
        let beside = key_beside("k");
        world.accept("k").await;
        world.accept(&beside).await;
        let entries = world.undecided().await;
        world.pass().await;
        let records = world.unsent(Slot::of(ORDERS, "k")).await;
        assert_eq!(records.len(), 2);
        for ((number, entry), record) in (1..).zip(&entries).zip(&records) {
            let decided = super::world::record(entry, "order");
            assert_eq!(*record, sluice::record::Record { number, ..decided });
        }
    }

    async fn an_outcome_is_sent_without_changing_its_order(world) {
        let id = world.published("k").await;
        world.take(vec![super::world::reply(id, "A", START), super::world::reply(id, "B", START)]).await;
        world.pass().await;
        let before = world.order(id).await;
        world.publish_but(|record| record.is_outcome).await;
        assert_eq!(world.order(id).await, before, "refused or not");
        assert!(world.dead(9).await.is_empty());
    }

    async fn a_forgetful_broker_gets_the_unanswered_again_in_order(world) {
        let (first, second) = (world.published("k").await, world.published("k").await);
        let answered = world.published("k").await;
        world.reply(answered, "NotA").await;
        world.pass().await;
        world.publish().await;
        assert_eq!(world.outbox.forget_broker(1 << 20).await.unwrap(), 2);
        let again: Vec<_> = world.outbox.forgotten().await.unwrap().iter().map(|record| record.order_id).collect();
        assert_eq!(again, [first, second]);
        assert_eq!(world.order(first).await.deadline_at, None, "not watched until it is noted");
        world.later(DEADLINE * 2);
        let version = world.order(first).await.version;
        assert_eq!(send_forgotten(world).await, 2);
        let order = world.order(first).await;
        assert_eq!((order.status, order.version), (OrderStatus::Published, version + 1));
        assert_eq!(order.deadline_at, Some(world.clock.now().after(DEADLINE)), "set anew");
        assert_eq!(send_forgotten(world).await, 0);
        assert_eq!(world.outbox.forget_broker(1).await.unwrap(), 0, "bounded by bytes");
    }

    async fn a_record_that_was_refused_does_not_go_to_the_new_broker(world) {
        let id = world.accept("k").await;
        world.pass().await;
        world.publish_but(|_| true).await;
        world.redrive(1).await;
        world.pass().await;
        world.publish().await;
        assert_eq!(world.state(id).await, "PUBLISHED");
        assert_eq!(world.outbox.forget_broker(1 << 20).await.unwrap(), 1);
        let numbers: Vec<_> = world.outbox.forgotten().await.unwrap().iter().map(|record| record.number).collect();
        assert_eq!(numbers, [2]);
    }
}
