//! Dead letters: orders held too long, records Kafka refuses, things that are no replies.

use std::time::Duration;

use bytes::Bytes;
use sluice::dead::{DeadEdit, DeadFilter, DeadKind};
use sluice::entry::EntryKind;
use sluice::order::{OrderId, OrderStatus, Slot};
use sluice::outbox::DeadResult;
use sluice::reply::{Place, PoisonReply, RawReply};
use sluice::subscriber::reply::parse;

use super::conformance;
use super::world::{ORDERS, START, TOPIC, World, behind, die, enrich, let_pass, position};

async fn only_letter(world: &World) -> i64 {
    let letters = world.dead(10).await;
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
        assert_eq!(world.redrive(only_letter(world).await).await, DeadResult::Accepted);
        world.pass().await;
        let records = world.unsent(Slot::of(ORDERS, "k")).await;
        assert_eq!(records.iter().map(|record| record.order_id).collect::<Vec<_>>(), [follower, id]);
        assert_eq!(world.state(id).await, "PENDING");
        assert!(world.kinds(id).await.contains(&"redriven".to_owned()));
    }

    async fn a_redriven_order_stands_behind_one_that_is_held(world) {
        let id = dead_order(world).await;
        let head = world.accept("k").await;
        world.redrive(only_letter(world).await).await;
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
            assert_eq!(world.redrive(letter).await, DeadResult::Accepted);
        }
        assert_eq!(world.discard(letter).await, DeadResult::Accepted);
        world.pass().await;
        assert_eq!(world.unsent(Slot::of(ORDERS, "k")).await.len(), 1);
        assert_eq!(world.state(id).await, "PENDING");
        assert_eq!(world.redrive(letter).await, DeadResult::NotDead);
        assert_eq!(world.discard(letter).await, DeadResult::NotDead);
        assert_eq!(world.discard(letter + 1).await, DeadResult::Unknown);
    }

    async fn a_discarded_order_ends_cancelled(world) {
        let id = dead_order(world).await;
        world.discard(only_letter(world).await).await;
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
        assert_eq!(world.redrive(letter).await, DeadResult::NotDead);
    }

    async fn a_record_that_kafka_refuses_is_a_dead_letter_and_the_next_goes_on(world) {
        let (id, next) = (world.accept("k").await, world.accept("k").await);
        world.decide(enrich).await;
        world.publish_but(|record| record.order_id == id).await;
        assert_eq!((world.state(id).await, world.state(next).await), ("HELD dead".to_owned(), "PUBLISHED".to_owned()));
        let letter = world.outbox.dead_letter(only_letter(world).await).await.unwrap().unwrap();
        assert_eq!((letter.kind, letter.reason.as_str()), (DeadKind::Record, "refused-by-kafka"));
        assert_eq!(world.tenure(Slot::of(ORDERS, "k")).await.publish_cursor, 2);
        assert_eq!(world.redrive(letter.id).await, DeadResult::Accepted);
        let redrives: Vec<_> = world.undecided().await.iter().map(|entry| (entry.kind, entry.redrives)).collect();
        assert_eq!(redrives, [(EntryKind::Redrive, 0)]);
        world.pass().await;
        world.publish_but(|_| true).await;
        assert_eq!(world.state(id).await, "HELD dead", "and again");
        let letter = only_letter(world).await;
        world.redrive(letter).await;
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
        assert_eq!(world.redrive(letter).await, DeadResult::WrongKind);
        assert_eq!(world.discard(letter).await, DeadResult::Accepted);
        assert_eq!(world.discard(letter).await, DeadResult::NotDead);
    }

    async fn dead_letters_are_listed_by_kind_and_in_portions(world) {
        for offset in 0..3 {
            world.take_all(vec![Err(poison(offset))], Vec::new(), "").await;
        }
        dead_order(world).await;
        let listed = async |filter| world.outbox.dead(filter).await.unwrap();
        let replies = DeadFilter { kind: Some(DeadKind::Reply), ..DeadFilter::default() };
        let first = listed(DeadFilter { limit: 2, ..replies.clone() }).await;
        assert_eq!(first.len(), 2);
        let rest = listed(DeadFilter { after: first[1].id, ..replies.clone() }).await;
        assert_eq!(rest.len(), 1);
        assert_eq!(listed(DeadFilter { kind: Some(DeadKind::Record), ..replies }).await.len(), 0);
        assert_eq!(listed(DeadFilter { after: rest[0].id, ..DeadFilter::default() }).await[0].kind, DeadKind::Order);
        let id = world.accept("n").await;
        world.decide(let_pass).await;
        assert_eq!(world.state(id).await, "PENDING");
    }

    async fn dead_letters_are_found_by_reason_route_and_time(world) {
        world.take_all(vec![Err(poison(0))], Vec::new(), "").await;
        let died_at = world.clock.now();
        world.later(Duration::from_secs(10));
        let id = dead_order(world).await;
        let listed = async |filter: DeadFilter| {
            let letters = world.outbox.dead(filter).await.unwrap();
            letters.into_iter().map(|letter| letter.order_id).collect::<Vec<_>>()
        };
        let all = DeadFilter::default;
        assert_eq!(listed(all()).await, [None, Some(id)]);
        assert_eq!(listed(DeadFilter { reason: Some("not-a-reply".to_owned()), ..all() }).await, [None]);
        assert_eq!(listed(DeadFilter { route: Some(ORDERS.to_owned()), ..all() }).await, [Some(id)]);
        assert_eq!(listed(DeadFilter { route: Some("/elsewhere".to_owned()), ..all() }).await, []);
        let later = died_at.after(Duration::from_millis(1));
        assert_eq!(listed(DeadFilter { since: Some(later), ..all() }).await, [Some(id)]);
        assert_eq!(listed(DeadFilter { since: Some(died_at), before: Some(later), ..all() }).await, [None]);
        assert_eq!(listed(DeadFilter { before: Some(died_at), ..all() }).await, []);
    }

    async fn an_edited_order_is_redriven_as_what_it_is_now(world) {
        let id = dead_order(world).await;
        let letter = only_letter(world).await;
        let edit = |body: &'static str, order_key: &str| DeadEdit::Order { body: body.into(), order_key: order_key.into() };
        let edited = async |edit| world.outbox.edit_dead(letter, edit, "bob".to_owned()).await.unwrap();
        assert_eq!(edited(edit("{}", "other")).await, DeadResult::OrderKeyChanged);
        let reply_edit = DeadEdit::Reply { headers: Vec::new(), payload: Bytes::new() };
        assert_eq!(edited(reply_edit).await, DeadResult::WrongKind);
        assert_eq!(edited(edit(r#"{"mended":1}"#, "k")).await, DeadResult::Accepted);
        world.pass().await;
        assert_eq!(world.state(id).await, "HELD dead", "it stays dead");
        assert_eq!(world.outbox.dead_letter(letter).await.unwrap().unwrap().payload, r#"{"mended":1}"#);
        world.redrive(letter).await;
        world.pass().await;
        let kinds = world.kinds(id).await;
        assert!(kinds.ends_with(&["edited", "revised", "redriven"].map(str::to_owned)), "{kinds:?}");
        assert_eq!(edited(edit("{}", "k")).await, DeadResult::NotDead);
    }

    async fn an_edited_reply_is_taken_in_once_as_what_it_is_now(world) {
        let id = world.published("k").await;
        world.reply(id, "A").await;
        world.take_all(vec![Err(poison(7))], vec![position(0, 8)], "").await;
        let letter = only_letter(world).await;
        let headers = [("ce_type", "B".to_owned()), ("ce_subject", id.to_string()), ("ce_id", "b".to_owned()), ("ce_source", "s".to_owned())];
        let headers = headers.map(|(name, value)| (name.to_owned(), Bytes::from(value))).to_vec();
        let edit = DeadEdit::Reply { headers, payload: Bytes::from_static(b"{}") };
        assert_eq!(world.outbox.edit_dead(letter, edit, "bob".to_owned()).await.unwrap(), DeadResult::Accepted);
        let stored = world.outbox.dead_letter(letter).await.unwrap().unwrap();
        assert_eq!(stored.since, world.clock.now(), "since when it is dead stays");
        let raw = RawReply {
            place: stored.place.unwrap(),
            timestamp: stored.since,
            key: None,
            headers: stored.headers,
            value: Some(stored.payload),
        };
        let taken = async || {
            let reply = parse(raw.clone()).unwrap();
            world.outbox.redrive_reply(letter, reply, "bob".to_owned()).await.unwrap()
        };
        assert_eq!(taken().await, DeadResult::Accepted);
        assert_eq!(world.status(id).await, OrderStatus::Validated);
        assert!(world.kinds(id).await.contains(&"redriven".to_owned()));
        assert_eq!(taken().await, DeadResult::NotDead);
        assert_eq!(world.dead(9).await.len(), 0);
    }
}
