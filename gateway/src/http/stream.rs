//! Streams of events on a bare socket: what is left of a connection once hyper is out of the way.
//!
//! An idle stream is one small task: the socket, a listener, the version it sent last and one timer. Reading and writing
//! happen in boxed futures that live only as long as there is something to send. Every version is sent once, in order;
//! a wake-up only wakes. Slow readers are cut by the write stall and resume with the id they got last.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::event::{BEAT, EventName, GOING_AWAY, encode_versions, write_event};
use crate::order::{OrderId, OrderView};
use crate::status::{Listener, Resume, Status};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

/// How long a stream waits before it asks a database again that did not answer.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// An order and what its reader has of it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) id: OrderId,
    /// 0 until something was sent.
    pub(super) version: u64,
    pub(super) is_final: bool,
}

/// The orders of a stream. The listeners were made before the first read, so no change falls between.
#[derive(Debug)]
pub(super) enum Follow {
    One { order: Followed, listener: Listener },
    Many { orders: Vec<Followed>, listeners: Vec<Listener> },
}

/// A stream that is ready to begin.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) status: Status,
    pub(super) follow: Follow,
    /// Head and first events.
    pub(super) first: Vec<u8>,
    pub(super) heartbeat: Duration,
}

/// What a stream woke up for.
enum Wake {
    Changed,
    Beat,
    Gone,
    Stop,
}

/// Why a stream ends before its orders do.
struct Cut;

/// A socket that is written to, and otherwise watched for its end. Counted as a stream for as long as it is open.
struct Peer {
    socket: TcpStream,
    stall: Duration,
    metrics: Arc<Metrics>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.metrics.http_streams.dec();
    }
}

impl Stream {
    /// Sends until every order is final, the peer leaves or stalls, or the node stops.
    pub(super) fn run(
        self,
        socket: TcpStream,
        stall: Duration,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        metrics.http_streams.inc();
        let mut peer = Peer { socket, stall, metrics };
        let Self { status, follow, first, heartbeat } = self;
        async move {
            if Box::pin(peer.send(first)).await.is_err() {
                return;
            }
            let ended = match follow {
                Follow::One { order, listener } => one(&mut peer, &status, order, listener, heartbeat, &stop).await,
                Follow::Many { orders, listeners } => {
                    Box::pin(many(&mut peer, &status, orders, listeners, heartbeat, &stop)).await
                }
            };
            if ended.is_ok() {
                Box::pin(peer.finish()).await;
            }
        }
    }
}

async fn one(
    peer: &mut Peer,
    status: &Status,
    mut order: Followed,
    mut listener: Listener,
    heartbeat: Duration,
    stop: &CancellationToken,
) -> Result<(), Cut> {
    let mut beat = pin!(tokio::time::sleep(jittered(heartbeat)));
    let mut stopped = pin!(stop.cancelled());
    while !order.is_final {
        let wake = {
            let mut changed = pin!(listener.changed());
            poll_fn(|cx| {
                if changed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Wake::Changed);
                }
                poll_rest(cx, &peer.socket, beat.as_mut(), stopped.as_mut())
            })
            .await
        };
        match wake {
            Wake::Changed => {
                let events = Box::pin(read_one(status, &mut order, stop)).await;
                if !events.is_empty() {
                    Box::pin(peer.send(events)).await?;
                }
            }
            Wake::Beat => {
                let mut news = BEAT.to_vec();
                if status.is_late() {
                    news.extend(Box::pin(read_one(status, &mut order, stop)).await);
                }
                Box::pin(peer.send(news)).await?;
                beat.as_mut().reset(Instant::now() + heartbeat);
            }
            Wake::Gone => return Err(Cut),
            Wake::Stop => return Box::pin(peer.send(GOING_AWAY.to_vec())).await,
        }
    }
    Ok(())
}

async fn read_one(status: &Status, order: &mut Followed, stop: &CancellationToken) -> Vec<u8> {
    let mut events = Vec::new();
    for (name, view) in after(status, order, stop).await {
        write_event(&mut events, name, &view.version.to_string(), &view);
    }
    events
}

async fn many(
    peer: &mut Peer,
    status: &Status,
    mut orders: Vec<Followed>,
    listeners: Vec<Listener>,
    heartbeat: Duration,
    stop: &CancellationToken,
) -> Result<(), Cut> {
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    let mut waiting = FuturesUnordered::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        if !orders[index].is_final {
            waiting.push(change_of(index, listener));
        }
    }
    let mut beat = pin!(tokio::time::sleep(jittered(heartbeat)));
    let mut stopped = pin!(stop.cancelled());
    while !waiting.is_empty() {
        let mut woken = None;
        let wake = poll_fn(|cx| {
            if let Poll::Ready(Some(next)) = waiting.poll_next_unpin(cx) {
                woken = Some(next);
                return Poll::Ready(Wake::Changed);
            }
            poll_rest(cx, &peer.socket, beat.as_mut(), stopped.as_mut())
        })
        .await;
        match wake {
            Wake::Changed => {
                let Some((index, listener)) = woken else { continue };
                let events = read_of_many(status, &ids, &mut orders, index, stop).await;
                if !orders[index].is_final {
                    waiting.push(change_of(index, listener));
                }
                if !events.is_empty() {
                    peer.send(events).await?;
                }
            }
            Wake::Beat => {
                let mut news = BEAT.to_vec();
                for index in (0..orders.len()).filter(|_| status.is_late()) {
                    if !orders[index].is_final {
                        news.extend(read_of_many(status, &ids, &mut orders, index, stop).await);
                    }
                }
                peer.send(news).await?;
                if orders.iter().all(|order| order.is_final) {
                    return Ok(());
                }
                beat.as_mut().reset(Instant::now() + heartbeat);
            }
            Wake::Gone => return Err(Cut),
            Wake::Stop => return peer.send(GOING_AWAY.to_vec()).await,
        }
    }
    Ok(())
}

/// What the reader lacks of one of its orders.
async fn read_of_many(
    status: &Status,
    ids: &[OrderId],
    orders: &mut [Followed],
    index: usize,
    stop: &CancellationToken,
) -> Vec<u8> {
    let mut events = Vec::new();
    for (name, view) in after(status, &mut orders[index], stop).await {
        let mut versions: Vec<u64> = orders.iter().map(|order| order.version).collect();
        versions[index] = view.version;
        write_event(&mut events, name, &encode_versions(ids, &versions), &view);
    }
    events
}

async fn change_of(index: usize, mut listener: Listener) -> (usize, Listener) {
    listener.changed().await;
    (index, listener)
}

/// The versions that the reader of `order` lacks; notes them as sent.
async fn after(status: &Status, order: &mut Followed, stop: &CancellationToken) -> Vec<(EventName, OrderView)> {
    let resumed = loop {
        match status.resume(order.id, order.version).await {
            Ok(resumed) => break resumed,
            // The stream holds until the database is back: an `EventSource` gives up for good at a `503`.
            Err(error) => {
                let pause = tokio::time::sleep(error.retry_after.max(READ_PAUSE));
                if stop.run_until_cancelled(pause).await.is_none() {
                    return Vec::new();
                }
            }
        }
    };
    let events: Vec<_> = match resumed {
        Some(Resume::Versions(views)) => views.into_iter().map(|view| (EventName::Status, view)).collect(),
        // Read ahead of a listener that wakes late: nothing new is no reset.
        Some(Resume::Reset(view)) if view.version <= order.version => Vec::new(),
        Some(Resume::Reset(view)) => vec![(EventName::Reset, view)],
        // Retention removed it: there is nothing more to tell.
        None => {
            order.is_final = true;
            Vec::new()
        }
    };
    if let Some((_, last)) = events.last() {
        order.version = last.version;
        order.is_final = last.is_final;
    }
    events
}

/// What every stream waits for beside its orders. A peer's bytes are thrown away; its end ends the stream.
fn poll_rest(
    cx: &mut Context<'_>,
    socket: &TcpStream,
    beat: Pin<&mut Sleep>,
    stopped: Pin<&mut impl Future<Output = ()>>,
) -> Poll<Wake> {
    if stopped.poll(cx).is_ready() {
        return Poll::Ready(Wake::Stop);
    }
    while let Poll::Ready(ready) = socket.poll_read_ready(cx) {
        let mut waste = [0; 64];
        match ready.and_then(|()| socket.try_read(&mut waste)) {
            Ok(0) => return Poll::Ready(Wake::Gone),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Poll::Ready(Wake::Gone),
        }
    }
    beat.poll(cx).map(|()| Wake::Beat)
}

impl Peer {
    /// Writes everything; a peer that takes nothing for as long as a stall may last is cut.
    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Cut> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match tokio::time::timeout(self.stall, self.socket.write(rest)).await {
                Ok(Ok(count @ 1..)) => rest = &rest[count..],
                Ok(Ok(0) | Err(_)) => return Err(Cut),
                Err(_) => {
                    self.metrics.http_closed.get_or_create(&KindLabel { kind: "write-stall" }).inc();
                    return Err(Cut);
                }
            }
        }
        Ok(())
    }

    /// Ends the body, which ends with the connection.
    async fn finish(&mut self) {
        // A peer that is gone needs no end.
        self.socket.shutdown().await.unwrap_or_default();
    }
}

/// Streams that began together do not beat together.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.5 + fastrand::f64() / 2.0)
}
