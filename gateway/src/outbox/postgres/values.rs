//! How our types stand in columns. The only place that trusts stored words.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::dead::DeadKind;
use crate::entry::{EntryKind, EntryPlace};
use crate::order::{OrderId, OrderStatus, Slot};

/// A stored value that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("the database holds `{0}`, which is no {1}")]
struct Unknown(String, &'static str);

pub(super) fn unknown(word: &str, what: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(Unknown(word.to_owned(), what)))
}

/// Columns as our types.
pub(super) trait Columns {
    fn id(&self, column: usize) -> Result<OrderId, sqlx::Error>;
    fn id_or_none(&self, column: usize) -> Result<Option<OrderId>, sqlx::Error>;
    fn slot(&self, column: usize) -> Result<Slot, sqlx::Error>;
    fn time(&self, column: usize) -> Result<Timestamp, sqlx::Error>;
    fn time_or_none(&self, column: usize) -> Result<Option<Timestamp>, sqlx::Error>;
    fn number(&self, column: usize) -> Result<i64, sqlx::Error>;
    fn number_or_none(&self, column: usize) -> Result<Option<i64>, sqlx::Error>;
    fn partition(&self, column: usize) -> Result<i32, sqlx::Error>;
    /// A place of an entry out of two columns.
    fn place(&self, xid: usize, number: usize) -> Result<EntryPlace, sqlx::Error>;
    fn hash(&self, column: usize) -> Result<[u8; 32], sqlx::Error>;
    fn count(&self, column: usize) -> Result<u32, sqlx::Error>;
    fn flag(&self, column: usize) -> Result<bool, sqlx::Error>;
    fn text(&self, column: usize) -> Result<String, sqlx::Error>;
    fn text_or_none(&self, column: usize) -> Result<Option<String>, sqlx::Error>;
    /// Text that is kept as bytes, since it may hold a NUL.
    fn key(&self, column: usize) -> Result<Arc<str>, sqlx::Error>;
    fn bytes(&self, column: usize) -> Result<Bytes, sqlx::Error>;
    fn bytes_or_none(&self, column: usize) -> Result<Option<Bytes>, sqlx::Error>;
    fn status(&self, column: usize) -> Result<OrderStatus, sqlx::Error>;
    fn entry_kind(&self, column: usize) -> Result<EntryKind, sqlx::Error>;
    fn dead_kind(&self, column: usize) -> Result<DeadKind, sqlx::Error>;
    /// A JSON column; NULL is the default.
    fn json<T: DeserializeOwned + Default>(&self, column: usize) -> Result<T, sqlx::Error>;
}

impl Columns for PgRow {
    fn id(&self, column: usize) -> Result<OrderId, sqlx::Error> {
        self.try_get::<Uuid, _>(column).map(OrderId)
    }

    fn id_or_none(&self, column: usize) -> Result<Option<OrderId>, sqlx::Error> {
        Ok(self.try_get::<Option<Uuid>, _>(column)?.map(OrderId))
    }

    fn slot(&self, column: usize) -> Result<Slot, sqlx::Error> {
        let number: i16 = self.try_get(column)?;
        u8::try_from(number).map(Slot).map_err(|_| unknown(&number.to_string(), "slot"))
    }

    fn time(&self, column: usize) -> Result<Timestamp, sqlx::Error> {
        self.try_get(column).map(Timestamp)
    }

    fn time_or_none(&self, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(self.try_get::<Option<i64>, _>(column)?.map(Timestamp))
    }

    fn number(&self, column: usize) -> Result<i64, sqlx::Error> {
        self.try_get(column)
    }

    fn number_or_none(&self, column: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn partition(&self, column: usize) -> Result<i32, sqlx::Error> {
        self.try_get(column)
    }

    fn place(&self, xid: usize, number: usize) -> Result<EntryPlace, sqlx::Error> {
        Ok(EntryPlace { xid: self.number(xid)?.unsigned_abs(), number: self.number(number)? })
    }

    fn hash(&self, column: usize) -> Result<[u8; 32], sqlx::Error> {
        let bytes: &[u8] = self.try_get(column)?;
        bytes.try_into().map_err(|_| unknown(&format!("{bytes:?}"), "hash"))
    }

    fn count(&self, column: usize) -> Result<u32, sqlx::Error> {
        self.try_get::<i32, _>(column).map(|count| u32::try_from(count).unwrap_or(0))
    }

    fn flag(&self, column: usize) -> Result<bool, sqlx::Error> {
        self.try_get(column)
    }

    fn text(&self, column: usize) -> Result<String, sqlx::Error> {
        self.try_get(column)
    }

    fn text_or_none(&self, column: usize) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn key(&self, column: usize) -> Result<Arc<str>, sqlx::Error> {
        let bytes: &[u8] = self.try_get(column)?;
        std::str::from_utf8(bytes).map(Arc::from).map_err(|_| unknown(&format!("{bytes:?}"), "text"))
    }

    fn bytes(&self, column: usize) -> Result<Bytes, sqlx::Error> {
        self.try_get::<Vec<u8>, _>(column).map(Bytes::from)
    }

    fn bytes_or_none(&self, column: usize) -> Result<Option<Bytes>, sqlx::Error> {
        Ok(self.try_get::<Option<Vec<u8>>, _>(column)?.map(Bytes::from))
    }

    fn status(&self, column: usize) -> Result<OrderStatus, sqlx::Error> {
        let word: &str = self.try_get(column)?;
        word.parse().map_err(|_| unknown(word, "order status"))
    }

    fn entry_kind(&self, column: usize) -> Result<EntryKind, sqlx::Error> {
        let word: &str = self.try_get(column)?;
        EntryKind::parse(word).ok_or_else(|| unknown(word, "kind of entry"))
    }

    fn dead_kind(&self, column: usize) -> Result<DeadKind, sqlx::Error> {
        let word: &str = self.try_get(column)?;
        DeadKind::parse(word).ok_or_else(|| unknown(word, "kind of dead letter"))
    }

    fn json<T: DeserializeOwned + Default>(&self, column: usize) -> Result<T, sqlx::Error> {
        match self.try_get::<Option<&str>, _>(column)? {
            None => Ok(T::default()),
            Some(text) => serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error))),
        }
    }
}

/// A slot as its column has it.
pub(super) fn slot_number(slot: Slot) -> i16 {
    i16::from(slot.0)
}

/// The transaction of a place as its column has it.
pub(super) fn xid_number(place: EntryPlace) -> i64 {
    i64::try_from(place.xid).unwrap_or(i64::MAX)
}

/// A count as its column has it.
pub(super) fn count_number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A limit as SQL takes it.
pub(super) fn limit_number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Text that a service wrote and that is only shown: a column of text holds no NUL.
pub(super) fn shown(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
