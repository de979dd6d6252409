//! Plugins that fail, hang and eat: they harm their own orders and nothing else.

use std::time::Duration;

use harness::gateway::run;
use harness::orders::marked;
use harness::random::unique;
use harness::{Builder, Route, TestGateway, guests, order, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A gateway whose route also asks the plugin of marks.
fn with_marks() -> Builder {
    let mut route = Route::default();
    route.plugins.push("marked".to_owned());
    TestGateway::with().plugin("marked", guests::marked()).route(route).announce("plugin")
}

fn held(gateway: &TestGateway, id: &str) -> Value {
    gateway.order_in(id, &["HELD"])
}

/// Each hostile order stands in one batch with innocent ones, before and behind it.
#[test]
fn a_hostile_plugin_holds_its_own_orders_and_nothing_else() {
    let gateway = with_marks().start();
    let marks = ["trap", "loop", "memory", "stack", "garbage"];
    let mut lines: Vec<String> = Vec::new();
    for mark in marks {
        lines.extend([order().to_string(), marked(mark).to_string(), order().to_string()]);
    }
    let results = gateway.post_batch(&lines, &[]);
    let ids: Vec<&str> = results.iter().map(|result| result["order"]["id"].as_str().unwrap()).collect();
    for (position, id) in ids.iter().enumerate() {
        if position % 3 != 1 {
            assert_eq!(gateway.settled(id)["status"], "VALIDATED", "beside {}", marks[position / 3]);
        }
    }
    for (mark, id) in marks.iter().zip(ids.iter().skip(1).step_by(3)) {
        let order = held(&gateway, id);
        assert!(order["held"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{mark}: {order}");
        assert!(order["held"]["nextAttemptAt"].is_string(), "{mark}: {order}");
        assert!(order["held"]["attempts"].as_u64() >= Some(1), "{mark}: {order}");
        assert!(order["held"]["since"].is_string(), "{mark}: {order}");
        assert!(!order.to_string().contains("wasm backtrace"), "{mark}: a client sees the insides: {order}");
    }
    assert!(gateway.metric("sluice_plugin_faults_total", "marked") >= 5.0);
    assert_eq!(gateway.admin().get("/livez").status, 200);
}

#[test]
fn an_order_that_waits_holds_those_behind_it_under_its_key() {
    let gateway = with_marks().text("relay.retry_first", "500ms").start();
    let (customer, other) = (unique("c"), unique("c"));
    let of = |customer: &str, mark: Option<&str>| {
        let mut order = harness::order_of(customer);
        if let Some(mark) = mark {
            order["mark"] = mark.into();
        }
        gateway.post_order(&order).id
    };
    let first = of(&customer, Some("retry"));
    let second = of(&customer, None);
    let third = of(&customer, None);
    let beside = of(&other, None);
    assert_eq!(held(&gateway, &second)["held"]["reason"], "behind");
    assert_eq!(gateway.settled(&beside)["status"], "VALIDATED");
    for id in [&first, &second, &third] {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
    }
    let mut topic = harness::Topic::open(&gateway.broker_address(), &gateway.topic("orders"));
    let records = topic.read_to_end();
    let of_key: Vec<&str> =
        records.iter().filter(|seen| seen.key == customer.as_bytes()).map(|seen| seen.header("ce_subject")).collect();
    assert_eq!(of_key, [&first, &second, &third]);

    let kinds: Vec<String> =
        gateway.timeline(&first).iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect();
    assert!(kinds.contains(&"held".to_owned()), "{kinds:?}");
}

#[test]
fn a_held_order_shows_each_change_as_a_version() {
    let gateway = with_marks().text("relay.retry_first", "300ms").start();
    let id = gateway.post_order(&marked("retry")).id;
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    let events = gateway.stream(&format!("/orders/{id}/events"), &[("last-event-id", "1")]).rest();
    let mut statuses: Vec<&str> = events.iter().map(|event| event.data["status"].as_str().unwrap()).collect();
    statuses.dedup();
    assert_eq!(statuses, ["HELD", "PENDING", "PUBLISHED", "VALIDATED"]);
}

#[test]
fn a_held_order_is_held_after_a_kill_and_goes_on() {
    let gateway = with_marks().text("relay.retry_first", "2s").start();
    let id = gateway.post_order(&marked("retry")).id;
    let before = held(&gateway, &id);
    gateway.start_again();
    let after = gateway.order(&id);
    assert!(after["version"].as_u64() >= before["version"].as_u64());
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
}

#[test]
fn a_file_takes_the_place_of_the_bundled_plugin_of_its_name() {
    let gateway = TestGateway::with().plugin("customer-enricher", guests::marked()).start();
    let order = gateway.settled(&gateway.post_order(&harness::order_of("17850")).id);
    assert_eq!((&order["status"], &order["order"]["customer"]), (&"VALIDATED".into(), &Value::Null));
    let plugins = gateway.admin().get("/plugins").json();
    let plugins = plugins["plugins"].as_array().unwrap();
    let origin = |name: &str| {
        plugins.iter().find(|plugin| plugin["name"] == name).unwrap()["origin"].as_str().unwrap().to_owned()
    };
    assert!(origin("customer-enricher").ends_with("customer-enricher.wasm"));
    assert_eq!(origin("order-rules"), "bundled");
}

#[test]
fn a_file_that_is_no_plugin_refuses_the_start_and_is_named() {
    let empty_module = b"\0asm\x01\0\0\0".to_vec();
    let component_of_nothing = b"\0asm\x0d\0\x01\0".to_vec();
    let cut = guests::marked()[..400].to_vec();
    let files = [
        ("text", b"this is no plugin".to_vec()),
        ("nothing", Vec::new()),
        ("module", empty_module),
        ("component", component_of_nothing),
        ("cut", cut),
    ];
    for (what, bytes) in files {
        let mut route = Route::default();
        route.plugins.push("broken".to_owned());
        let gateway = TestGateway::with().plugin("broken", bytes).route(route).prepare();
        let config = gateway.config_file().to_str().unwrap();
        let (code, stdout, stderr) = run(&["dev", "--config", config], gateway.folder(), LIMIT);
        assert!([1, 78].contains(&code), "{what}: exit code {code}\n{stdout}\n{stderr}");
        assert!(
            format!("{stdout}{stderr}").contains("broken"),
            "{what}: does not name the plugin:\n{stdout}\n{stderr}"
        );
        assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    }
}

#[test]
fn a_broken_plugin_counts_its_attempts() {
    let gateway = with_marks().text("relay.retry_first", "100ms").text("relay.retry_max", "200ms").start();
    let id = gateway.post_order(&marked("trap")).id;
    wait_until("a third attempt", LIMIT, || {
        let order = gateway.order(&id);
        if order["held"]["attempts"].as_u64() >= Some(3) { Ok(()) } else { Err(order) }
    });
    assert_eq!(gateway.settled(&gateway.post_order(&order()).id)["status"], "VALIDATED");
}
