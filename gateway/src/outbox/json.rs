//! Values as the JSON text of a column, the same on every database.

use serde::Serialize;

/// A value as JSON.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Plain data with string keys always serialises.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Headers of a record as JSON: pairs of name and text.
pub(super) fn headers_json(headers: &[(String, bytes::Bytes)]) -> String {
    let texts: Vec<(&str, std::borrow::Cow<'_, str>)> =
        headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value))).collect();
    json(&texts)
}
