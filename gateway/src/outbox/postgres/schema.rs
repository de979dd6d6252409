//! Brings the schema up to date: each migration is one transaction with the note that it is done.
//!
//! Nodes that start together queue for an advisory lock that ends with the transaction. A crash in the middle leaves
//! nothing of a migration, and the next start does it again. How to write one: `migrations/postgres/README.md`.

use sqlx::Row;
use tracing::info;

use super::open::{ConnectError, Server, refused};
use super::session::{ADVISORY_LOCK, Kind, Sessions};
use crate::crash::{self, Point};

/// Numbered from 1, forward only.
const MIGRATIONS: [(&str, &str); 2] = [
    ("0001_orders", include_str!("../../../migrations/postgres/0001_orders.sql")),
    ("0002_several_records", include_str!("../../../migrations/postgres/0002_several_records.sql")),
];

/// Applies what is missing; refuses a schema that is newer than this program.
pub(super) async fn migrate(sessions: &Sessions, server: &Server) -> Result<(), ConnectError> {
    let failed = |error| refused(server, error);
    // Asked without a lock first: most starts find nothing to do.
    while stored(sessions).await.map_err(failed)? != Some(known()) {
        let applied = step(sessions, server).await?;
        match applied {
            Some(name) => info!("the schema of {server} has now migration {name}"),
            None => return Ok(()),
        }
    }
    Ok(())
}

/// The version that this program makes.
pub(super) fn known() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// The version that is stored, if there is a table to store it.
pub(super) async fn stored(sessions: &Sessions) -> Result<Option<i32>, sqlx::Error> {
    let there = sessions.rows("SELECT to_regclass('sluice_schema') IS NOT NULL", |statement| statement).await?;
    if !there.first().map_or(Ok(false), |row| row.try_get(0))? {
        return Ok(None);
    }
    let rows = sessions.rows("SELECT coalesce(max(version), 0) FROM sluice_schema", |statement| statement).await?;
    rows.first().map(|row| row.try_get(0)).transpose()
}

/// Applies the next migration, if one is missing.
async fn step(sessions: &Sessions, server: &Server) -> Result<Option<&'static str>, ConnectError> {
    let failed = |error| refused(server, error);
    let mut tx = sessions.begin(Kind::Write).await.map_err(failed)?;
    let prepare = format!(
        // Whoever migrates may take its time, and whoever waits for it too.
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
         SELECT pg_advisory_xact_lock({ADVISORY_LOCK});
         CREATE TABLE IF NOT EXISTS sluice_schema (
             version    integer PRIMARY KEY,
             name       text NOT NULL,
             applied_at timestamptz NOT NULL DEFAULT now()
         )"
    );
    tx.run_patiently(prepare).await.map_err(failed)?;
    let row = tx.row(tx.statement("SELECT coalesce(max(version), 0) FROM sluice_schema")).await.map_err(failed)?;
    let done: i32 = row.map_or(Ok(0), |row| row.try_get(0)).map_err(failed)?;
    if done > known() {
        return Err(ConnectError::Newer { server: server.to_string(), found: done, known: known() });
    }
    let next = usize::try_from(done).ok().and_then(|done| MIGRATIONS.get(done));
    let Some((name, text)) = next else {
        tx.roll_back().await;
        return Ok(None);
    };
    tx.run_patiently((*text).to_owned()).await.map_err(failed)?;
    let note = tx.statement("INSERT INTO sluice_schema (version, name) VALUES ($1, $2)").bind(done + 1).bind(*name);
    tx.execute(note).await.map_err(failed)?;
    crash::at(Point::MigrationWritten);
    tx.commit("").await.map_err(failed)?;
    crash::at(Point::Migrated);
    Ok(Some(name))
}
