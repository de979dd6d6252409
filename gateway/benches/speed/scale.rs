//! S10, S11: what a batch costs behind ten million entries, and beside a snapshot that is held open for minutes.
//!
//! Three databases of one server. In two of them lie the same ten million orders: in one none of them is carried, in the other all
//! but 10,000 are. So tables and indexes are the same, and only the backlog differs. The third has but 10,000 orders in all.
//! Each round takes 10,000 orders in and carries 10,000, in each database in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sluice::clock::Clock;
use sluice::config::Config;
use sluice::intake::Intake;
use sluice::outbox::Outbox;
use sluice::telemetry::Metrics;
use sqlx::{Executor, Row};
use tokio::task::JoinSet;

use super::drain::{self, Drained};
use super::plans::{self, Runs};
use super::report::{self, Ratios, median};
use super::services::{self, Kafka, Postgres};
use super::{backlog, orders, server};

/// Entries of the large backlog.
const BACKLOG: (&str, u64) = ("SLUICE_BENCH_BACKLOG", 10_000_000);
/// Minutes for which the snapshot is held.
const MINUTES: (&str, u64) = ("SLUICE_BENCH_MINUTES", 10);
/// Entries of the small backlog, and what each round takes in and carries.
const SMALL: usize = 10_000;
/// Clients that post at the same time.
const CLIENTS: usize = 64;
const ROUNDS: usize = 15;
/// The gateway's batch.
const PASS: u64 = 1024;

pub(crate) fn run_backlog() -> anyhow::Result<()> {
    let size = services::number(BACKLOG.0, BACKLOG.1)?;
    report::title(&format!(
        "S10: a backlog of {size} entries against one of {SMALL}; PostgreSQL, real Kafka, no plugin"
    ));
    let (Some(kafka), Some(postgres)) = (Kafka::find("S10"), Postgres::start("S10")?) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure_backlog(&World::new(kafka, postgres), size))
}

pub(crate) fn run_held() -> anyhow::Result<()> {
    let minutes = services::number(MINUTES.0, MINUTES.1)?;
    report::title(&format!(
        "S11: an idle REPEATABLE READ transaction, open for {minutes} minutes, against none; PostgreSQL, real Kafka, no plugin"
    ));
    let (Some(kafka), Some(postgres)) = (Kafka::find("S11"), Postgres::start("S11")?) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure_held(&World::new(kafka, postgres), Duration::from_secs(60 * minutes)))
}

struct World {
    kafka: Kafka,
    postgres: Postgres,
}

/// A database, and how it fared.
struct Arm {
    database: &'static str,
    config: Config,
    rates: Vec<f64>,
    cpus: Vec<f64>,
    p99s: Vec<f64>,
    intakes: Vec<f64>,
}

impl World {
    fn new(kafka: Kafka, postgres: Postgres) -> Self {
        Self { kafka, postgres }
    }

    /// An arm on a database that is there already or that is made empty.
    async fn arm(&self, database: &'static str, is_new: bool) -> anyhow::Result<Arm> {
        if is_new {
            self.postgres.create(database).await?;
        }
        let mut config = server::config(std::path::Path::new("."))?;
        config.database.url = self.postgres.url(database);
        config.route[0].plugins.clear();
        self.kafka.adapt(&mut config).await?;
        sluice::outbox::prepare(&config.database).await?;
        Ok(Arm { database, config, rates: vec![], cpus: vec![], p99s: vec![], intakes: vec![] })
    }

    async fn fill(&self, arm: &Arm, orders: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        backlog::fill(&self.postgres, &arm.config, arm.database, orders).await?;
        println!("{}: {orders} orders written in {:.0} s", arm.database, begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Takes orders in and carries as many.
    async fn round(&self, arm: &mut Arm) -> anyhow::Result<String> {
        let (rate, p99) = take_in(&arm.config, SMALL).await?;
        let cpu = self.postgres.cpu()?;
        let Drained { took, outbox } = drain::drain(&arm.config, SMALL).await?;
        let database = (self.postgres.cpu()? - cpu).as_secs_f64() * 1e6 / SMALL as f64;
        arm.rates.push(took.rate());
        arm.cpus.push(took.cpu() + database);
        arm.p99s.push(p99);
        arm.intakes.push(rate);
        Ok(format!(
            "{} ({} left): in {rate:.0}/s, p99 {p99:.1} ms; drain {:.0} rows/s, {:.1} us CPU and {database:.1} us of PostgreSQL",
            arm.database,
            outbox.backlog(),
            took.rate(),
            took.cpu()
        ))
    }

    /// The statements of carrying as many orders, with their plans.
    async fn plans(&self, arm: &Arm) -> anyhow::Result<Runs> {
        drain::fill(&arm.config, SMALL).await?;
        let mark = plans::begin(&self.postgres, arm.database).await?;
        drop(drain::drain(&arm.config, SMALL).await?);
        plans::end(&self.postgres, arm.database, mark).await
    }
}

async fn measure_backlog(world: &World, size: u64) -> anyhow::Result<()> {
    let waiting = world.arm("waiting", true).await?;
    world.fill(&waiting, size).await?;
    // Nobody may be connected to what is copied.
    world.postgres.run("postgres", "CREATE DATABASE carried TEMPLATE waiting STRATEGY FILE_COPY").await?;
    backlog::carry_all_but(&world.postgres, "carried", SMALL as u64).await?;
    let fresh = world.arm("fresh", true).await?;
    world.fill(&fresh, SMALL as u64).await?;
    let mut arms = [waiting, world.arm("carried", false).await?, fresh];
    for arm in &mut arms {
        // The first pass of each is not measured.
        world.round(arm).await?;
        (arm.rates, arm.cpus, arm.p99s, arm.intakes) = Default::default();
    }
    for round in 1..=report::rounds(ROUNDS)? {
        let probe = report::probe(std::path::Path::new("."))?;
        for arm in &mut arms {
            println!("round {round}: {probe}; {}", world.round(arm).await?);
        }
    }
    let [waiting, carried, fresh] = &arms;
    for (other, name) in [(carried, "10,000 behind as many carried ones"), (fresh, "10,000 in all")] {
        compare(waiting, other, |arm| &arm.rates).print(&format!("S10 drain rate, the backlog / {name}"), ">= 0.97");
        compare(waiting, other, |arm| &arm.cpus)
            .print(&format!("S10 CPU of both per row, the backlog / {name}"), "none");
        compare(waiting, other, |arm| &arm.p99s).print(&format!("S10 intake p99, the backlog / {name}"), "<= 1.05");
        compare(waiting, other, |arm| &arm.intakes).print(&format!("S10 intake rate, the backlog / {name}"), "none");
    }
    let mut runs = Vec::new();
    for arm in &arms {
        runs.push((arm.database, world.plans(arm).await?));
    }
    print_plans(&runs)?;
    for arm in &arms {
        println!("{}: {}", arm.database, dead_tuples(&world.postgres, arm.database).await?);
    }
    for arm in &arms {
        world.kafka.forget(&arm.config).await?;
    }
    Ok(())
}

fn compare(ours: &Arm, other: &Arm, of: impl Fn(&Arm) -> &Vec<f64>) -> Ratios {
    let mut ratios = Ratios::default();
    of(ours).iter().zip(of(other)).for_each(|(own, other)| ratios.add(own / other));
    ratios
}

fn print_plans(all: &[(&str, Runs)]) -> anyhow::Result<()> {
    let (_, first) = all.first().context("databases")?;
    let guarded = first.keys().find(|text| text.ends_with("-- in order")).context("the guarded read was not logged")?;
    let mut seen = Vec::new();
    for (database, runs) in all {
        let own = runs.get(guarded).with_context(|| format!("the guarded read in {database}"))?;
        let (buffers, shape, count) = plans::typical(own, PASS).context("no full batch")?;
        println!(
            "{database}: guarded read, {count} full batches, {buffers:.0} buffers each (median); all statements {:.1} buffers per order",
            plans::all_buffers(runs) as f64 / SMALL as f64
        );
        seen.push((buffers, shape));
    }
    let is_same = seen.iter().all(|(_, shape)| *shape == seen[0].1);
    println!("S10 plan of the guarded read: {}", if is_same { "the same in all, goal met" } else { "NOT the same" });
    for ((database, _), (_, shape)) in all.iter().zip(&seen).filter(|_| !is_same) {
        println!("{database}: {shape}");
    }
    for ((database, _), (buffers, _)) in all.iter().zip(&seen).skip(1) {
        println!("S10 buffers of a batch's guarded read, the backlog / {database}: {:.3}, goal 1", seen[0].0 / buffers);
    }
    // What else carrying runs, the most expensive first.
    let mut texts: Vec<(&String, u64)> =
        first.iter().map(|(text, runs)| (text, runs.iter().map(|run| run.buffers).sum())).collect();
    texts.sort_by_key(|(_, buffers)| std::cmp::Reverse(*buffers));
    println!(
        "buffers per order by statement ({})",
        all.iter().map(|(database, _)| *database).collect::<Vec<_>>().join(", ")
    );
    for (text, _) in texts.iter().take(12) {
        let of = |runs: &Runs| runs.get(*text).map_or(0, |runs| runs.iter().map(|run| run.buffers).sum::<u64>());
        let per_order: Vec<String> =
            all.iter().map(|(_, runs)| format!("{:>7.2}", of(runs) as f64 / SMALL as f64)).collect();
        println!("  {} {}", per_order.join(" "), text.chars().take(96).collect::<String>());
    }
    Ok(())
}

async fn measure_held(world: &World, time: Duration) -> anyhow::Result<()> {
    let mut arms = [world.arm("held", true).await?, world.arm("free", true).await?];
    for arm in &mut arms {
        world.fill(arm, SMALL as u64).await?;
        world.round(arm).await?;
        (arm.rates, arm.cpus, arm.p99s, arm.intakes) = Default::default();
    }
    let mut holder = world.postgres.connect("held").await?;
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let seen: i64 = holder.fetch_one("SELECT count(*) FROM orders").await?.try_get(0)?;
    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < time || round < 3 {
        round += 1;
        let probe = report::probe(std::path::Path::new("."))?;
        for arm in &mut arms {
            println!("round {round}, {:.0} s: {probe}; {}", begun.elapsed().as_secs_f64(), world.round(arm).await?);
        }
    }
    let still: i64 = holder.fetch_one("SELECT count(*) FROM orders").await?.try_get(0)?;
    ensure!(still == seen, "the snapshot was not held: {seen} orders, then {still}");
    let [held, free] = &arms;
    compare(held, free, |arm| &arm.rates).print("S11 drain rate, a snapshot held / none", ">= 0.97");
    compare(held, free, |arm| &arm.cpus).print("S11 CPU of both per row, a snapshot held / none", "none");
    compare(held, free, |arm| &arm.p99s).print("S11 intake p99, a snapshot held / none", "none");
    let third = held.rates.len().div_ceil(3);
    let part = |arm: &Arm, from: usize| median(&arm.rates[from..(from + third).min(arm.rates.len())]);
    let end = held.rates.len() - third;
    println!(
        "S11 the same in the first third {:.3}, in the last third {:.3}",
        part(held, 0) / part(free, 0),
        part(held, end) / part(free, end)
    );
    for arm in &arms {
        println!("{}: {}", arm.database, dead_tuples(&world.postgres, arm.database).await?);
        world.kafka.forget(&arm.config).await?;
    }
    Ok(())
}

/// What is dead in the tables, counted row by row; and how many updates of orders found room on their page.
async fn dead_tuples(postgres: &Postgres, database: &str) -> anyhow::Result<String> {
    postgres.run(database, "CREATE EXTENSION IF NOT EXISTS pgstattuple").await?;
    let mut session = postgres.connect(database).await?;
    let rows = session
        .fetch_all(
            "SELECT name, sum(dead)::bigint, sum(live)::bigint
             FROM (SELECT regexp_replace(relname, '_[0-9]+$', '') AS name, s.dead_tuple_count AS dead, s.tuple_count AS live
                   FROM pg_class c CROSS JOIN LATERAL pgstattuple(c.oid) s
                   WHERE c.relkind = 'r' AND relname ~ '^(outbox|records)_|^(orders|history|decide_cursors|order_counts)$') t
             GROUP BY name ORDER BY name = 'outbox' DESC, name = 'records' DESC, name",
        )
        .await?;
    let mut said = Vec::new();
    for row in rows {
        let (name, dead, live): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        said.push(format!("{dead} of {} in {name}", dead + live));
    }
    let updates =
        session.fetch_one("SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'orders'").await?;
    let (hot, all): (i64, i64) = (updates.try_get(0)?, updates.try_get(1)?);
    Ok(format!("dead rows: {}; {hot} of {all} updates of orders changed no index", said.join(", ")))
}

/// Takes orders in from many clients at the same time; returns their rate, and the 99th percentile of their milliseconds.
pub(crate) async fn take_in(config: &Config, count: usize) -> anyhow::Result<(f64, f64)> {
    let metrics = Arc::new(Metrics::new());
    let outbox = Outbox::open(&config.database, drain::rules(config), Clock::system(), Arc::clone(&metrics)).await?;
    let intake = Intake::new(outbox, config.intake.clone(), metrics);
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let intake = intake.clone();
        clients.spawn(async move {
            let mut times = Vec::new();
            for number in (client..count).step_by(CLIENTS) {
                let (request, begun) = (orders::asked(number), Instant::now());
                intake.accept(request).await?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::with_capacity(count);
    while let Some(own) = clients.join_next().await {
        times.extend(own??);
    }
    Ok((count as f64 / begun.elapsed().as_secs_f64(), report::percentile(&mut times, 0.99)))
}
