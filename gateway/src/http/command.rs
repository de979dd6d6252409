//! `POST …/cancel` and `…/revise`: commands on an order that was accepted.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use super::accept::{IDEMPOTENT_REPLAYED, LOOK_AGAIN, request_of};
use super::error::HttpProblem;
use super::headers::{Media, idempotency_key, media};
use super::{Edge, Place, body};
use crate::intake::{Command, Commanded};
use crate::order::OrderId;

/// Takes a command in. The answer says that it is on disk, not that it still changed something: the order tells.
pub(super) async fn post(edge: &Edge, place: Place, request: Request) -> Result<Response, HttpProblem> {
    let id = edge.order_id(request.uri().path())?;
    let (parts, body) = request.into_parts();
    let (headers, limits) = (&parts.headers, &*edge.state.http);
    let key = idempotency_key(headers, limits.idempotency_key_bytes_max)?;
    if place == Place::Revise && media(headers)? != Media::Json {
        return Err(HttpProblem::unsupported_type("a revision is one order: send it as application/json"));
    }
    let bytes = body::read(headers, body, limits.body_bytes_max.0, limits.body_timeout.0).await?;
    let command = if place == Place::Revise {
        let revision = request_of(edge, headers, bytes, None)?;
        Command::Revise { body: revision.body, order_key: revision.order_key }
    } else {
        Command::Cancel
    };
    match edge.state.intake.command(&edge.path, id, command, key).await? {
        Commanded::Accepted { is_replay } => Ok(accepted(edge, id, is_replay)),
        Commanded::Unknown => Err(HttpProblem::not_found("order")),
        Commanded::TooLate if place == Place::Cancel => {
            Err(HttpProblem::conflict("the order is final: it cannot be cancelled any more"))
        }
        Commanded::TooLate => Err(HttpProblem::conflict(
            "the order was decided: it cannot be revised any more; cancel it and post another one",
        )),
        Commanded::OrderKeyChanged => Err(HttpProblem::order_key_changed(edge.key.to_string())),
    }
}

fn accepted(edge: &Edge, id: OrderId, is_replay: bool) -> Response {
    let path = &edge.path;
    let body = format!("{{\"id\":\"{id}\",\"links\":{{\"self\":\"{path}/{id}\",\"events\":\"{path}/{id}/events\"}}}}");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(RETRY_AFTER, LOOK_AGAIN);
    // Route paths are checked to be legal in a URL, so this never fails.
    if let Ok(location) = HeaderValue::try_from(format!("{path}/{id}")) {
        headers.insert(LOCATION, location);
    }
    if is_replay {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
