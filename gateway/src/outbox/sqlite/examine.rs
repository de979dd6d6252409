//! Looks at the file without making, migrating or locking it; a node may run on it meanwhile.

use std::fs::{File, TryLockError};

use rusqlite::{Connection, OpenFlags};

use super::open::{MIGRATIONS, OpenError, path_of};
use crate::outbox::DatabaseFacts;

/// A larger file is not read through for damage: that would take minutes.
const READ_THROUGH_BYTES: u64 = 512 << 20;

pub(in crate::outbox) fn examine(url: &str) -> Result<DatabaseFacts, OpenError> {
    let path = path_of(url)?;
    let product = format!("SQLite {}", rusqlite::version());
    let mut facts =
        DatabaseFacts { product, schema: None, known: MIGRATIONS.len(), is_in_use: false, damage: None, time: None };
    let size = match std::fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            return match folder {
                Some(folder) if !folder.is_dir() => Err(OpenError::Lock { path, source: error }),
                _ => Ok(facts),
            };
        }
        Err(source) => return Err(OpenError::Lock { path, source }),
    };
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    facts.is_in_use = File::open(lock).is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));

    let failed = |source| OpenError::Sqlite { path: path.clone(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(failed)?;
    conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let schema = usize::try_from(version).unwrap_or(usize::MAX);
    if schema > MIGRATIONS.len() {
        return Err(OpenError::Newer { path, found: version, known: MIGRATIONS.len() });
    }
    facts.schema = Some(schema);
    if size <= READ_THROUGH_BYTES {
        let told: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
        facts.damage = (told != "ok").then_some(told);
    }
    Ok(facts)
}
