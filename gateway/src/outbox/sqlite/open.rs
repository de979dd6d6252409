//! Opens the database: the lock on the file, the connections, the migrations.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rusqlite::{Connection, OpenFlags, ffi};

use crate::crash::{self, Point};

/// Numbered from 1, forward only; each raises `user_version` by one.
pub(super) const MIGRATIONS: [&str; 5] = [
    include_str!("../../../migrations/sqlite/0001_orders.sql"),
    include_str!("../../../migrations/sqlite/0002_held_by_route.sql"),
    include_str!("../../../migrations/sqlite/0003_faults.sql"),
    include_str!("../../../migrations/sqlite/0004_held_places.sql"),
    include_str!("../../../migrations/sqlite/0005_several_records.sql"),
];

/// Statements kept prepared per connection; more than there are.
const STATEMENTS_MAX: usize = 128;

/// Pages of the log that are carried over into the database at once: 16 MiB. Pages that many commits change are then
/// written once for many of them.
const CHECKPOINT_PAGES: i64 = 4096;

/// SQLite below this may corrupt a WAL that two connections write to and checkpoint at the same time.
const SQLITE_MIN: i32 = 3_051_003;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database.url `{0}` is not served: expected sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    UnknownScheme(String),
    #[error(transparent)]
    Postgres(#[from] crate::outbox::ConnectError),
    #[error("open {path}: check that its folder exists and can be written")]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} is in use by another node: stop that one, or give this one another database.url")]
    InUse(PathBuf),
    #[error("{path} has schema {found}, this program knows up to {known}: use the newer program")]
    Newer { path: PathBuf, found: i64, known: usize },
    #[error("SQLite {0} is linked, 3.51.3 or newer is needed")]
    TooOld(&'static str),
    #[error("open the database {path}")]
    Sqlite {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
}

/// A database that is ours alone.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) path: PathBuf,
    /// Held for as long as the process lives; the system releases it, however the process ends.
    pub(super) lock: File,
}

/// The file behind a URL.
pub(in crate::outbox) fn path_of(url: &str) -> Result<PathBuf, OpenError> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
    path.filter(|path| !path.is_empty()).map(PathBuf::from).ok_or_else(|| OpenError::UnknownScheme(url.to_owned()))
}

/// Opens, or makes, the database and brings its schema up to date.
pub(super) fn open(url: &str, readers: usize, cache_bytes: usize) -> Result<Opened, OpenError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(OpenError::TooOld(rusqlite::version()));
    }
    let path = path_of(url)?;
    count_no_memory();
    let lock = lock(&path)?;
    let connect = || -> rusqlite::Result<(Connection, Vec<Connection>)> {
        let writer = connection(&path, cache_bytes, false)?;
        Ok((writer, Vec::new()))
    };
    let (mut writer, mut pool) = connect().map_err(|source| OpenError::Sqlite { path: path.clone(), source })?;
    migrate(&mut writer, &path)?;
    for _ in 0..readers {
        let reader = connection(&path, cache_bytes, true);
        pool.push(reader.map_err(|source| OpenError::Sqlite { path: path.clone(), source })?);
    }
    Ok(Opened { writer, readers: pool, path, lock })
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
    let file = open.map_err(|source| OpenError::Lock { path: lock_path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Lock { path: lock_path, source }),
    }
}

/// Spares SQLite's own count of its memory, which takes a lock at every allocation and is read by nobody.
#[expect(unsafe_code, reason = "rusqlite has no safe call for settings of the whole library")]
fn count_no_memory() {
    static ONCE: Once = Once::new();
    // SAFETY: the setting takes one int. It is for a library that is not in use yet; SQLite itself refuses it in one that
    // is, and then only counts on. Threads that open databases wait here for each other.
    ONCE.call_once(|| unsafe {
        ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, std::ffi::c_int::from(false));
    });
}

fn connection(path: &Path, cache_bytes: usize, reads_only: bool) -> rusqlite::Result<Connection> {
    let base = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let flags = if reads_only {
        base | OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        base | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    if !reads_only {
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    }
    let kibibytes = i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX);
    conn.pragma_update(None, "cache_size", -kibibytes)?;
    conn.execute_batch("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY")?;
    Ok(conn)
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known: MIGRATIONS.len() });
    }
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let step = conn.transaction().and_then(|tx| {
            tx.execute_batch(migration)?;
            tx.pragma_update(None, "user_version", i64::try_from(number + 1).unwrap_or(i64::MAX))?;
            crash::at(Point::MigrationWritten);
            tx.commit()
        });
        step.map_err(failed)?;
        crash::at(Point::Migrated);
    }
    Ok(())
}
