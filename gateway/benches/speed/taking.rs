//! S6, S7: taking orders in on PostgreSQL, against one order per transaction and against COPY; and what waking the relay
//! costs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sluice::clock::{Clock, Timestamp};
use sluice::config::Config;
use sluice::entry::EntryPlace;
use sluice::intake::Intake;
use sluice::order::{OrderId, Slot};
use sluice::outbox::{Outbox, ReadEntries, ReadLimits};
use sluice::telemetry::Metrics;
use sqlx::{Connection, Executor, Row};
use tokio::task::JoinSet;

use super::report::{self, Ratios};
use super::server::Server;
use super::services::Postgres;
use super::{backlog, drain, load, orders, server};

const SPAN: Duration = Duration::from_secs(4);
const CLIENTS: usize = 256;
/// Orders of one transaction of COPY, and how many of those run at the same time.
const COPIED: usize = 512;
const COPIERS: usize = 2;

/// What most would write: one order, one transaction, all three rows in one statement.
const ONE_EACH: &str = r"\set n random(0, 996)
WITH b AS MATERIALIZED (SELECT nextval('numbers') AS base, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS moment),
n AS MATERIALIZED (
    SELECT (lpad(to_hex(moment), 12, '0') || '7' || substr(gen_random_uuid()::text, 16))::uuid AS id, base, moment, order_key, slot, body
    FROM customers, b WHERE number = :n),
o AS (INSERT INTO orders (id, route, order_key, slot, status, accepted_at, updated_at, traceparent, body_at)
    SELECT id, '/orders', order_key, slot, 'PENDING', moment, moment, '00-0123456789abcdef0123456789abcdef-0123456789abcdef-01', base + 1 FROM n),
h AS (INSERT INTO history (order_id, sequence, version, at, status, is_final, entries, body)
    SELECT id, base + 1, 1, moment, 'PENDING', false, '[]', convert_to(body, 'UTF8') FROM n)
INSERT INTO outbox (number, slot, kind, order_id, at) SELECT base + 2, slot, 'order', id, moment FROM n;
";
const NOTIFIED: &str = "BEGIN;\nSELECT pg_notify('orders', '');\nEND;\n";

pub(crate) fn run_intake() -> anyhow::Result<()> {
    report::title(
        "S6: durable orders on PostgreSQL, against one order per transaction (pgbench, 32 clients) and binary COPY",
    );
    let Some(postgres) = Postgres::start("S6")? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir_in(".")?;
    let mut configs = Vec::new();
    for database in ["ours", "http", "each", "copied"] {
        configs.push(runtime.block_on(database_of(&postgres, database))?);
    }
    std::fs::write(folder.path().join(server::DATABASE_FILE), &configs[1].database.url)?;
    let mut http = Server::start("gateway", folder.path())?;
    let script = folder.path().join("each.sql");
    std::fs::write(&script, ONE_EACH)?;
    let [mut ours_each, mut ours_copied, mut http_each, mut cpus] = [(); 4].map(|()| Ratios::default());
    for round in 0..=report::rounds(report::ROUNDS)? {
        let probe = report::probe(folder.path())?;
        let before = report::cpu_of_process() + postgres.cpu()?;
        let ours = runtime.block_on(take_in(&configs[0], Wakes::Off))?;
        let own_cpu =
            (report::cpu_of_process() + postgres.cpu()? - before).as_secs_f64() * 1e6 / (ours * SPAN.as_secs_f64());
        let usage = http.usage()?;
        let over_http = load::run(http.address, CLIENTS, SPAN)?;
        let server_cpu = (http.usage()?.cpu - usage.cpu).as_secs_f64() * 1e6 / over_http.accepted as f64;
        let before = postgres.cpu()?;
        let each = pgbench(&postgres, "each", &script)?;
        let each_cpu = (postgres.cpu()? - before).as_secs_f64() * 1e6 / (each * SPAN.as_secs_f64());
        let copied = runtime.block_on(copy(&postgres, "copied"))?;
        if round == 0 {
            continue;
        }
        println!(
            "round {round}: {probe}; ours {ours:.0}/s ({own_cpu:.0} us CPU with PostgreSQL's), over HTTP {:.0}/s ({server_cpu:.0} us CPU of the server alone), one each {each:.0}/s ({each_cpu:.0} us of PostgreSQL), COPY {copied:.0}/s",
            over_http.rate()
        );
        ours_each.add(ours / each);
        ours_copied.add(ours / copied);
        http_each.add(over_http.rate() / each);
        cpus.add(each_cpu / own_cpu);
    }
    ours_each.print("S6 rate, ours / one order per transaction", ">= 6");
    ours_copied.print("S6 rate, ours / binary COPY of the same rows", ">= 1.0");
    http_each.print("S6 rate, ours over HTTP with the generator on the same cores / one order per transaction", "none");
    cpus.print("S6 CPU per order, one each without its client / ours with everything", "none");
    Ok(())
}

pub(crate) fn run_wakes() -> anyhow::Result<()> {
    report::title("S7: durable orders on PostgreSQL while the relay is woken by each commit, against nobody waiting");
    let Some(postgres) = Postgres::start("S7")? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir_in(".")?;
    let mut configs = Vec::new();
    for database in ["quiet", "woken", "followed", "each"] {
        configs.push(runtime.block_on(database_of(&postgres, database))?);
    }
    let (plain, notified) = (folder.path().join("each.sql"), folder.path().join("notified.sql"));
    std::fs::write(&plain, ONE_EACH)?;
    let (begin, end) = NOTIFIED.split_once("END;").context("a transaction")?;
    std::fs::write(&notified, format!("{begin}{ONE_EACH}END;{end}"))?;
    let [mut woken, mut followed, mut naive] = [(); 3].map(|()| Ratios::default());
    for round in 0..=report::rounds(report::ROUNDS)? {
        let probe = report::probe(folder.path())?;
        let off = runtime.block_on(take_in(&configs[0], Wakes::Off))?;
        let on = runtime.block_on(take_in(&configs[1], Wakes::Heard))?;
        let read = runtime.block_on(take_in(&configs[2], Wakes::Followed))?;
        let (each, told) = (pgbench(&postgres, "each", &plain)?, pgbench(&postgres, "each", &notified)?);
        if round == 0 {
            continue;
        }
        println!(
            "round {round}: {probe}; nobody waits {off:.0}/s, woken {on:.0}/s, woken and everything read {read:.0}/s; one each {each:.0}/s, with NOTIFY in the transaction {told:.0}/s"
        );
        woken.add(on / off);
        followed.add(read / off);
        naive.add(told / each);
    }
    woken.print("S7 rate, the relay woken / nobody waits", ">= 0.98");
    followed
        .print("S7 rate, woken and every entry read by the guarded read, in the same process / nobody waits", "none");
    naive.print("S7 floor: one order per transaction, NOTIFY in it / none", "none");
    Ok(())
}

/// A new database with the schema and some customers.
async fn database_of(postgres: &Postgres, database: &str) -> anyhow::Result<Config> {
    postgres.create(database).await?;
    let mut config = server::config(Path::new("."))?;
    config.database.url = postgres.url(database);
    // Made ahead for the whole run: nobody makes more behind pgbench.
    config.database.partition_transactions = 4_000_000;
    sluice::outbox::prepare(&config.database).await?;
    backlog::fill(postgres, &config, database, 64).await?;
    Ok(config)
}

/// Who listens to the commits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wakes {
    Off,
    /// A task like the relay's is woken by each, and the feed of what other nodes commit is read.
    Heard,
    /// It also reads all entries, as the relay does.
    Followed,
}

/// Takes orders in for a while from many clients in this process; returns their rate.
async fn take_in(config: &Config, wakes: Wakes) -> anyhow::Result<f64> {
    let metrics = Arc::new(Metrics::new());
    let outbox = Outbox::open(&config.database, drain::rules(config), Clock::system(), Arc::clone(&metrics)).await?;
    let intake = Intake::new(outbox.clone(), config.intake.clone(), metrics);
    let mut listening = JoinSet::new();
    if wakes != Wakes::Off {
        outbox.tend(Duration::from_secs(3600), Vec::new()).await?;
        listening.spawn(listen(outbox.clone(), wakes == Wakes::Followed));
    }
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let intake = intake.clone();
        clients.spawn(async move {
            let mut count = 0;
            while begun.elapsed() < SPAN {
                let number = client * 37 + count;
                intake.accept(orders::asked(number)).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(own) = clients.join_next().await {
        count += own??;
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    if let Some(Ok(ended)) = listening.try_join_next() {
        ended?;
        anyhow::bail!("the listener ended early");
    }
    listening.shutdown().await;
    if wakes != Wakes::Off {
        outbox.resign().await?;
    }
    Ok(rate)
}

/// Hears of commits, and reads what they brought, until it is dropped.
async fn listen(outbox: Outbox, reads: bool) -> anyhow::Result<()> {
    let start = outbox.last_entry().await?;
    let mut places: BTreeMap<Slot, EntryPlace> = Slot::all().map(|slot| (slot, start)).collect();
    loop {
        let committed = outbox.entry_committed();
        let has_more = reads && {
            let after: Vec<_> = places.iter().map(|(slot, place)| (*slot, *place)).collect();
            let limits = ReadLimits { count: 1024, bytes: 8 << 20 };
            let ReadEntries { read_to, has_more, .. } = outbox.entries(&after, limits).await?;
            places.extend(read_to);
            has_more
        };
        if !has_more {
            committed.await;
        }
    }
}

/// Transactions per second of a script, with 32 clients.
fn pgbench(postgres: &Postgres, database: &str, script: &Path) -> anyhow::Result<f64> {
    let seconds = SPAN.as_secs().to_string();
    let mut command = postgres.program("pgbench", database);
    command.args(["-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", &seconds, "-f"]).arg(script);
    let output = command.output().context("pgbench")?;
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && !text.contains("aborted"), "pgbench: {text}{said}");
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
    Ok(line.and_then(|line| line.split(' ').next()).context("no rate")?.parse()?)
}

/// Copies the rows of orders in, in transactions of many, for a while; returns the rate of orders.
async fn copy(postgres: &Postgres, database: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut copiers = JoinSet::new();
    for _ in 0..COPIERS {
        let mut session = postgres.connect(database).await?;
        copiers.spawn(async move {
            let mut count = 0;
            while begun.elapsed() < SPAN {
                session.execute("BEGIN").await?;
                let base: i64 = session.fetch_one("SELECT nextval('numbers')").await?.try_get(0)?;
                for (sql, rows) in rows(base, count) {
                    let mut copy = session.copy_in_raw(sql).await?;
                    copy.send(rows).await?;
                    copy.finish().await?;
                }
                session.execute("COMMIT").await?;
                count += COPIED;
            }
            session.close().await?;
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(own) = copiers.join_next().await {
        count += own??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// The three tables' rows of some orders, as COPY takes them in binary.
fn rows(base: i64, first: usize) -> [(&'static str, Vec<u8>); 3] {
    let [mut orders, mut history, mut outbox] = [(); 3].map(|()| Binary::new());
    let Timestamp(now) = Clock::system().now();
    let mut number = base;
    for place in first..first + COPIED {
        let (id, key) = (OrderId::generate(), orders::customer(place));
        let slot = i16::from(Slot::of("/orders", &key).0).to_be_bytes();
        let (id, now) = (&id.as_bytes()[..], &now.to_be_bytes()[..]);
        let (sequence, entry) = ((number + 1).to_be_bytes(), (number + 2).to_be_bytes());
        number += 2;
        let trace = b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
        orders.row(&[id, b"/orders", key.as_bytes(), &slot, b"PENDING", now, now, trace, &sequence]);
        let (version, body) = (1_i64.to_be_bytes(), orders::body(place));
        history.row(&[id, &sequence, &version, now, b"PENDING", &[0], br#"[{"kind":"accepted"}]"#, body.as_bytes()]);
        outbox.row(&[&entry, &slot, b"order", id, now]);
    }
    [
        (
            "COPY orders (id, route, order_key, slot, status, accepted_at, updated_at, traceparent, body_at) FROM STDIN (FORMAT binary)",
            orders.end(),
        ),
        (
            "COPY history (order_id, sequence, version, at, status, is_final, entries, body) FROM STDIN (FORMAT binary)",
            history.end(),
        ),
        ("COPY outbox (number, slot, kind, order_id, at) FROM STDIN (FORMAT binary)", outbox.end()),
    ]
}

/// PostgreSQL's binary form of rows.
struct Binary(Vec<u8>);

impl Binary {
    fn new() -> Self {
        let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
        bytes.extend([0; 8]);
        Self(bytes)
    }

    fn row(&mut self, fields: &[&[u8]]) {
        self.0.extend(u16::try_from(fields.len()).unwrap_or(0).to_be_bytes());
        for field in fields {
            self.0.extend(u32::try_from(field.len()).unwrap_or(0).to_be_bytes());
            self.0.extend(*field);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend((-1_i16).to_be_bytes());
        self.0
    }
}
