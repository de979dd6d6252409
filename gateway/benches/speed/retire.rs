//! S12: what it takes to remove entries and records that are carried, against DELETE and VACUUM, while orders come in.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use sluice::clock::{Clock, Timestamp};
use sluice::config::Config;
use sluice::intake::Intake;
use sluice::outbox::{Cutoffs, Outbox};
use sluice::telemetry::Metrics;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::report::{self, Ratios, percentile};
use super::services::{self, Postgres};
use super::{backlog, drain, orders, server};

/// Entries that are removed, and as many records.
const ENTRIES: (&str, u64) = ("SLUICE_BENCH_RETIRED", 1_000_000);
/// Orders per second meanwhile.
const RATE: u32 = 200;
/// Before and after the removal, to see what orders take without it.
const QUIET: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
/// Transactions of a partition: of a million orders there are about four.
const PARTITION: u64 = 4096;

/// The records of all entries, under the same transactions, all of them published; and what closes their partitions.
const CARRY: &str = r#"
INSERT INTO records (slot, number, xid, order_id, is_outcome, topic, record_key, at, headers, value)
SELECT e.slot, row_number() OVER (PARTITION BY e.slot ORDER BY e.xid, e.number), e.xid, e.order_id, false, 'orders', o.order_key, e.at,
    json_build_array(json_build_array('content-type', 'application/json'), json_build_array('ce_specversion', '1.0'),
        json_build_array('ce_id', e.order_id), json_build_array('ce_type', 'OrderCreated'), json_build_array('ce_source', '/orders'),
        json_build_array('ce_time', '2026-01-01T00:00:00.000Z'), json_build_array('ce_subject', e.order_id),
        json_build_array('traceparent', o.traceparent))::text, h.body
FROM outbox e JOIN orders o ON o.id = e.order_id JOIN history h ON h.order_id = o.id AND h.sequence = o.body_at;
UPDATE decide_cursors c SET xid = e.xid, number = e.number, last_record = coalesce(r.number, 0)
FROM (SELECT xid, number FROM outbox ORDER BY xid DESC, number DESC LIMIT 1) e,
     (SELECT slot, (SELECT max(number) FROM records r WHERE r.slot = s.slot) AS number FROM slots s) r
WHERE r.slot = c.slot;
UPDATE publish_cursors p SET number = c.last_record FROM decide_cursors c WHERE c.slot = p.slot;
UPDATE order_counts SET published = pending, pending = 0;
CREATE PROCEDURE pass(count bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..count LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$"#;

pub(crate) fn run() -> anyhow::Result<()> {
    let entries = services::number(ENTRIES.0, ENTRIES.1)?;
    report::title(&format!(
        "S12: removing {entries} carried entries and their records, against DELETE and VACUUM, at {RATE} orders/s"
    ));
    let Some(postgres) = Postgres::start("S12")? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&postgres, entries))
}

async fn measure(postgres: &Postgres, entries: u64) -> anyhow::Result<()> {
    let mut config = server::config(Path::new("."))?;
    config.database.partition_transactions = PARTITION;
    let mut prepare = async |database: &str| {
        config.database.url = postgres.url(database);
        anyhow::Ok(config.clone())
    };
    postgres.create("carried").await?;
    let carried = prepare("carried").await?;
    sluice::outbox::prepare(&carried.database).await?;
    let begun = Instant::now();
    backlog::fill(postgres, &carried, "carried", entries).await?;
    postgres.run("carried", CARRY).await?;
    // Nothing is closed before everybody is past it.
    postgres.run("carried", &format!("CALL pass({})", 2 * PARTITION)).await?;
    postgres.run("carried", "VACUUM (ANALYZE)").await?;
    println!("made in {:.0} s", begun.elapsed().as_secs_f64());
    let (mut times, mut stalls) = (Ratios::default(), Vec::new());
    for round in 1..=report::rounds(ROUNDS)? {
        let probe = report::probe(Path::new("."))?;
        let mut took = Vec::new();
        for (database, is_ours) in [("dropped", true), ("deleted", false)] {
            postgres
                .run("postgres", &format!("CREATE DATABASE {database} TEMPLATE carried STRATEGY FILE_COPY"))
                .await?;
            let own = prepare(database).await?;
            took.push(retire(postgres, &own, database, is_ours).await?);
            postgres.run("postgres", &format!("DROP DATABASE {database} WITH (FORCE)")).await?;
        }
        let [ours, naive] = &took[..] else { anyhow::bail!("two arms") };
        println!("round {round}: {probe}; ours {}; DELETE and VACUUM {}", ours.said(), naive.said());
        times.add(ours.per_million() / naive.per_million());
        stalls.push(ours.worst_ms - ours.quiet_ms);
    }
    times.print("S12 time per million entries and records, ours / DELETE and VACUUM", "<= 0.10");
    println!(
        "S12 slowest order while ours removes, over the slowest without: {:.1} ms (median), {:.1} ms (worst), goal <= 20 ms",
        report::median(&stalls),
        stalls.iter().copied().fold(f64::MIN, f64::max)
    );
    Ok(())
}

/// What a removal came to.
struct Retired {
    millis: f64,
    rows: f64,
    worst_ms: f64,
    quiet_ms: f64,
}

impl Retired {
    fn per_million(&self) -> f64 {
        self.millis * 1e6 / self.rows
    }

    fn said(&self) -> String {
        format!(
            "{:.0} ms per million of {:.0} rows, slowest order {:.1} ms, {:.1} ms without",
            self.per_million(),
            self.rows,
            self.worst_ms,
            self.quiet_ms
        )
    }
}

async fn retire(postgres: &Postgres, config: &Config, database: &str, is_ours: bool) -> anyhow::Result<Retired> {
    let metrics = Arc::new(Metrics::new());
    let outbox = Outbox::open(&config.database, drain::rules(config), Clock::system(), Arc::clone(&metrics)).await?;
    let intake = Intake::new(outbox.clone(), config.intake.clone(), metrics);
    let mut session = postgres.connect(database).await?;
    let last: i64 = session
        .fetch_one(
            "SELECT max(to_xid) FROM log_ranges WHERE to_xid <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint",
        )
        .await?
        .try_get(0)?;
    let before = rows(&mut session, last).await?;
    let over = CancellationToken::new();
    let mut posting = JoinSet::new();
    posting.spawn(post(intake, over.clone()));
    tokio::time::sleep(QUIET).await;
    let begun = Instant::now();
    if is_ours {
        drop_all(&outbox, &mut session).await?;
    } else {
        for log in ["outbox", "records"] {
            session.execute(sqlx::raw_sql(AssertSqlSafe(format!("DELETE FROM {log} WHERE xid < {last}")))).await?;
            session.execute(sqlx::raw_sql(AssertSqlSafe(format!("VACUUM {log}")))).await?;
        }
    }
    let ended = Instant::now();
    tokio::time::sleep(QUIET).await;
    over.cancel();
    let mut posted = Vec::new();
    while let Some(own) = posting.join_next().await {
        posted.extend(own??);
    }
    let left = rows(&mut session, last).await?;
    ensure!(left == 0, "{left} of {before} rows are left");
    let worst = |is_during: bool| {
        let own = posted.iter().filter(|(at, ms)| {
            let done = *at + Duration::from_secs_f64(ms / 1e3);
            (done >= begun && *at <= ended) == is_during
        });
        percentile(&mut own.map(|(_, ms)| *ms).collect::<Vec<_>>(), 1.0)
    };
    Ok(Retired {
        millis: (ended - begun).as_secs_f64() * 1e3,
        rows: before as f64 / 2.0,
        worst_ms: worst(true),
        quiet_ms: worst(false),
    })
}

/// Entries and records of the transactions below one.
async fn rows(session: &mut PgConnection, below: i64) -> anyhow::Result<i64> {
    let sql = format!(
        "SELECT (SELECT count(*) FROM outbox WHERE xid < {below}) + (SELECT count(*) FROM records WHERE xid < {below})"
    );
    Ok(session.fetch_one(AssertSqlSafe(sql)).await?.try_get(0)?)
}

/// Retention, step after step, until no closed partition is left.
async fn drop_all(outbox: &Outbox, session: &mut PgConnection) -> anyhow::Result<()> {
    let now = Clock::system().now();
    let none = Timestamp(0);
    let cutoffs = Cutoffs {
        orders: none,
        entries: now.after(Duration::from_secs(3600)),
        idempotency: none,
        parked_replies: none,
        rows_max: 500,
    };
    loop {
        outbox.retain(cutoffs, None).await?;
        let left: i64 = session
            .fetch_one(
                "SELECT count(*) FROM log_ranges WHERE to_xid <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint",
            )
            .await?
            .try_get(0)?;
        if left == 0 {
            return Ok(());
        }
    }
}

/// Posts at the rate until it is over; when each order was due, and the milliseconds it took from then.
async fn post(intake: Intake, over: CancellationToken) -> anyhow::Result<Vec<(Instant, f64)>> {
    let begun = tokio::time::Instant::now();
    let mut all = JoinSet::new();
    for number in 0.. {
        let due = begun + Duration::from_secs(1) * number / RATE;
        tokio::select! {
            () = over.cancelled() => break,
            () = tokio::time::sleep_until(due) => {}
        }
        let intake = intake.clone();
        let number = usize::try_from(number)?;
        all.spawn(async move {
            intake.accept(orders::asked(number)).await?;
            anyhow::Ok((due.into_std(), due.elapsed().as_secs_f64() * 1e3))
        });
    }
    let mut times = Vec::new();
    while let Some(own) = all.join_next().await {
        times.push(own??);
    }
    Ok(times)
}
