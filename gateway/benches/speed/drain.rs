//! S9b: how fast a full outbox drains through one plugin to the development broker, against a bare producer.

use std::path::Path;
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
use sluice::config::Config;
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

/// Orders of one round.
const ORDERS: usize = 20_000;
const PLUGIN: &str = "order-rules";
/// Times that the bare producer sends these records, since it is done with them in no time.
const REPEATS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("S9b: draining 20,000 orders through order-rules, against a bare producer of the same records");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut rates, mut cpus) = (Ratios::default(), Ratios::default());
    for round in 1..=report::ROUNDS {
        let folder = tempfile::tempdir_in(".")?;
        let probe = report::probe(folder.path())?;
        let (drained, records) = runtime.block_on(drain(folder.path()))?;
        let produced = produce(&records)?;
        println!(
            "round {round}: {probe}; drain {:.0} rows/s {:.1} us CPU, bare producer {:.0} records/s {:.1} us CPU; {} orders PUBLISHED, {} records",
            drained.rate(),
            drained.cpu(),
            produced.rate(),
            produced.cpu(),
            ORDERS,
            records.len()
        );
        rates.add(drained.rate() / produced.rate());
        cpus.add(produced.cpu() / drained.cpu());
    }
    rates.print("S9b rate, drain / bare producer", ">= 0.12");
    cpus.print("S9b CPU per row, bare producer / drain", "none");
    Ok(())
}

/// What one arm of a round took.
struct Took {
    rows: f64,
    wall: Duration,
    cpu: Duration,
}

impl Took {
    fn since(rows: usize, begun: Instant, cpu: Duration) -> Self {
        Self { rows: rows as f64, wall: begun.elapsed(), cpu: report::cpu_of_process().saturating_sub(cpu) }
    }

    fn rate(&self) -> f64 {
        self.rows / self.wall.as_secs_f64()
    }

    fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.rows
    }
}

/// Fills an outbox, then starts the relay on it, until every order is PUBLISHED.
async fn drain(folder: &Path) -> anyhow::Result<(Took, Vec<Record>)> {
    let mut config = server::config(folder)?;
    let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
    let broker = DevBroker::start(&config.route, config.dev.partitions)?;
    broker.adapt(&mut config.kafka);
    config.route[0].plugins = vec![PLUGIN.to_owned()];
    let open = || Outbox::open(&config.database, rules(&config), clock.clone(), Arc::clone(&metrics));
    let intake = Intake::new(open()?, config.intake.clone(), Arc::clone(&metrics));
    server::post(&intake, ORDERS).await?;
    // Opened anew, so that the relay reads the entries from the database.
    drop(intake);
    let outbox = loop {
        match open() {
            // The writer gives its lock back with its last commit.
            Err(OpenError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened?,
        }
    };
    let plugins = host(&config, &metrics)?;
    let relay = Relay::connect(&config, &outbox, plugins, clock, &metrics).await?;

    let (begun, cpu) = (Instant::now(), report::cpu_of_process());
    let tasks = relay.run();
    while outbox.backlog() > 0 {
        ensure!(begun.elapsed() < PATIENCE, "{} orders are left", outbox.backlog());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = Took::since(ORDERS, begun, cpu);
    tasks.stop("relay", Duration::from_secs(10)).await;
    let published = outbox.counts().into_iter().find(|(status, _)| *status == OrderStatus::Published);
    ensure!(published.is_some_and(|(_, count)| count == ORDERS as u64), "not all are PUBLISHED: {published:?}");
    let acknowledged = metrics.kafka_deliveries.get_or_create(&KindLabel { kind: "acknowledged" }).get();
    ensure!(acknowledged == ORDERS as u64, "{acknowledged} records acknowledged");
    let mut records = Vec::with_capacity(ORDERS);
    for slot in Slot::all() {
        records.extend(outbox.records(slot, 0, ReadLimits { count: ORDERS, bytes: usize::MAX }).await?);
    }
    ensure!(records.len() == ORDERS, "{} records in the log", records.len());
    Ok((took, records))
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

fn host(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<PluginHost> {
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

/// Sends the same records with the same settings and nothing else, to a broker of the same kind.
fn produce(records: &[Record]) -> anyhow::Result<Took> {
    let config = sluice::config::load::assemble(None, [])?;
    let broker = DevBroker::start(&config.route, config.dev.partitions)?;
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "524288");
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
