//! `POST`: takes one order in, as JSON or as a `CloudEvent`, and hands batches on.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::error::HttpProblem;
use super::headers::{Media, idempotency_key, media, prefer_wait, traceparent};
use super::{Edge, batch, body, cloudevent, read};
use crate::crash::{self, Point};
use crate::intake::{self, Accepted, IdempotencyKey, KeyNamespace};
use crate::order::{OrderId, OrderStatus, OrderView, json};

pub(super) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// When a client may look at its order again, in seconds.
pub(super) const LOOK_AGAIN: HeaderValue = HeaderValue::from_static("1");

/// Takes the order of one request in.
pub(super) async fn post(edge: &Edge, request: Request) -> Result<Response, HttpProblem> {
    let (parts, body) = request.into_parts();
    let (headers, limits) = (&parts.headers, &*edge.state.http);
    edge.state.intake.admit().map_err(|full| body::unread(headers, full.into()))?;
    let media = media(headers)?;
    let own_key = idempotency_key(headers, limits.idempotency_key_bytes_max)?;
    if media == Media::NdJson {
        return Box::pin(batch::post(edge, headers, own_key, body)).await;
    }
    let binary_key = if media == Media::Json { cloudevent::binary_key(headers)? } else { None };
    let bytes = body::read(headers, body, limits.body_bytes_max.0, limits.body_timeout.0).await?;
    crash::at(Point::BodyRead);
    let (event_key, order) = match media {
        Media::CloudEvent => {
            let (key, order) = cloudevent::structured(&bytes)?;
            (Some(key), order)
        }
        Media::Json | Media::NdJson => (binary_key, bytes),
    };
    let idempotency = match (own_key, event_key) {
        (Some(key), _) => Some((KeyNamespace::Request, key)),
        (None, Some(key)) => Some((KeyNamespace::Event, key)),
        (None, None) => None,
    };
    let accepted = edge.state.intake.accept(request_of(edge, headers, order, idempotency)?).await?;
    match prefer_wait(headers, limits.wait_max.0) {
        Some(limit) => Ok(Box::pin(preferring(edge, accepted, limit)).await),
        None => Ok(pending(edge, accepted)),
    }
}

/// Checks one order and says what intake is to do with it.
pub(super) fn request_of(
    edge: &Edge,
    headers: &HeaderMap,
    order: Bytes,
    idempotency: Option<(KeyNamespace, String)>,
) -> Result<intake::Request, HttpProblem> {
    let limits = &edge.state.http;
    let checked =
        json::check(&order, limits.json_depth_max, &edge.key).map_err(|fault| HttpProblem::bad_body(&fault))?;
    let longest = limits.order_key_bytes_max;
    if checked.order_key.as_ref().is_some_and(|key| key.len() > longest) {
        return Err(HttpProblem::order_key_too_long(edge.key.to_string(), longest));
    }
    Ok(intake::Request {
        route: edge.path.clone(),
        order_key: checked.order_key,
        body: order,
        idempotency: idempotency.map(|(namespace, key)| IdempotencyKey { namespace, caller: String::new(), key }),
        traceparent: traceparent(headers),
    })
}

/// The `202`'s body. It follows from the id alone, so a replay gives the same bytes.
pub(super) fn pending_body(path: &str, id: OrderId) -> String {
    format!(
        "{{\"id\":\"{id}\",\"status\":\"PENDING\",\"version\":1,\"links\":{{\"self\":\"{path}/{id}\",\"events\":\"{path}/{id}/events\"}}}}"
    )
}

fn pending(edge: &Edge, accepted: Accepted) -> Response {
    let mut response = Response::new(Body::from(pending_body(&edge.path, accepted.id)));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ETAG, HeaderValue::from_static("\"1\""));
    headers.insert(RETRY_AFTER, LOOK_AGAIN);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    say_where(edge, accepted, headers);
    response
}

fn say_where(edge: &Edge, accepted: Accepted, headers: &mut HeaderMap) {
    // Route paths are checked to be legal in a URL, so this never fails.
    if let Ok(location) = HeaderValue::try_from(format!("{}/{}", edge.path, accepted.id)) {
        headers.insert(LOCATION, location);
    }
    if accepted.is_replay {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
}

/// The answer to a client that would rather wait: the order if it left PENDING in time, else the `202`.
async fn preferring(edge: &Edge, accepted: Accepted, limit: Duration) -> Response {
    let moved = async {
        tokio::select! {
            view = moved_on(edge, accepted.id, limit) => view,
            () = edge.state.stop.cancelled() => None,
        }
    };
    let mut response = match moved.await {
        Some(view) => {
            let mut response = read::view_response(&view);
            say_where(edge, accepted, response.headers_mut());
            response
        }
        None => pending(edge, accepted),
    };
    if let Ok(applied) = HeaderValue::try_from(format!("wait={}", limit.as_secs())) {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}

/// The order once it is not PENDING; `None` if that did not come in time or cannot be read: it is accepted all the same.
async fn moved_on(edge: &Edge, id: OrderId, limit: Duration) -> Option<OrderView> {
    let end = tokio::time::Instant::now() + limit;
    let mut version = 1;
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let view = edge.state.status.wait(&edge.path, id, version, left).await.ok()??;
        if view.status != OrderStatus::Pending {
            return Some(view);
        }
        // Held and let go: another version, still on its way.
        if left.is_zero() || view.version <= version {
            return None;
        }
        version = view.version;
    }
}
