//! The database itself: one node per file, no newer schema, nothing forgotten at a restart, a full disk.

use std::path::Path;

use harness::disk::SmallDisk;
use rusqlite::Connection;
use sluice::clock::Clock;
use sluice::entry::EntryPlace;
use sluice::order::OrderStatus;
use sluice::outbox::{OpenError, OutboxError, ReadLimits};

use super::Backend;
use super::world::{ALL, NOTES, ORDERS, START, World, behind, new_order, open};

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_second_node_on_the_same_file_is_refused() {
    block_on(async {
        let world = World::open(Backend::Sqlite).await.unwrap();
        assert!(matches!(open(&world.path, &world.clock).await, Err(OpenError::InUse(path)) if path == world.path));
    });
}

#[test]
fn a_restart_forgets_nothing() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        block_on(restart(backend));
    }
}

async fn restart(backend: Backend) {
    {
        let Some(world) = World::open(backend).await else { return };
        let (done, waiting) = (world.accept_on(NOTES, "k").await, world.published("k").await);
        let (held, follower) = (world.accept("h").await, world.accept("h").await);
        world.decide(|entry| if entry.order_id == held { world.hold() } else { behind(entry) }).await;
        world.publish().await;
        let undecided = world.accept("u").await;
        let mut before = Vec::new();
        for id in [done, waiting, held, follower, undecided] {
            before.push((world.order(id).await, world.kinds(id).await));
        }
        let world = world.restart_after(|_| ()).await;
        for (order, kinds) in before {
            assert_eq!(world.order(order.id).await, order);
            assert_eq!(world.kinds(order.id).await, kinds);
        }
        world.keeps_count().await;
        let entries = world.undecided().await;
        assert_eq!(entries.iter().map(|entry| entry.order_id).collect::<Vec<_>>(), [undecided]);
        let last = entries[0].place;
        world.accept("u").await;
        assert!(world.undecided().await[1].place > last, "numbers go on");
        assert!(world.outbox.recent_changes(1, 10).is_none(), "what came before this start is not remembered");
        assert!(world.outbox.recent_changes(world.outbox.newest_change(), 10).is_some());
    }
}

/// A plan made while a table is nearly empty would read the whole table, and be kept while it grows.
#[test]
fn no_commit_reads_a_table_of_the_server_whole() {
    const ROUNDS: u64 = 12;
    const KEYS: u64 = 8;
    block_on(async {
        let Some(world) = World::open(Backend::Postgres).await else { return };
        let database = world.server.as_ref().unwrap();
        let tables = ["orders", "history", "held", "inbox", "idempotency"];
        for table in tables {
            // Else the server might look at the table and plan anew.
            database.run(&format!("ALTER TABLE {table} SET (autovacuum_enabled = false)"));
        }
        for _ in 0..ROUNDS {
            let first = world.accept("k0").await;
            for key in 1..KEYS {
                world.accept(&format!("k{key}")).await;
            }
            world.pass().await;
            world.publish().await;
            world.reply(first, "ConsumerValidated").await;
        }
        let count = |table: &str, column: &str| {
            let sql = format!("SELECT {column} FROM pg_stat_user_tables WHERE relname = '{table}'");
            database.ask(&sql).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
        };
        // Sessions tell what they did a little later. Each order was looked up when it was decided and when published.
        harness::wait_until("what the sessions did", std::time::Duration::from_secs(30), || {
            let read = count("orders", "idx_scan");
            if read >= 2 * ROUNDS * KEYS { Ok(()) } else { Err(read) }
        });
        for table in tables {
            // The start reads the empty tables a few times, to make their indexes.
            let whole = count(table, "seq_scan");
            assert!(whole < ROUNDS / 2, "{table} was read whole {whole} times");
        }
    });
}

/// Where the planner expects few entries it would read all that wait and sort them, and of a new backlog it knows nothing.
#[test]
fn a_read_of_a_backlog_reads_no_more_than_it_takes() {
    const WAITING: usize = 1_500;
    const TAKEN: usize = 100;
    const READS: usize = 4;
    block_on(async {
        let Some(world) = World::open(Backend::Postgres).await else { return };
        let database = world.server.as_ref().unwrap();
        for number in 0..WAITING {
            world.accept(&format!("k{}", number % 40)).await;
        }
        world.settle().await;
        let rows_read = || {
            let sql = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables
                       WHERE relname LIKE 'outbox%'";
            database.ask(sql).and_then(|count| count.parse::<usize>().ok()).unwrap_or(0)
        };
        let before = rows_read();
        for _ in 0..READS {
            let limits = ReadLimits { count: TAKEN, ..ALL };
            assert_eq!(world.entries(EntryPlace::START, limits).await.len(), TAKEN);
            assert!(world.outbox.oldest_undecided().await.unwrap().is_some());
        }
        let read = harness::wait_until("what the sessions did", std::time::Duration::from_secs(30), || {
            let read = rows_read() - before;
            if read >= READS * TAKEN { Ok(read) } else { Err(read) }
        });
        // Each partition may show one row of its own.
        assert!(read < 2 * READS * TAKEN, "{read} rows were read to take {}", READS * TAKEN);
    });
}

#[test]
fn who_was_held_before_places_were_counted_by_slot_stays_before_who_comes() {
    block_on(async {
        let world = World::open(Backend::Sqlite).await.unwrap();
        let head = world.accept("h").await;
        world.decide(|_| world.hold()).await;
        let world = world
            .restart_after(|path| {
                let old = "UPDATE held SET place = (SELECT max(number) FROM outbox);
                           ALTER TABLE decide_cursors DROP COLUMN last_place;
                           ALTER TABLE orders DROP COLUMN last_record;
                           ALTER TABLE orders DROP COLUMN first_record;
                           PRAGMA user_version = 3;";
                Connection::open(path).unwrap().execute_batch(old).unwrap();
            })
            .await;
        let follower = world.accept("h").await;
        world.decide(behind).await;
        world.later(std::time::Duration::from_secs(60));
        let due: Vec<_> = world.due().await.iter().map(|held| held.entry.order_id).collect();
        assert_eq!(due, [head, follower]);
    });
}

#[test]
fn a_schema_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newer.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    block_on(async {
        let opened = open(&path, &Clock::by_hand(START)).await;
        assert!(matches!(opened, Err(OpenError::Newer { found: 99, .. })), "{:?}", opened.err());
    });
}

#[test]
fn another_kind_of_url_is_refused() {
    block_on(async {
        let opened = open(Path::new(""), &Clock::by_hand(START)).await;
        assert!(matches!(opened, Err(OpenError::UnknownScheme(_))));
    });
}

#[test]
fn a_full_disk_refuses_orders_until_there_is_room_again() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    block_on(async {
        let ballast = disk.path().join("ballast");
        std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
        let outbox = open(&disk.path().join("sluice.db"), &Clock::by_hand(START)).await.unwrap();
        let big = || sluice::outbox::NewOrder { body: vec![b'x'; 200_000].into(), ..new_order(ORDERS, "k") };
        let mut kept = 0;
        let refused = loop {
            match outbox.accept(big()).await {
                Ok(_) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept < 100, "the disk is never full");
        };
        assert!(matches!(refused, OutboxError::DiskFull), "{refused:?}");
        assert_eq!(outbox.backlog(), kept);
        std::fs::remove_file(&ballast).unwrap();
        outbox.accept(new_order(ORDERS, "k")).await.unwrap();
        let filter = sluice::outbox::OrderFilter { limit: 1_000, ..Default::default() };
        let orders = outbox.list(filter).await.unwrap();
        assert_eq!(orders.len() as u64, kept + 1);
        assert!(orders.iter().all(|order| order.status == OrderStatus::Pending));
    });
}
