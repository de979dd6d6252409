//! A socket under its deadlines: a silent, dripping or stalled peer turns into an I/O error.
//!
//! Deadlines are plain moments; a timer is armed only when the socket has to wait, so a busy connection pays nothing
//! for them. While a request is being answered only writes are watched: bodies have a limit of their own.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::listener::Limits;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

/// How much of a request's head is kept for a second look.
const HEAD_BYTES_KEPT: usize = 4 << 10;

/// What the peer is expected to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Send the first byte of the connection.
    Silent,
    /// Finish the head of a request.
    Head,
    /// Wait for the answer.
    Request,
    /// The answer is made: take it and begin the next request.
    Answered,
}

/// What the socket, the service and the driver of one connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Signals {
    phase: AtomicU8,
    write_waits: AtomicBool,
    /// The beginning of the present request as it was read.
    head: Mutex<Vec<u8>>,
}

impl Signals {
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Silent,
            1 => Phase::Head,
            2 => Phase::Request,
            _ => Phase::Answered,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn keep_head(&self, bytes: &[u8], is_first: bool) {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if is_first {
            head.clear();
        }
        let left = HEAD_BYTES_KEPT - head.len();
        head.extend_from_slice(&bytes[..bytes.len().min(left)]);
    }

    /// Whether the present request came with this header, also where hyper took it away.
    pub(super) fn head_has(&self, name: &[u8]) -> bool {
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = head.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
        lines.into_iter().any(|line| {
            let at = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            line[..at].eq_ignore_ascii_case(name)
        })
    }

    /// Whether bytes of an answer could not be written yet.
    pub(super) fn write_waits(&self) -> bool {
        self.write_waits.load(Ordering::Relaxed)
    }
}

/// A TCP stream with the limits of its listener.
pub(super) struct Socket {
    stream: TcpStream,
    limits: Limits,
    signals: Arc<Signals>,
    metrics: Arc<Metrics>,
    /// The phase that `read_deadline` belongs to.
    watched: Phase,
    read_deadline: Option<Instant>,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, limits: Limits, signals: Arc<Signals>, metrics: Arc<Metrics>) -> Self {
        let read_deadline = Some(Instant::now() + limits.first_byte);
        Self {
            stream,
            limits,
            signals,
            metrics,
            watched: Phase::Silent,
            read_deadline,
            read_timer: None,
            write_timer: None,
        }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn closed(&self, kind: &'static str) -> io::Error {
        self.metrics.http_closed.get_or_create(&KindLabel { kind }).inc();
        io::ErrorKind::TimedOut.into()
    }

    /// Notes that the service moved on since the last look.
    fn follow_phase(&mut self) {
        let phase = self.signals.phase();
        if phase == self.watched {
            return;
        }
        self.watched = phase;
        self.read_deadline = match phase {
            Phase::Silent => Some(Instant::now() + self.limits.first_byte),
            Phase::Head => Some(Instant::now() + self.limits.header),
            Phase::Request => None,
            Phase::Answered => Some(Instant::now() + self.limits.keep_alive),
        };
    }

    /// Ready once the deadline for reading has passed. The timer may stand earlier than the deadline, never later.
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.read_deadline else {
            return Poll::Pending;
        };
        let timer = self.read_timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// Guards the result of a write: a wait that is too long becomes an error.
    fn watch_write(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            if self.write_timer.take().is_some() {
                self.signals.write_waits.store(false, Ordering::Relaxed);
            }
            if self.watched == Phase::Answered {
                self.read_deadline = Some(Instant::now() + self.limits.keep_alive);
            }
            return result;
        }
        self.signals.write_waits.store(true, Ordering::Relaxed);
        let stall = self.limits.write_stall;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(self.closed("write-stall")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        self.follow_phase();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                let is_new = matches!(self.watched, Phase::Silent | Phase::Answered);
                if buffer.filled().len() > before && self.watched != Phase::Request {
                    self.signals.keep_head(&buffer.filled()[before..], is_new);
                    self.signals.enter(Phase::Head);
                    self.follow_phase();
                }
                Poll::Ready(result)
            }
            // A peer that is still taking an answer is watched by its writes.
            Poll::Pending if self.write_timer.is_some() => Poll::Pending,
            Poll::Pending => {
                ready!(self.poll_read_deadline(cx));
                Poll::Ready(Err(match self.watched {
                    Phase::Silent => self.closed("first-byte"),
                    Phase::Head => self.closed("header"),
                    Phase::Request | Phase::Answered => self.closed("idle"),
                }))
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.follow_phase();
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.follow_phase();
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watch_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper does not read again after an answer where reading already waits, so the timer is armed here.
        self.follow_phase();
        if self.poll_read_deadline(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
