//! Orders with several records: decided together, PUBLISHED when Kafka has the last.

use sluice::dead::{DeadEdit, DeadKind};
use sluice::entry::{Entry, EntryKind};
use sluice::order::{OrderId, OrderStatus, Slot};
use sluice::outbox::{DeadResult, Kept, SlotDeliveries, Step};
use sluice::record::Record;

use super::conformance;
use super::publishing::send_forgotten;
use super::world::{
    DEADLINE, ORDERS, START, World, delivered, die, entry_item, key_elsewhere, let_pass, record, reject,
};

const TOPICS: [&str; 3] = ["stock", "billing", "mail"];
const FITS: bool = false;
const REFUSED: bool = true;

/// Lets an order pass with a record for each topic.
fn let_pass_thrice(entry: &Entry) -> Step {
    let records = TOPICS.map(|topic| Record { topic: topic.to_owned(), ..record(entry, "order") });
    Step::Pass { records: records.to_vec(), patch: None }
}

async fn decided(world: &World, key: &str) -> OrderId {
    let id = world.accept(key).await;
    world.decide(let_pass_thrice).await;
    id
}

/// Commits what Kafka says of the next records of a key's slot, one by one.
async fn hear(world: &World, key: &str, fates: &[bool]) {
    let slot = Slot::of(ORDERS, key);
    for is_refused in fates {
        let (tenure, records) = (world.tenure(slot).await, world.unsent(slot).await);
        let items = vec![delivered(&records[0], *is_refused, false)];
        let (epoch, from, to) = (tenure.epoch, tenure.publish_cursor, records[0].number);
        assert_eq!(world.deliver(SlotDeliveries { slot, epoch, from, to, items }).await, Ok(()));
    }
}

async fn dead_order(world: &World, key: &str) -> (OrderId, i64) {
    let id = decided(world, key).await;
    hear(world, key, &[FITS, REFUSED]).await;
    assert_eq!(world.state(id).await, "HELD dead");
    let letter = world.dead(9).await.into_iter().find(|letter| letter.order_id == Some(id)).unwrap();
    (id, letter.id)
}

conformance! {
    async fn the_records_of_an_order_stand_together_in_the_log(world) {
        let (first, second) = (world.accept("k").await, world.accept("k").await);
        let entries = world.undecided().await;
        let tenure = world.tenure(Slot::of(ORDERS, "k")).await;
        let items = entries.iter().map(|entry| entry_item(entry, let_pass_thrice(entry))).collect();
        let part = world.part(&tenure, entries[1].place, items);
        assert_eq!(world.commit(part).await.unwrap().numbers, [Some(1), Some(4)]);
        let log = world.unsent(tenure.slot).await;
        let log: Vec<_> = log.iter().map(|record| (record.number, record.order_id, record.topic.as_str())).collect();
        let expected = [first, second].into_iter().flat_map(|id| TOPICS.map(|topic| (id, topic)));
        let expected: Vec<_> = (1..).zip(expected).map(|(number, (id, topic))| (number, id, topic)).collect();
        assert_eq!(log, expected);
    }

    async fn an_order_is_published_once_when_kafka_has_the_last_of_its_records(world) {
        let id = decided(world, "k").await;
        hear(world, "k", &[FITS, FITS]).await;
        let order = world.order(id).await;
        assert_eq!((order.status, order.version, order.deadline_at), (OrderStatus::Pending, 1, None));
        assert_eq!(world.kinds(id).await, ["accepted", "published", "published"]);
        world.later(DEADLINE * 3);
        hear(world, "k", &[FITS]).await;
        let order = world.order(id).await;
        assert_eq!((order.status, order.version, order.is_final), (OrderStatus::Published, 2, false));
        assert_eq!(order.deadline_at, Some(START.after(DEADLINE * 4)), "from the commit of the last");
        assert_eq!(world.kinds(id).await, ["accepted", "published", "published", "published"]);
    }

    async fn one_commit_may_publish_all_of_them(world) {
        let id = decided(world, "k").await;
        world.publish().await;
        let order = world.order(id).await;
        assert_eq!((order.status, order.version), (OrderStatus::Published, 2));
        assert_eq!(world.kinds(id).await, ["accepted", "published", "published", "published"]);
    }

    async fn replies_wait_until_the_last_record_is_there(world) {
        let id = decided(world, "k").await;
        hear(world, "k", &[FITS]).await;
        assert_eq!((world.reply(id, "A").await.early, world.reply(id, "B").await.early), (1, 1));
        hear(world, "k", &[FITS]).await;
        assert_eq!(world.status(id).await, OrderStatus::Pending);
        hear(world, "k", &[FITS]).await;
        let order = world.order(id).await;
        assert_eq!((order.status, order.version), (OrderStatus::Validated, 3));
        let kinds = world.kinds(id).await;
        assert_eq!(kinds[1..], ["published", "published", "published", "reply", "reply", "verdict"], "{kinds:?}");
    }

    async fn a_refused_record_makes_its_order_a_dead_letter_and_the_others_go_out(world) {
        let id = decided(world, "k").await;
        let next = decided(world, "k").await;
        hear(world, "k", &[FITS, REFUSED, FITS]).await;
        assert_eq!(world.state(id).await, "HELD dead");
        assert_eq!(world.kinds(id).await, ["accepted", "published", "held", "published"]);
        let letter = &world.dead(9).await[0];
        assert_eq!((letter.kind, letter.reason.as_str()), (DeadKind::Record, "refused-by-kafka"));
        assert!(letter.detail.contains("`billing`: too large"), "{}", letter.detail);
        hear(world, "k", &[FITS, FITS, FITS]).await;
        assert_eq!(world.status(next).await, OrderStatus::Published);
    }

    async fn an_order_dies_once_however_many_of_its_records_are_refused(world) {
        let id = decided(world, "k").await;
        hear(world, "k", &[REFUSED, REFUSED, REFUSED]).await;
        assert_eq!((world.state(id).await, world.dead(9).await.len()), ("HELD dead".to_owned(), 1));
        assert_eq!(world.kinds(id).await, ["accepted", "held", "refused", "refused"]);
    }

    async fn a_redriven_order_goes_out_whole_and_what_is_left_of_before_says_nothing(world) {
        for (key, leftover) in [("k".to_owned(), FITS), (key_elsewhere("k"), REFUSED)] {
            let (id, letter) = dead_order(world, &key).await;
            assert_eq!(world.redrive(letter).await, DeadResult::Accepted);
            world.decide(let_pass_thrice).await;
            assert_eq!(world.state(id).await, "PENDING");
            hear(world, &key, &[leftover]).await;
            assert_eq!(world.state(id).await, "PENDING", "that was one of those decided before");
            let topics: Vec<_> = world.unsent(Slot::of(ORDERS, &key)).await.into_iter().map(|record| record.topic).collect();
            assert_eq!(topics, TOPICS);
            hear(world, &key, &[FITS, FITS]).await;
            assert_eq!(world.state(id).await, "PENDING");
            hear(world, &key, &[FITS]).await;
            assert_eq!(world.state(id).await, "PUBLISHED");
        }
        assert!(world.dead(9).await.is_empty());
    }

    async fn an_order_that_had_several_records_may_have_one_after_a_redrive(world) {
        let (id, letter) = dead_order(world, "k").await;
        world.redrive(letter).await;
        world.decide(let_pass).await;
        hear(world, "k", &[FITS]).await;
        assert_eq!(world.state(id).await, "PENDING", "that was one of those decided before");
        hear(world, "k", &[FITS]).await;
        assert_eq!(world.state(id).await, "PUBLISHED");
    }

    async fn an_order_that_services_have_records_of_cannot_be_changed_and_its_end_is_told(world) {
        let (id, letter) = dead_order(world, "k").await;
        let edit = DeadEdit::Order { body: "{}".into(), order_key: "k".into() };
        assert_eq!(world.outbox.edit_dead(letter, edit, "ann".to_owned()).await.unwrap(), DeadResult::HasRecord);
        assert_eq!(world.command(id, EntryKind::Revise, Some("{}")).await, Kept::TooLate);
        assert_eq!(world.discard(letter).await, DeadResult::Accepted);
        world.decide(let_pass_thrice).await;
        assert_eq!(world.status(id).await, OrderStatus::Cancelled);
        let told: Vec<_> = world.undecided().await.iter().map(|entry| (entry.kind, entry.order_id)).collect();
        assert_eq!(told, [(EntryKind::Outcome, id)]);
    }

    async fn a_redriven_order_that_a_plugin_refuses_or_gives_up_stays_known_to_its_services(world) {
        let (id, letter) = dead_order(world, "k").await;
        world.redrive(letter).await;
        world.decide(|_| die()).await;
        let letter = world.dead(9).await.remove(0);
        assert_eq!((letter.kind, letter.reason.as_str()), (DeadKind::Order, "held-too-long"));
        world.redrive(letter.id).await;
        world.decide(reject).await;
        assert_eq!(world.status(id).await, OrderStatus::Rejected);
        let told: Vec<_> = world.undecided().await.iter().map(|entry| entry.kind).collect();
        assert_eq!(told, [EntryKind::Outcome]);
    }

    async fn an_order_cancelled_between_its_records_stays_cancelled(world) {
        let id = decided(world, "k").await;
        hear(world, "k", &[FITS]).await;
        world.command(id, EntryKind::Cancel, None).await;
        world.decide(let_pass_thrice).await;
        hear(world, "k", &[FITS, FITS]).await;
        assert_eq!(world.status(id).await, OrderStatus::Cancelled);
        let told: Vec<_> = world.undecided().await.iter().map(|entry| entry.kind).collect();
        assert_eq!(told, [EntryKind::Outcome]);
    }

    async fn a_forgetful_broker_gets_all_unanswered_records_of_an_order_again(world) {
        let (whole, half) = (decided(world, "k").await, decided(world, "k").await);
        hear(world, "k", &[FITS, FITS, FITS, FITS]).await;
        let one_order = 3 * world.unsent(Slot::of(ORDERS, "k")).await[0].value.len();
        assert_eq!(world.outbox.forget_broker(one_order / 2).await.unwrap(), 1, "all of an order, or none");
        assert_eq!(world.outbox.forget_broker(1 << 20).await.unwrap(), 4);
        let again = world.outbox.forgotten().await.unwrap();
        let again: Vec<_> = again.iter().map(|record| (record.order_id, record.topic.as_str())).collect();
        assert_eq!(again, [(whole, "stock"), (whole, "billing"), (whole, "mail"), (half, "stock")]);
        let version = world.order(whole).await.version;
        world.later(DEADLINE * 2);
        assert_eq!(send_forgotten(world).await, 4);
        let order = world.order(whole).await;
        assert_eq!((order.status, order.version), (OrderStatus::Published, version + 1));
        assert_eq!(order.deadline_at, Some(world.clock.now().after(DEADLINE)), "set anew");
        assert_eq!(world.status(half).await, OrderStatus::Pending);
        hear(world, "k", &[FITS, FITS]).await;
        assert_eq!(world.status(half).await, OrderStatus::Published);
    }
}
