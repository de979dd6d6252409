//! Real orders through nodes of which one is killed every ten seconds: each ends as it does on a quiet node.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::environment::{self, say};
use harness::http::Client;
use harness::random::Dice;
use serde_json::Value;

use crate::store::Kind;
use crate::world::{Setup, World, seed};

/// Between two kills.
const KILL_EVERY: Duration = Duration::from_secs(10);
/// Between two orders: so the file takes longer than a few kills.
const ORDER_EVERY: Duration = Duration::from_millis(35);
/// Between two attempts of one request.
const PAUSE: Duration = Duration::from_millis(20);

fn real_orders(test: &str) -> Option<Vec<String>> {
    let Some(path) = environment::orders() else {
        say(&format!("SKIPPED: {test} needs SLUICE_TEST_ORDERS, a file with one real order per line"));
        return None;
    };
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(text.lines().map(str::to_owned).collect())
}

fn clients_of(world: &World) -> Vec<Client> {
    world.nodes.iter().map(|node| Client::new(node.http_address())).collect()
}

/// Posts every line, each until it is answered, to whichever node; returns the order of each line.
fn post_all(clients: &[Client], lines: &[String], pause: Duration) -> Vec<String> {
    let mut dice = Dice::new(seed());
    let mut ids = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let begin = Instant::now();
        let key = format!("real-order-{number}");
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        let id = loop {
            let client = &clients[dice.place(clients.len())];
            match client.ask("POST", "/orders", &headers, Some(line.as_bytes())) {
                Ok(answer) if answer.status == 202 => break answer.accepted().id,
                Ok(answer) if answer.status == 503 => thread::sleep(PAUSE),
                Ok(answer) => panic!("line {}: {} {}", number + 1, answer.status, answer.text()),
                Err(_) => thread::sleep(PAUSE),
            }
        };
        ids.push(id);
        thread::sleep(pause.saturating_sub(begin.elapsed()));
    }
    ids
}

/// What became of each line: its status and its problems.
fn ends(world: &World, ids: &[String]) -> Vec<(String, String)> {
    assert!(world.drain().is_some(), "not all came to an end");
    let node = &world.nodes[0];
    let orders = ids.iter().map(|id| node.order(id));
    orders.map(|order| (order["status"].as_str().unwrap().to_owned(), order["problems"].to_string())).collect()
}

fn counts(ends: &[(String, String)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (status, _) in ends {
        *counts.entry(status.as_str()).or_insert(0) += 1;
    }
    counts
}

fn over_kills(test: &str, database: Kind, nodes: usize) {
    let Some(lines) = real_orders(test) else { return };
    let quiet = World::start(Setup { database: Kind::Sqlite, nodes: 1, ..Setup::default() }, |builder| builder);
    let expected = ends(&quiet, &post_all(&clients_of(&quiet), &lines, Duration::ZERO));
    drop(quiet);

    let world = World::start(Setup { database, nodes, ..Setup::default() }, |builder| builder);
    let (is_over, mut kills) = (AtomicBool::new(false), 0);
    let clients = clients_of(&world);
    let ids = thread::scope(|scope| {
        let posting = scope.spawn(|| {
            let ids = post_all(&clients, &lines, ORDER_EVERY);
            is_over.store(true, Ordering::SeqCst);
            ids
        });
        let mut dice = Dice::new(seed());
        let mut last = Instant::now();
        while !is_over.load(Ordering::SeqCst) && !posting.is_finished() {
            thread::sleep(PAUSE);
            if last.elapsed() > KILL_EVERY {
                world.nodes[dice.place(nodes)].start_again();
                (last, kills) = (Instant::now(), kills + 1);
            }
        }
        posting.join().unwrap()
    });
    let found = ends(&world, &ids);
    for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "line {}", number + 1);
    }
    let rows: Vec<Value> = world.store.read("SELECT count(*) AS count FROM orders");
    assert_eq!(rows[0]["count"], lines.len(), "orders were made twice");
    say(&format!("proof: {} real orders, {nodes} node(s), {kills} kills: {:?}", lines.len(), counts(&found)));
    assert!(kills >= 3, "only {kills} kills");
}

#[test]
fn each_ends_as_on_a_quiet_node_over_kills() {
    over_kills("each_ends_as_on_a_quiet_node_over_kills", Kind::Sqlite, 1);
}

#[test]
fn each_ends_as_on_a_quiet_node_over_kills_of_one_of_three() {
    if Setup::on_postgres(3).is_some() {
        over_kills("each_ends_as_on_a_quiet_node_over_kills_of_one_of_three", Kind::Postgres, 3);
    }
}
