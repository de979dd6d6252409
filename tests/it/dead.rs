//! Dead letters: what waits for the operator, and what the operator can do about it.

use std::fs;
use std::time::Duration;

use harness::gateway::run;
use harness::random::unique;
use harness::{Route, TestGateway, guests, order_of, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A gateway that gives up on a held order soon.
fn impatient() -> TestGateway {
    let mut route = Route::default();
    route.plugins.push("marked".to_owned());
    TestGateway::with()
        .plugin("marked", guests::marked())
        .route(route)
        .text("relay.retry_first", "200ms")
        .text("relay.retry_max", "200ms")
        .text("relay.hold_max", "1s")
        .announce("plugin")
        .announce("dead")
        .start()
}

fn post_waiting(gateway: &TestGateway, customer: &str) -> String {
    let mut order = order_of(customer);
    order["mark"] = "wait".into();
    gateway.post_order(&order).id
}

fn wait_until_dead(gateway: &TestGateway, id: &str) -> Value {
    wait_until("a dead order", LIMIT, || {
        let order = gateway.order(id);
        if order["held"]["reason"] == "dead" { Ok(order) } else { Err(order) }
    })
}

fn letter_of(gateway: &TestGateway, id: &str) -> Value {
    let letters = gateway.admin().get("/dead?kind=order").json();
    let letters = letters["dead"].as_array().unwrap();
    letters.iter().find(|letter| letter["orderId"] == id).unwrap_or_else(|| panic!("no {id} in {letters:?}")).clone()
}

#[test]
fn an_order_held_too_long_is_dead_and_its_key_goes_on() {
    let (gateway, customer) = (impatient(), unique("c"));
    let first = post_waiting(&gateway, &customer);
    let behind = gateway.post_order(&order_of(&customer)).id;
    let dead = wait_until_dead(&gateway, &first);
    assert_eq!((&dead["status"], &dead["final"]), (&"HELD".into(), &false.into()));
    assert_eq!(dead["held"]["nextAttemptAt"], Value::Null);
    assert_eq!(gateway.settled(&behind)["status"], "VALIDATED");
    let letter = letter_of(&gateway, &first);
    assert_eq!((&letter["kind"], &letter["reason"]), (&"order".into(), &"held-too-long".into()));
    assert!(letter["plugins"].as_str().is_some_and(|plugins| plugins.contains("marked@")), "{letter}");
    let whole = gateway.admin().get(&format!("/dead/{}", letter["id"])).json();
    assert!(whole["payload"].as_str().is_some_and(|payload| payload.contains(&customer)), "{whole}");
}

#[test]
fn a_discarded_order_ends_cancelled_once() {
    let gateway = impatient();
    let id = post_waiting(&gateway, &unique("c"));
    let _dead = wait_until_dead(&gateway, &id);
    let path = format!("/dead/{}", letter_of(&gateway, &id)["id"]);
    assert_eq!(gateway.admin().command(&format!("{path}/discard")).status, 202);
    let order = gateway.settled(&id);
    assert_eq!((&order["status"], &order["final"]), (&"CANCELLED".into(), &true.into()));
    for verb in ["discard", "redrive"] {
        let answer = gateway.admin().command(&format!("{path}/{verb}"));
        assert!([404, 409].contains(&answer.status), "{verb} again: {}", answer.text());
    }
    assert_eq!(gateway.order(&id), order);
    assert!(gateway.timeline(&id).iter().any(|entry| entry["kind"] == "discarded"));
}

/// The plugin is mended, the order redriven: it takes a new place at the end of its key.
#[test]
fn a_redriven_order_is_judged_anew() {
    let (gateway, customer) = (impatient(), unique("c"));
    let id = post_waiting(&gateway, &customer);
    let _dead = wait_until_dead(&gateway, &id);
    let later = gateway.post_order(&order_of(&customer)).id;
    assert_eq!(gateway.settled(&later)["status"], "VALIDATED");
    fs::write(gateway.folder().join("plugins.d/marked.wasm"), guests::mended()).unwrap();
    gateway.start_again();

    assert_eq!(gateway.order(&id)["held"]["reason"], "dead", "a restart alone redrives nothing");
    let path = format!("/dead/{}/redrive", letter_of(&gateway, &id)["id"]);
    assert_eq!(gateway.admin().command(&path).status, 202);
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    assert!([404, 409].contains(&gateway.admin().command(&path).status));
    assert!(gateway.timeline(&id).iter().any(|entry| entry["kind"] == "redriven"));
    assert_eq!(gateway.admin().get("/dead").json()["dead"].as_array().unwrap().len(), 0);
}

#[test]
fn a_letter_that_is_none_is_404() {
    let gateway = harness::shared();
    for path in ["/dead/4711", "/dead/x"] {
        assert_eq!(gateway.admin().get(path).problem(404)["status"], 404);
        assert_eq!(gateway.admin().command(&format!("{path}/redrive")).status, 404);
    }
}

#[test]
fn the_command_line_does_the_same() {
    let gateway = impatient();
    let id = post_waiting(&gateway, &unique("c"));
    let _dead = wait_until_dead(&gateway, &id);
    let letter = letter_of(&gateway, &id)["id"].to_string();
    let config = gateway.config_file().to_str().unwrap();
    let dead = |arguments: &[&str]| {
        let mut all = vec!["dead"];
        all.extend(arguments);
        all.extend(["--config", config]);
        run(&all, gateway.folder(), LIMIT)
    };
    let (code, stdout, stderr) = dead(&["list", "-o", "json"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains(&id) && serde_json::from_str::<Value>(&stdout).is_ok(), "{stdout}");
    let (code, stdout, stderr) = dead(&["show", &letter]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("held-too-long"), "{stdout}");
    assert_eq!(dead(&["discard", &letter]).0, 0);
    assert_eq!(gateway.settled(&id)["status"], "CANCELLED");
    let (code, stdout, stderr) = dead(&["discard", &letter]);
    assert!(code == 1 && !format!("{stdout}{stderr}").is_empty(), "{code} {stdout} {stderr}");
}
