//! The servers under load, each a process of its own that answers questions about itself on standard output.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rusqlite::Connection;
use sluice::clock::Clock;
use sluice::config::Config;
use sluice::config::load::assemble;
use sluice::http::PublicState;
use sluice::http::listener::{Limits, Listener};
use sluice::intake::Intake;
use sluice::lifecycle::Tasks;
use sluice::order::OrderId;
use sluice::outbox::Outbox;
use sluice::route::Rules;
use sluice::status::Status;
use sluice::telemetry::Metrics;
use tokio_util::sync::CancellationToken;

use super::carry::Relay;
use super::{bare, drain, orders, overload, report};

/// Names a PostgreSQL in the folder of an arm, which then takes the place of the file.
pub(crate) const DATABASE_FILE: &str = "database";
/// What a server is asked for on standard input.
const USAGE: &str = "usage";

/// What a server says about itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) orders: u64,
    pub(crate) syncs: u64,
    pub(crate) commits: u64,
    pub(crate) statements: u64,
}

/// A running server. Ends when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn start(arm: &str, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", arm]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start a server")?;
        let ask = child.stdin.take().context("its standard input")?;
        let mut answers = BufReader::new(child.stdout.take().context("its standard output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("{arm} did not start"))?;
        Ok(Self { address, child, ask, answers })
    }

    pub(crate) fn usage(&mut self) -> anyhow::Result<Usage> {
        writeln!(self.ask, "{USAGE}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [cpu, orders, syncs, commits, statements] = numbers[..] else { anyhow::bail!("an odd answer: {line}") };
        Ok(Usage { cpu: Duration::from_micros(cpu), orders, syncs, commits, statements })
    }

    /// Memory of its own, without mapped files, in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The configuration of every arm: the defaults on a database of its own, or on the one that its folder names.
pub(crate) fn config(folder: &Path) -> anyhow::Result<Config> {
    let mut config = assemble(None, [])?;
    config.database.url = match std::fs::read_to_string(folder.join(DATABASE_FILE)) {
        Ok(url) => url,
        Err(_) => format!("sqlite://{}", folder.join("orders.db").display()),
    };
    config.http.connections_max = 20_000;
    config.intake.backlog_max = u64::MAX / 4;
    Ok(config)
}

/// Runs an arm until standard input ends.
pub(crate) fn serve(arm: &str, folder: &Path) -> anyhow::Result<()> {
    let config = config(folder)?;
    let metrics = Arc::new(Metrics::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _context = runtime.enter();
    let database = folder.join("orders.db");
    let tasks = Tasks::new(CancellationToken::new());
    let router = match arm {
        "without-storage" => bare::without_storage()?,
        "one-transaction-each" => bare::one_transaction_each(&database)?,
        "axum-streams" => {
            let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
            println!("{}", listener.local_addr()?);
            tasks.spawn("axum", async move { axum::serve(listener, bare::axum_streams()).await.unwrap_or_default() });
            return answer(&metrics, &database);
        }
        "gateway-carrying" | "gateway-full" | "gateway-small" => {
            let config = overload::config(config.clone(), folder, arm)?;
            runtime.block_on(carrying(&config, &metrics, &tasks))?
        }
        _ => runtime.block_on(gateway(&config, folder, arm == "gateway-with-orders", &metrics))?,
    };
    let listener = runtime.block_on(Listener::bind("127.0.0.1:0".parse()?, Limits::of(&config.http)))?;
    println!("{}", listener.local_addr()?);
    tasks.spawn("http", listener.serve(router, tasks.clone(), Arc::clone(&metrics), tasks.stop_token()));
    answer(&metrics, &database)
}

/// The gateway's own public listener, with the relay paused.
async fn gateway(
    config: &Config,
    folder: &Path,
    has_orders: bool,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<axum::Router> {
    let clock = Clock::system();
    let outbox = Outbox::open(&config.database, Rules::new(), clock.clone(), Arc::clone(metrics)).await?;
    let intake = Intake::new(outbox.clone(), config.intake.clone(), Arc::clone(metrics));
    if has_orders {
        let ids: Vec<String> = post(&intake, super::streams::STREAMS).await?.iter().map(OrderId::to_string).collect();
        std::fs::write(folder.join("ids"), ids.join("\n"))?;
    }
    let state = PublicState {
        intake,
        status: Status::new(outbox),
        routes: config.route.clone().into(),
        http: Arc::new(config.http.clone()),
        metrics: Arc::clone(metrics),
        clock,
        stop: CancellationToken::new(),
    };
    Ok(sluice::http::public_router(state)?)
}

/// The gateway's own public listener, with its relay to a broker elsewhere.
async fn carrying(config: &Config, metrics: &Arc<Metrics>, tasks: &Tasks) -> anyhow::Result<axum::Router> {
    let clock = Clock::system();
    let outbox = Outbox::open(&config.database, drain::rules(config), clock.clone(), Arc::clone(metrics)).await?;
    let plugins = drain::host(config, metrics)?;
    Relay::connect(config, &outbox, plugins, clock.clone(), metrics).await?.run_in(tasks);
    let state = PublicState {
        intake: Intake::new(outbox.clone(), config.intake.clone(), Arc::clone(metrics)),
        status: Status::new(outbox),
        routes: config.route.clone().into(),
        http: Arc::new(config.http.clone()),
        metrics: Arc::clone(metrics),
        clock,
        stop: CancellationToken::new(),
    };
    Ok(sluice::http::public_router(state)?)
}

/// Takes so many orders in.
pub(crate) async fn post(intake: &Intake, count: usize) -> anyhow::Result<Vec<OrderId>> {
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let numbers = ids.len()..count.min(ids.len() + 1000);
        for accepted in intake.accept_all(numbers.map(orders::asked).collect()).await {
            ids.push(accepted?.id);
        }
    }
    Ok(ids)
}

fn answer(metrics: &Metrics, database: &Path) -> anyhow::Result<()> {
    for line in std::io::stdin().lines() {
        if line? == USAGE {
            let cpu = report::cpu_of_process().as_micros();
            let orders = count(database).unwrap_or(0);
            let counters = [&metrics.outbox_syncs, &metrics.outbox_commits, &metrics.outbox_statements];
            let [syncs, commits, statements] = counters.map(|counter| counter.get());
            println!("{cpu} {orders} {syncs} {commits} {statements}");
        }
    }
    Ok(())
}

fn count(database: &Path) -> anyhow::Result<u64> {
    let rows: i64 = Connection::open(database)?.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?;
    Ok(u64::try_from(rows)?)
}
