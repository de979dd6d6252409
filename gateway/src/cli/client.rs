//! Talks to a running node over HTTP, blocking.

use std::time::Duration;

use serde_json::Value;
use ureq::http::HeaderMap;

/// Connecting to a node that is there takes no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest silence in the middle of an answer; a stream's comments come more often.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// Largest answer that is read whole.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
}

/// What a node answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn new(base: &str) -> Self {
        // No proxy: a node is reached directly, and only `config` reads the environment.
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .proxy(None)
            .build();
        Self { agent: config.into(), base: base.trim_end_matches('/').to_owned() }
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, ureq::Error> {
        read(self.agent.get(self.url(path)).call()?)
    }

    pub(super) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, ureq::Error> {
        let request = headers
            .iter()
            .fold(self.agent.post(self.url(path)), |request, (name, value)| request.header(*name, *value));
        read(request.send(body)?)
    }

    /// Opens a stream of events after the one with `last_event_id`; the body is not read yet.
    pub(super) fn stream(
        &self,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = self.agent.get(self.url(path)).header("Accept", "text/event-stream");
        match last_event_id {
            Some(id) => request.header("Last-Event-ID", id).call(),
            None => request.call(),
        }
    }

    /// What to tell somebody whose request reached nobody.
    pub(super) fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        anyhow::anyhow!(
            "no answer from {}: {error}\nstart a node with `sluice dev` or `sluice run`, or name another with --url",
            self.base
        )
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).map_err(|error| {
            anyhow::anyhow!("the answer ({}) is not JSON: {error}; is this a Sluice node?", self.status)
        })
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer if it is a success, else its problem as an error.
    pub(super) fn success(self) -> anyhow::Result<Self> {
        if self.is_success() { Ok(self) } else { Err(anyhow::anyhow!(self.problem())) }
    }

    /// The problem it tells of, for people.
    pub(super) fn problem(&self) -> String {
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(problem) => describe(self.status, &problem),
            Err(_) => format!("{}: {}", self.status, self.text().trim()),
        }
    }

    /// Seconds of `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

/// `status title: detail [type]`, and one indented line per finding.
pub(super) fn describe(status: u16, problem: &Value) -> String {
    let word = |name: &str| problem.get(name).and_then(Value::as_str);
    let mut text = format!("{status} {}", word("title").unwrap_or("without a title"));
    if let Some(detail) = word("detail") {
        text.push_str(&format!(": {detail}"));
    }
    if let Some(kind) = word("type") {
        text.push_str(&format!(" [{kind}]"));
    }
    for finding in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("\n  {}", finding_line(finding)));
    }
    text
}

/// `pointer: title: detail` of a finding, whichever of them there are.
pub(super) fn finding_line(finding: &Value) -> String {
    let parts = ["pointer", "title", "detail"].map(|name| finding.get(name).and_then(Value::as_str));
    let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { finding.to_string() } else { parts.join(": ") }
}

/// Reads an answer whole.
pub(super) fn read(response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let (parts, mut body) = response.into_parts();
    let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// What a path segment may not hold as it is.
pub(super) fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string().replace("%2D", "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_all_it_has() {
        let problem = serde_json::json!({
            "type": "urn:x:invalid", "title": "Invalid order", "detail": "two members are wrong",
            "errors": [{"pointer": "/currency", "detail": "no such currency"}, {"code": 5}],
        });
        assert_eq!(
            describe(400, &problem),
            "400 Invalid order: two members are wrong [urn:x:invalid]\n  /currency: no such currency\n  {\"code\":5}"
        );
        assert_eq!(describe(502, &Value::Null), "502 without a title");
    }
}
