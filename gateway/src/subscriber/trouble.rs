//! What keeps replies from being read, in words, with what the operator can do about it.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Trouble with the reading side.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    code: Option<RDKafkaErrorCode>,
    said: String,
}

impl Trouble {
    pub(super) fn of(error: &KafkaError) -> Self {
        Self { code: error.rdkafka_error_code(), said: error.to_string() }
    }

    /// Whether it is the same again. Errors without a code differ each time.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.code.is_some() && self.code == other.code
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)?;
        match self.code.map_or("", advice) {
            "" => Ok(()),
            advice => write!(f, ": {advice}"),
        }
    }
}

fn advice(code: RDKafkaErrorCode) -> &'static str {
    use RDKafkaErrorCode as C;
    match code {
        C::UnknownTopic | C::UnknownTopicOrPartition | C::InvalidTopic => {
            "create the reply topics, or correct `route.replies.topic` in the configuration"
        }
        C::TopicAuthorizationFailed => "let the gateway's user READ the reply topics (and DESCRIBE them)",
        C::GroupAuthorizationFailed => "let the gateway's user READ the group `kafka.group`",
        C::InconsistentGroupProtocol => "another program is in the group: give this gateway a `kafka.group` of its own",
        C::Authentication | C::SaslAuthenticationFailed | C::UnsupportedSASLMechanism => {
            "correct the user, the password or the mechanism (`sasl.*`) in the configuration"
        }
        C::SSL => "see that the certificates and `security.protocol` fit those of the broker",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_says_what_can_be_done() {
        let unknown = Trouble::of(&KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition));
        assert!(unknown.to_string().contains("create the reply topics"), "{unknown}");
        assert!(unknown.is_same(&unknown.clone()));
        let away = Trouble::of(&KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure));
        assert!(!away.is_same(&unknown));
    }
}
