//! Topics that Kafka refuses: their slots wait, and one record after the other asks whether that has changed.
//!
//! Pure but for the clock of the pauses. A refusal costs its producer, and with it what is in flight for other topics. So
//! it is one record that is tried per topic and pause, not the first one of every slot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::order::Slot;
use crate::retry::backoff;

/// The topics that are refused at present.
#[derive(Debug, Default)]
pub(super) struct Stops {
    topics: BTreeMap<String, Stop>,
}

#[derive(Debug)]
struct Stop {
    /// What Kafka said, and what can be done about it.
    reason: String,
    times: u32,
    until: Instant,
    /// The record that is on its way to find out.
    probe: Option<(Slot, i64)>,
    /// Slots whose next record is for it.
    waiting: BTreeSet<Slot>,
}

impl Stops {
    /// Whether a record may be sent: it is for no such topic, or it is the one that asks.
    pub(super) fn may_send(&mut self, topic: &str, slot: Slot, number: i64) -> bool {
        let Some(stop) = self.topics.get_mut(topic) else { return true };
        stop.waiting.insert(slot);
        match stop.probe {
            Some(probe) => probe == (slot, number),
            None if stop.until > Instant::now() => false,
            None => {
                stop.probe = Some((slot, number));
                true
            }
        }
    }

    /// The topic of a slot's next record is refused; returns whether that is news.
    pub(super) fn refuse(&mut self, topic: &str, slot: Slot, reason: String, pause: (Duration, Duration)) -> bool {
        let is_news = !self.topics.contains_key(topic);
        let stop = self.topics.entry(topic.to_owned()).or_insert_with(|| Stop {
            reason: String::new(),
            times: 0,
            until: Instant::now(),
            probe: None,
            waiting: BTreeSet::new(),
        });
        stop.waiting.insert(slot);
        // The records behind the first one, refused with it, make the pause no longer.
        if stop.times == 0 || stop.probe.take().is_some() {
            stop.until = Instant::now() + backoff(pause.0, pause.1, stop.times, fastrand::f64());
            stop.times += 1;
        }
        stop.reason = reason;
        is_news
    }

    /// Kafka took a record of a topic; returns whether it was refused before.
    pub(super) fn pass(&mut self, topic: &str) -> bool {
        !self.topics.is_empty() && self.topics.remove(topic).is_some()
    }

    /// A slot is loaded afresh: what its record was to find out will not be heard.
    pub(super) fn forget_probe(&mut self, slot: Slot) {
        for stop in self.topics.values_mut() {
            stop.probe = stop.probe.filter(|(probing, _)| *probing != slot);
        }
    }

    /// A slot is not ours any more; nor is a topic's refusal that only it waited for.
    pub(super) fn leave(&mut self, slot: Slot) {
        self.forget_probe(slot);
        self.topics.retain(|_, stop| !stop.waiting.remove(&slot) || !stop.waiting.is_empty());
    }

    /// Every refused topic with its reason; `None` where there is none.
    pub(super) fn report(&self) -> Option<String> {
        let lines: Vec<String> =
            self.topics.iter().map(|(topic, stop)| format!("topic `{topic}`: {}", stop.reason)).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);
    const LONG: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(3600));

    #[test]
    fn one_record_asks_for_all() {
        let mut stops = Stops::default();
        assert!(stops.may_send("a", Slot(1), 1));
        assert!(stops.refuse("a", Slot(1), "no".to_owned(), NONE));
        assert!(stops.may_send("a", Slot(1), 1));
        assert!(!stops.may_send("a", Slot(2), 5));
        assert!(stops.may_send("a", Slot(1), 1), "also where the producer's queue was full");
        assert!(stops.may_send("b", Slot(2), 5), "other topics go on");
        assert!(!stops.refuse("a", Slot(1), "still no".to_owned(), NONE));
        assert_eq!(stops.report().unwrap(), "topic `a`: still no");
        assert!(stops.may_send("a", Slot(2), 5), "any slot may ask next");
        assert!(stops.pass("a") && !stops.pass("a"));
        assert!(stops.may_send("a", Slot(3), 9));
        assert_eq!(stops.report(), None);
    }

    #[test]
    fn a_refused_topic_is_left_alone_for_its_pause() {
        let mut stops = Stops::default();
        stops.refuse("a", Slot(1), "no".to_owned(), LONG);
        assert!(!stops.may_send("a", Slot(1), 1));
        // Fifty more were on their way.
        for _ in 0..50 {
            stops.refuse("a", Slot(1), "no".to_owned(), LONG);
        }
        assert_eq!(stops.topics["a"].times, 1);
    }

    #[test]
    fn a_question_that_its_producer_took_with_it_is_asked_again() {
        let mut stops = Stops::default();
        stops.refuse("a", Slot(1), "no".to_owned(), NONE);
        assert!(stops.may_send("a", Slot(1), 1));
        stops.forget_probe(Slot(1));
        assert!(stops.may_send("a", Slot(2), 7));
        stops.forget_probe(Slot(1));
        assert!(!stops.may_send("a", Slot(1), 1), "the other one still asks");
    }

    #[test]
    fn a_topic_is_no_longer_ours_to_tell_of_once_its_slots_have_left() {
        let mut stops = Stops::default();
        stops.refuse("a", Slot(1), "no".to_owned(), NONE);
        assert!(stops.may_send("a", Slot(2), 7));
        stops.leave(Slot(2));
        assert!(stops.may_send("a", Slot(1), 1), "the question left with its slot");
        stops.leave(Slot(5));
        assert!(stops.report().is_some());
        stops.leave(Slot(1));
        assert_eq!(stops.report(), None);
    }
}
