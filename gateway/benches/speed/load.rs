//! Posts orders over raw sockets, as many as are answered: closed loop, prepared requests, one thread.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{orders, report};

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

/// Posts for `span` over so many connections; each finishes its last request.
pub(crate) fn run(address: SocketAddr, connections: usize, span: Duration) -> anyhow::Result<Done> {
    let requests: Rc<[Vec<u8>]> = (0..1024).map(orders::request).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (begun, cpu) = (Instant::now(), report::cpu_of_thread());
    let end = begun + span;
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = (0..connections)
        .map(|number| local.spawn_local(one(address, Rc::clone(&requests), number * 37, end)))
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

async fn one(address: SocketAddr, requests: Rc<[Vec<u8>]>, first: usize, end: Instant) -> anyhow::Result<u64> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; 4096];
    let mut accepted = 0;
    while Instant::now() < end {
        socket.write_all(&requests[(first + accepted) % requests.len()]).await?;
        let mut filled = 0;
        while !is_whole(&buffer[..filled])? {
            let count = socket.read(&mut buffer[filled..]).await?;
            ensure!(count > 0, "the server closed the connection");
            filled += count;
        }
        accepted += 1;
    }
    Ok(accepted as u64)
}

/// Whether an answer is complete; anything but a `202` is an error.
fn is_whole(bytes: &[u8]) -> anyhow::Result<bool> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    ensure!(bytes.starts_with(b"HTTP/1.1 202"), "not accepted: {}", String::from_utf8_lossy(bytes));
    let text = std::str::from_utf8(&bytes[..head])?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    Ok(bytes.len() >= head + 4 + length.context("no length")?.parse::<usize>()?)
}

/// Times single posts on one connection, in milliseconds.
pub(crate) fn latencies(socket: &mut std::net::TcpStream, count: usize) -> anyhow::Result<Vec<f64>> {
    let request = orders::request(1);
    let mut buffer = [0; 4096];
    (0..count)
        .map(|_| {
            let begun = Instant::now();
            socket.write_all(&request)?;
            let mut filled = 0;
            while !is_whole(&buffer[..filled])? {
                filled += socket.read(&mut buffer[filled..])?;
            }
            Ok(begun.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}
