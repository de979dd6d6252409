//! Reads the body of a request under its limits of size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;

use super::error::HttpProblem;

/// What is set aside for a body before its bytes are there: a length is only a claim.
const CLAIM_BYTES_MAX: usize = 64 << 10;

/// The whole body. Over `bytes_max`: refused by its declared length before anything is read, else as soon as it is over.
/// Not cancel-safe: bytes that were read are gone.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    time_max: Duration,
) -> Result<Bytes, HttpProblem> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(HttpProblem::too_large(bytes_max));
    }
    let collected = collect(body, declared.unwrap_or(0), bytes_max);
    tokio::time::timeout(time_max, collected).await.unwrap_or_else(|_| Err(HttpProblem::slow_body(time_max)))
}

/// The refusal of a request whose body is not read. Where it does not come along with the head anyway, the connection ends
/// with it.
pub(super) fn unread(headers: &HeaderMap, problem: HttpProblem) -> HttpProblem {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let is_short = declared.is_some_and(|length| length <= CLAIM_BYTES_MAX);
    HttpProblem { close: !is_short, ..problem }
}

async fn collect(mut body: Body, declared: usize, bytes_max: usize) -> Result<Bytes, HttpProblem> {
    // Copied out of the connection's buffer: an order is kept longer than that.
    let mut bytes = Vec::with_capacity(declared.min(CLAIM_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| HttpProblem::cut_body())?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(HttpProblem::too_large(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn silent() -> Body {
        type Frame = Result<http_body::Frame<Bytes>, std::io::Error>;
        Body::new(StreamBody::new(futures_util::stream::pending::<Frame>()))
    }

    fn declaring(length: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, http::HeaderValue::from_static(length))])
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read() {
        assert_eq!(read(&HeaderMap::new(), Body::from("12345"), 5, MINUTE).await, Ok(Bytes::from("12345")));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_declared_or_not() {
        assert_eq!(read(&declaring("6"), silent(), 5, MINUTE).await, Err(HttpProblem::too_large(5)));
        assert_eq!(read(&HeaderMap::new(), Body::from("123456"), 5, MINUTE).await, Err(HttpProblem::too_large(5)));
    }

    #[test]
    fn a_refusal_before_the_body_ends_the_connection_only_where_the_rest_is_long() {
        let closes = |headers: &HeaderMap| unread(headers, HttpProblem::internal()).close;
        assert!(!closes(&declaring("320")));
        assert!(closes(&declaring("1000000")));
        assert!(closes(&HeaderMap::new()), "chunks of unknown length");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let soon = Duration::from_millis(5);
        assert_eq!(read(&declaring("5"), silent(), 5, soon).await, Err(HttpProblem::slow_body(soon)));
    }
}
