//! Takes a batch in: one order per line, each checked, accepted and answered on its own.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::error::HttpProblem;
use super::{Edge, accept, body};
use crate::intake::{self, KeyNamespace};

/// Lines checked before other requests of the thread get their turn.
const LINES_PER_TURN: usize = 64;

/// Answers a batch with one line per line.
pub(super) async fn post(
    edge: &Edge,
    headers: &HeaderMap,
    key: Option<String>,
    body: Body,
) -> Result<Response, HttpProblem> {
    let limits = &edge.state.http;
    let bytes = body::read(headers, body, limits.batch_bytes_max.0, limits.body_timeout.0).await?;
    let lines = split(&bytes, limits.batch_lines_max)?;
    let mut results = Vec::with_capacity(lines.len());
    let mut requests = Vec::with_capacity(lines.len());
    for (index, line) in lines.into_iter().enumerate() {
        if index % LINES_PER_TURN == LINES_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
        let key = key.as_ref().map(|key| (KeyNamespace::BatchLine, format!("{key}\n{}", index + 1)));
        match request_of(edge, headers, line, key) {
            Ok(request) => {
                requests.push(request);
                results.push(None);
            }
            Err(problem) => results.push(Some(problem)),
        }
    }
    drop(bytes);
    let mut accepted = edge.state.intake.accept_all(requests).await.into_iter();
    let mut answer = Vec::with_capacity(results.len() * 256);
    for (index, refused) in results.into_iter().enumerate() {
        let result = match refused {
            Some(problem) => Err(problem),
            None => accepted.next().map_or_else(|| Err(HttpProblem::internal()), |result| result.map_err(Into::into)),
        };
        let line = match result {
            Ok(accepted) => {
                let body = accept::pending_body(&edge.path, accepted.id);
                format!("{{\"line\":{},\"status\":202,\"order\":{body}}}\n", index + 1)
            }
            Err(problem) => {
                let (status, json) = (problem.status.as_u16(), problem.to_json());
                format!(
                    "{{\"line\":{},\"status\":{status},\"problem\":{}}}\n",
                    index + 1,
                    String::from_utf8_lossy(&json)
                )
            }
        };
        answer.extend_from_slice(line.as_bytes());
    }
    let mut response = Response::new(Body::from(answer));
    *response.status_mut() = StatusCode::MULTI_STATUS;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn request_of(
    edge: &Edge,
    headers: &HeaderMap,
    line: &[u8],
    key: Option<(KeyNamespace, String)>,
) -> Result<intake::Request, HttpProblem> {
    let longest = edge.state.http.body_bytes_max.0;
    if line.len() > longest {
        return Err(HttpProblem::too_large(longest));
    }
    // Copied, so that one slow order does not keep the whole batch in memory.
    accept::request_of(edge, headers, Bytes::copy_from_slice(line), key)
}

/// The lines, without their ends. A line end after the last line makes no further line; a blank line is one, and bad.
fn split(bytes: &[u8], lines_max: usize) -> Result<Vec<&[u8]>, HttpProblem> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.is_empty() {
        let detail = "the batch has no line";
        return Err(HttpProblem::client(StatusCode::BAD_REQUEST, "empty-batch", "The batch is empty", detail));
    }
    let lines: Vec<_> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take(lines_max.saturating_add(1))
        .collect();
    if lines.len() > lines_max {
        return Err(HttpProblem::too_many_lines(lines_max));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<Vec<&str>, u16> {
        let lines = split(text.as_bytes(), 3).map_err(|problem| problem.status.as_u16())?;
        Ok(lines.into_iter().map(|line| std::str::from_utf8(line).unwrap()).collect())
    }

    #[test]
    fn lines_are_split_at_either_line_end() {
        for (text, expected) in [
            ("a", &["a"][..]),
            ("a\nb", &["a", "b"]),
            ("a\nb\n", &["a", "b"]),
            ("a\r\nb\r\n", &["a", "b"]),
            ("a\n\nb", &["a", "", "b"]),
            ("a\n\n", &["a", ""]),
            ("\na", &["", "a"]),
        ] {
            assert_eq!(lines(text), Ok(expected.to_vec()), "{text:?}");
        }
    }

    #[test]
    fn an_empty_or_too_long_batch_is_refused() {
        for text in ["", "\n", "\r\n"] {
            assert_eq!(lines(text), Err(400), "{text:?}");
        }
        assert_eq!(lines("a\nb\nc\n"), Ok(vec!["a", "b", "c"]));
        assert_eq!(lines("a\nb\nc\nd"), Err(413));
    }
}
