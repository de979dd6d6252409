//! A listener with short limits, seen from a raw socket.

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const SHORT: Duration = Duration::from_millis(80);
const LONG: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits {
    connections_max: 8,
    first_byte: LONG,
    header: LONG,
    header_bytes_max: 16 << 10,
    write_stall: LONG,
    keep_alive: LONG,
};

struct Served {
    address: SocketAddr,
    tasks: Tasks,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
}

/// `/hello` answers, `/big` answers with 64 MiB, `/never` does not answer, `/take` takes a body.
async fn serve(limits: Limits) -> Served {
    let router = axum::Router::new()
        .route("/hello", get(async || "hello"))
        .route("/big", get(async || vec![b'x'; 64 << 20]))
        .route("/never", get(std::future::pending::<&str>))
        .route("/take", post(async |body: String| body));
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, stop, metrics) = (Tasks::default(), CancellationToken::new(), Arc::new(Metrics::new()));
    tasks.spawn("listener", listener.serve(router, tasks.clone(), Arc::clone(&metrics), stop.clone()));
    Served { address, tasks, stop, metrics }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What comes back until the server closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        socket.write_all(bytes).await.unwrap();
        rest(&mut socket).await
    }

    fn closed_by(&self, kind: &str) -> bool {
        self.metrics.render().contains(&format!("sluice_http_connections_closed_total{{kind=\"{kind}\"}} 1"))
    }
}

async fn rest(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset ends it as well as a close.
    tokio::time::timeout(LONG, socket.read_to_end(&mut answer)).await.expect("the server closes").unwrap_or_default();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_one_after_the_other() {
    let served = serve(LIMITS).await;
    let get = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = served.say(format!("{get}{get}{last}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}

#[tokio::test]
async fn a_request_names_one_host() {
    let served = serve(LIMITS).await;
    for head in ["GET /hello HTTP/1.1\r\n\r\n", "GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"] {
        let answer = served.say(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("urn:sluice:problem:bad-request"), "{answer}");
    }
    let old = served.say(b"GET /hello HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 200 OK") && old.ends_with("hello"), "{old}");
}

#[tokio::test]
async fn broken_framing_is_refused() {
    let served = serve(LIMITS).await;
    for head in [
        "POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        "POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /take HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
    ] {
        let answer = served.say(head.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{head:?}: {answer}");
    }
    let huge = format!("GET /hello HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(400_000));
    let answer = served.say(huge.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let served = serve(Limits { first_byte: SHORT, ..LIMITS }).await;
    assert_eq!(served.say(b"").await, "");
    assert!(served.closed_by("first-byte"));
}

#[tokio::test]
async fn a_dripping_head_is_closed_although_bytes_come() {
    let served = serve(Limits { header: SHORT, ..LIMITS }).await;
    let mut socket = served.connect().await;
    let drip = async {
        while socket.write_all(b"G").await.is_ok() {
            tokio::time::sleep(SHORT / 8).await;
        }
    };
    tokio::time::timeout(LONG, drip).await.expect("the server closes");
    assert!(served.closed_by("header"));
}

#[tokio::test]
async fn a_connection_that_is_idle_after_an_answer_is_closed() {
    let served = serve(Limits { keep_alive: SHORT, ..LIMITS }).await;
    let answer = served.say(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_request_being_answered_is_not_idle() {
    let served = serve(Limits { first_byte: SHORT, header: SHORT, keep_alive: SHORT, ..LIMITS }).await;
    let mut socket = served.connect().await;
    socket.write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let closed = tokio::time::timeout(SHORT * 4, socket.read(&mut byte)).await;
    assert!(closed.is_err(), "the connection ended: {closed:?}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let served = serve(Limits { write_stall: SHORT, ..LIMITS }).await;
    let mut socket = served.connect().await;
    socket.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let cut = async {
        while !served.closed_by("write-stall") {
            tokio::time::sleep(SHORT / 8).await;
        }
    };
    tokio::time::timeout(LONG, cut).await.expect("the server cuts it");
    assert!(rest(&mut socket).await.len() < 64 << 20);
}

#[tokio::test]
async fn a_slow_reader_that_moves_gets_everything() {
    let served = serve(Limits { write_stall: SHORT * 4, keep_alive: SHORT * 4, ..LIMITS }).await;
    let mut socket = served.connect().await;
    socket.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let (mut taken, mut buffer) = (0, vec![0; 8 << 20]);
    loop {
        let count = socket.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        taken += count;
        tokio::time::sleep(SHORT / 40).await;
    }
    assert!(taken > 64 << 20, "{taken}");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let served = serve(Limits { connections_max: 1, ..LIMITS }).await;
    let first = served.connect().await;
    let mut second = served.connect().await;
    second.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(SHORT, second.readable()).await;
    assert!(early.is_err(), "two were served at a time");
    drop(first);
    assert!(rest(&mut second).await.ends_with("hello"));
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_ends() {
    let served = serve(LIMITS).await;
    let (mut silent, mut idle) = (served.connect().await, served.connect().await);
    idle.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut buffer = [0; 512];
    assert!(idle.read(&mut buffer).await.unwrap() > 0);
    served.stop.cancel();
    assert_eq!((rest(&mut silent).await, rest(&mut idle).await), (String::new(), String::new()));
    assert!(served.tasks.stop("requests", LONG).await);
}
