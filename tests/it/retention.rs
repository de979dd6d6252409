//! What is finished is removed after its time, and nothing else.

use std::time::Duration;

use harness::orders::IGNORED;
use harness::random::unique;
use harness::{Route, TestGateway, order, order_of, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn finished_things_go_and_unfinished_ones_stay() {
    let gateway = TestGateway::with()
        .route(Route { deadline: "10m".to_owned(), ..Default::default() })
        .text("retention.orders", "2s")
        .text("retention.entries", "1s")
        .text("retention.idempotency", "1s")
        .text("retention.interval", "100ms")
        .set("retention.step_rows_max", "7")
        .start();
    let waiting = gateway.post_order(&order_of(IGNORED)).id;
    let key = unique("k");
    let headers = [("idempotency-key", key.as_str())];
    let first = gateway.post_order_with(&order(), &headers).accepted().id;
    let lines: Vec<String> = (0..100).map(|_| order().to_string()).collect();
    let results = gateway.post_batch(&lines, &[]);
    let last = results[99]["order"]["id"].as_str().unwrap();
    assert_eq!(gateway.settled(last)["status"], "VALIDATED");
    for id in [&first, last] {
        wait_until("404 after retention", LIMIT, || match gateway.get(&format!("/orders/{id}")).status {
            404 => Ok(()),
            status => Err(status),
        });
        assert_eq!(gateway.get(&format!("/orders/{id}/timeline")).status, 404);
        assert_eq!(gateway.stream(&format!("/orders/{id}/events"), &[("last-event-id", "1")]).status, 404);
    }
    let again = gateway.post_order_with(&order(), &headers);
    assert_eq!(again.header("idempotent-replayed"), None, "the key's time is over");
    wait_until("empty tables", LIMIT, || {
        let database = gateway.database();
        let rows = ["outbox", "records", "idempotency"].map(|table| database.rows(table));
        // The order that waits for replies may keep what belongs to it.
        if rows.iter().all(|rows| *rows <= 2) { Ok(()) } else { Err(rows) }
    });
    assert_eq!(gateway.order(&waiting)["final"], false, "an unfinished order was removed");
    assert!(gateway.database().is_sound());
}

/// A stream that was cut and comes back after its versions were removed is told so, not left in silence.
#[test]
fn the_place_of_an_order_that_is_gone_can_be_asked_about() {
    let gateway = TestGateway::with()
        .text("retention.orders", "1s")
        .text("retention.idempotency", "1s")
        .text("retention.interval", "100ms")
        .start();
    let id = gateway.post_order(&order()).id;
    let path = format!("/orders/{id}");
    wait_until("404 after retention", LIMIT, || match gateway.get(&path).status {
        404 => Ok(()),
        status => Err(status),
    });
    assert_eq!(gateway.get(&format!("{path}/events")).problem(404)["source"], "client");
}
