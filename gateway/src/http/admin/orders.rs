//! Orders of every route, for the operator.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{Desk, page_size};
use crate::http::error::HttpProblem;
use crate::order::OrderId;
use crate::status::{ListQuery, Page, Timeline};

/// The order that a path names.
pub(super) struct NamedOrder(OrderId);

impl<S: Send + Sync> FromRequestParts<S> for NamedOrder {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok().and_then(|Path(id)| id.parse().ok());
        id.map(Self).ok_or_else(|| HttpProblem::not_found("order"))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    status: Option<String>,
    key: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /orders`: orders of all routes and keys, newest first.
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, HttpProblem> {
    let Query(filter) = filter.map_err(|rejection| HttpProblem::bad_query(rejection.body_text()))?;
    Ok(raw_json(list_json(&desk.state.status.list(filter.query()?).await?)))
}

impl Filter {
    fn query(self) -> Result<ListQuery, HttpProblem> {
        let status = self.status.as_deref().map(str::parse).transpose();
        let after = self.after.as_deref().map(str::parse).transpose();
        Ok(ListQuery {
            route: None,
            order_key: self.key,
            status: status.map_err(|error| HttpProblem::bad_query(format!("`status` is {error}")))?,
            limit: page_size(self.limit)?,
            after: after.map_err(|_| HttpProblem::bad_query("`after` is not a cursor of this list"))?,
        })
    }
}

/// `GET /orders/{id}`: the order, whatever its route.
pub(super) async fn show(State(desk): State<Arc<Desk>>, NamedOrder(id): NamedOrder) -> Result<Response, HttpProblem> {
    for route in desk.state.routes.iter() {
        if let Some(order) = desk.state.status.read(&route.path, id).await? {
            return Ok(raw_json(order.to_json()));
        }
    }
    Err(HttpProblem::not_found("order"))
}

/// `GET /orders/{id}/timeline`: all that happened to the order.
pub(super) async fn timeline(
    State(desk): State<Arc<Desk>>,
    NamedOrder(id): NamedOrder,
) -> Result<Response, HttpProblem> {
    for route in desk.state.routes.iter() {
        if let Some(timeline) = desk.state.status.timeline(&route.path, id).await? {
            return Ok(raw_json(timeline_json(&timeline)));
        }
    }
    Err(HttpProblem::not_found("order"))
}

fn raw_json(json: impl Into<Bytes>) -> Response {
    ([(CONTENT_TYPE, "application/json")], json.into()).into_response()
}

/// Orders go in as they are: their members keep their bytes.
fn list_json(page: &Page) -> Vec<u8> {
    let mut json = b"{\"orders\":[".to_vec();
    for (index, order) in page.orders.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&order.to_json());
    }
    let next = page.next.map(|id| id.to_string());
    json.extend_from_slice(format!("],\"next\":{}}}", json!(next)).as_bytes());
    json
}

fn timeline_json(timeline: &Timeline) -> String {
    let entries: Vec<_> = timeline
        .entries
        .iter()
        .map(|entry| {
            // `details` is an object; its members stand beside those that every entry has.
            let details = entry.details.get().trim();
            let members = details.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default().trim();
            let comma = if members.is_empty() { "" } else { "," };
            format!(
                "{{\"at\":\"{}\",\"version\":{},\"kind\":{}{comma}{members}}}",
                entry.at,
                entry.version,
                json!(entry.kind)
            )
        })
        .collect();
    format!(
        "{{\"id\":\"{}\",\"traceId\":{},\"entries\":[{}]}}",
        timeline.id,
        json!(timeline.trace_id),
        entries.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::order::view::TimelineEntry;

    #[test]
    fn a_timeline_entry_carries_the_members_of_its_kind() {
        let entry = |kind: &str, details: &str| TimelineEntry {
            at: Timestamp(0),
            version: 1,
            kind: kind.to_owned(),
            details: serde_json::from_str(details).unwrap(),
        };
        let entries = vec![entry("accepted", "{}"), entry("published", r#"{ "topic": "orders", "x": {"y": {}} }"#)];
        let timeline = Timeline { id: OrderId::generate(), trace_id: "0af7".to_owned(), entries };
        let json: serde_json::Value = serde_json::from_str(&timeline_json(&timeline)).unwrap();
        assert_eq!(json["entries"][0]["kind"], "accepted");
        assert_eq!(json["entries"][1]["topic"], "orders");
        assert_eq!(json["entries"][1]["x"]["y"], json!({}));
        assert_eq!(json["traceId"], "0af7");
    }

    #[test]
    fn a_filter_with_a_fault_is_a_bad_query() {
        let with = |text: &str| serde_json::from_str::<Filter>(text).unwrap().query();
        assert_eq!(with("{}").unwrap().limit, 50);
        assert_eq!(with(r#"{"limit":100000}"#).unwrap().limit, 500);
        for fault in [r#"{"limit":0}"#, r#"{"status":"LOST"}"#, r#"{"after":"x"}"#] {
            assert_eq!(with(fault).unwrap_err().word, "bad-query", "{fault}");
        }
    }
}
