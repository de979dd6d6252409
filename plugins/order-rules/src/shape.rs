//! The members of an order that the rules look at, read in one pass and without copies.
//!
//! Leaves stay raw JSON, so that `1.0`, `"6"` and numbers of any size can be told apart.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// An order. `null` counts as absent, but for `totals`.
#[derive(Deserialize)]
pub(crate) struct Body<'order> {
    #[serde(borrow, default, rename = "customerId")]
    pub(crate) customer_id: Option<&'order RawValue>,
    #[serde(borrow, default)]
    pub(crate) currency: Option<&'order RawValue>,
    #[serde(borrow, default)]
    pub(crate) lines: Lines<'order>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) totals: Option<&'order RawValue>,
}

/// What stands at `/lines`.
#[derive(Default)]
pub(crate) enum Lines<'order> {
    #[default]
    Absent,
    Array(Vec<Line<'order>>),
    Other,
}

/// What stands at `/lines/{index}`.
pub(crate) enum Line<'order> {
    Object { quantity: Option<&'order RawValue>, unit_price: Option<&'order RawValue> },
    Other,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Member {
    Quantity,
    UnitPrice,
    #[serde(other)]
    Other,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Answers `$other` for each JSON scalar.
macro_rules! scalars_are {
    ($other:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($other)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($other)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($other)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($other)
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($other)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($other)
        }
    };
}

struct LinesVisitor;

impl<'de> Visitor<'de> for LinesVisitor {
    type Value = Lines<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("order lines")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut lines = Vec::with_capacity(16);
        while let Some(line) = seq.next_element()? {
            lines.push(line);
        }
        Ok(Lines::Array(lines))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Lines::Other)
    }

    scalars_are!(Lines::Other);
}

impl<'de: 'order, 'order> Deserialize<'de> for Lines<'order> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LinesVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an order line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut quantity, mut unit_price) = (None, None);
        while let Some(member) = map.next_key()? {
            match member {
                Member::Quantity => quantity = map.next_value()?,
                Member::UnitPrice => unit_price = map.next_value()?,
                Member::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Line::Object { quantity, unit_price })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Line::Other)
    }

    scalars_are!(Line::Other);
}

impl<'de: 'order, 'order> Deserialize<'de> for Line<'order> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LineVisitor)
    }
}
