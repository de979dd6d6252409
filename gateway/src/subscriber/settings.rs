//! What librdkafka's consumer is told, and what may not be told otherwise.

use rdkafka::ClientConfig;

use super::SubscribeError;
use crate::config::KafkaConfig;

const LOSES_REPLIES: &str = "replies would be lost";

/// Settings with a promise in them, and what they keep. Aliases too.
const RESERVED: [(&str, &str); 9] = [
    ("enable.auto.commit", LOSES_REPLIES),
    ("auto.commit.enable", LOSES_REPLIES),
    ("enable.auto.offset.store", LOSES_REPLIES),
    ("auto.offset.reset", LOSES_REPLIES),
    ("enable.partition.eof", "orders whose reply topic is quiet would never expire"),
    ("group.id", "it is `kafka.group`"),
    ("bootstrap.servers", "it is `kafka.brokers`"),
    ("metadata.broker.list", "it is `kafka.brokers`"),
    ("test.mock.num.brokers", "`sluice dev` has a development broker"),
];

/// Our settings, then the operator's over them, except for those that carry a promise.
pub(super) fn consumer(config: &KafkaConfig, brokers: &str) -> Result<ClientConfig, SubscribeError> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("client.id", "sluice")
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // A killed node's partitions are read by another one after this.
        .set("session.timeout.ms", "10000")
        // New topics and partitions are seen this soon.
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("reconnect.backoff.max.ms", "2000");
    for (section, map) in [("kafka.properties", &config.properties), ("kafka.consumer", &config.consumer)] {
        for (key, value) in map {
            if let Some((_, reason)) = RESERVED.iter().find(|(reserved, _)| reserved == key) {
                return Err(SubscribeError::Reserved { section, key: key.clone(), reason });
            }
            settings.set(key, value);
        }
    }
    Ok(settings)
}
