//! The same request twice is one order.

use std::collections::HashSet;
use std::thread;

use harness::random::unique;
use harness::{Answer, TestGateway, order, shared};
use serde_json::{Value, json};

fn post(gateway: &TestGateway, order: &Value, key: &str) -> Answer {
    gateway.post_order_with(order, &[("idempotency-key", key)])
}

#[test]
fn a_repeat_gets_the_first_answer_byte_for_byte() {
    let (gateway, order, key) = (shared(), order(), unique("k"));
    let first = post(&gateway, &order, &key);
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, None));
    let id = first.clone().accepted().id;
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    for form in [key.clone(), format!("\"{key}\"")] {
        let again = post(&gateway, &order, &form);
        assert_eq!((again.status, &again.body), (202, &first.body), "{form}");
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{form}");
        assert_eq!(again.header("location"), first.header("location"), "{form}");
    }
}

#[test]
fn the_same_key_with_another_body_is_422() {
    let (gateway, key) = (shared(), unique("k"));
    let id = post(&gateway, &order(), &key).accepted().id;
    let problem = post(&gateway, &order(), &key).problem(422);
    assert_eq!((&problem["source"], &problem["retryable"]), (&json!("client"), &json!(false)));
    assert!(!problem.to_string().contains(&id), "the other caller's order is not told: {problem}");
}

#[test]
fn twins_make_one_order() {
    let (gateway, order, key) = (shared(), order(), unique("k"));
    let answers: Vec<Answer> = thread::scope(|scope| {
        let posts: Vec<_> = (0..64).map(|_| scope.spawn(|| post(&gateway, &order, &key))).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    assert_eq!(answers.iter().map(|answer| &answer.body).collect::<HashSet<_>>().len(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed") != Some("true")).count(), 1);
}

#[test]
fn twins_with_other_bodies_make_one_order_and_422s() {
    let (gateway, key) = (shared(), unique("k"));
    let statuses: Vec<u16> = thread::scope(|scope| {
        let posts: Vec<_> = (0..32).map(|_| scope.spawn(|| post(&gateway, &order(), &key).status)).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 422).count(), 31, "{statuses:?}");
}

#[test]
fn a_key_survives_a_kill() {
    let gateway = TestGateway::start();
    let (order, key) = (order(), unique("k"));
    let first = post(&gateway, &order, &key);
    gateway.start_again();
    let again = post(&gateway, &order, &key);
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(post(&gateway, &harness::order(), &key).status, 422);
}

#[test]
fn only_a_202_binds_a_key() {
    let (gateway, key) = (shared(), unique("k"));
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    assert_eq!(gateway.post_with("/orders", &headers, b"{").status, 400);
    assert_eq!(post(&gateway, &order(), &key).header("idempotent-replayed"), None);
}

#[test]
fn a_prefer_applies_anew_to_a_replay() {
    let (gateway, order, key) = (shared(), order(), unique("k"));
    let id = post(&gateway, &order, &key).accepted().id;
    let answer = gateway.post_order_with(&order, &[("idempotency-key", &key), ("prefer", "wait=20")]);
    assert_eq!((answer.status, answer.json()["id"].as_str()), (200, Some(id.as_str())), "{}", answer.text());
    assert_eq!(answer.header("idempotent-replayed"), Some("true"));
}

#[test]
fn a_batch_can_be_sent_again_and_goes_on_where_it_was_cut() {
    let (gateway, key) = (shared(), unique("k"));
    let lines: Vec<String> = (0..20).map(|_| order().to_string()).collect();
    let ids = |results: &[Value]| -> Vec<String> {
        results.iter().map(|result| result["order"]["id"].as_str().unwrap().to_owned()).collect()
    };
    let headers = [("idempotency-key", key.as_str())];
    let first = ids(&gateway.post_batch(&lines[..12], &headers));
    let again = ids(&gateway.post_batch(&lines, &headers));
    assert_eq!(again[..12], first);
    assert_eq!(again.iter().collect::<HashSet<_>>().len(), 20);
}

/// Keys of single orders, of batch lines and of events are names of different things.
#[test]
fn the_name_spaces_of_keys_are_apart() {
    let (gateway, key) = (shared(), unique("k"));
    let one = post(&gateway, &order(), &key).accepted().id;
    let results = gateway.post_batch(&[order().to_string()], &[("idempotency-key", &key)]);
    assert_eq!(results[0]["status"], 202, "{}", results[0]);
    let event = gateway.post_order_with(
        &order(),
        &[("ce-specversion", "1.0"), ("ce-id", &key), ("ce-source", "/shop"), ("ce-type", "order.created")],
    );
    let ids = [one, results[0]["order"]["id"].as_str().unwrap().to_owned(), event.accepted().id];
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
}

#[test]
fn a_cloudevent_is_an_order_and_its_id_a_key() {
    let (gateway, order, id) = (shared(), order(), unique("e"));
    let mut event = json!({
        "specversion": "1.0", "id": id, "source": "/shop", "type": "order.created",
        "datacontenttype": "application/json", "data": order,
    });
    let structured = |event: &Value| {
        let headers = [("content-type", "application/cloudevents+json; charset=utf-8")];
        gateway.post_with("/orders", &headers, event.to_string().as_bytes())
    };
    let first = structured(&event).accepted().id;
    let headers =
        [("ce-specversion", "1.0"), ("ce-id", id.as_str()), ("ce-source", "/shop"), ("ce-type", "order.created")];
    let again = gateway.post_order_with(&order, &headers);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.accepted().id, first);
    assert_eq!(gateway.settled(&first)["order"]["totals"]["net"], "15.50", "the event's data is the order");

    event["data"]["currency"] = "EUR".into();
    assert_eq!(structured(&event).problem(422)["source"], "client");
    event.as_object_mut().unwrap().remove("id");
    assert_eq!(structured(&event).problem(400)["source"], "client");
}

#[test]
fn bad_keys_are_refused() {
    let gateway = shared();
    let long = "x".repeat(256);
    for bad in ["", "\"\"", long.as_str(), "\"open", "a\tb"] {
        assert_eq!(post(&gateway, &order(), bad).problem(400)["source"], "client", "{bad:?}");
    }
    assert_eq!(post(&gateway, &order(), &format!("{:x<255}", unique("k"))).status, 202);
    let headers = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(gateway.post_order_with(&order(), &headers).status, 400);
}
