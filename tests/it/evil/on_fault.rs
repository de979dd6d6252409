//! What the operator lets become of an order that a plugin fails on, and of the 63 beside it.

use std::time::Duration;

use harness::guests::evil::Component;
use harness::random::unique;
use harness::{Route, TestGateway, Topic, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const ORDERS: usize = 64;
const EVIL: usize = 37;

/// The same plugin, which traps on evil orders, under three policies: its name is that of the policy.
const POLICIES: [&str; 3] = ["hold", "reject", "skip-and-mark"];

fn gateway() -> TestGateway {
    let guest = Component { order: "unreachable", ..Component::default() }.build();
    let mut builder = TestGateway::with()
        .announce("plugin")
        .text("relay.patience", "30s")
        .text("relay.retry_first", "1h")
        .text("relay.retry_max", "1h");
    for policy in POLICIES {
        builder = builder
            .plugin(policy, guest.clone())
            .text(&format!("plugins.policy.{policy}.on_fault"), policy)
            .route(Route {
                path: format!("/{policy}"),
                plugins: vec![policy.to_owned()],
                outcomes: None,
                replies: None,
                ..Route::default()
            });
    }
    builder.start()
}

/// Posts a batch with one evil order in it and returns the ids.
fn post(gateway: &TestGateway, policy: &str) -> Vec<String> {
    let order = |number| {
        let customer = unique("c");
        if number == EVIL {
            format!(r#"{{"evil":1,"customerId":"{customer}"}}"#)
        } else {
            format!(r#"{{"customerId":"{customer}"}}"#)
        }
    };
    let lines: Vec<String> = (0..ORDERS).map(order).collect();
    let type_of_batch = [("content-type", "application/x-ndjson")];
    let answer = gateway.post_with(&format!("/{policy}"), &type_of_batch, (lines.join("\n") + "\n").as_bytes());
    assert_eq!(answer.status, 207, "{}", answer.text());
    answer.lines().iter().map(|line| line["order"]["id"].as_str().unwrap().to_owned()).collect()
}

fn decided(gateway: &TestGateway, policy: &str, id: &str) -> Value {
    wait_until(&format!("order {id} of {policy} is decided"), LIMIT, || {
        let order = gateway.get(&format!("/{policy}/{id}")).json();
        if order["status"] == "PENDING" { Err(order) } else { Ok(order) }
    })
}

#[test]
fn the_one_evil_order_of_64_is_held_or_refused_or_marked_and_63_go_on() {
    let gateway = gateway();
    for policy in POLICIES {
        let ids = post(&gateway, policy);
        for (_, id) in ids.iter().enumerate().filter(|(number, _)| *number != EVIL) {
            let order = decided(&gateway, policy, id);
            assert_eq!(
                (&order["status"], order["version"].as_u64()),
                (&"PUBLISHED".into(), Some(2)),
                "{policy}: {order}"
            );
        }
        let order = decided(&gateway, policy, &ids[EVIL]);
        match policy {
            "hold" => {
                assert_eq!((&order["status"], &order["held"]["reason"]), (&"HELD".into(), &"fault".into()), "{order}")
            }
            "reject" => {
                assert_eq!((&order["status"], &order["final"]), (&"REJECTED".into(), &true.into()), "{order}");
                assert_eq!(order["problems"][0]["code"], "plugin-failed", "{order}");
                assert_eq!(order["problems"][0]["source"], "plugin", "{order}");
            }
            _ => assert_eq!(order["status"], "PUBLISHED", "{order}"),
        }
        let faults = gateway.metric("sluice_plugin_faults_total", &format!("plugin=\"{policy}\",kind=\"trap\""));
        assert!((faults - 1.0).abs() < f64::EPSILON, "{policy}: {faults} faults");

        let mut topic = Topic::open(&gateway.broker_address(), &gateway.topic("orders"));
        let records = topic.read_to_end();
        let of = |id: &String| records.iter().find(|record| record.header("ce_subject") == id);
        for (number, id) in ids.iter().enumerate() {
            let mark = of(id).map(|record| record.header("sluice-unverified"));
            let expected = match (number == EVIL, policy) {
                (true, "skip-and-mark") => Some(policy),
                (true, _) => None,
                (false, _) => Some(""),
            };
            assert_eq!(mark, expected, "{policy}: order {number}");
        }
    }
}
