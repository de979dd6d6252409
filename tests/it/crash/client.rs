//! Clients that post orders without end, and send again what got no answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use harness::orders::order_of;
use harness::random::{Dice, unique};

/// An order that was accepted.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) id: String,
    pub(super) customer: String,
    /// When the first attempt to post it began.
    pub(super) first_sent: Instant,
    /// When its `202` was read.
    pub(super) answered: Instant,
    /// How often its answer was lost.
    pub(super) lost: u32,
}

#[derive(Debug, Default)]
struct Gate {
    is_open: bool,
    is_over: bool,
    /// Clients between the begin of a request and its answer or loss.
    busy: usize,
    /// Requests lost since the gate was last opened.
    lost: u64,
}

/// The load of all clients, and the gate through which each request goes.
#[derive(Debug)]
pub(super) struct Load {
    address: SocketAddr,
    customers: Vec<String>,
    /// The first so many of them have orders that are held.
    held: u64,
    gate: Mutex<Gate>,
    changed: Condvar,
    is_ending: AtomicBool,
    posted: Mutex<Vec<Posted>>,
}

/// Ends the load when dropped.
pub(super) struct End<'a>(&'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_ending.store(true, Ordering::SeqCst);
        if std::thread::panicking() {
            // Nobody will start the gateway again: what is lost stays lost.
            if let Ok(mut gate) = self.0.gate.lock() {
                gate.is_over = true;
            }
        }
        self.0.changed.notify_all();
    }
}

impl Load {
    pub(super) fn new(address: SocketAddr, keys: u64, held: u64) -> Self {
        Self {
            address,
            customers: (0..keys).map(|_| unique("crash")).collect(),
            held,
            gate: Mutex::default(),
            changed: Condvar::new(),
            is_ending: AtomicBool::new(false),
            posted: Mutex::default(),
        }
    }

    /// Lets requests through.
    pub(super) fn resume(&self) {
        let mut gate = self.gate.lock().expect("no client panicked");
        gate.is_open = true;
        gate.lost = 0;
        self.changed.notify_all();
    }

    /// Lets no new request begin; those in flight stay in flight.
    pub(super) fn pause(&self) {
        self.gate.lock().expect("no client panicked").is_open = false;
    }

    /// Waits until each request in flight has its answer or its loss; returns how many were lost.
    pub(super) fn wait_until_idle(&self) -> u64 {
        let gate = self.gate.lock().expect("no client panicked");
        let waited = self.changed.wait_timeout_while(gate, Duration::from_secs(30), |gate| gate.busy > 0);
        let (gate, timeout) = waited.expect("no client panicked");
        assert!(!timeout.timed_out(), "{} requests neither answered nor lost after a kill", gate.busy);
        gate.lost
    }

    /// Clients end once what they sent is answered.
    pub(super) fn ask_to_end(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
    }

    pub(super) fn ends_on_drop(&self) -> End<'_> {
        End(self)
    }

    pub(super) fn into_posted(self) -> Vec<Posted> {
        self.posted.into_inner().expect("no client panicked")
    }

    /// One client's life.
    pub(super) fn run(&self, mut dice: Dice) {
        while !self.is_ending.load(Ordering::SeqCst) {
            let place = dice.below(self.customers.len() as u64);
            let customer = &self.customers[usize::try_from(place).expect("a small number")];
            let mut order = order_of(customer);
            // One in eight of these is held, and those behind it under its key with it.
            if place < self.held && dice.below(8) == 0 {
                order["mark"] = "retry".into();
            }
            let (body, key) = (order.to_string(), unique("k"));
            let first_sent = Instant::now();
            let mut lost = 0;
            let id = loop {
                if !self.begin() {
                    return;
                }
                let answer = self.post(&body, &key);
                let was_lost = matches!(answer, Fate::Lost);
                self.finish(was_lost);
                match answer {
                    Fate::Accepted(id) => break id,
                    Fate::Lost => lost += 1,
                    Fate::Refused => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            let posted = Posted { id, customer: customer.clone(), first_sent, answered: Instant::now(), lost };
            self.posted.lock().expect("no client panicked").push(posted);
            std::thread::sleep(Duration::from_millis(dice.below(8)));
        }
    }

    /// Waits for the gate; false when all is over.
    fn begin(&self) -> bool {
        let gate = self.gate.lock().expect("no client panicked");
        let waited = self.changed.wait_while(gate, |gate| !gate.is_open && !gate.is_over);
        let mut gate = waited.expect("no client panicked");
        gate.busy += 1;
        !gate.is_over
    }

    fn finish(&self, was_lost: bool) {
        let mut gate = self.gate.lock().expect("no client panicked");
        gate.busy -= 1;
        gate.lost += u64::from(was_lost);
        self.changed.notify_all();
    }

    fn post(&self, body: &str, key: &str) -> Fate {
        let Ok(mut socket) = TcpStream::connect(self.address) else { return Fate::Refused };
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let request = format!(
            "POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = Vec::new();
        // A part of an answer is no answer: the client cannot know.
        if socket.write_all(request.as_bytes()).is_err() || socket.read_to_end(&mut answer).is_err() {
            return Fate::Lost;
        }
        let text = String::from_utf8_lossy(&answer);
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 202") => {
                match serde_json::from_str::<serde_json::Value>(body) {
                    Ok(body) => Fate::Accepted(body["id"].as_str().expect("a 202 has an id").to_owned()),
                    Err(_) => Fate::Lost,
                }
            }
            Some((head, _)) if head.starts_with("HTTP/1.1 503") => Fate::Refused,
            Some((head, body)) => panic!("neither 202 nor 503: {head}\n{body}"),
            None => Fate::Lost,
        }
    }
}

enum Fate {
    Accepted(String),
    /// The request was sent, and no whole answer came: it may or may not have been accepted.
    Lost,
    /// There was no connection, or a `503`: it was not accepted.
    Refused,
}
