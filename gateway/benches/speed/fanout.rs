//! S18: from a service's answer to the event at the client, with thousands of other streams open and with a few.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::downstream::Service;
use super::node::Node;
use super::report::{self, Ratios, percentile};
use super::services::{Kafka, Postgres, block_on};
use super::streams::{self, STREAMS};
use super::{orders, server};

const FEW: usize = 10;
/// Events that are timed in each half of a round, one after the other.
const EVENTS: usize = 300;
const ROUNDS: usize = 7;
/// Between two answers.
const PAUSE: Duration = Duration::from_millis(10);
/// Orders of one request.
const BATCH: usize = 1000;

pub(crate) fn run() -> anyhow::Result<()> {
    report::title(
        "S18: a service's answer to the event at the client, with 9,000 other streams open / with 10; PostgreSQL, real Kafka",
    );
    let (Some(kafka), Some(postgres)) = (Kafka::find("S18"), Postgres::start("S18")?) else { return Ok(()) };
    streams::raise_limit();
    let folder = tempfile::tempdir_in(".")?;
    let mut config = server::config(Path::new("."))?;
    block_on(postgres.create("streams"))??;
    config.database.url = postgres.url("streams");
    config.route[0].plugins.clear();
    let replies = config.route[0].replies.as_mut().context("a route with replies")?;
    replies.deadline = sluice::config::Span(Duration::from_secs(24 * 3600));
    block_on(kafka.adapt(&mut config))??;
    let node = Node::start(&config, &folder.path().join("node"))?;
    let rounds = report::rounds(ROUNDS)?;
    let mut ids = post(&node, STREAMS + 2 * EVENTS * (rounds + 1))?;
    node.drained()?;
    let service = Service::new(&kafka, &config.route[0])?;
    let others = ids.split_off(ids.len() - STREAMS);
    let (mut p99s, mut p50s) = (Ratios::default(), Ratios::default());
    for round in 0..=rounds {
        let probe = report::probe(folder.path())?;
        let mut open: Vec<TcpStream> = Vec::new();
        let mut times = Vec::new();
        for count in [FEW, STREAMS] {
            for id in &others[open.len()..count] {
                open.push(streams::stream(node.address, id)?);
            }
            // What opening them has left to do is not measured.
            std::thread::sleep(Duration::from_secs(1));
            let own = ids.split_off(ids.len() - EVENTS);
            times.push(events(&node, &service, &own)?);
        }
        let [few, many] = &mut times[..] else { anyhow::bail!("two halves") };
        let of = |own: &mut Vec<f64>| [0.5, 0.99].map(|share| percentile(own, share));
        let (few, many) = (of(few), of(many));
        println!(
            "round {round}: {probe}; with {FEW} streams p50 {:.2} p99 {:.2} ms, with {STREAMS} p50 {:.2} p99 {:.2} ms",
            few[0], few[1], many[0], many[1]
        );
        if round > 0 {
            p50s.add(many[0] / few[0]);
            p99s.add(many[1] / few[1]);
        }
    }
    p99s.print("S18 p99, answer to event, 9,000 streams / 10", "<= 1.3");
    p50s.print("S18 p50, answer to event, 9,000 streams / 10", "none");
    node.stop()?;
    block_on(kafka.forget(&config))?
}

/// Answers these orders one by one; milliseconds from the answer to the final event on a stream of its own.
fn events(node: &Node, service: &Service, ids: &[String]) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(ids.len());
    for id in ids {
        let mut stream = streams::stream(node.address, id)?;
        std::thread::sleep(PAUSE);
        let begun = Instant::now();
        service.answer(id, id.as_bytes())?;
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains(r#""final":true"#) {
            let count = stream.read(&mut buffer)?;
            ensure!(count > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Posts so many orders in large requests; returns their ids.
fn post(node: &Node, count: usize) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let lines: Vec<String> = (ids.len()..count.min(ids.len() + BATCH)).map(orders::body).collect();
        let body = lines.join("\n");
        let mut socket = TcpStream::connect(node.address)?;
        write!(
            socket,
            "POST /orders HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let before = ids.len();
        for line in answer.lines().filter(|line| line.starts_with(r#"{"line""#)) {
            let line: Value = serde_json::from_str(line)?;
            ids.push(line["order"]["id"].as_str().with_context(|| format!("not accepted: {line}"))?.to_owned());
        }
        ensure!(ids.len() == before + lines.len(), "not all were accepted: {answer}");
    }
    Ok(ids)
}
