//! The operator's listener: its routes and what stands around all of them.
//!
//! Bound to loopback by default and without authentication, so `guard` keeps foreign web pages from using the
//! operator's browser against it.

mod dead;
mod feed;
mod guard;
mod orders;
mod plugins;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::HttpProblem;
use super::{health, page};
use crate::admin::Admin;
use crate::catalog::Catalog;
use crate::config::{HttpConfig, RouteConfig};
use crate::lifecycle::Readiness;
use crate::status::Status;
use crate::telemetry::Metrics;

/// What the operator's listener is made of.
#[derive(Debug, Clone)]
pub struct AdminState {
    pub admin: Admin,
    pub catalog: Catalog,
    pub status: Status,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub routes: Arc<[RouteConfig]>,
    /// The limits of orders.
    pub http: Arc<HttpConfig>,
    /// Where this listener listens; on loopback it answers to no other name.
    pub address: SocketAddr,
    /// Where orders are posted; the page shows it.
    pub public_address: SocketAddr,
    /// Ends the feeds, which would never end by themselves.
    pub stop: CancellationToken,
}

/// The state of the handlers: what they were given and what they share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) state: AdminState,
    /// Feeds that may still be opened.
    feeds: Arc<Semaphore>,
    policy: String,
}

/// The operator's listener as a service.
pub fn router(state: AdminState) -> Router {
    let address = state.address;
    let feeds = Arc::new(Semaphore::new(feed::FEEDS_MAX));
    let desk = Desk { state, feeds, policy: page::policy() };
    let routes = Router::new()
        .route("/", get(show_page))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/overview", get(overview))
        .route("/plugins", get(plugins::list))
        .route("/plugins/reload", post(plugins::reload))
        .route("/plugins/{name}/reload", post(plugins::reload_one))
        .route("/plugins/{name}/rollback", post(plugins::roll_back))
        .route("/plugins/{name}/pin", post(plugins::pin))
        .route("/plugins/{name}/forget", post(plugins::forget))
        .route("/orders", get(orders::list))
        .route("/orders/{id}", get(orders::show))
        .route("/orders/{id}/timeline", get(orders::timeline))
        .route("/feed", get(feed::follow))
        .route("/dead", get(dead::list))
        .route("/dead/redrive", post(dead::redrive_many))
        .route("/dead/discard", post(dead::discard_many))
        .route("/dead/{id}", get(dead::show))
        .route("/dead/{id}/edit", post(dead::edit))
        .route("/dead/{id}/redrive", post(dead::redrive))
        .route("/dead/{id}/discard", post(dead::discard))
        .with_state(Arc::new(desk));
    frame(routes, address)
}

/// Puts the refusals and the guard around routes.
fn frame(routes: Router, address: SocketAddr) -> Router {
    routes
        .method_not_allowed_fallback(async || {
            let detail = "the header Allow lists the methods of this path";
            HttpProblem::client(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
        })
        .fallback(async || HttpProblem::unknown_path())
        .layer(middleware::from_fn_with_state(address, guard::guard))
}

async fn show_page(State(desk): State<Arc<Desk>>) -> Response {
    page::answer(&desk.policy)
}

/// `GET /overview`: how things stand, in numbers.
async fn overview(State(desk): State<Arc<Desk>>) -> Result<Response, HttpProblem> {
    let overview = desk.state.admin.overview().await?;
    let object = |list: Vec<(String, u64)>| -> Map<String, Value> {
        list.into_iter().map(|(name, number)| (name, number.into())).collect()
    };
    let routes: Vec<_> = desk.state.routes.iter().map(|route| route.path.as_str()).collect();
    Ok(json_answer(&json!({
        "orders": object(overview.orders),
        "backlog": overview.backlog,
        "oldestUndecidedSeconds": overview.oldest_undecided_seconds,
        "dead": object(overview.dead),
        "publicAddress": desk.state.public_address.to_string(),
        "routes": routes,
    })))
}

fn json_answer(json: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], json.to_string()).into_response()
}

/// How many items a list shows: `asked`, else 50; at most 500.
fn page_size(asked: Option<usize>) -> Result<usize, HttpProblem> {
    match asked {
        Some(0) => Err(HttpProblem::bad_query("`limit` must be at least 1")),
        asked => Ok(asked.unwrap_or(50).min(500)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use axum::http::header::{ALLOW, HOST, ORIGIN};
    use tower::ServiceExt as _;

    async fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let routes =
            Router::new().route("/dead", get(async || "list")).route("/dead/{id}/discard", post(async || "done"));
        let mut request = Request::builder().method(method).uri(path).header(HOST, "127.0.0.1:9090");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        frame(routes, "127.0.0.1:9090".parse().unwrap()).oneshot(request).await.unwrap()
    }

    fn assert_problem(response: &Response, status: StatusCode) {
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }

    #[tokio::test]
    async fn an_unknown_path_and_a_wrong_method_are_problems() {
        assert_problem(&ask("GET", "/nowhere", &[]).await, StatusCode::NOT_FOUND);
        let refused = ask("GET", "/dead/1/discard", &[]).await;
        assert_problem(&refused, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "POST");
    }

    #[tokio::test]
    async fn a_foreign_page_cannot_discard_and_the_operator_can() {
        let foreign = ask("POST", "/dead/1/discard", &[(ORIGIN.as_str(), "https://evil.example")]).await;
        assert_problem(&foreign, StatusCode::FORBIDDEN);
        assert_eq!(ask("POST", "/dead/1/discard", &[]).await.status(), StatusCode::OK);
        let own = ask("POST", "/dead/1/discard", &[(ORIGIN.as_str(), "http://127.0.0.1:9090")]).await;
        assert_eq!(own.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn answers_are_not_sniffed_kept_or_embedded() {
        let answer = ask("GET", "/dead", &[]).await;
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["cross-origin-resource-policy"], "same-origin");
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
}
