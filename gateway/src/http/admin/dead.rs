//! Dead letters: listed, shown, redriven, discarded.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Desk, json_answer, page_size};
use crate::admin::DeadAnswer;
use crate::dead::{DeadKind, DeadLetter};
use crate::http::error::HttpProblem;

/// The dead letter that a path names.
pub(super) struct NamedLetter(i64);

impl<S: Send + Sync> FromRequestParts<S> for NamedLetter {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok().and_then(|Path(id)| id.parse().ok());
        id.map(Self).ok_or_else(|| HttpProblem::not_found("dead letter"))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    kind: Option<String>,
    after: Option<i64>,
    limit: Option<usize>,
}

/// `GET /dead`: dead letters, oldest first, without their payloads.
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, HttpProblem> {
    let Query(filter) = filter.map_err(|rejection| HttpProblem::bad_query(rejection.body_text()))?;
    let kind = match filter.kind.as_deref().map(DeadKind::parse) {
        Some(None) => return Err(HttpProblem::bad_query("`kind` is none of order, record, reply")),
        kind => kind.flatten(),
    };
    let limit = page_size(filter.limit)?;
    // One more than is shown tells whether there is a next page.
    let mut letters = desk.state.admin.dead(kind, filter.after, limit + 1).await?;
    let has_more = letters.len() > limit;
    letters.truncate(limit);
    let next = letters.last().map(|letter| letter.id).filter(|_| has_more);
    let letters: Vec<_> = letters.iter().map(summary).collect();
    Ok(json_answer(&json!({ "dead": letters, "next": next })))
}

/// `GET /dead/{id}`: one dead letter with its headers and payload.
pub(super) async fn show(State(desk): State<Arc<Desk>>, NamedLetter(id): NamedLetter) -> Result<Response, HttpProblem> {
    let letter = desk.state.admin.dead_letter(id).await?.ok_or_else(|| HttpProblem::not_found("dead letter"))?;
    Ok(json_answer(&whole(&letter)))
}

/// `POST /dead/{id}/redrive`: puts a dead order back at the end of its key.
pub(super) async fn redrive(
    State(desk): State<Arc<Desk>>,
    NamedLetter(id): NamedLetter,
) -> Result<Response, HttpProblem> {
    answer(id, desk.state.admin.redrive(id).await?)
}

/// `POST /dead/{id}/discard`: gives a dead letter up.
pub(super) async fn discard(
    State(desk): State<Arc<Desk>>,
    NamedLetter(id): NamedLetter,
) -> Result<Response, HttpProblem> {
    answer(id, desk.state.admin.discard(id).await?)
}

fn answer(id: i64, answer: DeadAnswer) -> Result<Response, HttpProblem> {
    match answer {
        DeadAnswer::Accepted => {
            let body = json_answer(&json!({ "id": id, "answer": "accepted" }));
            Ok((StatusCode::ACCEPTED, body).into_response())
        }
        DeadAnswer::NotDead => Err(HttpProblem::conflict("it was redriven or discarded before")),
        DeadAnswer::Unknown => Err(HttpProblem::not_found("dead letter")),
        DeadAnswer::NotRedrivable => Err(HttpProblem::client(
            StatusCode::UNPROCESSABLE_ENTITY,
            "not-redrivable",
            "It cannot be redriven",
            "what came on a reply topic and is no reply cannot be taken in again; discard it",
        )),
    }
}

fn summary(letter: &DeadLetter) -> Value {
    let place = letter
        .place
        .as_ref()
        .map(|place| json!({ "topic": place.topic, "partition": place.partition, "offset": place.offset }));
    json!({
        "id": letter.id,
        "kind": letter.kind.as_str(),
        "orderId": letter.order_id.map(|id| id.to_string()),
        "route": letter.route,
        "reason": letter.reason,
        "detail": letter.detail,
        "since": letter.since.to_string(),
        "attempts": letter.attempts,
        "plugins": letter.plugins,
        "place": place,
    })
}

fn whole(letter: &DeadLetter) -> Value {
    let mut json = summary(letter);
    let headers = letter.headers.iter().map(|(name, value)| {
        let (value, encoding) = legible(value);
        json!({ "name": name, "value": value, "encoding": encoding })
    });
    json["headers"] = headers.collect();
    let (payload, encoding) = legible(&letter.payload);
    json["payload"] = payload.into();
    json["payloadEncoding"] = encoding.into();
    json
}

/// Bytes as JSON can hold them: the text that they are, else base64; and which of the two.
fn legible(bytes: &[u8]) -> (String, &'static str) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), "utf-8"),
        Err(_) => (STANDARD.encode(bytes), "base64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::reply::Place;
    use bytes::Bytes;

    #[test]
    fn a_letter_is_shown_whole_also_where_it_is_no_text() {
        let letter = DeadLetter {
            id: 7,
            kind: DeadKind::Reply,
            order_id: None,
            route: None,
            reason: "not-a-reply".to_owned(),
            detail: "not JSON".to_owned(),
            since: Timestamp(0),
            attempts: 1,
            plugins: String::new(),
            place: Some(Place { topic: "order-replies".to_owned(), partition: 2, offset: 9 }),
            headers: vec![("ce_type".to_owned(), Bytes::from_static(b"Odd"))],
            payload: Bytes::from_static(b"\xff\x00"),
        };
        let json = whole(&letter);
        assert_eq!((&json["payload"], &json["payloadEncoding"]), (&"/wA=".into(), &"base64".into()));
        assert_eq!(json["headers"][0], json!({ "name": "ce_type", "value": "Odd", "encoding": "utf-8" }));
        assert_eq!(json["place"]["offset"], 9);
        assert!(summary(&letter).get("payload").is_none());
    }

    #[test]
    fn each_answer_has_its_status() {
        let status = |given| answer(1, given).map_or_else(|problem| problem.status, |response| response.status());
        assert_eq!(status(DeadAnswer::Accepted), StatusCode::ACCEPTED);
        assert_eq!(status(DeadAnswer::NotDead), StatusCode::CONFLICT);
        assert_eq!(status(DeadAnswer::Unknown), StatusCode::NOT_FOUND);
        assert_eq!(status(DeadAnswer::NotRedrivable), StatusCode::UNPROCESSABLE_ENTITY);
    }
}
