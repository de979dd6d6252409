//! Lookup tables: JSON objects that the operator keeps in files, held in memory for plugins to read.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::PluginsConfig;

/// Tells the tables of different times apart.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// The tables of one generation, by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    number: u64,
    stamps: TableStamps,
    by_name: Arc<HashMap<String, Table>>,
}

/// What tells whether the files of tables have changed: where they are, and what the system says of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableStamps(BTreeMap<String, Stamp>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    /// Inode, size, and time of the last change in seconds and nanoseconds; none where nothing can be said.
    file: Option<[i128; 4]>,
}

impl TableStamps {
    /// As it is now.
    #[must_use]
    pub fn of(config: &PluginsConfig) -> Self {
        let stamp = |(name, path): (&String, &PathBuf)| {
            let file = path
                .metadata()
                .ok()
                .map(|file| [file.ino().into(), file.size().into(), file.mtime().into(), file.mtime_nsec().into()]);
            (name.clone(), Stamp { path: path.clone(), file })
        };
        Self(config.tables.iter().map(stamp).collect())
    }
}

/// Values as they are written in the file, by key.
#[derive(Debug)]
struct Table(HashMap<String, Box<RawValue>>);

/// A table that cannot be used; none of the others is then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugins.tables.{name}: {path}: {reason}")]
pub struct TableError {
    pub name: String,
    pub path: PathBuf,
    pub reason: String,
}

impl Tables {
    /// Reads the tables that the configuration names. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// Every file that is not there, is too large, or is no JSON object with each key once.
    pub fn load(config: &PluginsConfig) -> Result<Self, Vec<TableError>> {
        let stamps = TableStamps::of(config);
        Self::read(&config.tables, config.tables_bytes_max.0).map(|tables| Self { stamps, ..tables })
    }

    /// These tables, if their files are as they were when they were read; else what is there now.
    ///
    /// # Errors
    ///
    /// As [`Tables::load`].
    pub fn refresh(&self, config: &PluginsConfig) -> Result<Self, Vec<TableError>> {
        if TableStamps::of(config) == self.stamps { Ok(self.clone()) } else { Self::load(config) }
    }

    /// Differs from that of all tables that were read before or are read later.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    fn read(files: &BTreeMap<String, PathBuf>, bytes_max: usize) -> Result<Self, Vec<TableError>> {
        let (mut tables, mut errors) = (HashMap::new(), Vec::new());
        let mut bytes_left = bytes_max;
        for (name, path) in files {
            let read = || {
                let mut text = Vec::new();
                // Asked before it is opened: to open a pipe waits for its other end.
                if !path.metadata().map_err(|error| error.to_string())?.is_file() {
                    return Err("it is no file".to_owned());
                }
                let file = File::open(path).map_err(|error| error.to_string())?;
                // One byte more tells a file that fits from one that does not.
                let most = u64::try_from(bytes_left).unwrap_or(u64::MAX).saturating_add(1);
                file.take(most).read_to_end(&mut text).map_err(|error| error.to_string())?;
                if text.len() > bytes_left {
                    return Err(format!("the tables have more than the {bytes_max} bytes of plugins.tables_bytes_max"));
                }
                let table = serde_json::from_slice(&text)
                    .map_err(|error| format!("expected a JSON object with each key once: {error}"))?;
                Ok((text.len(), table))
            };
            match read() {
                Ok((bytes, table)) => {
                    bytes_left -= bytes;
                    tables.insert(name.clone(), table);
                }
                Err(reason) => errors.push(TableError { name: name.clone(), path: path.clone(), reason }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { number, stamps: TableStamps::default(), by_name: Arc::new(tables) })
    }

    /// The value under a key of a table, as JSON; `None` if there is no such table.
    pub(super) fn get(&self, table: &str, key: &str) -> Option<Option<&[u8]>> {
        let table = self.by_name.get(table)?;
        Some(table.0.get(key).map(|value| value.get().as_bytes()))
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut entries = HashMap::new();
        while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format_args!("`{}` is there twice", key.escape_debug())));
            }
            entries.insert(key, value);
        }
        Ok(Table(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[(&str, &str)], bytes_max: usize) -> Result<Tables, Vec<TableError>> {
        let folder = tempfile::tempdir().unwrap();
        let file = |(name, text): &(&str, &str)| {
            let path = folder.path().join(format!("{name}.json"));
            std::fs::write(&path, text).unwrap();
            ((*name).to_owned(), path)
        };
        let mut files: BTreeMap<_, _> = texts.iter().map(file).collect();
        files.extend(texts.is_empty().then(|| ("gone".to_owned(), folder.path().join("gone.json"))));
        Tables::read(&files, bytes_max)
    }

    fn refusal(text: &str) -> String {
        let errors = read(&[("bad", text), ("good", "{}")], 100).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].name, "bad");
        errors[0].reason.clone()
    }

    #[test]
    fn values_are_found_as_they_are_written() {
        let tables = read(&[("a", r#"{"k": {"n": 1.50}, "é": null}"#), ("b", "{}")], 100).unwrap();
        assert_eq!(tables.get("a", "k"), Some(Some(&br#"{"n": 1.50}"#[..])));
        assert_eq!(tables.get("a", "é"), Some(Some(&b"null"[..])));
        assert_eq!(tables.get("b", "k"), Some(None));
        assert_eq!(tables.get("c", "k"), None);
    }

    #[test]
    fn a_file_that_is_no_table_is_refused() {
        assert!(refusal("[1]").contains("expected an object"));
        assert!(refusal(r#"{"a":1,"b":2,"a":3}"#).contains("`a` is there twice"));
        assert!(refusal(r#"{"a":1"#).contains("expected a JSON object with each key once: EOF"));
        assert_eq!(read(&[], 100).unwrap_err()[0].name, "gone");
    }

    #[test]
    fn the_tables_have_a_limit_together() {
        let (a, b) = (("a", r#"{"k":1}"#), ("b", r#"{"k":2}"#));
        assert!(read(&[a, b], 14).is_ok());
        let errors = read(&[a, b], 13).unwrap_err();
        assert_eq!(errors[0].name, "b");
        assert_eq!(errors[0].reason, "the tables have more than the 13 bytes of plugins.tables_bytes_max");
    }
}
