//! PostgreSQL crashes, or has no room left: every answer says so, none is a false `202`, and everything goes on by itself.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::disk::SmallDisk;
use harness::http::Answer;
use harness::postgres::{self, Database, Server};
use harness::random::unique;
use harness::{RaisedOnDrop, TestGateway, environment, order_of, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const CLIENTS: usize = 4;
/// Answers of each kind that are waited for before something else is done.
const ENOUGH: usize = 8;

/// A server of the test's own; `None` on a machine without PostgreSQL, and where a pooler answers in its place.
fn server() -> Option<&'static Server> {
    // The shared one says loudly that there is none.
    postgres::server().filter(|_| !environment::pgbouncer() && environment::postgres().is_none())?;
    Some(Box::leak(Box::new(Server::start(&postgres::programs()?, &[]))))
}

/// One that waits so long for the database.
fn gateway(database: &Database, patience: &str) -> TestGateway {
    TestGateway::with()
        .text("database.url", &database.url())
        .text("database.answer_timeout", patience)
        .text("node.lease", "3s")
        .text("node.drain", "1s")
        .text("intake.retry_after", "1s")
        .announce("")
        .start()
}

/// Clients that post one order after another, each under an idempotency key of its own.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    /// By idempotency key: the body, and the last answer to it.
    sent: Mutex<BTreeMap<String, (Value, Answer)>>,
}

impl Load {
    fn run(&self, gateway: &TestGateway) {
        while !self.is_over.load(Ordering::SeqCst) {
            let (key, order) = (unique("key"), order_of(&unique("c")));
            let answer = post(gateway, &key, &order);
            self.sent.lock().unwrap().insert(key, (order, answer));
        }
    }

    fn count(&self, status: u16) -> usize {
        let sent = self.sent.lock().unwrap();
        sent.values().filter(|(_, answer)| answer.status == status).count()
    }

    /// An order that was accepted.
    fn accepted(&self) -> String {
        let sent = self.sent.lock().unwrap();
        sent.values().find(|(_, answer)| answer.status == 202).expect("there is one").1.accepted().id
    }

    fn wait_for_more(&self, status: u16) {
        let before = self.count(status);
        wait_until(&format!("answers of {status}"), LIMIT, || match self.count(status) - before {
            more if more >= ENOUGH => Ok(()),
            more => Err((more, self.count(202), self.count(503))),
        });
    }

    /// Every request once more, until it is answered `202`: then what was promised before is what is found, and nothing is
    /// there twice.
    fn repeat_all_and_compare(&self, gateway: &TestGateway, database: &Database) {
        let sent = self.sent.lock().unwrap();
        for (key, (order, first)) in &*sent {
            let again = wait_until(key, LIMIT, || {
                let answer = post(gateway, key, order);
                if answer.status == 202 { Ok(answer) } else { Err(answer.text()) }
            });
            match first.status {
                202 => {
                    assert_eq!(again.header("idempotent-replayed"), Some("true"));
                    assert_eq!(again.body, first.body, "a 202 is kept");
                }
                _ => {
                    let problem = first.problem(503);
                    assert_eq!((&problem["retryable"], &problem["source"]), (&true.into(), &"gateway".into()));
                    assert_eq!(first.header("retry-after"), Some("1"));
                }
            }
            assert_eq!(gateway.settled(&again.accepted().id)["status"], "VALIDATED");
        }
        let orders = database.ask("SELECT count(*) FROM orders").unwrap();
        assert_eq!(orders, sent.len().to_string(), "one order for each request");
    }
}

fn post(gateway: &TestGateway, key: &str, order: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    gateway.ask("POST", "/orders", &headers, Some(order.to_string().as_bytes())).expect("the gateway itself stays")
}

/// Status of `/readyz`, and how a part stands.
fn part(gateway: &TestGateway, name: &str) -> (u16, String, String) {
    let answer = gateway.admin().get("/readyz");
    let parts = answer.json()["parts"].as_array().unwrap().clone();
    let part = parts.into_iter().find(|part| part["part"] == name).unwrap_or(Value::Null);
    let text = |member: &str| part[member].as_str().unwrap_or_default().to_owned();
    (answer.status, text("condition"), text("detail"))
}

fn ready_again(gateway: &TestGateway) {
    wait_until("every part ready", LIMIT, || {
        let answer = gateway.admin().get("/readyz");
        let parts = answer.json()["parts"].clone();
        let all = parts.as_array().unwrap().iter().all(|part| part["condition"] == "ready");
        if answer.status == 200 && all { Ok(()) } else { Err(parts) }
    });
}

#[test]
fn a_database_that_crashes_under_load_is_503_until_it_is_back_and_nothing_is_lost() {
    let Some(server) = server() else { return };
    let database = server.database();
    let (gateway, load) = (gateway(&database, "1s"), Load::default());
    thread::scope(|scope| {
        let ends = RaisedOnDrop(&load.is_over);
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(&gateway));
        }
        for _ in 0..2 {
            load.wait_for_more(202);
            server.crash();
            let told = wait_until("word of it on /readyz", LIMIT, || match part(&gateway, "leases") {
                (status, condition, detail) if condition != "ready" => Ok((status, detail)),
                other => Err(other),
            });
            assert!(told.1.contains("the leases are not renewed: the database"), "{told:?}");
            load.wait_for_more(503);
            // Whoever serves clients elsewhere is to be asked, once this node carries nothing.
            wait_until("an unready node", LIMIT, || match part(&gateway, "leases") {
                (503, condition, _) if condition == "waiting" => Ok(()),
                other => Err(other),
            });
            assert_eq!(gateway.admin().get("/livez").status, 200);
            assert_eq!(gateway.get(&format!("/orders/{}", load.accepted())).problem(503)["retryable"], true);
            server.start_again();
            load.wait_for_more(202);
            ready_again(&gateway);
        }
        drop(ends);
    });
    assert!(gateway.is_running());
    load.repeat_all_and_compare(&gateway, &database);
}

/// How long clients may wait for it is no measure of how soon the operator learns of it.
#[test]
fn a_database_that_does_not_answer_is_told_of_long_before_it_is_given_up() {
    let Some(server) = server() else { return };
    let database = server.database();
    let gateway = gateway(&database, "30s");
    server.crash();
    wait_until("word of it on /readyz", Duration::from_secs(20), || match part(&gateway, "leases") {
        // It has not answered for so long, or it said itself that it is away.
        (503, condition, detail) if condition == "waiting" && detail.contains("the database") => Ok(()),
        other => Err(other),
    });
    server.start_again();
    ready_again(&gateway);
    assert_eq!(gateway.settled(&gateway.post_order(&order_of(&unique("c"))).id)["status"], "VALIDATED");
}

/// Once it is known to be away nobody waits as long as an answer may take.
#[test]
fn while_the_database_is_known_to_be_away_requests_are_refused_soon() {
    const PATIENCE: Duration = Duration::from_secs(8);
    const REQUESTS: u32 = 8;
    let Some(server) = server() else { return };
    let database = server.database();
    let gateway = gateway(&database, "8s");
    let id = gateway.post_order(&order_of(&unique("c"))).id;
    server.crash();
    let ask = || [post(&gateway, &unique("key"), &order_of(&unique("c"))), gateway.get(&format!("/orders/{id}"))];
    drop(ask());
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        for answer in ask() {
            assert_eq!(answer.problem(503)["retryable"], true);
        }
    }
    assert!(begun.elapsed() < PATIENCE * REQUESTS, "half of what they would wait: {:?}", begun.elapsed());
    server.start_again();
    ready_again(&gateway);
    for told in ["PostgreSQL is away", "PostgreSQL answers again"] {
        assert_eq!(gateway.log().text().matches(told).count(), 1, "{told}: once");
    }
    assert_eq!(gateway.settled(&gateway.post_order(&order_of(&unique("c"))).id)["status"], "VALIDATED");
}

#[test]
fn a_database_whose_disk_is_full_is_503_until_there_is_room_and_nothing_is_lost() {
    let Some(server) = server() else { return };
    let Some(disk) = SmallDisk::mount("64m") else { return };
    let database = server.database_on(&disk);
    let (gateway, load) = (gateway(&database, "1s"), Load::default());
    thread::scope(|scope| {
        let ends = RaisedOnDrop(&load.is_over);
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(&gateway));
        }
        for _ in 0..2 {
            load.wait_for_more(202);
            disk.fill();
            load.wait_for_more(503);
            // What was accepted can still be read.
            assert_eq!(gateway.get(&format!("/orders/{}", load.accepted())).status, 200);
            disk.clear();
            load.wait_for_more(202);
        }
        drop(ends);
    });
    assert!(gateway.log().text().contains("No space left on device"), "the database said why");
    ready_again(&gateway);
    load.repeat_all_and_compare(&gateway, &database);
}

/// The database was there when the node connected, and refuses the next thing that is asked of it.
#[test]
fn a_start_that_the_database_refuses_for_a_moment_goes_on_once_that_is_over() {
    let Some(database) = postgres::server().map(Server::database) else { return };
    let gateway = gateway(&database, "10s");
    gateway.kill9();
    database.run(
        "CREATE FUNCTION has_no_room() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER has_no_room BEFORE INSERT OR UPDATE ON nodes EXECUTE FUNCTION has_no_room()",
    );
    let begin = gateway.log().len();
    gateway.start_and_leave();
    wait_until("a second attempt", LIMIT, || {
        let text = gateway.log().text();
        let told = text
            .get(usize::try_from(begin).unwrap()..)
            .unwrap_or_default()
            .matches("failed to take slots over")
            .count();
        if told >= 2 { Ok(()) } else { Err(told) }
    });
    database.run("DROP TRIGGER has_no_room ON nodes; DROP FUNCTION has_no_room()");
    gateway.wait_until_ready();
    assert_eq!(gateway.settled(&gateway.post_order(&order_of(&unique("c"))).id)["status"], "VALIDATED");
}
