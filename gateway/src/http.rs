//! The two listeners: the public one takes orders and tells of them, the admin one serves the operator.
//!
//! Handlers only parse, call one flow and answer. What they refuse is built in [`mod@error`] alone. How a request gets here
//! and how a connection becomes a stream of events is `listener`, `connection`, `socket` and `stream`.

pub mod admin;
pub mod error;
mod health;
pub mod listener;
mod page;

mod accept;
mod batch;
mod body;
mod cloudevent;
mod command;
mod connection;
mod event;
mod events;
mod headers;
mod meter;
mod query;
mod read;
mod socket;
mod stream;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::FutureExt;
use http::Method;
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::connection::Handoff;
use self::error::HttpProblem;
use self::meter::Meter;
use self::stream::Stream;
use crate::clock::Clock;
use crate::config::{HttpConfig, RouteConfig};
use crate::intake::Intake;
use crate::order::OrderId;
use crate::order::json::{InvalidPointer, JsonPointer};
use crate::status::Status;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

/// What the public listener works with.
#[derive(Debug, Clone)]
pub struct PublicState {
    pub intake: Intake,
    pub status: Status,
    pub routes: Arc<[RouteConfig]>,
    pub http: Arc<HttpConfig>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// Ends waits early: a long poll answers with what it has. The same token as the listener's.
    pub stop: CancellationToken,
}

/// One route at the edge.
#[derive(Debug)]
struct Edge {
    state: PublicState,
    path: Arc<str>,
    /// Where the order key stands.
    key: JsonPointer,
}

/// What stands below a route's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Orders,
    Order,
    Timeline,
    Events,
    EventsOfMany,
    Cancel,
    Revise,
}

/// What a handler comes to.
enum Answer {
    Response(Response),
    /// The connection becomes a stream of events.
    Stream(Box<Stream>),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

impl Place {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Orders, ""),
        (Self::Order, "/{id}"),
        (Self::Timeline, "/{id}/timeline"),
        (Self::Events, "/{id}/events"),
        (Self::EventsOfMany, "/events"),
        (Self::Cancel, "/{id}/cancel"),
        (Self::Revise, "/{id}/revise"),
    ];

    fn allow(self) -> &'static str {
        match self {
            Self::Orders => "GET, HEAD, POST",
            Self::Cancel | Self::Revise => "POST",
            Self::Order | Self::Timeline | Self::Events | Self::EventsOfMany => "GET, HEAD",
        }
    }
}

impl Edge {
    /// The order that a path names; what cannot be an id names none.
    fn order_id(&self, path: &str) -> Result<OrderId, HttpProblem> {
        let rest = path.strip_prefix(&*self.path).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
        let id = rest.split('/').next().unwrap_or_default();
        id.parse().map_err(|_| HttpProblem::not_found("order"))
    }

    async fn answer(&self, place: Place, request: Request) -> Result<Answer, HttpProblem> {
        match place {
            Place::Orders if request.method() == Method::POST => {
                return accept::post(self, request).await.map(Answer::from);
            }
            Place::Cancel | Place::Revise if request.method() == Method::POST => {
                return Box::pin(command::post(self, place, request)).await.map(Answer::from);
            }
            _ => {}
        }
        // A body means nothing to the others.
        let (request, _) = request.into_parts();
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        match place {
            _ if !is_read => Err(HttpProblem::method_not_allowed(place.allow())),
            Place::Order => read::order(self, &request).await.map(Answer::from),
            Place::Orders => Box::pin(read::list(self, &request)).await.map(Answer::from),
            Place::Timeline => Box::pin(read::timeline(self, &request)).await.map(Answer::from),
            Place::Events => Box::pin(events::of_one(self, &request)).await,
            Place::EventsOfMany => Box::pin(events::of_many(self, &request)).await,
            Place::Cancel | Place::Revise => Err(HttpProblem::method_not_allowed(place.allow())),
        }
    }
}

/// The router of the public listener: every route's orders, and problems for everything else.
///
/// Fails where a route's `key` is no JSON Pointer. Route paths are taken as checked: absolute, without parameters and
/// each once.
pub fn public_router(state: PublicState) -> Result<Router, InvalidPointer> {
    let mut router = Router::new();
    for route in state.routes.iter() {
        let edge = Arc::new(Edge { state: state.clone(), path: route.path.as_str().into(), key: route.key.parse()? });
        for (place, suffix) in Place::ALL {
            let pattern = format!("{}{suffix}", route.path);
            let meter = Arc::new(Meter::new(&pattern, Arc::clone(&state.metrics)));
            let edge = Arc::clone(&edge);
            let handler = any(move |request: Request| serve(Arc::clone(&edge), place, Arc::clone(&meter), request));
            router = router.route(&pattern, handler);
        }
    }
    let meter = Arc::new(Meter::new("other", Arc::clone(&state.metrics)));
    Ok(router.fallback(move |request: Request| {
        let response = HttpProblem::unknown_path().into_response();
        meter.count(request.method(), response.status(), Instant::now());
        std::future::ready(response)
    }))
}

/// Answers one request, whatever the handler does, and counts it.
async fn serve(edge: Arc<Edge>, place: Place, meter: Arc<Meter>, request: Request) -> Response {
    let begun = Instant::now();
    let open = meter.open();
    let method = request.method().clone();
    let handoff = match place {
        Place::Events | Place::EventsOfMany => request.extensions().get::<Handoff>().cloned(),
        Place::Orders | Place::Order | Place::Timeline | Place::Cancel | Place::Revise => None,
    };
    // A panic leaves nothing behind here: what the handler held is dropped with it.
    let answer = AssertUnwindSafe(edge.answer(place, request)).catch_unwind().await;
    let response = match (answer, handoff) {
        (Ok(Ok(Answer::Response(response))), _) => response,
        (Ok(Ok(Answer::Stream(stream))), Some(handoff)) => {
            meter.count(&method, http::StatusCode::OK, begun);
            // From here on it counts as a stream.
            drop(open);
            handoff.give(stream);
            std::future::pending().await
        }
        (Ok(Ok(Answer::Stream(_))), None) => {
            error!("a stream was asked for on a listener that has none");
            HttpProblem::internal().into_response()
        }
        (Ok(Err(problem)), _) => {
            if problem.status == http::StatusCode::REQUEST_TIMEOUT {
                edge.state.metrics.http_closed.get_or_create(&KindLabel { kind: "body" }).inc();
            }
            problem.into_response()
        }
        (Err(_), _) => {
            error!(http.route = %edge.path, http.place = ?place, "a handler panicked");
            HttpProblem::internal().into_response()
        }
    };
    meter.count(&method, response.status(), begun);
    response
}
