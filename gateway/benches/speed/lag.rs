//! S8: from the commit of an order to Kafka's acknowledgement, against a bare produce, and against a relay that polls each
//! second.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use sluice::clock::Clock;
use sluice::config::{Config, Span};
use sluice::intake::{Intake, Request};
use sluice::lifecycle::Tasks;
use sluice::order::{OrderId, Slot};
use sluice::outbox::{Outbox, ReadLimits};
use sluice::telemetry::Metrics;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use super::carry::{Acknowledged, CONNECTING, Relay};
use super::report::{self, Ratios, percentile};
use super::services::{Kafka, Postgres, topic_of};
use super::{drain, orders, server};

/// Orders per second, whatever becomes of those before.
const RATE: u32 = 1_000;
const WINDOW: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_secs(1);
/// Rounds in which the relay that polls takes its turn: it needs no more to be told from the others.
const POLL_ROUNDS: usize = 3;

pub(crate) fn run() -> anyhow::Result<()> {
    report::title(
        "S8: commit to Kafka's acknowledgement at 1,000 orders/s; PostgreSQL, real Kafka, no plugin, linger 1 ms",
    );
    let (Some(kafka), Some(postgres)) = (Kafka::find("S8"), Postgres::start("S8")?) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&kafka, &postgres))
}

async fn measure(kafka: &Kafka, postgres: &Postgres) -> anyhow::Result<()> {
    let mut config = server::config(Path::new("."))?;
    config.route[0].plugins.clear();
    kafka.adapt(&mut config).await?;
    postgres.create("lag").await?;
    postgres.create("polled").await?;
    config.database.url = postgres.url("lag");
    let mut world = World::start(&config).await?;
    let naive = PgPoolOptions::new().max_connections(16).connect(&postgres.url("polled")).await?;
    sqlx::raw_sql("CREATE TABLE waiting (id bigserial PRIMARY KEY, body bytea NOT NULL)").execute(&naive).await?;
    let direct = Direct::connect(kafka, "1")?;
    let [mut p50s, mut p99s, mut polled] = [(); 3].map(|()| Ratios::default());
    for round in 0..=report::rounds(report::ROUNDS)? {
        let probe = report::probe(Path::new("."))?;
        let mut ours = world.window().await?;
        let mut bare = direct.window(topic_of(&config.route[0])).await?;
        let said = [&mut ours, &mut bare]
            .map(|own| format!("p50 {:.2} p99 {:.2} ms", percentile(own, 0.5), percentile(own, 0.99)));
        if round == 0 {
            continue;
        }
        println!("round {round}: {probe}; commit to acknowledgement {}, bare produce {}", said[0], said[1]);
        p50s.add(percentile(&mut ours, 0.5) / percentile(&mut bare, 0.5));
        p99s.add(percentile(&mut ours, 0.99) / percentile(&mut bare, 0.99));
        if round <= POLL_ROUNDS {
            let mut own = poll(&naive, kafka, topic_of(&config.route[0])).await?;
            println!("round {round}: a relay that polls each second: p50 {:.0} ms", percentile(&mut own, 0.5));
            polled.add(percentile(&mut own, 0.5) / percentile(&mut ours, 0.5));
        }
    }
    p50s.print("S8 p50, commit to acknowledgement / bare produce", "<= 1.3");
    p99s.print("S8 p99, commit to acknowledgement / bare produce", "none");
    polled.print("S8 p50, a relay that polls each second / ours", ">= 200");
    world.tasks.stop("relay", Duration::from_secs(10)).await;
    kafka.forget(&config).await
}

/// A relay at work in this process.
struct World {
    outbox: Outbox,
    intake: Intake,
    tasks: Tasks,
    acknowledged: UnboundedReceiver<Acknowledged>,
    /// Number of the last record of each slot that was looked at.
    ends: HashMap<Slot, i64>,
}

impl World {
    async fn start(config: &Config) -> anyhow::Result<Self> {
        let mut config = config.clone();
        // Nobody renews it here.
        config.node.lease = Span(Duration::from_secs(3600));
        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
        let outbox = Outbox::open(&config.database, drain::rules(&config), clock.clone(), Arc::clone(&metrics)).await?;
        let intake = Intake::new(outbox.clone(), config.intake.clone(), Arc::clone(&metrics));
        let host = drain::host(&config, &metrics)?;
        let (watch, acknowledged) = mpsc::unbounded_channel();
        let relay = Relay::connect_watched(&config, &outbox, host, clock, &metrics, Some(watch)).await?;
        Ok(Self { outbox, intake, tasks: relay.run(), acknowledged, ends: HashMap::new() })
    }

    /// Posts at the rate for a while; milliseconds from each commit to its acknowledgement.
    async fn window(&mut self) -> anyhow::Result<Vec<f64>> {
        let mut posting = JoinSet::new();
        let begun = tokio::time::Instant::now();
        for number in 0..u32::try_from(WINDOW.as_millis())? * RATE / 1000 {
            tokio::time::sleep_until(begun + Duration::from_secs(1) * number / RATE).await;
            let request = Request { order_key: None, ..orders::asked(usize::try_from(number)?) };
            let intake = self.intake.clone();
            posting.spawn(async move {
                let id = intake.accept(request).await?.id;
                anyhow::Ok((id, Instant::now()))
            });
        }
        let mut committed: HashMap<OrderId, Instant> = HashMap::new();
        while let Some(own) = posting.join_next().await {
            let (id, at) = own??;
            committed.insert(id, at);
        }
        let mut at: HashMap<(Slot, i64), Instant> = HashMap::new();
        while at.len() < committed.len() {
            let next = tokio::time::timeout(Duration::from_secs(10), self.acknowledged.recv()).await?;
            let own = next.ok_or_else(|| anyhow::anyhow!("the relay ended"))?;
            at.insert((own.slot, own.number), own.at);
        }
        // Which order a record is of stands in the log.
        let mut latencies = Vec::with_capacity(committed.len());
        for slot in Slot::all() {
            let end = self.ends.entry(slot).or_default();
            for record in self.outbox.records(slot, *end, ReadLimits { count: 100_000, bytes: usize::MAX }).await? {
                *end = record.number;
                let (from, to) = (committed.get(&record.order_id), at.get(&(slot, record.number)));
                if let (Some(from), Some(to)) = (from, to) {
                    // It may be acknowledged before whoever posted it has heard of the commit.
                    latencies.push(to.saturating_duration_since(*from).as_secs_f64() * 1e3);
                }
            }
        }
        ensure!(latencies.len() == committed.len(), "{} of {} orders are in the log", latencies.len(), committed.len());
        Ok(latencies)
    }
}

/// Notes how long each record took.
#[derive(Default)]
pub(crate) struct Times(Mutex<Vec<f64>>);

impl ClientContext for Times {}

impl ProducerContext for Times {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, report: &DeliveryResult<'_>, since: Box<Instant>) {
        if report.is_ok() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(since.elapsed().as_secs_f64() * 1e3);
        }
    }
}

/// A bare producer with the gateway's settings.
pub(crate) struct Direct(ThreadedProducer<Times>);

impl Direct {
    pub(crate) fn connect(kafka: &Kafka, linger_ms: &str) -> anyhow::Result<Self> {
        let mut settings = drain::settings(&kafka.address);
        settings.set("linger.ms", linger_ms);
        let producer = ThreadedProducer::from_config_and_context(&settings, Times::default())?;
        std::thread::sleep(CONNECTING);
        Ok(Self(producer))
    }

    /// Sends one record; its time counts from `since`.
    pub(crate) fn send(&self, topic: &str, body: &[u8], since: Instant) -> anyhow::Result<()> {
        let key = fastrand::u64(..).to_string();
        let record = BaseRecord::with_opaque_to(topic, Box::new(since)).key(&key).payload(body);
        self.0.send(record).map_err(|(error, _)| error.into())
    }

    /// Waits for so many acknowledgements and takes the times of all.
    pub(crate) fn taken(&self, count: usize) -> anyhow::Result<Vec<f64>> {
        let begun = Instant::now();
        loop {
            let mut times = self.0.context().0.lock().unwrap_or_else(PoisonError::into_inner);
            if times.len() >= count {
                return Ok(std::mem::take(&mut times));
            }
            drop(times);
            ensure!(begun.elapsed() < Duration::from_secs(10), "not everything is acknowledged");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    async fn window(&self, topic: &str) -> anyhow::Result<Vec<f64>> {
        let begun = tokio::time::Instant::now();
        let count = u32::try_from(WINDOW.as_millis())? * RATE / 1000;
        for number in 0..count {
            tokio::time::sleep_until(begun + Duration::from_secs(1) * number / RATE).await;
            self.send(topic, orders::body(usize::try_from(number)?).as_bytes(), Instant::now())?;
        }
        self.taken(usize::try_from(count)?)
    }
}

/// The relay of the tutorials: orders are committed one by one at the rate, and once a second what is new is sent.
async fn poll(pool: &PgPool, kafka: &Kafka, topic: &str) -> anyhow::Result<Vec<f64>> {
    let producer = Direct::connect(kafka, "1")?;
    let committed: Arc<Mutex<HashMap<i64, Instant>>> = Arc::default();
    let mut last: i64 = sqlx::query("SELECT coalesce(max(id), 0) FROM waiting").fetch_one(pool).await?.try_get(0)?;
    let mut posting = JoinSet::new();
    let begun = tokio::time::Instant::now();
    let (pool, noted) = (pool.clone(), Arc::clone(&committed));
    let count = u32::try_from(WINDOW.as_millis())? * RATE / 1000;
    let inserting = pool.clone();
    posting.spawn(async move {
        let mut all = JoinSet::new();
        for number in 0..count {
            tokio::time::sleep_until(begun + Duration::from_secs(1) * number / RATE).await;
            let (pool, noted) = (inserting.clone(), Arc::clone(&noted));
            all.spawn(async move {
                let body = orders::body(usize::try_from(number)?);
                let insert = sqlx::query("INSERT INTO waiting (body) VALUES ($1) RETURNING id").bind(body.into_bytes());
                let id: i64 = insert.fetch_one(&pool).await?.try_get(0)?;
                noted.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
                anyhow::Ok(())
            });
        }
        while let Some(own) = all.join_next().await {
            own??;
        }
        anyhow::Ok(())
    });
    let mut sent = 0;
    while sent < count {
        tokio::time::sleep(POLL).await;
        // What is committed and not yet noted counts from now: that flatters it.
        let rows =
            sqlx::query("SELECT id, body FROM waiting WHERE id > $1 ORDER BY id").bind(last).fetch_all(&pool).await?;
        for row in rows {
            let (id, body): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
            let since = committed.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            producer.send(topic, &body, since.unwrap_or_else(Instant::now))?;
            (last, sent) = (last.max(id), sent + 1);
        }
    }
    while let Some(own) = posting.join_next().await {
        own??;
    }
    producer.taken(usize::try_from(count)?)
}
