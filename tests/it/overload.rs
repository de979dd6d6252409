//! Beyond what the gateway can keep it refuses fast and says when to come again, and goes on by itself once it can.

use std::time::Duration;

use harness::disk::SmallDisk;
use harness::orders::order_of;
use harness::{TestGateway, wait_until};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// Nothing that was answered `202` is lost, and nothing needs a restart.
#[test]
fn a_full_disk_is_503_until_there_is_room_again() {
    // What comes to be is written several times: into the log of the database, into the database, and once more as a record.
    let Some(disk) = SmallDisk::mount("34m") else { return };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 30 << 20]).unwrap();
    let url = format!("sqlite://{}", disk.path().join("sluice.db").display());
    let gateway = TestGateway::with().text("database.url", &url).text("intake.retry_after", "2s").announce("").start();
    let mut order = order_of("12748");
    order["note"] = json!("x".repeat(200_000));
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = gateway.post_order_with(&order, &[]);
        match answer.status {
            202 => accepted.push(answer.accepted().id),
            _ => break answer,
        }
        assert!(accepted.len() < 100, "the disk is never full");
    };
    let problem = refused.problem(503);
    assert_eq!((&problem["retryable"], refused.header("retry-after")), (&json!(true), Some("2")));
    assert!(!accepted.is_empty());
    for id in &accepted {
        assert_eq!(gateway.get(&format!("/orders/{id}")).status, 200, "what was accepted can still be read");
    }
    std::fs::remove_file(&ballast).unwrap();
    let after = wait_until("room again", LIMIT, || {
        let answer = gateway.post_order_with(&order_of("12748"), &[]);
        if answer.status == 202 { Ok(answer.accepted().id) } else { Err(answer.status) }
    });
    for id in accepted.iter().chain([&after]) {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
    }
}

/// The body of a refused request is not waited for.
#[test]
fn a_refusal_comes_before_the_body() {
    let gateway = TestGateway::with().broker("127.0.0.1:1").set("intake.backlog_max", "1").announce("").start_unready();
    drop(gateway.post_order(&order_of("12748")));
    wait_until("full", LIMIT, || {
        let status = gateway.post_order_with(&order_of("12748"), &[]).status;
        if status == 503 { Ok(()) } else { Err(status) }
    });
    let head =
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{";
    let (status, answer) = harness::http::raw(gateway.http_address(), head, LIMIT);
    let text = String::from_utf8_lossy(&answer).to_lowercase();
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("retry-after: 2\r\n") && text.contains("connection: close\r\n"), "{text}");
    let lines = [order_of("12748").to_string()];
    let batch = gateway.post_with("/orders", &[("content-type", "application/x-ndjson")], lines[0].as_bytes());
    assert_eq!(batch.problem(503)["retryable"], true);
    assert!(gateway.metric("sluice_intake_orders_total", "kind=\"refused\"") >= 3.0);
}
