//! Deciding: what passes, what is held, and that the orders of a key keep their order.

use std::time::Duration;

use sluice::entry::EntryKind;
use sluice::order::{OrderStatus, Slot};
use sluice::outbox::{Kept, Origin, Step, Strikes};

use super::conformance;
use super::world::{ALL, ORDERS, START, behind, enrich, item, let_pass, reject};

const MINUTE: Duration = Duration::from_secs(60);

conformance! {
    async fn deciding_alone_changes_nothing_a_client_sees(world) {
        let id = world.accept("k").await;
        let before = world.order(id).await;
        world.decide(enrich).await;
        assert_eq!(world.order(id).await, before);
    }

    async fn a_rejected_order_is_final_with_its_problems_and_no_record(world) {
        let id = world.accept("k").await;
        world.decide(reject).await;
        let order = world.order(id).await;
        assert_eq!((order.status, order.is_final, order.version), (OrderStatus::Rejected, true, 2));
        assert_eq!(order.problems[0].code, "no");
        assert!(world.unsent(Slot::of(ORDERS, "k")).await.is_empty());
        assert!(world.undecided().await.is_empty(), "nobody downstream knew of it");
    }

    async fn a_held_order_says_why_since_when_and_until_when(world) {
        let id = world.accept("k").await;
        world.decide(|_| world.hold()).await;
        let held = world.order(id).await.held.unwrap();
        assert_eq!((held.reason.as_str(), held.since, held.attempts), ("retry-later", START, 1));
        assert_eq!(held.next_attempt_at, Some(START.after(MINUTE)));
        assert!(world.due().await.is_empty());
        world.later(MINUTE);
        world.retry(|_| world.hold()).await;
        let held = world.order(id).await.held.unwrap();
        assert_eq!((held.since, held.attempts), (START, 2), "it waits since the first time");
        assert_eq!(world.outbox.held_keys().await.unwrap().len(), 1);
    }

    async fn what_an_order_did_while_it_was_held_stays_with_it_until_it_starts_anew(world) {
        let id = world.accept("k").await;
        world.decide(|_| world.hold_after(Strikes { deaths: 0, faults: 1 })).await;
        world.later(MINUTE);
        assert_eq!(world.due().await[0].strikes, Strikes { deaths: 0, faults: 1 });
        world.retry(|_| world.hold_after(Strikes { deaths: 1, faults: 2 })).await;
        world.later(MINUTE);
        assert_eq!(world.due().await[0].strikes, Strikes { deaths: 1, faults: 2 });
        // A revision is another text: what plugins failed on is gone, what killed the process may still do so.
        world.command(id, EntryKind::Revise, Some("{}")).await;
        world.pass().await;
        assert_eq!(world.due().await[0].strikes, Strikes { deaths: 1, faults: 0 });
    }

    async fn those_that_were_only_behind_have_done_nothing(world) {
        world.accept("k").await;
        world.decide(|_| world.hold_after(Strikes { deaths: 0, faults: 9 })).await;
        world.accept("k").await;
        world.decide(behind).await;
        world.later(MINUTE);
        let strikes: Vec<_> = world.due().await.iter().map(|held| held.strikes.faults).collect();
        assert_eq!(strikes, [9, 0]);
        world.retry(|_| Step::Die { reason: "poison", detail: "again".to_owned() }).await;
        assert_eq!(world.due().await[0].strikes, Strikes::default());
        let letter = world.dead(9).await.remove(0);
        world.redrive(letter.id).await;
        world.decide(|_| world.hold()).await;
        world.later(MINUTE);
        let strikes: Vec<_> = world.due().await.iter().map(|held| held.strikes.faults).collect();
        assert_eq!(strikes.iter().sum::<u32>(), 0, "a redrive counts anew");
    }

    async fn an_order_that_is_judged_aside_is_due_at_once_and_has_made_no_attempt(world) {
        let id = world.accept("k").await;
        world.decide(|_| Step::Aside).await;
        let held = world.order(id).await.held.unwrap();
        assert_eq!((held.reason.as_str(), held.attempts), ("busy", 0));
        assert_eq!(world.due().await[0].attempts, 0);
        world.later(MINUTE);
        world.retry(|_| world.hold()).await;
        let held = world.order(id).await.held.unwrap();
        assert_eq!((held.since, held.attempts), (START.after(MINUTE), 1), "it waits for itself since its first judgement");
    }

    async fn those_behind_a_held_order_follow_it_in_their_order(world) {
        let head = world.accept("k").await;
        world.decide(|_| world.hold()).await;
        let followers = [world.accept("k").await, world.accept("k").await];
        world.decide(behind).await;
        for id in followers {
            assert_eq!(world.state(id).await, "HELD behind");
            assert_eq!(world.order(id).await.held.unwrap().next_attempt_at, None);
        }
        world.later(MINUTE);
        let due: Vec<_> = world.due().await.iter().map(|held| held.entry.order_id).collect();
        assert_eq!(due, [head, followers[0], followers[1]]);
        for _ in 0..3 {
            world.retry(let_pass).await;
        }
        let sent: Vec<_> = world.unsent(Slot::of(ORDERS, "k")).await.iter().map(|record| record.order_id).collect();
        assert_eq!(sent, due);
        assert!(world.outbox.held_keys().await.unwrap().is_empty());
        assert_eq!(world.state(head).await, "PENDING");
    }

    async fn a_retry_that_was_taken_already_changes_nothing(world) {
        let id = world.accept("k").await;
        world.decide(|_| world.hold()).await;
        world.later(MINUTE);
        let held = world.due().await.remove(0);
        assert_eq!(world.retry_one(&held, world.hold()).await.unwrap().numbers, [None]);
        let before = world.order(id).await;
        assert_eq!(world.retry_one(&held, let_pass(&held.entry)).await.unwrap().numbers, [None]);
        assert_eq!(world.order(id).await, before);
        assert!(world.unsent(held.entry.slot).await.is_empty());
    }

    async fn an_order_held_again_stays_the_first_of_its_key(world) {
        let head = world.accept("k").await;
        world.decide(|_| world.hold()).await;
        world.later(MINUTE);
        world.accept("k").await;
        world.decide(behind).await;
        for _ in 0..3 {
            assert_eq!(world.due().await[0].entry.order_id, head);
            world.retry(|_| world.hold()).await;
            world.later(MINUTE);
        }
    }

    async fn a_revised_held_order_stays_before_those_accepted_meanwhile(world) {
        let head = world.accept("k").await;
        world.decide(|_| world.hold()).await;
        world.command(head, EntryKind::Revise, Some(r#"{"revised":1}"#)).await;
        let follower = world.accept("k").await;
        // The revision is decided after the other was accepted, and the held one fails again before it is decided.
        let entries = world.undecided().await;
        let tenure = world.tenure(entries[0].slot).await;
        let revise = item(head, Origin::Entry { kind: EntryKind::Revise, place: entries[0].place },
            sluice::outbox::Step::Revise(entries[0].payload.clone().unwrap()));
        world.commit(world.part(&tenure, entries[0].place, vec![revise])).await.unwrap();
        world.retry(|_| world.hold()).await;
        world.decide(behind).await;
        world.later(MINUTE);
        let due: Vec<_> = world.due().await.iter().map(|held| held.entry.order_id).collect();
        assert_eq!(due, [head, follower]);
    }

    async fn a_cancelled_head_lets_those_behind_close_up(world) {
        let (head, follower) = (world.accept("k").await, world.accept("k").await);
        world.decide(|entry| if entry.order_id == head { world.hold() } else { behind(entry) }).await;
        assert_eq!(world.command(head, EntryKind::Cancel, None).await, Kept::New(head));
        world.pass().await;
        assert_eq!(world.order(head).await.status, OrderStatus::Cancelled);
        assert_eq!(world.due().await[0].entry.order_id, follower, "due at once");
        assert!(world.undecided().await.is_empty(), "no record, no outcome");
    }

    async fn a_cancelled_follower_leaves_its_place(world) {
        let (head, follower) = (world.accept("k").await, world.accept("k").await);
        world.decide(|entry| if entry.order_id == head { world.hold() } else { behind(entry) }).await;
        world.command(follower, EntryKind::Cancel, None).await;
        world.pass().await;
        assert_eq!(world.state(follower).await, "CANCELLED");
        assert!(world.due().await.is_empty());
        world.later(MINUTE);
        assert_eq!(world.due().await.len(), 1);
    }

    async fn a_cancelled_order_with_a_record_emits_its_outcome(world) {
        for is_published in [false, true] {
            let id = world.accept("k").await;
            world.pass().await;
            if is_published {
                world.publish().await;
            }
            world.command(id, EntryKind::Cancel, None).await;
            world.pass().await;
            assert_eq!(world.state(id).await, "CANCELLED");
            let outcomes = world.undecided().await;
            assert_eq!(outcomes.iter().map(|entry| (entry.kind, entry.order_id)).collect::<Vec<_>>(), [(EntryKind::Outcome, id)]);
            world.pass().await;
            world.publish().await;
            assert_eq!(world.order(id).await.version, if is_published { 3 } else { 2 }, "an outcome changes no status");
        }
    }

    async fn a_cancel_against_a_final_state_only_stands_in_the_timeline(world) {
        let id = world.published("k").await;
        world.command(id, EntryKind::Cancel, None).await;
        world.reply(id, "NotA").await;
        let before = world.order(id).await;
        assert_eq!(before.status, OrderStatus::Rejected);
        world.pass().await;
        assert_eq!(world.order(id).await, before);
        assert_eq!(world.kinds(id).await.iter().filter(|kind| *kind == "cancelled").count(), 1);
        assert_eq!(world.undecided().await.len(), 0);
    }

    async fn a_revision_replaces_the_body_and_is_due_at_once(world) {
        let id = world.accept("k").await;
        world.decide(|_| world.hold()).await;
        world.command(id, EntryKind::Revise, Some(r#"{"revised":1}"#)).await;
        world.pass().await;
        assert_eq!((world.order(id).await.version, &world.order(id).await.body[..]), (3, &br#"{"revised":1}"#[..]));
        let due = world.due().await;
        assert_eq!(&due[0].entry.body[..], br#"{"revised":1}"#);
        world.retry(let_pass).await;
        assert_eq!(world.command(id, EntryKind::Revise, Some("{}")).await, Kept::TooLate, "a record exists");
    }

    async fn a_revision_overtaken_by_the_record_has_no_effect(world) {
        let id = world.accept("k").await;
        world.command(id, EntryKind::Revise, Some(r#"{"revised":1}"#)).await;
        let before = world.order(id).await;
        world.pass().await;
        assert_eq!(world.order(id).await, before);
        assert_eq!(world.kinds(id).await, ["accepted", "revised"]);
    }

    async fn a_long_queue_of_one_key_leaves_room_for_the_others(world) {
        let long = world.accept("long").await;
        for _ in 0..70 {
            world.accept("long").await;
        }
        let short = world.accept("short").await;
        world.decide(|entry| if [long, short].contains(&entry.order_id) { world.hold() } else { behind(entry) }).await;
        world.later(MINUTE);
        let due = world.outbox.due(vec![(ORDERS.into(), 70)], ALL.bytes).await.unwrap();
        assert!(due.iter().any(|held| held.entry.order_id == short), "{} orders, all of the long queue", due.len());
    }

    async fn due_orders_come_in_portions_and_never_past_a_gap(world) {
        let mut ids = Vec::new();
        for _ in 0..6 {
            ids.push(world.accept("k").await);
        }
        world.decide(|entry| if entry.order_id == ids[0] { world.hold() } else { behind(entry) }).await;
        world.later(MINUTE);
        let limits = sluice::outbox::ReadLimits { count: 4, ..ALL };
        let due: Vec<_> = world.outbox.due(vec![(ORDERS.into(), limits.count)], limits.bytes).await.unwrap().iter().map(|held| held.entry.order_id).collect();
        assert_eq!(due, ids[..4]);
    }
}
