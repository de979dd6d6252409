//! The configuration file changes while the gateway runs.

use std::fs;

use harness::{Builder, Route, TestGateway, order, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::LIMIT;

fn builder() -> Builder {
    TestGateway::with().announce("configuration")
}

fn rewrite(gateway: &TestGateway, change: impl Fn(String) -> String) {
    let path = gateway.config_file();
    let text = change(fs::read_to_string(path).unwrap());
    super::replace(path, text.as_bytes());
}

fn part(gateway: &TestGateway, name: &str) -> Value {
    let ready = gateway.admin().get("/readyz");
    assert_eq!(ready.status, 200);
    let ready = ready.json();
    ready["parts"].as_array().unwrap().iter().find(|part| part["part"] == name).cloned().unwrap()
}

#[test]
fn hot_keys_take_effect_and_others_are_named() {
    let gateway = builder().start();
    let customer = |gateway: &TestGateway| {
        let id = gateway.post_order(&harness::order_of("17850")).id;
        gateway.settled(&id)["order"]["customer"].clone()
    };
    assert!(customer(&gateway).is_object());
    rewrite(&gateway, |text| {
        text.replace(r#"plugins = ["order-rules", "customer-enricher"]"#, r#"plugins = ["order-rules"]"#)
    });
    wait_until("the chain is shorter", LIMIT, || {
        let customer = customer(&gateway);
        if customer.is_null() { Ok(()) } else { Err(customer) }
    });
    let plugins = gateway.admin().get("/plugins").json();
    assert_eq!(plugins["plugins"].as_array().unwrap().len(), 1, "{plugins}");
    assert_eq!(part(&gateway, "configuration")["condition"], "ready");

    rewrite(&gateway, |text| format!("plugins.config.order-rules.net = false\ntelemetry.log = \"debug\"\n{text}"));
    wait_until("the plugin has its new configuration", LIMIT, || {
        let order = gateway.settled(&gateway.post_order(&order()).id);
        if order["order"]["totals"].is_null() { Ok(()) } else { Err(order) }
    });
    wait_until("the log says more", LIMIT, || {
        let text = gateway.log().text();
        if text.contains("\"level\":\"DEBUG\"") { Ok(()) } else { Err(text.len()) }
    });

    rewrite(&gateway, |text| format!("http.wait_max = \"7s\"\nplugins.time_per_order = \"11ms\"\n{text}"));
    let told = wait_until("the key that needs a restart is told", LIMIT, || {
        let part = part(&gateway, "configuration");
        if part["condition"] == "degraded" { Ok(part["detail"].to_string()) } else { Err(part) }
    });
    assert!(told.contains("http.wait_max") && !told.contains("time_per_order"), "{told}");
    assert_eq!(
        gateway.admin().get("/plugins").json()["configuration"],
        json!({ "problems": [], "needsRestart": ["http.wait_max"] })
    );
    gateway.start_again();
    assert_eq!(part(&gateway, "configuration")["condition"], "ready");
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_is_told_with_all_its_problems() {
    let gateway = builder().start();
    let generation = || gateway.admin().get("/plugins").json()["generation"].as_u64().unwrap();
    let before = (generation(), fs::read_to_string(gateway.config_file()).unwrap());
    let wrong: [(&str, &[&str]); 4] = [
        ("plugins.problems_max = 0\nnonsense = 1\nhttp.wait_max = 5\n", &["problems_max", "nonsense", "wait_max"]),
        ("this is not TOML\n", &["not TOML"]),
        ("plugins.config.order-rules.rules = [\"no-such-rule\"]\n", &["order-rules", "no-such-rule"]),
        ("plugins.config.nobody.x = 1\n", &["nobody"]),
    ];
    for (text, words) in wrong {
        super::replace(gateway.config_file(), format!("{text}{}", before.1).as_bytes());
        wait_until(text, LIMIT, || {
            let problems = gateway.admin().get("/plugins").json()["configuration"]["problems"].to_string();
            if words.iter().all(|word| problems.contains(word)) { Ok(()) } else { Err(problems) }
        });
        assert_eq!(part(&gateway, "configuration")["condition"], "degraded");
        assert_eq!(gateway.settled(&gateway.post_order(&order()).id)["status"], "VALIDATED");
    }
    super::replace(gateway.config_file(), before.1.as_bytes());
    gateway.signal(Signal::HUP);
    wait_until("all is well again", LIMIT, || {
        let part = part(&gateway, "configuration");
        if part["condition"] == "ready" { Ok(()) } else { Err(part) }
    });
    assert_eq!(generation(), before.0);
    assert!(gateway.metric("sluice_config_reloads_total", "refused") >= 4.0);
}

#[test]
fn a_plugin_and_the_route_that_names_it_come_together() {
    let route = Route { plugins: Vec::new(), ..Route::default() };
    let gateway = builder().route(route).start();
    rewrite(&gateway, |text| text.replace("plugins = []", "plugins = [\"marked\"]"));
    wait_until("a plugin that is not there is told", LIMIT, || {
        let problems = gateway.admin().get("/plugins").json()["configuration"]["problems"].to_string();
        if problems.contains("marked") { Ok(()) } else { Err(problems) }
    });
    assert_eq!(gateway.settled(&gateway.post_order(&order()).id)["status"], "VALIDATED");
    fs::create_dir(super::folder(&gateway)).unwrap();
    super::replace(&super::file(&gateway), &super::version(1));
    super::serves(&gateway, &super::version(1), "the plugin came after the route");
    assert_eq!(part(&gateway, "configuration")["condition"], "ready");
}
