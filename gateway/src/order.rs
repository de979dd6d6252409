//! The vocabulary of orders: their identity, key, slot, status and what a client sees of them.
//!
//! Pure: nothing here does I/O or knows the time.

pub mod json;
pub mod patch;
pub mod projection;
mod scan;
pub mod status;
pub mod timeline;
pub mod view;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use status::OrderStatus;
pub use view::{Held, OrderView};

/// Number of hash classes of (route, order key); each is carried by one node at a time.
pub const SLOTS: u8 = 64;

/// The identity of an order: a UUID version 7 (RFC 9562), so ids rise with time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub Uuid);

impl OrderId {
    /// A new id of the present moment, above all that this process made before.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The sixteen bytes that databases keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A text that is no order id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an order id: expected a hyphenated UUID")]
pub struct InvalidOrderId;

impl FromStr for OrderId {
    type Err = InvalidOrderId;

    /// Takes the canonical lower-case form with hyphens and no other, so that an order has one URL.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidOrderId)?;
        let mut canonical = [0; uuid::fmt::Hyphenated::LENGTH];
        if id.hyphenated().encode_lower(&mut canonical) == text { Ok(Self(id)) } else { Err(InvalidOrderId) }
    }
}

/// One of [`SLOTS`] hash classes of (route, order key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

impl Slot {
    /// The slot of an order key on a route. Stored with orders, so it never changes.
    #[must_use]
    pub fn of(route: &str, order_key: &str) -> Self {
        let digest = Sha256::new().chain_update(route).chain_update([0]).chain_update(order_key).finalize();
        Self(digest[0] % SLOTS)
    }

    /// All slots, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }
}

/// Who is at fault, as clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Client,
    Gateway,
    Plugin,
    Downstream,
}

/// One finding about an order, as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable word for programs, such as `quantity-not-positive`.
    pub code: String,
    /// Short text for people.
    pub title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// JSON Pointer (RFC 6901) to the member at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    pub source: Source,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_an_id() {
        let id = OrderId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        for odd in ["", "x", &id.to_string().to_uppercase(), &id.0.simple().to_string(), &format!("{{{id}}}")] {
            assert_eq!(odd.parse::<OrderId>(), Err(InvalidOrderId), "{odd}");
        }
    }

    #[test]
    fn ids_rise() {
        let ids: Vec<_> = (0..1000).map(|_| OrderId::generate()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn the_slot_of_a_key_never_changes() {
        assert_eq!(Slot::of("/orders", "17850"), Slot::of("/orders", "17850"));
        assert_eq!((Slot::of("/orders", "17850"), Slot::of("/orders", "")), (Slot(51), Slot(41)));
    }
}
