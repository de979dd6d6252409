//! Applies patches to the bytes of an order.
//!
//! # Guarantees
//!
//! - **Members that no operation names keep their exact bytes**, numbers and white space included: a patch is spliced
//!   in, nothing is parsed and printed again.
//! - An order stays one JSON object: the whole of it cannot be set or removed, and values are checked to be JSON.
//!
//! # Not here
//!
//! How many operations and bytes a plugin may give (`plugin`).

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::scan::{Child, children, depth, skip_space};

/// Most levels that an operation may reach: those of its pointer and of its value together.
pub const DEPTH_MAX: usize = 64;

/// One change of an order. Its JSON is `{"op":"set","path":"/a","value":1}` or `{"op":"remove","path":"/a"}`.
#[derive(Debug, Clone)]
pub enum PatchOp {
    /// Replaces a member or an element. Creates the member as the last of its object, with the objects above it that
    /// are missing. `-`, or the index behind the last, appends to an array.
    Set { pointer: String, value: Box<RawValue> },
    /// Removes a member or an element, which must exist.
    Remove { pointer: String },
}

/// A change that is none, or that does not fit the order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("patch of `{pointer}`: {reason}")]
pub struct PatchError {
    pub pointer: String,
    pub reason: PatchErrorReason,
}

/// What is wrong with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatchErrorReason {
    #[error("not a JSON Pointer to a member: expected / and a name")]
    InvalidPointer,
    #[error("the value is not JSON")]
    InvalidValue,
    #[error("the value lies more than {DEPTH_MAX} levels deep")]
    TooDeep,
    #[error("there is nothing to remove")]
    Missing,
    #[error("not an element of the array: expected an index up to its length, or -")]
    InvalidIndex,
    #[error("a value on the way is neither an object nor an array")]
    NotAContainer,
}

use PatchErrorReason::{InvalidIndex, InvalidPointer, InvalidValue, Missing, NotAContainer, TooDeep};

impl PatchOp {
    /// A `Set`, checked.
    ///
    /// # Errors
    ///
    /// The pointer is none, or the value is not JSON, or both together reach too deep.
    pub fn set(pointer: String, value: &[u8]) -> Result<Self, PatchError> {
        let checked = || {
            let levels = tokens(&pointer)?.len();
            let value: &RawValue = serde_json::from_slice(value).map_err(|_| InvalidValue)?;
            if levels + depth(value.get().as_bytes()) > DEPTH_MAX {
                return Err(TooDeep);
            }
            Ok(value.to_owned())
        };
        match checked() {
            Ok(value) => Ok(Self::Set { pointer, value }),
            Err(reason) => Err(PatchError { pointer, reason }),
        }
    }

    /// A `Remove`, checked.
    ///
    /// # Errors
    ///
    /// The pointer is none.
    pub fn remove(pointer: String) -> Result<Self, PatchError> {
        match tokens(&pointer) {
            Ok(_) => Ok(Self::Remove { pointer }),
            Err(reason) => Err(PatchError { pointer, reason }),
        }
    }

    fn pointer(&self) -> &str {
        match self {
            Self::Set { pointer, .. } | Self::Remove { pointer } => pointer,
        }
    }

    fn value(&self) -> Option<&RawValue> {
        match self {
            Self::Set { value, .. } => Some(value),
            Self::Remove { .. } => None,
        }
    }

    /// The bytes to put in place of which.
    fn splice(&self, body: &[u8]) -> Result<(Range<usize>, Vec<u8>), PatchErrorReason> {
        let tokens = tokens(self.pointer())?;
        match self.value() {
            Some(value) => set(body, &tokens, value.get()),
            None => Ok((remove(body, &tokens)?, Vec::new())),
        }
    }
}

impl PartialEq for PatchOp {
    /// Compares values by their text.
    fn eq(&self, other: &Self) -> bool {
        self.pointer() == other.pointer() && self.value().map(RawValue::get) == other.value().map(RawValue::get)
    }
}

impl Eq for PatchOp {}

/// Applies operations in sequence to an order: valid JSON, an object.
///
/// # Errors
///
/// The first operation that does not fit. Nothing is changed then.
pub fn apply(body: &[u8], ops: &[PatchOp]) -> Result<Bytes, PatchError> {
    let mut bytes = Cow::Borrowed(body);
    for op in ops {
        let (place, text) =
            op.splice(&bytes).map_err(|reason| PatchError { pointer: op.pointer().to_owned(), reason })?;
        let mut patched = Vec::with_capacity(bytes.len() + text.len());
        patched.extend_from_slice(&bytes[..place.start]);
        patched.extend_from_slice(&text);
        patched.extend_from_slice(&bytes[place.end..]);
        bytes = Cow::Owned(patched);
    }
    Ok(bytes.into_owned().into())
}

/// The names of a JSON Pointer (RFC 6901), at least one.
fn tokens(pointer: &str) -> Result<Vec<Cow<'_, str>>, PatchErrorReason> {
    let unescape = |token: &'_ str| -> Result<Option<String>, PatchErrorReason> {
        if !token.contains('~') {
            return Ok(None);
        }
        let is_valid = token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if is_valid { Ok(Some(token.replace("~1", "/").replace("~0", "~"))) } else { Err(InvalidPointer) }
    };
    let names = pointer.strip_prefix('/').ok_or(InvalidPointer)?;
    names.split('/').map(|token| Ok(unescape(token)?.map_or(Cow::Borrowed(token), Cow::Owned))).collect()
}

fn set(body: &[u8], tokens: &[Cow<'_, str>], value: &str) -> Result<(Range<usize>, Vec<u8>), PatchErrorReason> {
    let mut start = skip_space(body, 0);
    for (level, token) in tokens.iter().enumerate() {
        let rest = &tokens[level + 1..];
        let mut last = None;
        let mut found = None;
        let mut count = 0;
        let is_object = match body.get(start) {
            Some(b'{') => true,
            Some(b'[') => false,
            _ => return Err(NotAContainer),
        };
        let index = if is_object { None } else { index(token) };
        for child in children(body, start) {
            let is_it = if is_object { child.is_named(body, token) } else { index == Some(Index::At(count)) };
            count += 1;
            last = Some(child.value.end);
            if is_it {
                found = Some(child.value);
                break;
            }
        }
        if let Some(value_place) = found {
            if rest.is_empty() {
                return Ok((value_place, value.as_bytes().to_vec()));
            }
            start = value_place.start;
            continue;
        }
        if !is_object && index != Some(Index::Append) && index != Some(Index::At(count)) {
            return Err(InvalidIndex);
        }
        let mut text = Vec::with_capacity(value.len() + 32);
        if last.is_some() {
            text.push(b',');
        }
        if is_object {
            push_name(&mut text, token);
        }
        for token in rest {
            text.push(b'{');
            push_name(&mut text, token);
        }
        text.extend_from_slice(value.as_bytes());
        text.extend(rest.iter().map(|_| b'}'));
        let place = last.unwrap_or(start + 1);
        return Ok((place..place, text));
    }
    Err(InvalidPointer)
}

fn remove(body: &[u8], tokens: &[Cow<'_, str>]) -> Result<Range<usize>, PatchErrorReason> {
    let mut start = skip_space(body, 0);
    for (level, token) in tokens.iter().enumerate() {
        let is_object = match body.get(start) {
            Some(b'{') => true,
            Some(b'[') => false,
            _ => return Err(NotAContainer),
        };
        let index = if is_object { None } else { Some(index(token).ok_or(InvalidIndex)?) };
        let mut before: Option<Child> = None;
        let mut all = children(body, start).enumerate();
        let child = loop {
            let (position, child) = all.next().ok_or(Missing)?;
            let is_it = if is_object { child.is_named(body, token) } else { index == Some(Index::At(position)) };
            if is_it {
                break child;
            }
            before = Some(child);
        };
        if level + 1 < tokens.len() {
            start = child.value.start;
            continue;
        }
        // One comma goes with it: the one before, or for the first the one behind.
        return Ok(match (before, all.next()) {
            (Some(before), _) => before.value.end..child.value.end,
            (None, Some((_, next))) => child.start..next.start,
            (None, None) => child.start..child.value.end,
        });
    }
    Err(InvalidPointer)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    At(usize),
    Append,
}

/// RFC 6901: no sign, no leading zero.
fn index(token: &str) -> Option<Index> {
    if token == "-" {
        return Some(Index::Append);
    }
    let is_plain = token.bytes().all(|byte| byte.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    if is_plain { token.parse().ok().map(Index::At) } else { None }
}

pub(super) fn push_name(text: &mut Vec<u8>, name: &str) {
    text.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
    text.push(b':');
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<Text, Value> {
    op: OpName,
    path: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OpName {
    Set,
    Remove,
}

impl Serialize for PatchOp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.value();
        let op = if value.is_some() { OpName::Set } else { OpName::Remove };
        Written { op, path: self.pointer(), value }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PatchOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written::<String, Box<RawValue>> { op, path: pointer, value } = Written::deserialize(deserializer)?;
        match (op, value) {
            (OpName::Set, Some(value)) => Ok(Self::Set { pointer, value }),
            // `null` reads as an absent value.
            (OpName::Set, None) => Ok(Self::Set { pointer, value: RawValue::NULL.to_owned() }),
            (OpName::Remove, None) => Ok(Self::Remove { pointer }),
            (OpName::Remove, Some(_)) => Err(serde::de::Error::custom("`remove` takes no value")),
        }
    }
}

#[cfg(test)]
mod tests;
