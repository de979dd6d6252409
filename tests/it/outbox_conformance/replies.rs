//! Replies: each counts once, in any order, until the verdict; silence expires.

use std::time::Duration;

use sluice::entry::EntryKind;
use sluice::order::{OrderId, OrderStatus, Slot};
use sluice::outbox::{Expiring, Fates};

use super::conformance;
use super::world::{DEADLINE, GRACE, NOTES, ORDERS, World, key_elsewhere, position, reply, reply_at};

async fn outcomes(world: &World, id: OrderId) -> usize {
    let is_outcome = |kind| kind == EntryKind::Outcome;
    world.undecided().await.iter().filter(|entry| entry.order_id == id && is_outcome(entry.kind)).count()
}

/// Asks for the ends and expires what is due.
async fn expire(world: &World, ends: &[(i32, i64)]) -> usize {
    let asked_at = world.clock.now();
    let ends: Vec<_> = ends.iter().map(|(partition, end)| position(*partition, *end)).collect();
    world.outbox.note_ends(asked_at, ends.clone()).await.unwrap();
    world.expire(asked_at, ends, 100).await.unwrap_or(0)
}

async fn reads_up_to(world: &World, positions: &[(i32, i64)]) {
    let positions = positions.iter().map(|(partition, next)| position(*partition, *next)).collect();
    world.take_all(Vec::new(), positions, "").await;
}

conformance! {
    async fn all_required_replies_in_any_order_validate(world) {
        for kinds in [["A", "B"], ["B", "A"]] {
            let id = world.published("k").await;
            world.reply(id, kinds[0]).await;
            assert_eq!((world.status(id).await, world.order(id).await.version), (OrderStatus::Published, 2), "no version");
            world.reply(id, kinds[1]).await;
            let order = world.order(id).await;
            assert_eq!((order.status, order.version, order.deadline_at), (OrderStatus::Validated, 3, None));
            assert_eq!(outcomes(world, id).await, 1);
            assert_eq!(world.kinds(id).await, ["accepted", "published", "reply", "reply", "verdict"]);
        }
    }

    async fn one_refusal_rejects_with_its_problems(world) {
        let id = world.published("k").await;
        let refusal = sluice::reply::Reply { problems: vec![super::world::problem("stock")], ..reply(id, "NotB", world.clock.now()) };
        world.take(vec![refusal]).await;
        assert_eq!(world.order(id).await.problems, [super::world::problem("stock")]);
        assert_eq!(outcomes(world, id).await, 1);
        let id = world.published("k").await;
        world.reply(id, "NotA").await;
        assert_eq!(world.order(id).await.problems[0].code, "NotA", "a refusal without a word is a problem of its own");
    }

    async fn among_replies_of_one_transaction_a_refusal_wins(world) {
        let (id, now) = (world.published("k").await, world.clock.now());
        world.take(vec![reply(id, "A", now), reply(id, "B", now), reply(id, "NotA", now)]).await;
        assert_eq!(world.status(id).await, OrderStatus::Rejected);
        assert_eq!(outcomes(world, id).await, 1);
    }

    async fn what_is_committed_first_counts(world) {
        let (id, now) = (world.published("k").await, world.clock.now());
        world.take(vec![reply(id, "A", now), reply(id, "B", now)]).await;
        let before = world.order(id).await;
        let fates = world.take(vec![reply(id, "NotA", now)]).await;
        assert_eq!(fates, Fates { late: 1, ..Fates::default() });
        assert_eq!(world.order(id).await, before);
        assert_eq!(outcomes(world, id).await, 1);
    }

    async fn early_replies_are_judged_with_published_as_two_versions(world) {
        let id = world.accept("k").await;
        world.pass().await;
        assert_eq!(world.reply(id, "A").await.early, 1);
        assert_eq!(world.reply(id, "B").await.early, 1);
        assert_eq!((world.status(id).await, world.order(id).await.version), (OrderStatus::Pending, 1));
        world.publish().await;
        assert_eq!((world.status(id).await, world.order(id).await.version), (OrderStatus::Validated, 3));
        assert_eq!(world.kinds(id).await, ["accepted", "published", "reply", "reply", "verdict"]);
        assert_eq!(outcomes(world, id).await, 1);
    }

    async fn an_early_refusal_wins_over_early_consent(world) {
        let id = world.accept("k").await;
        for kind in ["A", "B", "NotB"] {
            world.reply(id, kind).await;
        }
        world.pass().await;
        world.publish().await;
        assert_eq!(world.status(id).await, OrderStatus::Rejected);
    }

    async fn published_stands_before_every_reply_whatever_it_says(world) {
        let id = world.accept("k").await;
        for kind in ["Strange", "A"] {
            world.reply(id, kind).await;
        }
        world.pass().await;
        world.publish().await;
        assert_eq!(world.kinds(id).await, ["accepted", "published", "reply", "reply"]);
        assert_eq!(world.status(id).await, OrderStatus::Published);
    }

    async fn a_repeated_reply_is_counted_once(world) {
        let (id, now) = (world.published("k").await, world.clock.now());
        let by_id = reply(id, "A", now);
        let moved = sluice::reply::Reply { place: reply_at(id, "A", now, 9).place, ..by_id.clone() };
        assert_eq!(world.take(vec![by_id.clone(), by_id, moved]).await, Fates { counted: 1, repeated: 2, ..Fates::default() });
        assert_eq!(world.take(vec![reply_at(id, "A", now, 7), reply_at(id, "A", now, 7)]).await.repeated, 1);
        assert_eq!(world.take(vec![reply_at(id, "A", now, 8)]).await.repeated, 0);
        assert_eq!(world.status(id).await, OrderStatus::Published, "one reply per service and kind");
    }

    async fn the_same_place_of_another_incarnation_is_another_reply(world) {
        let (id, now) = (world.published("k").await, world.clock.now());
        for (incarnation, kind) in [("first", "A"), ("second", "B")] {
            let fates = world.take_all(vec![Ok(reply_at(id, kind, now, 0))], Vec::new(), incarnation).await;
            assert_eq!(fates.repeated, 0);
        }
        assert_eq!(world.status(id).await, OrderStatus::Validated);
    }

    async fn a_reply_that_was_not_asked_for_only_stands_in_the_timeline(world) {
        let id = world.published("k").await;
        let before = world.order(id).await;
        assert_eq!(world.reply(id, "Strange").await.unasked, 1);
        assert_eq!(world.order(id).await, before);
        assert_eq!(world.kinds(id).await, ["accepted", "published", "reply"]);
        let silent = world.accept_on(NOTES, "k").await;
        world.pass().await;
        world.publish().await;
        assert_eq!(world.reply(silent, "A").await.unasked, 1);
    }

    async fn a_reply_to_nobody_is_parked(world) {
        assert_eq!(world.reply(OrderId::generate(), "A").await.parked, 1);
    }

    async fn a_reply_sent_after_the_deadline_is_late(world) {
        let id = world.published("k").await;
        let deadline = world.order(id).await.deadline_at.unwrap();
        world.take(vec![reply(id, "A", deadline)]).await;
        assert_eq!(world.take(vec![reply(id, "B", deadline.after(Duration::from_millis(1)))]).await.late, 1);
        assert_eq!(world.status(id).await, OrderStatus::Published);
        assert_eq!(world.take(vec![reply(id, "B", deadline)]).await.counted, 1, "in time and read late");
        assert_eq!(world.status(id).await, OrderStatus::Validated);
    }

    async fn a_reply_behind_the_end_as_asked_is_late_whatever_its_time(world) {
        let (id, sent) = (world.published("k").await, world.clock.now());
        world.later(DEADLINE + GRACE);
        assert_eq!(expire(world, &[(0, 5)]).await, 0, "not read yet");
        assert_eq!(world.take(vec![reply_at(id, "NotA", sent, 5)]).await.late, 1);
        assert_eq!(world.take(vec![reply_at(id, "A", sent, 4), reply_at(id, "B", sent, 3)]).await.counted, 2);
        assert_eq!(world.status(id).await, OrderStatus::Validated);
    }

    async fn an_order_expires_once_every_partition_is_read_to_its_end(world) {
        let id = world.published("k").await;
        world.later(DEADLINE);
        assert_eq!(expire(world, &[(0, 0)]).await, 0, "the grace runs");
        world.later(GRACE);
        assert_eq!(world.outbox.overdue(Slot::all().collect(), GRACE).await.unwrap(), Some(world.clock.now()));
        reads_up_to(world, &[(0, 5)]).await;
        assert_eq!(expire(world, &[(0, 5), (1, 3)]).await, 0);
        reads_up_to(world, &[(1, 2)]).await;
        let ends = || vec![position(0, 5), position(1, 3)];
        assert_eq!(world.expire(world.clock.now(), ends(), 9).await, None);
        reads_up_to(world, &[(1, 3)]).await;
        let other = Expiring { topic: "other".to_owned(), ..world.expiring(world.clock.now(), Vec::new(), 9).await };
        assert_eq!(world.outbox.expire(other).await.unwrap(), Some(0));
        assert_eq!(world.expire(world.clock.now(), ends(), 9).await, Some(1));
        let order = world.order(id).await;
        assert_eq!((order.status, order.is_final, order.deadline_at), (OrderStatus::Expired, true, None));
        assert_eq!(outcomes(world, id).await, 1);
        assert_eq!(world.reply(id, "NotA").await.late, 1);
        assert_eq!(world.outbox.overdue(Slot::all().collect(), Duration::ZERO).await.unwrap(), None);
    }

    async fn orders_expire_in_portions_and_none_before_its_time(world) {
        for _ in 0..3 {
            world.published("k").await;
        }
        world.later(Duration::from_secs(1));
        let later = world.published("k").await;
        world.later(DEADLINE + GRACE - Duration::from_secs(1));
        let now = world.clock.now();
        for expected in [2, 1, 0] {
            assert_eq!(world.expire(now, Vec::new(), 2).await, Some(expected));
        }
        assert_eq!(world.status(later).await, OrderStatus::Published);
    }

    async fn only_the_owner_of_a_slot_expires_its_orders(world) {
        let id = world.published("k").await;
        world.later(DEADLINE + GRACE);
        let stale = world.expiring(world.clock.now(), Vec::new(), 9).await;
        world.take_over().await;
        assert_eq!(world.outbox.expire(stale).await.unwrap(), Some(0));
        assert_eq!(world.status(id).await, OrderStatus::Published);
        let elsewhere = world.expiring(world.clock.now(), Vec::new(), 9).await;
        let slots = elsewhere.slots.iter().copied().filter(|(slot, _)| *slot != Slot::of(ORDERS, "k")).collect();
        assert_eq!(world.outbox.expire(Expiring { slots, ..elsewhere }).await.unwrap(), Some(0));
        assert_eq!(world.expire(world.clock.now(), Vec::new(), 9).await, Some(1));
    }

    async fn ends_that_another_node_cleared_away_are_waited_for_all_the_same(world) {
        let (one, two) = (world.published("k").await, world.published(&key_elsewhere("k")).await);
        world.later(DEADLINE + GRACE);
        let (asked_at, ends) = (world.clock.now(), vec![position(0, 5)]);
        world.outbox.note_ends(asked_at, ends.clone()).await.unwrap();
        world.later(Duration::from_secs(1));
        // The other node asked later and is done already: its clearing away is nothing to us.
        let all = world.expiring(world.clock.now(), Vec::new(), 9).await;
        let slots = all.slots.iter().copied().filter(|(slot, _)| *slot != Slot::of(ORDERS, "k")).collect();
        assert_eq!(world.outbox.expire(Expiring { slots, ..all }).await.unwrap(), Some(1));
        assert_eq!(world.status(two).await, OrderStatus::Expired);
        assert_eq!(world.expire(asked_at, ends, 9).await, None);
        assert_eq!(world.status(one).await, OrderStatus::Published);
    }

    async fn a_reader_that_starts_again_does_not_move_back(world) {
        world.published("k").await;
        reads_up_to(world, &[(0, 5)]).await;
        reads_up_to(world, &[(0, 2)]).await;
        world.later(DEADLINE + GRACE);
        assert_eq!(expire(world, &[(0, 5)]).await, 1);
    }
}
