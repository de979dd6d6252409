//! What is known of the connection to Kafka: whether a broker answers, and what was last said where none does.

use std::sync::{Mutex, PoisonError};

use rdkafka::error::RDKafkaErrorCode;
use tracing::{info, warn};

use super::fault;

/// Whether a broker can be talked to, as far as librdkafka knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// No broker has answered yet; the last trouble with it, if there was any.
    Connecting(Option<String>),
    Up,
    /// None answers any more, and why.
    Down(String),
}

/// The link as the threads of one producer after the other see it.
#[derive(Debug)]
pub(super) struct LinkState {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    last_trouble: Option<String>,
}

impl LinkState {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner { link: Link::Connecting(None), last_trouble: None }) }
    }

    pub(super) fn link(&self) -> Link {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).link.clone()
    }

    pub(super) fn is_up(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last_trouble = None;
        if inner.link != Link::Up {
            inner.link = Link::Up;
            info!("connected to Kafka");
        }
    }

    /// Trouble with one broker. It says why the link is down, and does not by itself mean that it is.
    pub(super) fn trouble(&self, code: RDKafkaErrorCode, said: &str) {
        let trouble = match fault::advice(code) {
            "" => said.to_owned(),
            advice => format!("{said}: {advice}"),
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut inner.link {
            Link::Connecting(why) => *why = Some(trouble.clone()),
            Link::Down(why) => trouble.clone_into(why),
            Link::Up => {}
        }
        inner.last_trouble = Some(trouble);
    }

    pub(super) fn is_down(&self, said: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(inner.link, Link::Down(_)) {
            return;
        }
        let reason = inner.last_trouble.clone().unwrap_or_else(|| said.to_owned());
        warn!(reason, "Kafka is not reachable; records wait");
        inner.link = Link::Down(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_down_says_what_was_last_wrong() {
        let state = LinkState::new();
        assert_eq!(state.link(), Link::Connecting(None));
        state.trouble(RDKafkaErrorCode::Resolve, "no such host");
        assert_eq!(state.link(), Link::Connecting(Some("no such host".to_owned())));
        state.is_down("1/1 brokers are down");
        assert_eq!(state.link(), Link::Down("no such host".to_owned()));
        state.trouble(RDKafkaErrorCode::Authentication, "wrong password");
        let Link::Down(reason) = state.link() else { panic!("{:?}", state.link()) };
        assert!(reason.starts_with("wrong password: correct the user"), "{reason}");
    }

    #[test]
    fn trouble_with_one_broker_does_not_take_the_link_down() {
        let state = LinkState::new();
        state.is_up();
        state.trouble(RDKafkaErrorCode::BrokerTransportFailure, "one of three is away");
        assert_eq!(state.link(), Link::Up);
        state.is_down("3/3 brokers are down");
        assert_eq!(state.link(), Link::Down("one of three is away".to_owned()));
        state.is_up();
        state.is_down("3/3 brokers are down");
        assert_eq!(state.link(), Link::Down("3/3 brokers are down".to_owned()));
    }
}
