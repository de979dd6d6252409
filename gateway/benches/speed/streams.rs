//! S17: memory of an idle stream of events, ours against axum's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::ensure;

use super::report::{self, Ratios};
use super::server::Server;

/// Streams in all; the first ones warm the server up and are not counted.
pub(crate) const STREAMS: usize = 9_000;
const WARM_UP: usize = 1_000;
const ROUNDS: usize = 3;

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("S17: memory per idle stream of events, 9,000 streams");
    raise_limit();
    let mut ratios = Ratios::default();
    for round in 1..=ROUNDS {
        let (ours, axum) = (per_stream("gateway-with-orders")?, per_stream("axum-streams")?);
        println!("round {round}: ours {ours:.0} bytes, axum {axum:.0} bytes");
        ratios.add(axum / ours);
    }
    ratios.print("S17 memory per idle stream, axum / ours", ">= 20 (ours <= 1 KiB; <= 4 KiB for now)");
    Ok(())
}

/// Bytes of the server's own memory for each stream beyond the first ones.
fn per_stream(arm: &str) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(arm, folder.path())?;
    let ids = std::fs::read_to_string(folder.path().join("ids")).unwrap_or_default();
    let mut ids = ids.lines().map(str::to_owned).chain(std::iter::repeat("any".to_owned()));
    let mut open = |count: usize| -> anyhow::Result<Vec<TcpStream>> {
        ids.by_ref().take(count).map(|id| stream(server.address, &id)).collect()
    };
    let warm = open(WARM_UP)?;
    let before = settled(&server)?;
    let streams = open(STREAMS - WARM_UP)?;
    let after = settled(&server)?;
    for mut socket in warm.into_iter().chain(streams) {
        socket.set_nonblocking(true)?;
        let read = socket.read(&mut [0; 1]);
        ensure!(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "a stream is not idle");
    }
    Ok((after as f64 - before as f64) / (STREAMS - WARM_UP) as f64)
}

fn settled(server: &Server) -> anyhow::Result<u64> {
    std::thread::sleep(Duration::from_millis(1500));
    server.memory()
}

/// Opens a stream and reads its head and first event.
pub(crate) fn stream(server: SocketAddr, id: &str) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(socket, "GET /orders/{id}/events HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n")?;
    let (mut text, mut buffer) = (Vec::new(), [0; 2048]);
    let is_begun = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        text.split_once("data:").is_some_and(|(_, rest)| rest.contains("\n\n"))
    };
    while !is_begun(&text) {
        let count = socket.read(&mut buffer)?;
        ensure!(count > 0, "no stream: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..count]);
    }
    Ok(socket)
}

/// As many open files as the system allows, for this process and its servers.
pub(crate) fn raise_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        println!("the limit of open files stays: {error}");
    }
}
