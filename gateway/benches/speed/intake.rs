//! S1, S2, S4, S24: taking orders in, against the same handler without storage and against one transaction each.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rusqlite::Connection;

use super::load::{self, Done};
use super::report::{self, Ratios, median};
use super::server::{Server, Usage};

const SPAN: Duration = Duration::from_millis(1500);
const CONNECTIONS: usize = 256;

/// A server, and what was posted to it.
struct Arm {
    server: Server,
    /// Orders answered `202`.
    accepted: u64,
}

struct Round {
    done: Done,
    before: Usage,
    after: Usage,
}

impl Round {
    /// Server CPU per request, in microseconds.
    fn cpu(&self) -> f64 {
        (self.after.cpu - self.before.cpu).as_secs_f64() * 1e6 / self.done.accepted as f64
    }

    fn per_thousand(&self, count: impl Fn(&Usage) -> u64) -> f64 {
        (count(&self.after) - count(&self.before)) as f64 * 1e3 / self.done.accepted as f64
    }
}

impl Arm {
    fn start(arm: &str, folder: &Path) -> anyhow::Result<Self> {
        let own = folder.join(arm);
        std::fs::create_dir(&own)?;
        Ok(Self { server: Server::start(arm, &own)?, accepted: 0 })
    }

    fn round(&mut self, connections: usize, span: Duration) -> anyhow::Result<Round> {
        let before = self.server.usage()?;
        let done = load::run(self.server.address, connections, span)?;
        self.accepted += done.accepted;
        Ok(Round { done, before, after: self.server.usage()? })
    }

    fn check(&mut self) -> anyhow::Result<()> {
        let kept = self.server.usage()?.orders;
        ensure!(kept == self.accepted, "{} orders answered 202, {kept} are kept", self.accepted);
        println!("nothing lost: {kept} answers 202, {kept} orders kept");
        Ok(())
    }
}

pub(crate) fn run() -> anyhow::Result<()> {
    // Beside the sources, since a temporary folder may lie in memory.
    let folder = tempfile::tempdir_in(".")?;
    let folder = folder.path();
    let mut ours = Arm::start("gateway", folder)?;
    throughput(&mut ours, folder)?;
    latency(&mut ours, folder)?;
    ours.check()
}

fn throughput(ours: &mut Arm, folder: &Path) -> anyhow::Result<()> {
    report::title("S1, S2, S24: durable orders, 256 connections, relay paused");
    let mut without = Arm::start("without-storage", folder)?;
    let mut naive = Arm::start("one-transaction-each", folder)?;
    for arm in [&mut *ours, &mut without] {
        arm.round(CONNECTIONS, SPAN / 3)?;
    }
    let mut best = (0.0, 8);
    for connections in [8, 64, 256] {
        let rate = naive.round(connections, SPAN / 3)?.done.rate();
        best = if rate > best.0 { (rate, connections) } else { best };
    }
    println!("one transaction each runs best with {} connections", best.1);
    let (mut rates, mut cpus, mut naives) = (Ratios::default(), Ratios::default(), Ratios::default());
    let (mut syncs, mut commits, mut statements) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=report::ROUNDS {
        let probe = report::probe(folder)?;
        let (own, bare, single) =
            (ours.round(CONNECTIONS, SPAN)?, without.round(CONNECTIONS, SPAN)?, naive.round(best.1, SPAN)?);
        println!(
            "round {round}: {probe}; ours {:.0}/s {:.1} us, without storage {:.0}/s {:.1} us, one transaction each {:.0}/s {:.1} us; generator {:.2} cores",
            own.done.rate(),
            own.cpu(),
            bare.done.rate(),
            bare.cpu(),
            single.done.rate(),
            single.cpu(),
            own.done.load()
        );
        rates.add(own.done.rate() / bare.done.rate());
        cpus.add(bare.cpu() / own.cpu());
        naives.add(own.done.rate() / single.done.rate());
        syncs.push(own.per_thousand(|usage| usage.syncs));
        commits.push(own.per_thousand(|usage| usage.commits));
        statements.push(own.per_thousand(|usage| usage.statements));
    }
    rates.print("S1a rate, ours / without storage", ">= 0.75, at least 0.45");
    cpus.print("S1b server CPU per request, without storage / ours", ">= 0.60, at least 0.40");
    naives.print("S2 rate, ours / one transaction each", ">= 30");
    println!(
        "S24 per 1,000 orders: {:.2} fsyncs, {:.2} commits, {:.0} statements",
        median(&syncs),
        median(&commits),
        median(&statements)
    );
    naive.check()
}

fn latency(ours: &mut Arm, folder: &Path) -> anyhow::Result<()> {
    const POSTS: usize = 300;
    report::title("S4: one post at a time against a bare commit of one row");
    let mut socket = std::net::TcpStream::connect(ours.server.address)?;
    socket.set_nodelay(true)?;
    let conn = Connection::open(folder.join("bare.db"))?;
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    conn.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    let body = super::orders::body(1);
    let mut ratios = Ratios::default();
    for round in 1..=report::ROUNDS {
        let probe = report::probe(folder)?;
        let mut commits = Vec::with_capacity(POSTS);
        for _ in 0..POSTS {
            let begun = Instant::now();
            conn.prepare_cached("INSERT INTO rows (body) VALUES (?1)")?.execute([body.as_bytes()])?;
            commits.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let posts = load::latencies(&mut socket, POSTS)?;
        ours.accepted += POSTS as u64;
        let (post, commit) = (median(&posts), median(&commits));
        println!("round {round}: {probe}; post {post:.3} ms, commit {commit:.3} ms");
        ratios.add(post / commit);
    }
    ratios.print("S4 p50, post / bare commit", "<= 1.15");
    Ok(())
}
