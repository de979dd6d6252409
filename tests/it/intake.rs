//! Taking orders in: what a `202` says and promises, what passes the limits.

use std::time::Duration;

use harness::{TestGateway, order, order_of, shared};
use serde_json::{Value, json};

#[test]
fn a_202_has_all_that_a_client_needs() {
    let gateway = shared();
    let answer = gateway.post_order_with(&order(), &[]);
    let body = answer.json();
    let id = answer.accepted().id;
    assert_eq!((&body["status"], &body["version"]), (&json!("PENDING"), &json!(1)));
    assert_eq!(body["links"]["self"], format!("/orders/{id}"));
    assert_eq!(body["links"]["events"], format!("/orders/{id}/events"));
    assert_eq!(answer.header("location"), Some(format!("/orders/{id}").as_str()));
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
}

#[test]
fn a_read_after_the_202_finds_the_order() {
    let gateway = shared();
    for _ in 0..50 {
        let id = gateway.post_order(&order()).id;
        assert_eq!(gateway.order(&id)["id"], id);
    }
}

#[test]
fn a_good_order_becomes_validated_and_enriched() {
    let gateway = shared();
    let order = gateway.settled(&gateway.post_order(&order_of("17850")).id);
    assert_eq!(order["status"], "VALIDATED", "{order}");
    assert_eq!(order["final"], true);
    assert_eq!(order["order"]["totals"]["net"], "15.50");
    assert!(order["order"]["customer"]["name"].is_string(), "{order}");
    assert_eq!(order["problems"], json!([]));
}

#[test]
fn a_customer_whom_nobody_knows_is_left_as_it_is() {
    let gateway = shared();
    let order = gateway.settled(&gateway.post_order(&order()).id);
    assert_eq!((&order["status"], &order["order"]["customer"]), (&json!("VALIDATED"), &Value::Null));
}

#[test]
fn faults_of_an_order_are_named_by_pointer() {
    let mut bad = order_of("");
    bad["currency"] = "POUND".into();
    bad["lines"][0]["quantity"] = (-1).into();
    bad["lines"][1]["unitPrice"] = "0.0".into();
    let gateway = shared();
    let order = gateway.settled(&gateway.post_order(&bad).id);
    assert_eq!(order["status"], "REJECTED");
    let mut pointers: Vec<_> =
        order["problems"].as_array().unwrap().iter().map(|p| p["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/currency", "/customerId", "/lines/0/quantity", "/lines/1/unitPrice"]);
    assert_eq!(order["problems"][0]["source"], "plugin");
}

#[test]
fn members_that_no_plugin_touched_keep_their_bytes() {
    let gateway = shared();
    let odd = r#""weight":1.10e+2,"big":123456789012345678901234567890,"text":"\u00e9\/","nested":{"b":1,"a":[ ]}"#;
    let body = format!(r#"{{{odd},{}"#, &order().to_string()[1..]);
    let id = gateway.post_with("/orders", &[("content-type", "application/json")], body.as_bytes()).accepted().id;
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    let text = gateway.get(&format!("/orders/{id}")).text();
    for member in [r#""weight":1.10e+2"#, r#""big":123456789012345678901234567890"#, r#""text":"\u00e9\/""#] {
        assert!(text.contains(member), "{member} is not in {text}");
    }
}

/// The limits fit each other: body, plugins, what the enrichment adds, the record, the replies.
#[test]
fn the_largest_legal_order_passes_everything() {
    let gateway = shared();
    let mut largest = order_of("17850");
    largest["note"] = "".into();
    let room = (1 << 20) - largest.to_string().len();
    largest["note"] = "x".repeat(room).into();
    assert_eq!(largest.to_string().len(), 1 << 20);
    let order = gateway.settled(&gateway.post_order(&largest).id);
    assert_eq!(order["status"], "VALIDATED", "{}", order["problems"]);
    assert_eq!(order["order"]["totals"]["net"], "15.50");

    largest["note"] = "x".repeat(room + 1).into();
    let problem = gateway.post_order_with(&largest, &[]).problem(413);
    assert_eq!(problem["source"], "client");
}

/// Many lines are what an order is made of: the plugins' time must be enough for the most that fit in.
#[test]
fn the_largest_order_of_lines_passes_too() {
    let gateway = shared();
    let mut order = order();
    let line = json!({"stockCode": "85123A", "quantity": 1, "unitPrice": "0.01"});
    let count = ((1 << 20) - 4096) / (line.to_string().len() + 1);
    order["lines"] = vec![line; count].into();
    let order = gateway.settled(&gateway.post_order(&order).id);
    assert_eq!(order["status"], "VALIDATED", "{} {}", order["held"], order["problems"]);
    let cents = count % 100;
    assert_eq!(order["order"]["totals"]["net"], format!("{}.{cents:02}", count / 100));
}

#[test]
fn prefer_wait_holds_the_post_until_something_is_known() {
    let gateway = shared();
    let answer = gateway.post_order_with(&order(), &[("prefer", "wait=20")]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("preference-applied").is_some_and(|applied| applied.contains("wait")));
    assert_ne!(answer.json()["status"], "PENDING");
    for odd in ["wait=soon", "respond-async", "wait=-3", "wait=\"5", "handling=lenient"] {
        assert!([200, 202].contains(&gateway.post_order_with(&order(), &[("prefer", odd)]).status), "{odd}");
    }
}

#[test]
fn a_batch_is_answered_line_by_line() {
    let gateway = shared();
    let lines = [order().to_string(), "{not json".into(), order().to_string(), "[1]".into(), order_of("").to_string()];
    let results = gateway.post_batch(&lines, &[]);
    let numbers: Vec<_> = results.iter().map(|result| result["line"].as_u64().unwrap()).collect();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!((numbers, statuses), (vec![1, 2, 3, 4, 5], vec![202, 400, 202, 400, 202]));
    assert!(results[1]["problem"]["type"].is_string());
    for (line, status) in [(0, "VALIDATED"), (2, "VALIDATED"), (4, "REJECTED")] {
        assert_eq!(gateway.settled(results[line]["order"]["id"].as_str().unwrap())["status"], status, "line {line}");
    }
}

#[test]
fn a_batch_with_too_many_lines_is_refused_whole() {
    let gateway = TestGateway::with().set("http.batch_lines_max", "10").start();
    let lines: Vec<_> = (0..11).map(|_| order().to_string()).collect();
    let answer =
        gateway.post_with("/orders", &[("content-type", "application/x-ndjson")], (lines.join("\n") + "\n").as_bytes());
    assert_eq!(answer.problem(413)["source"], "client");
    assert_eq!(gateway.database().orders(), 0);
    assert_eq!(gateway.post_batch(&lines[..10], &[]).len(), 10);
}

#[test]
fn a_given_trace_is_continued() {
    let gateway = shared();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let id =
        gateway.post_order_with(&order(), &[("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"))]).accepted().id;
    assert_eq!(gateway.get(&format!("/orders/{id}/timeline")).json()["traceId"], trace);
    assert_eq!(gateway.post_order_with(&order(), &[("traceparent", "00-zzz-1")]).status, 202);
}

#[test]
fn without_a_broker_orders_are_accepted_up_to_the_backlog() {
    let gateway = TestGateway::with()
        .broker("127.0.0.1:1")
        .set("intake.backlog_max", "5")
        .text("intake.retry_after", "3s")
        .announce("")
        .start_unready();
    let accepted: Vec<_> = (0..5).map(|_| gateway.post_order(&order()).id).collect();
    let answer = harness::wait_until("503", Duration::from_secs(10), || {
        let answer = gateway.post_order_with(&order(), &[]);
        if answer.status == 503 { Ok(answer) } else { Err(answer.status) }
    });
    let problem = answer.problem(503);
    assert_eq!((&problem["retryable"], answer.header("retry-after")), (&json!(true), Some("3")));
    for id in accepted {
        assert_eq!(gateway.order(&id)["status"], "PENDING");
    }
    assert_eq!(gateway.admin().get("/livez").status, 200);
}
