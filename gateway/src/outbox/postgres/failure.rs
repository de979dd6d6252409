//! What an error of the database amounts to: try again, wait, or somebody's fault.

use tracing::{debug, error};

use crate::outbox::OutboxError;
use crate::telemetry::chain;

/// What follows from an error in the middle of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Two transactions met: the same again has every chance.
    Again,
    /// No partition takes the row: make one, then again.
    NoPartition,
    /// The database is away, or overloaded, or another node's.
    Away,
    DiskFull,
    /// It is the statement's, or an item's, own fault.
    Own,
}

/// SQLSTATE of an error, if the server said it.
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(std::borrow::Cow::into_owned)
}

/// Sorts an error. The codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn fate(error: &sqlx::Error) -> Fate {
    let Some(code) = code(error) else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Fate::Away,
            // A row that was there was removed between two statements.
            sqlx::Error::RowNotFound => Fate::Again,
            _ => Fate::Own,
        };
    };
    match code.as_str() {
        // Serialization failure, deadlock.
        "40001" | "40P01" => Fate::Again,
        // A row that fits no partition is reported as a violated check, which names the log.
        "23514" if no_partition(error) => Fate::NoPartition,
        "53100" => Fate::DiskFull,
        // Cancelled for its time or its lock; the session was ended for idling; read-only after a failover.
        "57014" | "55P03" | "25P03" | "25P04" | "25006" => Fate::Away,
        // Connection exceptions, too few resources, an operator at work, errors of the system below.
        _ if ["08", "53", "57", "58"].contains(&&code[..2]) => Fate::Away,
        _ => Fate::Own,
    }
}

fn no_partition(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.constraint().is_none() && matches!(error.table(), Some("outbox" | "records") | None))
}

/// Whether the log was told when it began: no connection comes.
pub(super) fn is_told(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::PoolTimedOut)
}

/// What a caller gets, with the reason in the log.
pub(super) fn answer(error: &sqlx::Error) -> OutboxError {
    if is_told(error) {
        debug!("no connection to the database came");
        return OutboxError::Away;
    }
    let answer = match fate(error) {
        Fate::Again | Fate::NoPartition | Fate::Away => OutboxError::Unavailable,
        Fate::DiskFull => OutboxError::DiskFull,
        Fate::Own => OutboxError::Refused(error.to_string()),
    };
    error!(error = %chain(error), "the database did not do what was asked");
    answer
}

/// The same answer for another caller.
pub(super) fn again(answer: &OutboxError) -> OutboxError {
    match answer {
        OutboxError::DiskFull => OutboxError::DiskFull,
        OutboxError::Away => OutboxError::Away,
        OutboxError::Refused(reason) => OutboxError::Refused(reason.clone()),
        _ => OutboxError::Unavailable,
    }
}
