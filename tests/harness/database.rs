//! Looks into a gateway's database, read-only: for what no client can see. The only place here that knows the schema.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value};

use crate::postgres::Session;

/// A gateway's database.
#[derive(Debug)]
pub struct Database {
    source: Source,
    /// Where a copy lies; it goes with it.
    _folder: Option<tempfile::TempDir>,
}

#[derive(Debug)]
enum Source {
    File(Connection),
    Server(Session),
}

impl Database {
    /// Opens the file; a gateway may be running on it.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        // A reader of a database whose process was killed must be allowed to recover the log, so not `READ_ONLY`.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).expect("the database opens");
        connection.pragma_update(None, "query_only", true).expect("reading only");
        connection.busy_timeout(std::time::Duration::from_secs(10)).expect("a limit");
        Self { source: Source::File(connection), _folder: None }
    }

    /// Looks into a database on PostgreSQL.
    #[must_use]
    pub fn on(server: &crate::postgres::Database) -> Self {
        Self { source: Source::Server(server.session()), _folder: None }
    }

    fn file(&self) -> &Connection {
        match &self.source {
            Source::File(connection) => connection,
            Source::Server(_) => panic!("only a file can be asked this"),
        }
    }

    /// Copies the file and its log, which no process may be writing to, and opens the copy.
    #[must_use]
    pub fn copy_of(path: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("copy.db");
        std::fs::copy(path, &copy).expect("the database is there");
        let log = path.with_extension("db-wal");
        if log.exists() {
            std::fs::copy(log, folder.path().join("copy.db-wal")).expect("the log can be read");
        }
        Self { _folder: Some(folder), ..Self::open(&copy) }
    }

    /// Orders that were accepted but whose publishing is not noted.
    #[must_use]
    pub fn unpublished_orders(&self) -> u64 {
        self.count("SELECT count(*) FROM orders WHERE status IN ('PENDING', 'HELD')")
    }

    /// Records that are committed to be sent but not noted as acknowledged.
    #[must_use]
    pub fn unacknowledged_records(&self) -> u64 {
        self.count(
            "SELECT count(*) FROM records JOIN publish_cursors USING (slot) WHERE records.number > publish_cursors.number",
        )
    }

    /// Orders, whatever their status.
    #[must_use]
    pub fn orders(&self) -> u64 {
        self.count("SELECT count(*) FROM orders")
    }

    /// Rows of a table.
    #[must_use]
    pub fn rows(&self, table: &str) -> u64 {
        assert!(table.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{table} is no table");
        self.count(&format!("SELECT count(*) FROM {table}"))
    }

    /// All rows of a query, each an object of its columns. Bytes cannot be shown: ask for their `hex`.
    ///
    /// # Panics
    ///
    /// When the query does not fit the schema.
    #[must_use]
    pub fn read(&self, sql: &str) -> Vec<Value> {
        let mut statement = self.file().prepare(sql).expect("the query fits the schema");
        let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let rows = statement.query_map([], |row| {
            let members = names.iter().enumerate().map(|(place, name)| {
                let value = match row.get_ref(place)? {
                    ValueRef::Null | ValueRef::Blob(_) => Value::Null,
                    ValueRef::Integer(number) => number.into(),
                    ValueRef::Real(number) => number.into(),
                    ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
                };
                Ok((name.clone(), value))
            });
            members.collect::<Result<Map<_, _>, _>>().map(Value::Object)
        });
        rows.and_then(Iterator::collect).expect("the query runs")
    }

    /// Whether `SQLite` finds the file sound.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match &self.source {
            Source::File(connection) => {
                let word = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
                word.expect("the check runs") == "ok"
            }
            // A server that answers has recovered.
            Source::Server(session) => session.rows("SELECT 1").is_ok(),
        }
    }

    fn count(&self, sql: &str) -> u64 {
        match &self.source {
            Source::File(connection) => {
                let count =
                    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("the query fits the schema");
                u64::try_from(count).expect("counts are not negative")
            }
            Source::Server(session) => {
                let rows = session.rows(sql).expect("the query fits the schema");
                let count = rows.first().and_then(|row| row.first()).and_then(Option::as_deref);
                count.and_then(|count| count.parse().ok()).expect("a count")
            }
        }
    }
}
