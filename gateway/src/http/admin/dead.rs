//! Dead letters: listed, shown, edited, redriven, discarded; one by one, or many in steps.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Desk, json_answer, page_size};
use crate::admin::{DeadAct, DeadAnswer};
use crate::clock::Timestamp;
use crate::dead::{DeadEdit, DeadFilter, DeadKind, DeadLetter};
use crate::http::body;
use crate::http::error::HttpProblem;
use crate::order::json::{self, JsonPointer};

/// The dead letter that a path names.
pub(super) struct NamedLetter(i64);

impl<S: Send + Sync> FromRequestParts<S> for NamedLetter {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok().and_then(|Path(id)| id.parse().ok());
        id.map(Self).ok_or_else(|| HttpProblem::not_found("dead letter"))
    }
}

/// Whose act it is: the header `Sluice-Operator`, as it will stand in timelines.
pub(super) struct Operator(String);

/// Without the header.
const OPERATOR: &str = "operator";
const OPERATOR_HEADER: &str = "sluice-operator";
/// Characters of an operator's name.
const OPERATOR_MAX: usize = 100;

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpProblem> {
        let Some(name) = parts.headers.get(OPERATOR_HEADER) else { return Ok(Self(OPERATOR.to_owned())) };
        let name = std::str::from_utf8(name.as_bytes()).map(str::trim).unwrap_or_default();
        if name.is_empty() || name.chars().count() > OPERATOR_MAX || name.contains(char::is_control) {
            let detail = format!("the header Sluice-Operator is no name of at most {OPERATOR_MAX} characters");
            return Err(HttpProblem::client(StatusCode::BAD_REQUEST, "bad-operator", "Malformed name", detail));
        }
        Ok(Self(name.to_owned()))
    }
}

/// Which dead letters: the query of a list, and of a task over many.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    kind: Option<String>,
    reason: Option<String>,
    route: Option<String>,
    since: Option<String>,
    before: Option<String>,
    after: Option<i64>,
    limit: Option<usize>,
}

impl Filter {
    fn of(query: Result<Query<Self>, QueryRejection>) -> Result<DeadFilter, HttpProblem> {
        let Query(filter) = query.map_err(|rejection| HttpProblem::bad_query(rejection.body_text()))?;
        let kind = match filter.kind.as_deref().map(DeadKind::parse) {
            Some(None) => return Err(HttpProblem::bad_query("`kind` is none of order, record, reply")),
            kind => kind.flatten(),
        };
        let moment = |name: &str, text: Option<String>| -> Result<Option<Timestamp>, HttpProblem> {
            let moment = text.as_deref().map(str::parse).transpose();
            moment.map_err(|error| HttpProblem::bad_query(format!("`{name}` is {error}")))
        };
        Ok(DeadFilter {
            kind,
            reason: filter.reason,
            route: filter.route,
            since: moment("since", filter.since)?,
            before: moment("before", filter.before)?,
            after: filter.after.unwrap_or(0),
            limit: page_size(filter.limit)?,
        })
    }
}

/// `GET /dead`: dead letters, oldest first, without their payloads.
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, HttpProblem> {
    let filter = Filter::of(query)?;
    let limit = filter.limit;
    // One more than is shown tells whether there is a next page.
    let mut letters = desk.state.admin.dead(DeadFilter { limit: limit + 1, ..filter }).await?;
    let has_more = letters.len() > limit;
    letters.truncate(limit);
    let next = letters.last().map(|letter| letter.id).filter(|_| has_more);
    let letters: Vec<_> = letters.iter().map(summary).collect();
    Ok(json_answer(&json!({ "dead": letters, "next": next })))
}

/// `POST /dead/redrive`, `POST /dead/discard`: one step over many, chosen as in a list. `next` and `before` of the answer
/// are the `after` and `before` of the next step.
pub(super) async fn redrive_many(
    State(desk): State<Arc<Desk>>,
    Operator(by): Operator,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, HttpProblem> {
    many(&desk, DeadAct::Redrive, query, &by).await
}

pub(super) async fn discard_many(
    State(desk): State<Arc<Desk>>,
    Operator(by): Operator,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, HttpProblem> {
    many(&desk, DeadAct::Discard, query, &by).await
}

async fn many(
    desk: &Desk,
    act: DeadAct,
    query: Result<Query<Filter>, QueryRejection>,
    by: &str,
) -> Result<Response, HttpProblem> {
    let step = desk.state.admin.act_on_many(act, Filter::of(query)?, by).await?;
    Ok(json_answer(&json!({
        "accepted": step.accepted,
        "notDead": step.not_dead,
        "refused": step.refused,
        "next": step.next,
        "before": step.before.to_string(),
    })))
}

/// `GET /dead/{id}`: one dead letter with its headers and payload.
pub(super) async fn show(State(desk): State<Arc<Desk>>, NamedLetter(id): NamedLetter) -> Result<Response, HttpProblem> {
    let letter = desk.state.admin.dead_letter(id).await?.ok_or_else(|| HttpProblem::not_found("dead letter"))?;
    Ok(json_answer(&whole(&letter)))
}

/// `POST /dead/{id}/redrive`: puts a dead order back at the end of its key, a dead reply into its order's inbox.
pub(super) async fn redrive(
    State(desk): State<Arc<Desk>>,
    NamedLetter(id): NamedLetter,
    Operator(by): Operator,
) -> Result<Response, HttpProblem> {
    answer(id, desk.state.admin.redrive(id, &by).await?)
}

/// `POST /dead/{id}/discard`: gives a dead letter up.
pub(super) async fn discard(
    State(desk): State<Arc<Desk>>,
    NamedLetter(id): NamedLetter,
    Operator(by): Operator,
) -> Result<Response, HttpProblem> {
    answer(id, desk.state.admin.discard(id, &by).await?)
}

/// What an edit brings; what is left out stays as it is. `GET /dead/{id}` shows the same members.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Edit {
    payload: Option<String>,
    payload_encoding: Option<Encoding>,
    headers: Option<Vec<EditHeader>>,
}

#[derive(Debug, Deserialize)]
struct EditHeader {
    name: String,
    value: String,
    encoding: Option<Encoding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Encoding {
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

/// `POST /dead/{id}/edit`: another body of a dead order, another payload or headers of a dead reply. It stays dead.
pub(super) async fn edit(
    State(desk): State<Arc<Desk>>,
    NamedLetter(id): NamedLetter,
    Operator(by): Operator,
    request: Request,
) -> Result<Response, HttpProblem> {
    let (parts, body) = request.into_parts();
    let limits = &desk.state.http;
    // Text in JSON is longer than itself.
    let bytes_max = limits.body_bytes_max.0.saturating_mul(4);
    let bytes = body::read(&parts.headers, body, bytes_max, limits.body_timeout.0).await?;
    let edit: Edit = serde_json::from_slice(&bytes).map_err(|error| bad_edit(error.to_string()))?;
    let letter = desk.state.admin.dead_letter(id).await?;
    let Some(letter) = letter else { return answer(id, DeadAnswer::Unknown) };
    let payload = match &edit.payload {
        Some(text) => bytes_of(text, edit.payload_encoding).map_err(bad_edit)?,
        None => letter.payload.clone(),
    };
    let edit = match letter.kind {
        DeadKind::Order | DeadKind::Record => order_edit(&desk, &letter, payload)?,
        DeadKind::Reply => {
            let headers = match edit.headers {
                Some(headers) => {
                    let read = |header: EditHeader| Ok((header.name, bytes_of(&header.value, header.encoding)?));
                    headers.into_iter().map(read).collect::<Result<_, String>>().map_err(bad_edit)?
                }
                None => letter.headers.clone(),
            };
            DeadEdit::Reply { headers, payload }
        }
    };
    answer(id, desk.state.admin.edit(&letter, edit, &by).await?)
}

/// Checks another body of an order as it would be checked if it were posted.
fn order_edit(desk: &Desk, letter: &DeadLetter, body: Bytes) -> Result<DeadEdit, HttpProblem> {
    let limits = &desk.state.http;
    if body.len() > limits.body_bytes_max.0 {
        return Err(HttpProblem::too_large(limits.body_bytes_max.0));
    }
    let route = letter.route.as_deref();
    let route = desk.state.routes.iter().find(|known| route == Some(known.path.as_str()));
    let pointer = route.map(|route| route.key.parse::<JsonPointer>()).transpose().ok().flatten();
    let Some(pointer) = pointer else {
        return Err(bad_edit("the configuration has no route of this order any more: discard it".to_owned()));
    };
    let checked = json::check(&body, limits.json_depth_max, &pointer).map_err(|fault| HttpProblem::bad_body(&fault))?;
    let own = || letter.order_id.map(|id| id.to_string()).unwrap_or_default();
    Ok(DeadEdit::Order { body, order_key: checked.order_key.unwrap_or_else(own).into() })
}

fn bytes_of(text: &str, encoding: Option<Encoding>) -> Result<Bytes, String> {
    match encoding {
        None | Some(Encoding::Utf8) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Some(Encoding::Base64) => STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("no base64: {error}")),
    }
}

fn bad_edit(detail: String) -> HttpProblem {
    HttpProblem::client(StatusCode::BAD_REQUEST, "bad-edit", "Malformed edit", detail)
}

fn answer(id: i64, answer: DeadAnswer) -> Result<Response, HttpProblem> {
    let refused = |word, title, detail| HttpProblem::client(StatusCode::UNPROCESSABLE_ENTITY, word, title, detail);
    match answer {
        DeadAnswer::Accepted => {
            let body = json_answer(&json!({ "id": id, "answer": "accepted" }));
            Ok((StatusCode::ACCEPTED, body).into_response())
        }
        DeadAnswer::NotDead => Err(HttpProblem::conflict("it was redriven or discarded before")),
        DeadAnswer::Unknown => Err(HttpProblem::not_found("dead letter")),
        DeadAnswer::NotAReply(reason) => {
            let detail = format!("it is no reply: {reason}; edit or discard it");
            Err(refused("not-redrivable", "It cannot be redriven as it is", detail))
        }
        DeadAnswer::OrderKeyChanged => {
            let detail = "an edit must keep the order key: discard it and have another order posted".to_owned();
            Err(refused("order-key-changed", "The order key would change", detail))
        }
        DeadAnswer::HasRecord => Err(HttpProblem::conflict(
            "another record of the order went out, so it cannot change any more: redrive it as it is, or discard it",
        )),
        DeadAnswer::WrongKind => {
            let detail = "the edit is for another kind of dead letter: look at it again".to_owned();
            Err(refused("wrong-kind", "It is of another kind", detail))
        }
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
        "redrives": letter.redrives,
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
    use crate::reply::Place;

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
            redrives: 0,
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
        assert_eq!(status(DeadAnswer::HasRecord), StatusCode::CONFLICT);
        assert_eq!(status(DeadAnswer::Unknown), StatusCode::NOT_FOUND);
        for refused in [DeadAnswer::NotAReply(String::new()), DeadAnswer::OrderKeyChanged, DeadAnswer::WrongKind] {
            assert_eq!(status(refused), StatusCode::UNPROCESSABLE_ENTITY);
        }
    }
}
