//! Hands records to Kafka and reports what became of each.
//!
//! Nothing is awaited per record: [`Publisher::send`] copies a record into the producer's queue, and its delivery report
//! arrives later on the channel given to [`Publisher::connect`].
//!
//! # Guarantees
//!
//! - Per topic and partition, no later record of one generation is delivered once an earlier one failed: a producer that
//!   failed a record takes no more ([`SendError::Broken`]) until [`Publisher::rebuild`].
//! - Every record that `send` took gets exactly one [`Delivery`], at the latest when its producer is destroyed: one that
//!   failed for good ([`Publisher::failure`]) may report some only then.
//! - [`DeliveryFault::Refused`] is said only of a record that was refused alone. A refused batch is
//!   [`DeliveryFault::Broken`] for each record in it, and the next generation is careful: it
//!   takes one record at a time.
//!
//! # What is not here
//!
//! Which record comes next and what follows from its report: `relay`.

mod fault;
mod link;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, error, info};

use crate::config::KafkaConfig;
use crate::order::Slot;
use crate::record::Record;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

use link::LinkState;

pub use link::Link;

/// How often [`Publisher::flush`] looks whether everything is reported.
const FLUSH_LOOK_MS: u64 = 2;

/// Sends records through one idempotent producer at a time.
pub struct Publisher {
    settings: ClientConfig,
    deliveries: UnboundedSender<Delivery>,
    meters: Meters,
    link: Arc<LinkState>,
    producer: ThreadedProducer<Reports>,
}

/// What became of one record.
#[derive(Debug)]
pub struct Delivery {
    /// The producer that had it; reports of an earlier one say nothing any more.
    pub generation: u64,
    pub slot: Slot,
    /// Place in the slot's log.
    pub number: i64,
    pub result: Result<Placed, DeliveryFault>,
}

/// Where Kafka put a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub partition: i32,
    /// -1 where the broker only said that it has the record already.
    pub offset: i64,
}

/// Why a record is not on Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryFault {
    /// Its own fault, for good: a dead letter. Its producer is done for, too.
    Refused(String),
    /// The topic's or the cluster's: nothing of its slot goes on. Its producer is done for, too.
    Stopped(String),
    /// Not known to be its fault: rebuild and send it again.
    Broken(String),
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too much is in flight: wait for delivery reports. Nothing is wrong.
    #[error("the producer's queue is full")]
    Full,
    /// The record's own fault, for good: a dead letter. The producer goes on.
    #[error("the record is refused: {0}")]
    Refused(String),
    /// The topic's or the cluster's fault. The producer is done for.
    #[error("the topic or the cluster is at fault: {0}")]
    Stopped(String),
    /// The producer is done for: rebuild it.
    #[error("the producer failed for good: {0}")]
    Broken(String),
}

/// Why there is no producer.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("`{section}.{key}` cannot be set: {reason}")]
    Reserved { section: &'static str, key: String, reason: &'static str },
    #[error("librdkafka does not accept the settings of the producer")]
    Settings(#[source] KafkaError),
}

impl Publisher {
    /// Makes the first producer; it connects in the background. `brokers` stands for `kafka.brokers`.
    ///
    /// # Errors
    ///
    /// A setting that would break a promise, or one that librdkafka does not accept. An unreachable broker is no error.
    pub fn connect(
        config: &KafkaConfig,
        brokers: &str,
        deliveries: UnboundedSender<Delivery>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PublishError> {
        let settings = settings::producer(config, brokers)?;
        let meters = Meters::of(&metrics);
        let link = Arc::new(LinkState::new());
        let reports = Reports::new(1, false, deliveries.clone(), meters.clone(), link.clone());
        let producer = make(&settings, reports)?;
        Ok(Self { settings, deliveries, meters, link, producer })
    }

    /// Hands one record over; never blocks. A record that is not taken gets no [`Delivery`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn send(&self, record: &Record) -> Result<(), SendError> {
        let reports = self.producer.client().context();
        if reports.is_closed.load(Ordering::Acquire) {
            return Err(SendError::Broken("an earlier record of this producer failed".to_owned()));
        }
        if reports.is_careful && reports.open.load(Ordering::Acquire) > 0 {
            return Err(SendError::Full);
        }
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: Some(&value[..]) });
        }
        let ticket = Box::new(Ticket { slot: record.slot, number: record.number });
        let message = BaseRecord::with_opaque_to(&record.topic, ticket)
            .key(&record.key[..])
            .payload(&record.value[..])
            .timestamp(record.timestamp.0)
            .headers(headers);
        reports.open.fetch_add(1, Ordering::AcqRel);
        self.meters.in_flight.inc();
        self.producer.send(message).map_err(|(error, _)| {
            reports.open.fetch_sub(1, Ordering::AcqRel);
            self.meters.in_flight.dec();
            let refusal = fault::refusal(&error);
            if matches!(refusal, SendError::Stopped(_) | SendError::Broken(_)) {
                reports.is_closed.store(true, Ordering::Release);
            }
            refusal
        })
    }

    /// Rises with each [`Publisher::rebuild`]; deliveries carry the one they belong to.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.producer.client().context().generation
    }

    /// Records taken and not yet reported.
    #[must_use]
    pub fn open_records(&self) -> usize {
        self.producer.client().context().open.load(Ordering::Acquire)
    }

    /// Whether this producer takes one record at a time ([`SendError::Full`] until its report) to find out which record
    /// of a batch was refused.
    ///
    /// It is slow. Where everything is acknowledged and it is still careful, a rebuild ends that.
    #[must_use]
    pub fn is_careful(&self) -> bool {
        self.producer.client().context().is_careful
    }

    /// Whether a broker can be talked to, as far as librdkafka knows.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.link()
    }

    /// Why this producer takes nothing more, where it failed for good.
    ///
    /// librdkafka empties its queues once when that happens; a record that was on its way into one of them stays there.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(code, _)| fault::reason(code))
    }

    /// Why the cluster takes nothing at all from this producer, where it failed for good and the cluster is at fault:
    /// another producer would fare no better.
    #[must_use]
    pub fn cluster_fault(&self) -> Option<String> {
        let (code, _) = self.producer.client().fatal_error()?;
        (fault::blame(code) == fault::Blame::Destination).then(|| fault::reason(code))
    }

    /// Purges and destroys the producer and makes a new one. What was in flight is reported as
    /// [`DeliveryFault::Broken`] under the old generation. Blocks while the old one ends, mostly 0.1 s, at most about 1 s.
    ///
    /// # Errors
    ///
    /// As [`Publisher::connect`]; the old producer then stays, and takes nothing.
    pub fn rebuild(&mut self) -> Result<(), PublishError> {
        let old = self.producer.client().context();
        old.is_closed.store(true, Ordering::Release);
        self.producer.purge(PurgeConfig::default().queue().inflight());
        let is_careful = old.is_suspicious.load(Ordering::Acquire);
        let reports = Reports::new(
            old.generation + 1,
            is_careful,
            self.deliveries.clone(),
            self.meters.clone(),
            self.link.clone(),
        );
        let settings = if is_careful { settings::careful(&self.settings) } else { self.settings.clone() };
        self.producer = make(&settings, reports)?;
        self.meters.replaced.inc();
        info!(generation = self.generation(), careful = is_careful, "the Kafka producer was replaced");
        Ok(())
    }

    /// Waits until every record is reported; returns whether that came within `limit`.
    pub async fn flush(&self, limit: Duration) -> bool {
        let all_reported = async {
            while self.producer.client().context().open.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(FLUSH_LOOK_MS)).await;
            }
        };
        tokio::time::timeout(limit, all_reported).await.is_ok()
    }
}

fn make(settings: &ClientConfig, reports: Reports) -> Result<ThreadedProducer<Reports>, PublishError> {
    ThreadedProducer::from_config_and_context(settings, reports).map_err(PublishError::Settings)
}

/// What a delivery report says about: the record's place in its slot's log.
struct Ticket {
    slot: Slot,
    number: i64,
}

/// The metrics this door counts in, looked up once.
#[derive(Clone)]
struct Meters {
    in_flight: Gauge,
    acknowledged: Counter,
    refused: Counter,
    stopped: Counter,
    fatal: Counter,
    replaced: Counter,
}

impl Meters {
    fn of(metrics: &Metrics) -> Self {
        let deliveries = |kind| metrics.kafka_deliveries.get_or_create(&KindLabel { kind }).clone();
        Self {
            in_flight: metrics.kafka_in_flight.clone(),
            acknowledged: deliveries("acknowledged"),
            refused: deliveries("refused"),
            stopped: deliveries("stopped"),
            fatal: deliveries("fatal"),
            replaced: metrics.kafka_producers_replaced.clone(),
        }
    }
}

/// Takes one producer's delivery reports and events, on its polling thread.
struct Reports {
    generation: u64,
    is_careful: bool,
    deliveries: UnboundedSender<Delivery>,
    meters: Meters,
    /// Records taken and not yet reported.
    open: AtomicUsize,
    /// A record failed: nothing more may be sent, it could overtake.
    is_closed: AtomicBool,
    /// A batch was refused and it is not known for which record.
    is_suspicious: AtomicBool,
    link: Arc<LinkState>,
}

impl Reports {
    fn new(
        generation: u64,
        is_careful: bool,
        deliveries: UnboundedSender<Delivery>,
        meters: Meters,
        link: Arc<LinkState>,
    ) -> Self {
        let (is_closed, is_suspicious) = (AtomicBool::new(false), AtomicBool::new(false));
        let open = AtomicUsize::new(0);
        Self { generation, is_careful, deliveries, meters, open, is_closed, is_suspicious, link }
    }

    fn fault(&self, code: RDKafkaErrorCode) -> DeliveryFault {
        self.is_closed.store(true, Ordering::Release);
        if fault::blame(code) == fault::Blame::Record && !self.is_careful {
            self.is_suspicious.store(true, Ordering::Release);
        }
        let fault = fault::delivery(code, self.is_careful);
        match &fault {
            DeliveryFault::Refused(_) => self.meters.refused.inc(),
            DeliveryFault::Stopped(_) => self.meters.stopped.inc(),
            DeliveryFault::Broken(_) => self.meters.fatal.inc(),
        };
        fault
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, report: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        self.meters.in_flight.dec();
        self.open.fetch_sub(1, Ordering::AcqRel);
        let result = match report {
            Ok(message) => {
                self.meters.acknowledged.inc();
                Ok(Placed { partition: message.partition(), offset: message.offset().max(-1) })
            }
            Err((error, _)) => Err(self.fault(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))),
        };
        let Ticket { slot, number } = *ticket;
        if self.deliveries.send(Delivery { generation: self.generation, slot, number, result }).is_err() {
            debug!("a delivery report came after the relay had ended");
        }
    }
}

/// The part of librdkafka's statistics that is of interest.
#[derive(Deserialize)]
struct Statistics {
    brokers: std::collections::BTreeMap<String, BrokerStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    state: String,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // What matters comes as a report or an error; the rest would repeat it every second of an outage.
        debug!(target: "librdkafka", ?level, facility, "{text}");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        // Idle connections may be closed: only an error says that the cluster is gone.
        let read: Result<Statistics, _> = serde_json::from_slice(statistics);
        if read.is_ok_and(|statistics| statistics.brokers.values().any(|broker| broker.state == "UP")) {
            self.link.is_up();
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.link.is_down(reason),
            Some(RDKafkaErrorCode::Fatal) => {
                self.is_closed.store(true, Ordering::Release);
                error!(generation = self.generation, "the Kafka producer failed for good: {reason}");
            }
            code => {
                debug!("Kafka producer: {error}: {reason}");
                self.link.trouble(code.unwrap_or(RDKafkaErrorCode::Unknown), reason);
            }
        }
    }
}

#[cfg(test)]
mod tests;
