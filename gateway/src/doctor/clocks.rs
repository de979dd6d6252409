//! Whether clocks agree: ours with the database's, and with the broker's.
//!
//! Deadlines are counted by the database's, which on SQLite is ours, and a reply is in time by the broker's (PROTOCOL R4).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Fault, Finding, Means, State};
use crate::broker::{Broker, TimeFacts, TopicFacts};
use crate::clock::{Clock, Timestamp};

const CHECK: &str = "clocks";

/// Beyond this, replies near a deadline are judged by the wrong clock now and then.
const NOTABLE: Duration = Duration::from_secs(1);
/// Beyond this, whole deadlines are.
const GRAVE: Duration = Duration::from_secs(10);

const ADVICE: &str = "let both machines follow the same time service (such as chrony)";

/// Topic of our own by which the broker tells the time.
const TOPIC: &str = "sluice-doctor";

/// What a difference is worth. `uncertain` is how long the question took.
pub(super) fn judge(whose: &str, theirs: Timestamp, ours: Timestamp, uncertain: Duration, fault: Fault) -> Finding {
    let apart = theirs.since(ours).max(ours.since(theirs));
    let word = if theirs > ours { "ahead of" } else { "behind" };
    let said = format!("{whose} is {} ms {word} ours, give or take {} ms", apart.as_millis(), uncertain.as_millis());
    let state = match apart.saturating_sub(uncertain) {
        apart if apart > GRAVE => State::Failed,
        apart if apart > NOTABLE => State::Warning,
        _ => return Finding::ok(CHECK, whose, said),
    };
    Finding::bad((CHECK, whose), state, said, fault, ADVICE)
}

/// What records tell without being asked: none that the broker stamped can be from the future.
pub(super) fn of_records(topics: &BTreeMap<String, TopicFacts>, now: Timestamp) -> Option<Finding> {
    let is_stamped =
        |facts: &TopicFacts| facts.settings.get("message.timestamp.type").is_some_and(|kind| kind == "LogAppendTime");
    let stamped = topics.iter().filter(|(_, facts)| is_stamped(facts));
    let (topic, newest) = stamped.filter_map(|(name, facts)| Some((name, facts.newest?))).max_by_key(|(_, at)| *at)?;
    if newest <= now.after(NOTABLE) {
        return None;
    }
    let said = format!(
        "the broker's clock is ahead of ours: it stamped a record of `{topic}` {} ms from now",
        newest.since(now).as_millis()
    );
    let state = if newest > now.after(GRAVE) { State::Failed } else { State::Warning };
    Some(Finding::bad((CHECK, "records"), state, said, Fault::Machine, ADVICE))
}

/// Asks the broker itself, where a record may be written for that.
pub(super) fn of_broker(broker: &Broker, clock: &Clock, means: Means) -> Finding {
    if !means.may_write {
        let said = "Kafka tells the time only with a record: `--write` makes a topic of its own for it, and removes it";
        return Finding::skipped(CHECK, "broker", said);
    }
    let name = format!("{TOPIC}-{}", clock.now().0);
    match broker.time(&name, clock) {
        Ok(TimeFacts { theirs, before, after }) => {
            let half = after.since(before) / 2;
            judge("the broker's clock", theirs, before.after(half), half, Fault::Machine)
        }
        Err(error) => {
            let advice = "let the gateway's user CREATE topics for this check, or leave `--write` out";
            Finding::bad((CHECK, "broker"), State::Warning, error.to_string(), Fault::Kafka, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Timestamp = Timestamp(1_290_000_000_000);
    const QUICK: Duration = Duration::from_millis(5);

    #[test]
    fn clocks_that_differ_are_judged_by_how_much() {
        for (millis, state) in [(3, State::Ok), (-900, State::Ok), (2_000, State::Warning), (-60_000, State::Failed)] {
            let theirs = Timestamp(OURS.0 + millis);
            let found = judge("the broker's clock", theirs, OURS, QUICK, Fault::Machine);
            assert_eq!(found.state, state, "{found:?}");
        }
        let ahead = judge("the broker's clock", OURS.after(GRAVE * 6), OURS, QUICK, Fault::Machine);
        assert!(ahead.said.contains("60000 ms ahead of ours"), "{ahead:?}");
        // A slow answer says little.
        let slow = judge("the broker's clock", OURS.after(NOTABLE * 3), OURS, NOTABLE * 5, Fault::Machine);
        assert_eq!(slow.state, State::Ok);
    }

    #[test]
    fn a_stamp_from_the_future_betrays_the_brokers_clock() {
        let facts = |kind: &str, newest| TopicFacts {
            settings: [("message.timestamp.type".to_owned(), kind.to_owned())].into(),
            newest: Some(newest),
            ..TopicFacts::default()
        };
        let minute = OURS.after(Duration::from_secs(60));
        let by_broker = BTreeMap::from([("r".to_owned(), facts("LogAppendTime", minute))]);
        assert_eq!(of_records(&by_broker, OURS).unwrap().state, State::Failed);
        assert_eq!(of_records(&by_broker, minute), None);
        let by_sender = BTreeMap::from([("r".to_owned(), facts("CreateTime", minute))]);
        assert_eq!(of_records(&by_sender, OURS), None);
    }
}
