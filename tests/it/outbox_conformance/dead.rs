//! Dead letters: orders held too long, records Kafka refuses, things that are no replies.

use std::time::Duration;

use bytes::Bytes;
use sluice::dead::DeadKind;
use sluice::entry::EntryKind;
use sluice::order::{OrderId, OrderStatus, Slot};
use sluice::outbox::DeadResult;
use sluice::reply::{Place, PoisonReply, RawReply};

use super::conformance;
use super::world::{ORDERS, START, TOPIC, World, behind, die, enrich, let_pass, position};

async fn only_letter(world: &World) -> i64 {
    let letters = world.outbox.dead(None, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters[0].id
}

/// An order that died of being held.
async fn dead_order(world: &World) -> OrderId {
    let id = world.accept("k").await;
    world.decide(|_| world.hold()).await;
    world.later(Duration::from_secs(60));
    world.retry(|_| die()).await;
    id
}

fn poison(offset: i64) -> PoisonReply {
    let place = Place { topic: TOPIC.to_owned(), partition: 0, offset };
    let value = Some(Bytes::from_static(b"?"));
    let raw = RawReply { place, timestamp: START, key: None, headers: Vec::new(), value };
    PoisonReply { raw: Box::new(raw), reason: "it names no order".to_owned() }
}

conformance! {
    async fn a_dead_order_waits_for_the_operator_and_releases_its_key(world) {
        let (id, follower) = (world.accept("k").await, world.accept("k").await);
        world.decide(|entry| if entry.order_id == id { world.hold() } else { behind(entry) }).await;
        world.later(Duration::from_secs(60));
        world.retry(|_| die()).await;
        let held = world.order(id).await.held.unwrap();
        assert_eq!((held.reason.as_str(), held.next_attempt_at), ("dead", None));
        assert_eq!(world.due().await[0].entry.order_id, follower);
        let letter = world.outbox.dead_letter(only_letter(world).await).await.unwrap().unwrap();
        assert_eq!((letter.kind, letter.order_id, letter.reason.as_str()), (DeadKind::Order, Some(id), "held-too-long"));
        assert_eq!((letter.attempts, letter.plugins.as_str()), (2, "rules@sha256:0"));
        assert_eq!(letter.payload, world.order(id).await.body);
        assert!(world.outbox.dead_counts().await.unwrap().contains(&(DeadKind::Order, 1)));
    }

    async fn a_redriven_order_goes_to_the_end_of_its_key(world) {
        let id = dead_order(world).await;
        let follower = world.accept("k").await;
        assert_eq!(world.outbox.redrive(only_letter(world).await).await.unwrap(), DeadResult::Accepted);
        world.pass().await;
        let records = world.unsent(Slot::of(ORDERS, "k")).await;
        assert_eq!(records.iter().map(|record| record.order_id).collect::<Vec<_>>(), [follower, id]);
        assert_eq!(world.state(id).await, "PENDING");
        assert!(world.kinds(id).await.contains(&"redriven".to_owned()));
    }

    async fn a_redriven_order_stands_behind_one_that_is_held(world) {
        let id = dead_order(world).await;
        let head = world.accept("k").await;
        world.outbox.redrive(only_letter(world).await).await.unwrap();
        world.decide(|entry| if entry.order_id == head { world.hold() } else { behind(entry) }).await;
        assert_eq!(world.state(id).await, "HELD behind");
        world.later(Duration::from_secs(60));
        let due = world.due().await;
        assert_eq!(due.iter().map(|held| (held.entry.order_id, held.entry.redrives)).collect::<Vec<_>>(), [(head, 0), (id, 1)]);
    }

    async fn a_second_redrive_or_discard_has_no_effect(world) {
        let id = dead_order(world).await;
        let letter = only_letter(world).await;
        for _ in 0..2 {
            assert_eq!(world.outbox.redrive(letter).await.unwrap(), DeadResult::Accepted);
        }
        assert_eq!(world.outbox.discard(letter).await.unwrap(), DeadResult::Accepted);
        world.pass().await;
        assert_eq!(world.unsent(Slot::of(ORDERS, "k")).await.len(), 1);
        assert_eq!(world.state(id).await, "PENDING");
        assert_eq!(world.outbox.redrive(letter).await.unwrap(), DeadResult::NotDead);
        assert_eq!(world.outbox.discard(letter).await.unwrap(), DeadResult::NotDead);
        assert_eq!(world.outbox.discard(letter + 1).await.unwrap(), DeadResult::Unknown);
    }

    async fn a_discarded_order_ends_cancelled(world) {
        let id = dead_order(world).await;
        world.outbox.discard(only_letter(world).await).await.unwrap();
        world.pass().await;
        assert_eq!(world.status(id).await, OrderStatus::Cancelled);
        assert!(world.undecided().await.is_empty(), "nobody downstream knew of it");
        assert!(world.kinds(id).await.contains(&"discarded".to_owned()));
    }

    async fn a_dead_order_can_be_cancelled_by_its_client(world) {
        let id = dead_order(world).await;
        let letter = only_letter(world).await;
        world.command(id, EntryKind::Cancel, None).await;
        world.pass().await;
        assert_eq!(world.status(id).await, OrderStatus::Cancelled);
        assert_eq!(world.outbox.redrive(letter).await.unwrap(), DeadResult::NotDead);
    }

    async fn a_record_that_kafka_refuses_is_a_dead_letter_and_the_next_goes_on(world) {
        let (id, next) = (world.accept("k").await, world.accept("k").await);
        world.decide(enrich).await;
        world.publish_but(|record| record.order_id == id).await;
        assert_eq!((world.state(id).await, world.state(next).await), ("HELD dead".to_owned(), "PUBLISHED".to_owned()));
        let letter = world.outbox.dead_letter(only_letter(world).await).await.unwrap().unwrap();
        assert_eq!((letter.kind, letter.reason.as_str()), (DeadKind::Record, "refused-by-kafka"));
        assert_eq!(world.tenure(Slot::of(ORDERS, "k")).await.publish_cursor, 2);
        assert!(world.outbox.redrive(letter.id).await.is_ok());
        let redrives: Vec<_> = world.undecided().await.iter().map(|entry| (entry.kind, entry.redrives)).collect();
        assert_eq!(redrives, [(EntryKind::Redrive, 0)]);
        world.pass().await;
        world.publish_but(|_| true).await;
        assert_eq!(world.state(id).await, "HELD dead", "and again");
        let letter = only_letter(world).await;
        world.outbox.redrive(letter).await.unwrap();
        assert_eq!(world.undecided().await[0].redrives, 1, "each redrive makes a record with an id of its own");
        world.pass().await;
        world.publish().await;
        assert_eq!(world.state(id).await, "PUBLISHED");
    }

    async fn what_is_no_reply_is_a_dead_letter_once_and_cannot_be_redriven(world) {
        for _ in 0..2 {
            // The second time since its offset was not committed before the process ended.
            let fates = world.take_all(vec![Err(poison(7))], vec![position(0, 8)], "").await;
            assert_eq!(fates.poison, 1);
        }
        let letter = only_letter(world).await;
        let stored = world.outbox.dead_letter(letter).await.unwrap().unwrap();
        assert_eq!((stored.kind, &stored.payload[..], stored.place.unwrap().offset), (DeadKind::Reply, &b"?"[..], 7));
        assert_eq!(world.outbox.redrive(letter).await.unwrap(), DeadResult::NotRedrivable);
        assert_eq!(world.outbox.discard(letter).await.unwrap(), DeadResult::Accepted);
        assert_eq!(world.outbox.discard(letter).await.unwrap(), DeadResult::NotDead);
    }

    async fn dead_letters_are_listed_by_kind_and_in_portions(world) {
        for offset in 0..3 {
            world.take_all(vec![Err(poison(offset))], Vec::new(), "").await;
        }
        dead_order(world).await;
        let first = world.outbox.dead(Some(DeadKind::Reply), 0, 2).await.unwrap();
        assert_eq!(first.len(), 2);
        let rest = world.outbox.dead(Some(DeadKind::Reply), first[1].id, 10).await.unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!(world.outbox.dead(Some(DeadKind::Record), 0, 10).await.unwrap().len(), 0);
        assert_eq!(world.outbox.dead(None, rest[0].id, 10).await.unwrap()[0].kind, DeadKind::Order);
        let id = world.accept("n").await;
        world.decide(let_pass).await;
        assert_eq!(world.state(id).await, "PENDING");
    }
}
