//! What of an order a record has: some of its members, where they are or under other names.
//!
//! # Guarantees
//!
//! - **Values keep their exact bytes**, numbers and white space included.
//! - What the order does not have is left out; the rest is a JSON object all the same.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::json::{InvalidPointer, JsonPointer, index};
use super::patch::push_name;
use super::scan::{children, skip_space};

/// Which members a record has, valid as such.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Projection {
    fields: Fields,
    plan: Plan,
}

/// As it is written in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected a list of JSON Pointers, or a table of names and JSON Pointers")]
enum Fields {
    Kept(Vec<String>),
    Named(BTreeMap<String, String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    Kept(Kept),
    Named(Vec<(String, JsonPointer)>),
}

/// Members that stay where they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Kept {
    /// With everything in it.
    is_whole: bool,
    below: Vec<(String, Kept)>,
}

impl Projection {
    /// The projection of an order: valid JSON, an object.
    #[must_use]
    pub fn of(&self, order: &[u8]) -> Bytes {
        let start = skip_space(order, 0);
        let mut text = vec![b'{'];
        match &self.plan {
            Plan::Kept(kept) => kept.keep(order, start, &mut text),
            Plan::Named(members) => {
                for (name, pointer) in members {
                    if let Some(value) = value_at(order, start, pointer.tokens()) {
                        push_comma(&mut text);
                        push_name(&mut text, name);
                        text.extend_from_slice(&order[value]);
                    }
                }
            }
        }
        text.push(b'}');
        text.into()
    }
}

impl TryFrom<Fields> for Projection {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let plan = match &fields {
            Fields::Kept(pointers) => Plan::Kept(kept(pointers)?),
            Fields::Named(members) => Plan::Named(named(members)?),
        };
        Ok(Self { fields, plan })
    }
}

impl From<Projection> for Fields {
    fn from(projection: Projection) -> Self {
        projection.fields
    }
}

fn kept(pointers: &[String]) -> Result<Kept, String> {
    let mut kept = Kept::default();
    let mut faults = Vec::new();
    for (at, text) in pointers.iter().enumerate() {
        match text.parse::<JsonPointer>() {
            Ok(pointer) if pointer.tokens().is_empty() => {
                faults.push("an empty pointer is the whole order: leave `fields` out for that".to_owned());
            }
            Ok(_) if pointers[..at].contains(text) => faults.push(format!("`{text}` is named twice")),
            Ok(pointer) => kept.add(pointer.tokens()),
            Err(fault) => faults.push(no_pointer(text, fault)),
        }
    }
    if pointers.is_empty() { Err(EMPTY.to_owned()) } else { whole(kept, &faults) }
}

fn named(members: &BTreeMap<String, String>) -> Result<Vec<(String, JsonPointer)>, String> {
    let mut found = Vec::with_capacity(members.len());
    let mut faults = Vec::new();
    for (name, text) in members {
        match text.parse() {
            Ok(pointer) => found.push((name.clone(), pointer)),
            Err(fault) => faults.push(no_pointer(text, fault)),
        }
    }
    if members.is_empty() { Err(EMPTY.to_owned()) } else { whole(found, &faults) }
}

const EMPTY: &str = "names no member: leave `fields` out for the whole order";

fn no_pointer(text: &str, fault: InvalidPointer) -> String {
    format!("`{text}` is {fault}")
}

/// The plan, or all that is wrong with it.
fn whole<T>(plan: T, faults: &[String]) -> Result<T, String> {
    if faults.is_empty() { Ok(plan) } else { Err(faults.join("; ")) }
}

impl Kept {
    fn add(&mut self, tokens: &[String]) {
        let Some((first, rest)) = tokens.split_first() else {
            self.is_whole = true;
            return;
        };
        if let Some((_, known)) = self.below.iter_mut().find(|(name, _)| name == first) {
            return known.add(rest);
        }
        let mut below = Self::default();
        below.add(rest);
        self.below.push((first.clone(), below));
    }

    /// Adds what is kept of the object that begins at `start`, in the object's own sequence.
    fn keep(&self, order: &[u8], start: usize, text: &mut Vec<u8>) {
        if order.get(start) != Some(&b'{') {
            return;
        }
        for child in children(order, start) {
            let Some((_, kept)) = self.below.iter().find(|(name, _)| child.is_named(order, name)) else { continue };
            let before = text.len();
            push_comma(text);
            if kept.is_whole {
                text.extend_from_slice(&order[child.start..child.value.end]);
                continue;
            }
            // The name with its colon.
            text.extend_from_slice(&order[child.start..child.value.start]);
            text.push(b'{');
            let inside = text.len();
            kept.keep(order, child.value.start, text);
            if text.len() == inside {
                text.truncate(before);
            } else {
                text.push(b'}');
            }
        }
    }
}

/// A comma, unless an object has just begun: no value ends with a brace that opens.
fn push_comma(text: &mut Vec<u8>) {
    if text.last() != Some(&b'{') {
        text.push(b',');
    }
}

/// Where the value that a pointer names stands, objects and arrays on the way.
fn value_at(order: &[u8], start: usize, tokens: &[String]) -> Option<Range<usize>> {
    let mut place = start..order.trim_ascii_end().len();
    for token in tokens {
        let mut all = children(order, place.start);
        let child = match order.get(place.start)? {
            b'{' => all.find(|child| child.is_named(order, token)),
            b'[' => all.nth(index(token)?),
            _ => None,
        };
        place = child?.value;
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{ "id" : 1.50e0, "customer":{"name":"A\u00e9 }","segment":"x"} ,"lines":[{"sku":"a","n":12345678901234567890},{"sku":"b"}],"n\u006fte":"{", "none":null }"#;

    fn projection(fields: &str) -> Result<Projection, String> {
        let table: toml::Table = format!("fields = {fields}").parse().unwrap();
        table["fields"].clone().try_into().map_err(|error: toml::de::Error| error.message().trim().to_owned())
    }

    fn projected(fields: &str, order: &str) -> String {
        String::from_utf8(projection(fields).unwrap().of(order.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn members_keep_their_place_and_their_bytes() {
        for (fields, expected) in [
            (r#"["/id"]"#, r#"{"id" : 1.50e0}"#),
            (r#"["/none", "/id"]"#, r#"{"id" : 1.50e0,"none":null}"#),
            (r#"["/customer/name"]"#, r#"{"customer":{"name":"A\u00e9 }"}}"#),
            (r#"["/customer/name", "/customer"]"#, r#"{"customer":{"name":"A\u00e9 }","segment":"x"}}"#),
            (r#"["/customer/segment", "/customer/name"]"#, r#"{"customer":{"name":"A\u00e9 }","segment":"x"}}"#),
            (r#"["/lines"]"#, r#"{"lines":[{"sku":"a","n":12345678901234567890},{"sku":"b"}]}"#),
            (r#"["/note", "/id"]"#, r#"{"id" : 1.50e0,"n\u006fte":"{"}"#),
        ] {
            assert_eq!(projected(fields, ORDER), expected, "{fields}");
        }
    }

    #[test]
    fn members_get_the_names_that_they_are_given() {
        for (fields, expected) in [
            (r#"{ b = "/id", a = "/lines/0/n" }"#, r#"{"a":12345678901234567890,"b":1.50e0}"#),
            (r#"{ "q\"" = "/customer" }"#, r#"{"q\"":{"name":"A\u00e9 }","segment":"x"}}"#),
            (r#"{ last = "/lines/1", note = "/note" }"#, r#"{"last":{"sku":"b"},"note":"{"}"#),
        ] {
            assert_eq!(projected(fields, ORDER), expected, "{fields}");
        }
        assert_eq!(projected(r#"{ order = "" }"#, " {\"a\": 1 }\n"), r#"{"order":{"a": 1 }}"#);
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        for fields in [
            r#"["/other", "/customer/age", "/id/x", "/lines/0", "/customer/name/first"]"#,
            r#"{ a = "/other", b = "/lines/2", c = "/lines/x", d = "/lines/-", e = "/id/x" }"#,
        ] {
            assert_eq!(projected(fields, ORDER), "{}", "{fields}");
        }
        assert_eq!(projected(r#"["/a"]"#, "{}"), "{}");
    }

    #[test]
    fn all_that_is_wrong_with_it_is_told() {
        for (fields, expected) in [
            ("[]", EMPTY),
            ("{}", EMPTY),
            ("5", "expected a list of JSON Pointers, or a table of names and JSON Pointers"),
            (r#"["/a", "b", "/a", "/~2"]"#, "`b` is not a JSON Pointer"),
            (r#"["/a", "b", "/a", "/~2"]"#, "; `/a` is named twice; `/~2` is not a JSON Pointer"),
            (r#"[""]"#, "leave `fields` out"),
            (r#"{ a = "b" }"#, "`b` is not a JSON Pointer"),
        ] {
            let said = projection(fields).unwrap_err();
            assert!(said.contains(expected), "{fields}: {said}");
        }
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        for fields in [r#"["/b","/a"]"#, r#"{"x":"/a"}"#] {
            let projection: Projection = serde_json::from_str(fields).unwrap();
            assert_eq!(serde_json::to_string(&projection).unwrap(), fields);
        }
    }
}
