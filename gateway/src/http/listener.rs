//! Accepts connections, as many as are allowed at a time, and drives each under its limits.
//!
//! A peer that says nothing, drips, or does not read is cut; one that is slow but moves is served.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::connection::{self, Shared};
use crate::config::HttpConfig;
use crate::lifecycle::Tasks;
use crate::telemetry::{Metrics, chain};

/// How long to wait after an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one listener grants its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections_max: usize,
    /// From the accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its head, however the bytes drip.
    pub header: Duration,
    pub header_bytes_max: usize,
    /// How long a peer may leave an answer unread.
    pub write_stall: Duration,
    /// From an answer to the first byte of the next request.
    pub keep_alive: Duration,
}

impl Limits {
    /// The limits of the configuration.
    #[must_use]
    pub fn of(config: &HttpConfig) -> Self {
        Self {
            connections_max: config.connections_max,
            first_byte: config.first_byte_timeout.0,
            header: config.header_timeout.0,
            header_bytes_max: config.header_bytes_max.0,
            write_stall: config.write_stall_timeout.0,
            keep_alive: config.keep_alive_timeout.0,
        }
    }
}

/// A bound port that is not yet served.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    limits: Limits,
}

impl Listener {
    /// Binds the port. Nothing is accepted before [`Listener::serve`].
    pub async fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, limits })
    }

    /// Where it listens; tells the port where the configuration said 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`. Connections run in `tasks`: on `stop` they finish the request in flight, idle ones close
    /// and streams end; waiting for `tasks` waits for them.
    pub async fn serve(self, router: axum::Router, tasks: Tasks, metrics: Arc<Metrics>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits.connections_max.min(Semaphore::MAX_PERMITS)));
        let shared = Shared { router, limits: self.limits, tasks, metrics, stop };
        let accepting = async {
            loop {
                // A place first: what cannot be served waits in the kernel and costs nothing here.
                let Ok(permit) = Arc::clone(&places).acquire_owned().await else { return };
                let socket = accept(&self.listener).await;
                shared.tasks.spawn_short(connection::drive(socket, shared.clone(), permit));
            }
        };
        // Both may be dropped: a connection that was accepted is already its own task.
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = accepting => {}
        }
    }
}

/// The next connection, whatever happens to those before it.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                if let Err(error) = socket.set_nodelay(true) {
                    debug!(error = %chain(&error), "a connection keeps Nagle's algorithm");
                }
                return socket;
            }
            Err(error) if is_of_one_peer(&error) => {
                debug!(error = %chain(&error), "a connection was gone before it was accepted")
            }
            Err(error) => {
                warn!(error = %chain(&error), "accepting pauses");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

#[cfg(test)]
mod tests;
