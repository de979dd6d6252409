//! Looks at everything a node needs, from outside of it: what is wrong, whose fault that is and what to do.
//!
//! A check gathers facts, and a pure function beside it says what they are worth. Nothing is changed by it, but for the topic of
//! its own that the clocks are compared by, where that is asked for.

mod clocks;
mod database;
mod disk;
mod plugins;
mod topics;

use std::time::Duration;

use serde::Serialize;

use crate::broker::{Broker, BrokerError};
use crate::clock::Clock;
use crate::config::Config;

/// How long one answer of a broker or a database may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// There was nothing to look at, or it could not be looked at for a reason told elsewhere.
    Skipped,
    /// It works, and something will go wrong one day.
    Warning,
    /// A node does not work as it is.
    Failed,
}

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    Configuration,
    Machine,
    Database,
    Network,
    Kafka,
    Plugin,
}

impl Fault {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "the configuration",
            Self::Machine => "this machine",
            Self::Database => "the database",
            Self::Network => "the network",
            Self::Kafka => "Kafka",
            Self::Plugin => "the plugin",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `database`, `broker`, `topics`, `clocks`, `disk` or `plugins`.
    pub check: &'static str,
    /// Which one of them, such as a topic's name.
    pub subject: String,
    pub state: State,
    /// What was found.
    pub said: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn new(check: &'static str, subject: impl Into<String>, state: State, said: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), state, said: said.into(), fault: None, advice: None }
    }

    fn ok(check: &'static str, subject: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(check, subject, State::Ok, said)
    }

    fn skipped(check: &'static str, subject: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(check, subject, State::Skipped, said)
    }

    fn bad(
        (check, subject): (&'static str, &str),
        state: State,
        said: impl Into<String>,
        fault: Fault,
        advice: impl Into<String>,
    ) -> Self {
        Self { fault: Some(fault), advice: Some(advice.into()), ..Self::new(check, subject, state, said) }
    }
}

/// What may be done to find out more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Means {
    /// Make a topic, write one record to it and remove it.
    pub may_write: bool,
}

/// Looks at everything; blocks for as long as that takes.
#[must_use]
pub fn examine(config: &Config, clock: &Clock, means: Means) -> Vec<Finding> {
    let mut findings = database::examine(&config.database, clock, ANSWER_LIMIT);
    findings.extend(disk::examine(config));
    findings.extend(kafka(config, clock, means));
    findings.extend(plugins::examine(config));
    findings
}

/// Broker, topics, and its clock: one after the other, since without the first there is nothing to ask.
fn kafka(config: &Config, clock: &Clock, means: Means) -> Vec<Finding> {
    let brokers = config.kafka.brokers.as_str();
    if brokers.is_empty() {
        let said = "kafka.brokers is empty: `sluice dev` brings a broker of its own, `sluice run` needs one named";
        return vec![Finding::skipped("broker", "kafka.brokers", said)];
    }
    let broker = match Broker::connect(&config.kafka, ANSWER_LIMIT) {
        Ok(broker) => broker,
        Err(error) => {
            let advice = "correct it in the configuration (`sluice config` shows what is in force)";
            let at = ("broker", "kafka");
            return vec![Finding::bad(at, State::Failed, error.to_string(), Fault::Configuration, advice)];
        }
    };
    let cluster = match broker.cluster() {
        Ok(cluster) => cluster,
        Err(error) => return vec![unreachable(brokers, &error)],
    };
    let said = format!("answers; the cluster has {} broker(s): {}", cluster.brokers.len(), cluster.brokers.join(", "));
    let mut findings = vec![Finding::ok("broker", brokers, said)];
    let uses = topics::uses(config);
    let names: Vec<String> = uses.keys().cloned().collect();
    match broker.topics(&names) {
        Ok(found) => {
            findings.extend(topics::judge(config, &uses, &found));
            findings.extend(clocks::of_records(&found, clock.now()));
        }
        Err(error) => findings.push(Finding::bad(
            ("topics", ""),
            State::Failed,
            error.to_string(),
            Fault::Kafka,
            "let the gateway's user DESCRIBE its topics",
        )),
    }
    findings.push(clocks::of_broker(&broker, clock, means));
    findings
}

/// What it is that keeps us from the broker: who has to act differs.
fn unreachable(brokers: &str, error: &BrokerError) -> Finding {
    let said = error.to_string();
    let lower = said.to_ascii_lowercase();
    let (fault, advice) = if lower.contains("authentication") || lower.contains("sasl") {
        (Fault::Configuration, "correct the user, the password or the mechanism (`sasl.*` in [kafka.properties])")
    } else if lower.contains("ssl") || lower.contains("certificate") {
        (Fault::Configuration, "see that the certificates and `security.protocol` fit those of the broker")
    } else if lower.contains("apiversion") || lower.contains("invalid response") || lower.contains("frame") {
        (
            Fault::Configuration,
            "what listens there does not speak Kafka as it is asked: is it the broker's port, and does \
             `security.protocol` fit it?",
        )
    } else if lower.contains("resolve") {
        (Fault::Network, "no such host: correct kafka.brokers, or the name service of this machine")
    } else {
        (Fault::Network, "is the broker up, is that its port (kafka.brokers), and does a firewall let us through?")
    };
    Finding::bad(("broker", brokers), State::Failed, said, fault, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_us_from_the_broker_is_told_by_what_was_said() {
        for (said, fault) in [
            ("a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused", Fault::Network),
            ("a:1/bootstrap: Failed to resolve 'a:1': Name or service not known", Fault::Network),
            ("SASL authentication error: Invalid username or password", Fault::Configuration),
            ("SSL handshake failed: certificate verify failed", Fault::Configuration),
            (
                "Disconnected while requesting ApiVersion: might be caused by incorrect security.protocol",
                Fault::Configuration,
            ),
        ] {
            let found = unreachable("a:1", &BrokerError::Unreachable(vec![said.to_owned()]));
            assert_eq!((found.fault, found.state), (Some(fault), State::Failed), "{found:?}");
            assert!(found.advice.is_some());
        }
    }
}
