//! Transactions that meet others and are thrown out by the server run again, and nothing of them is lost or done twice;
//! rows that no partition takes get one.

use std::time::{Duration, Instant};

use harness::postgres::{Database, Session};
use sluice::order::{OrderId, OrderStatus, Slot};
use sluice::outbox::{Deliveries, Kept, SlotDeliveries};

use super::nodes::{on_postgres, until_somebody_waits};
use super::spawn;
use super::world::{ORDERS, World, delivered, key_elsewhere, new_order, with_key};

const LIMIT: Duration = Duration::from_secs(60);

/// Lets the sessions of the gateway look for a deadlock after `patience`.
fn set_patience(database: &Database, patience: &str) {
    // Only sessions that begin have it.
    database.run(&format!("ALTER DATABASE {} SET deadlock_timeout = '{patience}'", database.name()));
    database.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
}

/// A session that waits in the other order, and looks for a deadlock after `patience`.
fn outsider(database: &Database, patience: &str) -> Session {
    let session = database.session();
    session.run(&format!("SET deadlock_timeout = '{patience}'; BEGIN"));
    session
}

fn deadlocks(database: &Database) -> u64 {
    let asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    database.ask(asked).and_then(|count| count.parse().ok()).unwrap()
}

fn until_a_deadlock(database: &Database, before: u64) {
    // The server's statistics are told when a transaction ends, at the latest.
    harness::wait_until("a deadlock", LIMIT, || match deadlocks(database) {
        count if count > before => Ok(()),
        count => Err(count),
    });
}

/// Two orders of one slot whose records are sent, and what is to be committed of that.
async fn sent(world: &World) -> ([OrderId; 2], Deliveries) {
    let ids = [world.accept("k").await, world.accept("k").await];
    world.pass().await;
    let slot = Slot::of(ORDERS, "k");
    let (tenure, records) = (world.tenure(slot).await, world.unsent(slot).await);
    let items = records.iter().map(|record| delivered(record, false, false)).collect();
    let to = records.last().unwrap().number;
    let part = SlotDeliveries { slot, epoch: tenure.epoch, from: tenure.publish_cursor, to, items };
    (ids, Deliveries { slots: vec![part] })
}

fn lock(id: OrderId) -> String {
    format!("SELECT id FROM orders WHERE id = '{}' FOR UPDATE", id.0)
}

#[test]
fn a_publication_that_the_server_throws_out_of_a_deadlock_is_committed_all_the_same() {
    on_postgres(async |world, database| {
        let (mut ids, deliveries) = sent(world).await;
        ids.sort_unstable();
        set_patience(database, "2s");
        let before = deadlocks(database);
        let outsider = outsider(database, "5min");
        outsider.run(&lock(ids[1]));
        let (published, outside) = tokio::join!(world.outbox.publish(deliveries.into()), async {
            until_somebody_waits(database);
            let locked = outsider.rows(&lock(ids[0]));
            outsider.run("COMMIT");
            locked
        });
        assert!(outside.is_ok(), "the server threw the gateway out");
        assert_eq!(published.unwrap(), [Ok(())]);
        until_a_deadlock(database, before);
        for id in ids {
            assert_eq!((world.status(id).await, world.order(id).await.version), (OrderStatus::Published, 2));
            assert_eq!(world.kinds(id).await, ["accepted", "published"]);
        }
        assert!(world.unsent(Slot::of(ORDERS, "k")).await.is_empty());
    });
}

#[test]
fn a_deadlock_that_ends_the_other_session_is_only_a_wait() {
    on_postgres(async |world, database| {
        let (mut ids, deliveries) = sent(world).await;
        ids.sort_unstable();
        set_patience(database, "5min");
        let outsider = outsider(database, "10ms");
        outsider.run(&lock(ids[1]));
        let (published, outside) = tokio::join!(world.outbox.publish(deliveries.into()), async {
            until_somebody_waits(database);
            let locked = outsider.rows(&lock(ids[0]));
            drop(outsider.rows("ROLLBACK"));
            locked
        });
        assert!(outside.unwrap_err().contains("deadlock detected"));
        assert_eq!(published.unwrap(), [Ok(())]);
        for id in ids {
            assert_eq!(world.status(id).await, OrderStatus::Published);
        }
    });
}

#[test]
fn a_batch_of_requests_that_the_server_throws_out_of_a_deadlock_is_kept_once() {
    on_postgres(async |world, database| {
        set_patience(database, "2s");
        let orders = vec![
            with_key(new_order(ORDERS, "a"), 1, 1),
            with_key(new_order(ORDERS, "b"), 2, 1),
            new_order(ORDERS, "c"),
        ];
        let outsider = outsider(database, "5min");
        let bind = |key: u8| {
            let key = format!("decode(repeat('{key:02x}', 32), 'hex')");
            format!("INSERT INTO idempotency VALUES ({key}, {key}, gen_random_uuid(), 0)")
        };
        outsider.run(&bind(2));
        let before = deadlocks(database);
        let (kept, outside) = tokio::join!(world.outbox.accept_all(orders.clone()), async {
            until_somebody_waits(database);
            let bound = outsider.rows(&bind(1));
            outsider.run("ROLLBACK");
            bound
        });
        assert!(outside.is_ok(), "the server threw the gateway out");
        until_a_deadlock(database, before);
        let ids: Vec<Kept> = orders.iter().map(|order| Kept::New(order.id)).collect();
        assert_eq!(kept.unwrap(), ids);
        assert_eq!(world.undecided().await.len(), 3);
    });
}

/// Makes each of the next `times` transactions that take an order in fail with a code.
fn fail_with(database: &Database, code: &str, times: u64) {
    database.run(&format!(
        "CREATE SEQUENCE IF NOT EXISTS failures;
         SELECT setval('failures', 1, false);
         CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('failures') <= {times} THEN RAISE EXCEPTION 'as a test wants it' USING ERRCODE = '{code}'; END IF;
             RETURN NULL;
         END $$;
         CREATE OR REPLACE TRIGGER fail AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION fail()"
    ));
}

#[test]
fn what_cannot_be_serialized_is_tried_again_and_kept_once() {
    on_postgres(async |world, database| {
        for code in ["40001", "40P01"] {
            fail_with(database, code, 5);
            let order = with_key(new_order(ORDERS, "k"), if code == "40001" { 1 } else { 2 }, 1);
            assert_eq!(world.outbox.accept(order.clone()).await.unwrap(), Kept::New(order.id));
            assert_eq!(world.outbox.accept(order.clone()).await.unwrap(), Kept::Replay(order.id));
            assert_eq!(world.kinds(order.id).await, ["accepted"]);
        }
        assert_eq!(world.undecided().await.len(), 2);
    });
}

/// It is an answer at last, and nothing is kept: whoever asks again may.
#[test]
fn what_can_never_be_serialized_is_refused_whole() {
    on_postgres(async |world, database| {
        fail_with(database, "40001", u64::from(u32::MAX));
        let order = with_key(new_order(ORDERS, "k"), 1, 1);
        assert!(world.outbox.accept(order.clone()).await.is_err());
        assert!(world.outbox.order(order.id).await.unwrap().is_none());
        database.run("DROP TRIGGER fail ON orders");
        assert_eq!(world.outbox.accept(order.clone()).await.unwrap(), Kept::New(order.id));
    });
}

/// Only the culprit of a batch fails, although its fault comes from the database and hits the whole transaction.
#[test]
fn of_a_batch_that_the_database_refuses_only_the_culprit_fails() {
    on_postgres(async |world, database| {
        database.run("ALTER TABLE orders ADD CONSTRAINT no_bad_keys CHECK (order_key <> 'bad')");
        let others: Vec<_> = (0..20).map(|number| new_order(ORDERS, &format!("k{number}"))).collect();
        let bad = new_order(ORDERS, "bad");
        let keep = |order: sluice::outbox::NewOrder| {
            let outbox = world.outbox.clone();
            spawn(async move { outbox.accept(order).await })
        };
        let (before, after) = others.split_at(10);
        let mut kept: Vec<_> = before.iter().cloned().map(keep).collect();
        let refused = keep(bad);
        kept.extend(after.iter().cloned().map(keep));
        assert!(refused.await.unwrap().is_err());
        for (order, kept) in others.iter().zip(kept) {
            assert_eq!(kept.await.unwrap().unwrap(), Kept::New(order.id));
        }
    });
}

/// Other databases of the server use transactions up faster than retention looks for partitions.
#[test]
fn writers_that_find_no_partition_make_some_and_lose_nothing() {
    on_postgres(async |world, database| {
        let before = world.published("before").await;
        // Past everything that was made ahead.
        for _ in 0..6 {
            world.fill_partition();
        }
        let ahead =
            "SELECT count(*) FROM log_ranges WHERE to_xid > pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        assert_eq!(database.ask(ahead).as_deref(), Some("0"));
        let other = world.beside().await;
        // The node that just started has made some; they go the same way.
        for _ in 0..6 {
            world.fill_partition();
        }
        assert_eq!(database.ask(ahead).as_deref(), Some("0"));
        let keys: Vec<String> = (0..16).map(|number| format!("k{number}")).collect();
        let mut keeping = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let outbox = if number % 2 == 0 { world.outbox.clone() } else { other.clone() };
            let order = new_order(ORDERS, key);
            keeping.push((order.id, spawn(async move { outbox.accept(order).await })));
        }
        let mut ids = vec![before];
        for (id, kept) in keeping {
            assert_eq!(kept.await.unwrap().unwrap(), Kept::New(id));
            ids.push(id);
        }
        world.pass().await;
        // Records need a partition as well, and so do outcomes.
        for _ in 0..6 {
            world.fill_partition();
        }
        ids.push(world.accept(&key_elsewhere("k0")).await);
        world.pass().await;
        world.publish().await;
        for id in &ids {
            assert_eq!(world.status(*id).await, OrderStatus::Published);
        }
        let overlaps = "SELECT count(*) FROM log_ranges a JOIN log_ranges b
                        ON a.from_xid < b.from_xid AND a.to_xid > b.from_xid";
        assert_eq!(database.ask(overlaps).as_deref(), Some("0"));
        let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'outbox'::regclass";
        assert_eq!(database.ask(partitions), database.ask("SELECT count(*) FROM log_ranges"));
        let strays = "SELECT count(*) FROM pg_index i JOIN pg_inherits p ON p.inhrelid = i.indrelid
                      WHERE p.inhparent IN ('outbox'::regclass, 'records'::regclass)
                          AND NOT EXISTS (SELECT FROM pg_inherits o WHERE o.inhrelid = i.indexrelid)";
        assert_eq!(database.ask(strays).as_deref(), Some("0"), "each index of a partition is part of its log's");
    });
}

/// A dump of the database reads the logs for hours.
#[test]
fn new_partitions_wait_for_nobody_who_reads_the_logs() {
    on_postgres(async |world, database| {
        let reader = database.session();
        reader.run("BEGIN; SELECT count(*) FROM outbox; SELECT count(*) FROM records");
        for _ in 0..6 {
            world.fill_partition();
        }
        let begun = Instant::now();
        let id = tokio::time::timeout(LIMIT, world.accept("k")).await.expect("it does not wait for the reader");
        assert!(begun.elapsed() < Duration::from_secs(20), "no statement ran into its limit");
        reader.run("COMMIT");
        world.pass().await;
        assert_eq!(world.kinds(id).await, ["accepted"]);
    });
}
