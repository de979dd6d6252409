//! Bad input gets a clear answer and loses nothing.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use harness::http::raw;
use harness::{TestGateway, order, shared};

const LIMIT: Duration = Duration::from_secs(30);

fn json(gateway: &TestGateway, body: &[u8]) -> harness::Answer {
    gateway.post_with("/orders", &[("content-type", "application/json")], body)
}

/// Alive, and still doing its work.
fn still_works(gateway: &TestGateway) {
    assert_eq!(gateway.admin().get("/livez").status, 200);
    assert_eq!(gateway.settled(&gateway.post_order(&order()).id)["status"], "VALIDATED");
}

#[test]
fn bodies_that_are_no_order_are_400() {
    let gateway = shared();
    let good = order().to_string();
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("blank", b"  \n".to_vec()),
        ("text", b"hello".to_vec()),
        ("cut", good.as_bytes()[..good.len() - 3].to_vec()),
        ("trailing", format!("{good}x").into_bytes()),
        ("two", good.repeat(2).into_bytes()),
        ("array", b"[]".to_vec()),
        ("string", b"\"x\"".to_vec()),
        ("null", b"null".to_vec()),
        ("number", b"1".to_vec()),
        ("NaN", b"{\"a\":NaN}".to_vec()),
        ("Infinity", b"{\"a\":-Infinity}".to_vec()),
        ("invalid UTF-8", b"{\"a\":\"\xff\"}".to_vec()),
        ("UTF-16", utf16),
        ("byte order mark", format!("\u{feff}{good}").into_bytes()),
        ("200,000 brackets", vec![b'['; 200_000]),
        ("100,000 objects", b"{\"a\":".repeat(100_000)),
        ("65 levels", [b"{\"a\":".repeat(64), b"{}".to_vec(), b"}".repeat(64)].concat()),
        ("duplicate member", b"{\"customerId\":\"a\",\"customerId\":\"b\"}".to_vec()),
        ("duplicate member, escaped", b"{\"a\":1,\"\\u0061\":2}".to_vec()),
        ("duplicate member below", b"{\"a\":[{\"b\":1,\"b\":1}]}".to_vec()),
        ("lone surrogate", b"{\"a\":\"\\ud800\"}".to_vec()),
        ("control character", b"{\"a\":\"\x01\"}".to_vec()),
        ("number too large", b"{\"a\":1e999999}".to_vec()),
        ("leading zero", b"{\"a\":01}".to_vec()),
        ("trailing comma", b"{\"a\":1,}".to_vec()),
        ("comment", b"{\"a\":1}//x".to_vec()),
        ("single quotes", b"{'a':1}".to_vec()),
    ];
    for (name, body) in cases {
        let problem = json(&gateway, &body).problem(400);
        assert_eq!((&problem["source"], &problem["retryable"]), (&"client".into(), &false.into()), "{name}");
    }
    still_works(&gateway);
}

#[test]
fn what_is_just_within_the_limits_is_taken() {
    let gateway = shared();
    let deep = [b"{\"a\":".repeat(63), b"{}".to_vec(), b"}".repeat(63)].concat();
    for body in [&deep[..], b" \r\n\t{ } \n", b"{\"\":0,\"a\":1e308,\"b\":5e-324,\"c\":\"\\ud83d\\ude00\"}"] {
        assert_eq!(json(&gateway, body).status, 202, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn other_content_types_are_415() {
    let gateway = shared();
    let body = order().to_string();
    for kind in ["text/plain", "application/xml", "multipart/form-data; boundary=x", "application/jsonx", "json"] {
        let answer = gateway.post_with("/orders", &[("content-type", kind)], body.as_bytes());
        assert_eq!(answer.problem(415)["source"], "client", "{kind}");
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        assert_eq!(gateway.post_with("/orders", &[("content-type", kind)], body.as_bytes()).status, 202, "{kind}");
    }
    assert_eq!(gateway.post_with("/orders", &[], body.as_bytes()).problem(415)["source"], "client");
}

#[test]
fn a_declared_10_mb_is_413_before_it_is_sent() {
    let gateway = shared();
    let head = "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10485760\r\n\r\n";
    let (status, answer) = raw(gateway.http_address(), head.as_bytes(), LIMIT);
    assert_eq!(status, 413, "{}", String::from_utf8_lossy(&answer));
    still_works(&gateway);
}

#[test]
fn an_endless_chunked_body_is_cut() {
    let gateway = shared();
    let mut socket = TcpStream::connect(gateway.http_address()).unwrap();
    socket.set_write_timeout(Some(LIMIT)).unwrap();
    let head =
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all(head).unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    // The gateway may answer and close at any chunk; 32 MiB must not go through.
    let taken = (0..512).take_while(|_| socket.write_all(&chunk).is_ok()).count();
    assert!(taken < 512, "32 MiB were swallowed");
    still_works(&gateway);
}

#[test]
fn a_truncated_body_makes_no_order() {
    let gateway = TestGateway::start();
    let body = order().to_string();
    let head = format!(
        "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len() + 10
    );
    let mut socket = TcpStream::connect(gateway.http_address()).unwrap();
    socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    drop(std::io::Read::read_to_end(&mut socket, &mut answer));
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(gateway.database().orders(), 0);
    still_works(&gateway);
}

#[test]
fn unknown_routes_and_methods_are_told() {
    let gateway = shared();
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    let paths = ["/", "/nothing", "/orders/", "/orders/not-an-id", "/metrics", "/livez"].map(str::to_owned);
    let below = ["", "/events", "/timeline"].map(|below| format!("/orders/{unknown}{below}"));
    for path in paths.iter().chain(&below) {
        assert_eq!(gateway.get(path).problem(404)["source"], "client", "{path}");
    }
    for (method, path) in [("DELETE", "/orders"), ("PUT", "/orders/x"), ("PATCH", "/orders"), ("POST", &below[1])] {
        let body = (method != "DELETE").then_some(&b""[..]);
        let answer = gateway.ask(method, path, &[], body).unwrap();
        assert_eq!(answer.problem(405)["source"], "client", "{method} {path}");
        assert!(answer.header("allow").is_some_and(|allow| !allow.is_empty()), "{method} {path}");
    }
}

#[test]
fn broken_http_is_refused_and_survived() {
    let gateway = shared();
    let huge = [b"GET / HTTP/1.1\r\nHost: x\r\nX: ".to_vec(), vec![b'y'; 400_000], b"\r\n\r\n".to_vec()].concat();
    let cases: [(&str, &[u8]); 8] = [
        ("no host", b"GET /orders/x HTTP/1.1\r\n\r\n"),
        ("bad length", b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n"),
        ("two lengths", b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        (
            "length and chunked",
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("bad chunk", b"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ("garbage", &[0, 1, 2, 255, 254, 13, 10, 13, 10]),
        ("huge header", &huge),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ];
    for (name, bytes) in cases {
        let (status, answer) = raw(gateway.http_address(), bytes, LIMIT);
        assert!(status == 0 || (400..500).contains(&status), "{name}: {}", String::from_utf8_lossy(&answer));
        assert!(name != "no host" || status == 400, "{name}: {status}");
    }
    still_works(&gateway);
}

#[test]
fn bad_queries_are_400() {
    let gateway = shared();
    let id = gateway.post_order(&order()).id;
    for wait in ["x", "-1", "1e9", ""] {
        let answer = gateway.get(&format!("/orders/{id}?wait={wait}"));
        assert_eq!(answer.problem(400)["source"], "client", "wait={wait}");
    }
    for query in [
        "",
        "?limit=5",
        "?key=k&limit=0",
        "?key=k&limit=501",
        "?key=k&limit=x",
        "?key=k&after=zz!",
        "?key=k&status=LOST",
    ] {
        assert_eq!(gateway.get(&format!("/orders{query}")).problem(400)["source"], "client", "{query}");
    }
    assert_eq!(gateway.get("/orders/events").problem(400)["source"], "client");
}

#[test]
fn silent_and_slow_clients_are_closed() {
    let gateway = TestGateway::with()
        .text("http.first_byte_timeout", "1s")
        .text("http.header_timeout", "1s")
        .text("http.body_timeout", "2s")
        .text("http.keep_alive_timeout", "1s")
        .start();
    let cases: [(&str, &[u8]); 4] = [
        ("says nothing", b""),
        ("says nothing more", b"GET /orders/x HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("half a header", b"GET / HTTP/1.1\r\nHo"),
        (
            "half a body",
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        ),
    ];
    std::thread::scope(|scope| {
        for (name, bytes) in cases {
            let address = gateway.http_address();
            scope.spawn(move || {
                let (status, _) = raw(address, bytes, LIMIT);
                let expected: &[u16] = match name {
                    "says nothing more" => &[404],
                    "half a body" => &[408],
                    _ => &[0, 408],
                };
                assert!(expected.contains(&status), "{name}: {status}");
            });
        }
    });
    still_works(&gateway);
}
