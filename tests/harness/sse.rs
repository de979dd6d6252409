//! Reads Server-Sent Events the way the standard says, and keeps what an `EventSource` would hide.

use std::io::{BufRead, BufReader};

use serde_json::Value;
use ureq::http::Response;
use ureq::{Body, BodyReader};

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `status` or `reset`.
    pub name: String,
    pub id: String,
    pub data: Value,
}

impl Event {
    /// The order's version that the event tells.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.data["version"].as_u64().expect("an event tells a version")
    }
}

/// An open stream, or the answer that came instead.
pub struct Stream {
    pub status: u16,
    /// Comments seen so far: the heartbeats.
    pub comments: usize,
    /// Milliseconds to wait before a reconnect, as last told.
    pub retry_ms: Option<u64>,
    /// Whether the gateway ended the stream as such: not by a broken connection.
    pub ended_well: bool,
    headers: Vec<(String, String)>,
    reader: BufReader<BodyReader<'static>>,
}

impl Stream {
    pub(crate) fn new(response: Response<Body>) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())).collect();
        let reader = BufReader::new(response.into_body().into_reader());
        Self { status, comments: 0, retry_ms: None, ended_well: false, headers, reader }
    }

    /// The first header of that name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The next event; `None` at the end.
    pub fn next_event(&mut self) -> Option<Event> {
        let (mut name, mut id, mut data) = ("message".to_owned(), String::new(), Vec::new());
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) => {
                    self.ended_well = true;
                    return None;
                }
                Ok(_) => {}
                Err(_) => return None,
            }
            let line = line.trim_end_matches(['\r', '\n']);
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match (line.is_empty(), field) {
                (true, _) if data.is_empty() => {}
                (true, _) => {
                    let data: String = data.join("\n");
                    let data = serde_json::from_str(&data).expect("events carry JSON");
                    return Some(Event { name, id, data });
                }
                (false, "") => {
                    self.comments += 1;
                }
                (false, "event") => value.clone_into(&mut name),
                (false, "id") => value.clone_into(&mut id),
                (false, "data") => data.push(value.to_owned()),
                (false, "retry") => self.retry_ms = value.parse().ok(),
                (false, _) => {}
            }
        }
    }

    /// Reads until a comment came, or the end.
    pub fn read_comment(&mut self) -> bool {
        let mut line = String::new();
        while self.reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            if let Some(retry) = line.strip_prefix("retry:") {
                self.retry_ms = retry.trim().parse().ok();
            }
            if line.starts_with(':') {
                self.comments += 1;
                return true;
            }
            line.clear();
        }
        false
    }

    /// All further events, until the gateway ends the stream.
    #[must_use]
    pub fn rest(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.next_event()).collect()
    }
}
