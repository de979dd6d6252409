//! Begins streams of events: decides where a reader goes on, and what it is sent first.
//!
//! Listen first, then read, then send: a change between the read and the first event is not missed.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::error::HttpProblem;
use super::event::{EventName, decode_versions, encode_versions, parse_version, write_event};
use super::query::Query;
use super::stream::{Follow, Followed, Stream};
use super::{Answer, Edge};
use crate::order::{OrderId, OrderView};
use crate::status::Resume;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a reader says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Nothing,
    Version(u64),
    /// An id that this stream never gave.
    Odd,
}

/// The stream of one order; `204` to a reader that has its final state.
pub(super) async fn of_one(edge: &Edge, request: &Parts) -> Result<Answer, HttpProblem> {
    let id = edge.order_id(request.uri.path())?;
    let has = match last_event_id(request)? {
        None => Has::Nothing,
        Some(text) => parse_version(&text).map_or(Has::Odd, Has::Version),
    };
    let listener = edge.state.status.listen(id);
    let view = read(edge, id).await?;
    if is_done(&view, has) {
        return Ok(finished().into());
    }
    if request.method == Method::HEAD {
        return Ok(head_only().into());
    }
    let mut first = head(edge);
    let mut order = Followed { id, version: 0, is_final: false };
    for (name, view) in missing(edge, view, has).await? {
        write_event(&mut first, name, &view.version.to_string(), &view);
        note(&mut order, &view);
    }
    if let (0, Has::Version(version)) = (order.version, has) {
        order.version = version;
    }
    Ok(stream(edge, Follow::One { order, listener }, first))
}

/// The stream of many orders; `204` to a reader that has the final state of each.
pub(super) async fn of_many(edge: &Edge, request: &Parts) -> Result<Answer, HttpProblem> {
    let ids = ids_of(request, edge.state.http.stream_orders_max)?;
    let has: Vec<Has> = match last_event_id(request)? {
        None => vec![Has::Nothing; ids.len()],
        Some(text) => match decode_versions(&ids, &text) {
            Some(versions) => versions
                .into_iter()
                .map(|version| if version == 0 { Has::Nothing } else { Has::Version(version) })
                .collect(),
            None => vec![Has::Odd; ids.len()],
        },
    };
    let listeners = ids.iter().map(|id| edge.state.status.listen(*id)).collect();
    let mut views = Vec::with_capacity(ids.len());
    for id in &ids {
        views.push(read(edge, *id).await?);
    }
    if views.iter().zip(&has).all(|(view, has)| is_done(view, *has)) {
        return Ok(finished().into());
    }
    if request.method == Method::HEAD {
        return Ok(head_only().into());
    }
    let mut first = head(edge);
    let begin = |(id, has): (&OrderId, &Has)| {
        let version = if let Has::Version(version) = has { *version } else { 0 };
        Followed { id: *id, version, is_final: false }
    };
    let mut orders: Vec<Followed> = ids.iter().zip(&has).map(begin).collect();
    for (index, (view, has)) in views.into_iter().zip(has).enumerate() {
        if is_done(&view, has) {
            orders[index].is_final = true;
            continue;
        }
        for (name, view) in missing(edge, view, has).await? {
            note(&mut orders[index], &view);
            let versions: Vec<u64> = orders.iter().map(|order| order.version).collect();
            write_event(&mut first, name, &encode_versions(&ids, &versions), &view);
        }
    }
    Ok(stream(edge, Follow::Many { orders, listeners }, first))
}

fn ids_of(request: &Parts, orders_max: usize) -> Result<Vec<OrderId>, HttpProblem> {
    let text = Query::of(&request.uri).get("ids")?.unwrap_or_default();
    if text.is_empty() {
        return Err(HttpProblem::bad_query("`ids` is missing: it names the orders of the stream, with commas between"));
    }
    if text.split(',').count() > orders_max {
        return Err(HttpProblem::bad_query(format!("`ids` names more than {orders_max} orders")));
    }
    if text.split(',').any(str::is_empty) {
        return Err(HttpProblem::bad_query("`ids` has an empty id"));
    }
    // What cannot be an id names no order, here as in a path.
    let ids: Result<Vec<OrderId>, _> = text.split(',').map(str::parse).collect();
    let ids = ids.map_err(|_| HttpProblem::not_found("order"))?;
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    if distinct.len() < ids.len() {
        return Err(HttpProblem::bad_query("`ids` names an order twice"));
    }
    Ok(ids)
}

/// The id a reader got last: the header's, since a reconnecting browser keeps its URL. Empty says nothing.
fn last_event_id(request: &Parts) -> Result<Option<String>, HttpProblem> {
    let given = header_id(&request.headers);
    let asked = Query::of(&request.uri).get_lossy("last_event_id")?;
    Ok(given.or_else(|| asked.map(std::borrow::Cow::into_owned).filter(|id| !id.is_empty())))
}

fn header_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(LAST_EVENT_ID)?.as_bytes().trim_ascii();
    (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
}

async fn read(edge: &Edge, id: OrderId) -> Result<OrderView, HttpProblem> {
    edge.state.status.read(&edge.path, id).await?.ok_or_else(|| HttpProblem::not_found("order"))
}

fn is_done(view: &OrderView, has: Has) -> bool {
    view.is_final && has == Has::Version(view.version)
}

/// What a reader lacks, where `present` is the state that was just read.
async fn missing(edge: &Edge, present: OrderView, has: Has) -> Result<Vec<(EventName, OrderView)>, HttpProblem> {
    let version = match has {
        Has::Nothing => return Ok(vec![(EventName::Status, present)]),
        Has::Odd => return Ok(vec![(EventName::Reset, present)]),
        Has::Version(version) if version > present.version => return Ok(vec![(EventName::Reset, present)]),
        Has::Version(version) => version,
    };
    if version == present.version {
        return Ok(Vec::new());
    }
    match edge.state.status.resume(present.id, version).await? {
        Some(Resume::Versions(views)) => Ok(views.into_iter().map(|view| (EventName::Status, view)).collect()),
        Some(Resume::Reset(view)) => Ok(vec![(EventName::Reset, view)]),
        None => Err(HttpProblem::not_found("order")),
    }
}

fn note(order: &mut Followed, view: &OrderView) {
    order.version = view.version;
    order.is_final = view.is_final;
}

fn stream(edge: &Edge, follow: Follow, first: Vec<u8>) -> Answer {
    let heartbeat = edge.state.http.heartbeat.0;
    Answer::Stream(Box::new(Stream { status: edge.state.status.clone(), follow, first, heartbeat }))
}

/// The head of the answer and the first line of the stream. The body ends with the connection.
fn head(edge: &Edge) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
        X-Accel-Buffering: no\r\nConnection: close\r\n"
        .to_vec();
    let now = jiff::Timestamp::from_millisecond(edge.state.clock.now().0);
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    if let Ok(date) = now.and_then(|now| printer.timestamp_to_rfc9110_string(&now)) {
        head.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
    }
    // With jitter, so that the readers of a node that stops do not all come at once.
    let retry = edge.state.http.stream_retry.0.mul_f64(1.0 + fastrand::f64() / 2.0);
    head.extend_from_slice(format!("\r\nretry: {}\n\n", retry.as_millis()).as_bytes());
    head
}

fn head_only() -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Everything was told: a reader that gets this does not come back.
fn finished() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, header: Option<&[u8]>) -> Parts {
        let mut request = http::Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        if let Some(value) = header {
            request.headers_mut().insert(LAST_EVENT_ID, HeaderValue::from_bytes(value).unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn the_header_wins_over_the_query() {
        for (uri, header, expected) in [
            ("/x", None, None),
            ("/x?last_event_id=", None, None),
            ("/x?last_event_id=5", None, Some("5")),
            ("/x?last_event_id=999999", Some(&b"1"[..]), Some("1")),
            ("/x?last_event_id=5", Some(&b""[..]), Some("5")),
            ("/x?last_event_id=%ff", None, Some("\u{fffd}")),
            ("/x", Some(&b"\xff"[..]), Some("\u{fffd}")),
        ] {
            assert_eq!(last_event_id(&request(uri, header)).unwrap().as_deref(), expected, "{uri}");
        }
    }

    #[test]
    fn the_ids_of_a_stream_are_distinct_and_not_too_many() {
        let (a, b) = (OrderId::generate(), OrderId::generate());
        let ids = |uri: &str| ids_of(&request(uri, None), 2).map_err(|problem| problem.status.as_u16());
        assert_eq!(ids(&format!("/x?ids={a},{b}")), Ok(vec![a, b]));
        assert_eq!(ids(&format!("/x?ids={a}%2C{b}")), Ok(vec![a, b]));
        assert_eq!(ids(&format!("/x?ids={a},{a}")), Err(400));
        assert_eq!(ids(&format!("/x?ids={a},{b},{}", OrderId::generate())), Err(400));
        assert_eq!(ids("/x"), Err(400));
        assert_eq!(ids("/x?ids="), Err(400));
        assert_eq!(ids(&format!("/x?ids={a},")), Err(400));
        assert_eq!(ids("/x?ids=no"), Err(404));
    }
}
