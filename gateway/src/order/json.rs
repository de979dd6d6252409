//! Checks that bytes are one legal JSON object, and finds the order key in them on the way.
//!
//! One pass that keeps nothing but member names. Legal is what every reader understands alike: RFC 8259 in UTF-8 without
//! a byte order mark, exactly one object, no duplicate members (names compared as decoded), no number beyond a double,
//! no lone surrogate, and no deeper than the limit.

mod pointer;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};

pub(super) use pointer::index;
pub use pointer::{InvalidPointer, JsonPointer};

/// The deepest limit there is: beyond it the parser's own guard against deep input would speak first.
pub const DEPTH_LIMIT_MAX: usize = 126;

/// Up to here a new member is compared with each before it; above, a hash set is cheaper.
const LINEAR_MEMBERS_MAX: usize = 16;

/// Pointers are for people; a longer one names no place that anybody would read.
const POINTER_BYTES_MAX: usize = 1024;

/// What one look at the bytes of an order gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The text at the route's key pointer: a string's text, a number or boolean as written. `None` where there is
    /// nothing, `null`, an empty string, an object or an array.
    pub order_key: Option<String>,
}

/// Where a fault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the text; both count from 1, columns in bytes.
    Text { line: usize, column: usize },
    /// At a member, named by its JSON Pointer.
    Member(String),
    /// The value as a whole.
    Whole,
}

/// Why bytes are not one legal JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonFault {
    pub what: Cow<'static, str>,
    pub place: Place,
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Text { line, column } => write!(f, "{} at line {line} column {column}", self.what),
            Place::Member(pointer) => write!(f, "{} at `{pointer}`", self.what),
            Place::Whole => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for JsonFault {}

/// Checks one order. `depth_max` counts the object itself and is at most [`DEPTH_LIMIT_MAX`].
pub fn check(bytes: &[u8], depth_max: usize, key: &JsonPointer) -> Result<Checked, JsonFault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = position(&bytes[..error.valid_up_to()]);
        JsonFault { what: "not UTF-8".into(), place: Place::Text { line, column } }
    })?;
    let mut pass =
        Pass { names: Vec::new(), found: Found::Nothing, fault: None, depth_max: depth_max.min(DEPTH_LIMIT_MAX) };
    let mut json = serde_json::Deserializer::from_str(text);
    let root = Root { pass: &mut pass, key: key.tokens() };
    if let Err(error) = json.deserialize_any(root).and_then(|()| json.end()) {
        return Err(pass.fault.map_or_else(|| fault_of(&error), |fault| fault.named(&error)));
    }
    let order_key = match pass.found {
        Found::Nothing => None,
        Found::Text(text) => Some(text),
        Found::Number => raw_at(text, key.tokens()).map(str::to_owned),
    };
    Ok(Checked { order_key })
}

/// Line and column of the byte after `before`.
fn position(before: &[u8]) -> (usize, usize) {
    let line = before.split(|byte| *byte == b'\n');
    let (count, last) = line.fold((0, 0), |(count, _), line| (count + 1, line.len()));
    (count, last + 1)
}

/// A fault in the parser's words.
fn fault_of(error: &serde_json::Error) -> JsonFault {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned();
    let place =
        if error.line() == 0 { Place::Whole } else { Place::Text { line: error.line(), column: error.column() } };
    JsonFault { what: what.into(), place }
}

/// The text of the value at a place that is known to exist. Only for numbers that are no integers, which are rare keys.
fn raw_at<'a>(text: &'a str, tokens: &[String]) -> Option<&'a str> {
    use serde_json::value::RawValue;
    use std::collections::HashMap;
    let mut here = text.trim_matches([' ', '\t', '\r', '\n']);
    for token in tokens {
        let raw: &RawValue = if here.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(here).ok()?;
            items.get(pointer::index(token)?).copied()?
        } else {
            let mut members: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(here).ok()?;
            members.remove(token.as_str())?
        };
        here = raw.get();
    }
    Some(here)
}

/// What stood at the key pointer.
enum Found {
    Nothing,
    Text(String),
    /// A number whose text the parser did not keep.
    Number,
}

/// A fault that was found by this module; its path fills up as the parser unwinds.
struct Fault {
    what: Cow<'static, str>,
    /// Innermost first; `None` where the place in the text says more.
    path: Option<Vec<String>>,
}

impl Fault {
    fn named(self, error: &serde_json::Error) -> JsonFault {
        let pointer = self.path.map(|path| pointer::join(path.iter().rev()));
        let place = match pointer {
            Some(pointer) if pointer.is_empty() => Place::Whole,
            Some(pointer) if pointer.len() <= POINTER_BYTES_MAX => Place::Member(pointer),
            Some(_) | None => Place::Text { line: error.line(), column: error.column() },
        };
        JsonFault { what: self.what, place }
    }
}

/// The state of one pass.
struct Pass<'de> {
    /// Names of the members seen so far of every open object; each object knows where its own begin.
    names: Vec<Cow<'de, str>>,
    found: Found,
    fault: Option<Fault>,
    depth_max: usize,
}

impl Pass<'_> {
    fn step(&mut self, token: impl FnOnce() -> String) {
        if let Some(path) = self.fault.as_mut().and_then(|fault| fault.path.as_mut()) {
            path.push(token());
        }
    }
}

/// The outermost value: an object or a fault.
struct Root<'p, 'de> {
    pass: &'p mut Pass<'de>,
    key: &'p [String],
}

impl Root<'_, '_> {
    fn refuse<E: serde::de::Error>(self, kind: &str) -> Result<(), E> {
        let what = format!("an order is a JSON object, this is {kind}").into();
        self.pass.fault = Some(Fault { what, path: Some(Vec::new()) });
        Err(E::custom(""))
    }
}

impl<'de> Visitor<'de> for Root<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let key = (!self.key.is_empty()).then_some(self.key);
        Value { pass: self.pass, key, depth: 1 }.visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.refuse("an array")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.refuse("a string")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.refuse("a boolean")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.refuse("null")
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.refuse("a number")
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.refuse("a number")
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.refuse("a number")
    }
}

/// Any value. `key` is what is left of the key pointer where this value lies on its way.
struct Value<'p, 'k, 'de> {
    pass: &'p mut Pass<'de>,
    key: Option<&'k [String]>,
    depth: usize,
}

impl Value<'_, '_, '_> {
    fn is_key(&self) -> bool {
        self.key.is_some_and(<[String]>::is_empty)
    }

    fn within_depth<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth <= self.pass.depth_max {
            return Ok(());
        }
        let what = format!("nested deeper than {} levels", self.pass.depth_max).into();
        self.pass.fault = Some(Fault { what, path: None });
        Err(E::custom(""))
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        if self.is_key() {
            self.pass.found = Found::Text(value.to_string());
        }
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        if self.is_key() {
            self.pass.found = Found::Text(value.to_string());
        }
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        if self.is_key() {
            self.pass.found = Found::Text(value.to_string());
        }
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        if self.is_key() {
            self.pass.found = Found::Number;
        }
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.is_key() && !text.is_empty() {
            self.pass.found = Found::Text(text.to_owned());
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.within_depth()?;
        let wanted =
            self.key.and_then(<[String]>::split_first).and_then(|(token, rest)| Some((pointer::index(token)?, rest)));
        let mut index = 0usize;
        loop {
            let key = wanted.filter(|(at, _)| *at == index).map(|(_, rest)| rest);
            match items.next_element_seed(Value { pass: self.pass, key, depth: self.depth + 1 }) {
                Ok(Some(())) => index += 1,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.pass.step(|| index.to_string());
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.within_depth()?;
        let wanted = self.key.and_then(<[String]>::split_first);
        let first = self.pass.names.len();
        let mut many: Option<HashSet<Cow<'de, str>>> = None;
        while let Some(name) = map.next_key_seed(Name)? {
            let is_new = match &mut many {
                Some(many) => many.insert(name.clone()),
                None => !self.pass.names[first..].contains(&name),
            };
            if !is_new {
                self.pass.fault = Some(Fault { what: "duplicate member".into(), path: Some(vec![name.into_owned()]) });
                return Err(A::Error::custom(""));
            }
            let key = wanted.filter(|(token, _)| **token == name).map(|(_, rest)| rest);
            // Beyond the linear part only the newest name stands on the stack, for the path of a fault.
            let own = self.pass.names.len();
            self.pass.names.push(name);
            if let Err(error) = map.next_value_seed(Value { pass: self.pass, key, depth: self.depth + 1 }) {
                // The names of the objects inside still stand above this member's.
                self.pass.names.truncate(own + 1);
                let name = self.pass.names.pop();
                self.pass.step(|| name.unwrap_or_default().into_owned());
                return Err(error);
            }
            if many.is_some() {
                self.pass.names.truncate(first);
            } else if self.pass.names.len() - first == LINEAR_MEMBERS_MAX {
                many = Some(self.pass.names.drain(first..).collect());
            }
        }
        self.pass.names.truncate(first);
        Ok(())
    }
}

/// A member's name: borrowed unless it has escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
