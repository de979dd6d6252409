//! Reading: lists, streams that resume, wake-ups, the operator's feed.

use std::time::Duration;

use sluice::order::{OrderId, OrderStatus};
use sluice::outbox::{OrderFilter, Versions};

use super::conformance;
use super::world::{NOTES, ORDERS, let_pass, reject};

fn of_key(key: &str) -> OrderFilter {
    OrderFilter { order_key: Some(key.to_owned()), route: Some(ORDERS.to_owned()), limit: 10, ..OrderFilter::default() }
}

conformance! {
    async fn an_unknown_order_is_none(world) {
        let id = OrderId::generate();
        assert!(world.outbox.order(id).await.unwrap().is_none());
        assert!(world.outbox.versions(id, 0).await.unwrap().is_none());
        assert!(world.outbox.timeline(id).await.unwrap().is_none());
    }

    async fn a_list_shows_a_key_newest_first_in_portions(world) {
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(world.accept("k").await);
            world.accept("other").await;
            world.accept_on(NOTES, "k").await;
        }
        ids.reverse();
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = world.outbox.list(OrderFilter { before, limit: 2, ..of_key("k") }).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            seen.extend(page.iter().map(|order| order.id));
        }
        assert_eq!(seen, ids);
        let everything = world.outbox.list(OrderFilter { limit: 100, ..OrderFilter::default() }).await.unwrap();
        assert_eq!(everything.len(), 15);
        assert!(everything.is_sorted_by(|one, two| one.id > two.id));
    }

    async fn a_list_can_be_of_one_status(world) {
        let (passed, refused) = (world.accept("k").await, world.accept("k").await);
        world.decide(|entry| if entry.order_id == passed { let_pass(entry) } else { reject(entry) }).await;
        for (status, expected) in [(OrderStatus::Rejected, vec![refused]), (OrderStatus::Expired, vec![])] {
            for filter in [of_key("k"), OrderFilter { limit: 9, ..OrderFilter::default() }] {
                let found = world.outbox.list(OrderFilter { status: Some(status), ..filter }).await.unwrap();
                assert_eq!(found.iter().map(|order| order.id).collect::<Vec<_>>(), expected);
            }
        }
    }

    async fn a_version_that_never_was_is_gone_and_the_present_one_has_no_successor(world) {
        let id = world.published("k").await;
        assert!(matches!(world.outbox.versions(id, 2).await.unwrap(), Some(Versions::Next(next)) if next.is_empty()));
        let now = world.order(id).await;
        assert!(matches!(world.outbox.versions(id, 9).await.unwrap(), Some(Versions::Gone(order)) if order == now));
        let Some(Versions::Next(next)) = world.outbox.versions(id, 1).await.unwrap() else { panic!() };
        assert_eq!(next, [now]);
    }

    async fn many_who_ask_at_once_are_each_told_of_their_own_order(world) {
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..150 {
            let id = world.accept(&format!("k{number}")).await;
            for (order, version) in [(id, 0), (id, 1), (id, 7), (OrderId::generate(), 0)] {
                let outbox = world.outbox.clone();
                asking.spawn(async move {
                    let told = outbox.versions(order, version).await.unwrap();
                    match (told, version) {
                        (None, 0) => assert_ne!(order, id),
                        (Some(Versions::Next(next)), 0) => assert_eq!((next.len(), next[0].id), (1, id)),
                        (Some(Versions::Next(next)), 1) => assert!(next.is_empty()),
                        (Some(Versions::Gone(present)), 7) => assert_eq!((present.id, present.version), (id, 1)),
                        other => panic!("{other:?}"),
                    }
                });
            }
        }
        asking.join_all().await;
    }

    async fn a_stream_that_reads_while_versions_come_is_never_told_that_they_are_gone(world) {
        let id = world.accept("k").await;
        world.decide(|_| world.hold()).await;
        let outbox = world.outbox.clone();
        let reading = async move {
            let mut version = 0;
            while version < 400 {
                match outbox.versions(id, version).await.unwrap().unwrap() {
                    Versions::Next(next) => version = next.last().map_or(version, |last| last.version),
                    Versions::Gone(_) => return Err(version),
                }
            }
            Ok(())
        };
        let changing = async {
            for _ in 0..400 {
                world.later(Duration::from_secs(60));
                world.retry(|_| world.hold()).await;
            }
        };
        let (read, ()) = tokio::join!(reading, changing);
        assert_eq!(read, Ok(()), "the past is not gone");
    }

    async fn listeners_hear_of_their_order_and_of_every_order(world) {
        let id = world.accept("k").await;
        let mut one = world.outbox.listen(id);
        let mut all = world.outbox.listen_all();
        let deaf = |listener: &mut sluice::outbox::ChangeListener| {
            let changed = std::pin::pin!(listener.changed());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            changed.poll(&mut context).is_pending()
        };
        assert!(deaf(&mut one) && deaf(&mut all));
        world.accept("other").await;
        assert!(deaf(&mut one) && !deaf(&mut all));
        world.decide(reject).await;
        assert!(!deaf(&mut one) && deaf(&mut one), "once for what came at once");
    }

    async fn an_entry_wakes_the_relay(world) {
        let committed = world.outbox.entry_committed();
        world.accept("k").await;
        tokio::time::timeout(Duration::from_secs(10), committed).await.unwrap();
    }

    async fn the_operators_feed_goes_on_after_what_it_saw(world) {
        world.accept("k").await;
        let seen = world.outbox.newest_change();
        assert!(world.outbox.recent_changes(seen, 10).unwrap().is_empty());
        let id = world.accept("k").await;
        let changes = world.outbox.recent_changes(seen, 10).unwrap();
        assert_eq!(changes.iter().map(|change| change.order_id).collect::<Vec<_>>(), [id]);
    }
}
