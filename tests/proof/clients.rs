//! Clients of a seed: they post, repeat, contradict themselves, revise, cancel and look, at whichever node.
//!
//! They behave: what got no answer is sent again with the same key, to any node, until it is answered. A request without a
//! key is sent once.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::orders::REFUSED;
use harness::random::{Dice, unique};
use serde_json::Value;

use crate::history::{Answer, History, Request, body};

/// Order keys of all orders.
const KEYS: usize = 16;
/// The first so many of them have orders that are held for a while.
const KEYS_HELD: usize = 4;
/// Longest a client waits for one answer; a frozen node gives none.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A stream that is silent for so long is opened anew.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Between two attempts of a request.
const PAUSE: Duration = Duration::from_millis(20);

/// Ends that an order may come to that nobody cancels.
const VALID: &[&str] = &["VALIDATED"];
const INVALID: &[&str] = &["REJECTED"];

/// The clients of a run, and what they share.
#[derive(Debug)]
pub(crate) struct Clients {
    addresses: Vec<SocketAddr>,
    customers: Vec<String>,
    pub(crate) history: History,
    /// Posts that are begun at least.
    left: AtomicU64,
    /// Posts go on, however many: what disturbs them is not done.
    is_disturbed: AtomicBool,
    /// Given up: what is unanswered stays so.
    is_over: AtomicBool,
    /// Requests whose answer was lost.
    pub(crate) lost: AtomicU64,
    /// Requests that were told `503`.
    pub(crate) refused: AtomicU64,
    /// Between two requests of a client, at most; sets how long the load lasts.
    pause: Duration,
    streams: AtomicU64,
    /// Nobody follows orders any more.
    is_unwatched: AtomicBool,
}

/// What came back over the wire.
enum Wire {
    Answer(u16, Value),
    /// Sent, and no whole answer came.
    Lost,
    /// There was no connection.
    Unsent,
}

impl Clients {
    pub(crate) fn new(addresses: Vec<SocketAddr>, posts: u64, pause: Duration) -> Self {
        let mut customers: Vec<String> = (0..KEYS).map(|_| unique("proof")).collect();
        // The services refuse this one.
        if let Some(last) = customers.last_mut() {
            REFUSED.clone_into(last);
        }
        Self {
            addresses,
            customers,
            history: History::new(),
            left: AtomicU64::new(posts),
            is_disturbed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            pause,
            streams: AtomicU64::new(0),
            is_unwatched: AtomicBool::new(false),
        }
    }

    /// Ends the clients although they are not done: nobody will answer them any more.
    pub(crate) fn give_up(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Has the clients go on until nobody disturbs them any more.
    pub(crate) fn disturb(&self, is_disturbed: bool) {
        self.is_disturbed.store(is_disturbed, Ordering::SeqCst);
    }

    /// One client's life: ends when all posts are begun and its own are answered.
    pub(crate) fn run(&self, mut dice: Dice) {
        let mut own: Vec<(String, String)> = Vec::new();
        while !self.is_over.load(Ordering::SeqCst) && self.take_post() {
            self.post(&mut dice, &mut own);
            if let Some((order, customer)) = pick(&own, &mut dice).cloned() {
                match dice.below(16) {
                    0 => self.cancel(&mut dice, &order),
                    1 => self.revise(&mut dice, &order, &customer),
                    2..8 => self.read(&mut dice, &order),
                    _ => {}
                }
            }
            let millis = u64::try_from(self.pause.as_millis()).unwrap_or(0);
            thread::sleep(Duration::from_millis(dice.below(millis.max(1))));
        }
    }

    fn take_post(&self) -> bool {
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        taken.is_ok() || self.is_disturbed.load(Ordering::SeqCst)
    }

    fn post(&self, dice: &mut Dice, own: &mut Vec<(String, String)>) {
        let place = dice.place(KEYS);
        let customer = self.customers[place].clone();
        let is_valid = dice.below(10) != 0;
        let mark = (place < KEYS_HELD && dice.below(6) == 0).then_some("retry");
        let has_key = dice.below(12) != 0;
        let key = has_key.then(|| unique("key"));
        let serial = unique("serial");
        let must_end = if is_valid && customer != REFUSED { VALID } else { INVALID };
        let request = Request::Post {
            serial: serial.clone(),
            customer: customer.clone(),
            idempotency_key: key.clone(),
            must_end,
        };
        let text = body(&serial, &customer, mark, is_valid).to_string();
        let Some(order) = self.send(dice, &request, "/orders", key.as_deref(), &text, has_key) else { return };
        own.push((order, customer.clone()));
        let Some(key) = key else { return };
        match dice.below(8) {
            // The same once more.
            0 => drop(self.send(dice, &request, "/orders", Some(&key), &text, true)),
            // Another order under the same key.
            1 => {
                let serial = unique("serial");
                let text = body(&serial, &customer, None, true).to_string();
                let request = Request::Post { serial, customer, idempotency_key: Some(key.clone()), must_end };
                drop(self.send(dice, &request, "/orders", Some(&key), &text, true));
            }
            _ => {}
        }
    }

    fn cancel(&self, dice: &mut Dice, order: &str) {
        let request = Request::Cancel { order: order.to_owned() };
        let key = unique("key");
        drop(self.send(dice, &request, &format!("/orders/{order}/cancel"), Some(&key), "", true));
    }

    fn revise(&self, dice: &mut Dice, order: &str, customer: &str) {
        let serial = unique("serial");
        let text = body(&serial, customer, None, true).to_string();
        let request = Request::Revise { order: order.to_owned(), serial };
        let key = unique("key");
        drop(self.send(dice, &request, &format!("/orders/{order}/revise"), Some(&key), &text, true));
    }

    fn read(&self, dice: &mut Dice, order: &str) {
        let request = Request::Read { order: order.to_owned() };
        let sent = self.history.now();
        let wire = ask(self.any(dice), "GET", &format!("/orders/{order}"), None, "");
        let answer = match &wire {
            Wire::Answer(200, view) => Answer::Seen { version: version_of(view), is_reset: false },
            Wire::Answer(503, _) | Wire::Lost | Wire::Unsent => Answer::Lost,
            Wire::Answer(status, _) => Answer::Refused(*status),
        };
        self.history.note(request, sent, answer);
    }

    /// Sends a request, where it can be repeated until it is answered; returns the order of a `202`.
    fn send(
        &self,
        dice: &mut Dice,
        request: &Request,
        path: &str,
        key: Option<&str>,
        text: &str,
        repeats: bool,
    ) -> Option<String> {
        loop {
            let sent = self.history.now();
            let wire = ask(self.any(dice), "POST", path, key, text);
            let answer = match wire {
                Wire::Answer(202, body) => Answer::Accepted(body["id"].as_str().unwrap_or_default().to_owned()),
                Wire::Answer(503, _) | Wire::Lost => {
                    let count = if matches!(wire, Wire::Lost) { &self.lost } else { &self.refused };
                    count.fetch_add(1, Ordering::SeqCst);
                    self.history.note(request.clone(), sent, Answer::Lost);
                    if !repeats || self.is_over.load(Ordering::SeqCst) {
                        return None;
                    }
                    thread::sleep(PAUSE);
                    continue;
                }
                Wire::Unsent if self.is_over.load(Ordering::SeqCst) => return None,
                Wire::Unsent => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Wire::Answer(status, _) => Answer::Refused(status),
            };
            let order = if let Answer::Accepted(order) = &answer { Some(order.clone()) } else { None };
            self.history.note(request.clone(), sent, answer);
            return order;
        }
    }

    fn any(&self, dice: &mut Dice) -> SocketAddr {
        *pick(&self.addresses, dice).expect("there is a node")
    }

    /// Ends those who follow orders.
    pub(crate) fn stop_watching(&self) {
        self.is_unwatched.store(true, Ordering::SeqCst);
    }

    /// Follows one order after the other on streams of events, at whichever node, resuming after each end.
    pub(crate) fn watch(&self, mut dice: Dice) {
        while !self.is_unwatched.load(Ordering::SeqCst) {
            let Some(order) = pick(&self.history.accepted(), &mut dice).cloned() else {
                thread::sleep(PAUSE);
                continue;
            };
            let stream = self.streams.fetch_add(1, Ordering::SeqCst);
            let mut last = String::new();
            while !self.is_unwatched.load(Ordering::SeqCst)
                && !self.follow(self.any(&mut dice), &order, stream, &mut last)
            {
                thread::sleep(PAUSE);
            }
        }
    }

    /// Reads one connection of a stream; returns whether the stream is at its end.
    fn follow(&self, address: SocketAddr, order: &str, stream: u64, last: &mut String) -> bool {
        let Ok(mut socket) = TcpStream::connect_timeout(&address, ANSWER_LIMIT) else { return false };
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
        let resume = if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
        let head =
            format!("GET /orders/{order}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{resume}\r\n");
        if socket.write_all(head.as_bytes()).is_err() {
            return false;
        }
        let (mut text, mut chunk, mut heard) = (String::new(), [0; 4096], Instant::now());
        while !self.is_unwatched.load(Ordering::SeqCst) && heard.elapsed() < SILENCE_MAX {
            let sent = self.history.now();
            match socket.read(&mut chunk) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Ok(0) | Err(_) => return false,
                Ok(read) => text.push_str(&String::from_utf8_lossy(&chunk[..read])),
            }
            heard = Instant::now();
            if text.starts_with("HTTP/1.1 204") {
                return true;
            }
            while let Some((event, rest)) =
                text.split_once("\n\n").map(|(event, rest)| (event.to_owned(), rest.to_owned()))
            {
                text = rest;
                let field =
                    |name: &str| event.lines().find_map(|line| line.trim_end().strip_prefix(name).map(str::trim));
                let (Some(id), Some(name)) = (field("id:"), field("event:")) else { continue };
                let Ok(version) = id.parse() else { continue };
                id.clone_into(last);
                let request = Request::Event { order: order.to_owned(), stream };
                self.history.note(request, sent, Answer::Seen { version, is_reset: name == "reset" });
            }
        }
        false
    }
}

fn pick<'a, T>(of: &'a [T], dice: &mut Dice) -> Option<&'a T> {
    (!of.is_empty()).then(|| &of[dice.place(of.len())])
}

fn version_of(view: &Value) -> u64 {
    view["version"].as_u64().expect("an order has a version")
}

/// One request on a connection of its own, so that it is known whether it was sent.
fn ask(address: SocketAddr, method: &str, path: &str, key: Option<&str>, text: &str) -> Wire {
    let Ok(mut socket) = TcpStream::connect_timeout(&address, ANSWER_LIMIT) else { return Wire::Unsent };
    socket.set_read_timeout(Some(ANSWER_LIMIT)).expect("a limit");
    let key = key.map_or_else(String::new, |key| format!("Idempotency-Key: {key}\r\n"));
    let kind = if text.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{kind}{key}Content-Length: {}\r\n\r\n{text}",
        text.len()
    );
    let mut answer = Vec::new();
    // A part of an answer is no answer: the client cannot know.
    if socket.write_all(request.as_bytes()).is_err() || socket.read_to_end(&mut answer).is_err() {
        return Wire::Lost;
    }
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Wire::Lost };
    let status = head.get(9..12).and_then(|digits| digits.parse().ok());
    match (status, serde_json::from_str(body)) {
        (Some(status), Ok(body)) => Wire::Answer(status, body),
        _ => Wire::Lost,
    }
}
