//! How our types stand in columns. The only place that trusts stored words.

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::dead::DeadKind;
use crate::entry::{EntryKind, EntryPlace};
use crate::order::{OrderId, OrderStatus, Slot};
use crate::outbox::work::ReplyFate;

/// A stored word that names nothing we know.
#[derive(Debug, thiserror::Error)]
#[error("the database holds `{0}`, which is no {1}")]
struct UnknownWord(String, &'static str);

fn unknown(word: &str, what: &'static str) -> FromSqlError {
    FromSqlError::Other(Box::new(UnknownWord(word.to_owned(), what)))
}

impl ToSql for OrderId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
    }
}

impl FromSql for OrderId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes: [u8; 16] = FromSql::column_result(value)?;
        Ok(Self(Uuid::from_bytes(bytes)))
    }
}

impl ToSql for Slot {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::from(self.0).into())
    }
}

impl FromSql for Slot {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        u8::column_result(value).map(Self)
    }
}

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self)
    }
}

impl ToSql for OrderStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for OrderStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        word.parse().map_err(|_| unknown(word, "order status"))
    }
}

impl FromSql for EntryKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        Self::parse(word).ok_or_else(|| unknown(word, "kind of entry"))
    }
}

/// One writer: the number is the place.
impl ToSql for EntryPlace {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.number.into())
    }
}

impl FromSql for EntryPlace {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self::of)
    }
}

impl FromSql for ReplyFate {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        Self::parse(word).ok_or_else(|| unknown(word, "fate of a reply"))
    }
}

impl FromSql for DeadKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        Self::parse(word).ok_or_else(|| unknown(word, "kind of dead letter"))
    }
}

/// Reads a JSON column; NULL is the default.
pub(super) fn json_or_default<T: DeserializeOwned + Default>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(T::default()),
        value => serde_json::from_slice(value.as_bytes()?)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, value.data_type(), Box::new(error))),
    }
}
