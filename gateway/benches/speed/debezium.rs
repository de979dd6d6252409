//! DEBEZIUM: draining beside the embedded Debezium engine with its outbox event router, which keeps no status and runs no
//! plugin; and the time from commit to Kafka of both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rustix::process::{Pid, Signal, kill_process};
use sluice::config::Config;
use sqlx::{Connection, Executor, PgConnection};

use super::drain::{self, Drained, PLUGIN};
use super::node::Node;
use super::report::{self, Ratios, percentile};
use super::services::{self, Kafka, Postgres, block_on, count_records};
use super::{downstream, load, orders, server};

/// Folder of the peers' scripts: `debezium/setup.sh`, `up.sh`, `down.sh`.
const PEERS: &str = "SLUICE_BENCH_PEERS";
/// Where those scripts expect Kafka, and where they put what they start.
const BROKER: &str = "127.0.0.1:19092";
const DATABASE: &str = "postgres://postgres@127.0.0.1:21030/debezium";
const TOPIC: &str = "peer-debezium";
/// Orders that both drain.
const ROWS: (&str, u64) = ("SLUICE_BENCH_ROWS", 100_000);
const ROUNDS: usize = 5;
/// Its own time between two looks: what it has by default, and the shortest that others use.
const POLLS_MS: [&str; 2] = ["500", "10"];
/// Orders per second while commit to Kafka is timed, and how many.
const RATE: u32 = 50;
const TIMED: u32 = 1_000;
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run() -> anyhow::Result<()> {
    let rows = usize::try_from(services::number(ROWS.0, ROWS.1)?)?;
    report::title(&format!(
        "DEBEZIUM: draining {rows} orders through order-rules, against Debezium's embedded engine; PostgreSQL, real Kafka"
    ));
    let Some(peers) = std::env::var_os(PEERS).map(PathBuf::from) else {
        services::skipped("DEBEZIUM", &format!("the scripts of the peers: {PEERS}=FOLDER, and Kafka at {BROKER}"));
        return Ok(());
    };
    let (Some(kafka), Some(postgres)) = (Kafka::find("DEBEZIUM"), Postgres::start("DEBEZIUM")?) else { return Ok(()) };
    ensure!(kafka.address == BROKER, "Debezium's relay looks for Kafka at {BROKER}, not at {}", kafka.address);
    let peer = Peer { scripts: peers.join("debezium") };
    peer.script("setup.sh", "500")?;
    let (mut rates, mut firsts) = (Ratios::default(), true);
    peer.script("up.sh", "500")?;
    for round in 0..=report::rounds(ROUNDS)? {
        let probe = report::probe(Path::new("."))?;
        let theirs = peer.drain(&kafka, rows)?;
        // Meanwhile it looks at an idle server of its own now and then: one that is frozen for a minute is cut off there.
        let ours = ours(&kafka, &postgres, rows)?;
        if std::mem::take(&mut firsts) {
            continue;
        }
        println!("round {round}: {probe}; ours {ours:.0} rows/s, Debezium {theirs:.0} rows/s");
        rates.add(ours / theirs);
    }
    rates.print("DEBEZIUM rows/s, ours with order-rules and status / Debezium", ">= 0.3");
    peer.script("down.sh", "500")?;
    latencies(&kafka, &postgres, &peer)
}

/// The engine in its own process, on a database of its own.
struct Peer {
    scripts: PathBuf,
}

impl Peer {
    fn script(&self, name: &str, poll: &str) -> anyhow::Result<()> {
        let status = Command::new("bash").arg(self.scripts.join(name)).env("POLL", poll).status()?;
        ensure!(status.success(), "{name} failed");
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let folder = std::env::var_os("PEERS_TMP").map_or_else(|| PathBuf::from("/tmp/peers"), PathBuf::from);
        let pid = std::fs::read_to_string(folder.join("debezium.pid"))?;
        kill_process(Pid::from_raw(pid.trim().parse()?).context("a process id")?, signal)?;
        Ok(())
    }

    /// Rows per second of what was committed while it was frozen.
    fn drain(&self, kafka: &Kafka, count: usize) -> anyhow::Result<f64> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &kafka.address).set("group.id", "bench-ends").create()?;
        let before = count_records(&consumer, TOPIC)?;
        self.signal(Signal::STOP)?;
        block_on(async {
            let mut session = PgConnection::connect(DATABASE).await?;
            for first in (0..count).step_by(1000) {
                let rows = first..count.min(first + 1000);
                let insert = sqlx::query(
                    "INSERT INTO outbox (aggregateid, payload) SELECT * FROM unnest($1::text[], $2::text[])",
                )
                .bind(rows.clone().map(orders::customer).collect::<Vec<_>>())
                .bind(rows.map(orders::body).collect::<Vec<_>>());
                session.execute(insert).await?;
            }
            session.close().await?;
            anyhow::Ok(())
        })??;
        let begun = Instant::now();
        self.signal(Signal::CONT)?;
        while count_records(&consumer, TOPIC)? < before + count as u64 {
            ensure!(begun.elapsed() < LIMIT, "Debezium does not finish");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }
}

fn config(kafka: &Kafka, postgres: &Postgres, database: &str) -> anyhow::Result<Config> {
    block_on(postgres.create(database))??;
    let mut config = server::config(Path::new("."))?;
    config.database.url = postgres.url(database);
    config.route[0].plugins = vec![PLUGIN.to_owned()];
    block_on(kafka.adapt(&mut config))??;
    Ok(config)
}

fn ours(kafka: &Kafka, postgres: &Postgres, count: usize) -> anyhow::Result<f64> {
    let config = config(kafka, postgres, "drained")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let took = runtime.block_on(async {
        drain::fill(&config, count).await?;
        let Drained { took, .. } = drain::drain(&config, count).await?;
        anyhow::Ok(took)
    })?;
    drop(runtime);
    block_on(kafka.forget(&config))??;
    block_on(postgres.run("postgres", "DROP DATABASE drained WITH (FORCE)"))??;
    Ok(took.rate())
}

/// Commit to a consumer, at a low rate: ours through the whole gateway and order-rules, theirs from the outbox alone.
fn latencies(kafka: &Kafka, postgres: &Postgres, peer: &Peer) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(".")?;
    let config = config(kafka, postgres, "timed")?;
    let node = Node::start(&config, &folder.path().join("node"))?;
    for poll in POLLS_MS {
        peer.script("up.sh", poll)?;
        let mut ratios = Ratios::default();
        for round in 0..=report::rounds(ROUNDS)? {
            let probe = report::probe(folder.path())?;
            let mut socket = std::net::TcpStream::connect(node.address)?;
            socket.set_nodelay(true)?;
            let mut ours = timed(kafka, services::topic_of(&config.route[0]), |number| {
                let body = orders::body_of(&number.to_string(), &number.to_string());
                load::one(&mut socket, &orders::request_of(&body))
            })?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut session = runtime.block_on(PgConnection::connect(DATABASE))?;
            let mut theirs = timed(kafka, TOPIC, |number| {
                let insert = sqlx::query("INSERT INTO outbox (aggregateid, payload) VALUES ($1, $2)")
                    .bind(number.to_string())
                    .bind(orders::body_of(&number.to_string(), &number.to_string()));
                runtime.block_on(session.execute(insert)).map(|_| ()).map_err(anyhow::Error::from)
            })?;
            let of = |own: &mut Vec<f64>| [0.5, 0.99].map(|share| percentile(own, share));
            let ([p50, p99], [their_p50, their_p99]) = (of(&mut ours), of(&mut theirs));
            if round > 0 {
                println!(
                    "round {round}: {probe}; commit to a consumer, ours p50 {p50:.2} p99 {p99:.2} ms, Debezium p50 {their_p50:.2} p99 {their_p99:.2} ms"
                );
                ratios.add(p99 / their_p99);
            }
        }
        ratios.print(
            &format!("DEBEZIUM p99 of commit to a consumer at 50/s, ours / Debezium polling every {poll} ms"),
            "< 1",
        );
        peer.script("down.sh", poll)?;
    }
    node.stop()?;
    block_on(kafka.forget(&config))?
}

/// Keeps orders one by one at the rate; milliseconds from when each is kept until it is read from the topic.
fn timed(kafka: &Kafka, topic: &str, mut keep: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    let reader = downstream::gather(kafka, topic)?;
    let first = fastrand::u64(1 << 40..1 << 50);
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    let mut kept = Vec::new();
    for number in 0..TIMED {
        let due = begun + Duration::from_secs(1) * number / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        keep(first + u64::from(number))?;
        kept.push(Instant::now());
    }
    // What the longest poll may have left.
    std::thread::sleep(Duration::from_secs(2));
    let mut times = Vec::new();
    for seen in reader.stop()? {
        let text = String::from_utf8_lossy(&seen.value);
        let number = text.split("invoiceNo").nth(1).unwrap_or_default().chars().filter(char::is_ascii_digit);
        // The first digits behind the name of the member; theirs is a string within a string.
        let number: String = number.take(first.to_string().len()).collect();
        let place = number.parse::<u64>().ok().and_then(|number| number.checked_sub(first));
        if let Some(at) = place.and_then(|place| kept.get(usize::try_from(place).ok()?)) {
            times.push(seen.at.saturating_duration_since(*at).as_secs_f64() * 1e3);
        }
    }
    ensure!(times.len() == kept.len(), "{} of {} were read from {topic}", times.len(), kept.len());
    Ok(times)
}
