//! Drives one connection: HTTP/1.1 by hyper, until it ends or becomes a stream.
//!
//! A handler that answers with a stream of events leaves a [`Handoff`] and stays pending for ever. The driver then takes
//! the socket out of hyper, whose state and buffers are dropped, and runs the stream as a small task of its own.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::error::HttpProblem;
use super::listener::Limits;
use super::socket::{Phase, Signals, Socket};
use super::stream::Stream;
use crate::lifecycle::Tasks;
use crate::telemetry::Metrics;

/// hyper's buffer for reading; a head or a chunk of a body beyond it is read in parts.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// What a peer may still send after an answer that did not wait for it, and how long it may take, before the reset.
const LINGER_BYTES: usize = 8 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// Where a handler leaves the stream that its connection is to become.
#[derive(Debug, Clone, Default)]
pub(super) struct Handoff {
    stream: Arc<Mutex<Option<Box<Stream>>>>,
}

impl Handoff {
    /// Gives the connection over. The caller stays pending: hyper must not answer.
    pub(super) fn give(&self, stream: Box<Stream>) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    fn take(&self) -> Option<Box<Stream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What every connection of a listener shares.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) router: axum::Router,
    pub(super) limits: Limits,
    pub(super) tasks: Tasks,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
}

enum End {
    Closed,
    Stream(Box<Stream>),
}

/// Counts a connection for as long as it is open.
struct Open(Arc<Metrics>);

impl Open {
    fn count(metrics: Arc<Metrics>) -> Self {
        metrics.http_connections.inc();
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.http_connections.dec();
    }
}

/// Serves a connection to its end. `permit` is its place among the connections; a stream keeps it.
pub(super) async fn drive(socket: TcpStream, shared: Shared, permit: OwnedSemaphorePermit) {
    let open = Open::count(Arc::clone(&shared.metrics));
    let signals = Arc::new(Signals::default());
    let handoff = Handoff::default();
    let guarded = Socket::new(socket, shared.limits, Arc::clone(&signals), Arc::clone(&shared.metrics));
    let service = Service { router: shared.router.clone(), signals: Arc::clone(&signals), handoff: handoff.clone() };
    let mut builder = http1::Builder::new();
    // The socket keeps the deadlines: hyper's own timer cannot tell an idle connection from a slow head.
    builder.header_read_timeout(None);
    builder.max_header_size(shared.limits.header_bytes_max);
    builder.max_buf_size(READ_BUFFER_BYTES.max(shared.limits.header_bytes_max));
    let mut connection = builder.serve_connection(TokioIo::new(guarded), service);

    let end = {
        let mut stopped = pin!(shared.stop.cancelled());
        let mut is_stopping = false;
        poll_fn(|cx| {
            if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            // Why it ended is the peer's business; limits are counted by the socket.
            if connection.poll_without_shutdown(cx).is_ready() {
                return Poll::Ready(End::Closed);
            }
            // Earlier answers on this connection go out first.
            if signals.write_waits() {
                return Poll::Pending;
            }
            handoff.take().map_or(Poll::Pending, |stream| Poll::Ready(End::Stream(stream)))
        })
        .await
    };
    let socket = connection.into_parts().io.into_inner().into_stream();
    match end {
        End::Closed => linger(socket).await,
        End::Stream(stream) => {
            let Shared { limits, tasks, metrics, stop, .. } = shared;
            tasks.spawn_short(async move {
                let _held = (open, permit);
                (*stream).run(socket, limits.write_stall, metrics, stop).await;
            });
        }
    }
}

/// Ends a connection so that the peer can read the last answer: a close with unread bytes would reset it.
async fn linger(mut socket: TcpStream) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let drain = async {
        let mut buffer = vec![0; 8 << 10];
        let mut left = LINGER_BYTES;
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    };
    // Whether the peer closed or the time is up, the socket is done with.
    tokio::time::timeout(LINGER, drain).await.unwrap_or_default();
}

/// Hands hyper's requests to the router and tells the socket how far they are.
struct Service {
    router: axum::Router,
    signals: Arc<Signals>,
    handoff: Handoff,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.signals.enter(Phase::Request);
        let signals = Arc::clone(&self.signals);
        if let Some(problem) = broken(&request, &self.signals) {
            return Answering { signals, state: State::Refused(Some(problem)) };
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.handoff.clone());
        Answering { signals, state: State::Routed(Box::pin(self.router.clone().call(request))) }
    }
}

/// What hyper lets pass and RFC 9112 does not.
fn broken<B>(request: &Request<B>, signals: &Signals) -> Option<HttpProblem> {
    let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let mut hosts = request.headers().get_all(HOST).iter();
    let detail = match (hosts.next(), hosts.next(), request.version()) {
        (_, Some(_), _) => "the request has more than one Host",
        (None, _, Version::HTTP_11) => "the request has no Host",
        (_, None, version) if version < Version::HTTP_11 && is_chunked => "HTTP/1.0 has no Transfer-Encoding",
        // hyper believes the chunks and drops the length; a proxy before it may have believed the length.
        (_, None, _) if is_chunked && signals.head_has(CONTENT_LENGTH.as_str().as_bytes()) => {
            "the request has both Content-Length and Transfer-Encoding"
        }
        (_, None, _) => return None,
    };
    let problem = HttpProblem::client(StatusCode::BAD_REQUEST, "bad-request", "Malformed request", detail);
    Some(HttpProblem { close: true, ..problem })
}

/// An answer in the making.
struct Answering {
    signals: Arc<Signals>,
    state: State,
}

enum State {
    Refused(Option<HttpProblem>),
    Routed(Pin<Box<axum::routing::future::RouteFuture<Infallible>>>),
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.state {
            State::Refused(problem) => problem.take().unwrap_or_else(HttpProblem::internal).into_response(),
            State::Routed(future) => match ready!(future.as_mut().poll(cx)) {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        self.signals.enter(Phase::Answered);
        Poll::Ready(Ok(response))
    }
}
