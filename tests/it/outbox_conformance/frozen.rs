//! A node that falls silent inside a transaction holds nobody up (PROTOCOL O4).
//!
//! A proxy stops passing bytes at a statement of the test's choice: to the server that is a client that was frozen, or a
//! network that swallows everything.

use std::sync::Arc;
use std::time::Duration;

use harness::postgres::Database;
use harness::proxy::{Proxy, behind_a_proxy};
use harness::{wait_until, wait_until_async};
use sluice::order::{OrderId, OrderStatus};
use sluice::outbox::{Fates, Kept, Lost, Outbox, OutboxError, Pass, SlotPass, TakenReplies};

use super::nodes::on_postgres;
use super::spawn;
use super::world::{ORDERS, World, entry_item, let_pass, new_order, open_url, reply, with_key};

/// Long enough that half of it is a good while before its end.
const LEASE: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(30);

/// A node whose connections can be held; its leases last for [`LEASE`].
async fn holdable(world: &World, database: &Database) -> (Proxy, Outbox) {
    let (proxy, url) = behind_a_proxy(&database.url());
    let outbox = open_url(url, &world.clock).await.unwrap();
    outbox.tend(LEASE, Vec::new()).await.unwrap();
    (proxy, outbox)
}

async fn until_held(proxy: &Proxy) {
    wait_until_async("a connection that is held", LIMIT, async || match proxy.held() {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
}

/// Sessions that are inside a transaction and do nothing there.
fn silent(database: &Database) -> Option<String> {
    database.ask(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'",
    )
}

/// One reply to one order.
fn taken(id: OrderId, kind: &str, world: &World) -> Arc<TakenReplies> {
    let replies = vec![Ok(reply(id, kind, world.clock.now()))];
    Arc::new(TakenReplies { replies, positions: Vec::new(), incarnation: "".into() })
}

async fn take(outbox: &Outbox, id: OrderId, kind: &str, world: &World) -> Result<Fates, OutboxError> {
    outbox.take_replies(taken(id, kind, world)).await
}

#[test]
fn a_decision_that_falls_silent_is_ended_while_its_lease_lives_and_another_node_makes_it() {
    on_postgres(async |world, database| {
        let id = world.accept("k").await;
        let entry = world.undecided().await.remove(0);
        world.outbox.resign().await.unwrap();
        let (proxy, frozen) = holdable(world, database).await;
        let tenures = frozen.tenures().await.unwrap();
        let tenure = tenures.into_iter().find(|tenure| tenure.slot == entry.slot).unwrap();
        let decide = || {
            let part: SlotPass = world.part(&tenure, entry.place, vec![entry_item(&entry, let_pass(&entry))]);
            let (frozen, pass) =
                (frozen.clone(), Pass { slots: vec![part], ran_alone: false, still_open: String::new() });
            async move { frozen.decide(Arc::new(pass)).await.map(|mut decided| decided.slots.remove(0)) }
        };

        // By then it holds the row of the lease, that of the cursor and that of the order.
        proxy.hold_at("INSERT INTO records");
        let deciding = spawn(decide());
        until_held(&proxy).await;
        wait_until("the end of the silent session", LIMIT, || match silent(database).as_deref() {
            Some("0") => Ok(()),
            other => Err(other.map(str::to_owned)),
        });
        let lives = "SELECT bool_and(lease_until > clock_timestamp()) FROM slots";
        assert_eq!(database.ask(lives).as_deref(), Some("t"), "the server ended it, and not who took over");

        wait_until_async("all slots", LIMIT, async || {
            let held = world.outbox.tend(LEASE, Vec::new()).await.unwrap().held.len();
            if held == 64 { Ok(()) } else { Err(held) }
        })
        .await;
        // Longer than the test.
        world.outbox.tend(LEASE * 100, Vec::new()).await.unwrap();
        world.pass().await;
        world.publish().await;
        assert_eq!(world.status(id).await, OrderStatus::Published);

        proxy.let_go();
        assert!(deciding.await.unwrap().is_err(), "its transaction was rolled back");
        assert!(matches!(decide().await, Ok(Err(Lost))), "its tenure is over");
        assert_eq!(world.kinds(id).await, ["accepted", "published"]);
    });
}

/// Here nobody takes anything over: the order itself is what both nodes want.
#[test]
fn a_reply_that_falls_silent_on_its_way_in_holds_up_no_other_to_its_order() {
    on_postgres(async |world, database| {
        let id = world.published("k").await;
        let (proxy, frozen) = holdable(world, database).await;
        proxy.hold_at("INSERT INTO inbox");
        let silent = spawn({
            let frozen = frozen.clone();
            let taken = taken(id, "A", world);
            async move { frozen.take_replies(taken).await }
        });
        until_held(&proxy).await;
        let fates =
            tokio::time::timeout(LIMIT, take(&world.outbox, id, "B", world)).await.expect("it waits for half a lease");
        assert_eq!(fates.unwrap().counted, 1);
        assert_eq!(world.status(id).await, OrderStatus::Published);
        proxy.let_go();
        assert!(silent.await.unwrap().is_err());
        assert_eq!(take(&frozen, id, "A", world).await.unwrap().counted, 1);
        assert_eq!(world.status(id).await, OrderStatus::Validated);
    });
}

#[test]
fn a_request_that_falls_silent_on_its_way_in_holds_up_no_twin_at_another_node() {
    on_postgres(async |world, database| {
        let (proxy, frozen) = holdable(world, database).await;
        let twin = || with_key(new_order(ORDERS, "k"), 1, 1);
        let (first, second) = (twin(), twin());
        // By then the idempotency key is bound.
        proxy.hold_at("INSERT INTO orders");
        let silent = spawn({
            let (frozen, first) = (frozen.clone(), first.clone());
            async move { frozen.accept(first).await }
        });
        until_held(&proxy).await;
        let kept =
            tokio::time::timeout(LIMIT, world.outbox.accept(second.clone())).await.expect("it waits for half a lease");
        assert_eq!(kept.unwrap(), Kept::New(second.id));
        proxy.let_go();
        assert!(silent.await.unwrap().is_err());
        assert_eq!(frozen.accept(first).await.unwrap(), Kept::Replay(second.id));
    });
}

/// A session whose answer nobody reads is busy, not idle: only the limit on unacknowledged bytes ends it.
#[test]
fn a_transaction_whose_answer_nobody_reads_is_ended_too() {
    on_postgres(async |world, database| {
        let id = world.published("k").await;
        let (proxy, frozen) = holdable(world, database).await;
        // More than all buffers between the two hold.
        database.run(
            r#"UPDATE orders SET problems = '[{"code":"unread-mark","title":"t","source":"plugin","detail":"' || repeat('x', 64000000) || '"}]'"#,
        );
        proxy.hold_at("unread-mark");
        let silent = spawn({
            let frozen = frozen.clone();
            let taken = taken(id, "A", world);
            async move { frozen.take_replies(taken).await }
        });
        until_held(&proxy).await;
        let active =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'";
        assert_eq!(database.ask(active).as_deref(), Some("1"));
        wait_until("the end of the session", LIMIT, || match database.ask(active).as_deref() {
            Some("0") => Ok(()),
            other => Err(other.map(str::to_owned)),
        });
        database.run("UPDATE orders SET problems = '[]'");
        proxy.let_go();
        assert!(silent.await.unwrap().is_err());
        assert_eq!(take(&world.outbox, id, "B", world).await.unwrap().counted, 1);
    });
}
