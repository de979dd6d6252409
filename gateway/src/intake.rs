//! Takes orders in: one durable commit, then the answer.
//!
//! Deliberately, what was handed to the writer is committed even if the client hangs up: its retry with the same
//! idempotency key then finds the order.
//!
//! # Not here
//!
//! What a body must look like (`order::json`), the transaction itself (`outbox`), HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::config::IntakeConfig;
use crate::crash::{self, Point};
use crate::entry::EntryKind;
use crate::order::{OrderId, Slot};
use crate::outbox::{Kept, KeyHash, NewCommand, NewOrder, Outbox, OutboxError};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

/// Whose idempotency keys share a name space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNamespace {
    /// `Idempotency-Key` of a single order.
    Request,
    /// (`Idempotency-Key`, line number) of a batch.
    BatchLine,
    /// (`ce-source`, `ce-id`) of a `CloudEvent`.
    Event,
    /// (order, `Idempotency-Key`) of a command, each kind for itself.
    Cancel,
    Revise,
}

/// What makes two requests the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub namespace: KeyNamespace,
    /// Who asks; empty as long as callers are anonymous.
    pub caller: String,
    pub key: String,
}

/// An order as it was handed in, checked to be one JSON object.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path of the route.
    pub route: Arc<str>,
    /// What the route's `key` pointer found; absent, null or empty: the order id stands for it.
    pub order_key: Option<String>,
    /// The order's bytes, kept as they are.
    pub body: Bytes,
    pub idempotency: Option<IdempotencyKey>,
    /// A valid W3C `traceparent` of the caller.
    pub traceparent: Option<String>,
}

/// An order that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub id: OrderId,
    /// Whether this request had been accepted before.
    pub is_replay: bool,
}

/// What a client can tell its order to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Take it back.
    Cancel,
    /// Replace its body, as long as no record of it exists.
    Revise {
        body: Bytes,
        /// What the route's `key` pointer found in the new body; it must be what it was.
        order_key: Option<String>,
    },
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commanded {
    /// It is on disk; the owner of the order's slot decides what it still changes.
    Accepted { is_replay: bool },
    /// There is no such order.
    Unknown,
    /// The order's state forbids it.
    TooLate,
    /// The revision would change the order key.
    OrderKeyChanged,
}

/// Why an order was not accepted. Nothing of it was kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AcceptError {
    #[error("the idempotency key was used for another order")]
    KeyReused,
    #[error("the backlog is full")]
    Backlog { retry_after: Duration },
    #[error("too many orders wait for the disk")]
    Busy { retry_after: Duration },
    #[error("the database takes no orders")]
    Storage { retry_after: Duration },
}

/// Takes orders in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Intake {
    outbox: Outbox,
    limits: IntakeConfig,
    metrics: Arc<Metrics>,
}

impl Intake {
    #[must_use]
    pub fn new(outbox: Outbox, limits: IntakeConfig, metrics: Arc<Metrics>) -> Self {
        Self { outbox, limits, metrics }
    }

    /// Accepts one order: returns once it is on disk. Dropping the future does not undo a commit under way.
    ///
    /// # Errors
    ///
    /// See [`AcceptError`]; all but a reused key are worth a retry after the given time.
    pub async fn accept(&self, request: Request) -> Result<Accepted, AcceptError> {
        let result = match self.room(1) {
            Ok(()) => match self.outbox.accept(new_order(request)).await {
                Ok(kept) => {
                    crash::at(Point::Accepted);
                    accepted(kept)
                }
                Err(error) => Err(self.refused(&error)),
            },
            Err(full) => Err(full),
        };
        self.count(kind_of(&result));
        result
    }

    /// Whether there is room for an order at all, asked before its body is read: a refusal must cost little when there are
    /// many.
    ///
    /// # Errors
    ///
    /// The backlog is full.
    pub fn admit(&self) -> Result<(), AcceptError> {
        self.room(1).inspect_err(|_| self.count("refused"))
    }

    /// Accepts many orders, each on its own; the results stand in the order of the requests.
    pub async fn accept_all(&self, requests: Vec<Request>) -> Vec<Result<Accepted, AcceptError>> {
        let count = requests.len();
        let results = match self.room(count) {
            Ok(()) => match self.outbox.accept_all(requests.into_iter().map(new_order).collect()).await {
                Ok(kept) => kept.into_iter().map(accepted).collect(),
                Err(error) => vec![Err(self.refused(&error)); count],
            },
            Err(full) => vec![Err(full); count],
        };
        results.iter().for_each(|result| self.count(kind_of(result)));
        results
    }

    /// Takes a command on an order in, as durably as the order itself.
    ///
    /// # Errors
    ///
    /// See [`AcceptError`]; all but a reused key are worth a retry after the given time.
    pub async fn command(
        &self,
        route: &Arc<str>,
        id: OrderId,
        command: Command,
        idempotency_key: Option<String>,
    ) -> Result<Commanded, AcceptError> {
        let (kind, namespace, payload, order_key) = match command {
            Command::Cancel => (EntryKind::Cancel, KeyNamespace::Cancel, None, None),
            Command::Revise { body, order_key } => {
                let order_key = order_key.unwrap_or_else(|| id.to_string());
                (EntryKind::Revise, KeyNamespace::Revise, Some(body), Some(order_key.into()))
            }
        };
        let idempotency = idempotency_key.map(|key| {
            let key = IdempotencyKey { namespace, caller: String::new(), key: format!("{id}\n{key}") };
            hash(&key, route, payload.as_deref().unwrap_or_default())
        });
        let command = NewCommand { kind, order_id: id, route: Arc::clone(route), payload, order_key, idempotency };
        match self.outbox.command(command).await {
            Ok(Kept::New(_)) => Ok(Commanded::Accepted { is_replay: false }),
            Ok(Kept::Replay(_)) => Ok(Commanded::Accepted { is_replay: true }),
            Ok(Kept::KeyReused) => Err(AcceptError::KeyReused),
            Ok(Kept::TooLate) => Ok(Commanded::TooLate),
            Ok(Kept::Unknown) => Ok(Commanded::Unknown),
            Ok(Kept::OrderKeyChanged) => Ok(Commanded::OrderKeyChanged),
            Err(error) => Err(self.refused(&error)),
        }
    }

    fn room(&self, orders: usize) -> Result<(), AcceptError> {
        let wanted = self.outbox.backlog().saturating_add(orders as u64);
        if wanted > self.limits.backlog_max {
            return Err(AcceptError::Backlog { retry_after: self.limits.retry_after.0 });
        }
        Ok(())
    }

    fn refused(&self, error: &OutboxError) -> AcceptError {
        let retry_after = self.limits.retry_after.0;
        match error {
            OutboxError::QueueFull => AcceptError::Busy { retry_after },
            OutboxError::DiskFull
            | OutboxError::Unavailable
            | OutboxError::Away
            | OutboxError::Sqlite(_)
            | OutboxError::Refused(_) => AcceptError::Storage { retry_after },
        }
    }

    fn count(&self, kind: &'static str) {
        self.metrics.intake_orders.get_or_create(&KindLabel { kind }).inc();
    }
}

fn kind_of(result: &Result<Accepted, AcceptError>) -> &'static str {
    match result {
        Ok(Accepted { is_replay: false, .. }) => "accepted",
        Ok(Accepted { is_replay: true, .. }) => "replayed",
        Err(AcceptError::KeyReused) => "key-reused",
        Err(_) => "refused",
    }
}

fn accepted(kept: Kept) -> Result<Accepted, AcceptError> {
    match kept {
        Kept::New(id) => Ok(Accepted { id, is_replay: false }),
        Kept::Replay(id) => Ok(Accepted { id, is_replay: true }),
        // Only commands come to the last three.
        Kept::KeyReused | Kept::TooLate | Kept::Unknown | Kept::OrderKeyChanged => Err(AcceptError::KeyReused),
    }
}

fn new_order(request: Request) -> NewOrder {
    let Request { route, order_key, body, idempotency, traceparent } = request;
    let id = OrderId::generate();
    let order_key: Arc<str> = order_key.map_or_else(|| id.to_string().into(), Arc::from);
    NewOrder {
        id,
        slot: Slot::of(&route, &order_key),
        traceparent: continued(traceparent.as_deref()).into(),
        idempotency: idempotency.map(|key| hash(&key, &route, &body)),
        route,
        order_key,
        body,
    }
}

/// Our span in the caller's trace, or in a new one (W3C Trace Context).
fn continued(traceparent: Option<&str>) -> String {
    let span = fastrand::u64(1..);
    match traceparent.and_then(|given| Some((given.get(3..35)?, given.get(53..55)?))) {
        Some((trace, flags)) => format!("00-{trace}-{span:016x}-{flags}"),
        None => format!("00-{:032x}-{span:016x}-01", fastrand::u128(1..)),
    }
}

/// Hashes a key with its scope (route, caller and name space) and the body, each part with its length, so that no two
/// scopes can be mistaken for one another.
fn hash(key: &IdempotencyKey, route: &str, body: &[u8]) -> KeyHash {
    let namespace = match key.namespace {
        KeyNamespace::Request => "request",
        KeyNamespace::BatchLine => "line",
        KeyNamespace::Event => "event",
        KeyNamespace::Cancel => "cancel",
        KeyNamespace::Revise => "revise",
    };
    let mut scoped = Sha256::new();
    for part in [namespace, route, &key.caller, &key.key] {
        scoped.update((part.len() as u64).to_be_bytes());
        scoped.update(part);
    }
    KeyHash { key: scoped.finalize().into(), fingerprint: Sha256::digest(body).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_trace_is_continued_under_a_span_of_our_own() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let ours = continued(Some(given));
        assert_eq!((&ours[..36], &ours[52..], ours.len()), (&given[..36], "-00", 55));
        assert_ne!(ours, given);
        assert_eq!(continued(None).len(), 55);
    }

    #[test]
    fn scopes_are_not_mistaken_for_one_another() {
        let key = |namespace, caller: &str, key: &str| IdempotencyKey {
            namespace,
            caller: caller.to_owned(),
            key: key.to_owned(),
        };
        let one = hash(&key(KeyNamespace::Request, "a", "bc"), "/orders", b"{}").key;
        for other in [
            hash(&key(KeyNamespace::Request, "ab", "c"), "/orders", b"{}"),
            hash(&key(KeyNamespace::Event, "a", "bc"), "/orders", b"{}"),
            hash(&key(KeyNamespace::Request, "a", "bc"), "/refunds", b"{}"),
        ] {
            assert_ne!(one, other.key);
        }
        assert_eq!(one, hash(&key(KeyNamespace::Request, "a", "bc"), "/orders", b"{ }").key);
    }
}
