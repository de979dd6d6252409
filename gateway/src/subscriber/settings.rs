//! What librdkafka's consumer is told, and what may not be told otherwise.

use std::time::Duration;

use rdkafka::ClientConfig;

use super::SubscribeError;
use crate::config::check::kafka::reserved;
use crate::config::{KafkaConfig, RepliesConfig};

/// Shortest time that a member may take between two looks at its queue. A node whose database is away takes no replies; the
/// others get its partitions after this, and their own at once.
const STALL_MIN: Duration = Duration::from_secs(60);

/// Our settings, then the operator's over them, except for those that carry a promise.
pub(super) fn consumer(
    config: &KafkaConfig,
    replies: &RepliesConfig,
    brokers: &str,
) -> Result<ClientConfig, SubscribeError> {
    let session = replies.session_timeout.0;
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("client.id", "sluice")
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        // A node that comes or goes interrupts the reading of those partitions only that move.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session.as_millis().to_string())
        .set("heartbeat.interval.ms", (session / 4).min(Duration::from_secs(3)).as_millis().to_string())
        .set("max.poll.interval.ms", session.max(STALL_MIN).as_millis().to_string())
        // New topics and partitions are seen this soon.
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("reconnect.backoff.max.ms", "2000");
    if !replies.member.is_empty() {
        settings.set("group.instance.id", &replies.member);
    }
    for (section, map) in [("kafka.properties", &config.properties), ("kafka.consumer", &config.consumer)] {
        for (key, value) in map {
            if let Some(reason) = reserved(key) {
                return Err(SubscribeError::Reserved { section, key: key.clone(), reason });
            }
            settings.set(key, value);
        }
    }
    Ok(settings)
}
