//! SIGTERM: what is in flight is finished, nothing new is taken, and it ends in bounded time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use harness::orders::IGNORED;
use harness::{TestGateway, order, order_of, wait_until};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn under_load_every_202_is_kept() {
    let gateway = TestGateway::start();
    let accepted = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let body = order().to_string();
                let headers = [("content-type", "application/json")];
                while let Ok(answer) = gateway.ask("POST", "/orders", &headers, Some(body.as_bytes())) {
                    // While it stops, a 503 is right as well.
                    assert!([202, 503].contains(&answer.status), "{}", answer.text());
                    if answer.status == 202 {
                        accepted.lock().unwrap().push(answer.accepted().id);
                    }
                }
            });
        }
        wait_until("load", LIMIT, || match accepted.lock().unwrap().len() {
            count if count >= 200 => Ok(()),
            count => Err(count),
        });
        let took = gateway.terminate();
        assert!(took < LIMIT, "{took:?}");
    });
    gateway.start_again();
    for id in accepted.lock().unwrap().iter() {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
    }
}

#[test]
fn a_request_in_flight_is_answered_and_no_new_one_is_taken() {
    let gateway = TestGateway::start();
    let body = order().to_string();
    let head = format!(
        "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(gateway.http_address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.write_all(format!("{head}{}", &body[..20]).as_bytes()).unwrap();
    // An answer on another connection shows that the gateway had time to read the first part.
    assert_eq!(gateway.get("/orders/x").status, 404);
    gateway.signal(Signal::TERM);
    wait_until("closed doors", LIMIT, || match TcpStream::connect(gateway.http_address()) {
        Ok(_) => Err("still open"),
        Err(_) => Ok(()),
    });
    socket.write_all(&body.as_bytes()[20..]).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert!(gateway.ended(LIMIT).success());
    assert_eq!(gateway.database().orders(), 1);
}

#[test]
fn open_streams_and_long_polls_do_not_hold_it_up() {
    let gateway = TestGateway::with().text("shutdown.requests", "20s").start();
    let id = gateway.post_order(&order_of(IGNORED)).id;
    let published = gateway.order_in(&id, &["PUBLISHED"]);
    let mut stream = gateway.stream(&format!("/orders/{id}/events"), &[]);
    assert_eq!(stream.next_event().unwrap().version(), published["version"].as_u64().unwrap());
    let etag = format!("\"{}\"", published["version"]);
    thread::scope(|scope| {
        let poll = scope.spawn(|| gateway.get_with(&format!("/orders/{id}?wait=30"), &[("if-none-match", &etag)]));
        wait_until("the long poll", LIMIT, || {
            let open = gateway.metric("sluice_http_requests_open", "");
            if open >= 1.0 { Ok(()) } else { Err(open) }
        });
        let took = gateway.terminate();
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!([200, 304, 503].contains(&poll.join().unwrap().status));
    });
    assert!(stream.rest().is_empty());
}

#[test]
fn a_restart_after_sigterm_goes_on_where_it_was() {
    let gateway = TestGateway::start();
    let id = gateway.post_order(&order_of(IGNORED)).id;
    let before = gateway.order_in(&id, &["PUBLISHED"]);
    let _took = gateway.terminate();
    gateway.start_again();
    let after = gateway.order(&id);
    assert_eq!((&after["id"], &after["order"]), (&before["id"], &before["order"]));
    assert!(after["version"].as_u64() >= before["version"].as_u64());
}
