//! The database itself: one node per file, no newer schema, nothing forgotten at a restart, a full disk.

use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use sluice::clock::Clock;
use sluice::order::OrderStatus;
use sluice::outbox::{OpenError, OutboxError};

use super::world::{NOTES, ORDERS, START, World, behind, new_order, open};
use super::{Backend, conformance};

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

conformance! {
    async fn a_second_node_on_the_same_database_is_refused(world) {
        assert!(matches!(open(&world.path, &world.clock), Err(OpenError::InUse(path)) if path == world.path));
    }
}

#[test]
fn a_restart_forgets_nothing() {
    block_on(async {
        let world = World::open(Backend::Sqlite).await;
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
        let last = entries[0].number;
        world.accept("u").await;
        assert!(world.undecided().await[1].number > last, "numbers go on");
        assert!(world.outbox.recent_changes(1, 10).is_none(), "what came before this start is not remembered");
        assert!(world.outbox.recent_changes(world.outbox.newest_change(), 10).is_some());
    });
}

#[test]
fn a_schema_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newer.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let opened = open(&path, &Clock::by_hand(START));
    assert!(matches!(opened, Err(OpenError::Newer { found: 99, .. })), "{:?}", opened.err());
}

#[test]
fn another_kind_of_url_is_refused() {
    let opened = open(Path::new(""), &Clock::by_hand(START));
    assert!(matches!(opened, Err(OpenError::UnknownScheme(_))));
}

/// A file system of 4 MiB, where the machine lets us make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|done| done.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

#[test]
fn a_full_disk_refuses_orders_until_there_is_room_again() {
    // Nothing to test where no small disk can be made.
    let Some(disk) = SmallDisk::mount() else { return };
    block_on(async {
        let ballast = disk.0.path().join("ballast");
        std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
        let outbox = open(&disk.0.path().join("sluice.db"), &Clock::by_hand(START)).unwrap();
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
