//! The development broker and the sample services: what `sluice dev` has in place of Kafka and of other people's code.
//!
//! The broker is librdkafka's mock cluster. It keeps records in memory, forgets them when the process ends, and drops the
//! oldest silently at 5 MiB or 100,000 records per partition: for development only.

mod services;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tracing::debug;

use crate::config::{Config, KafkaConfig, RouteConfig};
use crate::lifecycle::Tasks;

/// How long the broker lets a fetch wait for records. It answers no earlier when one comes, so this is latency.
const FETCH_WAIT_MS: &str = "20";
/// How long the first member of a group waits for others; a real broker waits 3 s.
const REBALANCE_DELAY_MS: i32 = 1;

/// A Kafka broker within this process.
pub struct DevBroker {
    /// The client that owns the mock cluster. Its thread serves the cluster's log.
    host: ThreadedProducer<Quiet>,
    brokers: String,
}

/// Why there is no development broker.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("the development broker did not start")]
    Start(#[source] KafkaError),
    #[error("the development broker did not start: librdkafka gave no mock cluster")]
    NoCluster,
    #[error("topic `{topic}` could not be created on the development broker")]
    Topic {
        topic: String,
        #[source]
        source: KafkaError,
    },
    #[error("the sample service `{service}` did not start")]
    Service {
        service: String,
        #[source]
        source: KafkaError,
    },
}

/// Starts the broker with the topics of all routes, and the sample services as tasks of `tasks`.
///
/// The services end with the tasks; the broker when it is dropped, which must be last.
///
/// # Errors
///
/// See [`DevError`].
pub fn start(config: &Config, tasks: &Tasks) -> Result<DevBroker, DevError> {
    let broker = DevBroker::start(&config.route, config.dev.partitions)?;
    for service in services::Service::of_routes(&config.route) {
        service.start(broker.bootstrap_servers(), config.dev.answer_within.0, tasks)?;
    }
    Ok(broker)
}

impl DevBroker {
    /// Starts a broker that has every topic of `routes`.
    ///
    /// # Errors
    ///
    /// No port, no memory, or a topic's name that Kafka does not allow.
    pub fn start(routes: &[RouteConfig], partitions: i32) -> Result<Self, DevError> {
        let mut settings = ClientConfig::new();
        settings.set("test.mock.num.brokers", "1").set("client.id", "sluice-dev-broker");
        let host = ThreadedProducer::from_config_and_context(&settings, Quiet).map_err(DevError::Start)?;
        shorten_rebalance(&host)?;
        let brokers = {
            let cluster = host.client().mock_cluster().ok_or(DevError::NoCluster)?;
            for topic in topics(routes) {
                let created = cluster.create_topic(topic, partitions, 1);
                created.map_err(|source| DevError::Topic { topic: topic.to_owned(), source })?;
            }
            cluster.bootstrap_servers()
        };
        Ok(Self { host, brokers })
    }

    /// Where it listens: `host:port` on loopback.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.brokers
    }

    /// Sets what suits this broker where the configuration does not say otherwise. How to come in at the broker of
    /// production is left out: this one asks nobody who they are.
    pub fn adapt(&self, kafka: &mut KafkaConfig) {
        kafka.brokers.clone_from(&self.brokers);
        let is_access = |name: &str| {
            ["security.", "ssl.", "sasl."].iter().any(|prefix| name.starts_with(prefix))
                || name == "enable.ssl.certificate.verification"
        };
        for settings in [&mut kafka.properties, &mut kafka.producer, &mut kafka.consumer] {
            settings.retain(|name, _| !is_access(name));
        }
        kafka.consumer.entry("fetch.wait.max.ms".to_owned()).or_insert_with(|| FETCH_WAIT_MS.to_owned());
    }

    /// Takes it off the network, or puts it back, with all its records.
    ///
    /// # Errors
    ///
    /// librdkafka refuses.
    pub fn set_reachable(&self, is_reachable: bool) -> Result<(), DevError> {
        let cluster = self.host.client().mock_cluster().ok_or(DevError::NoCluster)?;
        let done = if is_reachable { cluster.broker_up(-1) } else { cluster.broker_down(-1) };
        done.map_err(DevError::Start)
    }

    /// The cluster itself, for tests that make it fail.
    #[cfg(test)]
    pub(crate) fn cluster(&self) -> rdkafka::mocking::MockCluster<'_, impl ClientContext> {
        self.host.client().mock_cluster().unwrap()
    }

    /// The next producer that asks for leave to send fails for good.
    #[cfg(test)]
    pub(crate) fn refuse_a_producer(&self) {
        use rdkafka::types::{RDKafkaApiKey::InitProducerId, RDKafkaRespErr};
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        self.cluster().request_errors(InitProducerId, &[denied]);
    }
}

/// Every topic of the routes, each once.
fn topics(routes: &[RouteConfig]) -> Vec<&str> {
    let mut topics: Vec<&str> = Vec::new();
    for route in routes {
        topics.extend(route.topics());
        topics.extend(route.outcomes.as_deref());
        topics.extend(route.replies.as_ref().map(|replies| replies.topic.as_str()));
    }
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// A new group's first member would wait 3 s for others.
#[expect(unsafe_code, reason = "rdkafka has no safe call for this setting of the mock cluster")]
fn shorten_rebalance(host: &ThreadedProducer<Quiet>) -> Result<(), DevError> {
    // SAFETY: `host` owns a live native client for the length of this call. The cluster's pointer is checked, belongs to
    // that client and lives as long; librdkafka takes the cluster's own lock to change the setting.
    unsafe {
        let cluster = rdkafka::bindings::rd_kafka_handle_mock_cluster(host.client().native_ptr());
        if cluster.is_null() {
            return Err(DevError::NoCluster);
        }
        rdkafka::bindings::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, REBALANCE_DELAY_MS);
    }
    Ok(())
}

/// Clients of the development side say nothing above the debug level.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        debug!(target: "librdkafka", ?level, facility, "{text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!("development broker: {error}: {reason}");
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = report {
            debug!("a sample service's answer was not delivered: {error}");
        }
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

#[cfg(test)]
mod tests;
