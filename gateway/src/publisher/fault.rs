//! Whose fault it is that a record is not on Kafka: every error code of producing, sorted one by one.
//!
//! Pure. What can go away by itself librdkafka retries without end (`message.timeout.ms=0`) and is never seen here.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{DeliveryFault, SendError};

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The record, or another one of its batch.
    Record,
    /// The topic or the cluster: no record for it would fare better.
    Destination,
    /// The producer's state, or somebody else's record: the same record may pass next time.
    Producer,
}

/// Who is at fault for an error code; for an unknown one the producer, since that loses nothing.
#[expect(clippy::too_many_lines, reason = "one line per code is the point")]
pub(super) fn blame(code: RDKafkaErrorCode) -> Blame {
    use RDKafkaErrorCode as C;
    match code {
        C::MessageSizeTooLarge
        | C::MessageBatchTooLarge
        | C::InvalidMessageSize
        | C::InvalidMessage
        | C::InvalidRecord
        | C::InvalidTimestamp
        | C::PolicyViolation
        | C::KeySerialization
        | C::ValueSerialization => Blame::Record,

        C::UnknownTopic
        | C::UnknownPartition
        | C::UnknownTopicOrPartition
        | C::UnknownTopicId
        | C::InvalidTopic
        | C::TopicAuthorizationFailed
        | C::ClusterAuthorizationFailed
        | C::TransactionalIdAuthorizationFailed
        | C::Authentication
        | C::SaslAuthenticationFailed
        | C::UnsupportedSASLMechanism
        | C::IllegalSASLState
        | C::SecurityDisabled
        | C::SSL
        | C::InvalidRequiredAcks
        | C::InvalidConfig
        | C::UnsupportedVersion
        | C::UnsupportedFeature
        | C::UnsupportedForMessageFormat
        | C::UnsupportedCompressionType
        | C::BadCompression
        | C::NotConfigured
        | C::ISRInsufficient
        | C::InvalidPartitions
        | C::InvalidReplicationFactor => Blame::Destination,

        C::Fatal
        | C::GaplessGuarantee
        | C::PurgeQueue
        | C::PurgeInflight
        | C::InvalidDifferentRecord
        | C::OutOfOrderSequenceNumber
        | C::DuplicateSequenceNumber
        | C::UnknownProducerId
        | C::InvalidProducerEpoch
        | C::InvalidProducerIdMapping
        | C::InvalidTransactionalState
        | C::ConcurrentTransactions
        | C::ProducerFenced
        | C::Fenced
        | C::State
        | C::Inconsistent
        | C::MessageTimedOut
        | C::TimedOutQueue
        | C::OperationTimedOut
        | C::RequestTimedOut
        | C::NetworkException
        | C::BrokerTransportFailure
        | C::BrokerDestroy
        | C::DestroyBroker
        | C::AllBrokersDown
        | C::Resolve
        | C::LeaderNotAvailable
        | C::NotLeaderForPartition
        | C::FencedLeaderEpoch
        | C::UnknownLeaderEpoch
        | C::BrokerNotAvailable
        | C::ReplicaNotAvailable
        | C::NotEnoughReplicas
        | C::NotEnoughReplicasAfterAppend
        | C::KafkaStorageError
        | C::ThrottlingQuotaExceeded
        | C::InvalidRequest
        | C::InvalidArgument
        | C::BadMessage
        | C::CriticalSystemResource
        | C::Interrupted
        | C::Retry
        | C::Fail
        | C::Unknown => Blame::Producer,

        // The rest is not about producing.
        _ => Blame::Producer,
    }
}

/// What a failed delivery means; `is_alone` where the record was the only one of its batch.
pub(super) fn delivery(code: RDKafkaErrorCode, is_alone: bool) -> DeliveryFault {
    match blame(code) {
        Blame::Record if is_alone => DeliveryFault::Refused(code.to_string()),
        Blame::Record => DeliveryFault::Broken(format!("its batch was refused: {code}")),
        Blame::Destination => DeliveryFault::Stopped(code.to_string()),
        Blame::Producer => DeliveryFault::Broken(code.to_string()),
    }
}

/// What it means that a record was not taken; there it is always alone.
pub(super) fn refusal(error: &KafkaError) -> SendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => SendError::Full,
        Some(code) => match blame(code) {
            Blame::Record => SendError::Refused(code.to_string()),
            Blame::Destination => SendError::Stopped(code.to_string()),
            Blame::Producer => SendError::Broken(code.to_string()),
        },
        // The topic's name holds a zero byte.
        None => SendError::Stopped(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_is_blamed_on_the_right_one() {
        use RDKafkaErrorCode as C;
        for (code, expected) in [
            (C::MessageSizeTooLarge, Blame::Record),
            (C::MessageBatchTooLarge, Blame::Record),
            (C::InvalidRecord, Blame::Record),
            (C::InvalidTimestamp, Blame::Record),
            (C::InvalidDifferentRecord, Blame::Producer),
            (C::UnknownTopic, Blame::Destination),
            (C::UnknownPartition, Blame::Destination),
            (C::UnknownTopicOrPartition, Blame::Destination),
            (C::TopicAuthorizationFailed, Blame::Destination),
            (C::ClusterAuthorizationFailed, Blame::Destination),
            (C::UnsupportedForMessageFormat, Blame::Destination),
            (C::Fatal, Blame::Producer),
            (C::GaplessGuarantee, Blame::Producer),
            (C::PurgeQueue, Blame::Producer),
            (C::PurgeInflight, Blame::Producer),
            (C::OutOfOrderSequenceNumber, Blame::Producer),
            (C::MessageTimedOut, Blame::Producer),
            (C::NoOffset, Blame::Producer),
        ] {
            assert_eq!(blame(code), expected, "{code:?}");
        }
    }

    #[test]
    fn only_a_record_that_was_alone_is_refused() {
        let code = RDKafkaErrorCode::MessageSizeTooLarge;
        assert!(matches!(delivery(code, true), DeliveryFault::Refused(_)));
        assert!(matches!(delivery(code, false), DeliveryFault::Broken(_)));
        assert!(matches!(delivery(RDKafkaErrorCode::TopicAuthorizationFailed, false), DeliveryFault::Stopped(_)));
        assert!(matches!(delivery(RDKafkaErrorCode::PurgeQueue, true), DeliveryFault::Broken(_)));
    }

    #[test]
    fn a_full_queue_is_no_fault() {
        let refusal = |code| refusal(&KafkaError::MessageProduction(code));
        assert_eq!(refusal(RDKafkaErrorCode::QueueFull), SendError::Full);
        assert!(matches!(refusal(RDKafkaErrorCode::MessageSizeTooLarge), SendError::Refused(_)));
        assert!(matches!(refusal(RDKafkaErrorCode::UnknownTopic), SendError::Stopped(_)));
        assert!(matches!(refusal(RDKafkaErrorCode::Fatal), SendError::Broken(_)));
    }
}
