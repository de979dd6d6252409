//! Clients that post orders in an open loop and follow each on a stream, at the same node or at another.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sluice::clock::{Clock, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::{load, orders, report};

/// What became of the orders of a while.
pub(crate) struct Window {
    /// Milliseconds from when an order was due to be posted to its `202`, and to its final event.
    pub(crate) accepted: Vec<f64>,
    pub(crate) ended: Vec<f64>,
    /// Milliseconds from when a transaction began to the arrival of its event, of those that the stream waited for.
    pub(crate) heard: Vec<f64>,
    /// Share of a core that posting and listening took.
    pub(crate) generator: f64,
}

/// Connections that are open and have nothing to do.
type Spare = Rc<std::cell::RefCell<VecDeque<TcpStream>>>;

/// Posts so many orders a second at one place, whatever becomes of those before, and follows each at the other.
pub(crate) fn follow(posts: SocketAddr, streams: SocketAddr, rate: u32, span: Duration) -> anyhow::Result<Window> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (began, cpu) = (Instant::now(), report::cpu_of_thread());
    let orders = runtime.block_on(local.run_until(async {
        let spare = Spare::default();
        let mut tasks = Vec::new();
        let begun = tokio::time::Instant::now();
        for number in 0..u32::try_from(span.as_millis())? * rate / 1000 {
            let due = begun + Duration::from_secs(1) * number / rate;
            tokio::time::sleep_until(due).await;
            let number = usize::try_from(number)?;
            tasks.push(tokio::task::spawn_local(order(posts, streams, Rc::clone(&spare), number, due.into_std())));
        }
        let mut orders = Vec::new();
        for task in tasks {
            orders.push(task.await??);
        }
        anyhow::Ok(orders)
    }))?;
    let generator = (report::cpu_of_thread() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let mut window = Window { accepted: Vec::new(), ended: Vec::new(), heard: Vec::new(), generator };
    for order in orders {
        window.accepted.push(order.accepted);
        window.ended.push(order.ended);
        window.heard.extend(order.heard);
    }
    Ok(window)
}

struct Order {
    accepted: f64,
    ended: f64,
    heard: Vec<f64>,
}

async fn order(
    posts: SocketAddr,
    streams: SocketAddr,
    spare: Spare,
    number: usize,
    due: Instant,
) -> anyhow::Result<Order> {
    let kept = spare.borrow_mut().pop_front();
    let mut socket = match kept {
        Some(socket) => socket,
        None => connect(posts).await?,
    };
    socket.write_all(&orders::request(number)).await?;
    let (mut buffer, mut filled) = (vec![0; 16_384], 0);
    while !load::is_whole(&buffer[..filled])? {
        let count = socket.read(&mut buffer[filled..]).await?;
        ensure!(count > 0, "the gateway closed the connection");
        filled += count;
    }
    let accepted = due.elapsed().as_secs_f64() * 1e3;
    let text = String::from_utf8_lossy(&buffer[..filled]);
    ensure!(text.starts_with("HTTP/1.1 202"), "not accepted: {text}");
    let place = text.lines().find_map(|line| line.strip_prefix("location: ")).context("no location")?.to_owned();
    spare.borrow_mut().push_back(socket);
    let mut stream = connect(streams).await?;
    let head = format!("GET {place}/events HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (mut told, mut heard) = (None, Vec::new());
    filled = 0;
    loop {
        let text = String::from_utf8_lossy(&buffer[..filled]);
        let moments = moments(&text);
        // The first are what was there already when the stream began.
        if let Some(told) = told
            && moments.len() > told
        {
            let now = Clock::system().now();
            for moment in &moments[told..] {
                heard.push(now.since(moment.parse::<Timestamp>()?).as_secs_f64() * 1e3);
            }
        }
        if !moments.is_empty() {
            told = Some(moments.len());
        }
        if let Some((_, rest)) = text.split_once(r#""final":true"#)
            && rest.contains("\n\n")
        {
            ensure!(text.contains(r#""status":"VALIDATED""#), "not validated: {text}");
            return Ok(Order { accepted, ended: due.elapsed().as_secs_f64() * 1e3, heard });
        }
        let count = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer[filled..])).await??;
        ensure!(count > 0, "the stream ended early: {}", String::from_utf8_lossy(&buffer[..filled]));
        filled += count;
    }
}

/// When each order's version that stands in a text of events was written.
fn moments(text: &str) -> Vec<&str> {
    let after = text.split(r#""updatedAt":""#).skip(1);
    after.filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
