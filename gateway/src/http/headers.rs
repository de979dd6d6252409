//! Reads the request headers that mean something here. Pure.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, IF_NONE_MATCH};

use super::error::HttpProblem;
use super::event::parse_version;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How long `Prefer: wait` asks to wait (RFC 7240), at most `limit`. The first legal `wait` counts; whatever is odd is
/// ignored, as that standard wants.
pub(super) fn prefer_wait(headers: &HeaderMap, limit: Duration) -> Option<Duration> {
    let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
    let mut preferences = lines.flat_map(|line| split_quoted(line, b','));
    preferences.find_map(|preference| {
        let first = split_quoted(preference, b';').next()?;
        let (name, value) = first.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("wait") {
            return None;
        }
        let value = value.trim();
        let value = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // More digits than a number holds are still above every limit.
        Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(limit))
    })
}

/// The parts between separators that stand outside quoted strings.
fn split_quoted(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            if escaped {
                escaped = false;
            } else if quoted && byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                quoted = !quoted;
            }
            !quoted && byte == separator
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(end.map_or(text, |end| &text[..end]))
    })
}

/// The `Idempotency-Key`, bare or as a quoted string of RFC 9651: 1 to `bytes_max` bytes of visible ASCII and spaces.
pub(super) fn idempotency_key(headers: &HeaderMap, bytes_max: usize) -> Result<Option<String>, HttpProblem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(HttpProblem::bad_key("there is more than one Idempotency-Key"));
    }
    let bytes = value.as_bytes().trim_ascii();
    if !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(HttpProblem::bad_key("the key has a byte that is not visible ASCII"));
    }
    let key = if let Some(quoted) = bytes.strip_prefix(b"\"") {
        unquote(quoted).ok_or_else(|| HttpProblem::bad_key("the quoted key does not end where its quotes do"))?
    } else {
        Cow::Borrowed(bytes)
    };
    if key.is_empty() {
        return Err(HttpProblem::bad_key("the key is empty"));
    }
    if key.len() > bytes_max {
        return Err(HttpProblem::bad_key(format!("the key is longer than {bytes_max} bytes")));
    }
    // Only ASCII is left.
    Ok(Some(String::from_utf8_lossy(&key).into_owned()))
}

/// The text of a quoted string after its opening quote; escapes are `\"` and `\\`.
fn unquote(rest: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (last, inner) = rest.split_last()?;
    if *last != b'"' {
        return None;
    }
    if !inner.iter().any(|byte| matches!(byte, b'\\' | b'"')) {
        return Some(Cow::Borrowed(inner));
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => plain.push(*bytes.next().filter(|byte| matches!(byte, b'\\' | b'"'))?),
            b'"' => return None,
            other => plain.push(*other),
        }
    }
    Some(Cow::Owned(plain))
}

/// Whether `If-None-Match` names this version; `None` without a legal tag in it. Compared weakly, as RFC 9110 wants.
pub(super) fn none_match(headers: &HeaderMap, version: u64) -> Option<bool> {
    let mut known = None;
    for line in headers.get_all(IF_NONE_MATCH) {
        let Ok(line) = line.to_str() else { continue };
        for tag in line.split(',').map(str::trim) {
            if tag == "*" {
                return Some(true);
            }
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let Some(text) = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { continue };
            if parse_version(text) == Some(version) {
                return Some(true);
            }
            known = Some(false);
        }
    }
    known
}

/// A `traceparent` of W3C Trace Context version 00; a malformed one is as good as none.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() || text.len() != 55 {
        return None;
    }
    let mut parts = text.split('-');
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_legal = version == "00"
        && is_hex(trace, 32)
        && is_set(trace)
        && is_hex(parent, 16)
        && is_set(parent)
        && is_hex(flags, 2)
        && parts.next().is_none();
    is_legal.then(|| text.to_owned())
}

/// What a `Content-Type` says a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    CloudEvent,
    NdJson,
}

/// The media type of the body; what is none of [`Media`], or in a charset other than UTF-8, is refused.
pub(super) fn media(headers: &HeaderMap) -> Result<Media, HttpProblem> {
    const TAKEN: &str = "expected application/json, application/cloudevents+json or application/x-ndjson";
    let mut values = headers.get_all(http::header::CONTENT_TYPE).iter();
    let Some(value) = values.next() else {
        return Err(HttpProblem::unsupported_type(format!("there is no Content-Type: {TAKEN}")));
    };
    let second = values.next();
    if value.as_bytes() == b"application/json" && second.is_none() {
        return Ok(Media::Json);
    }
    let (Ok(text), None) = (value.to_str(), second) else {
        return Err(HttpProblem::unsupported_type(format!("the Content-Type is unreadable: {TAKEN}")));
    };
    let mut parts = split_quoted(text, b';');
    let essence = parts.next().unwrap_or_default().trim();
    let kinds = [
        ("application/json", Media::Json),
        ("application/cloudevents+json", Media::CloudEvent),
        ("application/x-ndjson", Media::NdJson),
    ];
    let Some((_, media)) = kinds.iter().find(|(name, _)| essence.eq_ignore_ascii_case(name)) else {
        return Err(HttpProblem::unsupported_type(TAKEN));
    };
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
            return Err(HttpProblem::unsupported_type("JSON is UTF-8: no other charset is taken"));
        }
    }
    Ok(*media)
}

#[cfg(test)]
mod tests;
