//! Reading what became of an order: versions, conditional reads, long polls, lists, timelines.

use std::time::{Duration, Instant};

use harness::random::unique;
use harness::{TestGateway, order, order_of, shared};
use serde_json::{Value, json};

#[test]
fn unchanged_is_304() {
    let gateway = shared();
    let order = gateway.settled(&gateway.post_order(&order()).id);
    let path = format!("/orders/{}", order["id"].as_str().unwrap());
    let etag = format!("\"{}\"", order["version"]);
    assert_eq!(gateway.get(&path).header("etag"), Some(etag.as_str()));
    for matching in [etag.clone(), "*".into(), format!("W/{etag}"), format!("\"999\", {etag}")] {
        let answer = gateway.get_with(&path, &[("if-none-match", &matching)]);
        assert_eq!(
            (answer.status, answer.body.len(), answer.header("etag")),
            (304, 0, Some(etag.as_str())),
            "{matching}"
        );
    }
    assert_eq!(gateway.get_with(&path, &[("if-none-match", "\"999\"")]).status, 200);
}

#[test]
fn a_long_poll_answers_at_the_change_and_not_after_the_end() {
    let gateway = shared();
    let id = gateway.post_order(&order()).id;
    let start = Instant::now();
    let answer = gateway.get_with(&format!("/orders/{id}?wait=25"), &[("if-none-match", "\"1\"")]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["version"].as_u64() > Some(1));
    assert!(start.elapsed() < Duration::from_secs(15), "the change was not told in time");

    let order = gateway.settled(&id);
    let start = Instant::now();
    let etag = format!("\"{}\"", order["version"]);
    let answer = gateway.get_with(&format!("/orders/{id}?wait=25"), &[("if-none-match", &etag)]);
    assert_eq!(answer.status, 304);
    assert!(start.elapsed() < Duration::from_secs(5), "a final order was waited for");
}

#[test]
fn a_long_poll_without_news_ends_with_304() {
    let gateway = shared();
    let id = gateway.post_order(&order_of("ignore-me")).id;
    let order = gateway.order_in(&id, &["PUBLISHED"]);
    assert!(order["deadlineAt"].is_string(), "{order}");
    let start = Instant::now();
    let etag = format!("\"{}\"", order["version"]);
    let answer = gateway.get_with(&format!("/orders/{id}?wait=1"), &[("if-none-match", &etag)]);
    assert_eq!(answer.status, 304);
    assert!(start.elapsed() >= Duration::from_millis(900), "it did not wait");
}

#[test]
fn the_orders_of_a_key_are_listed_newest_first() {
    let (gateway, customer) = (shared(), unique("list"));
    let mut ids: Vec<String> = (0..7).map(|_| gateway.post_order(&order_of(&customer)).id).collect();
    ids.reverse();
    let (mut listed, mut next) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("/orders?key={customer}&limit=3{next}")).json();
        let orders = page["orders"].as_array().unwrap();
        assert!(orders.len() <= 3);
        listed.extend(orders.iter().map(|order| order["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(cursor) => next = format!("&after={cursor}"),
            None => break,
        }
    }
    assert_eq!(listed, ids);
    assert_eq!(gateway.get(&format!("/orders?key={}", unique("nobody"))).json()["orders"], json!([]));

    for id in &ids {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
    }
    let count = |status: &str| {
        gateway.get(&format!("/orders?key={customer}&status={status}")).json()["orders"].as_array().unwrap().len()
    };
    assert_eq!((count("VALIDATED"), count("REJECTED")), (7, 0));
}

#[test]
fn the_operator_lists_everything() {
    let gateway = TestGateway::start();
    let ids: Vec<String> = (0..3).map(|_| gateway.post_order(&order()).id).collect();
    let page = gateway.admin().get("/orders?limit=10").json();
    let listed: Vec<&str> =
        page["orders"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids.iter().rev().collect::<Vec<_>>());
}

#[test]
fn the_timeline_tells_all_in_order() {
    let gateway = shared();
    let id = gateway.post_order(&order()).id;
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    let timeline = gateway.get(&format!("/orders/{id}/timeline")).json();
    let trace = timeline["traceId"].as_str().unwrap();
    assert!(trace.len() == 32 && trace.chars().all(|c| c.is_ascii_hexdigit()), "{trace}");
    let entries = timeline["entries"].as_array().unwrap();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    // The record of the outcome may follow.
    let expected = ["accepted", "plugin", "plugin", "published", "reply", "reply", "verdict"];
    assert_eq!(kinds[..expected.len()], expected, "{timeline}");
    for plugin in entries.iter().filter(|entry| entry["kind"] == "plugin") {
        assert!(plugin["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{plugin}");
        assert!(plugin["name"].is_string() && plugin["verdict"].is_string() && plugin["micros"].is_u64(), "{plugin}");
    }
    let published = &entries[3];
    assert_eq!(published["topic"], gateway.topic("orders"));
    assert!(published["partition"].is_u64() && published["offset"].is_u64(), "{published}");
    let mut replies: Vec<&str> = entries[4..6].iter().map(|reply| reply["type"].as_str().unwrap()).collect();
    replies.sort_unstable();
    assert_eq!(replies, ["ConsumerValidated", "OrderDetailsValidated"]);
    assert!(entries.windows(2).all(|pair| pair[0]["version"].as_u64() <= pair[1]["version"].as_u64()), "{timeline}");
    assert!(entries.iter().all(|entry| is_rfc_3339(&entry["at"])), "{timeline}");
}

fn is_rfc_3339(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default().as_bytes();
    text.len() == 24 && text[10] == b'T' && text[19] == b'.' && text[23] == b'Z'
}

#[test]
fn every_answer_says_when() {
    let gateway = shared();
    let order = gateway.settled(&gateway.post_order(&order()).id);
    assert!(is_rfc_3339(&order["acceptedAt"]) && is_rfc_3339(&order["updatedAt"]), "{order}");
    assert!(order["acceptedAt"].as_str() <= order["updatedAt"].as_str(), "{order}");
}

#[test]
fn metrics_have_help_and_cover_the_parts() {
    let gateway = shared();
    assert_eq!(gateway.settled(&gateway.post_order(&order()).id)["status"], "VALIDATED");
    let text = gateway.admin().get("/metrics").text();
    for part in ["outbox", "plugin", "http", "kafka"] {
        assert!(text.lines().any(|line| !line.starts_with('#') && line.contains(part)), "no metric of {part}");
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        assert!(line.split_once(' ').is_some_and(|(_, help)| !help.trim().is_empty()), "no help: {line}");
    }
    assert_eq!(gateway.get("/metrics").status, 404);
}
