//! Compares JSON documents by their exact texts and says where they differ.
//!
//! Objects are equal if they have the same members, in any sequence; numbers and strings are equal if they are written
//! alike: `2.0` is not `2`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;

/// Longest text of a value that is shown whole.
const SHOWN_CHARS_MAX: usize = 200;

/// One place where two documents differ; what is absent is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// JSON Pointer; empty for the document itself.
    pub pointer: String,
    pub left: Option<String>,
    pub right: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "(the whole)" } else { &self.pointer };
        match (&self.left, &self.right) {
            (None, Some(right)) => write!(f, "+ {place}: {}", shown(right)),
            (Some(left), None) => write!(f, "- {place}: {}", shown(left)),
            (left, right) => {
                let text = |value: &Option<String>| value.as_deref().map(shown).unwrap_or_default();
                write!(f, "~ {place}: {} -> {}", text(left), text(right))
            }
        }
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{}… ({} bytes)", &text[..cut], text.len()),
        None => text.to_owned(),
    }
}

/// Where `right` differs from `left`, in the sequence of names and positions.
///
/// # Errors
///
/// One of them is not JSON.
pub fn differences(left: &[u8], right: &[u8]) -> Result<Vec<Difference>, serde_json::Error> {
    let mut found = Vec::new();
    let (left, right): (&RawValue, &RawValue) = (serde_json::from_slice(left)?, serde_json::from_slice(right)?);
    walk(String::new(), left, right, &mut found)?;
    Ok(found)
}

fn walk(
    pointer: String,
    left: &RawValue,
    right: &RawValue,
    found: &mut Vec<Difference>,
) -> Result<(), serde_json::Error> {
    match (left.get().as_bytes().first(), right.get().as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => {
            let (left, mut right) = (members(left)?, members(right)?);
            for (name, left) in left {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                match right.remove(&name) {
                    Some(right) => walk(pointer, left, right, found)?,
                    None => found.push(Difference { pointer, left: Some(left.get().to_owned()), right: None }),
                }
            }
            for (name, right) in right {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                found.push(Difference { pointer, left: None, right: Some(right.get().to_owned()) });
            }
        }
        (Some(b'['), Some(b'[')) => {
            let left: Vec<&RawValue> = serde_json::from_str(left.get())?;
            let right: Vec<&RawValue> = serde_json::from_str(right.get())?;
            for position in 0..left.len().max(right.len()) {
                let pointer = format!("{pointer}/{position}");
                match (left.get(position), right.get(position)) {
                    (Some(left), Some(right)) => walk(pointer, left, right, found)?,
                    (left, right) => {
                        let text = |value: Option<&&RawValue>| value.map(|value| value.get().to_owned());
                        found.push(Difference { pointer, left: text(left), right: text(right) });
                    }
                }
            }
        }
        _ if left.get() == right.get() => {}
        _ => found.push(Difference { pointer, left: Some(left.get().to_owned()), right: Some(right.get().to_owned()) }),
    }
    Ok(())
}

fn members(object: &RawValue) -> Result<BTreeMap<String, &RawValue>, serde_json::Error> {
    serde_json::from_str(object.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(left: &str, right: &str) -> Vec<String> {
        differences(left.as_bytes(), right.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sequence_of_members_and_white_space_are_no_difference() {
        assert_eq!(told(r#"{"a":1,"b":[1, {"c":"x"}]}"#, r#" { "b" : [1,{"c":"x"}], "a":1 } "#), [""; 0]);
    }

    #[test]
    fn numbers_and_strings_are_compared_by_their_texts() {
        assert_eq!(told(r#"{"a":2.0}"#, r#"{"a":2}"#), ["~ /a: 2.0 -> 2"]);
        assert_eq!(told(r#"{"a":12345678901234567890.10}"#, r#"{"a":12345678901234567890.1}"#).len(), 1);
        assert_eq!(told(r#"["\u0065"]"#, r#"["e"]"#), [r#"~ /0: "\u0065" -> "e""#]);
    }

    #[test]
    fn each_difference_stands_at_its_place() {
        assert_eq!(
            told(r#"{"a":{"x/y":1,"gone":[]},"b":[1,2]}"#, r#"{"a":{"x/y":2,"new~":{}},"b":[1]}"#),
            ["- /a/gone: []", "~ /a/x~1y: 1 -> 2", "+ /a/new~0: {}", "- /b/1: 2"]
        );
        assert_eq!(told("[]", "{}"), ["~ (the whole): [] -> {}"]);
    }

    #[test]
    fn long_values_are_cut() {
        let long = format!("\"{}\"", "ä".repeat(300));
        let text = &told("[]", &format!("[{long}]"))[0];
        assert!(text.len() < 500 && text.ends_with("… (602 bytes)"), "{text}");
    }
}
