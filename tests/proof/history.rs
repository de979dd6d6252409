//! What the clients asked and what they were told: their own history, which nothing on the gateway's side can change.

use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};

/// A moment on the one clock of the test, in microseconds since its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Moment(pub(crate) u64);

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// A new order. `serial` stands in its body and in no other.
    Post {
        serial: String,
        customer: String,
        idempotency_key: Option<String>,
        must_end: &'static [&'static str],
    },
    /// Another body for an order.
    Revise {
        order: String,
        serial: String,
    },
    Cancel {
        order: String,
    },
    /// A look at an order.
    Read {
        order: String,
    },
    /// One event of a stream; events of one stream have one number.
    Event {
        order: String,
        stream: u64,
    },
}

/// What it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `202`, of this order.
    Accepted(String),
    /// The order at a version.
    Seen { version: u64, is_reset: bool },
    /// A definite no.
    Refused(u16),
    /// No whole answer, or a `503`: it may or may not have been done.
    Lost,
}

/// One request with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) sent: Moment,
    pub(crate) answered: Moment,
    pub(crate) answer: Answer,
}

/// The history of all clients, as it grows.
#[derive(Debug)]
pub(crate) struct History {
    begin: Instant,
    calls: Mutex<Vec<Call>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { begin: Instant::now(), calls: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(u64::try_from(self.begin.elapsed().as_micros()).expect("a test ends"))
    }

    pub(crate) fn note(&self, request: Request, sent: Moment, answer: Answer) {
        let call = Call { request, sent, answered: self.now(), answer };
        self.calls.lock().expect("no client panicked").push(call);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no client panicked").clone()
    }

    /// Orders that were accepted so far.
    pub(crate) fn accepted(&self) -> Vec<String> {
        let calls = self.calls.lock().expect("no client panicked");
        let orders = calls.iter().filter_map(|call| match (&call.request, &call.answer) {
            (Request::Post { .. }, Answer::Accepted(order)) => Some(order.clone()),
            _ => None,
        });
        orders.collect()
    }
}

/// The body of an order. What plugins and services do to it is in `customer` and `mark`.
pub(crate) fn body(serial: &str, customer: &str, mark: Option<&str>, is_valid: bool) -> Value {
    let mut order = harness::order_of(customer);
    order["serial"] = serial.into();
    if let Some(mark) = mark {
        order["mark"] = mark.into();
    }
    if !is_valid {
        order["lines"][0]["quantity"] = json!(0);
    }
    order
}
