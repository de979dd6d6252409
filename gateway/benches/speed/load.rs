//! Posts orders over raw sockets, as many as are answered: closed loop, prepared requests, one thread.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{orders, report};

/// What refused clients are told to wait; they wait about so long.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a round came to.
pub(crate) struct Done {
    pub(crate) accepted: u64,
    pub(crate) taken: Duration,
    /// CPU time of this side.
    pub(crate) cpu: Duration,
}

impl Done {
    pub(crate) fn rate(&self) -> f64 {
        self.accepted as f64 / self.taken.as_secs_f64()
    }

    /// Share of one core that this side used.
    pub(crate) fn load(&self) -> f64 {
        self.cpu.as_secs_f64() / self.taken.as_secs_f64()
    }
}

/// What clients do with an answer that is no `202`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// None is expected.
    Strict,
    /// They come again at once, and only such answers are expected.
    Rude,
    /// They come again after the time they are told.
    Patient,
}

/// Posts for `span` over so many connections; each finishes its last request.
pub(crate) fn run(address: SocketAddr, connections: usize, span: Duration) -> anyhow::Result<Done> {
    run_with(address, connections, span, Manners::Strict)
}

/// The same with clients that may be refused. Counts what was accepted; of rude ones, what was refused.
pub(crate) fn run_with(
    address: SocketAddr,
    connections: usize,
    span: Duration,
    manners: Manners,
) -> anyhow::Result<Done> {
    let requests: Rc<[Vec<u8>]> = (0..1024).map(orders::request).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (begun, cpu) = (Instant::now(), report::cpu_of_thread());
    let end = begun + span;
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = (0..connections)
        .map(|number| local.spawn_local(client(address, Rc::clone(&requests), number * 37, end, manners)))
        .collect();
    let accepted = runtime.block_on(local.run_until(async {
        let mut accepted = 0;
        for task in tasks {
            accepted += task.await.context("a connection's task")??;
        }
        Ok::<_, anyhow::Error>(accepted)
    }))?;
    Ok(Done { accepted, taken: begun.elapsed(), cpu: report::cpu_of_thread().saturating_sub(cpu) })
}

async fn client(
    address: SocketAddr,
    requests: Rc<[Vec<u8>]>,
    first: usize,
    end: Instant,
    manners: Manners,
) -> anyhow::Result<u64> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; 4096];
    let mut counted = 0;
    while Instant::now() < end {
        socket.write_all(&requests[(first + counted) % requests.len()]).await?;
        let mut filled = 0;
        while !is_whole(&buffer[..filled])? {
            let count = socket.read(&mut buffer[filled..]).await?;
            ensure!(count > 0, "the server closed the connection");
            filled += count;
        }
        match (manners, is_accepted(&buffer[..filled])) {
            (Manners::Strict | Manners::Patient, true) | (Manners::Rude, false) => counted += 1,
            (Manners::Patient, false) => {
                let pause = Duration::from_secs_f64(RETRY_AFTER.as_secs_f64() * (0.5 + fastrand::f64()));
                tokio::time::sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
            }
            (Manners::Strict, false) | (Manners::Rude, true) => {
                anyhow::bail!("not as expected: {}", String::from_utf8_lossy(&buffer[..filled]))
            }
        }
    }
    Ok(counted as u64)
}

fn is_accepted(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.1 202")
}

/// Whether an answer is complete.
pub(crate) fn is_whole(bytes: &[u8]) -> anyhow::Result<bool> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let text = std::str::from_utf8(&bytes[..head])?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    Ok(bytes.len() >= head + 4 + length.context("no length")?.parse::<usize>()?)
}

/// Times single posts on one connection, in milliseconds.
pub(crate) fn latencies(socket: &mut std::net::TcpStream, count: usize) -> anyhow::Result<Vec<f64>> {
    let request = orders::request(1);
    (0..count)
        .map(|_| {
            let begun = Instant::now();
            one(socket, &request)?;
            Ok(begun.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

/// Posts one order and waits for its `202`.
pub(crate) fn one(socket: &mut std::net::TcpStream, request: &[u8]) -> anyhow::Result<()> {
    socket.write_all(request)?;
    let (mut buffer, mut filled) = ([0; 4096], 0);
    while !is_whole(&buffer[..filled])? {
        let count = socket.read(&mut buffer[filled..])?;
        ensure!(count > 0, "the server closed the connection");
        filled += count;
    }
    ensure!(is_accepted(&buffer[..filled]), "not accepted: {}", String::from_utf8_lossy(&buffer[..filled]));
    Ok(())
}
