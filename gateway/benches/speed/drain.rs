//! S9, S9b: how fast a full outbox drains to Kafka or to the development broker, against a bare producer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use sluice::clock::Clock;
use sluice::config::{Config, Span};
use sluice::dev::DevBroker;
use sluice::intake::Intake;
use sluice::order::{OrderStatus, Slot};
use sluice::outbox::{OpenError, Outbox, ReadLimits};
use sluice::plugin::{Generation, PluginHost, bundled};
use sluice::record::Record;
use sluice::route::{ReplyRules, RouteRules, Rules};
use sluice::telemetry::Metrics;
use sluice::telemetry::metrics::KindLabel;

use super::carry::{CONNECTING, Relay};
use super::plugins::source;
use super::report::{self, Ratios};
use super::server;
use super::services::{Kafka, Postgres, block_on};

/// Orders of one round.
const ORDERS: usize = 20_000;
pub(crate) const PLUGIN: &str = "order-rules";
/// Times that the bare producer sends these records, since it is done with them in no time.
const REPEATS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("S9b: draining 20,000 orders through order-rules, against a bare producer of the same records");
    let (mut rates, mut cpus) = (Ratios::default(), Ratios::default());
    for round in 1..=report::ROUNDS {
        let folder = tempfile::tempdir_in(".")?;
        let probe = report::probe(folder.path())?;
        let mut config = server::config(folder.path())?;
        let broker = DevBroker::start(&config.route, config.dev.partitions)?;
        broker.adapt(&mut config.kafka);
        config.route[0].plugins = vec![PLUGIN.to_owned()];
        let (drained, records) = fill_and_drain(&config)?;
        drop(broker);
        // One of the same kind that has nothing yet: it drops silently what exceeds its memory.
        let fresh = DevBroker::start(&config.route, config.dev.partitions)?;
        let produced = produce(&records, fresh.bootstrap_servers())?;
        println!("round {round}: {probe}; {}", said(&drained, &produced));
        rates.add(drained.rate() / produced.rate());
        cpus.add(produced.cpu() / drained.cpu());
    }
    rates.print("S9b rate, drain / bare producer", ">= 0.12");
    cpus.print("S9b CPU per row, bare producer / drain", "none");
    Ok(())
}

/// Where orders wait, and what judges them.
const WAYS: [(&str, bool, &[&str]); 4] = [
    ("SQLite, no plugin", false, &[]),
    ("SQLite, order-rules", false, &[PLUGIN]),
    ("PostgreSQL, no plugin", true, &[]),
    ("PostgreSQL, order-rules", true, &[PLUGIN]),
];

pub(crate) fn run_real() -> anyhow::Result<()> {
    report::title("S9: draining 20,000 orders to a real Kafka, against a bare producer of the same records");
    let (Some(kafka), Some(postgres)) = (Kafka::find("S9"), Postgres::start("S9")?) else { return Ok(()) };
    let mut ratios: [(Ratios, Ratios); 4] = Default::default();
    // The first round warms the broker up.
    for round in 0..=report::rounds(report::ROUNDS)? {
        for (way, (rates, cpus)) in WAYS.iter().zip(&mut ratios) {
            let (name, is_postgres, plugins) = way;
            let folder = tempfile::tempdir_in(".")?;
            let probe = report::probe(folder.path())?;
            let mut config = server::config(folder.path())?;
            config.route[0].plugins = plugins.iter().map(|name| (*name).to_owned()).collect();
            block_on(kafka.adapt(&mut config))??;
            if *is_postgres {
                block_on(postgres.create("drained"))??;
                config.database.url = postgres.url("drained");
            }
            let before = postgres.cpu()?;
            let (drained, records) = fill_and_drain(&config)?;
            let database = (postgres.cpu()? - before).as_secs_f64() * 1e6 / ORDERS as f64;
            let produced = produce(&records, &kafka.address)?;
            block_on(kafka.forget(&config))??;
            if *is_postgres {
                block_on(postgres.run("postgres", "DROP DATABASE drained WITH (FORCE)"))??;
            }
            if round > 0 {
                println!(
                    "round {round}, {name}: {probe}; {}; PostgreSQL's own {database:.1} us CPU with the intake",
                    said(&drained, &produced)
                );
                rates.add(drained.rate() / produced.rate());
                cpus.add(produced.cpu() / drained.cpu());
            }
        }
    }
    for ((name, _, plugins), (rates, cpus)) in WAYS.iter().zip(&ratios) {
        let goal = if plugins.is_empty() { ">= 0.7" } else { ">= 0.35, at least 0.12" };
        rates.print(&format!("S9 {name}: rate, drain / bare producer"), goal);
        cpus.print(&format!("S9 {name}: CPU of this process per row, bare producer / drain"), "none");
    }
    Ok(())
}

fn said(drained: &Took, produced: &Took) -> String {
    format!(
        "drain {:.0} rows/s {:.1} us CPU, bare producer {:.0} records/s {:.1} us CPU; {ORDERS} orders PUBLISHED and acknowledged",
        drained.rate(),
        drained.cpu(),
        produced.rate(),
        produced.cpu(),
    )
}

fn fill_and_drain(config: &Config) -> anyhow::Result<(Took, Vec<Record>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        fill(config, ORDERS).await?;
        let Drained { took, outbox } = drain(config, ORDERS).await?;
        let published = outbox.counts().into_iter().find(|(status, _)| *status == OrderStatus::Published);
        ensure!(published.is_some_and(|(_, count)| count == ORDERS as u64), "not all are PUBLISHED: {published:?}");
        let mut records = Vec::with_capacity(ORDERS);
        for slot in Slot::all() {
            records.extend(outbox.records(slot, 0, ReadLimits { count: ORDERS, bytes: usize::MAX }).await?);
        }
        ensure!(records.len() == ORDERS, "{} records in the log", records.len());
        Ok((took, records))
    })
}

/// What one arm of a round took.
pub(crate) struct Took {
    rows: f64,
    wall: Duration,
    cpu: Duration,
}

impl Took {
    pub(crate) fn since(rows: usize, begun: Instant, cpu: Duration) -> Self {
        Self { rows: rows as f64, wall: begun.elapsed(), cpu: report::cpu_of_process().saturating_sub(cpu) }
    }

    pub(crate) fn rate(&self) -> f64 {
        self.rows / self.wall.as_secs_f64()
    }

    /// CPU of this process per row, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.rows
    }
}

/// Takes orders in, and lets go of the database.
pub(crate) async fn fill(config: &Config, count: usize) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new());
    let intake = Intake::new(open(config, &metrics).await?, config.intake.clone(), Arc::clone(&metrics));
    server::post(&intake, count).await?;
    Ok(())
}

async fn open(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Outbox> {
    loop {
        match Outbox::open(&config.database, rules(config), Clock::system(), Arc::clone(metrics)).await {
            // The writer gives its lock back with its last commit.
            Err(OpenError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => return Ok(opened?),
        }
    }
}

/// What was drained, and the database it came from.
pub(crate) struct Drained {
    pub(crate) took: Took,
    pub(crate) outbox: Outbox,
}

/// Starts the relay on a database that was opened anew, so that it reads the entries from there, until so many more orders
/// are on Kafka; a little more may be by then, and counts.
pub(crate) async fn drain(config: &Config, count: usize) -> anyhow::Result<Drained> {
    let mut config = config.clone();
    // Nobody renews it here.
    config.node.lease = Span(Duration::from_secs(3600));
    let metrics = Arc::new(Metrics::new());
    let outbox = open(&config, &metrics).await?;
    let plugins = host(&config, &metrics)?;
    let relay = Relay::connect(&config, &outbox, plugins, Clock::system(), &metrics).await?;
    let before = outbox.backlog();
    ensure!(before >= count as u64, "only {before} orders wait");

    let (begun, cpu) = (Instant::now(), report::cpu_of_process());
    let tasks = relay.run();
    while outbox.backlog() > before - count as u64 {
        ensure!(begun.elapsed() < PATIENCE, "{} orders are left", outbox.backlog());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = Took::since(usize::try_from(before - outbox.backlog())?, begun, cpu);
    tasks.stop("relay", Duration::from_secs(10)).await;
    let acknowledged = metrics.kafka_deliveries.get_or_create(&KindLabel { kind: "acknowledged" }).get();
    ensure!(acknowledged >= count as u64, "{acknowledged} records acknowledged");
    ensure!(metrics.kafka_producers_replaced.get() == 0, "the producer was replaced");
    if is_postgres(&config) {
        outbox.resign().await?;
    }
    Ok(Drained { took, outbox })
}

fn is_postgres(config: &Config) -> bool {
    config.database.url.starts_with("postgres")
}

pub(crate) fn rules(config: &Config) -> Rules {
    let route = &config.route[0];
    let replies = route.replies.as_ref().map(|replies| ReplyRules {
        topic: replies.topic.clone(),
        all_of: replies.all_of.clone(),
        any_of_rejects: replies.any_of_rejects.clone(),
        deadline: Duration::from_secs(3600),
        grace: config.replies.grace.0,
    });
    Rules::from([(Arc::from(route.path.as_str()), RouteRules { replies, has_outcomes: true })])
}

pub(crate) fn host(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<PluginHost> {
    let table = config.plugins.config.get(PLUGIN).cloned().unwrap_or_default();
    let (_, component) = bundled().into_iter().find(|(name, _)| *name == PLUGIN).context(PLUGIN)?;
    let source = source(PLUGIN, Bytes::from_static(component), serde_json::to_vec(&table)?);
    let host = PluginHost::start(&config.plugins, Arc::clone(metrics))?;
    let chains = config.route.iter().map(|route| (route.path.as_str(), route.plugins.as_slice()));
    host.publish(Generation::new(1, vec![host.load(&config.plugins, source)?], chains));
    Ok(host)
}

/// Counts what was acknowledged.
struct Count(AtomicU64);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if report.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A producer with the settings of the gateway's, for measuring beside it.
pub(crate) fn settings(brokers: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "524288");
    settings
}

/// Sends the same records with the same settings and nothing else.
fn produce(records: &[Record], brokers: &str) -> anyhow::Result<Took> {
    let settings = settings(brokers);
    let producer = ThreadedProducer::from_config_and_context(&settings, Count(AtomicU64::new(0)))?;
    std::thread::sleep(CONNECTING);
    let (begun, cpu) = (Instant::now(), report::cpu_of_process());
    let all = REPEATS * records.len();
    for record in std::iter::repeat_n(records, REPEATS).flatten() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: Some(&value[..]) });
        }
        let message = BaseRecord::to(&record.topic)
            .key(&record.key[..])
            .payload(&record.value[..])
            .timestamp(record.timestamp.0)
            .headers(headers);
        producer.send(message).map_err(|(error, _)| error)?;
    }
    while producer.context().0.load(Ordering::Relaxed) < all as u64 {
        ensure!(begun.elapsed() < PATIENCE, "not all are acknowledged");
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = Took::since(all, begun, cpu);
    producer.flush(Duration::from_secs(1))?;
    Ok(took)
}
