//! `GET`: one order, with long polls; the orders of a key; a timeline.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use super::Edge;
use super::error::HttpProblem;
use super::headers::none_match;
use super::query::{Query, whole_number};
use crate::order::view::TimelineEntry;
use crate::order::{OrderId, OrderView};
use crate::status::{ListQuery, Page, Timeline};

/// The present state of an order.
///
/// `?wait=` with `If-None-Match` is a long poll: while the client knows the present version and more can come, the answer
/// waits for the next. Without a version to compare with there is nothing to wait for, and the answer comes at once.
pub(super) async fn order(edge: &Edge, request: &Parts) -> Result<Response, HttpProblem> {
    let id = edge.order_id(request.uri.path())?;
    let wait = match Query::of(&request.uri).get("wait")? {
        Some(text) => whole_number("wait", &text, 0..=edge.state.http.wait_max.0.as_secs())?,
        None => 0,
    };
    let unknown = || HttpProblem::not_found("order");
    let status = &edge.state.status;
    let mut view = status.read(&edge.path, id).await?.ok_or_else(unknown)?;
    let known = view.version;
    let is_known = none_match(&request.headers, known) == Some(true);
    if is_known && wait > 0 && !view.is_final {
        let change = Box::pin(status.wait(&edge.path, id, known, Duration::from_secs(wait)));
        if let Some(changed) = edge.state.stop.run_until_cancelled(change).await {
            view = changed?.ok_or_else(unknown)?;
        }
    }
    Ok(if is_known && view.version == known { unchanged(&view) } else { view_response(&view) })
}

/// An order as every answer shows it.
pub(super) fn view_response(view: &OrderView) -> Response {
    let mut response = json_response(view.to_json().into());
    tag(&mut response, view);
    response
}

fn unchanged(view: &OrderView) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    tag(&mut response, view);
    response
}

fn tag(response: &mut Response, view: &OrderView) {
    // Digits in quotes are always a legal value.
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", view.version)) {
        response.headers_mut().insert(ETAG, tag);
    }
}

fn json_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The orders of one key, newest first.
pub(super) async fn list(edge: &Edge, request: &Parts) -> Result<Response, HttpProblem> {
    let query = Query::of(&request.uri);
    let key = query.get("key")?.filter(|key| !key.is_empty());
    let Some(key) = key else {
        return Err(HttpProblem::bad_query("`key` is missing: this lists the orders of one order key"));
    };
    let limits = &edge.state.http;
    let limit = match query.get("limit")? {
        Some(text) => {
            let max = u64::try_from(limits.list_limit_max).unwrap_or(u64::MAX);
            usize::try_from(whole_number("limit", &text, 1..=max)?).unwrap_or(limits.list_limit_max)
        }
        None => limits.list_limit_default,
    };
    let status = match query.get("status")? {
        Some(text) => Some(text.parse().map_err(|error| HttpProblem::bad_query(format!("`status` is {error}")))?),
        None => None,
    };
    let after = match query.get("after")? {
        Some(text) => Some(cursor(&text).ok_or_else(|| HttpProblem::bad_query("`after` is no cursor of this list"))?),
        None => None,
    };
    let route = Some(edge.path.to_string());
    let page =
        edge.state.status.list(ListQuery { route, order_key: Some(key.into_owned()), status, limit, after }).await?;
    Ok(json_response(page_json(&page).into()))
}

fn page_json(page: &Page) -> Vec<u8> {
    let mut json = b"{\"orders\":[".to_vec();
    for (index, view) in page.orders.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&view.to_json());
    }
    json.push(b']');
    if let Some(next) = page.next {
        json.extend_from_slice(format!(",\"next\":\"{}\"", URL_SAFE_NO_PAD.encode(next.as_bytes())).as_bytes());
    }
    json.push(b'}');
    json
}

fn cursor(text: &str) -> Option<OrderId> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(OrderId(uuid::Uuid::from_bytes(bytes.try_into().ok()?)))
}

/// All that happened to an order.
pub(super) async fn timeline(edge: &Edge, request: &Parts) -> Result<Response, HttpProblem> {
    let id = edge.order_id(request.uri.path())?;
    let timeline = edge.state.status.timeline(&edge.path, id).await?;
    let timeline = timeline.ok_or_else(|| HttpProblem::not_found("order"))?;
    Ok(json_response(timeline_json(&timeline).into()))
}

fn timeline_json(timeline: &Timeline) -> String {
    let mut json = format!("{{\"id\":\"{}\",\"traceId\":\"{}\",\"entries\":[", timeline.id, timeline.trace_id);
    for (index, entry) in timeline.entries.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        json.push_str(&entry_json(entry));
    }
    json.push_str("]}");
    json
}

/// The entry's own members, then those of its kind.
fn entry_json(entry: &TimelineEntry) -> String {
    let details = entry.details.get().trim();
    let members = details.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default().trim();
    let comma = if members.is_empty() { "" } else { "," };
    let kind = serde_json::Value::from(entry.kind.as_str());
    format!("{{\"at\":\"{}\",\"version\":{},\"kind\":{kind}{comma}{members}}}", entry.at, entry.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_timeline_has_the_members_of_each_kind() {
        let entry = |kind: &str, details: &str| TimelineEntry {
            at: Timestamp(0),
            version: 1,
            kind: kind.to_owned(),
            details: serde_json::value::RawValue::from_string(details.to_owned()).unwrap(),
        };
        let entries = vec![entry("accepted", "{ }"), entry("reply", r#" {"type":"X","from":{"a":1}} "#)];
        let timeline = Timeline { id: OrderId::generate(), trace_id: "ab".to_owned(), entries };
        let json: serde_json::Value = serde_json::from_str(&timeline_json(&timeline)).unwrap();
        assert_eq!(json["entries"][0]["kind"], "accepted");
        assert_eq!(json["entries"][1]["from"]["a"], 1);
        assert_eq!(json["entries"][1]["at"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_cursor_reads_back() {
        let id = OrderId::generate();
        let page = Page { orders: Vec::new(), next: Some(id) };
        let json: serde_json::Value = serde_json::from_slice(&page_json(&page)).unwrap();
        assert_eq!(cursor(json["next"].as_str().unwrap()), Some(id));
        for odd in ["", "zz!", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(cursor(odd), None, "{odd}");
        }
    }
}
