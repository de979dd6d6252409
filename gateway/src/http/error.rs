//! Every refusal a client can get, as RFC 9457 problems: type, title, status, whose fault, whether to try again.
//!
//! Problem types are stable. Texts of the inside (SQL, paths, panics) never appear here; they go to the log.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::admin::AdminError;
use crate::intake::AcceptError;
use crate::order::Source;
use crate::order::json::{JsonFault, Place};
use crate::status::StatusError;

/// What every problem type begins with; a short stable word follows.
const TYPE_PREFIX: &str = "urn:sluice:problem:";

/// Where a body is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BodyFault {
    pub detail: String,
    /// JSON Pointer (RFC 6901) to the member at fault.
    pub pointer: String,
}

/// An answer that is a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProblem {
    /// The last part of the problem's type.
    pub word: &'static str,
    /// The same for every problem of the type.
    pub title: &'static str,
    pub status: StatusCode,
    /// This very problem, for people.
    pub detail: Cow<'static, str>,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    pub source: Source,
    /// Sent as `Retry-After`, in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
    pub errors: Vec<BodyFault>,
    /// Sent as `Allow`.
    pub allow: Option<&'static str>,
    /// Whether the connection ends with this answer, because the rest of the request is not read.
    pub close: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    retryable: bool,
    source: Source,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [BodyFault],
}

impl HttpProblem {
    /// A refusal that the client caused and that stays the same when tried again.
    #[must_use]
    pub fn client(
        status: StatusCode,
        word: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            word,
            title,
            status,
            detail: detail.into(),
            retryable: false,
            source: Source::Client,
            retry_after: None,
            errors: Vec::new(),
            allow: None,
            close: false,
        }
    }

    /// A refusal for now: the gateway cannot, and says when to ask again.
    #[must_use]
    pub fn later(word: &'static str, title: &'static str, detail: &'static str, retry_after: Duration) -> Self {
        Self {
            retryable: true,
            source: Source::Gateway,
            retry_after: Some(retry_after),
            ..Self::client(StatusCode::SERVICE_UNAVAILABLE, word, title, detail)
        }
    }

    /// `404`: no such path.
    #[must_use]
    pub fn unknown_path() -> Self {
        Self::client(StatusCode::NOT_FOUND, "unknown-path", "No such path", "nothing is served at this path")
    }

    /// `404`: no such thing as the path names, such as an `order` or a `dead letter`.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::client(StatusCode::NOT_FOUND, "not-found", "Not found", format!("there is no such {what}"))
    }

    /// `405`: the path exists, the method does not; `allow` lists those that do.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("this path answers {allow}");
        let problem = Self::client(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail);
        Self { allow: Some(allow), ..problem }
    }

    /// `400`: the body is no legal order.
    #[must_use]
    pub fn bad_body(fault: &JsonFault) -> Self {
        let problem = Self::client(
            StatusCode::BAD_REQUEST,
            "bad-body",
            "The body is not an order",
            format!("the body is not a legal JSON object: {fault}"),
        );
        let errors = match &fault.place {
            Place::Member(pointer) => {
                vec![BodyFault { detail: fault.what.to_string(), pointer: pointer.clone() }]
            }
            Place::Text { .. } | Place::Whole => Vec::new(),
        };
        Self { errors, ..problem }
    }

    /// `400`: the request ended before its body did, or its framing is broken.
    #[must_use]
    pub fn cut_body() -> Self {
        let problem = Self::client(
            StatusCode::BAD_REQUEST,
            "cut-body",
            "The body was cut off",
            "the connection gave no whole body: send it again",
        );
        Self { retryable: true, close: true, ..problem }
    }

    /// `408`: the body did not come in time.
    #[must_use]
    pub fn slow_body(limit: Duration) -> Self {
        let detail = format!("the body did not arrive within {} s", limit.as_secs());
        let problem = Self::client(StatusCode::REQUEST_TIMEOUT, "slow-body", "The body came too slowly", detail);
        Self { retryable: true, close: true, ..problem }
    }

    /// `413`: the body is over a limit of `bytes`.
    #[must_use]
    pub fn too_large(bytes: usize) -> Self {
        let detail = format!("the body is over the limit of {bytes} bytes");
        Self {
            close: true,
            ..Self::client(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
        }
    }

    /// `413`: the batch has more than `lines` lines.
    #[must_use]
    pub fn too_many_lines(lines: usize) -> Self {
        let detail = format!("the batch is over the limit of {lines} lines");
        Self::client(StatusCode::PAYLOAD_TOO_LARGE, "too-many-lines", "The batch is too long", detail)
    }

    /// `415`: the content type is none that orders come in.
    #[must_use]
    pub fn unsupported_type(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-type", "Unsupported content type", detail)
    }

    /// `400`: the `Idempotency-Key` is malformed.
    #[must_use]
    pub fn bad_key(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::BAD_REQUEST, "bad-idempotency-key", "Malformed Idempotency-Key", detail)
    }

    /// `400`: a query parameter is missing or malformed.
    #[must_use]
    pub fn bad_query(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::BAD_REQUEST, "bad-query", "Malformed query", detail)
    }

    /// `400`: the event around the order is no legal `CloudEvent`.
    #[must_use]
    pub fn bad_event(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::BAD_REQUEST, "bad-cloudevent", "Malformed CloudEvent", detail)
    }

    /// `400`: the order key is longer than `bytes`.
    #[must_use]
    pub fn order_key_too_long(pointer: String, bytes: usize) -> Self {
        let detail = format!("the order key is over the limit of {bytes} bytes");
        let errors = vec![BodyFault { detail: detail.clone(), pointer }];
        Self {
            errors,
            ..Self::client(StatusCode::BAD_REQUEST, "order-key-too-long", "The order key is too long", detail)
        }
    }

    /// `422`: a revision may not move the order to another key.
    #[must_use]
    pub fn order_key_changed(pointer: String) -> Self {
        let detail = "a revision must keep the order key; post a new order for another one";
        let errors = vec![BodyFault { detail: detail.to_owned(), pointer }];
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { errors, ..Self::client(status, "order-key-changed", "The order key would change", detail) }
    }

    /// `409`: the state of the thing forbids what was asked.
    #[must_use]
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::client(StatusCode::CONFLICT, "conflict", "The state forbids it", detail)
    }

    /// `500`: a fault of this program; what it was stands in its log.
    #[must_use]
    pub fn internal() -> Self {
        let problem = Self::client(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "A fault in the gateway",
            "the request met a fault in the gateway; whether it took effect is unknown",
        );
        Self { retryable: true, source: Source::Gateway, ..problem }
    }

    /// The JSON document, as it is sent and as a batch's lines carry it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let document = Document {
            r#type: format!("{TYPE_PREFIX}{}", self.word),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            retryable: self.retryable,
            source: self.source,
            errors: &self.errors,
        };
        // Texts, numbers and booleans only: nothing that JSON could not hold.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

impl From<AcceptError> for HttpProblem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::KeyReused => Self::client(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key was used for another order",
                "this idempotency key came before with other bytes; use a new key for a new order",
            ),
            AcceptError::Backlog { retry_after } => Self::later(
                "backlog-full",
                "The backlog is full",
                "too many accepted orders are not yet published; nothing of this order was kept",
                retry_after,
            ),
            AcceptError::Busy { retry_after } => Self::later(
                "busy",
                "Too many orders at once",
                "too many orders wait for the disk; nothing of this order was kept",
                retry_after,
            ),
            AcceptError::Storage { retry_after } => {
                Self::later("storage", "The database takes no orders", "the order was not accepted", retry_after)
            }
        }
    }
}

impl From<StatusError> for HttpProblem {
    fn from(error: StatusError) -> Self {
        Self::later(
            "storage-read",
            "The database does not answer",
            "the status could not be read; orders are not affected",
            error.retry_after,
        )
    }
}

impl From<AdminError> for HttpProblem {
    fn from(_: AdminError) -> Self {
        Self::later("storage-read", "The database does not answer", "nothing was changed", Duration::from_secs(1))
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(span) = self.retry_after {
            headers.insert(RETRY_AFTER, whole_seconds(span).into());
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A span as `Retry-After` gives it: whole seconds, rounded up, at least one.
#[must_use]
pub fn whole_seconds(span: Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_every_member_of_the_contract() {
        let problem = HttpProblem::from(AcceptError::Backlog { retry_after: Duration::from_millis(1500) });
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(json["type"], "urn:sluice:problem:backlog-full");
        assert_eq!((&json["status"], &json["retryable"]), (&503.into(), &true.into()));
        assert_eq!(json["source"], "gateway");
        assert!(json["title"].is_string() && json["detail"].is_string());
        let response = problem.into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn an_answer_before_the_whole_body_closes_the_connection() {
        for problem in
            [HttpProblem::too_large(1), HttpProblem::slow_body(Duration::from_secs(1)), HttpProblem::cut_body()]
        {
            assert_eq!(problem.into_response().headers()[CONNECTION], "close");
        }
    }
}
