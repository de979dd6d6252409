//! Plain work on TOML: reading a variable, merging tables, finding lines.

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// A variable's value: TOML if it reads as such, else text.
pub(super) fn value_of(text: &str) -> Value {
    let read = toml::from_str::<Table>(&format!("value = {text}")).ok().filter(|table| table.len() == 1);
    read.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

pub(super) fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// One level of dotted names; numbers and booleans as text.
pub(super) fn flat(table: Table) -> Table {
    let mut flattened = Table::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                flattened.extend(flat(inner).into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                flattened.insert(key, Value::String(value.to_string()));
            }
            other => {
                flattened.insert(key, other);
            }
        }
    }
    flattened
}

/// Whether `key` is `above` or lies in it.
pub(super) fn is_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Tells where each key of the text stands, with tables and lists on the way.
pub(super) fn locate(prefix: &str, table: &DeTable<'_>, place: &mut dyn FnMut(String, usize)) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        place(path.clone(), key.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => locate(&path, inner, place),
            DeValue::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    let path = format!("{path}[{at}]");
                    place(path.clone(), item.span().start);
                    if let DeValue::Table(inner) = item.get_ref() {
                        locate(&path, inner, place);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Both counted from 1; the column in characters.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
