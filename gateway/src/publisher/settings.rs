//! What librdkafka's producer is told, and what may not be told otherwise.

use rdkafka::ClientConfig;

use super::PublishError;
use crate::config::KafkaConfig;
use crate::config::check::kafka::reserved;

/// Our settings, then the operator's over them, except for those that carry a promise.
pub(super) fn producer(config: &KafkaConfig, brokers: &str) -> Result<ClientConfig, PublishError> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("client.id", "sluice")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // A failure that would leave a gap ends the producer, so that nothing overtakes.
        .set("enable.gapless.guarantee", "true")
        // Never given up: an outage ends by itself, or the operator ends it.
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", config.message_bytes_max.0.to_string())
        .set("linger.ms", "1")
        .set("batch.num.messages", "10000")
        // The relay bounds what is in flight; these only keep a mistake there from taking all memory.
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "524288")
        // A topic that is not there is said to be missing after this; the relay looks for it again.
        .set("topic.metadata.propagation.max.ms", "5000")
        .set("statistics.interval.ms", "1000")
        .set("reconnect.backoff.max.ms", "2000");
    for (section, map) in [("kafka.properties", &config.properties), ("kafka.producer", &config.producer)] {
        for (key, value) in map {
            if let Some(reason) = reserved(key) {
                return Err(PublishError::Reserved { section, key: key.clone(), reason });
            }
            settings.set(key, value);
        }
    }
    Ok(settings)
}

/// The same for one record at a time, so that a refusal names its record: it waits for no other.
pub(super) fn careful(settings: &ClientConfig) -> ClientConfig {
    let mut careful = settings.clone();
    careful.set("batch.num.messages", "1").set("linger.ms", "0");
    careful
}
