//! The feed of all orders' changes, as server-sent events, for the operator's page.
//!
//! `id:` is the change's sequence, `data:` the order as `GET` shows it. A reader that falls far behind, or that comes
//! back with an id this database never gave, gets `event: reset` and then the newest changes: it is to load afresh.
//! Work is bounded by [`BATCH`] changes per [`PACE`] and feed, and by [`FEEDS_MAX`] feeds.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Desk;
use crate::http::error::HttpProblem;
use crate::status::{Change, Listener, Status, StatusError};

/// Feeds open at a time.
pub(super) const FEEDS_MAX: usize = 32;
/// Changes per read, and what a new reader gets at first.
const BATCH: usize = 100;
/// From one read to the next: a person sees no difference, a database does.
const PACE: Duration = Duration::from_millis(50);
/// A reader that is this many changes behind starts anew.
const BEHIND_MAX: i64 = 5_000;
const HEARTBEAT: Duration = Duration::from_secs(15);
const RETRY: &[u8] = b"retry: 1000\n\n";
const RESET: &[u8] = b"event: reset\ndata: {}\n\n";

/// `GET /feed`: every change of every order, until the reader leaves or the node stops.
pub(super) async fn follow(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Result<Response, HttpProblem> {
    let permit = Arc::clone(&desk.feeds).try_acquire_owned().map_err(|_| {
        let detail = "close a page that shows the feed, or wait until one is closed";
        HttpProblem::later("too-many-feeds", "Too many feeds", detail, Duration::from_secs(5))
    })?;
    let status = desk.state.status.clone();
    let feed = Feed {
        // Listens before the first read, so that nothing falls between the two.
        listener: status.listen_all(),
        status,
        place: Place::Begin(LastId::of(&headers)),
        next_read: Instant::now(),
        stop: desk.state.stop.clone(),
        _permit: permit,
    };
    let body = Body::from_stream(stream::unfold(feed, |mut feed| async move {
        let text = feed.next().await?;
        Some((Ok::<_, Infallible>(text), feed))
    }));
    let headers = [
        (CONTENT_TYPE.as_str(), "text/event-stream"),
        (CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, body).into_response())
}

/// What a reader says it saw last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastId {
    None,
    Sequence(i64),
    Malformed,
}

impl LastId {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default().parse()) {
            None => Self::None,
            Some(Ok(sequence)) => Self::Sequence(sequence),
            Some(Err(_)) => Self::Malformed,
        }
    }
}

#[derive(Debug)]
enum Place {
    /// Nothing was sent yet.
    Begin(LastId),
    /// Everything up to this change was sent.
    After(i64),
}

#[derive(Debug)]
struct Feed {
    status: Status,
    listener: Listener,
    place: Place,
    next_read: Instant,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    /// The next piece of the stream; `None` ends it, and the reader comes back by itself.
    async fn next(&mut self) -> Option<Bytes> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = sleep_until(self.next_read) => {}
            }
            self.next_read = Instant::now() + PACE;
            match self.read().await {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(text.into()),
                Err(error) => {
                    warn!(%error, "a feed of changes ends");
                    return None;
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = self.listener.changed() => {}
                () = sleep_until(heartbeat) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }

    /// What there is to send now, and moves the place past it.
    async fn read(&mut self) -> Result<Vec<u8>, StatusError> {
        let (mut text, after) = match self.place {
            Place::After(sequence) => (Vec::new(), Some(sequence)),
            Place::Begin(LastId::None) => (RETRY.to_vec(), None),
            Place::Begin(LastId::Malformed) => ([RETRY, RESET].concat(), None),
            Place::Begin(LastId::Sequence(sequence)) => {
                let is_known = self.newest().await?.is_some_and(|newest| sequence <= newest);
                if is_known { (RETRY.to_vec(), Some(sequence)) } else { ([RETRY, RESET].concat(), None) }
            }
        };
        let mut changes = self.status.changes(after, BATCH).await?;
        if let (Some(last), Some(_)) = (changes.last(), after)
            && changes.len() == BATCH
            && self.newest().await?.is_some_and(|newest| newest - last.sequence > BEHIND_MAX)
        {
            text.extend_from_slice(RESET);
            changes = self.status.changes(None, BATCH).await?;
        }
        // Sequences begin above zero, so a feed that begins on an empty database misses none.
        self.place = Place::After(changes.last().map_or(after.unwrap_or(0), |last| last.sequence));
        for change in &changes {
            write(&mut text, change);
        }
        Ok(text)
    }

    async fn newest(&self) -> Result<Option<i64>, StatusError> {
        Ok(self.status.changes(None, 1).await?.last().map(|change| change.sequence))
    }
}

/// One event. An order may hold line breaks between its members; each of its lines gets a `data:` of its own.
fn write(text: &mut Vec<u8>, change: &Change) {
    text.extend_from_slice(format!("id: {}\n", change.sequence).as_bytes());
    // SSE ends a line at CR as well as at LF. In JSON both stand only between tokens, where any break is the same.
    for line in change.order.to_json().split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::order::{OrderId, OrderStatus, OrderView};
    use axum::http::HeaderValue;

    #[test]
    fn an_order_with_line_breaks_stays_one_event() {
        let order = OrderView {
            id: OrderId::generate(),
            route: "/orders".into(),
            status: OrderStatus::Pending,
            is_final: false,
            version: 1,
            accepted_at: Timestamp(0),
            updated_at: Timestamp(0),
            body: Bytes::from_static(b"{\r\n\"a\":\r1.10,\n\n\"b\": 2}"),
            problems: Vec::new(),
            held: None,
            deadline_at: None,
        };
        let mut text = Vec::new();
        write(&mut text, &Change { sequence: 42, at: Timestamp(0), order });
        let text = String::from_utf8(text).unwrap();
        let (event, rest) = text.split_once("\n\n").unwrap();
        assert_eq!((event.lines().next(), rest), (Some("id: 42"), ""));
        let data: Vec<_> = event.lines().skip(1).map(|line| line.strip_prefix("data: ").unwrap()).collect();
        let json: serde_json::Value = serde_json::from_str(&data.join("\n")).unwrap();
        assert_eq!(json["order"], serde_json::json!({ "a": 1.10, "b": 2 }));
    }

    #[test]
    fn a_last_event_id_is_a_sequence_or_malformed() {
        let of = |id: Option<&'static str>| {
            LastId::of(
                &id.map(|id| ("last-event-id".parse().unwrap(), HeaderValue::from_static(id))).into_iter().collect(),
            )
        };
        assert_eq!(of(None), LastId::None);
        assert_eq!(of(Some("17")), LastId::Sequence(17));
        assert_eq!(of(Some("x")), LastId::Malformed);
        assert_eq!(of(Some("")), LastId::Malformed);
    }
}
