//! Whether the topics are there, and whether what is set on them keeps what Sluice promises.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fault, Finding, State};
use crate::broker::TopicFacts;
use crate::config::Config;

const CHECK: &str = "topics";

/// What a topic is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    Orders,
    Outcomes,
    Replies,
}

/// Every topic of the configuration, and what for.
pub(super) fn uses(config: &Config) -> BTreeMap<String, BTreeSet<Use>> {
    let mut uses: BTreeMap<String, BTreeSet<Use>> = BTreeMap::new();
    for route in &config.route {
        let outcomes = route.outcomes.iter().map(|topic| (topic.as_str(), Use::Outcomes));
        let replies = route.replies.iter().map(|replies| (replies.topic.as_str(), Use::Replies));
        let orders = route.topics().map(|topic| (topic, Use::Orders));
        for (topic, what_for) in orders.chain(outcomes).chain(replies) {
            uses.entry(topic.to_owned()).or_default().insert(what_for);
        }
    }
    uses
}

/// What was found about each topic; one line where nothing is wrong with it.
pub(super) fn judge(
    config: &Config,
    uses: &BTreeMap<String, BTreeSet<Use>>,
    found: &BTreeMap<String, TopicFacts>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (topic, uses) in uses {
        let facts = found.get(topic).cloned().unwrap_or_default();
        let mut wrong = if facts.partitions == 0 {
            vec![missing(config, topic, uses, &facts)]
        } else {
            [
                size(config, topic, uses, &facts),
                stamps(topic, uses, &facts),
                copies(topic, &facts),
                kept(config, topic, uses, &facts),
                hidden(topic, &facts),
            ]
            .into_iter()
            .flatten()
            .collect()
        };
        if wrong.is_empty() {
            let said = format!("{} partition(s), {} replica(s)", facts.partitions, facts.replicas);
            wrong.push(Finding::ok(CHECK, topic, said));
        }
        findings.append(&mut wrong);
    }
    findings
}

fn bad(topic: &str, state: State, said: String, fault: Fault, advice: String) -> Finding {
    Finding::bad((CHECK, topic), state, said, fault, advice)
}

fn missing(config: &Config, topic: &str, uses: &BTreeSet<Use>, facts: &TopicFacts) -> Finding {
    if let Some(refusal) = &facts.refusal {
        let advice = "let the gateway's user DESCRIBE it, and WRITE or READ it".to_owned();
        return bad(
            topic,
            State::Failed,
            format!("the cluster refuses to tell of it: {refusal}"),
            Fault::Kafka,
            advice,
        );
    }
    let setting = if uses.contains(&Use::Replies) {
        "message.timestamp.type=LogAppendTime".to_owned()
    } else {
        format!("max.message.bytes={}", config.kafka.message_bytes_max.0)
    };
    let advice = format!("create it: kafka-topics.sh --create --topic {topic} --partitions 12 --config {setting}");
    bad(topic, State::Failed, "it is not there".to_owned(), Fault::Kafka, advice)
}

fn number(facts: &TopicFacts, name: &str) -> Option<i64> {
    facts.settings.get(name)?.parse().ok()
}

/// The largest legal record must fit.
fn size(config: &Config, topic: &str, uses: &BTreeSet<Use>, facts: &TopicFacts) -> Option<Finding> {
    let (theirs, ours) = (number(facts, "max.message.bytes")?, config.kafka.message_bytes_max.0);
    if !uses.contains(&Use::Orders) || usize::try_from(theirs).is_ok_and(|theirs| theirs >= ours) {
        return None;
    }
    let said =
        format!("takes records of {theirs} bytes, kafka.message_bytes_max is {ours}: larger ones are dead letters");
    let advice =
        format!("set max.message.bytes={ours} on it, or lower kafka.message_bytes_max and http.body_bytes_max");
    Some(bad(topic, State::Warning, said, Fault::Kafka, advice))
}

/// Whether a reply is in time is told by its time: it should not be the sender's.
fn stamps(topic: &str, uses: &BTreeSet<Use>, facts: &TopicFacts) -> Option<Finding> {
    let kind = facts.settings.get("message.timestamp.type")?;
    if !uses.contains(&Use::Replies) || kind == "LogAppendTime" {
        return None;
    }
    let said =
        format!("its records carry the sender's time ({kind}): a service with a wrong clock is late or never late");
    let advice = "set message.timestamp.type=LogAppendTime on it".to_owned();
    Some(bad(topic, State::Warning, said, Fault::Kafka, advice))
}

/// An acknowledged record must survive the loss of a broker.
fn copies(topic: &str, facts: &TopicFacts) -> Option<Finding> {
    if facts.in_step < facts.replicas {
        let said = format!("only {} of {} replicas are in step", facts.in_step, facts.replicas);
        let advice = "see which broker is down or behind".to_owned();
        return Some(bad(topic, State::Warning, said, Fault::Kafka, advice));
    }
    let enough = number(facts, "min.insync.replicas")?;
    let (said, advice) = if facts.replicas < 2 {
        let said = "has one replica: what is acknowledged is lost with its broker".to_owned();
        (said, "in production give it three (and min.insync.replicas=2)".to_owned())
    } else if enough < 2 {
        let said = "min.insync.replicas is 1: a record may be acknowledged that only one broker has".to_owned();
        (said, "set min.insync.replicas=2 on it".to_owned())
    } else {
        return None;
    };
    Some(bad(topic, State::Warning, said, Fault::Kafka, advice))
}

/// Records must stay until they are read.
fn kept(config: &Config, topic: &str, uses: &BTreeSet<Use>, facts: &TopicFacts) -> Option<Finding> {
    let policy = facts.settings.get("cleanup.policy")?;
    if policy.contains("compact") && !uses.contains(&Use::Outcomes) {
        let said = "is compacted: of one order key only the newest record stays".to_owned();
        let advice = "set cleanup.policy=delete on it".to_owned();
        return Some(bad(topic, State::Failed, said, Fault::Kafka, advice));
    }
    let kept = number(facts, "retention.ms").filter(|kept| *kept >= 0)?;
    let of_topic =
        config.route.iter().filter_map(|route| route.replies.as_ref()).filter(|replies| replies.topic == topic);
    let deadline = of_topic.map(|replies| replies.deadline.0.as_millis()).max()?;
    if i128::from(kept) >= i128::try_from(deadline).unwrap_or(i128::MAX) {
        return None;
    }
    let said =
        format!("keeps records {kept} ms, the deadline for replies is {deadline} ms: replies are lost in an outage");
    Some(bad(topic, State::Failed, said, Fault::Kafka, "raise retention.ms of it to days".to_owned()))
}

/// What may not be seen cannot be judged.
fn hidden(topic: &str, facts: &TopicFacts) -> Option<Finding> {
    let refusal = facts.refusal.as_ref()?;
    let advice = "let the gateway's user DESCRIBE_CONFIGS of it for this check".to_owned();
    Some(bad(topic, State::Warning, format!("cannot be looked at: {refusal}"), Fault::Kafka, advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::assemble;

    fn facts(settings: &[(&str, &str)]) -> TopicFacts {
        let given = [
            ("max.message.bytes", "4194304"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.insync.replicas", "2"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "604800000"),
        ];
        let all = given.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        TopicFacts { partitions: 12, replicas: 3, in_step: 3, settings: all.collect(), ..TopicFacts::default() }
    }

    /// What is said of one topic of the default route, all others being right.
    fn said(topic: &str, facts_of_it: TopicFacts) -> Finding {
        let config = assemble(None, []).unwrap();
        let uses = uses(&config);
        let mut found: BTreeMap<String, TopicFacts> = uses.keys().map(|name| (name.clone(), facts(&[]))).collect();
        found.insert(topic.to_owned(), facts_of_it);
        let findings = judge(&config, &uses, &found);
        let (of_it, others): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.subject == topic);
        assert!(others.len() == 2 && others.iter().all(|finding| finding.state == State::Ok), "{others:?}");
        assert_eq!(of_it.len(), 1, "{of_it:?}");
        of_it.into_iter().next().unwrap()
    }

    #[test]
    fn a_topic_is_found_wrong_in_each_way_it_can_be() {
        let refusal = TopicFacts { refusal: Some("no right".to_owned()), ..facts(&[]) };
        let unseen = TopicFacts { refusal: Some("no right".to_owned()), ..TopicFacts::default() };
        for (topic, facts, state, word) in [
            ("orders", TopicFacts::default(), State::Failed, "not there"),
            ("orders", unseen, State::Failed, "refuses to tell"),
            ("orders", facts(&[("max.message.bytes", "1048588")]), State::Warning, "1048588 bytes"),
            ("order-replies", facts(&[("message.timestamp.type", "CreateTime")]), State::Warning, "CreateTime"),
            ("orders", TopicFacts { replicas: 1, in_step: 1, ..facts(&[]) }, State::Warning, "one replica"),
            ("orders", TopicFacts { in_step: 2, ..facts(&[]) }, State::Warning, "2 of 3"),
            ("orders", facts(&[("min.insync.replicas", "1")]), State::Warning, "min.insync.replicas is 1"),
            ("orders", facts(&[("cleanup.policy", "compact")]), State::Failed, "compacted"),
            ("order-replies", facts(&[("retention.ms", "1000")]), State::Failed, "keeps records 1000 ms"),
            ("orders", refusal, State::Warning, "cannot be looked at"),
        ] {
            let found = said(topic, facts);
            assert!(found.state == state && found.said.contains(word) && found.advice.is_some(), "{word}: {found:?}");
        }
        // What counts for one use does not for another.
        assert_eq!(said("orders", facts(&[("message.timestamp.type", "CreateTime")])).state, State::Ok);
        assert_eq!(said("order-outcomes", facts(&[("cleanup.policy", "compact")])).state, State::Ok);
        assert_eq!(said("order-replies", facts(&[("max.message.bytes", "1000")])).state, State::Ok);
    }
}
