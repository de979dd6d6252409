//! Looks into a gateway's database, read-only: for what no client can see. The only place here that knows the schema.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// A database file.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    /// Where a copy lies; it goes with it.
    _folder: Option<tempfile::TempDir>,
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
        Self { connection, _folder: None }
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

    /// Whether `SQLite` finds the file sound.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let word = self.connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        word.expect("the check runs") == "ok"
    }

    fn count(&self, sql: &str) -> u64 {
        let count = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("the query fits the schema");
        u64::try_from(count).expect("counts are not negative")
    }
}
