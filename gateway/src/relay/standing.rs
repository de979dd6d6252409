//! How Kafka stands as far as the sender can tell: what `/readyz` says of it. Degraded at worst, since orders are taken
//! all the same.

use std::time::{Duration, Instant};

use crate::lifecycle::Condition;
use crate::publisher::Link;

/// Records on their way and nothing acknowledged for so long: Kafka is slow, or hangs. An ordinary pause of a broker, such
/// as a change of leaders, is shorter.
const SILENCE: Duration = Duration::from_secs(10);

/// What follows for those who post orders.
const MEANWHILE: &str = "orders are taken up to intake.backlog_max, their records wait";

/// What the sender has seen of Kafka.
#[derive(Debug)]
pub(super) struct Standing {
    /// When Kafka last acknowledged a record, or the first one set out.
    heard_at: Instant,
    /// Why the cluster takes nothing of us at all.
    refusal: Option<String>,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self { heard_at: Instant::now(), refusal: None }
    }

    /// A record sets out while none was on its way.
    pub(super) fn sets_out(&mut self) {
        self.heard_at = Instant::now();
    }

    /// Kafka took a record.
    pub(super) fn acknowledged(&mut self) {
        self.heard_at = Instant::now();
        self.refusal = None;
    }

    /// The cluster takes nothing; returns whether that is news.
    pub(super) fn refused(&mut self, reason: String) -> bool {
        self.refusal.replace(reason).is_none()
    }

    pub(super) fn condition(&self, link: Link, in_flight: usize) -> Condition {
        let detail = match (link, &self.refusal) {
            (_, Some(reason)) => format!("the cluster refuses this gateway: {reason}"),
            (Link::Down(reason), None) => format!("no broker answers: {reason}"),
            (Link::Connecting(Some(reason)), None) => format!("no broker has answered yet: {reason}"),
            (Link::Connecting(None), None) => "no broker has answered yet".to_owned(),
            (Link::Up, None) if in_flight > 0 && self.heard_at.elapsed() > SILENCE => {
                format!(
                    "nothing acknowledged for {} s, {in_flight} records on their way",
                    self.heard_at.elapsed().as_secs()
                )
            }
            (Link::Up, None) => return Condition::Ready,
        };
        Condition::Degraded(format!("{detail}; {MEANWHILE}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(standing: &Standing, link: Link, in_flight: usize) -> String {
        match standing.condition(link, in_flight) {
            Condition::Degraded(detail) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_with_kafka_is_said_and_never_makes_the_node_unready() {
        let mut standing = Standing::new();
        assert_eq!(standing.condition(Link::Up, 0), Condition::Ready);
        assert!(said(&standing, Link::Down("connection refused".to_owned()), 0).contains("connection refused"));
        assert!(said(&standing, Link::Connecting(None), 0).starts_with("no broker has answered yet;"));
        assert!(standing.refused("no right".to_owned()));
        assert!(!standing.refused("no right".to_owned()));
        assert!(said(&standing, Link::Up, 0).contains("refuses this gateway: no right"));
        standing.acknowledged();
        assert_eq!(standing.condition(Link::Up, 5), Condition::Ready);
    }

    #[test]
    fn a_broker_that_says_nothing_is_slow_only_while_records_are_on_their_way() {
        let long_ago = Instant::now().checked_sub(SILENCE * 2).unwrap();
        let mut standing = Standing { heard_at: long_ago, refusal: None };
        assert_eq!(standing.condition(Link::Up, 0), Condition::Ready);
        assert!(said(&standing, Link::Up, 3).contains("3 records on their way"));
        standing.sets_out();
        assert_eq!(standing.condition(Link::Up, 3), Condition::Ready);
    }
}
