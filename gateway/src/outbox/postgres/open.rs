//! Connects to PostgreSQL and says clearly why that does not work.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tracing::warn;

use super::failure::code;
use super::session::Sessions;
use super::{partitions, restored, schema};
use crate::config::DatabaseConfig;

/// PostgreSQL below this has not all that is used here, and gets no more fixes.
const VERSION_MIN: i32 = 150_000;
/// How long leases are until the first tending says.
const LEASE_DEFAULT: Duration = Duration::from_secs(10);
/// A connection that nobody used for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Why PostgreSQL could not be used: what happened, whose fault it is, what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("database.url cannot be read ({0}): expected postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE")]
    Url(String),
    #[error(
        "no PostgreSQL answers at {address}: check host and port in database.url, and that the server runs and can be reached"
    )]
    Unreachable {
        address: String,
        #[source]
        source: Box<sqlx::Error>,
    },
    #[error(
        "no encrypted connection to {address}: check sslmode and sslrootcert in database.url, and that the server has TLS on"
    )]
    Tls {
        address: String,
        #[source]
        source: Box<sqlx::Error>,
    },
    #[error("{address} refuses the password of user `{user}`: correct the user or the password in database.url")]
    Password { user: String, address: String },
    #[error(
        "{address} does not let user `{user}` into database `{database}`: correct database.url, or allow it on the server \
         (the user's LOGIN right, pg_hba.conf)"
    )]
    Login {
        user: String,
        database: String,
        address: String,
        #[source]
        source: Box<sqlx::Error>,
    },
    #[error(
        "{address} has no database `{database}`: correct database.url, or create it: CREATE DATABASE {database} OWNER {user}"
    )]
    NoDatabase { database: String, address: String, user: String },
    #[error(
        "user `{user}` lacks rights in database `{database}`: make the user its owner, or GRANT CREATE, USAGE ON SCHEMA public TO \
         {user}, and let it own the tables that are there"
    )]
    Rights {
        user: String,
        database: String,
        #[source]
        source: Box<sqlx::Error>,
    },
    #[error("{server} is PostgreSQL {version}, 15 or newer is needed: upgrade the server")]
    TooOld { server: String, version: String },
    #[error("{0} is a standby, which takes no writes: name the primary in database.url")]
    Standby(String),
    #[error("{server} stores text as {encoding}, UTF8 is needed: create the database with ENCODING 'UTF8'")]
    Encoding { server: String, encoding: String },
    #[error("{server} has schema {found}, this program knows up to {known}: use the newer program")]
    Newer { server: String, found: i32, known: i32 },
    #[error("use {server}")]
    Other {
        server: String,
        #[source]
        source: Box<sqlx::Error>,
    },
}

/// Where a database is, for messages: nothing secret.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) address: String,
    pub(super) user: String,
    pub(super) database: String,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "database `{}` at {}", self.database, self.address)
    }
}

/// Connects, checks the server and brings schema and partitions up to date.
pub(super) async fn open(config: &DatabaseConfig, node: &str) -> Result<(Sessions, Server), ConnectError> {
    let (sessions, server) = connect(config, node).await?;
    schema::migrate(&sessions, &server).await?;
    let width = i64::try_from(config.partition_transactions).unwrap_or(i64::MAX);
    restored::take_over(&sessions, width).await.map_err(|error| refused(&server, error))?;
    partitions::make_ahead(&sessions, width).await.map_err(|error| refused(&server, error))?;
    Ok((sessions, server))
}

/// Connects and checks the server. The node's name stands in the name of its sessions.
pub(super) async fn connect(config: &DatabaseConfig, node: &str) -> Result<(Sessions, Server), ConnectError> {
    let (options, server) = options(config, node)?;
    let pool = PgPoolOptions::new()
        .max_connections(config.connections)
        .acquire_timeout(config.answer_timeout.0)
        .idle_timeout(IDLE_MAX)
        // A dead connection is noticed at its first use, at the price of nothing.
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(|error| refused(&server, error))?;
    let mut sessions = Sessions::new(pool, config.prepared_statements, config.answer_timeout.0, LEASE_DEFAULT);
    check(&mut sessions, &server).await?;
    Ok((sessions, server))
}

fn options(config: &DatabaseConfig, node: &str) -> Result<(PgConnectOptions, Server), ConnectError> {
    let options: PgConnectOptions = config.url.parse().map_err(|error: sqlx::Error| {
        // The source may show the URL, and with it a password.
        let reason = match error {
            sqlx::Error::Configuration(source) => without(&source.to_string(), &config.url),
            other => without(&other.to_string(), &config.url),
        };
        ConnectError::Url(reason)
    })?;
    check_files(&config.url)?;
    // What a pooler does not know it refuses; nothing here depends on it. The name tells whose a session is.
    let options = options
        .application_name(format!("sluice {node}").trim_end())
        .extra_float_digits(None)
        .statement_cache_capacity(if config.prepared_statements { 256 } else { 0 });
    let address = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let (user, database) = (options.get_username().to_owned(), options.get_database().map(str::to_owned));
    let database = database.unwrap_or_else(|| user.clone());
    Ok((options, Server { address, user, database }))
}

/// Whether the files that a URL names are there: connecting would say that of the server.
fn check_files(url: &str) -> Result<(), ConnectError> {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    for (name, file) in parameters.split('&').filter_map(|parameter| parameter.split_once('=')) {
        if matches!(name, "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key") {
            let file = percent_encoding::percent_decode_str(file).decode_utf8_lossy();
            if let Err(error) = std::fs::File::open(&*file) {
                return Err(ConnectError::Url(format!("{name} names {file}: {error}")));
            }
        }
    }
    Ok(())
}

/// A message without the URL in it.
fn without(message: &str, url: &str) -> String {
    message.replace(url, "database.url")
}

async fn check(sessions: &mut Sessions, server: &Server) -> Result<(), ConnectError> {
    let rows = sessions
        .rows(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
                    current_setting('synchronous_commit'), current_setting('fsync'), current_setting('server_encoding')",
            |statement| statement,
        )
        .await
        .map_err(|error| refused(server, error))?;
    let failed = |error| refused(server, error);
    let row = rows.first().ok_or_else(|| failed(sqlx::Error::RowNotFound))?;
    let version: i32 = row.try_get(0).map_err(failed)?;
    let version_text: String = row.try_get(1).map_err(failed)?;
    if version < VERSION_MIN {
        return Err(ConnectError::TooOld { server: server.to_string(), version: version_text });
    }
    if row.try_get(2).map_err(failed)? {
        return Err(ConnectError::Standby(server.to_string()));
    }
    let encoding: String = row.try_get(5).map_err(failed)?;
    if encoding != "UTF8" {
        return Err(ConnectError::Encoding { server: server.to_string(), encoding });
    }
    let (synchronous_commit, fsync): (String, String) =
        (row.try_get(3).map_err(failed)?, row.try_get(4).map_err(failed)?);
    if synchronous_commit == "off" {
        warn!("{server} answers commits before they are on disk (synchronous_commit = off): Sluice asks it not to");
        sessions.lazy_commits = true;
    }
    if fsync == "off" {
        warn!("{server} runs with fsync = off: a crash of its machine may lose accepted orders or the whole database");
    }
    Ok(())
}

/// Why the database could not be used, with what to do.
pub(super) fn refused(server: &Server, source: sqlx::Error) -> ConnectError {
    let (user, database, address) = (server.user.clone(), server.database.clone(), server.address.clone());
    match code(&source).as_deref() {
        Some("28P01") => ConnectError::Password { user, address },
        Some("28000") => ConnectError::Login { user, database, address, source: Box::new(source) },
        Some("3D000") => ConnectError::NoDatabase { database, address, user },
        Some("42501") => ConnectError::Rights { user, database, source: Box::new(source) },
        Some(_) => ConnectError::Other { server: server.to_string(), source: Box::new(source) },
        None => match source {
            // What rustls says of a certificate comes as the data of a connection.
            sqlx::Error::Io(ref error) if error.kind() == std::io::ErrorKind::InvalidData => {
                ConnectError::Tls { address, source: Box::new(source) }
            }
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => {
                ConnectError::Unreachable { address, source: Box::new(source) }
            }
            sqlx::Error::Tls(_) => ConnectError::Tls { address, source: Box::new(source) },
            other => ConnectError::Other { server: server.to_string(), source: Box::new(other) },
        },
    }
}
