//! Streams of changes: every version once, resumable at each, the same as polls see.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use harness::sse::Event;
use harness::{FINAL, TestGateway, order, order_of, shared, wait_until};
use serde_json::Value;

fn versions(events: &[Event]) -> Vec<u64> {
    events.iter().map(Event::version).collect()
}

#[test]
fn a_stream_tells_each_version_once_and_ends() {
    let gateway = shared();
    let id = gateway.post_order(&order()).id;
    let mut stream = gateway.stream(&format!("/orders/{id}/events"), &[]);
    assert_eq!(stream.status, 200);
    assert!(stream.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    assert_eq!((stream.header("cache-control"), stream.header("x-accel-buffering")), (Some("no-store"), Some("no")));
    let events = stream.rest();
    assert!(stream.ended_well, "the stream broke");
    let first = events[0].version();
    assert_eq!(versions(&events), (first..first + events.len() as u64).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event.name == "status" && event.id == event.version().to_string()));
    assert_eq!(events.last().unwrap().data, gateway.order(&id));
}

#[test]
fn a_stream_resumes_with_the_next_version_from_each() {
    let gateway = shared();
    let order = gateway.settled(&gateway.post_order(&order()).id);
    let (path, last) =
        (format!("/orders/{}/events", order["id"].as_str().unwrap()), order["version"].as_u64().unwrap());
    for version in 1..last {
        let version_text = version.to_string();
        let events = gateway.stream(&path, &[("last-event-id", &version_text)]).rest();
        assert_eq!(versions(&events), (version + 1..=last).collect::<Vec<_>>(), "after {version}");
        assert_eq!(gateway.stream(&format!("{path}?last_event_id={version}"), &[]).rest(), events);
        let both = format!("{path}?last_event_id=999999");
        assert_eq!(gateway.stream(&both, &[("last-event-id", &version_text)]).rest(), events, "the header wins");
    }
    assert_eq!(gateway.stream(&path, &[("last-event-id", &last.to_string())]).status, 204);
}

#[test]
fn an_event_id_that_is_none_gets_a_reset_with_the_present() {
    let gateway = shared();
    let order = gateway.settled(&gateway.post_order(&order()).id);
    let path = format!("/orders/{}/events", order["id"].as_str().unwrap());
    for odd in ["999999", "abc", "-1", "1e3", "0x1", "18446744073709551616"] {
        let events = gateway.stream(&path, &[("last-event-id", odd)]).rest();
        assert_eq!((events.len(), events[0].name.as_str(), &events[0].data), (1, "reset", &order), "{odd}");
    }
}

/// Poll, long poll and stream tell the same versions of the same order, and each the same bytes of JSON.
#[test]
fn polls_long_polls_and_streams_agree() {
    let gateway = shared();
    let id = gateway.post_order(&order()).id;
    let path = format!("/orders/{id}");
    let (polled, long_polled, mut streamed) = thread::scope(|scope| {
        let polled = scope.spawn(|| {
            let mut seen = BTreeMap::new();
            wait_until("a final state", Duration::from_secs(60), || {
                let order = gateway.order(&id);
                let is_final = order["final"] == true;
                seen.insert(order["version"].as_u64().unwrap(), order);
                if is_final { Ok(()) } else { Err("not final") }
            });
            seen
        });
        let long_polled = scope.spawn(|| {
            let (mut seen, mut etag) = (BTreeMap::new(), "\"0\"".to_owned());
            loop {
                let answer = gateway.get_with(&format!("{path}?wait=20"), &[("if-none-match", &etag)]);
                answer.header("etag").unwrap().clone_into(&mut etag);
                let order = answer.json();
                let is_final = order["final"] == true;
                seen.insert(order["version"].as_u64().unwrap(), order);
                if is_final {
                    break seen;
                }
            }
        });
        let events = gateway.stream(&format!("{path}/events"), &[]).rest();
        let streamed: BTreeMap<u64, Value> = events.into_iter().map(|event| (event.version(), event.data)).collect();
        (polled.join().unwrap(), long_polled.join().unwrap(), streamed)
    });
    let resumed = gateway.stream(&format!("{path}/events"), &[("last-event-id", "1")]).rest();
    streamed.extend(resumed.into_iter().map(|event| (event.version(), event.data)));
    for (version, order) in polled.iter().chain(&long_polled) {
        assert!(
            *version == 1 || streamed.get(version) == Some(order),
            "version {version}: {order} is not {streamed:?}"
        );
    }
}

#[test]
fn one_stream_tells_many_orders_and_resumes_all() {
    let gateway = shared();
    let ids: Vec<String> = (0..20).map(|_| gateway.post_order(&order()).id).collect();
    let path = format!("/orders/events?ids={}", ids.join(","));
    let mut stream = gateway.stream(&path, &[]);
    let events = stream.rest();
    assert!(stream.ended_well && events.iter().all(|event| event.name == "status"));
    let told = |events: &[Event], id: &str| -> Vec<u64> {
        events.iter().filter(|event| event.data["id"] == id).map(Event::version).collect()
    };
    for id in &ids {
        let seen = told(&events, id);
        let last = gateway.order(id);
        assert_eq!(seen, (seen[0]..=last["version"].as_u64().unwrap()).collect::<Vec<_>>());
        assert!(FINAL.contains(&last["status"].as_str().unwrap()));
    }
    let (before, after) = events.split_at(events.len() / 2);
    let rest = gateway.stream(&path, &[("last-event-id", &before.last().unwrap().id)]).rest();
    // Each order's versions go on without a gap; how orders mix is nobody's promise. An order that had not been told
    // of yet begins with its present state.
    for id in &ids {
        let (resumed, last) = (told(&rest, id), gateway.order(id)["version"].as_u64().unwrap());
        if told(before, id).is_empty() {
            assert_eq!(resumed, (resumed[0]..=last).collect::<Vec<_>>(), "{id}");
        } else {
            assert_eq!(resumed, told(after, id), "{id}");
        }
    }
    assert_eq!(gateway.stream(&path, &[("last-event-id", &events.last().unwrap().id)]).status, 204);
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(gateway.get(&format!("/orders/events?ids={},{unknown}", ids[0])).status, 404);
}

#[test]
fn all_listeners_hear_the_same() {
    let gateway = shared();
    let id = gateway.post_order(&order()).id;
    let path = format!("/orders/{id}/events");
    let ends: Vec<Event> = thread::scope(|scope| {
        let streams: Vec<_> = (0..30).map(|_| scope.spawn(|| gateway.stream(&path, &[]).rest())).collect();
        streams.into_iter().map(|stream| stream.join().unwrap().pop().unwrap()).collect()
    });
    assert_eq!(ends.iter().map(|event| event.data.to_string()).collect::<HashSet<_>>().len(), 1);
    assert_eq!(ends[0].data, gateway.order(&id));
}

#[test]
fn a_quiet_stream_beats_and_says_when_to_come_back() {
    let gateway = TestGateway::with().text("http.heartbeat", "200ms").start();
    let id = gateway.post_order(&order_of("ignore-me")).id;
    let mut stream = gateway.stream(&format!("/orders/{id}/events"), &[]);
    assert!(stream.read_comment() && stream.read_comment());
    assert!(stream.retry_ms.is_some_and(|retry| retry > 0), "no retry:");
}

#[test]
fn a_stream_goes_on_over_a_kill() {
    let gateway = TestGateway::start();
    let id = gateway.post_order(&order_of("ignore-me")).id;
    let published = gateway.order_in(&id, &["PUBLISHED"]);
    let path = format!("/orders/{id}/events");
    let mut stream = gateway.stream(&path, &[]);
    let seen = stream.next_event().unwrap();
    assert_eq!(seen.data["status"], published["status"]);
    gateway.start_again();
    assert_eq!(stream.rest(), [], "nothing more can have come");
    let id_before = (seen.version() - 1).to_string();
    let resumed = gateway.stream(&path, &[("last-event-id", &id_before)]).next_event().unwrap();
    assert_eq!((resumed.name.as_str(), resumed.version()), ("status", seen.version()));
}

/// A client that stops reading holds no memory for ever: it is cut, and resumes where it was.
#[test]
fn a_slow_reader_is_cut_and_can_resume() {
    let gateway = TestGateway::with().text("http.write_stall_timeout", "1s").text("http.heartbeat", "500ms").start();
    let mut large = order();
    large["note"] = "x".repeat(1_000_000).into();
    let ids: Vec<String> = (0..16)
        .map(|_| {
            large["customerId"] = harness::random::unique("slow").into();
            gateway.post_order(&large).id
        })
        .collect();
    let path = format!("/orders/events?ids={}", ids.join(","));
    let mut socket = TcpStream::connect(gateway.http_address()).unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    wait_until("the cut", Duration::from_secs(60), || {
        let cut = gateway.metric("sluice_http_connections_closed_total", "write-stall");
        if cut >= 1.0 { Ok(()) } else { Err(cut) }
    });
    let mut rest = Vec::new();
    drop(socket.read_to_end(&mut rest));
    let text = String::from_utf8_lossy(&rest);
    let last =
        text.lines().rev().find_map(|line| line.strip_prefix("id:")).expect("some events came").trim().to_owned();
    let events = gateway.stream(&path, &[("last-event-id", &last)]).rest();
    assert!(!events.is_empty() && events.iter().all(|event| event.name == "status"));
    for id in &ids {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
    }
}
