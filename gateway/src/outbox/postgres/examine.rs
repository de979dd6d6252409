//! Looks at a server without making or migrating anything.

use std::time::Duration;

use sqlx::Row;

use super::open::{ConnectError, connect, refused};
use super::schema;
use crate::clock::{Clock, Timestamp};
use crate::config::{DatabaseConfig, Span};
use crate::outbox::DatabaseFacts;

/// What the server of a configuration is, and which schema it has.
pub(in crate::outbox) async fn examine(
    config: &DatabaseConfig,
    clock: &Clock,
    limit: Duration,
) -> Result<DatabaseFacts, ConnectError> {
    let config = DatabaseConfig { connections: 1, answer_timeout: Span(limit), ..config.clone() };
    let (sessions, server) = connect(&config, "doctor").await?;
    let failed = |error| refused(&server, error);
    let asked_at = clock.now();
    let rows = sessions
        .rows(
            "SELECT current_setting('server_version'), (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
            |statement| statement,
        )
        .await
        .map_err(failed)?;
    let answered_at = clock.now();
    let row = rows.first().ok_or_else(|| failed(sqlx::Error::RowNotFound))?;
    let version: String = row.try_get(0).map_err(failed)?;
    let theirs = Timestamp(row.try_get(1).map_err(failed)?);
    let schema = schema::stored(&sessions).await.map_err(failed)?;
    if schema.is_some_and(|schema| schema > schema::known()) {
        return Err(ConnectError::Newer {
            server: server.to_string(),
            found: schema.unwrap_or(0),
            known: schema::known(),
        });
    }
    let is_in_use = match schema {
        None => false,
        Some(_) => {
            let living = "SELECT EXISTS (SELECT FROM slots WHERE owner <> '' AND lease_until > clock_timestamp())";
            let rows = sessions.rows(living, |statement| statement).await.map_err(failed)?;
            rows.first().map_or(Ok(false), |row| row.try_get(0)).map_err(failed)?
        }
    };
    let took = Duration::from_millis(u64::try_from(answered_at.0 - asked_at.0).unwrap_or(0));
    Ok(DatabaseFacts {
        product: format!("PostgreSQL {version}"),
        schema: schema.map(|schema| usize::try_from(schema).unwrap_or(0)),
        known: usize::try_from(schema::known()).unwrap_or(0),
        is_in_use,
        damage: None,
        time: Some((theirs, asked_at, took)),
    })
}
