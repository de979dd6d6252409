//! Asks a Kafka cluster about itself: who answers, what topics there are and how they are set, what time it has there.
//!
//! Nothing here is part of carrying orders; it is for whoever wants to know before.
//!
//! # Not here
//!
//! What the answers are worth: `doctor`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use crate::clock::{Clock, Timestamp};
use crate::config::KafkaConfig;

/// What a cluster said of itself.
#[derive(Debug, Clone, Default)]
pub struct ClusterFacts {
    /// `host:port` of each broker.
    pub brokers: Vec<String>,
}

/// What a cluster said of a topic.
#[derive(Debug, Clone, Default)]
pub struct TopicFacts {
    /// None: it is not there.
    pub partitions: usize,
    /// Fewest replicas of a partition, and fewest of those that are in step.
    pub replicas: usize,
    pub in_step: usize,
    /// Its settings by name; empty where we may not see them.
    pub settings: BTreeMap<String, String>,
    /// Time of the newest record that can be read, if there is one.
    pub newest: Option<Timestamp>,
    /// What the cluster refuses to say, and why.
    pub refusal: Option<String>,
}

/// What time a broker has.
#[derive(Debug, Clone, Copy)]
pub struct TimeFacts {
    pub theirs: Timestamp,
    /// Ours right before it was asked and right after it answered.
    pub before: Timestamp,
    pub after: Timestamp,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("`kafka.{0}` cannot be set: {1}")]
    Reserved(String, &'static str),
    #[error("librdkafka does not accept the settings: {0}")]
    Settings(KafkaError),
    #[error("{}", .0.join("; "))]
    Unreachable(Vec<String>),
    #[error("Kafka refuses: {0}")]
    Refused(String),
}

/// A client that only asks.
pub struct Broker {
    settings: ClientConfig,
    admin: AdminClient<Said>,
    said: Said,
    limit: Duration,
}

impl Broker {
    /// A client of the brokers of a configuration; it connects in the background. `limit` is for each answer.
    ///
    /// # Errors
    ///
    /// A setting is ours, or librdkafka does not accept one.
    pub fn connect(config: &KafkaConfig, limit: Duration) -> Result<Self, BrokerError> {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &config.brokers).set("client.id", "sluice-doctor");
        for (name, value) in &config.properties {
            if let Some(reason) = crate::config::check::kafka::reserved(name) {
                return Err(BrokerError::Reserved(format!("properties.{name}"), reason));
            }
            settings.set(name, value);
        }
        // A name or a value that one of the two clients would not take.
        for (section, more) in [("producer", &config.producer), ("consumer", &config.consumer)] {
            let mut all = settings.clone();
            for (name, value) in more {
                if let Some(reason) = crate::config::check::kafka::reserved(name) {
                    return Err(BrokerError::Reserved(format!("{section}.{name}"), reason));
                }
                all.set(name, value);
            }
            all.create_native_config().map_err(BrokerError::Settings)?;
        }
        let said = Said::default();
        let admin = AdminClient::from_config_and_context(&settings, said.clone()).map_err(BrokerError::Settings)?;
        Ok(Self { settings, admin, said, limit })
    }

    /// Who answers. Blocks up to the limit.
    ///
    /// # Errors
    ///
    /// Nobody does; what was said on the way.
    pub fn cluster(&self) -> Result<ClusterFacts, BrokerError> {
        // Of no topic: the cluster's own part.
        let consumer: BaseConsumer<Said> =
            BaseConsumer::from_config_and_context(&self.settings, self.said.clone()).map_err(BrokerError::Settings)?;
        let until = Instant::now() + self.limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match consumer.fetch_metadata(None, left.min(Duration::from_secs(1))) {
                Ok(metadata) => {
                    let brokers =
                        metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port()));
                    return Ok(ClusterFacts { brokers: brokers.collect() });
                }
                Err(error) => {
                    // Hears what goes wrong with the connections.
                    drop(consumer.poll(Duration::from_millis(50)));
                    if Instant::now() >= until || self.said.is_final() {
                        return Err(BrokerError::Unreachable(self.said.all_or(&error)));
                    }
                }
            }
        }
    }

    /// What there is to know of some topics, each by its name. None of them is created by asking.
    ///
    /// # Errors
    ///
    /// No answer at all.
    pub fn topics(&self, names: &[String]) -> Result<BTreeMap<String, TopicFacts>, BrokerError> {
        let mut quiet = self.settings.clone();
        quiet
            .set("allow.auto.create.topics", "false")
            .set("group.id", "sluice-doctor")
            .set("enable.auto.commit", "false");
        let consumer: BaseConsumer<Said> =
            BaseConsumer::from_config_and_context(&quiet, self.said.clone()).map_err(BrokerError::Settings)?;
        let mut found = BTreeMap::new();
        for name in names {
            let metadata = consumer
                .fetch_metadata(Some(name), self.limit)
                .map_err(|error| BrokerError::Unreachable(self.said.all_or(&error)))?;
            let mut facts = TopicFacts::default();
            for topic in metadata.topics().iter().filter(|topic| topic.name() == name) {
                facts.partitions = topic.partitions().len();
                let parts = || topic.partitions().iter();
                facts.replicas = parts().map(|part| part.replicas().len()).min().unwrap_or(0);
                facts.in_step = parts().map(|part| part.isr().len()).min().unwrap_or(0);
                match topic.error().map(RDKafkaErrorCode::from) {
                    None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::LeaderNotAvailable) => {}
                    Some(code) => facts.refusal = Some(code.to_string()),
                }
            }
            if facts.partitions > 0 {
                facts.newest = self.newest(&consumer, name, facts.partitions);
            }
            found.insert(name.clone(), facts);
        }
        self.read_settings(&mut found);
        Ok(found)
    }

    fn read_settings(&self, topics: &mut BTreeMap<String, TopicFacts>) {
        let there: Vec<String> =
            topics.iter().filter(|(_, facts)| facts.partitions > 0).map(|(name, _)| name.clone()).collect();
        if there.is_empty() {
            return;
        }
        let asked: Vec<_> = there.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(self.limit));
        let answers = match block_on(self.admin.describe_configs(&asked, &options)) {
            Some(Ok(answers)) => answers,
            Some(Err(error)) => {
                topics.values_mut().for_each(|facts| facts.refusal = Some(format!("its settings: {error}")));
                return;
            }
            None => return,
        };
        for (name, answer) in there.iter().zip(answers) {
            let Some(facts) = topics.get_mut(name) else { continue };
            match answer {
                Ok(resource) => {
                    let settings = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                    facts.settings = settings.collect();
                }
                Err(code) => facts.refusal = Some(format!("its settings: {code}")),
            }
        }
    }

    /// The time of the newest record of any partition. What cannot be read is left out.
    fn newest(&self, consumer: &BaseConsumer<Said>, topic: &str, partitions: usize) -> Option<Timestamp> {
        let mut assignment = TopicPartitionList::new();
        let mut expected = 0;
        for partition in 0..i32::try_from(partitions).ok()? {
            let (low, high) = consumer.fetch_watermarks(topic, partition, self.limit).ok()?;
            if high > low {
                expected += 1;
                assignment.add_partition_offset(topic, partition, Offset::Offset(high - 1)).ok()?;
            }
        }
        consumer.assign(&assignment).ok()?;
        let (until, mut newest) = (Instant::now() + self.limit, None);
        // The last place of a partition may hold the mark of a transaction: nothing is read there, and the wait ends it.
        while expected > 0 && Instant::now() < until {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(500)) {
                expected -= 1;
                newest = newest.max(message.timestamp().to_millis().map(Timestamp));
            } else if newest.is_some() {
                break;
            }
        }
        newest
    }

    /// What time it has there: by a topic of our own, in which the broker stamps one record, and which is removed again.
    ///
    /// # Errors
    ///
    /// We may not make a topic, or not write to it.
    pub fn time(&self, name: &str, clock: &Clock) -> Result<TimeFacts, BrokerError> {
        let options = AdminOptions::new().operation_timeout(Some(self.limit)).request_timeout(Some(self.limit));
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(-1)).set("message.timestamp.type", "LogAppendTime");
        let refused = |error: String| BrokerError::Refused(error);
        let made = block_on(self.admin.create_topics([&topic], &options))
            .ok_or_else(|| refused("no thread to ask with".to_owned()))?
            .map_err(|error| refused(error.to_string()))?;
        if let Some(Err((_, code))) = made.into_iter().next() {
            return Err(refused(format!("the topic {name} cannot be made: {code}")));
        }
        let stamped = self.stamp(name, clock);
        drop(block_on(self.admin.delete_topics(&[name], &options)));
        stamped
    }

    fn stamp(&self, name: &str, clock: &Clock) -> Result<TimeFacts, BrokerError> {
        let mut settings = self.settings.clone();
        settings.set("linger.ms", "0").set("message.timeout.ms", self.limit.as_millis().to_string());
        let stamps = Stamps::default();
        let producer: ThreadedProducer<Stamps> =
            ThreadedProducer::from_config_and_context(&settings, stamps.clone()).map_err(BrokerError::Settings)?;
        let mut times = None;
        // The first record pays for connecting; the second one's way is short.
        for _ in 0..2 {
            let before = clock.now();
            producer
                .send(BaseRecord::<(), str, ()>::to(name).payload("what time is it there?"))
                .map_err(|(error, _)| BrokerError::Refused(error.to_string()))?;
            producer.flush(self.limit).map_err(|error| BrokerError::Refused(error.to_string()))?;
            let stamped = stamps.take().unwrap_or_else(|| Err("no report".to_owned()));
            times = Some(TimeFacts { theirs: stamped.map_err(BrokerError::Refused)?, before, after: clock.now() });
        }
        times.ok_or_else(|| BrokerError::Refused("no report".to_owned()))
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    Some(runtime.block_on(future))
}

/// What went wrong on the way, in librdkafka's words, each thing once.
#[derive(Clone, Default)]
struct Said {
    lines: Arc<Mutex<Vec<(RDKafkaErrorCode, String)>>>,
}

impl Said {
    fn all_or(&self, error: &KafkaError) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<String> = lines
            .iter()
            .filter(|(code, _)| *code != RDKafkaErrorCode::AllBrokersDown)
            .map(|(_, line)| line.clone())
            .collect();
        if found.is_empty() {
            found.push(error.to_string());
        }
        found
    }

    /// Whether it will not become better by waiting.
    fn is_final(&self) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().any(|(code, _)| matches!(code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL))
    }
}

impl ClientContext for Said {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // `…: Connection refused (after 0ms in state CONNECT, 3 identical error(s) suppressed)`: the same again.
        let line = reason.split(" (after ").next().unwrap_or(reason).to_owned();
        if !lines.iter().any(|(_, known)| *known == line) {
            lines.push((code, line));
        }
    }
}

impl rdkafka::consumer::ConsumerContext for Said {}

/// The time of the record that was delivered last.
#[derive(Clone, Default)]
struct Stamps {
    last: Arc<Mutex<Option<Result<Timestamp, String>>>>,
}

impl Stamps {
    fn take(&self) -> Option<Result<Timestamp, String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Stamps {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl rdkafka::producer::ProducerContext for Stamps {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &rdkafka::producer::DeliveryResult<'_>, (): ()) {
        let stamped = match report {
            Ok(message) => message.timestamp().to_millis().map(Timestamp).ok_or_else(|| "no time in it".to_owned()),
            Err((error, _)) => Err(error.to_string()),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamped);
    }
}
