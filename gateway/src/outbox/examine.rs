//! Looks at a database without opening it as a node does: nothing is made, migrated or locked.

use std::path::PathBuf;
use std::time::Duration;

use super::postgres::{self, ConnectError};
use super::sqlite::{self, OpenError};
use crate::clock::{Clock, Timestamp};
use crate::config::DatabaseConfig;

/// What a database is.
#[derive(Debug, Clone)]
pub struct DatabaseFacts {
    /// `SQLite 3.51.3`.
    pub product: String,
    /// Absent where there is no database yet.
    pub schema: Option<usize>,
    /// The schema that this program makes.
    pub known: usize,
    /// Whether a node runs on it.
    pub is_in_use: bool,
    /// What is broken in it.
    pub damage: Option<String>,
    /// Its time, ours, and how long the question took; absent where its clock is ours.
    pub time: Option<(Timestamp, Timestamp, Duration)>,
}

/// What the database of a configuration is. An answer takes `limit` at most, where it comes over a network.
///
/// # Errors
///
/// It cannot be had, or this program is too old for it.
pub fn examine(config: &DatabaseConfig, clock: &Clock, limit: Duration) -> Result<DatabaseFacts, OpenError> {
    if !super::database::is_postgres(&config.url) {
        return sqlite::examine(&config.url);
    }
    let examined = std::thread::scope(|scope| {
        // On a thread of its own: whoever asks may be on a runtime already.
        let asked = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|source| ConnectError::Unreachable {
                address: "this machine".to_owned(),
                source: Box::new(source.into()),
            })?;
            runtime.block_on(postgres::examine(config, clock, limit))
        });
        asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    Ok(examined?)
}

/// The file of a database that has one.
#[must_use]
pub fn file_of(url: &str) -> Option<PathBuf> {
    sqlite::path_of(url).ok()
}
