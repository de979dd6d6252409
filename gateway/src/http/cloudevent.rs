//! Finds the order in a `CloudEvent` (1.0, HTTP binding): in binary mode by `ce-` headers, in structured mode by an envelope.
//!
//! Source and id are the event's identity, so they make its idempotency key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::HttpProblem;
use crate::order::json::{self, DEPTH_LIMIT_MAX, JsonPointer};

/// Limit on an event's source and on its id, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 1024;

const REQUIRED: [&str; 4] = ["ce-specversion", "ce-id", "ce-source", "ce-type"];

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    specversion: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    datacontenttype: Option<String>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    data_base64: Option<String>,
}

/// The key of an event in binary mode; `None` where the request has no event's headers.
pub(super) fn binary_key(headers: &HeaderMap) -> Result<Option<String>, HttpProblem> {
    if !REQUIRED.iter().any(|name| headers.contains_key(*name)) {
        return Ok(None);
    }
    let attribute = |name: &str| -> Result<String, HttpProblem> {
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(HttpProblem::bad_event(format!("an event has exactly one `{name}` header")));
        };
        let text = percent_decode(value.as_bytes()).decode_utf8();
        text.map(std::borrow::Cow::into_owned).map_err(|_| HttpProblem::bad_event(format!("`{name}` is not UTF-8")))
    };
    let [version, id, source, kind] = REQUIRED.map(attribute);
    key_of(&version?, &id?, &source?, &kind?).map(Some)
}

/// The key and the order of an event in structured mode.
pub(super) fn structured(bytes: &[u8]) -> Result<(String, Bytes), HttpProblem> {
    json::check(bytes, DEPTH_LIMIT_MAX, &JsonPointer::default()).map_err(|fault| HttpProblem::bad_body(&fault))?;
    let event: Envelope<'_> = serde_json::from_slice(bytes)
        .map_err(|error| HttpProblem::bad_event(format!("the envelope is not that of an event: {error}")))?;
    let key = key_of(&event.specversion, &event.id, &event.source, &event.r#type)?;
    if event.datacontenttype.is_some_and(|kind| !is_json(&kind)) {
        return Err(HttpProblem::unsupported_type("the event's `datacontenttype` is not JSON"));
    }
    let data = match (event.data, event.data_base64) {
        (Some(data), None) => Bytes::copy_from_slice(data.get().as_bytes()),
        (None, Some(text)) => {
            STANDARD.decode(text).map_err(|_| HttpProblem::bad_event("`data_base64` is not base64"))?.into()
        }
        (None, None) => return Err(HttpProblem::bad_event("the event has no `data`")),
        (Some(_), Some(_)) => return Err(HttpProblem::bad_event("the event has both `data` and `data_base64`")),
    };
    Ok((key, data))
}

fn key_of(version: &str, id: &str, source: &str, kind: &str) -> Result<String, HttpProblem> {
    if version != "1.0" {
        return Err(HttpProblem::bad_event("`specversion` is not 1.0"));
    }
    for (name, value) in [("id", id), ("source", source), ("type", kind)] {
        if value.is_empty() {
            return Err(HttpProblem::bad_event(format!("`{name}` is missing or empty")));
        }
        if value.len() > ATTRIBUTE_BYTES_MAX {
            return Err(HttpProblem::bad_event(format!("`{name}` is longer than {ATTRIBUTE_BYTES_MAX} bytes")));
        }
        // So that no two pairs of source and id make the same key.
        if value.chars().any(char::is_control) {
            return Err(HttpProblem::bad_event(format!("`{name}` has a control character")));
        }
    }
    Ok(format!("{source}\n{id}"))
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.contains('/') && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn both_modes_give_one_key() {
        let mut headers = HeaderMap::new();
        assert_eq!(binary_key(&headers), Ok(None));
        for (name, value) in [("ce-specversion", "1.0"), ("ce-id", "%41-1"), ("ce-source", "/shop"), ("ce-type", "t")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let envelope = br#"{"specversion":"1.0","id":"A-1","source":"/shop","type":"t","data":{"a": 1.50}}"#;
        let (key, data) = structured(envelope).unwrap();
        assert_eq!(binary_key(&headers), Ok(Some(key)));
        assert_eq!(&data[..], br#"{"a": 1.50}"#);
        headers.remove("ce-type");
        assert!(binary_key(&headers).is_err());
    }

    #[test]
    fn data_may_be_base64() {
        let envelope = br#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"eyJhIjoxfQ=="}"#;
        assert_eq!(&structured(envelope).unwrap().1[..], br#"{"a":1}"#);
    }

    #[test]
    fn broken_envelopes_are_refused() {
        for (members, status) in [
            (r#""specversion":"1.0","source":"s","type":"t","data":{}"#, 400),
            (r#""specversion":"1.0","id":"","source":"s","type":"t","data":{}"#, 400),
            (r#""specversion":"1.0","id":1,"source":"s","type":"t","data":{}"#, 400),
            (r#""specversion":"0.3","id":"1","source":"s","type":"t","data":{}"#, 400),
            (r#""specversion":"1.0","id":"1","source":"s\n","type":"t","data":{}"#, 400),
            (r#""specversion":"1.0","id":"1","source":"s","type":"t""#, 400),
            (r#""specversion":"1.0","id":"1","source":"s","type":"t","data":{},"data_base64":"e30=""#, 400),
            (r#""specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"!""#, 400),
            (r#""specversion":"1.0","id":"1","id":"1","source":"s","type":"t","data":{}"#, 400),
            (r#""specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/xml","data":{}"#, 415),
        ] {
            let envelope = format!("{{{members}}}");
            assert_eq!(structured(envelope.as_bytes()).unwrap_err().status, status, "{envelope}");
        }
        assert!(structured(b"[]").is_err());
    }
}
