//! The pool of connections that only read.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tracing::error;

use crate::outbox::OutboxError;
use crate::telemetry::chain;

/// Read-only connections; a read waits for one.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let permits = Arc::new(Semaphore::new(connections.len()));
        Self { idle: Arc::new(Mutex::new(connections)), permits }
    }

    /// Runs a read on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, OutboxError> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| OutboxError::Unavailable)?;
        let idle = Arc::clone(&self.idle);
        let result = tokio::task::spawn_blocking(move || {
            let conn = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let result = conn.as_ref().map_or(Err(OutboxError::Unavailable), |conn| in_one_snapshot(conn, read));
            idle.lock().unwrap_or_else(PoisonError::into_inner).extend(conn);
            drop(permit);
            result
        })
        .await
        .unwrap_or(Err(OutboxError::Unavailable));
        if let Err(OutboxError::Sqlite(failure)) = &result {
            error!(error = %chain(failure), "failed to read the database");
        }
        result
    }
}

/// All statements of a read see the same commits; else a version that comes in between would look like a gap
/// (PROTOCOL S1).
fn in_one_snapshot<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, OutboxError>,
) -> Result<T, OutboxError> {
    // Ends with the value: nothing was written.
    let _snapshot = conn.unchecked_transaction()?;
    read(conn)
}
