//! The vocabulary of the outbox: what happened to an order, and the relay's place in the log.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::order::{OrderId, Slot};

/// What happened to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Accepted: the order itself.
    Order,
    /// The client takes it back.
    Cancel,
    /// The client hands in another body for it.
    Revise,
    /// The operator puts a dead order back, at the end of its key.
    Redrive,
    /// The operator gives a dead order up.
    Discard,
    /// A final state that services downstream must hear of.
    Outcome,
}

impl EntryKind {
    const ALL: [Self; 6] = [Self::Order, Self::Cancel, Self::Revise, Self::Redrive, Self::Discard, Self::Outcome];

    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Cancel => "cancel",
            Self::Revise => "revise",
            Self::Redrive => "redrive",
            Self::Discard => "discard",
            Self::Outcome => "outcome",
        }
    }

    /// The kind of a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A place in the outbox: entries are carried in the order of their places (PROTOCOL D1).
///
/// Where many nodes write, the number alone does not rise with the commits: the transaction that wrote the entry goes
/// before it. Where one writes, the number is enough and the transaction is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryPlace {
    pub xid: u64,
    pub number: i64,
}

impl EntryPlace {
    /// Before every entry.
    pub const START: Self = Self { xid: 0, number: 0 };

    /// The place of an entry of the one writer.
    #[must_use]
    pub const fn of(number: i64) -> Self {
        Self { xid: 0, number }
    }
}

impl fmt::Display for EntryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.xid {
            0 => write!(f, "{}", self.number),
            xid => write!(f, "{xid}/{}", self.number),
        }
    }
}

impl FromStr for EntryPlace {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((xid, number)) => Ok(Self { xid: xid.parse()?, number: number.parse()? }),
            None => text.parse().map(Self::of),
        }
    }
}

/// A row of the outbox with what the relay needs of its order.
#[derive(Debug, Clone)]
pub struct Entry {
    pub place: EntryPlace,
    pub slot: Slot,
    pub kind: EntryKind,
    pub order_id: OrderId,
    pub route: Arc<str>,
    pub order_key: Arc<str>,
    pub accepted_at: Timestamp,
    /// W3C trace context of the request that accepted the order.
    pub traceparent: Arc<str>,
    /// The order as it was handed in.
    pub body: Bytes,
    /// What the kind carries: for an outcome the final status, for a revision the new body.
    pub payload: Option<Bytes>,
    /// How often the operator put the order back: each makes a record with an id of its own.
    pub redrives: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_from_its_text() {
        for place in [EntryPlace::START, EntryPlace::of(7), EntryPlace { xid: 3, number: 1 << 40 }] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        assert!("3/".parse::<EntryPlace>().is_err());
    }

    #[test]
    fn the_transaction_goes_before_the_number() {
        assert!(EntryPlace { xid: 1, number: 9 } < EntryPlace { xid: 2, number: 1 });
    }
}
