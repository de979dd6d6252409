//! Asks a gateway over HTTP: with an ordinary client, and byte by byte where a client would not do it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use crate::orders::{Accepted, FINAL};
use crate::sse::Stream;
use crate::wait::wait_until;

/// Longest a single answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Longest an order may take to a final state, on a busy machine too.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// What a gateway answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// The lines of an NDJSON body.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).expect("each line of a batch is JSON")).collect()
    }

    /// The order of a `202`.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        assert_eq!(self.status, 202, "{}", self.text());
        Accepted { id: self.json()["id"].as_str().expect("a 202 has an id").to_owned() }
    }

    /// Checks that this is a problem of the contract's shape, and returns it.
    #[must_use]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {problem}");
        }
        assert!(problem["retryable"].is_boolean(), "{problem}");
        let source = problem["source"].as_str().unwrap_or_default();
        assert!(["client", "gateway", "plugin", "downstream"].contains(&source), "{problem}");
        problem
    }
}

/// Asks one listener; a new connection for each request, so that a restart between two is not seen.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    agent: Agent,
}

impl Client {
    /// A client of the listener at `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(ANSWER_LIMIT))
            .timeout_per_read(Some(ANSWER_LIMIT))
            .proxy(None);
        Self { base: format!("http://{address}"), agent: config.build().new_agent() }
    }

    /// Asks, and returns the answer or why there is none.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, ureq::Error> {
        let response = self.open(method, path, headers, body)?;
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())).collect();
        let body = response.into_body().into_with_config().limit(1 << 30).read_to_vec()?;
        Ok(Answer { status, headers, body })
    }

    fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match body {
            Some(body) => self.agent.run(request.body(body)?),
            None => self.agent.run(request.body(())?),
        }
    }

    /// `GET` with headers.
    #[must_use]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, None).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// `GET`.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    /// `POST` of any body.
    #[must_use]
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.ask("POST", path, headers, Some(body)).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// `POST` of a command that has no body.
    #[must_use]
    pub fn command(&self, path: &str) -> Answer {
        self.post_with(path, &[], b"")
    }

    /// Posts an order to the default route, with headers.
    #[must_use]
    pub fn post_order_with(&self, order: &Value, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.post_with("/orders", &all, order.to_string().as_bytes())
    }

    /// Posts an order to the default route; it must be accepted.
    #[must_use]
    pub fn post_order(&self, order: &Value) -> Accepted {
        self.post_order_with(order, &[]).accepted()
    }

    /// Posts orders in one batch; returns the results, one per line.
    #[must_use]
    pub fn post_batch(&self, lines: &[String], headers: &[(&str, &str)]) -> Vec<Value> {
        let mut all = vec![("content-type", "application/x-ndjson")];
        all.extend(headers);
        let answer = self.post_with("/orders", &all, (lines.join("\n") + "\n").as_bytes());
        assert_eq!(answer.status, 207, "{}", answer.text());
        answer.lines()
    }

    /// The order as it is.
    #[must_use]
    pub fn order(&self, id: &str) -> Value {
        let answer = self.get(&format!("/orders/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits for one of some states.
    #[must_use]
    pub fn order_in(&self, id: &str, states: &[&str]) -> Value {
        wait_until(&format!("order {id} in {states:?}"), SETTLE_LIMIT, || {
            let order = self.order(id);
            if states.iter().any(|state| order["status"] == *state) { Ok(order) } else { Err(order) }
        })
    }

    /// Waits for a final state.
    #[must_use]
    pub fn settled(&self, id: &str) -> Value {
        self.order_in(id, &FINAL)
    }

    /// The entries of the order's timeline.
    #[must_use]
    pub fn timeline(&self, id: &str) -> Vec<Value> {
        let answer = self.get(&format!("/orders/{id}/timeline"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["entries"].as_array().expect("a timeline has entries").clone()
    }

    /// Opens a stream of events.
    #[must_use]
    pub fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut all = vec![("accept", "text/event-stream")];
        all.extend(headers);
        let response = self.open("GET", path, &all, None).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        Stream::new(response)
    }
}

/// Sends bytes as they are and reads until the gateway closes; status 0 is a close without an answer.
///
/// # Panics
///
/// When the gateway neither answers nor closes within `limit`.
#[must_use]
pub fn raw(address: SocketAddr, bytes: &[u8], limit: Duration) -> (u16, Vec<u8>) {
    let mut socket = TcpStream::connect(address).expect("the gateway takes connections");
    socket.set_read_timeout(Some(limit)).expect("a limit is not zero");
    // A gateway may answer and close before it has read all.
    drop(socket.write_all(bytes));
    let mut answer = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answer) {
        let silent = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!silent || !answer.is_empty(), "no answer and no close within {limit:?}");
    }
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    (status.and_then(|digits| digits.parse().ok()).unwrap_or(0), answer)
}
