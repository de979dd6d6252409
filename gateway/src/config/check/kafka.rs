//! The broker and librdkafka's own settings: which are ours to set, and which this program cannot serve.

use std::collections::BTreeMap;

use crate::config::{Config, Problem};

/// Whether this program has TLS towards Kafka, and SCRAM, which needs its library.
pub const HAS_TLS: bool = cfg!(feature = "kafka-tls");

const KEEPS_ORDER: &str = "records of one order key would be lost or overtake each other";
const KEEPS_REPLIES: &str = "replies would be lost";
const KEEPS_RECORDS: &str = "an acknowledged record must survive the loss of a broker";

/// Settings that carry a promise, aliases too, and what they keep.
const RESERVED: [(&str, &str); 28] = [
    ("acks", KEEPS_RECORDS),
    ("auto.commit.enable", KEEPS_REPLIES),
    ("auto.offset.reset", KEEPS_REPLIES),
    ("bootstrap.servers", "it is `kafka.brokers`"),
    ("delivery.timeout.ms", KEEPS_ORDER),
    ("enable.auto.commit", KEEPS_REPLIES),
    ("enable.auto.offset.store", KEEPS_REPLIES),
    ("enable.gapless.guarantee", KEEPS_ORDER),
    ("enable.idempotence", KEEPS_ORDER),
    ("enable.partition.eof", "orders whose reply topic is quiet would never expire"),
    ("group.id", "it is `kafka.group`"),
    ("group.instance.id", "it is `replies.member`"),
    ("isolation.level", "a reply of a transaction that was aborted was never given"),
    ("log.queue", "logs are taken from the queue"),
    ("max.in.flight", KEEPS_ORDER),
    ("max.in.flight.requests.per.connection", KEEPS_ORDER),
    ("message.max.bytes", "it is `kafka.message_bytes_max`"),
    ("message.send.max.retries", KEEPS_ORDER),
    ("message.timeout.ms", KEEPS_ORDER),
    ("metadata.broker.list", "it is `kafka.brokers`"),
    ("partitioner", "other producers of the topic agree on the partition of a key"),
    ("request.required.acks", KEEPS_RECORDS),
    ("retries", KEEPS_ORDER),
    ("session.timeout.ms", "it is `replies.session_timeout`"),
    ("statistics.interval.ms", "readiness is read from the statistics"),
    ("test.mock.num.brokers", "`sluice dev` has a development broker"),
    ("transaction.timeout.ms", "Sluice has no transactions of Kafka's"),
    ("transactional.id", KEEPS_ORDER),
];

/// Why a setting of librdkafka may not be told otherwise; `None` where it may.
#[must_use]
pub fn reserved(name: &str) -> Option<&'static str> {
    RESERVED.iter().find(|(reserved, _)| *reserved == name).map(|(_, reason)| *reason)
}

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let kafka = &config.kafka;
    brokers(kafka.brokers.trim(), problems);
    if kafka.group.is_empty() {
        problems.push(Problem::new("kafka.group", "must not be empty"));
    }
    let sections = [("properties", &kafka.properties), ("producer", &kafka.producer), ("consumer", &kafka.consumer)];
    for (section, settings) in sections {
        for (name, value) in settings {
            let reason = match reserved(name) {
                Some(reason) => Some(format!("is set by Sluice: {reason}")),
                None => unserved(name, value),
            };
            problems.extend(reason.map(|reason| Problem::new(format!("kafka.{section}.{name}"), reason)));
        }
        mechanism(section, settings, &kafka.properties, problems);
    }
}

fn brokers(brokers: &str, problems: &mut Vec<Problem>) {
    for broker in brokers.split(',').map(str::trim).filter(|_| !brokers.is_empty()) {
        let address = broker.split_once("://").map_or(broker, |(_, address)| address);
        let is_address = match address.rsplit_once(':') {
            // The last `:` of a bare IPv6 address belongs to the address.
            Some((host, port)) if !port.ends_with(']') => {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            }
            _ => !address.is_empty(),
        };
        if !is_address || address.contains(char::is_whitespace) {
            problems.push(Problem::new("kafka.brokers", format!("`{broker}` is no broker: expected HOST:PORT")));
        }
    }
}

/// Why this program cannot do what a setting asks for.
fn unserved(name: &str, value: &str) -> Option<String> {
    let value = value.trim().to_ascii_lowercase();
    let needs_tls = match name {
        "security.protocol" => value.contains("ssl"),
        "sasl.mechanism" | "sasl.mechanisms" => match value.as_str() {
            "plain" => false,
            "scram-sha-256" | "scram-sha-512" => true,
            _ => return Some(format!("`{value}` is not served: expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")),
        },
        _ => name.starts_with("ssl.") || name == "enable.ssl.certificate.verification",
    };
    (needs_tls && !HAS_TLS).then(|| {
        "this program was built without TLS towards Kafka: take a released one, or build it with `--features kafka-tls` \
         (needs OpenSSL's headers, such as Debian's `libssl-dev`)"
            .to_owned()
    })
}

/// librdkafka's own default mechanism is one that this program does not have.
fn mechanism(
    section: &str,
    settings: &BTreeMap<String, String>,
    common: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    let is_named = |settings: &BTreeMap<String, String>| {
        settings.contains_key("sasl.mechanism") || settings.contains_key("sasl.mechanisms")
    };
    let is_sasl =
        settings.get("security.protocol").is_some_and(|protocol| protocol.to_ascii_lowercase().starts_with("sasl_"));
    if is_sasl && !is_named(settings) && !is_named(common) {
        let reason = "with SASL a mechanism must be named: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
        let related = format!("kafka.{section}.security.protocol");
        problems.push(Problem::new(format!("kafka.{section}.sasl.mechanism"), reason).with(&[&related]));
    }
}
