//! An order as a plugin sees it.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// An order and what is known about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// Id of the order.
    pub id: String,
    /// Path of the order's route, such as `/orders`.
    pub route: String,
    /// Type of the event, such as `OrderCreated`.
    pub kind: String,
    /// When the order was accepted, RFC 3339 UTC with milliseconds: the only clock a plugin sees.
    pub received: String,
    /// Counts the judgements of this order, from 1.
    pub attempt: u32,
    /// More names and values, such as `traceparent`.
    pub attrs: Vec<(String, String)>,
    /// The order: one JSON object in UTF-8, as patched by the plugins before this one.
    pub body: Vec<u8>,
}

/// An order does not have the form that was asked for.
#[derive(Debug)]
pub struct NotReadable(serde_json::Error);

impl fmt::Display for NotReadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotReadable {}

impl Order {
    /// Reads the whole order as a type of the plugin's own, which may borrow from it.
    ///
    /// # Errors
    ///
    /// The order does not have that form.
    pub fn read<'order, T: Deserialize<'order>>(&'order self) -> Result<T, NotReadable> {
        // One check of the whole is cheaper than one for each string.
        match std::str::from_utf8(&self.body) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(&self.body),
        }
        .map_err(NotReadable)
    }

    /// Reads one member by its JSON Pointer (RFC 6901); nothing if it is absent or of another form.
    ///
    /// Numbers keep their digits only as [`RawValue`]: see [`Order::raw`].
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, pointer: &str) -> Option<T> {
        serde_json::from_str(self.raw(pointer)?.get()).ok()
    }

    /// The exact text of one member by its JSON Pointer (RFC 6901); nothing if it is absent.
    #[must_use]
    pub fn raw(&self, pointer: &str) -> Option<&RawValue> {
        let mut raw: &RawValue = serde_json::from_slice(&self.body).ok()?;
        if pointer.is_empty() {
            return Some(raw);
        }
        for token in pointer.strip_prefix('/')?.split('/') {
            let token = token.replace("~1", "/").replace("~0", "~");
            raw = Child(&token).deserialize(&mut serde_json::Deserializer::from_str(raw.get())).ok()??;
        }
        Some(raw)
    }

    /// The value of one of the [`attrs`](Order::attrs).
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Finds one member of an object or element of an array.
struct Child<'token>(&'token str);

impl<'de> DeserializeSeed<'de> for Child<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Child<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let index = self.0.parse::<usize>().ok().filter(|index| index.to_string() == self.0);
        let mut found = None;
        let mut position = 0;
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if Some(position) == index {
                found = Some(element);
            }
            position += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_pointer_with_their_bytes() {
        let body = br#"{"a":{"b/c":[10, 1.50 ,{"~":null}]},"n":123456789012345678901234567890}"#;
        let order = Order { body: body.to_vec(), ..Order::default() };
        let raw = |pointer| order.raw(pointer).map(RawValue::get);
        assert_eq!(raw("/a/b~1c/1"), Some("1.50"));
        assert_eq!(raw("/a/b~1c/2/~0"), Some("null"));
        assert_eq!(raw("/n"), Some("123456789012345678901234567890"));
        assert_eq!(order.get::<u8>("/a/b~1c/0"), Some(10));
        for absent in ["/x", "/a/b", "/a/b~1c/3", "/a/b~1c/01", "/a/b~1c/-", "/n/0", "a"] {
            assert_eq!(raw(absent), None, "{absent}");
        }
    }
}
