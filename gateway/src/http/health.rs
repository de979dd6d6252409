//! Whether the node lives, whether it is ready and what it counts.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::warn;

use super::admin::Desk;
use crate::admin::Overview;
use crate::dead::DeadKind;
use crate::lifecycle::{Condition, Readiness};
use crate::order::OrderStatus;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

/// `GET /livez`: the process answers, whatever else is wrong.
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: `503` as long as a part waits, and how every part stands.
pub(super) async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    report(&desk.state.readiness)
}

fn report(readiness: &Readiness) -> Response {
    let parts = readiness.report();
    let is_ready = !parts.iter().any(|(_, condition)| matches!(condition, Condition::Waiting(_)));
    let parts: Vec<_> = parts
        .iter()
        .map(|(part, condition)| {
            let (word, detail) = match condition {
                Condition::Ready => ("ready", None),
                Condition::Waiting(detail) => ("waiting", Some(detail)),
                Condition::Degraded(detail) => ("degraded", Some(detail)),
            };
            json!({ "part": part, "condition": word, "detail": detail })
        })
        .collect();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": is_ready, "parts": parts }).to_string();
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// `GET /metrics`: everything counted, in the `OpenMetrics` text format.
///
/// What lies in the database is asked for now; where it does not answer, those gauges keep what they last showed.
pub(super) async fn metrics(State(desk): State<Arc<Desk>>) -> Response {
    match desk.state.admin.overview().await {
        Ok(overview) => refresh(&desk.state.metrics, &overview),
        Err(error) => warn!(%error, "metrics of the database are not refreshed"),
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], desk.state.metrics.render()).into_response()
}

fn refresh(metrics: &Metrics, overview: &Overview) {
    let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let number_of = |list: &[(String, u64)], word: &str| {
        gauge(list.iter().filter(|(name, _)| name == word).map(|(_, number)| number).sum())
    };
    metrics.outbox_backlog.set(gauge(overview.backlog));
    metrics.outbox_oldest_seconds.set(overview.oldest_undecided_seconds);
    metrics.orders_held.set(number_of(&overview.orders, OrderStatus::Held.as_str()));
    for kind in DeadKind::ALL.map(DeadKind::as_str) {
        metrics.dead_letters.get_or_create(&KindLabel { kind }).set(number_of(&overview.dead, kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_part_that_waits_makes_the_node_unready() {
        let readiness = Readiness::default();
        assert_eq!(report(&readiness).status(), StatusCode::OK);
        readiness.set("kafka", Condition::Degraded("a topic is refused".to_owned()));
        assert_eq!(report(&readiness).status(), StatusCode::OK);
        readiness.set("plugins", Condition::Waiting("compiling".to_owned()));
        assert_eq!(report(&readiness).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_scrape_shows_what_the_database_told() {
        let metrics = Metrics::new();
        let overview = Overview {
            orders: vec![("PENDING".to_owned(), 3), ("HELD".to_owned(), 7)],
            backlog: 10,
            oldest_undecided_seconds: 1.5,
            dead: vec![("reply".to_owned(), 2)],
        };
        refresh(&metrics, &overview);
        let text = metrics.render();
        for line in [
            "sluice_outbox_backlog_orders 10",
            "sluice_outbox_oldest_entry_seconds 1.5",
            "sluice_orders_held 7",
            "sluice_dead_letters{kind=\"reply\"} 2",
            "sluice_dead_letters{kind=\"order\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
