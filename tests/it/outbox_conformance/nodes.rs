//! Several nodes on one database: what they share, who may do what, and in which order they read.
//!
//! Where a test needs a transaction that stays open, or a lease that has ended, it does that by hand in a session of its
//! own.

use std::time::Duration;

use harness::postgres::{Database, Server, Session};
use sluice::entry::EntryPlace;
use sluice::order::{OrderStatus, Slot};
use sluice::outbox::{Lost, Outbox, Tended};

use super::world::{ALL, ORDERS, World, entry_item, let_pass, new_order, reply};
use super::{Backend, run};

const LEASE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test that only a database of several nodes can have.
pub(super) fn on_postgres(test: impl AsyncFnOnce(&World, &Database)) {
    run(Backend::Postgres, async |world| test(world, world.server.as_ref().unwrap()).await);
}

async fn tend(outbox: &Outbox) -> Tended {
    outbox.tend(LEASE, Vec::new()).await.unwrap()
}

fn epoch_of(tended: &Tended, slot: Slot) -> Option<i64> {
    tended.held.iter().find(|(held, _)| *held == slot).map(|(_, epoch)| *epoch)
}

/// Ends every lease, as time does.
fn end_leases(database: &Database) {
    database.run("UPDATE slots SET lease_until = clock_timestamp() - interval '1 second'; DELETE FROM nodes");
}

/// Waits until a session waits for a lock.
pub(super) fn until_somebody_waits(database: &Database) {
    let waits =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    harness::wait_until("a session that waits", LIMIT, || match database.ask(waits).as_deref() {
        Some("t") => Ok(()),
        other => Err(other.map(str::to_owned)),
    });
}

/// A session that holds a slot as an owner's transaction does.
fn holds(database: &Database, slot: Slot) -> Session {
    let session = database.session();
    session.run(&format!("BEGIN; SELECT slot FROM slots WHERE slot = {} FOR KEY SHARE", slot.0));
    session
}

#[test]
fn what_one_node_takes_in_every_node_serves_and_decides() {
    on_postgres(async |world, _| {
        let other = world.beside().await;
        let order = new_order(ORDERS, "k");
        other.accept(order.clone()).await.unwrap();
        assert_eq!(world.status(order.id).await, OrderStatus::Pending);
        world.pass().await;
        world.publish().await;
        assert_eq!(other.order(order.id).await.unwrap().unwrap().status, OrderStatus::Published);
    });
}

#[test]
fn a_listener_hears_what_another_node_commits() {
    on_postgres(async |world, _| {
        let other = world.beside().await;
        let id = world.accept("k").await;
        let mut listener = other.listen(id);
        let mut everything = other.listen_all();
        world.pass().await;
        world.publish().await;
        let heard = async { tokio::join!(listener.changed(), everything.changed()) };
        tokio::time::timeout(LIMIT, heard).await.expect("the feed tells it");
        assert_eq!(other.order(id).await.unwrap().unwrap().version, 2);
    });
}

#[test]
fn nodes_share_the_slots_and_a_newcomer_gets_what_is_given_back() {
    on_postgres(async |world, database| {
        let mine = tend(&world.outbox).await;
        assert_eq!((mine.held.len(), mine.nodes, mine.surplus), (64, 1, 0));
        let other = world.beside().await;
        assert_eq!(tend(&other).await.held, [], "every lease lives");
        let mine = tend(&world.outbox).await;
        assert_eq!((mine.held.len(), mine.nodes, mine.surplus), (64, 2, 32), "nothing was ready to be given");
        // More are ready than are surplus; one of them under an epoch that is over.
        let mut ready = mine.held.clone();
        ready[0].1 -= 1;
        let mine = world.outbox.tend(LEASE, ready).await.unwrap();
        assert_eq!((mine.held.len(), mine.surplus), (32, 0));
        assert!(mine.held.iter().any(|(slot, _)| slot.0 == 0));
        let theirs = tend(&other).await;
        assert_eq!((theirs.held.len(), theirs.surplus), (32, 0));
        let owners = database.ask("SELECT count(DISTINCT owner) FROM slots WHERE lease_until > clock_timestamp()");
        assert_eq!(owners.as_deref(), Some("2"));
        // The one that leaves gives all back at once.
        world.outbox.resign().await.unwrap();
        assert_eq!(tend(&other).await.held.len(), 64);
    });
}

#[test]
fn a_renewal_keeps_the_epoch_and_waits_for_no_owners_transaction() {
    on_postgres(async |world, database| {
        let before = tend(&world.outbox).await;
        let _transaction = holds(database, Slot(7));
        let after = tokio::time::timeout(LIMIT, tend(&world.outbox)).await.expect("it waits for nobody");
        assert_eq!(after.held, before.held);
    });
}

#[test]
fn a_take_over_waits_for_the_owners_transaction_and_reads_the_cursors_after_it() {
    on_postgres(async |world, database| {
        let stale = world.tenure(Slot(7)).await;
        let transaction = holds(database, Slot(7));
        transaction.run("UPDATE decide_cursors SET xid = 1, number = 9 WHERE slot = 7");
        end_leases(database);
        let other = world.beside().await;
        let taken = tokio::join!(other.tend(Duration::from_secs(600), Vec::new()), async {
            until_somebody_waits(database);
            transaction.run("COMMIT");
        });
        let taken = taken.0.unwrap();
        assert_eq!(epoch_of(&taken, Slot(7)), Some(stale.epoch + 1));
        let tenures = other.tenures().await.unwrap();
        let tenure = tenures.iter().find(|tenure| tenure.slot == Slot(7)).unwrap();
        assert_eq!(tenure.decide_cursor, EntryPlace { xid: 1, number: 9 }, "what the transaction committed counts");
    });
}

#[test]
fn a_take_over_looks_again_whether_the_lease_has_ended() {
    on_postgres(async |world, database| {
        let epoch = world.tenure(Slot(7)).await.epoch;
        let transaction = holds(database, Slot(7));
        end_leases(database);
        let other = world.beside().await;
        let taken = tokio::join!(other.tend(Duration::from_secs(600), Vec::new()), async {
            until_somebody_waits(database);
            // The owner comes back in the last moment.
            transaction
                .run("UPDATE slots SET lease_until = clock_timestamp() + interval '1 hour' WHERE slot = 7; COMMIT");
        });
        let taken = taken.0.unwrap();
        assert_eq!(epoch_of(&taken, Slot(7)), None);
        assert_eq!(taken.held.len(), 63);
        assert_eq!(world.tenure(Slot(7)).await.epoch, epoch);
    });
}

#[test]
fn a_take_over_ends_the_session_that_stays_in_its_way() {
    on_postgres(async |world, database| {
        let frozen = holds(database, Slot(7));
        end_leases(database);
        let other = world.beside().await;
        // It is patient for a tenth of this.
        let taken = tokio::time::timeout(LIMIT, other.tend(Duration::from_secs(5), Vec::new())).await;
        assert_eq!(taken.expect("nobody can stop it").unwrap().held.len(), 64);
        assert!(frozen.rows("SELECT 1").is_err(), "the session was ended");
        drop(world.outbox.tenures().await);
    });
}

#[test]
fn an_owner_whose_lease_has_ended_changes_nothing_though_nobody_took_over() {
    on_postgres(async |world, database| {
        let id = world.accept("k").await;
        let entry = world.undecided().await.remove(0);
        let tenure = world.tenure(entry.slot).await;
        end_leases(database);
        let part = world.part(&tenure, entry.place, vec![entry_item(&entry, let_pass(&entry))]);
        assert!(matches!(world.commit(part).await, Err(Lost)));
        assert_eq!(world.kinds(id).await, ["accepted"]);
        let idle = vec![(tenure.slot, tenure.epoch, tenure.decide_cursor)];
        assert!(!world.outbox.advance_idle(idle, entry.place).await.unwrap());
    });
}

#[test]
fn an_entry_of_an_older_transaction_is_never_passed_by() {
    on_postgres(async |world, database| {
        // It has its number as a transaction before the other, and commits after it.
        let older = database.session();
        older.run("BEGIN; SELECT pg_current_xact_id()");
        let newer = world.accept("newer").await;
        let places: Vec<_> = Slot::all().map(|slot| (slot, EntryPlace::START)).collect();
        let read = world.outbox.entries(&places, ALL).await.unwrap();
        assert!(read.entries.is_empty(), "the older one may still write before it");
        // Meanwhile others read on; nobody's place goes past what is still to come.
        older.run(
            "INSERT INTO outbox (number, slot, kind, order_id, at) SELECT nextval('numbers'), slot, kind, order_id, at
             FROM outbox LIMIT 1; COMMIT",
        );
        world.settle().await;
        let all = world.outbox.entries(&read.read_to, ALL).await.unwrap().entries;
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(
            all[0].place < all[1].place && all[0].place.number > all[1].place.number,
            "by transaction, then number"
        );
        assert_eq!(all[1].order_id, newer);
    });
}

#[test]
fn of_two_replies_that_two_nodes_take_at_once_the_second_sees_the_first() {
    on_postgres(async |world, _| {
        let other = world.beside().await;
        for round in 0..20 {
            let id = world.published(&format!("k{round}")).await;
            let take = |outbox: &Outbox, kind: &str| {
                let replies = vec![Ok(reply(id, kind, world.clock.now()))];
                let taken = sluice::outbox::TakenReplies { replies, positions: Vec::new(), incarnation: "".into() };
                let outbox = outbox.clone();
                async move { outbox.take_replies(std::sync::Arc::new(taken)).await.unwrap() }
            };
            tokio::join!(take(&world.outbox, "A"), take(&other, "B"));
            assert_eq!(world.status(id).await, OrderStatus::Validated, "round {round}");
        }
        world.pass().await;
    });
}

#[test]
fn nodes_that_take_the_same_request_at_once_keep_it_once() {
    on_postgres(async |world, _| {
        let other = world.beside().await;
        for key in 0..20 {
            let twin = || super::world::with_key(new_order(ORDERS, "k"), key, 1);
            let (one, two) = (twin(), twin());
            let kept = tokio::join!(world.outbox.accept(one.clone()), other.accept(two.clone()));
            let kept = [kept.0.unwrap(), kept.1.unwrap()];
            let ids: std::collections::HashSet<_> = kept
                .iter()
                .map(|kept| match kept {
                    sluice::outbox::Kept::New(id) | sluice::outbox::Kept::Replay(id) => *id,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(ids.len(), 1, "{kept:?}");
        }
    });
}

#[test]
fn whoever_holds_the_reading_back_is_named() {
    on_postgres(async |world, database| {
        let nobody = world.outbox.stuck_read(Duration::from_secs(3_600)).await.unwrap();
        assert_eq!(nobody, None);
        let idle = database.session();
        idle.run("SET application_name = 'forgotten'; BEGIN; SELECT pg_current_xact_id()");
        let found = harness::wait_until_async("the transaction", LIMIT, async || {
            match world.outbox.stuck_read(Duration::from_millis(500)).await.unwrap() {
                Some(stuck) if stuck.session.contains("`forgotten`, idle in transaction") => Ok(stuck),
                other => Err(other),
            }
        });
        found.await;
        drop(idle.rows("ROLLBACK"));
    });
}

#[test]
fn texts_with_a_nul_are_kept_and_told_apart() {
    on_postgres(async |world, _| {
        let (one, two) = (world.accept("a\0b").await, world.accept("a\0c").await);
        let filter =
            |key: &str| sluice::outbox::OrderFilter { order_key: Some(key.to_owned()), limit: 9, ..Default::default() };
        assert_eq!(world.outbox.list(filter("a\0b")).await.unwrap()[0].id, one);
        assert_eq!(world.outbox.list(filter("a\0c")).await.unwrap()[0].id, two);
        world.pass().await;
        world.publish().await;
        let mut strange = reply(one, "A\0", world.clock.now());
        (strange.event_id, strange.from) = (Some("id\0".to_owned()), Some("service\0".to_owned()));
        let fates = world.take(vec![strange.clone(), strange]).await;
        assert_eq!((fates.unasked, fates.repeated), (1, 1));
    });
}

/// Transaction ids of the server it came from are far above those of the new one.
#[test]
fn a_dump_that_is_restored_on_another_server_is_carried_on_in_its_order() {
    on_postgres(async |world, database| {
        let Some(programs) = harness::postgres::programs() else { return };
        database.run("DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
        let published = world.published("a").await;
        let decided = world.accept("k").await;
        world.pass().await;
        let (first, second) = (world.accept("k").await, world.accept("k").await);

        let server = Box::leak(Box::new(Server::start(&programs, &["fsync=off"])));
        let moved = world.moved_to(server).await;
        assert_eq!(moved.status(published).await, OrderStatus::Published);
        let later = moved.accept("k").await;
        moved.settle().await;
        moved.pass().await;
        let mut log = Vec::new();
        for slot in Slot::all() {
            log.extend(moved.unsent(slot).await.into_iter().map(|record| record.order_id));
        }
        assert_eq!(log, [decided, first, second, later]);
        moved.publish().await;
        let again = moved.accept("k").await;
        moved.settle().await;
        moved.pass().await;
        moved.publish().await;
        for id in [published, decided, first, second, later, again] {
            assert_eq!(moved.status(id).await, OrderStatus::Published);
        }
    });
}
