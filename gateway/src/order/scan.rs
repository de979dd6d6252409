//! Finds the places of members and elements in the bytes of valid JSON.

use std::ops::Range;

/// A member of an object or an element of an array.
#[derive(Debug, Clone)]
pub(super) struct Child {
    /// Where it begins: at its name, or at its value in an array.
    pub(super) start: usize,
    /// Its name with the quotes; empty in an array.
    name: Range<usize>,
    pub(super) value: Range<usize>,
}

impl Child {
    /// Whether a member has this name, escapes resolved.
    pub(super) fn is_named(&self, json: &[u8], name: &str) -> bool {
        let own = &json[self.name.clone()];
        if own.contains(&b'\\') {
            serde_json::from_slice::<String>(own).is_ok_and(|own| own == name)
        } else {
            own.get(1..own.len().saturating_sub(1)) == Some(name.as_bytes())
        }
    }
}

/// The members or elements of the object or array that begins at `start`, in sequence.
pub(super) fn children(json: &[u8], start: usize) -> impl Iterator<Item = Child> {
    let is_object = json.get(start) == Some(&b'{');
    let mut at = start + 1;
    std::iter::from_fn(move || {
        at = skip_space(json, at);
        if json.get(at) == Some(&b',') {
            at = skip_space(json, at + 1);
        }
        if matches!(json.get(at), None | Some(b'}' | b']')) {
            return None;
        }
        let start = at;
        let mut name = at..at;
        if is_object {
            name.end = skip_string(json, at);
            // Behind the colon.
            at = skip_space(json, skip_space(json, name.end) + 1);
        }
        let value = at..skip_value(json, at);
        at = value.end;
        Some(Child { start, name, value })
    })
}

pub(super) fn skip_space(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// Levels of nesting: 0 for a scalar.
pub(super) fn depth(json: &[u8]) -> usize {
    let (mut at, mut level, mut deepest) = (0, 0usize, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at = skip_string(json, at);
                continue;
            }
            b'{' | b'[' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Behind the string whose opening quote is at `at`.
fn skip_string(json: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        match json.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at + 1,
            Some(_) => at += 1,
            None => return json.len(),
        }
    }
}

/// Behind the value that begins at `at`.
fn skip_value(json: &[u8], mut at: usize) -> usize {
    let mut level = 0usize;
    loop {
        match json.get(at) {
            Some(b'"') => at = skip_string(json, at),
            Some(b'{' | b'[') => {
                level += 1;
                at += 1;
            }
            Some(b'}' | b']') => {
                level = level.saturating_sub(1);
                at += 1;
            }
            Some(_) if level > 0 => at += 1,
            Some(_) => {
                while !matches!(json.get(at), None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')) {
                    at += 1;
                }
            }
            None => return json.len(),
        }
        if level == 0 {
            return at;
        }
    }
}
