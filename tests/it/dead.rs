//! Dead letters: what waits for the operator, and what the operator can do about it.

use std::fs;
use std::time::Duration;

use harness::broker::Sender;
use harness::gateway::run;
use harness::orders::IGNORED;
use harness::random::unique;
use harness::{Route, TestGateway, guests, order_of, wait_until};
use serde_json::{Value, json};

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

/// One order of a plugin that fails on nothing else.
#[test]
fn an_order_that_a_plugin_always_fails_on_is_poison_and_its_key_goes_on() {
    let mut route = Route::default();
    route.plugins.push("marked".to_owned());
    let builder = TestGateway::with().plugin("marked", guests::marked()).route(route).announce("poison");
    let gateway = builder
        .set("plugins.poison_faults", "3")
        .text("relay.retry_first", "50ms")
        .text("relay.retry_max", "50ms")
        .start();
    let customer = unique("c");
    let mut order = order_of(&customer);
    order["mark"] = "trap".into();
    let id = gateway.post_order(&order).id;
    let behind = gateway.post_order(&order_of(&customer)).id;
    assert_eq!(wait_until_dead(&gateway, &id)["held"]["attempts"], 3);
    assert_eq!(gateway.settled(&behind)["status"], "VALIDATED");
    let letter = letter_of(&gateway, &id);
    assert_eq!((&letter["reason"], &letter["attempts"]), (&"poison".into(), &3.into()));
    assert!(letter["plugins"].as_str().is_some_and(|plugins| plugins.contains("marked@")), "{letter}");
    let held = gateway.timeline(&id).iter().filter(|entry| entry["kind"] == "held").count();
    assert_eq!(held, 3, "twice to be judged again, then dead");
}

#[test]
fn an_edited_order_is_redriven_as_its_operator_mended_it() {
    let (gateway, customer) = (impatient(), unique("c"));
    let id = post_waiting(&gateway, &customer);
    let _dead = wait_until_dead(&gateway, &id);
    let path = format!("/dead/{}", letter_of(&gateway, &id)["id"]);
    let edit = |order: &str| {
        let body = json!({ "payload": order }).to_string();
        let headers = [("content-type", "application/json"), ("sluice-operator", "ann")];
        gateway.admin().post_with(&format!("{path}/edit"), &headers, body.as_bytes())
    };
    assert_eq!(edit("[1]").problem(400)["retryable"], false);
    assert_eq!(edit(&order_of(&unique("c")).to_string()).problem(422)["type"], "urn:sluice:problem:order-key-changed");
    assert_eq!(edit(&order_of(&customer).to_string()).status, 202);
    let redriven = gateway.admin().post_with(&format!("{path}/redrive"), &[("sluice-operator", "bob")], b"");
    assert_eq!(redriven.status, 202);
    let order = gateway.settled(&id);
    assert_eq!((&order["status"], &order["order"]["mark"]), (&"VALIDATED".into(), &Value::Null));
    let by = |kind: &str| gateway.timeline(&id).into_iter().find(|entry| entry["kind"] == kind).unwrap()["by"].clone();
    assert_eq!((by("edited"), by("redriven")), ("ann".into(), "bob".into()));
    assert_eq!(edit(&order_of(&customer).to_string()).problem(404)["status"], 404);
}

/// Begun a second time it finds nothing left to do.
#[test]
fn all_that_died_of_something_is_redriven_at_once() {
    const ORDERS: usize = 7;
    let gateway = impatient();
    let ids: Vec<String> = (0..ORDERS).map(|_| post_waiting(&gateway, &unique("c"))).collect();
    for id in &ids {
        let _dead = wait_until_dead(&gateway, id);
    }
    fs::write(gateway.folder().join("plugins.d/marked.wasm"), guests::mended()).unwrap();
    gateway.start_again();
    let config = gateway.config_file().to_str().unwrap();
    let redrive = |reason: &str| {
        let all = ["dead", "redrive", "--all", "--kind", "order", "--reason", reason, "--route", "/orders"];
        let how = ["--since", "1h", "--rate", "5", "--by", "ann", "-o", "json", "--config", config];
        let (code, stdout, stderr) = run(&[&all[..], &how[..]].concat(), gateway.folder(), LIMIT);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str::<Value>(&stdout).unwrap()["accepted"].clone()
    };
    assert_eq!(redrive("poison"), 0);
    assert_eq!(redrive("held-too-long"), ORDERS);
    for id in &ids {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
        assert!(gateway.timeline(id).iter().any(|entry| entry["kind"] == "redriven" && entry["by"] == "ann"));
    }
    assert_eq!(redrive("held-too-long"), 0);
}

#[test]
fn what_was_no_reply_is_mended_and_counts() {
    let gateway = TestGateway::with().text("relay.poll_interval", "20ms").start();
    let id = gateway.post_order(&order_of(IGNORED)).id;
    drop(gateway.order_in(&id, &["PUBLISHED"]));
    let (sender, topic) = (Sender::new(&gateway.broker_address()), gateway.topic("order-replies"));
    sender.reply(&topic, &id, "OrderDetailsValidated", &unique("r"));
    sender.send(&topic, "k", &[("ce_type", "ConsumerValidated")], b"{}");
    sender.flush();
    let letter = wait_until("a dead reply", LIMIT, || {
        let letters = gateway.admin().get("/dead?kind=reply").json();
        letters["dead"].get(0).map(|letter| letter["id"].to_string()).ok_or(letters)
    });
    let dead = |arguments: &[&str]| {
        let config = ["--config", gateway.config_file().to_str().unwrap()];
        run(&[&["dead"], arguments, &config].concat(), gateway.folder(), LIMIT)
    };
    let (code, stdout, _) = dead(&["redrive", &letter]);
    assert!(code == 1 && stdout.contains("it names no order"), "{code} {stdout}");
    let subject = format!("ce_subject={id}");
    let headers = ["--header", "ce_type=ConsumerValidated", "--header", &subject, "--header", "ce_id=mended"];
    let (code, stdout, stderr) = dead(&[&["edit", &letter, "--redrive", "--by", "ann"], &headers[..]].concat());
    assert_eq!(code, 0, "{stdout} {stderr}");
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    assert!(gateway.timeline(&id).iter().any(|entry| entry["kind"] == "redriven" && entry["by"] == "ann"));
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
