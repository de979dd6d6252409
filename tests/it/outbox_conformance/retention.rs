//! Retention: what is finished and old goes, in steps that nobody has to wait for.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use sluice::clock::Timestamp;
use sluice::entry::EntryPlace;
use sluice::order::{OrderId, OrderStatus, Slot};
use sluice::outbox::{Cutoffs, Kept, Removed};

use super::world::{ALL, NOTES, ORDERS, World, let_pass, new_order, reject, reply, with_key};
use super::{Backend, conformance};

const ROWS: usize = 500;

/// Everything that is old at `moment` goes.
fn before(moment: Timestamp) -> Cutoffs {
    Cutoffs { orders: moment, entries: moment, idempotency: moment, parked_replies: moment, rows_max: ROWS }
}

/// Steps until there is no more to do.
async fn remove(world: &World, cutoffs: Cutoffs) -> Removed {
    let (mut all, mut after) = (Removed::default(), None);
    loop {
        let step = world.outbox.retain(cutoffs, after).await.unwrap();
        for (all, step) in [
            (&mut all.orders, step.orders),
            (&mut all.history, step.history),
            (&mut all.entries, step.entries),
            (&mut all.records, step.records),
            (&mut all.idempotency, step.idempotency),
            (&mut all.inbox, step.inbox),
        ] {
            *all += step;
        }
        if !step.has_more {
            return all;
        }
        after = step.orders_after;
    }
}

/// Where logs have partitions, steps until the one in use is gone: once it is full, every transaction that may write
/// there has ended, and nobody reads there.
async fn remove_logs(world: &World) {
    world.fill_partition();
    let limit = Duration::from_secs(if world.server.is_some() { 30 } else { 0 });
    harness::wait_until_async("no record", limit, async || {
        remove(world, before(far())).await;
        let records = world.outbox.records(Slot::of(ORDERS, "k"), 0, ALL).await.unwrap();
        if records.is_empty() { Ok(()) } else { Err(records) }
    })
    .await;
}

/// Ids rise with the real time, so the cutoff must, too.
fn far() -> Timestamp {
    Timestamp(4_102_444_800_000)
}

conformance! {
    async fn what_is_finished_goes_with_all_that_belongs_to_it(world) {
        let id = world.published("k").await;
        world.reply(id, "NotA").await;
        world.pass().await;
        world.publish().await;
        world.outbox.accept(with_key(new_order(NOTES, "k"), 1, 1)).await.unwrap();
        world.decide(reject).await;
        world.reply(OrderId::generate(), "A").await;
        let removed = remove(world, before(far())).await;
        assert_eq!((removed.orders, removed.idempotency, removed.inbox), (2, 1, 2));
        if world.server.is_none() {
            // Whole partitions are not counted.
            assert_eq!((removed.entries, removed.records), (3, 2));
        }
        remove_logs(world).await;
        assert!(world.entries(EntryPlace::START, ALL).await.is_empty());
        assert!(world.outbox.order(id).await.unwrap().is_none());
        assert_eq!(remove(world, before(far())).await, Removed::default());
        let again = world.outbox.accept(with_key(new_order(NOTES, "k"), 1, 1)).await.unwrap();
        assert!(matches!(again, Kept::New(_)), "the key's time is over");
        world.keeps_count().await;
    }

    async fn what_is_unfinished_or_young_stays(world) {
        let waiting = world.published("k").await;
        let held = world.accept("h").await;
        world.decide(|_| world.hold()).await;
        let undecided = world.accept("u").await;
        let finished = world.accept_on(NOTES, "k").await;
        let removed = remove(world, before(Timestamp(0))).await;
        assert_eq!(removed, Removed::default(), "young");
        remove(world, before(far())).await;
        for id in [waiting, held, undecided, finished] {
            assert!(world.outbox.order(id).await.unwrap().is_some());
        }
        assert_eq!(world.undecided().await.len(), 2);
        if world.server.is_none() {
            // A development broker may forget it. Logs in partitions are dropped once they are carried.
            assert_eq!(world.outbox.forget_broker(1 << 20).await.unwrap(), 1, "its record may have to go out again");
        }
        world.reply(waiting, "A").await;
    }

    async fn an_order_whose_outcome_is_not_decided_stays(world) {
        let id = world.published("k").await;
        world.reply(id, "NotA").await;
        remove(world, before(far())).await;
        let entries = world.undecided().await;
        assert_eq!(entries.iter().map(|entry| entry.order_id).collect::<Vec<_>>(), [id]);
        world.pass().await;
        assert_eq!(remove(world, before(far())).await.orders, 1);
    }

    async fn a_dead_letter_does_not_keep_the_records_of_its_slot(world) {
        let dead = world.accept("k").await;
        world.pass().await;
        world.publish_but(|_| true).await;
        for _ in 0..3 {
            world.accept("k").await;
        }
        world.decide(let_pass).await;
        world.publish().await;
        let orders = world.outbox.list(sluice::outbox::OrderFilter { limit: 9, ..Default::default() }).await.unwrap();
        for order in orders.iter().filter(|order| order.id != dead) {
            world.take(vec![reply(order.id, "NotA", world.clock.now())]).await;
        }
        world.pass().await;
        world.publish().await;
        remove(world, Cutoffs { rows_max: 2, ..before(far()) }).await;
        assert_eq!(world.status(dead).await, OrderStatus::Held);
        remove_logs(world).await;
        assert!(world.outbox.records(Slot::of(ORDERS, "k"), 0, super::world::ALL).await.unwrap().is_empty());
    }
}

/// Writes finished orders straight into the closed file.
fn fill(path: &std::path::Path, orders: usize) {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    let numbers = format!("SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {orders}");
    conn.execute_batch(&format!("CREATE TEMP TABLE ids AS WITH RECURSIVE n (n) AS ({numbers}) SELECT n FROM n"))
        .unwrap();
    conn.execute_batch(
        "INSERT INTO orders (id, route, order_key, slot, status, is_final, version, accepted_at, updated_at, traceparent, body_at)
         SELECT unhex(printf('%012x7000%016x', 1000, n)), '/notes', 'k' || n, n % 64, 'PUBLISHED', 1, 2, 0, 0, '', n FROM ids;
         INSERT INTO history (order_id, sequence, version, at, status, is_final, entries, body)
         SELECT unhex(printf('%012x7000%016x', 1000, n)), n, 1, 0, 'PENDING', 0, '[]', x'7b7d' FROM ids;
         INSERT INTO history (order_id, sequence, version, at, status, is_final, entries)
         SELECT unhex(printf('%012x7000%016x', 1000, n)), n + 10000000, 2, 0, 'PUBLISHED', 1, '[]' FROM ids;
         INSERT INTO outbox (number, slot, kind, order_id, at)
         SELECT n, n % 64, 'order', unhex(printf('%012x7000%016x', 1000, n)), 0 FROM ids;
         INSERT INTO records (slot, number, order_id, is_outcome, topic, record_key, headers, value, at)
         SELECT n % 64, n / 64 + 1, unhex(printf('%012x7000%016x', 1000, n)), 0, 't', x'6b', '[]', x'7b7d', 0 FROM ids;
         INSERT INTO idempotency (key_hash, fingerprint, order_id, created_at)
         SELECT randomblob(32), zeroblob(32), unhex(printf('%012x7000%016x', 1000, n)), 0 FROM ids;
         UPDATE decide_cursors SET number = 10000000, last_record = 10000000;
         UPDATE publish_cursors SET number = 10000000;
         UPDATE meta SET value = 30000000 WHERE name = 'sequence';",
    )
    .unwrap();
}

#[test]
fn a_mountain_goes_in_small_steps_and_intake_hardly_notices() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let orders = harness::environment::rows().unwrap_or(20_000);
        let world = World::open(Backend::Sqlite).await.unwrap().restart_after(|path| fill(path, orders)).await;
        let (mut after, mut steps, mut slowest, mut rows) = (None, 0, Duration::ZERO, 0);
        let (mut slowest_accept, mut accepted) = (Duration::ZERO, 0);
        loop {
            let begun = Instant::now();
            let step = async { (world.outbox.retain(before(Timestamp(2_000)), after).await.unwrap(), begun.elapsed()) };
            let accept = async {
                let kept = world.outbox.accept(new_order(ORDERS, "k")).await.unwrap();
                assert!(matches!(kept, Kept::New(_)));
                begun.elapsed()
            };
            let ((removed, took), waited) = tokio::join!(step, accept);
            let parts = [removed.orders, removed.entries, removed.records, removed.idempotency];
            assert!(parts.iter().all(|rows| *rows <= ROWS), "{removed:?}");
            (steps, rows) = (steps + 1, rows + parts.iter().sum::<usize>() + removed.history);
            (slowest, slowest_accept) = (slowest.max(took), slowest_accept.max(waited));
            accepted += 1;
            after = removed.orders_after;
            if !removed.has_more {
                break;
            }
        }
        assert_eq!(rows, orders * 6, "in {steps} steps");
        assert_eq!(world.outbox.backlog(), accepted);
        let limit = Duration::from_secs(2);
        assert!(slowest < limit && slowest_accept < limit, "{steps} steps of {slowest:?}, accept {slowest_accept:?}");
    });
}
