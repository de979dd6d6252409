//! Each crash point once: the process dies there under load, is started again, and nothing is lost, doubled, reordered or stuck.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::environment::say;
use harness::random::{Dice, unique};
use harness::{Builder, TestGateway, guests, wait_until};
use serde_json::Value;
use sluice::crash::Point;

use crate::history::{Answer, Request, body};
use crate::world::{Setup, World};

/// Longest until the armed point is reached, and longest for what a test does by hand.
const LIMIT: Duration = Duration::from_secs(60);

/// How a node is armed: the place, and which hit of it counts.
fn arm(node: &TestGateway, point: Point, hit: u64, action: &str) {
    node.set_for_next_start("SLUICE_CRASH_POINT", &format!("{}:{hit}:{action}", point.name()));
}

/// Waits for the node's death at the point, and starts it again.
fn revive(node: &TestGateway, point: Point) {
    let status = node.ended(LIMIT);
    assert_eq!(status.signal(), Some(9), "{status}:\n{}", node.log().tail(40));
    assert!(node.log().text().contains(&format!("crash point {}:", point.name())), "{}", node.log().tail(40));
    node.start_again();
}

/// The hit that counts: of the seed's choice, another for each point.
fn hit(seed: u64, point: Point, hits_max: u64) -> u64 {
    1 + Dice::new(seed.wrapping_add(point as u64)).below(hits_max)
}

/// A run in which one node dies at the point, at a hit of the seed's choice.
fn visit(point: Point, hits_max: u64) {
    let setup = Setup::chosen(point as u64);
    let world = World::start(setup, |builder| builder);
    let node = &world.nodes[Dice::new(setup.seed).place(setup.nodes)];
    let hit = hit(setup.seed, point, hits_max);
    arm(node, point, hit, "kill");
    node.start_again();
    let clients = world.clients();
    world.run(&clients, |_| revive(node, point));
    let evidence = world.evidence(&clients);
    let lost = clients.lost.load(Ordering::SeqCst);
    let (name, database, nodes) = (point.name(), setup.database, setup.nodes);
    say(&format!("proof: killed at {name} {hit}, {nodes} on {database:?}, seed {}: {lost} answers lost", setup.seed));
    world.expect_innocence(&evidence);
}

/// A run in which something fails at the point, without a death.
fn fail(point: Point, hits_max: u64) {
    fail_in(Setup::chosen(point as u64), point, hits_max);
}

fn fail_in(setup: Setup, point: Point, hits_max: u64) {
    let world = World::start(setup, |builder| builder);
    arm(&world.nodes[0], point, hit(setup.seed, point, hits_max), "fail");
    world.nodes[0].start_again();
    let clients = world.clients();
    let log = world.nodes[0].log();
    let line = format!("crash point {}: Fail", point.name());
    world.run(&clients, |_| wait_until(&line, LIMIT, || if log.text().contains(&line) { Ok(()) } else { Err(()) }));
    let evidence = world.evidence(&clients);
    world.expect_innocence(&evidence);
}

#[test]
fn killed_with_a_body_read_and_nothing_written() {
    visit(Point::BodyRead, 40);
}

#[test]
fn killed_with_an_order_written_and_not_committed() {
    visit(Point::AcceptWritten, 40);
}

#[test]
fn killed_with_a_commit_that_nobody_was_told_of() {
    visit(Point::Committed, 60);
}

#[test]
fn killed_between_the_commit_and_the_202() {
    visit(Point::Accepted, 40);
}

#[test]
fn killed_between_the_wake_up_and_the_first_look() {
    visit(Point::Woken, 10);
}

#[test]
fn killed_with_entries_read_and_no_plugin_run() {
    visit(Point::EntriesRead, 20);
}

#[test]
fn killed_within_a_plugin() {
    visit(Point::InPlugin, 40);
}

#[test]
fn killed_with_plugins_done_and_nothing_decided() {
    visit(Point::Judged, 20);
}

#[test]
fn killed_with_decisions_written_and_not_committed() {
    visit(Point::DecideWritten, 20);
}

#[test]
fn killed_with_records_in_the_log_that_nobody_sends_yet() {
    visit(Point::Decided, 20);
}

#[test]
fn killed_before_a_record_goes_out() {
    visit(Point::BeforeSend, 40);
}

#[test]
fn killed_with_a_record_at_the_producer_and_no_report() {
    visit(Point::Sent, 40);
}

#[test]
fn killed_with_a_report_that_no_cursor_knows_of() {
    visit(Point::Delivered, 40);
}

#[test]
fn killed_with_the_publish_cursor_written_and_not_committed() {
    visit(Point::PublishWritten, 10);
}

#[test]
fn killed_after_the_cursor_moved() {
    visit(Point::Published, 10);
}

#[test]
fn killed_with_replies_read_and_not_stored() {
    visit(Point::RepliesRead, 10);
}

#[test]
fn killed_with_replies_written_and_not_committed() {
    visit(Point::RepliesWritten, 10);
}

#[test]
fn killed_with_replies_stored_and_their_offsets_not_committed() {
    visit(Point::RepliesStored, 10);
}

/// Whoever takes slots and dies before anybody in the process knows of them leaves them to others.
#[test]
fn killed_with_slots_taken_that_nobody_carries_yet() {
    let Some(setup) = Setup::on_postgres(3) else { return };
    let world = World::start(setup, |builder| builder);
    let node = &world.nodes[0];
    let clients = world.clients();
    world.run(&clients, |_| {
        arm(node, Point::SlotsTaken, 1, "kill");
        node.start_and_leave();
        revive(node, Point::SlotsTaken);
    });
    let evidence = world.evidence(&clients);
    world.expect_innocence(&evidence);
}

#[test]
fn a_transaction_that_fails_is_divided_and_repeated() {
    fail(Point::AcceptWritten, 40);
}

#[test]
fn a_decision_that_fails_is_made_anew() {
    fail(Point::DecideWritten, 20);
}

#[test]
fn a_cursor_that_cannot_be_written_sends_the_same_records_again() {
    fail(Point::PublishWritten, 10);
}

#[test]
fn replies_that_cannot_be_stored_are_stored_later() {
    fail(Point::RepliesWritten, 10);
}

/// The database has committed and its answer is lost: nobody may do it again from memory.
#[test]
fn a_commit_whose_answer_is_lost_is_not_done_twice() {
    let Some(setup) = Setup::on_postgres(3) else { return };
    fail_in(setup, Point::Committed, 60);
}

#[test]
fn a_lost_wake_up_delays_and_loses_nothing() {
    fail(Point::WakeLost, 20);
}

#[test]
fn a_producer_that_takes_nothing_more_is_replaced() {
    fail(Point::BeforeSend, 40);
}

#[test]
fn a_report_that_is_lost_sends_the_same_record_again() {
    fail(Point::Delivered, 40);
}

#[test]
fn offsets_that_are_not_committed_bring_replies_again() {
    fail(Point::RepliesStored, 10);
}

/// Puts a plugin of the same behavior and another digest into the folder, so that the node takes it over.
fn change_plugin(node: &TestGateway) {
    let file = node.folder().join("plugins.d/marked.wasm");
    let part = file.with_extension("part");
    fs::write(&part, guests::version(guests::marked(), 2)).unwrap();
    fs::rename(part, file).unwrap();
}

#[test]
fn killed_with_a_new_plugin_chosen_and_the_old_one_serving() {
    reload_at(Point::ReloadChosen);
}

#[test]
fn killed_with_a_new_plugin_serving_that_the_disk_does_not_know() {
    reload_at(Point::ReloadServing);
}

fn reload_at(point: Point) {
    let world = World::start(Setup::chosen(point as u64), |builder| builder);
    let node = &world.nodes[0];
    // The first is that of the start.
    arm(node, point, 2, "kill");
    node.start_again();
    let clients = world.clients();
    world.run(&clients, |_| {
        change_plugin(node);
        revive(node, point);
    });
    let evidence = world.evidence(&clients);
    world.expect_innocence(&evidence);
}

#[test]
fn killed_between_steps_of_retention() {
    retain_at(Point::Retained);
}

#[test]
fn killed_with_old_rows_removed_and_that_not_committed() {
    retain_at(Point::RetainWritten);
}

fn retain_at(point: Point) {
    let setup = Setup::default();
    let shape = |builder: Builder| {
        builder.text("retention.entries", "1s").text("retention.interval", "200ms").set("retention.step_rows_max", "20")
    };
    let world = World::start(setup, shape);
    let node = &world.nodes[0];
    arm(node, point, hit(setup.seed, point, 4), "kill");
    node.start_again();
    let clients = world.clients();
    world.run(&clients, |_| revive(node, point));
    let mut evidence = world.evidence(&clients);
    evidence.log_is_whole = false;
    world.expect_innocence(&evidence);
}

#[test]
fn killed_with_a_migration_written_and_not_committed() {
    migrate_at(Point::MigrationWritten);
}

#[test]
fn killed_between_two_migrations() {
    migrate_at(Point::Migrated);
}

/// A database of the first schema, brought up to date in steps, and a death in between: the next start finishes.
fn migrate_at(point: Point) {
    let setup = Setup::default();
    let world = World::prepare(setup, |builder| builder);
    let node = &world.nodes[0];
    let first = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/migrations/sqlite/0001_orders.sql");
    let database = rusqlite::Connection::open(node.database_file()).unwrap();
    database.execute_batch(&fs::read_to_string(first).unwrap()).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    drop(database);
    arm(node, point, hit(setup.seed, point, 3), "kill");
    node.start_and_leave();
    revive(node, point);
    world.store.watch();
    let clients = world.clients();
    world.run(&clients, |_| {});
    let evidence = world.evidence(&clients);
    world.expect_innocence(&evidence);
}

#[test]
fn killed_while_dead_letters_are_put_back() {
    redrive_at(Point::Redriven);
}

#[test]
fn killed_with_a_redrive_written_and_not_committed() {
    redrive_at(Point::RedriveWritten);
}

/// Dead letters are put back one by one; the operator repeats what was not answered, and nothing happens twice.
fn redrive_at(point: Point) {
    const LETTERS: usize = 6;
    let setup = Setup { posts: 20, ..Setup::chosen(point as u64) };
    let world = World::start(setup, |builder| builder.text("relay.hold_max", "1s"));
    let node = &world.nodes[0];
    arm(node, point, hit(setup.seed, point, LETTERS as u64), "kill");
    node.start_again();
    let clients = world.clients();
    for _ in 0..LETTERS {
        let (serial, customer) = (unique("serial"), unique("dead"));
        let text = body(&serial, &customer, Some("wait"), true);
        let sent = clients.history.now();
        let order = node.post_order(&text).id;
        let must_end: &[&str] = &["VALIDATED"];
        let request = Request::Post { serial, customer, idempotency_key: None, must_end };
        clients.history.note(request, sent, Answer::Accepted(order));
    }
    let letters = wait_until("dead letters", LIMIT, || {
        let letters = node.admin().get("/dead?kind=order").json();
        let ids: Vec<Value> = letters["dead"].as_array().unwrap().iter().map(|letter| letter["id"].clone()).collect();
        if ids.len() == LETTERS { Ok(ids) } else { Err(ids) }
    });
    // Whichever node owns a slot judges its orders.
    for node in &world.nodes {
        fs::write(node.folder().join("plugins.d/marked.wasm"), guests::mended()).unwrap();
        wait_until("the mended plugin", LIMIT, || {
            let plugins = node.admin().get("/plugins").text();
            if node.metric("sluice_plugin_generation", "") >= 2.0 { Ok(()) } else { Err(plugins) }
        });
    }
    world.run(&clients, |_| {
        let mut has_died = false;
        for letter in letters {
            // Twice: the second has no effect, whether it is told so or not.
            for _ in 0..2 {
                let told = loop {
                    match node.admin().ask("POST", &format!("/dead/{letter}/redrive"), &[], Some(b"")) {
                        Ok(answer) => break answer.status,
                        Err(_) => {
                            assert!(!has_died, "it died twice");
                            revive(node, point);
                            has_died = true;
                        }
                    }
                };
                assert!([202, 404, 409].contains(&told), "{told}");
            }
        }
        assert!(has_died, "the point was never reached");
    });
    let evidence = world.evidence(&clients);
    world.expect_innocence(&evidence);
    assert_eq!(evidence.orders.iter().filter(|order| order.is_dead).count(), 0);
    let redrives: Vec<u64> = evidence.orders.iter().map(|order| order.redrives).filter(|count| *count > 0).collect();
    assert_eq!(redrives, [1; LETTERS]);
}
