//! What the gateway is compared with: a handler that keeps nothing, one that commits each order alone, axum's streams.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use rusqlite::{Connection, params};
use sluice::clock::Clock;
use sluice::order::json::{self, JsonPointer};
use sluice::order::{OrderId, Slot};
use tokio::sync::Semaphore;

const SCHEMA: &str = include_str!("../../migrations/sqlite/0001_orders.sql");

/// An order as the gateway's own handler would hand it on.
struct Taken {
    id: OrderId,
    key: String,
    slot: Slot,
    traceparent: String,
    body: Vec<u8>,
}

async fn take(request: Request, pointer: &JsonPointer) -> Result<Taken, StatusCode> {
    let is_json = request.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == "application/json");
    if !is_json {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let collected = tokio::time::timeout(Duration::from_secs(30), request.into_body().collect()).await;
    let body = collected.ok().and_then(Result::ok).ok_or(StatusCode::BAD_REQUEST)?.to_bytes();
    let checked = json::check(&body, 64, pointer).map_err(|_| StatusCode::BAD_REQUEST)?;
    let id = OrderId::generate();
    let key = checked.order_key.unwrap_or_else(|| id.to_string());
    let traceparent = format!("00-{:032x}-{:016x}-01", fastrand::u128(1..), fastrand::u64(1..));
    Ok(Taken { id, slot: Slot::of("/orders", &key), key, traceparent, body: body.to_vec() })
}

fn accepted(id: OrderId) -> Response {
    let body = format!(
        "{{\"id\":\"{id}\",\"status\":\"PENDING\",\"version\":1,\"links\":{{\"self\":\"/orders/{id}\",\"events\":\"/orders/{id}/events\"}}}}"
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ETAG, HeaderValue::from_static("\"1\""));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(location) = HeaderValue::try_from(format!("/orders/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// The same handler without storage: the order is read, checked, named and answered, and forgotten.
pub(crate) fn without_storage() -> anyhow::Result<Router> {
    let pointer: JsonPointer = "/customerId".parse()?;
    let handler = |State(pointer): State<Arc<JsonPointer>>, request: Request| async move {
        match take(request, &pointer).await {
            Ok(taken) => {
                std::hint::black_box((&taken.slot, &taken.traceparent, &taken.body));
                accepted(taken.id)
            }
            Err(status) => status.into_response(),
        }
    };
    Ok(Router::new().route("/orders", post(handler)).with_state(Arc::new(pointer)))
}

/// A pool of connections, and turns to take one.
struct Naive {
    pointer: JsonPointer,
    places: Semaphore,
    pool: Mutex<Vec<Connection>>,
}

/// What one would write first: a pool, and one transaction per request.
pub(crate) fn one_transaction_each(path: &Path) -> anyhow::Result<Router> {
    const CONNECTIONS: usize = 8;
    let open = |_| {
        let conn = Connection::open(path)?;
        conn.busy_timeout(Duration::from_secs(30))?;
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
        Ok(conn)
    };
    let pool = (0..CONNECTIONS).map(open).collect::<rusqlite::Result<Vec<_>>>()?;
    pool[0].execute_batch(SCHEMA)?;
    let state = Naive { pointer: "/customerId".parse()?, places: Semaphore::new(CONNECTIONS), pool: Mutex::new(pool) };
    let handler = |State(state): State<Arc<Naive>>, request: Request| async move {
        let Ok(taken) = take(request, &state.pointer).await else { return StatusCode::BAD_REQUEST.into_response() };
        let Ok(_place) = state.places.acquire().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
        let (id, own) = (taken.id, Arc::clone(&state));
        let done = tokio::task::spawn_blocking(move || {
            let Some(mut conn) = own.pool.lock().unwrap_or_else(PoisonError::into_inner).pop() else { return false };
            let kept = keep(&mut conn, &taken).is_ok();
            own.pool.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            kept
        });
        if done.await.unwrap_or(false) { accepted(id) } else { StatusCode::SERVICE_UNAVAILABLE.into_response() }
    };
    Ok(Router::new().route("/orders", post(handler)).with_state(Arc::new(state)))
}

fn keep(conn: &mut Connection, order: &Taken) -> rusqlite::Result<()> {
    let now = Clock::system().now().0;
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let last = tx
        .prepare_cached("UPDATE meta SET value = value + 2 WHERE name = 'sequence' RETURNING value")?
        .query_row([], |row| row.get::<_, i64>(0))?;
    let id = order.id.as_bytes();
    tx.prepare_cached(
        "INSERT INTO orders (id, route, order_key, slot, status, accepted_at, updated_at, traceparent, body_at)
         VALUES (?1, '/orders', ?2, ?3, 'PENDING', ?4, ?4, ?5, ?6)",
    )?
    .execute(params![id, order.key, order.slot.0, now, order.traceparent, last - 1])?;
    tx.prepare_cached(
        "INSERT INTO history (order_id, sequence, version, at, status, entries, body)
         VALUES (?1, ?2, 1, ?3, 'PENDING', '[]', ?4)",
    )?
    .execute(params![id, last - 1, now, order.body])?;
    tx.prepare_cached("INSERT INTO outbox (number, slot, kind, order_id, at) VALUES (?1, ?2, 'order', ?3, ?4)")?
        .execute(params![last, order.slot.0, id, now])?;
    tx.commit()
}

/// A stream of events as axum makes it: the present state, then silence with a comment now and then.
pub(crate) fn axum_streams() -> Router {
    async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
        let first = Event::default().event("status").id("1").data("{\"status\":\"PENDING\",\"version\":1}");
        let later = stream::pending();
        Sse::new(stream::iter([Ok(first)]).chain(later)).keep_alive(KeepAlive::default())
    }
    Router::new().route("/orders/{id}/events", get(events))
}
